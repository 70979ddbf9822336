//! `longpin swapon`, `longpin swapoff`, and active swap files among the holds.

use std::path::Path;
use std::process::ExitCode;

use longpin::activation::Verdict;
use longpin::preparation::Request;
use longpin::swapfile::{self, ActivateError, Activated, ActiveSwap, Options};

use super::prepare;
use super::progress::ByteBar;
use crate::cli::{Column, FileArg, Swapon};
use crate::output::{CANNOT_TELL, REFUSED, Reasons, Refusal, SYSTEM, human, visible};

pub(crate) fn on(options: &Swapon) -> anyhow::Result<ExitCode> {
    if options.prepare {
        let request = Request {
            size: options.size,
            immutable: false,
        };
        let done = prepare::prepare(&options.file, &request)?;
        prepare::print(&options.file, &done, false);
    }
    let wanted = Options {
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
        anstream::eprintln!("hint: chmod 600 {shown}");
    }
}

pub(crate) fn off(options: &FileArg) -> anyhow::Result<ExitCode> {
    let ended = swapfile::deactivate(&options.file);
    ended.map_err(|err| refusal("end swapping to", &options.file, err))?;
    let shown = visible(&options.file.display().to_string());
    anstream::println!("{shown}: no swap any more");
    Ok(ExitCode::SUCCESS)
}

fn refusal(what: &str, path: &Path, err: ActivateError) -> Refusal {
    use ActivateError::{Data, Kernel, Label, Map, Refused};
    let hints = err.hints(path);
    let status = match &err {
        Refused(report) if report.verdict() == Verdict::CannotTell => CANNOT_TELL,
        Refused(_) | Data { .. } | Label { .. } | Kernel { .. } => REFUSED,
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

/// A cell of `ls` for an active swap file.
pub(super) fn cell(file: &ActiveSwap, column: Column, bytes: bool) -> String {
    let size = |n: u64| if bytes { n.to_string() } else { human(n) };
    match column {
        Column::Kind => "swap".into(),
        Column::Level => "swapfile".into(),
        Column::Path => file.path.display().to_string(),
        Column::Start => "0".into(),
        Column::End => size(file.end),
        Column::Consumer => "swap".into(),
        Column::Broken => "0".into(),
        Column::Why => "active swap file".into(),
        _ => "-".into(),
    }
}

/// The same members as a hold of the guard's; what a swap file has not is null.
pub(super) fn to_json(file: &ActiveSwap) -> serde_json::Value {
    serde_json::json!({
        "id": 0,
        "kind": "swap",
        "level": "swapfile",
        "path": file.path.display().to_string(),
        "deleted": file.deleted,
        "was": null,
        "start": 0,
        "end": file.end,
        "pages": null,
        "broken-pages": 0,
        "enforced": true,
        "why": null,
        "pid": null,
        "command": null,
        "uid": null,
        "cgroup": null,
        "consumer": "swap",
        "since": null,
    })
}
