//! `longpin guard …`

use std::process::ExitCode;
use std::time::Duration;

use longpin::guard::{self, GuardError, Hints, Host, Running, StartOptions, Status};
use longpin::{Claim, Enforcement};

use super::files::force_of;
use super::progress::SweepBar;
use crate::cli::{Guard, Level};
use crate::output::{REFUSED, print_table};

pub(crate) fn run(command: &Guard) -> anyhow::Result<ExitCode> {
    let host = Host::default();
    match command {
        Guard::Start {
            audit,
            partial,
            max_files,
            walk_budget,
            level,
        } => {
            let options = StartOptions {
                audit: *audit,
                partial: *partial,
                max_files: *max_files,
                walk_budget: walk_budget.map(|ms| Duration::from_millis(ms.into())),
                swapfile: *level == Level::Swapfile,
            };
            start(&host, options)
        }
        Guard::Stop { force } => stop(&host, *force),
        Guard::Status { json } => status(&host, *json),
        Guard::Sweep => sweep(&host),
        Guard::Reload => reload(&host),
        Guard::CheckConfig { file } => super::check_config::run(file),
    }
}

fn start(host: &Host, options: StartOptions) -> anyhow::Result<ExitCode> {
    let bar = SweepBar::new();
    let started = guard::start(host, options, &mut |done, all| bar.show(done, all))?;
    drop(bar);
    let level = if options.swapfile {
        "swapfile"
    } else {
        "layout"
    };
    anstream::println!("guard started: {}", describe(&started.enforcement, level));
    if options.audit {
        anstream::println!("audit: it records what it would refuse, and refuses nothing");
    }
    anstream::println!("proved: a truncate and a hole punch of a pinned file were refused");
    match started.adopted {
        0 => {}
        1 => anstream::println!("1 explicit hold stood without a guard, and stands on"),
        many => anstream::println!("{many} explicit holds stood without a guard, and stand on"),
    }
    Ok(ExitCode::SUCCESS)
}

fn stop(host: &Host, force: bool) -> anyhow::Result<ExitCode> {
    let stopped = guard::stop(host, force_of(force))?;
    match stopped.holds {
        0 => anstream::println!("guard stopped"),
        1 => anstream::println!("guard stopped; 1 hold ended with it"),
        many => anstream::println!("guard stopped; {many} holds ended with it"),
    }
    Ok(ExitCode::SUCCESS)
}

fn reload(host: &Host) -> anyhow::Result<ExitCode> {
    let running = Running::open(host)?;
    let reloaded = guard::reload(host, &running)?;
    for warning in &reloaded.warnings {
        anstream::eprintln!("{}:{warning}", host.config.display());
    }
    anstream::println!("{} rules in force", reloaded.rules);
    Ok(ExitCode::SUCCESS)
}

fn sweep(host: &Host) -> anyhow::Result<ExitCode> {
    let running = Running::open(host)?;
    let bar = SweepBar::new();
    let swept = guard::sweep(&running, &mut |done, all| bar.show(done, all))?;
    drop(bar);
    anstream::println!(
        "{} page frames, {} pinned file folios",
        swept.frames,
        swept.folios
    );
    if !swept.complete {
        anstream::println!("pins were missed meanwhile: every file stays a suspect; sweep again");
    }
    Ok(ExitCode::SUCCESS)
}

fn status(host: &Host, json: bool) -> anyhow::Result<ExitCode> {
    let running = match Running::open(host) {
        Err(GuardError::NotRunning) => {
            if json {
                anstream::println!(r#"{{"version":1,"running":false}}"#);
            } else {
                anstream::println!("guard: not running");
            }
            return Ok(ExitCode::from(REFUSED));
        }
        other => other?,
    };
    let status = guard::read_status(&running)?;
    if json {
        anstream::println!("{}", to_json(&status));
    } else {
        print_table(None, &[], &to_rows(&status));
    }
    Ok(code_of(&status))
}

/// Not zero where nothing is refused though it should be.
pub(super) fn code_of(status: &Status) -> ExitCode {
    if !status.silent {
        return ExitCode::SUCCESS;
    }
    anstream::eprintln!(
        "longpin: kernel.ftrace_enabled is 0: the kernel calls none of the guard's programs, and nothing is refused"
    );
    anstream::eprintln!("hint: sysctl kernel.ftrace_enabled=1");
    ExitCode::from(REFUSED)
}

fn enforced(enforcement: &Enforcement) -> Vec<Claim> {
    let mut claims = Claim::LAYOUT.to_vec();
    claims.retain(|claim| !enforcement.missing().contains(claim));
    claims
}

fn claims(list: &[Claim]) -> String {
    list.iter()
        .map(Claim::to_string)
        .collect::<Vec<_>>()
        .join(" ")
}

fn describe(enforcement: &Enforcement, level: &str) -> String {
    match enforcement {
        Enforcement::Full => format!("enforcing {}, level {level}", claims(&Claim::LAYOUT)),
        Enforcement::Partial { missing } => {
            format!("enforcing, level {level}, without {}", claims(missing))
        }
        Enforcement::None => "enforcing nothing".into(),
    }
}

fn to_rows(status: &Status) -> Vec<Vec<String>> {
    let hints = match status.hints {
        Hints::Complete => "complete: only files that were pinned are walked",
        Hints::Incomplete => "incomplete: every file is walked; `longpin guard sweep` ends that",
        Hints::Impossible => {
            "impossible: this kernel has a pin function that cannot be watched; every file is walked"
        }
    };
    let strict = if status.strict {
        "level swapfile is asked for"
    } else {
        "nobody asks for level swapfile"
    };
    let suspects = format!("{} files pinned at some time", status.suspects);
    let refused = format!("{} operations, {} walks", status.refused, status.walks);
    let mut rows = vec![
        ("guard", mode(status)),
        ("hints", hints.to_owned()),
        ("strict", strict.to_owned()),
        ("pin calls", format!("{} seen", status.pin_calls)),
        ("suspects", suspects),
        ("refused", refused),
    ];
    if !status.witnessed && !status.holds_only {
        let note =
            "nobody sees kernel.ftrace_enabled being switched: this is not the root of the cgroups";
        rows.push(("note", note.to_owned()));
    }
    let notes = troubles(status).into_iter().filter(|(n, _)| *n > 0);
    rows.extend(notes.map(|(n, what)| ("note", format!("{n} {what}"))));
    rows.into_iter()
        .map(|(name, value)| vec![format!("{name}:"), value])
        .collect()
}

fn mode(status: &Status) -> String {
    if status.silent {
        return "silent: enforcing nothing, since kernel.ftrace_enabled is 0".to_owned();
    }
    if status.holds_only {
        return "not running: explicit holds only, pins are not watched".to_owned();
    }
    let audit = if status.audit {
        " (audit: refuses nothing)"
    } else {
        ""
    };
    describe(&status.enforcement, status.level.as_str()) + audit
}

/// What is told where there is any of it.
const fn troubles(status: &Status) -> [(u64, &'static str); 9] {
    [
        (
            status.unfinished,
            "walks that could not finish, and refused",
        ),
        (status.unnoted, "operations judged for the whole file"),
        (
            status.broken,
            "pages left their file while pinned; `longpin watch --last` says whose",
        ),
        (
            status.broken_holds,
            "explicit holds ended with their file or file system; `longpin watch --last` says which",
        ),
        (status.would_refuse, "operations would have been refused"),
        (status.exempted, "operations let through by rule"),
        (
            status.denied,
            "processes killed because a rule denies their pin",
        ),
        (status.files_lost, "files found the table of suspects full"),
        (
            status.rows_lost,
            "pins found the table of rows full; `longpin ls` makes room",
        ),
    ]
}

fn to_json(status: &Status) -> serde_json::Value {
    let programs: Vec<_> = status
        .programs
        .iter()
        .map(|program| {
            serde_json::json!({
                "name": program.name,
                "verified-instructions": program.verified,
                "suppressed-runs": program.suppressed,
            })
        })
        .collect();
    serde_json::json!({
        "version": 1,
        "running": true,
        "level": status.level.as_str(),
        "holds-only": status.holds_only,
        "strict": status.strict,
        "silent": status.silent,
        "witnessed": status.witnessed,
        "enforces": if status.silent { Vec::new() } else { enforced(&status.enforcement) },
        "audit": status.audit,
        "missing": status.enforcement.missing(),
        "hints": status.hints,
        "pin-calls": status.pin_calls,
        "suspects": status.suspects,
        "refused": status.refused,
        "walks": status.walks,
        "walks-unfinished": status.unfinished,
        "unnoted": status.unnoted,
        "broken-pages": status.broken,
        "broken-holds": status.broken_holds,
        "would-refuse": status.would_refuse,
        "exempted": status.exempted,
        "denied": status.denied,
        "programs": programs,
        "files-lost": status.files_lost,
        "rows-lost": status.rows_lost,
    })
}
