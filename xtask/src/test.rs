//! `cargo xtask test`: the host tiers, then the guest tiers on every row of `KERNELS`.

use crate::rows::Row;
use crate::tally::Tally;
use crate::vm::{self, End, Guest};
use crate::{build, failures, kernels, rows, ui};
use anyhow::{Context, Result};
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A guest test run may take this long before the guest counts as hung.
const GUEST_LIMIT: Duration = Duration::from_secs(3600);

/// Results of the tiers so far, in order.
#[derive(Default)]
struct Summary {
    tiers: Vec<(String, Results, Duration)>,
}

/// What came of a tier.
#[derive(Default)]
struct Results {
    tally: Tally,
    /// What failed, a line each.
    failures: Vec<String>,
}

impl Results {
    /// From a test program's output, and how it ended: `None`, or why that was wrong.
    fn read(output: &str, wrong: Option<String>) -> Self {
        let mut failures = failures::read(output);
        let tally = Tally::read(output).with_end(wrong.is_none());
        failures.extend(wrong);
        Self { tally, failures }
    }
}

impl Summary {
    /// Runs a tier. Its own failure to run is counted and said, and the next tier still runs.
    fn tier(&mut self, name: &str, run: impl FnOnce() -> Result<Results>) {
        ui::say(&format!("=== {name}"));
        let begin = Instant::now();
        let results = run().unwrap_or_else(|error| {
            ui::say(&format!("error: {name}: {error:#}"));
            Results::read("", Some(format!("{error:#}")))
        });
        self.tiers.push((name.to_owned(), results, begin.elapsed()));
    }

    /// Runs tiers of guests side by side.
    fn guests(&mut self, rows: Vec<Row>, program: &Path) {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let width = width(rows.len(), processors, room(&meminfo));
        let waiting = Mutex::new(rows.into_iter());
        let ended = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..width {
                scope.spawn(|| {
                    while let Some(row) = next(&waiting) {
                        let mut own = Self::default();
                        own.tier(&format!("guest {}", row.name), || guest(&row, program));
                        if let Ok(mut ended) = ended.lock() {
                            ended.append(&mut own.tiers);
                        }
                    }
                });
            }
        });
        self.tiers
            .append(&mut ended.into_inner().unwrap_or_default());
    }

    /// Prints the table and the sum, and returns the exit code.
    fn finish(&self) -> u8 {
        let mut sum = Tally::default();
        println!();
        println!(
            "{:<16} {:>7} {:>7} {:>7} {:>8}",
            "tier", "passed", "failed", "ignored", "seconds"
        );
        for (name, results, time) in &self.tiers {
            let Tally {
                passed,
                failed,
                ignored,
            } = results.tally;
            let seconds = time.as_secs_f32();
            println!("{name:<16} {passed:>7} {failed:>7} {ignored:>7} {seconds:>8.1}");
            sum += results.tally;
        }
        println!();
        for (name, results, _) in &self.tiers {
            for failure in &results.failures {
                println!("{name}: {failure}");
            }
        }
        println!("{} passed, {} failed", sum.passed, sum.failed);
        u8::from(sum.failed > 0)
    }
}

/// A guest for each processor, and all at once where the memory allows it: an emulated guest keeps one processor
/// busy, and the last one would leave the others idle.
fn width(rows: usize, processors: usize, room: usize) -> usize {
    processors.max(rows.min(room))
}

/// How many guests fit into the free memory.
fn room(meminfo: &str) -> usize {
    const GUEST_KIB: usize = 5 << 20;
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let free = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    free.unwrap_or(0) / GUEST_KIB
}

fn next(rows: &Mutex<std::vec::IntoIter<Row>>) -> Option<Row> {
    rows.lock().ok()?.next()
}

/// Runs all tiers.
pub(crate) fn run() -> Result<u8> {
    let mut summary = Summary::default();
    summary.tier("host", host);
    let rows = rows::read()?;
    let built = build::release()
        .and_then(|()| build::examples())
        .and_then(|()| build::guest_tests());
    match built {
        Ok(program) => {
            for row in &rows {
                // Fetched one after the other; a failure is told by the row's own tier.
                let _ = kernels::ensure(row);
            }
            summary.guests(rows, &program);
        }
        Err(error) => summary.tier("guest build", || Err(error)),
    }
    summary.tier("demo", demo);
    Ok(summary.finish())
}

fn host() -> Result<Results> {
    let mut cargo = build::cargo(&["test", "--no-fail-fast"])?;
    let mut child = cargo
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    let stdout = child.stdout.take().context("no standard output")?;
    let copy = vm::relay(stdout, std::io::stdout());
    let output = copy.join().unwrap_or_default();
    let status = child.wait()?;
    let wrong = (!status.success()).then(|| format!("cargo test: {status}"));
    Ok(Results::read(&String::from_utf8_lossy(&output), wrong))
}

/// `make demo` checks each cell of its own table: one test.
fn demo() -> Result<Results> {
    let shown = crate::demo::run()? == 0;
    let wrong = (!shown).then(|| "a cell of the table is not as promised".to_owned());
    let mut results = Results::read("", wrong);
    results.tally.passed = u32::from(shown);
    Ok(results)
}

fn guest(row: &Row, program: &Path) -> Result<Results> {
    let kernel = kernels::ensure(row)?;
    let mut guest = Guest::new(kernel, vm::words(program, &[]));
    guest.label = Some(row.name.clone());
    guest.timeout = GUEST_LIMIT;
    let run = guest.run()?;
    std::io::stdout().flush()?;
    let tally = Tally::read(&run.stdout);
    let wrong = match run.end {
        // A guest in which no test ran has proved nothing.
        End::Status(0) if tally.passed + tally.failed == 0 => Some("no test ran".to_owned()),
        End::Status(0) => None,
        End::Status(status) => Some(format!("the test program's status was {status}")),
        _ => Some(run.verdict),
    };
    Ok(Results::read(&run.stdout, wrong))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_guests_run_at_once_where_they_fit() {
        let meminfo = "MemTotal: 24000000 kB\nMemAvailable:   22020096 kB\n";
        assert_eq!(room(meminfo), 4);
        assert_eq!(room("MemTotal: 1 kB\n"), 0);
        assert_eq!(width(3, 2, 4), 3);
        assert_eq!(width(3, 2, 1), 2);
        assert_eq!(width(3, 8, 0), 8);
    }
}
