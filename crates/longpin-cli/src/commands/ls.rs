//! `longpin ls`: who holds what.

use std::process::ExitCode;

use longpin::guard::{self, Hints, Host, Running};
use longpin::holds::{self, Hold};

use super::progress::SweepBar;
use crate::cli::Ls;
use crate::output::{human, print_table};

const HEADINGS: [&str; 7] = [
    "PATH", "START", "END", "PAGES", "PID", "COMMAND", "CONSUMER",
];
/// Numbers: to the right.
const RIGHT: [usize; 4] = [1, 2, 3, 4];

pub(crate) fn run(options: &Ls) -> anyhow::Result<ExitCode> {
    let running = Running::open(&Host::default())?;
    if guard::read_status(&running)?.hints != Hints::Complete {
        let bar = SweepBar::new();
        guard::sweep(&running, &mut |done, all| bar.show(done, all))?;
    }
    let holds = holds::read_holds(&running)?;
    if options.json {
        let holds: Vec<_> = holds.iter().map(to_json).collect();
        anstream::println!("{}", serde_json::json!({ "version": 1, "holds": holds }));
    } else if !holds.is_empty() {
        let rows: Vec<_> = holds
            .iter()
            .map(|hold| to_row(hold, options.bytes))
            .collect();
        let headings = (!options.noheadings).then_some(&HEADINGS[..]);
        print_table(headings, &RIGHT, &rows);
    }
    Ok(ExitCode::SUCCESS)
}

fn to_row(hold: &Hold, bytes: bool) -> Vec<String> {
    let size = |n: u64| if bytes { n.to_string() } else { human(n) };
    let path = if hold.deleted {
        format!("{} (deleted)", hold.path)
    } else {
        hold.path.clone()
    };
    let owner = hold.owner.as_ref();
    let text = |field: Option<&str>| field.unwrap_or("-").to_owned();
    vec![
        path,
        size(hold.start),
        size(hold.end),
        hold.pages.to_string(),
        owner.map_or_else(|| "-".into(), |o| o.pid.to_string()),
        text(owner.map(|o| o.command.as_str())),
        text(owner.map(|o| o.consumer.as_str())),
    ]
}

fn to_json(hold: &Hold) -> serde_json::Value {
    let owner = hold.owner.as_ref();
    let since = owner.and_then(|o| jiff::Timestamp::UNIX_EPOCH.checked_add(o.since).ok());
    serde_json::json!({
        "kind": "pin",
        "level": "layout",
        "path": hold.path,
        "deleted": hold.deleted,
        "start": hold.start,
        "end": hold.end,
        "pages": hold.pages,
        "pid": owner.map(|o| o.pid),
        "command": owner.map(|o| &o.command),
        "uid": owner.map(|o| o.uid),
        "cgroup": owner.map(|o| o.cgroup),
        "consumer": owner.map(|o| &o.consumer),
        "since": since.map(|time| time.to_string()),
    })
}
