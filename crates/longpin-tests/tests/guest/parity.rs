//! Parity with the swap file: every operation, tried on an ordinary file, on an active swap file and on a file that is held
//! at level swapfile, answers the same on the last two, and changes as little.
//!
//! It prints a line for each operation: the file system, the operation, and the answers on the ordinary file, the swap file
//! and the held file; docs/parity.md is made of these. `LONGPIN_PARITY_OPERATION` takes a part of a name, and tries only
//! what has it.

mod gaps;
mod mappings;
mod steps;
mod subject;

use std::time::Instant;

use anyhow::{Result, bail, ensure};
use longpin_tests::operations::{Ground, Home};

use self::gaps::{complaint, unnamed};
use self::steps::{Door, Step, Trial, Trier};
pub(crate) use self::subject::{Kind, Subject};
use crate::{Test, guard};

/// Cheap, and what it sees is found too late by the long tests.
pub(crate) const WITHOUT_GUARD: &[Test] = &[("parity_gaps_are_named", gaps_are_named)];

pub(crate) const TESTS: &[Test] = &[
    ("parity_ext4", || parity(Home::Ext4, Kind::Held)),
    ("parity_xfs", || parity(Home::Xfs, Kind::Held)),
    ("parity_btrfs", || parity(Home::Btrfs, Kind::Held)),
    ("parity_f2fs", || parity(Home::F2fs, Kind::Held)),
    // The devices that pin files with blocks are RDMA's.
    #[cfg(feature = "rdma")]
    ("parity_pinned_ext4", || parity(Home::Ext4, Kind::Pinned)),
    #[cfg(feature = "rdma")]
    ("parity_pinned_xfs", || parity(Home::Xfs, Kind::Pinned)),
    #[cfg(feature = "rdma")]
    ("parity_pinned_btrfs", || parity(Home::Btrfs, Kind::Pinned)),
    #[cfg(feature = "rdma")]
    ("parity_pinned_f2fs", || parity(Home::F2fs, Kind::Pinned)),
    ("m13_flag_ext4", || flagged(Home::Ext4)),
    ("m13_flag_xfs", || flagged(Home::Xfs)),
    #[cfg(feature = "rdma")]
    ("m13_parity_ext4", || lent(Home::Ext4)),
    #[cfg(feature = "rdma")]
    ("m13_parity_xfs", || lent(Home::Xfs)),
];

fn gaps_are_named() -> Result<()> {
    let unnamed: Vec<_> = unnamed().collect();
    ensure!(unnamed.is_empty(), "{}", unnamed.join("\n"));
    Ok(())
}

/// Without BPF: there is no guard.
fn flagged(home: Home) -> Result<()> {
    longpin_tests::lend::load()?;
    parity(home, Kind::Flagged)
}

/// What is lent answers what is held alone, on the same DAX file system.
#[cfg(feature = "rdma")]
fn lent(home: Home) -> Result<()> {
    longpin_tests::lend::load()?;
    let device = std::env::var("LONGPIN_FSDAX")?;
    let ground = Ground::lent_on_dax(home, device.as_ref())?;
    try_all(ground, [Kind::Ordinary, Kind::Held, Kind::Lent])
}

/// What an operation did to each of the three.
struct Row {
    step: Step,
    trials: [Option<Trial>; 3],
}

impl Row {
    fn same_answers(&self, other: &Self) -> bool {
        self.step.name() == other.step.name() && self.trials == other.trials
    }

    /// The name, with the descriptor where that makes a difference.
    fn name(&self, rows: &[Self]) -> String {
        let name = self.step.name();
        let twin = |row: &&Self| row.step.name() == name && !row.same_answers(self);
        match (self.step, rows.iter().find(twin)) {
            (Step::Operation(_, Door::Old), Some(_)) => format!("{name}, old descriptor"),
            (Step::Operation(_, Door::New), Some(_)) => format!("{name}, new descriptor"),
            _ => name.to_owned(),
        }
    }
}

fn parity(home: Home, last: Kind) -> Result<()> {
    guard::off()?;
    try_all(Ground::lent(home)?, [Kind::Ordinary, Kind::Swap, last])
}

fn try_all(ground: Ground, kinds: [Kind; 3]) -> Result<()> {
    let (home, last) = (ground.home(), kinds[2]);
    let steps = steps::all(home);
    let blank = |step: &Step| Row {
        step: *step,
        trials: [None, None, None],
    };
    let mut rows: Vec<_> = steps.iter().map(blank).collect();
    let mut complaints: Vec<_> = unnamed().collect();
    for (column, kind) in kinds.into_iter().enumerate() {
        if kind == Kind::Ordinary && last != Kind::Held {
            // Tried beside the held file already.
            continue;
        }
        guard_for(kind)?;
        let begin = Instant::now();
        if let Err(err) = try_column(&ground, kinds, &mut rows, column) {
            complaints.push(format!("{}: {err:#}", kind.name()));
        }
        println!("{home}: {}: {:.1?}", kind.name(), begin.elapsed());
    }
    if last == Kind::Held {
        print_rows(home, &rows);
    }
    complaints.extend(rows.iter().flat_map(|row| judge(home, kinds, row)));
    if last == Kind::Pinned {
        // At this level it is no guard for the other tests.
        guard::off()?;
    }
    if let Err(err) = ground.close() {
        complaints.push(format!("{err:#}"));
    }
    let (count, words) = (complaints.len(), complaints.join("\n"));
    ensure!(count == 0, "{home}: {count} complaints:\n{words}");
    Ok(())
}

fn guard_for(kind: Kind) -> Result<()> {
    match kind {
        // Else each hold would load what it needs.
        Kind::Held | Kind::Lent => guard::on(),
        Kind::Pinned => guard::must(&["guard", "start", "--level", "swapfile"]).map(drop),
        // The flag refuses by itself.
        Kind::Ordinary | Kind::Swap | Kind::Flagged => Ok(()),
    }
}

fn try_column(ground: &Ground, kinds: [Kind; 3], rows: &mut [Row], column: usize) -> Result<()> {
    let kind = kinds[column];
    let mut trier = Trier::new(ground, kind);
    for row in rows {
        let trial = trier.try_step(&row.step);
        if let Some(words) = trier.not_offered() {
            bail!("an ordinary file is not held: {words}");
        }
        row.trials[column] = Some(trial);
        // At once: the rest takes minutes.
        for words in judge(ground.home(), kinds, row) {
            println!("{words}");
        }
    }
    trier.end()
}

/// Trials that failed, and a held file that is not like a swap file.
fn judge(home: Home, kinds: [Kind; 3], row: &Row) -> Vec<String> {
    let name = row.step.name();
    let failures = row.trials.iter().zip(kinds);
    let failures = failures.filter_map(|(trial, kind)| match trial {
        Some(Trial::Failed(words)) => Some(format!("{name}: {}: {words}", kind.name())),
        _ => None,
    });
    let mut complaints: Vec<_> = failures.collect();
    if let [_, Some(swap), Some(held)] = &row.trials {
        complaints.extend(match kinds[2] {
            // No gaps: it is the same hold.
            Kind::Lent if swap == held => None,
            Kind::Lent => Some(format!(
                "{name}: held: {}, lent: {}",
                cell(swap),
                cell(held)
            )),
            last => complaint(home, last, name, swap, held),
        });
    }
    complaints
}

fn print_rows(home: Home, rows: &[Row]) {
    for (index, row) in rows.iter().enumerate() {
        if rows[..index].iter().any(|other| other.same_answers(row)) {
            continue;
        }
        let cells = row.trials.each_ref().map(column).join("\t");
        println!("parity\t{home}\t{}\t{cells}", row.name(rows));
    }
}

fn column(trial: &Option<Trial>) -> String {
    trial.as_ref().map_or_else(|| "-".to_owned(), cell)
}

fn cell(trial: &Trial) -> String {
    match trial {
        Trial::NotHeld => "not held".to_owned(),
        Trial::Failed(_) => "?".to_owned(),
        Trial::Answered(answer, None) => answer.to_string(),
        Trial::Answered(answer, Some(change)) => format!("{answer}, {change}"),
    }
}
