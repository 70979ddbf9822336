//! `longpin why`, `deny`, `allow`, `release`: single files and holds.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use longpin::admin::{self, FileReport};
use longpin::guard::{self, Force, GuardError, Host, Running};
use longpin::hold::heads;
use longpin::listing::Row;

use super::swap::{self, Swapped};
use super::{ls, on_demand, swap_header, watch};
use crate::cli::{FileArg, Release, Why};
use crate::output::{human, is_open, visible};

pub(crate) fn why(options: &Why) -> anyhow::Result<ExitCode> {
    // The kernel itself holds these, whether a guard runs or not. Without one nothing is known of hints.
    let swapped = swap::find(&options.file)?;
    let (known, complete) = match Running::open(&Host::default()) {
        Err(GuardError::NotRunning) if swapped.is_some() => (FileReport::default(), None),
        running => {
            let running = running?;
            let complete = guard::read_status(&running)?.hints_are_complete();
            (admin::look_up(&running, &options.file)?, Some(complete))
        }
    };
    if let Some(remark) = on_demand::remark(Some(&known.on_demand)) {
        anstream::eprintln!("longpin: {}", visible(&remark));
    }
    if options.json {
        let holds = known.holds.iter().map(ls::to_json);
        let holds: Vec<_> = holds.chain(swapped.iter().map(swap::to_json)).collect();
        let regions: Vec<_> = known
            .on_demand
            .regions
            .iter()
            .map(on_demand::to_json)
            .collect();
        let events: Vec<_> = known.events.iter().map(watch::to_json).collect();
        anstream::println!(
            "{}",
            serde_json::json!({
                "version": 1,
                "path": options.file.display().to_string(),
                "layer": known.layer.as_ref().map(|it| it.display().to_string()),
                "rule": known.rule.map(|deny| if deny { "deny" } else { "allow" }),
                "hints-complete": complete,
                "holds": holds,
                "on-demand": regions,
                "events": events,
            })
        );
    } else {
        explain(&options.file, &known, swapped.as_ref(), complete);
    }
    Ok(ExitCode::SUCCESS)
}

fn explain(path: &Path, known: &FileReport, swapped: Option<&Swapped>, complete: Option<bool>) {
    let path = visible(&path.display().to_string());
    match swapped {
        Some(swapped) => anstream::println!("{path}: {}", swap::to_line(swapped)),
        None if known.holds.is_empty() => anstream::println!("{path}: nobody has pinned it"),
        None => {}
    }
    if let Some(layer) = &known.layer {
        let layer = visible(&layer.display().to_string());
        anstream::println!("{path}: overlayfs shows {layer}");
    }
    for hold in &known.holds {
        explain_hold(&path, hold);
    }
    for region in &known.on_demand.regions {
        anstream::println!("{path}: {}", visible(&on_demand::to_line(region)));
    }
    match known.rule {
        Some(true) => anstream::println!("{path}: long-term pins are denied"),
        Some(false) => anstream::println!("{path}: long-term pins are allowed by name"),
        None => {}
    }
    if complete == Some(false) {
        anstream::println!("pins may have been missed: every file is looked at before it changes");
    }
    for told in &known.events {
        anstream::println!("{}", visible(&watch::to_line(told)));
    }
}

fn explain_hold(path: &str, hold: &Row) {
    let who = hold.owner.as_ref().map_or_else(
        || "somebody, before the guard began or unseen".to_owned(),
        |o| {
            let command = visible(&o.command);
            format!("{command}[{}] uid {} by {}", o.pid, o.uid, o.consumer)
        },
    );
    let range = match hold.end {
        end if is_open(end) => format!("{}..EOF", human(hold.start)),
        end => format!("{}..{}", human(hold.start), human(end)),
    };
    let state = if hold.is_enforced() {
        "held"
    } else {
        "not held"
    };
    anstream::println!(
        "{path}: {state}: {range}, {} pages pinned by {who} ({})",
        hold.pages,
        hold.verdict.reason()
    );
    if hold.broken > 0 {
        anstream::println!("{path}: broken: {} pages left it while pinned", hold.broken);
    }
}

pub(crate) fn allow(file: &FileArg) -> anyhow::Result<ExitCode> {
    let running = Running::open(&Host::default())?;
    admin::allow(&running, &file.file)?;
    let path = shown(&running, file)?;
    anstream::println!("{}: long-term pins are allowed", path.display());
    Ok(ExitCode::SUCCESS)
}

/// A copy of it, which overlayfs may show one day, is another file.
fn shown(running: &Running, file: &FileArg) -> anyhow::Result<PathBuf> {
    let layer = admin::find_layer(running, &file.file)?;
    Ok(layer.unwrap_or_else(|| file.file.clone()))
}

pub(crate) fn deny(file: &FileArg) -> anyhow::Result<ExitCode> {
    let running = Running::open(&Host::default())?;
    let holds = admin::deny(&running, &file.file)?;
    let path = shown(&running, file)?;
    let path = path.display();
    anstream::println!("{path}: long-term pins are denied until the guard stops");
    if holds > 0 {
        anstream::println!("{path}: pins made before go on: {holds} (`longpin why {path}`)");
    }
    Ok(ExitCode::SUCCESS)
}

/// What `--force` says.
pub(super) const fn force_of(force: bool) -> Force {
    if force { Force::Yes } else { Force::No }
}

pub(crate) fn release(options: &Release) -> anyhow::Result<ExitCode> {
    if heads::is_number(options.id) {
        return swap_header::release(options);
    }
    let running = Running::open(&Host::default())?;
    let hold = admin::release(&running, options.id, force_of(options.force))?;
    anstream::println!(
        "hold {} released: {} pages of {} stay pinned, and are no longer protected",
        hold.id,
        hold.pages,
        hold.path
    );
    Ok(ExitCode::SUCCESS)
}
