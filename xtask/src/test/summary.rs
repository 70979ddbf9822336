//! What is printed at the end: a line a test, what was slow, a table of the tiers, what failed, and the sum.

use super::guests::Ran;
use super::report::{Outcome, Tested};
use crate::tally::Tally;
use std::time::Duration;

/// So many of the slowest tests are told.
const SLOWEST: usize = 15;

/// A tier that is no guest: its own programs count its tests.
#[derive(Default)]
pub(crate) struct Tier {
    pub(crate) name: String,
    pub(crate) tally: Tally,
    /// What failed, a line each.
    pub(crate) failures: Vec<String>,
    pub(crate) took: Duration,
}

/// Everything that was run, in order.
#[derive(Default)]
pub(crate) struct Summary {
    pub(crate) before: Vec<Tier>,
    pub(crate) rows: Vec<Ran>,
    pub(crate) after: Vec<Tier>,
}

impl Ran {
    fn tally(&self) -> Tally {
        let tally = Tally {
            passed: self.report.count(Outcome::Passed),
            failed: self.report.count(Outcome::Failed),
            ignored: self.report.count(Outcome::Skipped),
        };
        tally.with_end(self.wrong.is_none())
    }

    fn failures(&self) -> Vec<String> {
        let failed = self
            .report
            .tests
            .iter()
            .filter(|test| test.outcome == Outcome::Failed);
        let lines = failed.map(|test| format!("{}: {}", test.name, cut(&test.words)));
        lines.chain(self.wrong.clone()).collect()
    }
}

/// A failure in one line: its beginning says what it is.
fn cut(words: &str) -> String {
    words.replace('\n', " ").chars().take(500).collect()
}

impl Summary {
    /// Prints it all, and returns the exit code.
    pub(crate) fn print(&self) -> u8 {
        if self.all_tests().next().is_some() {
            println!("\n{}", self.tests().join("\n"));
            println!("\nslowest:\n{}", self.slowest().join("\n"));
        }
        println!("\n{}\n", self.tiers().join("\n"));
        for line in self.failures() {
            println!("{line}");
        }
        for (row, test) in self.all_tests().filter(|(_, test)| test.unsteady) {
            println!(
                "unsteady: {row} {} failed, and passed when it was run again: {}",
                test.name,
                cut(&test.words)
            );
        }
        let sum = self.sum();
        println!("{} passed, {} failed", sum.passed, sum.failed);
        u8::from(sum.failed > 0)
    }

    fn all_tests(&self) -> impl Iterator<Item = (&str, &Tested)> {
        let rows = self.rows.iter();
        rows.flat_map(|ran| ran.report.tests.iter().map(|test| (ran.row.as_str(), test)))
    }

    /// `ROW NAME passed|failed|skipped SECONDS`
    fn tests(&self) -> Vec<String> {
        let line = |(row, test): (&str, &Tested)| {
            let Tested { name, seconds, .. } = test;
            let came = test.outcome.name();
            let why = match (test.outcome, test.words.is_empty()) {
                (Outcome::Skipped, false) => format!("  {}", cut(&test.words)),
                _ if test.unsteady => "  unsteady".to_owned(),
                _ => String::new(),
            };
            format!("{row} {name} {came} {seconds:.1}{why}")
        };
        self.all_tests().map(line).collect()
    }

    fn slowest(&self) -> Vec<String> {
        let mut all: Vec<_> = self.all_tests().collect();
        all.sort_by(|(_, one), (_, two)| two.seconds.total_cmp(&one.seconds));
        let line =
            |(row, test): &(&str, &Tested)| format!("{:>8.1} s  {row} {}", test.seconds, test.name);
        all.iter().take(SLOWEST).map(line).collect()
    }

    fn tiers(&self) -> Vec<String> {
        let head = [
            "tier",
            "passed",
            "failed",
            "skipped",
            "minutes",
            "processor",
            "starts",
            "kernel",
        ];
        let mut lines = vec![line(&head.map(str::to_owned))];
        let tier = |tier: &Tier| {
            line(&row(
                &tier.name,
                tier.tally,
                tier.took,
                ["", "", ""].map(str::to_owned),
            ))
        };
        lines.extend(self.before.iter().map(tier));
        lines.extend(self.rows.iter().map(|ran| {
            let starts = ran.report.counts.first();
            let more = [
                ran.cpu.map_or_else(String::new, minutes),
                starts.map_or_else(String::new, |(_, times)| times.to_string()),
                ran.kernel.clone(),
            ];
            line(&row(
                &format!("guest {}", ran.row),
                ran.tally(),
                ran.took,
                more,
            ))
        }));
        lines.extend(self.after.iter().map(tier));
        lines
    }

    fn failures(&self) -> Vec<String> {
        let tier = |tier: &Tier| {
            let Tier { name, failures, .. } = tier;
            failures
                .iter()
                .map(|words| format!("{name}: {words}"))
                .collect::<Vec<_>>()
        };
        let rows = self.rows.iter().flat_map(|ran| {
            let own = ran.failures().into_iter();
            own.map(|words| format!("{}: {words}", ran.row))
                .collect::<Vec<_>>()
        });
        let before = self.before.iter().flat_map(tier);
        before
            .chain(rows)
            .chain(self.after.iter().flat_map(tier))
            .collect()
    }

    fn sum(&self) -> Tally {
        let mut sum = Tally::default();
        for tier in self.before.iter().chain(&self.after) {
            sum += tier.tally;
        }
        for ran in &self.rows {
            sum += ran.tally();
        }
        sum
    }
}

fn row(name: &str, tally: Tally, took: Duration, more: [String; 3]) -> [String; 8] {
    let [cpu, starts, kernel] = more;
    let counts = [tally.passed, tally.failed, tally.ignored].map(|count| count.to_string());
    let [passed, failed, skipped] = counts;
    let name = name.to_owned();
    [
        name,
        passed,
        failed,
        skipped,
        minutes(took),
        cpu,
        starts,
        kernel,
    ]
}

fn minutes(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() / 60.0)
}

fn line(cells: &[String; 8]) -> String {
    let [name, passed, failed, skipped, took, cpu, starts, kernel] = cells;
    let line = format!(
        "{name:<16} {passed:>7} {failed:>7} {skipped:>7} {took:>8} {cpu:>9} {starts:>7}  {kernel}"
    );
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::report::Report;

    fn ran(wrong: Option<&str>) -> Ran {
        let told = "{\"event\":\"end\",\"test\":\"a\",\"result\":\"passed\",\"seconds\":1.25}\n\
            {\"event\":\"end\",\"test\":\"b\",\"result\":\"skipped\",\"seconds\":0.5,\"words\":\"no b\"}\n\
            {\"event\":\"end\",\"test\":\"c\",\"result\":\"failed\",\"seconds\":2.5,\"words\":\"no\\nc\"}\n\
            {\"event\":\"count\",\"what\":\"guard starts\",\"times\":7}\n";
        Ran {
            row: "6.1".to_owned(),
            kernel: "Linux 6.1.176-1 (x)".to_owned(),
            version: "6.1.176-1".to_owned(),
            report: Report::read(told),
            wrong: wrong.map(str::to_owned),
            took: Duration::from_secs(90),
            cpu: Some(Duration::from_secs(60)),
        }
    }

    #[test]
    fn a_line_a_test_and_the_slowest_first() {
        let summary = Summary {
            rows: vec![ran(None)],
            ..Summary::default()
        };
        let lines = [
            "6.1 a passed 1.2",
            "6.1 b skipped 0.5  no b",
            "6.1 c failed 2.5",
        ];
        assert_eq!(summary.tests(), lines);
        assert_eq!(summary.slowest()[0], "     2.5 s  6.1 c");
        assert_eq!(summary.failures(), ["6.1: c: no c"]);
        let tiers = summary.tiers();
        assert!(tiers[1].starts_with("guest 6.1"), "{tiers:?}");
        assert!(
            tiers[1].ends_with("1.5       1.0       7  Linux 6.1.176-1 (x)"),
            "{tiers:?}"
        );
    }

    #[test]
    fn a_row_without_a_guest_is_a_failure() {
        let mut gone = ran(Some("cannot fetch"));
        gone.report = Report::default();
        let summary = Summary {
            rows: vec![gone],
            ..Summary::default()
        };
        assert_eq!((summary.sum().passed, summary.sum().failed), (0, 1));
        assert_eq!(summary.failures(), ["6.1: cannot fetch"]);
    }
}
