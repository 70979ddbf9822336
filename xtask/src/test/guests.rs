//! The rows' guests: a queue of them over the processors, and what comes of one.

use super::chosen::Listed;
use super::report::Report;
use super::skips::{self, Skip};
use crate::kernels::Kernel;
use crate::rows::Row;
use crate::ui;
use crate::vm::{self, End, Guest, Run};
use anyhow::{Result, anyhow};
use std::ffi::OsString;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What to run on a row.
pub(crate) struct Job {
    pub(crate) row: Row,
    /// Its kernel, or why there is none.
    pub(crate) kernel: Result<Kernel>,
    pub(crate) tests: Vec<Listed>,
}

/// How to run the tests.
pub(crate) struct Manner<'a> {
    pub(crate) program: &'a Path,
    pub(crate) skips: &'a [Skip],
    /// Everything goes on for longer.
    pub(crate) long: bool,
    /// A test may take so long.
    pub(crate) test_limit: Duration,
    /// What failed is run again.
    pub(crate) again: bool,
}

/// So often what failed must pass afterwards, in guests of its own, to be told as unsteady and not as failed.
const AGAIN: usize = 3;
/// More failures than that are no chance.
const MOST_UNSTEADY: usize = 2;

/// What came of a row.
pub(crate) struct Ran {
    pub(crate) row: String,
    /// The kernel that was seen.
    pub(crate) kernel: String,
    /// Its version alone.
    pub(crate) version: String,
    pub(crate) report: Report,
    /// What went wrong and is no test's, with what to do.
    pub(crate) wrong: Option<String>,
    pub(crate) took: Duration,
    /// Processor time of the emulator.
    pub(crate) cpu: Option<Duration>,
}

/// Runs the jobs side by side; each is told to `ended` as it ends. In their order.
pub(crate) fn run_all(
    jobs: Vec<Job>,
    manner: &Manner<'_>,
    ended: impl Fn(&Ran) + Sync,
) -> Vec<Ran> {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let width = width(jobs.len(), processors, room(&meminfo));
    let labelled = jobs.len() > 1;
    let waiting = Mutex::new(jobs.into_iter().enumerate());
    let all = Mutex::new(Vec::new());
    let next = || {
        waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .next()
    };
    std::thread::scope(|scope| {
        for _ in 0..width {
            scope.spawn(|| {
                while let Some((number, job)) = next() {
                    let ran = run(&job, manner, labelled);
                    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                    ended(&ran);
                    all.push((number, ran));
                }
            });
        }
    });
    let mut all = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    all.sort_by_key(|(number, _)| *number);
    all.into_iter().map(|(_, ran)| ran).collect()
}

/// An emulated guest keeps one processor busy. Where the processors share the rows evenly, each takes one after the other:
/// with one guest more, the last row would run alone. Where they do not, one guest more keeps all of them busy for longer.
fn width(jobs: usize, processors: usize, room: usize) -> usize {
    let more = usize::from(jobs % processors != 0);
    jobs.min((processors + more).min(room).max(1))
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

/// One row. That there was no guest is told, and is no error of the others'.
fn run(job: &Job, manner: &Manner<'_>, labelled: bool) -> Ran {
    let begin = Instant::now();
    let name = job.row.name.clone();
    let seen = job.kernel.as_ref().ok().map(|kernel| {
        let version = kernel.version.clone();
        (kernel.in_words(), version)
    });
    let (kernel, version) = seen.unwrap_or_else(|| ("none".to_owned(), "none".to_owned()));
    let run = match &job.kernel {
        Ok(kernel) => guest(kernel.clone(), &job.tests, manner, labelled).run(),
        Err(error) => Err(anyhow!("{error:#}")),
    };
    let cpu = run.as_ref().ok().and_then(|run| run.cpu);
    let (mut report, wrong) = match run {
        Ok(run) => read(&name, &run, job.tests.len(), manner.skips),
        Err(error) => (Report::default(), Some(format!("{error:#}"))),
    };
    if let (Ok(kernel), None, true) = (&job.kernel, &wrong, manner.again) {
        let failed = report.failed();
        let tests = job.tests.iter().filter(|test| failed.contains(&test.name));
        let tests: Vec<Listed> = tests.cloned().collect();
        if (1..=MOST_UNSTEADY).contains(&tests.len()) {
            for steady in run_again(kernel, &tests, manner) {
                report.pass_unsteadily(&steady);
            }
        }
    }
    Ran {
        row: name,
        kernel,
        version,
        report,
        wrong,
        took: begin.elapsed(),
        cpu,
    }
}

/// Those of the tests that pass each time now.
fn run_again(kernel: &Kernel, tests: &[Listed], manner: &Manner<'_>) -> Vec<String> {
    let name = &kernel.row.name;
    let mut passing: Vec<String> = tests.iter().map(|test| test.name.clone()).collect();
    for turn in 1..=AGAIN {
        ui::say(&format!(
            "{name}: what failed again, {turn} of {AGAIN}: {}",
            passing.join(", ")
        ));
        let Ok(run) = guest(kernel.clone(), tests, manner, true).run() else {
            return Vec::new();
        };
        let (report, _) = read(name, &run, tests.len(), manner.skips);
        passing.retain(|name| report.has_passed(name));
        if passing.is_empty() {
            break;
        }
    }
    passing
}

fn guest(kernel: Kernel, tests: &[Listed], manner: &Manner<'_>, labelled: bool) -> Guest {
    let names: Vec<_> = tests.iter().map(|test| &*test.name).collect();
    let mut words = vec![OsString::from("env"), "-u".into(), "LONGPIN_LONG".into()];
    words.push(format!("LONGPIN_TESTS={}", names.join(" ")).into());
    if manner.long {
        words.push("LONGPIN_LONG=1".into());
    }
    words.push(manner.program.into());
    let label = labelled.then(|| kernel.row.name.clone());
    let mut guest = Guest::new(kernel, words);
    guest.label = label;
    guest.test_limit = Some(manner.test_limit);
    // Each test has its time; the guest has what they may take together.
    let count = u32::try_from(tests.len() + 2).unwrap_or(u32::MAX);
    guest.timeout = manner.test_limit.saturating_mul(count);
    guest
}

/// What its tests told, judged, and what went wrong besides.
fn read(row: &str, run: &Run, asked: usize, skips: &[Skip]) -> (Report, Option<String>) {
    let mut report = Report::read(&run.report);
    let running = report.unfinished.clone();
    report.end_unfinished(&run.verdict);
    skips::judge(skips, row, &mut report);
    let failed = report
        .tests
        .iter()
        .any(|test| test.outcome == super::report::Outcome::Failed);
    let told = report.tests.len();
    let log =
        vm::console_path(row).map_or_else(|_| String::new(), |path| path.display().to_string());
    let wrong = match run.end {
        End::Status(_) if failed || running.is_some() => None,
        End::Status(0) if told == asked => None,
        End::Status(0) => Some(anyhow!(
            "{told} of {asked} tests were run: look at the output above"
        )),
        End::Status(status) => Some(anyhow!(
            "the test program ended with status {status} after {told} of {asked} tests: look at the output above"
        )),
        End::NoGuest if !run.began => Some(anyhow!(
            "{}: `cargo xtask vm --kernel {row} -- true` tries once more; the kernel's log is {log}",
            run.verdict
        )),
        _ => Some(anyhow!(
            "{}: `cargo xtask test --row {row} {}` runs it alone; the kernel's log is {log}",
            run.verdict,
            running.or_else(|| last(&report)).unwrap_or_default()
        )),
    };
    (report, wrong.map(|wrong| wrong.to_string()))
}

/// The test that ran last.
fn last(report: &Report) -> Option<String> {
    report.tests.last().map(|test| test.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_guest_more_than_processors_where_it_fits() {
        let meminfo = "MemTotal: 24000000 kB\nMemAvailable:   22020096 kB\n";
        assert_eq!(room(meminfo), 4);
        assert_eq!(room("MemTotal: 1 kB\n"), 0);
        assert_eq!(width(4, 2, 4), 2);
        assert_eq!(width(3, 2, 4), 3);
        assert_eq!(width(4, 2, 1), 1);
        assert_eq!(width(3, 8, 9), 3);
        assert_eq!(width(3, 2, 0), 1);
    }

    fn ended(end: End, report: &str, began: bool) -> (Report, Option<String>) {
        let run = Run {
            end,
            verdict: "killed the guest".to_owned(),
            began,
            ended: false,
            report: report.to_owned(),
            cpu: None,
            stdout: String::new(),
        };
        read("6.1", &run, 1, &[])
    }

    #[test]
    fn each_bad_end_says_what_to_do() {
        let begun = "{\"event\":\"begin\",\"test\":\"a\"}\n";
        let (report, wrong) = ended(End::TimedOut, begun, true);
        assert_eq!(report.tests[0].words, "did not end: killed the guest");
        assert!(wrong.unwrap().contains("`cargo xtask test --row 6.1 a`"));
        let (_, wrong) = ended(End::NoGuest, "", false);
        assert!(
            wrong
                .unwrap()
                .contains("`cargo xtask vm --kernel 6.1 -- true`")
        );
        let (_, wrong) = ended(End::Status(0), "", true);
        assert!(wrong.unwrap().starts_with("0 of 1 tests"));
        let passed = "{\"event\":\"end\",\"test\":\"a\",\"result\":\"passed\"}\n";
        assert_eq!(ended(End::Status(0), passed, true).1, None);
        assert!(ended(End::Status(1), passed, true).1.is_some());
    }
}
