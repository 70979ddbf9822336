//! `cargo xtask test`: the host tiers, the guest tests on rows of `KERNELS`, the demo; or some of the guest tests.

mod chosen;
mod guests;
mod record;
mod report;
mod skips;
mod summary;

use crate::kernels::Kernel;
use crate::outputs::relay;
use crate::rows::{Daily, Row};
use crate::tally::Tally;
use crate::{build, failures, kernels, kmod, rows, ui};
use anyhow::{Context, Result, ensure};
use chosen::{Listed, Part};
use clap::Args;
use guests::{Job, Manner, Ran};
use record::Record;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use summary::{Summary, Tier};

/// A daily test takes seconds; it hangs if it takes longer than this, also on a busy machine.
const LIMIT: Duration = Duration::from_secs(1200);
/// The same for a long one.
const LONG_LIMIT: Duration = Duration::from_secs(3600);

/// What to test.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct TestArgs {
    /// Row of KERNELS, as often as there are rows to name. Without: every row, with what its `daily` says
    #[arg(long = "row", value_name = "ROW")]
    rows: Vec<String>,
    /// Only the long tests, and those that go on for longer; writes docs/long-tests.md
    #[arg(long)]
    long: bool,
    /// With --long: one of several parts that take as long as each other, as 2/4
    #[arg(long, value_name = "K/N", requires = "long")]
    part: Option<Part>,
    /// With --long: only what has no line in docs/long-tests.md, or failed when it was last run
    #[arg(long, requires = "long")]
    missing: bool,
    /// A test that takes longer hangs, and ends its guest [default: 1200; with --long, or a long test named: 3600]
    #[arg(long, value_name = "SECS")]
    limit: Option<u64>,
    /// Print the guest tests with their tiers, and run none
    #[arg(long)]
    list: bool,
    /// Put lines TEST,ROW,KERNEL,RESULT,SECONDS,COMMIT,DATE of this file into docs/long-tests.md, and run none
    #[arg(long, value_name = "FILE", hide = true)]
    import: Option<PathBuf>,
    /// Guest tests with this in their names, long ones, too. Without names: all
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

const HELP: &str = "\
Without rows and names: the host tests (`cargo test`), the guest tests on every row, the demo. With rows or names: only
guest tests, and of the build only what they need. Host tests go by name with `cargo test NAME`.

At the end: a line a test, `ROW NAME passed|failed|skipped SECONDS`; the slowest; a table of the tiers with the kernels that
were seen; what failed; and `N passed, N failed`. Of a run of all rows one or two tests that failed on a row are run three times
more, in guests of their own: what passes then each time is told as unsteady, with why it failed, and does not count as failed. What is skipped must be listed in crates/longpin-tests/skips, and nothing
else may be. Exit status: 0, or 1 if something failed.

Examples:
  cargo xtask test --row latest c01_truncate   one test on one row
  cargo xtask test c01 punch                   those with c01 or punch in their names, on every row
  cargo xtask test --row 6.1                   everything of every day on one row
  cargo xtask test --long --part 1/4           a quarter of the long tests";

impl TestArgs {
    /// Runs it, and returns the exit code.
    pub(crate) fn run(&self) -> Result<u8> {
        let rows = rows::select(&self.rows)?;
        if self.list || self.import.is_some() {
            return self.without_guests();
        }
        let mut summary = Summary::default();
        let whole = self.rows.is_empty() && self.names.is_empty() && !self.long;
        if whole {
            summary.before.push(tier("host", host));
        }
        match self.build() {
            Ok(program) => self.guests(&program, rows, &mut summary)?,
            Err(error) if whole => summary.before.push(tier("guest build", || Err(error))),
            Err(error) => return Err(error),
        }
        if whole {
            summary.after.push(tier("demo", demo));
        }
        let code = summary.print();
        if self.long {
            tell_missing(&chosen::list(&build::guest_tests()?)?)?;
        }
        Ok(code)
    }

    /// `--list` and `--import`.
    fn without_guests(&self) -> Result<u8> {
        let program = build::guest_tests()?;
        let list = chosen::list(&program)?;
        let Some(path) = &self.import else {
            for test in chosen::choose(&list, &self.names, self.long)? {
                println!("{:<40} {}", test.name, test.tier());
            }
            return Ok(0);
        };
        let mut all = Record::read()?;
        all.replace(Record::import(path)?);
        all.write(&list, &names(&rows::read()?))?;
        tell_missing(&list).map(|()| 0)
    }

    fn build(&self) -> Result<PathBuf> {
        build::release()?;
        if self.names.is_empty() || self.names.iter().any(|name| name.contains("example")) {
            build::examples()?;
        }
        build::guest_tests()
    }

    fn guests(&self, program: &Path, rows: Vec<Row>, summary: &mut Summary) -> Result<()> {
        let list = chosen::list(program)?;
        let chosen = chosen::choose(&list, &self.names, self.long)?;
        let skips = skips::read()?;
        summary.before.extend(strangers(&skips, &list)?);
        summary.before.extend(self.module(&rows, &list, &chosen));
        let jobs = self.jobs(rows, &list, &chosen)?;
        let is_long = self.long || !self.names.is_empty() && chosen.iter().any(|test| test.long);
        let usual = if is_long { LONG_LIMIT } else { LIMIT };
        let manner = Manner {
            program,
            skips: &skips,
            long: self.long,
            // Whoever asks for a row or a test wants to see what fails.
            again: self.rows.is_empty() && self.names.is_empty() && !self.long,
            test_limit: self.limit.map_or(usual, Duration::from_secs),
        };
        let (commit, date) = (record::commit(), record::date());
        let record = |ran: &Ran| {
            let told = commit.as_ref().ok().zip(date.as_ref().ok());
            let (commit, date) = told.map_or(("?", "?"), |(commit, date)| (commit, date));
            if let Err(error) = keep(&Record::of(ran, commit, date), &list) {
                ui::say(&format!("error: {error:#}"));
            }
        };
        summary.rows = guests::run_all(jobs, &manner, |ran| {
            if self.long {
                record(ran);
            }
        });
        Ok(())
    }

    /// The kernel module, for the rows that have tests of it; a tier of its own if it was not built. What else there is runs
    /// all the same.
    fn module(&self, rows: &[Row], list: &[Listed], chosen: &[Listed]) -> Option<Tier> {
        let loads = |row: &&Row| {
            let tests = self.tests_of(row, list, chosen);
            tests.iter().any(|test| test.name.starts_with("m13_"))
        };
        let rows: Vec<_> = rows.iter().filter(loads).cloned().collect();
        let begin = Instant::now();
        let failures = kmod::prepare(&rows);
        for line in &failures {
            ui::say(&format!("error: {line}"));
        }
        (!failures.is_empty()).then(|| Tier {
            name: "kernel module".to_owned(),
            tally: Tally::default().with_end(false),
            failures,
            took: begin.elapsed(),
        })
    }

    /// What each row has to run; rows of the same kernel only once.
    fn jobs(&self, rows: Vec<Row>, list: &[Listed], chosen: &[Listed]) -> Result<Vec<Job>> {
        let known = Record::committed()?;
        let written = Record::read()?;
        let mut jobs: Vec<Job> = Vec::new();
        for (turn, row) in rows.into_iter().enumerate() {
            let mut tests = self.tests_of(&row, list, chosen);
            tests.retain(|test| !self.missing || written.lacks(&test.name, &row.name));
            let seconds = |test: &str| known.seconds(test, &row.name);
            let tests = match self.part {
                Some(part) => part.of(tests, turn, seconds),
                None => tests,
            };
            if tests.is_empty() {
                ui::say(&format!("{}: nothing to run", row.name));
                continue;
            }
            // One after the other: a failure is told by the row's own line.
            let kernel = kernels::ensure(&row);
            if let Some(other) = kernel.as_ref().ok().and_then(|own| same(&jobs, own)) {
                let (name, seen, words) = (&row.name, other.in_words(), row.words());
                let other = &other.row.name;
                ui::say(&format!(
                    "{name}: {seen}, {words}: what {other} boots, run once, as {other}"
                ));
                continue;
            }
            jobs.push(Job { row, kernel, tests });
        }
        ensure!(!jobs.is_empty(), "nothing to run: name a row or a test");
        Ok(jobs)
    }

    fn tests_of(&self, row: &Row, list: &[Listed], chosen: &[Listed]) -> Vec<Listed> {
        if !self.names.is_empty() || self.long {
            return chosen.to_vec();
        }
        // Whoever names a row wants to know.
        let daily = if self.rows.is_empty() {
            row.daily
        } else {
            Daily::Whole
        };
        chosen::daily(list, daily)
    }
}

/// The kernel that is to be run already, if a guest of the other would be the same.
fn same<'a>(jobs: &'a [Job], own: &Kernel) -> Option<&'a Kernel> {
    let mut kernels = jobs.iter().filter_map(|job| job.kernel.as_ref().ok());
    kernels.find(|other| other.is_same(own))
}

fn names(rows: &[Row]) -> Vec<String> {
    rows.iter().map(|row| row.name.clone()).collect()
}

/// The lines go into the document at once: a long run may be killed.
fn keep(new: &Record, list: &[Listed]) -> Result<()> {
    let mut all = Record::read()?;
    all.replace(new.clone());
    all.write(list, &names(&rows::read()?))
}

fn tell_missing(list: &[Listed]) -> Result<()> {
    let missing = Record::read()?.missing(list, &names(&rows::read()?));
    if !missing.is_empty() {
        let some: Vec<_> = missing.iter().take(5).map(String::as_str).collect();
        let (file, count) = (record::FILE, missing.len());
        ui::say(&format!(
            "warning: {file} lacks {count} lines: {}…",
            some.join(", ")
        ));
    }
    Ok(())
}

/// A tier of failures, if the list of skips names what is not there.
fn strangers(skips: &[skips::Skip], list: &[Listed]) -> Result<Option<Tier>> {
    let tests: Vec<_> = list.iter().map(|test| test.name.clone()).collect();
    let unknown = skips::unknown(skips, &names(&rows::read()?), &tests);
    Ok((!unknown.is_empty()).then(|| Tier {
        name: "skips".to_owned(),
        tally: Tally::default().with_end(false),
        failures: unknown,
        took: Duration::ZERO,
    }))
}

/// Runs a tier. Its own failure to run is counted and said, and the next tier still runs.
fn tier(name: &str, run: impl FnOnce() -> Result<(Tally, Vec<String>)>) -> Tier {
    ui::say(&format!("=== {name}"));
    let begin = Instant::now();
    let (tally, failures) = run().unwrap_or_else(|error| {
        ui::say(&format!("error: {name}: {error:#}"));
        (Tally::default().with_end(false), vec![format!("{error:#}")])
    });
    Tier {
        name: name.to_owned(),
        tally,
        failures,
        took: begin.elapsed(),
    }
}

fn host() -> Result<(Tally, Vec<String>)> {
    let mut cargo = build::cargo(&["test", "--no-fail-fast"])?;
    let mut child = cargo
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    let stdout = child.stdout.take().context("no standard output")?;
    let copy = relay(stdout, std::io::stdout());
    let output = copy.join().unwrap_or_default();
    let output = String::from_utf8_lossy(&output);
    let status = child.wait()?;
    let mut failures = failures::read(&output);
    if !status.success() {
        failures.push(format!("cargo test: {status}"));
    }
    Ok((Tally::read(&output).with_end(status.success()), failures))
}

/// `make demo` checks each cell of its own table: one test.
fn demo() -> Result<(Tally, Vec<String>)> {
    let shown = crate::demo::run()? == 0;
    let wrong = (!shown).then(|| "a cell of the table is not as promised".to_owned());
    let mut tally = Tally::default().with_end(shown);
    tally.passed = u32::from(shown);
    Ok((tally, wrong.into_iter().collect()))
}
