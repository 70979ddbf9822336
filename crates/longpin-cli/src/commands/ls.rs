//! `longpin ls`: who holds what.

use std::process::ExitCode;
use std::time::Duration;

use longpin::guard::{self, GuardError, Hints, Host, Running};
use longpin::listing::{self, PinVerdict, Row};
use longpin::on_demand::{self as regions, OnDemand};

use super::on_demand;
use super::progress::SweepBar;
use super::swap::{self, Swapped};
use crate::cli::{Backend, Column, Ls};
use crate::output::{human, is_open, print_raw, print_table, visible};

const DEFAULT: [Column; 12] = [
    Column::Id,
    Column::Kind,
    Column::Level,
    Column::Path,
    Column::Start,
    Column::End,
    Column::Pages,
    Column::Pid,
    Column::Command,
    Column::Consumer,
    Column::Cgroup,
    Column::Since,
];

pub(crate) fn run(options: &Ls) -> anyhow::Result<ExitCode> {
    // The kernel itself holds these, whether a guard runs or not.
    let swaps = swap::read_all()?;
    let (holds, regions, code) = match read_rows(options) {
        Err(err) if is_not_running(&err) && !swaps.is_empty() => {
            anstream::eprintln!("longpin: no guard runs: only swap files are held");
            (Vec::new(), Vec::new(), ExitCode::SUCCESS)
        }
        read => read?,
    };
    if options.json {
        let swaps = swaps.iter().map(swap::to_json);
        let regions = regions.iter().map(on_demand::to_json);
        let holds = holds.iter().map(to_json).chain(swaps).chain(regions);
        let holds: Vec<_> = holds.collect();
        anstream::println!("{}", serde_json::json!({ "version": 1, "holds": holds }));
    } else if !holds.is_empty() || !swaps.is_empty() || !regions.is_empty() {
        print(&holds, &swaps, &regions, options);
    }
    Ok(code)
}

/// What the guard knows.
fn read_rows(options: &Ls) -> anyhow::Result<(Vec<Row>, Vec<OnDemand>, ExitCode)> {
    let running = Running::open(&Host::default())?;
    let status = guard::read_status(&running)?;
    if status.hints != Hints::Complete {
        let bar = SweepBar::new();
        guard::sweep(&running, &mut |done, all| bar.show(done, all))?;
    }
    let mut holds = listing::read_rows(&running)?;
    holds.retain(|hold| options.all || hold.is_enforced());
    let code = super::guard::code_of(&status);
    Ok((holds, read_regions(&running, options)?, code))
}

/// On-demand regions, where all is asked for: they hold nothing.
fn read_regions(running: &Running, options: &Ls) -> anyhow::Result<Vec<OnDemand>> {
    if !options.all {
        return Ok(Vec::new());
    }
    let regions = regions::read(running)?;
    if let Some(remark) = on_demand::remark(regions.as_ref()) {
        anstream::eprintln!("longpin: {}", visible(&remark));
    }
    Ok(regions.unwrap_or_default().regions)
}

fn is_not_running(err: &anyhow::Error) -> bool {
    matches!(err.downcast_ref(), Some(GuardError::NotRunning))
}

fn print(holds: &[Row], swaps: &[Swapped], regions: &[OnDemand], options: &Ls) {
    let mut columns = options.output.clone();
    if columns.is_empty() {
        columns.extend(DEFAULT);
        if options.all {
            columns.push(Column::Why);
        }
    }
    let cells = |of: &dyn Fn(Column) -> String| columns.iter().map(|column| of(*column)).collect();
    let bytes = options.bytes;
    let holds = holds.iter().map(|hold| cells(&|c| cell(hold, c, bytes)));
    let swaps = swaps.iter().map(|s| cells(&|c| swap::cell(s, c, bytes)));
    let regions = regions.iter();
    let regions = regions.map(|region| cells(&|c| on_demand::cell(region, c, bytes)));
    let rows: Vec<Vec<String>> = holds.chain(swaps).chain(regions).collect();
    let names: Vec<&str> = columns.iter().map(|column| column.heading()).collect();
    let headings = (!options.noheadings).then_some(&names[..]);
    if options.raw {
        return print_raw(headings, &rows);
    }
    let is_number = |column: &Column| {
        use Column::{Broken, End, Id, Pages, Pid, Start, Uid};
        matches!(column, Id | Start | End | Pages | Pid | Uid | Broken)
    };
    let right: Vec<usize> = (0..columns.len())
        .filter(|&i| is_number(&columns[i]))
        .collect();
    print_table(headings, &right, &rows);
}

fn cell(hold: &Row, column: Column, bytes: bool) -> String {
    let size = |n: u64| if bytes { n.to_string() } else { human(n) };
    let owner = hold.owner.as_ref();
    let text = match column {
        Column::Id => (hold.id != 0).then(|| hold.id.to_string()),
        Column::Kind => Some(kind(hold).to_owned()),
        Column::Level => Some(level(hold).to_owned()),
        Column::Path => Some(path(hold)),
        Column::Start => Some(size(hold.start)),
        Column::End if is_open(hold.end) => Some("EOF".into()),
        Column::End => Some(size(hold.end)),
        Column::Pages => Some(hold.pages.to_string()),
        Column::Broken => Some(hold.broken.to_string()),
        Column::Pid => owner.map(|o| o.pid.to_string()),
        Column::Uid => owner.map(|o| o.uid.to_string()),
        Column::Command => owner.map(|o| o.command.clone()),
        Column::Consumer => owner.map(|o| o.consumer.clone()),
        Column::Cgroup => owner.map(|o| o.cgroup.clone()),
        Column::Since => owner.and_then(|o| since(o.since)),
        Column::Why => Some(hold.verdict.reason().to_owned()),
    };
    text.unwrap_or_else(|| "-".into())
}

/// What became of it.
fn kind(hold: &Row) -> &'static str {
    match (hold.broken > 0, hold.explicit) {
        (true, _) => "broken",
        (false, true) => "explicit",
        (false, false) => "pin",
    }
}

fn level(hold: &Row) -> &'static str {
    if hold.is_enforced() {
        hold.level.as_str()
    } else {
        "none"
    }
}

fn path(hold: &Row) -> String {
    match (&hold.was, hold.deleted) {
        (_, true) => format!("{} (deleted)", hold.path),
        (Some(name), false) => format!("{} (was {name})", hold.path),
        (None, false) => hold.path.clone(),
    }
}

pub(super) fn since(time: Duration) -> Option<String> {
    let time = jiff::Timestamp::UNIX_EPOCH.checked_add(time).ok()?;
    Some(time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

pub(crate) fn to_json(hold: &Row) -> serde_json::Value {
    let owner = hold.owner.as_ref();
    serde_json::json!({
        "id": hold.id,
        "kind": kind(hold),
        "backend": Backend::Bpf.as_str(),
        "given-up": 0,
        "level": level(hold),
        "path": hold.path,
        "deleted": hold.deleted,
        "was": hold.was,
        "start": hold.start,
        "end": hold.end,
        "pages": hold.pages,
        "broken-pages": hold.broken,
        "enforced": hold.is_enforced(),
        "why": (hold.verdict != PinVerdict::Held).then(|| hold.verdict.reason()),
        "pid": owner.map(|o| o.pid),
        "command": owner.map(|o| &o.command),
        "uid": owner.map(|o| o.uid),
        "cgroup": owner.map(|o| &o.cgroup),
        "consumer": owner.map(|o| &o.consumer),
        "since": owner.and_then(|o| since(o.since)),
    })
}
