//! `longpin hold`

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufWriter, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, ExitStatus};
use std::time::Duration;

use anyhow::Context;
use longpin::Enforcement;
use longpin::activation::ByteRange;
use longpin::guard::Host;
use longpin::hold::{Backend, Hold, Refusal, RefusalKind, SwapHeader, Wait};
use longpin::preparation::PrepareOptions;

use longpin_linux::relay;
use rustix::fs::{MemfdFlags, memfd_create};

use super::{check, extents, prepare, swap_header};
use crate::cli;
use crate::output::{
    CANNOT_TELL, REFUSED, Reasons, Refusal as Refused, SYSTEM, USAGE, report, visible,
};

/// Names the file with the extents.
const EXTENTS: &str = "LONGPIN_EXTENTS";
/// As the shell has it: a command that cannot be run, and one that is not there.
const NOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;

pub(crate) fn run(options: &cli::Hold) -> anyhow::Result<ExitCode> {
    if options.prepare {
        prepare(options)?;
    }
    match options.backend {
        cli::Backend::Bpf if options.overwrite_head => {
            anstream::eprintln!("longpin: --overwrite-head is for --backend swap-header");
            return Ok(ExitCode::from(USAGE));
        }
        cli::Backend::Bpf => {}
        cli::Backend::SwapHeader => {
            if let Some(why) = swap_header::unfit(options) {
                anstream::eprintln!("longpin: {why}");
                return Ok(ExitCode::from(options.conflict_exit_code));
            }
        }
    }
    let held = match acquire(options) {
        Ok(held) => held,
        Err(refusal) => return Ok(explain(refusal, options)),
    };
    // Whatever fails, the hold ends.
    let code = tell(&held, options).and_then(|()| run_held(&held, options));
    swap_header::tell_released(&held.release().map_err(swap_header::refused)?)?;
    code
}

fn tell(held: &Hold, options: &cli::Hold) -> anyhow::Result<()> {
    if let Enforcement::Partial { missing } = held.enforcement() {
        anstream::eprintln!("longpin: this kernel does not enforce {missing:?}");
    }
    if let Some(moves) = held.moving_blocks() {
        let path = visible(&options.file.display().to_string());
        anstream::eprintln!("longpin: {path}: held are its pages; writes move its blocks: {moves}");
    }
    swap_header::tell(held, &options.file)
}

fn run_held(held: &Hold, options: &cli::Hold) -> anyhow::Result<ExitCode> {
    let Some((program, arguments)) = options.command.split_first() else {
        return Ok(ExitCode::SUCCESS);
    };
    let mut command = Command::new(program);
    command.args(arguments);
    let own;
    let to = match options.backend {
        cli::Backend::Bpf => held.token(),
        cli::Backend::SwapHeader => {
            // CMD inherits it: no MFD_CLOEXEC.
            let extents = memfd_create("longpin-extents", MemfdFlags::empty());
            own = File::from(extents.context("no memory for the extents")?);
            // The hold must be ended when CMD is told to end.
            relay::begin().context("cannot wait for signals")?;
            &own
        }
    };
    if held.has_blocks() {
        write_extents(to, held.file(), options)?;
        command.env(EXTENTS, format!("/proc/self/fd/{}", to.as_raw_fd()));
    }
    held.let_children_keep_it()
        .context("cannot hand on the hold")?;
    run_child(&mut command)
}

/// Standard output is CMD's.
fn prepare(options: &cli::Hold) -> Result<(), Refused> {
    let done = prepare::prepare(&options.file, &PrepareOptions::default());
    let done = done.map_err(|refused| Refused {
        status: match refused.status {
            REFUSED => options.conflict_exit_code,
            other => other,
        },
        ..refused
    })?;
    for line in prepare::lines(&options.file, &done, false) {
        anstream::eprintln!("longpin: {line}");
    }
    Ok(())
}

fn wait_of(options: &cli::Hold) -> Wait {
    match (options.nonblock, options.wait) {
        (true, _) => Wait::No,
        (false, Some(seconds)) => Wait::For(Duration::from_secs(seconds)),
        (false, None) => Wait::Forever,
    }
}

fn acquire(options: &cli::Hold) -> Result<Hold, Refusal> {
    let range = options.range.map(|range| ByteRange {
        offset: range.offset,
        len: range.len,
    });
    let backend = match options.backend {
        cli::Backend::Bpf => Backend::Bpf,
        cli::Backend::SwapHeader => {
            Backend::SwapHeader(SwapHeader::default().overwrite_head(options.overwrite_head))
        }
    };
    Hold::on(&options.file)
        .backend(backend)
        .level(super::plan::level_of(options.level))
        .range(range)
        .persist(options.persist)
        .wait(wait_of(options))
        .acquire(&Host::default())
}

/// The exit status is the user's for a refusal, and the usual one where the system failed.
fn explain(mut refusal: Refusal, options: &cli::Hold) -> ExitCode {
    let code = match (refusal.kind(), &refusal, options.backend) {
        (RefusalKind::CannotTell, ..) => CANNOT_TELL,
        (RefusalKind::System, ..) => SYSTEM,
        // The kernel swaps to it, and does not refuse what it refuses of swap files.
        (_, Refusal::Unproved { .. }, cli::Backend::SwapHeader) => SYSTEM,
        _ => options.conflict_exit_code,
    };
    if let Refusal::Unfit(report) = &mut refusal {
        check::name_layer(report);
    }
    let mut hints = refusal.hints();
    hints.extend(swap_header::offer(&refusal, options));
    let err = match refusal {
        Refusal::Unfit(unfit) => {
            let path = visible(&unfit.path.display().to_string());
            anyhow::Error::new(Reasons::of(&unfit)).context(format!("{path} cannot be held"))
        }
        other => anyhow::Error::new(other),
    };
    report(&err, false);
    for hint in hints {
        anstream::eprintln!("hint: {}", visible(&hint));
    }
    ExitCode::from(code)
}

/// Into a file that the command inherits.
fn write_extents(to: &File, of: &File, options: &cli::Hold) -> anyhow::Result<()> {
    let mut out = BufWriter::new(to);
    let printed = extents::print_json_of(&mut out, of, &options.file, options.backend);
    let written = printed.and_then(|()| Ok(out.flush()?));
    written.context("cannot write the extents down")
}

fn run_child(command: &mut Command) -> anyhow::Result<ExitCode> {
    let name: OsString = command.get_program().to_owned();
    let status = command.spawn().and_then(|mut child| {
        relay::to(child.id());
        let status = child.wait();
        relay::to(0);
        status
    });
    match status {
        Ok(status) => Ok(code_of(status)),
        Err(err) => {
            anstream::eprintln!("longpin: cannot run {}: {err}", name.to_string_lossy());
            let missing = err.kind() == ErrorKind::NotFound;
            Ok(ExitCode::from(if missing { NOT_FOUND } else { NOT_RUN }))
        }
    }
}

/// The command's own; of one that was killed, 128 and the signal.
fn code_of(status: ExitStatus) -> ExitCode {
    let signal = || status.signal().map(|signal| signal + 128);
    let code = status.code().or_else(signal);
    ExitCode::from(
        code.and_then(|code| u8::try_from(code).ok())
            .unwrap_or(SYSTEM),
    )
}
