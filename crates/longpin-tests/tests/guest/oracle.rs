//! The detachment oracle: every operation that is known to touch a file's pages or blocks is tried on a file with pinned
//! pages, on every file system that has it, without the guard and with it.
//!
//! `LONGPIN_ORACLE=table` prints what happens without the guard, as in docs/detachment.md, and no more.
//! `LONGPIN_ORACLE_HOME` and `LONGPIN_ORACLE_OPERATION` take a part of a name, and try only what has it.

mod expect;
mod eye;
mod trial;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use longpin_tests::act::outcome_name;
use longpin_tests::operations::{self, Ground, Home, Operation};

use self::expect::{NAMED_GAPS, is_gap, judge};
use self::eye::Eye;
use self::trial::{Effect, Trial, try_one};
use crate::{Test, guard};

pub(crate) const TESTS: &[Test] = &[("oracle_detachment", oracle_detachment)];

/// Too slow for every day under emulation: `make test-long`.
pub(crate) const LONG_TESTS: &[Test] = &[("oracle_ends", oracle_ends)];

/// The contract, which must name what the guard lets through.
const GUARANTEE: &str = include_str!("../../../../docs/guarantee.md");

/// A column of the table: what each operation did there.
struct Column {
    ground: Ground,
    cells: Vec<(&'static Operation, Result<Trial>)>,
    took: Duration,
}

fn oracle_detachment() -> Result<()> {
    let daily = operations::all().chain(operations::at_end_daily());
    hold_to_table(&daily.collect::<Vec<_>>(), false)
}

/// Each act at and behind the end of a file, by what its last page is like.
fn oracle_ends() -> Result<()> {
    hold_to_table(&operations::at_end().collect::<Vec<_>>(), true)
}

/// Without the guard, then with it. `only_losses`: a table that is printed leaves out what takes nothing away.
fn hold_to_table(operations: &[&'static Operation], only_losses: bool) -> Result<()> {
    guard::off()?;
    operations::reserve_huge_pages()?;
    let mut eye = Eye::new().context("no device that pins")?;
    let mut columns = Vec::new();
    let is_home = |home: &Home| operations.iter().any(|it| it.homes.contains(home));
    let homes = Home::ALL.iter().filter(|home| is_home(home));
    for home in homes.filter(|home| wanted("HOME", home.name())) {
        let begin = Instant::now();
        let ground = Ground::new(*home)?;
        let cells = try_all(operations, &ground, &mut eye);
        let took = begin.elapsed();
        columns.push(Column {
            ground,
            cells,
            took,
        });
    }
    let mut complaints = failed_trials(&columns);
    complaints.extend(unnamed_gaps());
    if std::env::var_os("LONGPIN_ORACLE").is_some_and(|what| what == "table") {
        print_table(operations, &columns, only_losses);
    } else {
        guard::on()?;
        for column in &columns {
            complaints.extend(complaints_under_guard(column, &mut eye));
        }
    }
    for column in columns {
        let home = column.ground.home();
        if let Err(error) = column.ground.close() {
            complaints.push(format!("{home}: {error:#}"));
        }
    }
    let count = complaints.len();
    ensure!(count == 0, "{count} answers:\n{}", complaints.join("\n"));
    Ok(())
}

fn wanted(what: &str, name: &str) -> bool {
    let part = std::env::var(format!("LONGPIN_ORACLE_{what}"));
    part.map_or(true, |part| name.contains(&part))
}

fn try_all(
    operations: &[&'static Operation],
    ground: &Ground,
    eye: &mut Eye,
) -> Vec<(&'static Operation, Result<Trial>)> {
    let here = operations.iter().copied();
    let here = here.filter(|operation| operation.homes.contains(&ground.home()));
    let wanted = here.filter(|operation| wanted("OPERATION", operation.name));
    wanted
        .map(|operation| {
            let trial = try_one(operation, ground, eye);
            (operation, trial)
        })
        .collect()
}

/// Trials that could not be made.
fn failed_trials(columns: &[Column]) -> Vec<String> {
    let mut failed = Vec::new();
    for column in columns {
        let errors = column.cells.iter().filter_map(|(operation, trial)| {
            let error = trial.as_ref().err()?;
            let home = column.ground.home();
            Some(format!("{home}: {}: {error:#}", operation.name))
        });
        failed.extend(errors);
    }
    failed
}

fn complaints_under_guard(column: &Column, eye: &mut Eye) -> Vec<String> {
    let home = column.ground.home();
    let mut complaints = Vec::new();
    for (operation, free) in &column.cells {
        let Ok(free) = free else { continue };
        if free.is_not_there() {
            continue;
        }
        match try_under_guard(operation, column, free, eye) {
            Ok(complaint) => complaints.extend(complaint),
            Err(error) => complaints.push(format!(
                "{home}: {}: under guard: {error:#}",
                operation.name
            )),
        }
    }
    complaints
}

/// What comes a moment earlier or later may not do it each time: a gap is one if it is seen once.
const TRIES_OF_A_GAP: usize = 4;

fn try_under_guard(
    operation: &Operation,
    column: &Column,
    free: &Trial,
    eye: &mut Eye,
) -> Result<Option<String>> {
    let home = column.ground.home();
    let tries = if is_gap(operation, home) {
        TRIES_OF_A_GAP
    } else {
        1
    };
    let mut complaint = None;
    for _ in 0..tries {
        let guarded = try_one(operation, &column.ground, eye)?;
        complaint = judge(operation, home, free, &guarded);
        if complaint.is_none() {
            break;
        }
    }
    Ok(complaint)
}

fn unnamed_gaps() -> Vec<String> {
    let words: Vec<_> = GUARANTEE.split_whitespace().collect();
    let guarantee = words.join(" ");
    let unnamed = NAMED_GAPS
        .iter()
        .filter(|gap| !guarantee.contains(gap.named));
    unnamed
        .map(|gap| format!("docs/guarantee.md does not speak of {:?}", gap.named))
        .collect()
}

/// A Markdown table: operations down, file systems across.
fn print_table(operations: &[&'static Operation], columns: &[Column], only_losses: bool) {
    let homes = columns.iter().map(|column| column.ground.home().name());
    let head: Vec<_> = homes.collect();
    println!("| operation | claim | {} |", head.join(" | "));
    println!("|---|---|{}", "---|".repeat(head.len()));
    let rows = operations.iter();
    for operation in rows.filter(|it| wanted("OPERATION", it.name)) {
        let cells = columns.iter().map(|column| {
            let mut cells = column.cells.iter();
            let found = cells.find(|(other, _)| other.name == operation.name);
            found.map_or_else(String::new, |(_, trial)| cell(trial))
        });
        let cells: Vec<_> = cells.collect();
        if only_losses && !cells.iter().any(|cell| cell.contains('*')) {
            continue;
        }
        let claim = operation.claim.unwrap_or_default();
        println!("| {} | {claim} | {} |", operation.name, cells.join(" | "));
    }
    for column in columns {
        let (home, count) = (column.ground.home(), column.cells.len());
        println!("{home}: {count} operations in {:.1?}", column.took);
    }
}

fn cell(trial: &Result<Trial>) -> String {
    let Ok(trial) = trial else {
        return "?".to_owned();
    };
    let errno = trial.answer.is_err().then(|| {
        let name = outcome_name(trial.answer);
        name.split(' ').next().unwrap_or_default().to_owned()
    });
    let effect = match trial.effect {
        Effect::Kept => return errno.unwrap_or_else(|| "kept".to_owned()),
        Effect::Detached(_) => "**detached**",
        Effect::Stale => "**stale**",
        Effect::Gone => "**gone**",
    };
    match errno {
        None => effect.to_owned(),
        Some(errno) => format!("{errno}, {effect}"),
    }
}
