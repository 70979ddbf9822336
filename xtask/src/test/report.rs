//! What the tests of a guest told, an event a line: see `report.rs` of the guest tests.

use serde_json::Value;

/// What came of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    Failed,
    Skipped,
}

impl Outcome {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }

    fn parse(text: &str) -> Self {
        match text {
            "passed" => Self::Passed,
            "skipped" => Self::Skipped,
            _ => Self::Failed,
        }
    }
}

/// A test that ran to its end, or did not.
#[derive(Clone, Debug)]
pub(crate) struct Tested {
    pub(crate) name: String,
    pub(crate) outcome: Outcome,
    pub(crate) seconds: f64,
    /// Why it failed or was skipped.
    pub(crate) words: String,
    /// It failed, with these words, and passed when it was run again.
    pub(crate) unsteady: bool,
    /// Its parts that were skipped, and why.
    pub(crate) parts: Vec<(String, String)>,
}

/// All of them, in their order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) tests: Vec<Tested>,
    /// The test that was running when the guest ended.
    pub(crate) unfinished: Option<String>,
    /// How often something was done: guard starts.
    pub(crate) counts: Vec<(String, u64)>,
}

impl Report {
    /// Lines that are no events (a guest may die in the middle of one) are passed over.
    pub(crate) fn read(text: &str) -> Self {
        let mut report = Self::default();
        let mut parts = Vec::new();
        for line in text.lines() {
            let Ok(event) = serde_json::from_str::<Value>(line) else {
                continue;
            };
            let word = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
            match &*word("event") {
                "begin" => {
                    parts.clear();
                    report.unfinished = Some(word("test"));
                }
                "part" if !parts.iter().any(|(part, _)| *part == word("part")) => {
                    parts.push((word("part"), word("reason")));
                }
                "end" => {
                    report.unfinished = None;
                    report.tests.push(Tested {
                        name: word("test"),
                        outcome: Outcome::parse(&word("result")),
                        seconds: event["seconds"].as_f64().unwrap_or(0.0),
                        words: word("words"),
                        unsteady: false,
                        parts: std::mem::take(&mut parts),
                    });
                }
                "hung" => report.end_hung(event["seconds"].as_f64().unwrap_or(0.0)),
                "count" => {
                    let times = event["times"].as_u64().unwrap_or(0);
                    report.counts.push((word("what"), times));
                }
                _ => {}
            }
        }
        report
    }

    fn end_hung(&mut self, seconds: f64) {
        if let Some(name) = self.unfinished.take() {
            self.push_failed(name, seconds, format!("no end after {seconds} s"));
        }
    }

    /// The test that was running when the guest ended, as a failed one.
    pub(crate) fn end_unfinished(&mut self, why: &str) {
        if let Some(name) = self.unfinished.take() {
            self.push_failed(name, 0.0, format!("did not end: {why}"));
        }
    }

    fn push_failed(&mut self, name: String, seconds: f64, words: String) {
        self.tests.push(Tested {
            name,
            outcome: Outcome::Failed,
            seconds,
            words,
            unsteady: false,
            parts: Vec::new(),
        });
    }

    /// The names of those that failed.
    pub(crate) fn failed(&self) -> Vec<String> {
        let is_failed = |test: &&Tested| test.outcome == Outcome::Failed;
        let failed = self.tests.iter().filter(is_failed);
        failed.map(|test| test.name.clone()).collect()
    }

    pub(crate) fn has_passed(&self, name: &str) -> bool {
        let mut tests = self.tests.iter();
        tests.any(|test| test.name == name && test.outcome == Outcome::Passed)
    }

    /// One that failed, and passed each time that it was run again.
    pub(crate) fn pass_unsteadily(&mut self, name: &str) {
        for test in self.tests.iter_mut().filter(|test| test.name == name) {
            test.outcome = Outcome::Passed;
            test.unsteady = true;
        }
    }

    pub(crate) fn count(&self, outcome: Outcome) -> u32 {
        let of = self.tests.iter().filter(|test| test.outcome == outcome);
        u32::try_from(of.count()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLD: &str = r#"{"event":"begin","test":"a"}
{"event":"part","part":"p","reason":"no p"}
{"event":"part","part":"p","reason":"no p"}
{"event":"end","test":"a","result":"passed","seconds":1.5,"words":""}
{"event":"begin","test":"b"}
{"event":"end","test":"b","result":"skipped","seconds":0.5,"words":"no b"}
{"event":"count","what":"guard starts","times":3}
{"event":"begin","test":"c"}
"#;

    #[test]
    fn tests_parts_and_counts_are_read() {
        let mut report = Report::read(TOLD);
        assert_eq!(report.tests[0].parts, [("p".to_owned(), "no p".to_owned())]);
        assert_eq!(report.tests[1].outcome, Outcome::Skipped);
        assert_eq!(report.tests[1].words, "no b");
        assert_eq!(report.counts, [("guard starts".to_owned(), 3)]);
        report.end_unfinished("the guest's kernel panicked");
        let last = report.tests.last().unwrap();
        assert_eq!((&*last.name, last.outcome), ("c", Outcome::Failed));
        assert_eq!(last.words, "did not end: the guest's kernel panicked");
    }

    #[test]
    fn what_passes_when_it_is_run_again_is_unsteady() {
        let told = |result: &str| {
            Report::read(&format!(
                "{{\"event\":\"end\",\"test\":\"a\",\"result\":\"{result}\",\"words\":\"why\"}}\n"
            ))
        };
        let mut report = told("failed");
        assert_eq!(report.failed(), ["a"]);
        assert!(!told("failed").has_passed("a") && !told("skipped").has_passed("a"));
        assert!(told("passed").has_passed("a"));
        report.pass_unsteadily("a");
        assert!(report.failed().is_empty() && report.tests[0].unsteady);
        assert_eq!(report.tests[0].words, "why");
    }

    #[test]
    fn a_test_that_hangs_is_told_by_name() {
        let text = format!("{TOLD}{{\"event\":\"hung\",\"test\":\"c\",\"seconds\":600}}\n{{\"ev");
        let report = Report::read(&text);
        assert_eq!(report.count(Outcome::Failed), 1);
        assert_eq!(report.tests[2].words, "no end after 600 s");
        assert_eq!(report.unfinished, None);
    }
}
