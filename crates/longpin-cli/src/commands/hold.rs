//! `longpin hold`

use std::ffi::OsString;
use std::io::{BufWriter, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, ExitStatus};
use std::time::Duration;

use anyhow::Context;
use longpin::Enforcement;
use longpin::activation::Wanted;
use longpin::guard::Host;
use longpin::hold::{Hold, Refusal, Wait};

use super::extents;
use crate::cli;
use crate::output::{Reasons, SYSTEM, report};

/// Names the file with the extents.
const EXTENTS: &str = "LONGPIN_EXTENTS";
/// As the shell has it: a command that cannot be run, and one that is not there.
const NOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;

pub(crate) fn run(options: &cli::Hold) -> anyhow::Result<ExitCode> {
    let held = match acquire(options) {
        Ok(held) => held,
        Err(refusal) => return Ok(explain(refusal, options)),
    };
    if let Enforcement::Partial { missing } = held.enforcement() {
        anstream::eprintln!("longpin: this kernel does not enforce {missing:?}");
    }
    let mut child = options.command.split_first().map(|(program, arguments)| {
        let mut command = Command::new(program);
        command.args(arguments);
        command
    });
    if let (true, Some(command)) = (held.has_blocks(), &mut child) {
        write_extents(&held, options).context("cannot write the extents down")?;
        command.env(
            EXTENTS,
            format!("/proc/self/fd/{}", held.token().as_raw_fd()),
        );
    }
    let code = match child {
        Some(mut command) => run_child(&mut command),
        None => Ok(ExitCode::SUCCESS),
    };
    held.release()?;
    code
}

fn acquire(options: &cli::Hold) -> Result<Hold, Refusal> {
    let wait = match (options.nonblock, options.wait) {
        (true, _) => Wait::No,
        (false, Some(seconds)) => Wait::For(Duration::from_secs(seconds)),
        (false, None) => Wait::Forever,
    };
    let range = options.range.map(|range| Wanted {
        offset: range.offset,
        len: range.len,
    });
    Hold::on(&options.file)
        .level(super::plan::level_of(options.level))
        .range(range)
        .persist(options.persist)
        .wait(wait)
        .acquire(&Host::default())
}

/// The exit status is the user's for a refusal, and the usual one where the system failed.
fn explain(refusal: Refusal, options: &cli::Hold) -> ExitCode {
    let failed = matches!(
        refusal,
        Refusal::Ask { .. } | Refusal::Guard(_) | Refusal::Check(_) | Refusal::Map(_)
    );
    let code = match &refusal {
        Refusal::Guard(_) => SYSTEM,
        _ if failed => crate::output::CANNOT_TELL,
        _ => options.conflict_exit_code,
    };
    let hints = refusal.hints();
    let err = match refusal {
        Refusal::Unfit(unfit) => {
            let text = format!("{} cannot be held", unfit.path.display());
            anyhow::Error::new(Reasons::of(&unfit)).context(text)
        }
        other => anyhow::Error::new(other),
    };
    report(&err, false);
    for hint in hints {
        anstream::eprintln!("hint: {}", crate::output::visible(&hint));
    }
    ExitCode::from(code)
}

/// Into the token, which the command inherits.
fn write_extents(held: &Hold, options: &cli::Hold) -> anyhow::Result<()> {
    let mut out = BufWriter::new(held.token());
    extents::print_json_of(&mut out, held.file(), &options.file)?;
    out.flush()?;
    Ok(())
}

fn run_child(command: &mut Command) -> anyhow::Result<ExitCode> {
    let name: OsString = command.get_program().to_owned();
    match command.status() {
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
