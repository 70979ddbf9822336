//! `longpin hold --backend swap-header`, and what `ls`, `release` and `swapoff` know of such holds.

use std::fs::File;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use longpin::activation::quote;
use longpin::guard::GuardError;
use longpin::hold::heads::Heads;
use longpin::hold::swap_header::{self, EndError, Ended, Hold, Refusal, Request};
use longpin_linux::relay;
use rustix::fs::{MemfdFlags, memfd_create};

use super::hold::{EXTENTS, command_of, name_of, run_child, wait_of, write_extents};
use crate::cli;
use crate::output::{self, CANNOT_TELL, REFUSED, Reasons, SYSTEM, visible};

pub(super) fn run(options: &cli::Hold) -> anyhow::Result<ExitCode> {
    if let Some(why) = unfit(options) {
        anstream::eprintln!("longpin: {why}");
        return Ok(ExitCode::from(options.conflict_exit_code));
    }
    let request = Request::on(&options.file)
        .overwrite_head(options.overwrite_head)
        .persist(options.persist)
        .wait(wait_of(options));
    let held = match request.acquire() {
        Ok(held) => held,
        Err(refusal) => return Ok(explain(refusal, options)),
    };
    // Whatever fails, the hold ends.
    let code = tell(&held, &options.file).and_then(|()| run_held(&held, options));
    if options.persist {
        return code;
    }
    let ended = held.release().map_err(refused)?;
    tell_unpinned(&ended);
    if !ended.was_held {
        anyhow::bail!(
            "{} was not held to the end: somebody ended swapping to it",
            visible(&ended.path.display().to_string())
        );
    }
    code
}

/// What this backend does not do, and why.
fn unfit(options: &cli::Hold) -> Option<&'static str> {
    if options.level == cli::Level::Layout {
        let why = "--backend swap-header holds at level swapfile only: the kernel refuses writes to a swap file, too";
        return Some(why);
    }
    let why = "--backend swap-header holds the whole file, and gives up its first 8 KiB: it takes no --range";
    options.range.is_some().then_some(why)
}

fn tell(held: &Hold, file: &Path) -> anyhow::Result<()> {
    let path = visible(&file.display().to_string());
    anstream::eprintln!(
        "longpin: {path}: hold {} by backend swap-header: the kernel swaps to it; its first 8 KiB are given up until the end",
        held.id()
    );
    if let Some(mode) = held.readable_by_others()? {
        anstream::eprintln!(
            "longpin: {path}: mode {mode:04o}: others may read the page of memory that may come to lie there"
        );
        anstream::eprintln!("hint: chmod go-r {}", quote(file));
    }
    Ok(())
}

fn run_held(held: &Hold, options: &cli::Hold) -> anyhow::Result<ExitCode> {
    let Some(mut command) = command_of(options) else {
        return Ok(ExitCode::SUCCESS);
    };
    // CMD inherits it: no MFD_CLOEXEC.
    let extents = memfd_create("longpin-extents", MemfdFlags::empty());
    let extents = File::from(extents.context("no memory for the extents")?);
    write_extents(&extents, held.file(), options)?;
    command.env(EXTENTS, name_of(&extents));
    held.let_children_keep_it()
        .context("cannot hand on the hold")?;
    // The hold must be ended when CMD is told to end.
    relay::begin().context("cannot wait for signals")?;
    run_child(&mut command)
}

fn explain(refusal: Refusal, options: &cli::Hold) -> ExitCode {
    let code = match &refusal {
        Refusal::Ask { .. } => CANNOT_TELL,
        other if other.is_of_the_system() => SYSTEM,
        _ => options.conflict_exit_code,
    };
    let hints = refusal.hints();
    let err = match refusal {
        Refusal::Unfit(report) => {
            let text = format!(
                "{} cannot be held",
                visible(&report.path.display().to_string())
            );
            anyhow::Error::new(Reasons::of(&report)).context(text)
        }
        other => other.into(),
    };
    output::report(&err, false);
    for hint in hints {
        anstream::eprintln!("hint: {}", visible(&hint));
    }
    ExitCode::from(code)
}

/// Where BPF cannot hold, this can: the same command with the other backend.
pub(super) fn offer(refusal: &longpin::Refusal, options: &cli::Hold) -> Option<String> {
    let no_bpf = matches!(
        refusal,
        longpin::Refusal::Guard(GuardError::NoBpfLsm { .. })
    );
    if !no_bpf || unfit(options).is_some() {
        return None;
    }
    let mut words = vec!["longpin hold --backend swap-header".to_owned()];
    words.extend(options.persist.then(|| "--persist".to_owned()));
    words.push(quote(&options.file));
    if !options.command.is_empty() {
        words.push("--".to_owned());
        words.extend(options.command.iter().map(|word| quote(Path::new(word))));
    }
    words.push("  # the kernel itself refuses; takes the file's first 8 KiB meanwhile".to_owned());
    Some(words.join(" "))
}

/// `longpin release` of such a hold.
pub(super) fn release(options: &cli::Release) -> anyhow::Result<ExitCode> {
    let ended = swap_header::end(&Heads::default(), options.id, options.force).map_err(refused)?;
    print_ended(options.id, &ended);
    Ok(ExitCode::SUCCESS)
}

/// `longpin swapoff` of a file that is held so; `None`: it is not.
pub(super) fn swap_off(path: &Path) -> anyhow::Result<Option<ExitCode>> {
    let heads = Heads::default();
    let Some(record) = swap_header::find_by_path(&heads, path).map_err(refused)? else {
        return Ok(None);
    };
    let ended = swap_header::end(&heads, record.id(), false).map_err(refused)?;
    print_ended(record.id(), &ended);
    Ok(Some(ExitCode::SUCCESS))
}

fn print_ended(id: u64, ended: &Ended) {
    let path = visible(&ended.path.display().to_string());
    let held = if ended.was_held {
        ""
    } else {
        " (it was not held any more)"
    };
    anstream::println!("hold {id} released{held}: {path} has its first 8 KiB back");
    tell_unpinned(ended);
}

fn tell_unpinned(ended: &Ended) {
    if ended.unpinned {
        let path = visible(&ended.path.display().to_string());
        anstream::eprintln!(
            "longpin: {path}: f2fs has unpinned it with the end of the hold, and pins only empty files"
        );
        anstream::eprintln!("hint: for another hold, prepare a new file and copy this one into it");
    }
}

fn refused(err: EndError) -> output::Refusal {
    let status = match &err {
        EndError::NoSuchHold { .. } | EndError::Alive { .. } | EndError::Lost { .. } => REFUSED,
        _ => SYSTEM,
    };
    output::Refusal {
        text: "cannot end the hold".to_owned(),
        status,
        hints: err.hints(),
        source: err.into(),
    }
}
