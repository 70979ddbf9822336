//! `longpin watch`: holds begun, ended and broken, operations refused, on-demand regions torn down, as they happen.

use std::process::ExitCode;
use std::time::Duration;

use longpin::events::{self, Batch, EventKind, Notice, Operation, Torn};
use longpin::guard::{GuardError, Host, Running};
use longpin::on_demand::notice_name;
use longpin_linux::arch::{self, page_size};

use super::verify::Verifier;
use crate::cli::Watch;
use crate::output::{REFUSED, human, is_open, visible};

/// How often the guard is asked.
const INTERVAL: Duration = Duration::from_millis(250);

pub(crate) fn run(options: &Watch) -> anyhow::Result<ExitCode> {
    let host = Host::default();
    let running = Running::look(&host)?;
    let mut next = if options.last {
        events::oldest_number(&running)
    } else {
        events::next_number(&running)
    };
    drop(running);
    let mut verifier = options.verify.map(Verifier::every);
    loop {
        // Opened anew each time: the guard may have been stopped, or started anew.
        let batch = match Running::look(&host) {
            Ok(running) => events::read_events(&running, next)?,
            Err(GuardError::NotRunning) if !options.last => return Ok(ended(options.json)),
            Err(err) => return Err(err.into()),
        };
        next = batch.next;
        let mut lines = to_lines(&batch, options.json);
        if let Some(verifier) = &mut verifier {
            let happened = batch.lost > 0 || !batch.events.is_empty();
            lines.extend(verifier.look(&host, happened, options.json)?);
        }
        if !show(&lines) || options.last {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(INTERVAL);
    }
}

fn ended(json: bool) -> ExitCode {
    if json {
        anstream::println!(r#"{{"version":1,"event":"stopped"}}"#);
    } else {
        anstream::println!("the guard was stopped");
    }
    ExitCode::from(REFUSED)
}

fn to_lines(batch: &Batch, json: bool) -> Vec<String> {
    let mut lines = Vec::new();
    if batch.lost > 0 && json {
        let lost = serde_json::json!({ "version": 1, "event": "lost", "count": batch.lost });
        lines.push(lost.to_string());
    } else if batch.lost > 0 {
        lines.push(format!(
            "{} events lost: written over before they were read",
            batch.lost
        ));
    }
    lines.extend(batch.events.iter().map(|told| {
        if json {
            to_json(told).to_string()
        } else {
            visible(&to_line(told))
        }
    }));
    lines
}

/// False when nobody reads any more.
fn show(lines: &[String]) -> bool {
    use std::io::Write;
    let mut out = anstream::stdout().lock();
    let written = lines.iter().try_for_each(|line| writeln!(out, "{line}"));
    written.and_then(|()| out.flush()).is_ok()
}

fn time(told: &Notice) -> String {
    let time = jiff::Timestamp::UNIX_EPOCH.checked_add(told.time);
    time.map_or_else(|_| "-".into(), stamp)
}

/// As all events show it.
pub(super) fn stamp(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

pub(crate) fn kind(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Held => "held",
        EventKind::Ended => "ended",
        EventKind::Broken => "broken",
        EventKind::Refused => "refused",
        EventKind::WouldRefuse => "would-refuse",
        EventKind::Exempted => "exempted",
        EventKind::Denied => "denied",
        EventKind::NotHeld => "not-held",
        EventKind::Released => "released",
        EventKind::TornDown => "torn-down",
    }
}

/// What somebody did, in the words of its system call.
fn operation(operation: Operation) -> String {
    match operation {
        Operation::Pin => "pin".into(),
        Operation::Truncate(size) => format!("truncate to {}", human(size)),
        Operation::Fallocate(mode) => format!("fallocate {}", fallocate_mode(mode)),
        Operation::Clone => "clone".into(),
        Operation::Copy => "copy_file_range".into(),
        Operation::Dedupe => "dedupe".into(),
        Operation::DirectWrite => "direct write".into(),
        Operation::Ioctl(command) => format!("ioctl {command:#x}"),
        Operation::Umount => "umount".into(),
        Operation::Write(call) => format!("write by {}", system_call(call)),
        Operation::Mmap => "shared writable mmap".into(),
        Operation::Mprotect => "mprotect to writable".into(),
        Operation::Unlink => "unlink".into(),
        Operation::Rename => "rename".into(),
        Operation::Exec => "execve".into(),
        Operation::Swapon => "swapon".into(),
        Operation::Loop => "writable loop device".into(),
        Operation::Remount => "remount read-only".into(),
        Operation::Removal(call) => format!("page removed in {}", system_call(call)),
        Operation::FileGone(call) => format!("file gone in {}", system_call(call)),
        Operation::End(call) => format!("file system ended in {}", system_call(call)),
        Operation::Teardown(call) | Operation::Unknown(call) => system_call(call),
    }
}

fn fallocate_mode(mode: u64) -> String {
    const NAMES: [&str; 8] = [
        "KEEP_SIZE",
        "PUNCH_HOLE",
        "NO_HIDE_STALE",
        "COLLAPSE_RANGE",
        "ZERO_RANGE",
        "INSERT_RANGE",
        "UNSHARE_RANGE",
        "WRITE_ZEROES",
    ];
    let names: Vec<&str> = NAMES
        .iter()
        .enumerate()
        .filter(|(bit, _)| mode >> bit & 1 == 1)
        .map(|(_, name)| *name)
        .collect();
    if mode >> NAMES.len() != 0 {
        return format!("{mode:#x}");
    }
    names.join("|")
}

fn system_call(number: i64) -> String {
    match arch::name_of(number) {
        Some(name) => name.into(),
        None if number == -1 => "the kernel".into(),
        None => format!("system call {number}"),
    }
}

/// First byte, and first byte behind; `None`: it goes to the end of the file.
fn range(told: &Notice) -> Option<(u64, u64)> {
    let (first, last) = told.event.range;
    let end = last.checked_add(1)?.checked_mul(page_size())?;
    if is_open(end) {
        return None;
    }
    Some((first.checked_mul(page_size())?, end))
}

pub(crate) fn to_line(told: &Notice) -> String {
    let event = &told.event;
    let range = match range(told) {
        Some((start, end)) => format!("{}..{}", human(start), human(end)),
        None => format!("{}..EOF", human(event.range.0.saturating_mul(page_size()))),
    };
    let hold = if event.row == 0 {
        String::new()
    } else {
        format!(" hold {}", event.row)
    };
    let why = match (&event.torn, event.kind) {
        (Some(torn), _) => region(torn),
        (None, EventKind::NotHeld) => format!(": {}", event.verdict.reason()),
        _ => String::new(),
    };
    format!(
        "{} {:<12} {} {range} by {}[{}] uid {}: {}{hold}{why}",
        time(told),
        kind(event.kind),
        told.path,
        event.command,
        event.tgid,
        event.uid,
        cause(told),
    )
}

/// What somebody did; of a teardown, for what.
fn cause(told: &Notice) -> String {
    let act = operation(told.event.operation);
    match told.cause.work {
        Some(work) => format!("{work} in {act}"),
        None => act,
    }
}

/// Whose region it was, and the kernel's word for the notice.
fn region(torn: &Torn) -> String {
    let notice = notice_name(torn.notice).unwrap_or("unknown notice");
    let untold = match torn.untold {
        0 => String::new(),
        n => format!(", {n} more before it were not told"),
    };
    format!(
        " ({notice}): on-demand region of {}[{}]{untold}",
        torn.command, torn.owner
    )
}

pub(crate) fn to_json(told: &Notice) -> serde_json::Value {
    let event = &told.event;
    let range = range(told);
    serde_json::json!({
        "version": 1,
        "number": event.number,
        "time": time(told),
        "event": kind(event.kind),
        "operation": cause(told),
        "path": told.path,
        "start": range.map_or(event.range.0.saturating_mul(page_size()), |(start, _)| start),
        "end": range.map(|(_, end)| end),
        "pinned": event.torn.is_none().then(|| event.page.saturating_mul(page_size())),
        "hold": (event.row != 0).then_some(event.row),
        "pid": event.tgid,
        "command": event.command,
        "uid": event.uid,
        "why": (event.kind == EventKind::NotHeld).then(|| event.verdict.reason()),
        "region": event.torn.as_ref().map(|torn| region_json(told, torn)),
    })
}

fn region_json(told: &Notice, torn: &Torn) -> serde_json::Value {
    serde_json::json!({
        "pid": torn.owner,
        "command": torn.command,
        "notice": notice_name(torn.notice),
        "work": told.cause.work,
        "kernel-function": told.cause.function,
        "untold": torn.untold,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_have_the_names_of_their_calls() {
        assert_eq!(operation(Operation::Truncate(4096)), "truncate to 4K");
        assert_eq!(
            operation(Operation::Fallocate(3)),
            "fallocate KEEP_SIZE|PUNCH_HOLE"
        );
        assert_eq!(operation(Operation::Fallocate(0x100)), "fallocate 0x100");
        assert_eq!(
            operation(Operation::Removal(-1)),
            "page removed in the kernel"
        );
        assert_eq!(operation(Operation::Unknown(9999)), "system call 9999");
    }
}
