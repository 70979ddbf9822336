//! `longpin swapon`, `longpin swapoff`, and active swap files among the holds.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use longpin::activation::{CheckVerdict, quote};
use longpin::hold::heads::{DIR, Heads, Record};
use longpin::preparation::PrepareOptions;
use longpin::swapfile::{self, ActivateError, Activated, ActiveSwap, SwapOptions};

use super::progress::ByteBar;
use super::{ls, prepare, swap_header};
use crate::cli::{Backend, Column, FileArg, Swapon};
use crate::output::{CANNOT_TELL, REFUSED, Reasons, Refusal, SYSTEM, human, visible};

pub(crate) fn on(options: &Swapon) -> anyhow::Result<ExitCode> {
    if options.prepare {
        let request = PrepareOptions {
            size: options.size,
            immutable: false,
        };
        let done = prepare::prepare(&options.file, &request)?;
        prepare::print(&options.file, &done, false);
    }
    let wanted = SwapOptions {
        force: options.force,
        label: options.label.clone(),
    };
    let bar = ByteBar::new("looking for data");
    let activated =
        swapfile::activate(&options.file, &wanted, &mut |done, all| bar.show(done, all));
    drop(bar);
    let activated = activated.map_err(|err| refusal("swap to", &options.file, err))?;
    print(&options.file, &activated);
    Ok(ExitCode::SUCCESS)
}

fn print(path: &Path, activated: &Activated) {
    let shown = visible(&path.display().to_string());
    let header = if activated.made { "new" } else { "kept" };
    anstream::println!(
        "{shown}: swap, {}, header {header}, UUID={}",
        human(activated.size),
        activated.uuid
    );
    if let Some(mode) = activated.open_to {
        anstream::eprintln!(
            "longpin: {shown}: mode {mode:04o}: others may read what is swapped out"
        );
        anstream::eprintln!("hint: chmod 600 {}", quote(path));
    }
}

pub(crate) fn off(options: &FileArg) -> anyhow::Result<ExitCode> {
    if let Some(done) = swap_header::swap_off(&options.file)? {
        return Ok(done);
    }
    let ended = swapfile::deactivate(&options.file);
    ended.map_err(|err| refusal("end swapping to", &options.file, err))?;
    let shown = visible(&options.file.display().to_string());
    anstream::println!("{shown}: no swap any more");
    Ok(ExitCode::SUCCESS)
}

fn refusal(what: &str, path: &Path, err: ActivateError) -> Refusal {
    use ActivateError::{Data, Kernel, Label, Map, Refused, Scrub};
    let hints = err.hints(path);
    let status = match &err {
        Refused(report) if report.verdict() == CheckVerdict::CannotTell => CANNOT_TELL,
        Refused(_) | Data { .. } | Label { .. } | Kernel { .. } | Scrub { .. } => REFUSED,
        Map(_) => CANNOT_TELL,
        _ => SYSTEM,
    };
    let source = match err {
        Refused(report) => Reasons::of(&report).into(),
        other => other.into(),
    };
    Refusal {
        text: format!("cannot {what} {}", visible(&path.display().to_string())),
        status,
        hints,
        source,
    }
}

/// An active swap file; or what is left of a hold by swap header that somebody ended otherwise.
pub(super) struct Swapped {
    file: ActiveSwap,
    active: bool,
    record: Option<Record>,
}

/// All of them.
pub(super) fn read_all() -> anyhow::Result<Vec<Swapped>> {
    let active = swapfile::read_active().context("cannot read /proc/swaps")?;
    let heads = Heads::default();
    let cannot = || format!("cannot read {DIR}");
    let mut records = heads.read_all().with_context(cannot)?;
    for path in heads.damaged().with_context(cannot)? {
        let shown = visible(&path.display().to_string());
        anstream::eprintln!(
            "longpin: {shown} is no whole record of a hold by swap header: a file's first 8K may be in it"
        );
    }
    let mut all = Vec::new();
    for file in active {
        let own = inode(&file.path);
        let at = records.iter().position(|record| Some(record.inode) == own);
        all.push(Swapped {
            file,
            active: true,
            record: at.map(|at| records.swap_remove(at)),
        });
    }
    all.extend(records.into_iter().map(left));
    Ok(all)
}

/// What the kernel, or a record, knows of this file.
pub(super) fn find(path: &Path) -> anyhow::Result<Option<Swapped>> {
    let Some(wanted) = inode(path) else {
        return Ok(None);
    };
    let mut all = read_all()?.into_iter();
    Ok(all.find(|swapped| match &swapped.record {
        Some(record) => record.inode == wanted,
        None => inode(&swapped.file.path) == Some(wanted),
    }))
}

/// For people.
pub(super) fn to_line(swapped: &Swapped) -> String {
    let who = swapped.record.as_ref().map_or_else(String::new, |own| {
        let command = visible(&own.command);
        format!(", for {command}[{}] (hold {})", own.pid, own.id())
    });
    format!("{}{who}", swapped.why())
}

fn left(record: Record) -> Swapped {
    let size = std::fs::metadata(&record.path).map(|data| data.len());
    Swapped {
        file: ActiveSwap {
            path: record.path.clone(),
            deleted: size.is_err(),
            end: size.unwrap_or(0),
        },
        active: false,
        record: Some(record),
    }
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    let data = std::fs::metadata(path).ok()?;
    Some((data.dev(), data.ino()))
}

impl Swapped {
    const fn level(&self) -> &'static str {
        if self.active { "swapfile" } else { "none" }
    }

    const fn consumer(&self) -> &'static str {
        match self.record {
            Some(_) => Backend::SwapHeader.as_str(),
            None => "swap",
        }
    }

    const fn why(&self) -> &'static str {
        match (&self.record, self.active) {
            (None, _) => "active swap file",
            (Some(_), true) => "held by a swap header, which takes the first 8K",
            (Some(_), false) => "not held any more; `longpin release` puts the first 8K back",
        }
    }

    fn since(&self) -> Option<String> {
        self.record.as_ref().and_then(|own| ls::since(own.since))
    }
}

/// A cell of `ls`.
pub(super) fn cell(swapped: &Swapped, column: Column, bytes: bool) -> String {
    let size = |n: u64| if bytes { n.to_string() } else { human(n) };
    let record = swapped.record.as_ref();
    let of_record = match column {
        Column::Id => record.map(|own| own.id().to_string()),
        Column::Pid => record.map(|own| own.pid.to_string()),
        Column::Command => record.map(|own| own.command.clone()),
        Column::Since => swapped.since(),
        _ => None,
    };
    match column {
        Column::Kind => "swap".into(),
        Column::Level => swapped.level().into(),
        Column::Path => swapped.file.path.display().to_string(),
        Column::Start => "0".into(),
        Column::End => size(swapped.file.end),
        Column::Consumer => swapped.consumer().into(),
        Column::Broken => "0".into(),
        Column::Why => swapped.why().into(),
        _ => of_record.unwrap_or_else(|| "-".into()),
    }
}

/// The same members as a hold of the guard's; what a swap file has not is null.
pub(super) fn to_json(swapped: &Swapped) -> serde_json::Value {
    let Swapped { file, record, .. } = swapped;
    let record = record.as_ref();
    serde_json::json!({
        "id": record.map_or(0, Record::id),
        "kind": "swap",
        "backend": swapped.consumer(),
        "given-up": record.map_or(0, |_| Backend::SwapHeader.given_up().end),
        "level": swapped.level(),
        "path": file.path.display().to_string(),
        "deleted": file.deleted,
        "was": null,
        "start": 0,
        "end": file.end,
        "pages": null,
        "broken-pages": 0,
        "enforced": swapped.active,
        "why": record.map(|_| swapped.why()),
        "pid": record.map(|own| own.pid),
        "command": record.map(|own| own.command.as_str()),
        "uid": null,
        "cgroup": null,
        "consumer": swapped.consumer(),
        "since": swapped.since(),
    })
}
