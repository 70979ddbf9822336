//! What needs no guard, where it runs: in the current directory, by the clock, each round one after the other.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use longpin_tests::scratch::write_striped;

use crate::commands::{command, dd, extents_of, filefrag, prepare, remove};
use crate::options::Asked;
use crate::table::{self, Table, bytes, number, progress};

/// Extents of the file whose map is printed.
const EXTENTS: u64 = 1_000_000;
/// A file that is prepared.
const LARGEST: u64 = 4 << 30;

pub(crate) fn run(asked: &Asked) -> Result<()> {
    let dir = tempfile::tempdir_in(".").context("no directory to work in")?;
    let path = dir.path().join("file");
    progress(&format!("a file of {EXTENTS} extents"));
    write_striped(&path, EXTENTS)?;
    let name = format!("{} extents", number(EXTENTS));
    let nothing = || Ok(());
    let base = filefrag(&path);
    let own = extents_of(&path);
    let mut maps = Table::new(["block map, ms", "filefrag -v", "extents", "ratio", "spread"]);
    maps.row(compare(asked, &name, &nothing, &base, &own)?);
    remove(&path)?;
    let size = (asked.largest as u64).min(LARGEST);
    progress(&format!("a new file of {}", bytes(size)));
    let mut files = Table::new(["new file, ms", "dd, direct", "prepare", "ratio", "spread"]);
    let (base, own) = (dd(&path, size), prepare(&path, size));
    let anew = || anew(&path);
    files.row(compare(asked, &bytes(size), &anew, &base, &own)?);
    for table in [maps, files] {
        table::line("");
        table.print();
    }
    Ok(())
}

/// Nothing is left of the round before, on the disk either.
fn anew(path: &Path) -> Result<()> {
    remove(path)?;
    rustix::fs::sync();
    Ok(())
}

/// The shortest of each, and how much the rounds differ.
fn compare(
    asked: &Asked,
    name: &str,
    before: &dyn Fn() -> Result<()>,
    base: &[String],
    own: &[String],
) -> Result<Vec<String>> {
    let time = |words: &[String]| -> Result<f64> {
        before()?;
        let begin = Instant::now();
        command(words)?;
        Ok(begin.elapsed().as_secs_f64() * 1000.0)
    };
    let mut rounds = Vec::new();
    for _ in 0..asked.rounds {
        rounds.push((time(base)?, time(own)?));
    }
    let least = |of: &dyn Fn(&(f64, f64)) -> f64| rounds.iter().map(of).fold(f64::MAX, f64::min);
    let (base, own) = (least(&|round| round.0), least(&|round| round.1));
    let most = rounds
        .iter()
        .map(|round| round.1 / round.0)
        .fold(0.0, f64::max);
    Ok(vec![
        name.to_owned(),
        format!("{base:.0}"),
        format!("{own:.0}"),
        format!("{:.2}", own / base),
        format!("{:.2} to {most:.2}", least(&|round| round.1 / round.0)),
    ])
}
