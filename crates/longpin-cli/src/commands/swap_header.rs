//! `longpin hold --backend swap-header`, and what `ls`, `release` and `swapoff` know of such holds.

use std::path::Path;
use std::process::ExitCode;

use longpin::activation::quote;
use longpin::guard::{Force, GuardError};
use longpin::hold::heads::Heads;
use longpin::hold::{Hold, Refusal, ReleaseError, ReleaseReport, swap_header};

use super::files::force_of;
use crate::cli;
use crate::output::{self, REFUSED, SYSTEM, visible};

/// What this backend does not do, and why.
pub(super) fn unfit(options: &cli::Hold) -> Option<&'static str> {
    if options.level == cli::Level::Layout {
        let why = "--backend swap-header holds at level swapfile only: the kernel refuses writes to a swap file, too";
        return Some(why);
    }
    let why = "--backend swap-header holds the whole file, and gives up its first 8 KiB: it takes no --range";
    options.range.is_some().then_some(why)
}

pub(super) fn tell(held: &Hold, file: &Path) -> anyhow::Result<()> {
    let Some(id) = held.id() else {
        return Ok(());
    };
    let path = visible(&file.display().to_string());
    anstream::eprintln!(
        "longpin: {path}: hold {id} by backend swap-header: the kernel swaps to it; its first 8 KiB are given up until the end"
    );
    if let Some(mode) = held.readable_by_others()? {
        anstream::eprintln!(
            "longpin: {path}: mode {mode:04o}: others may read the page of memory that may come to lie there"
        );
        anstream::eprintln!("hint: chmod go-r {}", quote(file));
    }
    Ok(())
}

pub(super) fn tell_released(ended: &ReleaseReport) -> anyhow::Result<()> {
    tell_unpinned(ended);
    if !ended.was_held {
        anyhow::bail!(
            "{} was not held to the end: somebody ended swapping to it",
            visible(&ended.path.display().to_string())
        );
    }
    Ok(())
}

/// Where BPF cannot hold, this can: the same command with the other backend.
pub(super) fn offer(refusal: &Refusal, options: &cli::Hold) -> Option<String> {
    let no_bpf = matches!(refusal, Refusal::Guard(GuardError::NoBpfLsm { .. }));
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
    let ended = swap_header::release(&Heads::default(), options.id, force_of(options.force))
        .map_err(refused)?;
    print_ended(options.id, &ended);
    Ok(ExitCode::SUCCESS)
}

/// `longpin swapoff` of a file that is held so; `None`: it is not.
pub(super) fn swap_off(path: &Path) -> anyhow::Result<Option<ExitCode>> {
    let heads = Heads::default();
    let Some(record) = swap_header::find_by_path(&heads, path).map_err(refused)? else {
        return Ok(None);
    };
    let ended = swap_header::release(&heads, record.id(), Force::No).map_err(refused)?;
    print_ended(record.id(), &ended);
    Ok(Some(ExitCode::SUCCESS))
}

fn print_ended(id: u64, ended: &ReleaseReport) {
    let path = visible(&ended.path.display().to_string());
    let held = if ended.was_held {
        ""
    } else {
        " (it was not held any more)"
    };
    anstream::println!("hold {id} released{held}: {path} has its first 8 KiB back");
    tell_unpinned(ended);
}

fn tell_unpinned(ended: &ReleaseReport) {
    if ended.unpinned {
        let path = visible(&ended.path.display().to_string());
        anstream::eprintln!(
            "longpin: {path}: f2fs has unpinned it with the end of the hold, and pins only empty files"
        );
        anstream::eprintln!("hint: for another hold, prepare a new file and copy this one into it");
    }
}

pub(super) fn refused(err: ReleaseError) -> anyhow::Error {
    let status = match err {
        ReleaseError::Guard(err) => return err.into(),
        ReleaseError::NoSuchHold { .. }
        | ReleaseError::Alive { .. }
        | ReleaseError::Lost { .. } => REFUSED,
        _ => SYSTEM,
    };
    let refusal = output::Refusal {
        text: "cannot end the hold".to_owned(),
        status,
        hints: err.hints(),
        source: err.into(),
    };
    refusal.into()
}
