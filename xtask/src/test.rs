//! `cargo xtask test`: the host tiers, then the guest tiers on every row of `KERNELS`.

use crate::rows::Row;
use crate::tally::Tally;
use crate::vm::{self, End, Guest};
use crate::{build, kernels, rows, ui};
use anyhow::{Context, Result};
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// The row that runs every test; the others run those named `smoke`, unless all are asked for.
const MAIN_ROW: &str = "latest";

/// A guest test run may take this long before the guest counts as hung.
const GUEST_LIMIT: Duration = Duration::from_secs(3600);

/// Results of the tiers so far, in order.
#[derive(Default)]
struct Summary {
    tiers: Vec<(String, Tally, Duration)>,
}

impl Summary {
    /// Runs a tier. Its own failure to run is counted and said, and the next tier still runs.
    fn tier(&mut self, name: &str, run: impl FnOnce() -> Result<Tally>) {
        ui::say(&format!("=== {name}"));
        let begin = Instant::now();
        let tally = run().unwrap_or_else(|error| {
            ui::say(&format!("error: {name}: {error:#}"));
            Tally::default().with_end(false)
        });
        self.tiers.push((name.to_owned(), tally, begin.elapsed()));
    }

    /// Prints the table and the sum, and returns the exit code.
    fn finish(&self) -> u8 {
        let mut sum = Tally::default();
        println!();
        println!(
            "{:<16} {:>7} {:>7} {:>7} {:>8}",
            "tier", "passed", "failed", "ignored", "seconds"
        );
        for (name, tally, time) in &self.tiers {
            let Tally {
                passed,
                failed,
                ignored,
            } = tally;
            let seconds = time.as_secs_f32();
            println!("{name:<16} {passed:>7} {failed:>7} {ignored:>7} {seconds:>8.1}");
            sum += *tally;
        }
        println!();
        println!("{} passed, {} failed", sum.passed, sum.failed);
        u8::from(sum.failed > 0)
    }
}

/// Runs all tiers. `all_rows`: every test on every kernel.
pub(crate) fn run(all_rows: bool) -> Result<u8> {
    let mut summary = Summary::default();
    summary.tier("host", host);
    let rows = rows::read()?;
    let built = build::release().and_then(|()| build::guest_tests());
    match built {
        Ok(program) => {
            for row in main_row_first(rows) {
                let smoke = !all_rows && row.name != MAIN_ROW;
                let name = format!("guest {}", row.name);
                summary.tier(&name, || guest(&row, &program, smoke));
            }
        }
        Err(error) => summary.tier("guest build", || Err(error)),
    }
    summary.tier("demo", demo);
    Ok(summary.finish())
}

fn main_row_first(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort_by_key(|row| row.name != MAIN_ROW);
    rows
}

fn host() -> Result<Tally> {
    let mut cargo = build::cargo(&["test", "--no-fail-fast"])?;
    let mut child = cargo
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    let stdout = child.stdout.take().context("no standard output")?;
    let copy = vm::relay(stdout, std::io::stdout());
    let output = copy.join().unwrap_or_default();
    let status = child.wait()?;
    Ok(Tally::read(&String::from_utf8_lossy(&output)).with_end(status.success()))
}

/// `make demo` checks each cell of its own table: one test.
fn demo() -> Result<Tally> {
    let shown = crate::demo::run()? == 0;
    let passed = Tally {
        passed: u32::from(shown),
        ..Tally::default()
    };
    Ok(passed.with_end(shown))
}

fn guest(row: &Row, program: &Path, smoke: bool) -> Result<Tally> {
    let kernel = kernels::ensure(row)?;
    let args: &[&str] = if smoke { &["smoke"] } else { &[] };
    let mut guest = Guest::new(kernel, vm::words(program, args));
    guest.timeout = GUEST_LIMIT;
    let run = guest.run()?;
    std::io::stdout().flush()?;
    let tally = Tally::read(&run.stdout);
    // A guest in which no test ran has proved nothing.
    let ran = tally.passed + tally.failed > 0;
    Ok(tally.with_end(ran && run.end == End::Status(0)))
}
