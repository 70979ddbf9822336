//! Counts of tests, read from the result lines of test programs.

use std::ops::AddAssign;

/// Tests that passed, failed and were not run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    pub(crate) ignored: u32,
}

impl Tally {
    /// Sums the result lines in a test program's output.
    pub(crate) fn read(output: &str) -> Self {
        let mut sum = Self::default();
        for line in output.lines() {
            if let Some(tally) = line
                .trim()
                .strip_prefix("test result: ")
                .and_then(Self::parse)
            {
                sum += tally;
            }
        }
        sum
    }

    /// A program that failed without a failed test (it did not build, or crashed) counts as one failure.
    pub(crate) fn with_end(mut self, success: bool) -> Self {
        if !success && self.failed == 0 {
            self.failed = 1;
        }
        self
    }

    fn parse(result: &str) -> Option<Self> {
        let (_, counts) = result.split_once(". ")?;
        let count = |word: &str| {
            let mut counts = counts.split(';');
            counts.find_map(|count| count.trim().strip_suffix(word)?.trim().parse().ok())
        };
        Some(Self {
            passed: count("passed")?,
            failed: count("failed")?,
            ignored: count("ignored")?,
        })
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_summed_and_other_lines_are_not() {
        let output = "running 2 tests\n\
            test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
            test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 4 filtered out; finished in 0.1s\n";
        let tally = Tally::read(output);
        assert_eq!((tally.passed, tally.failed, tally.ignored), (13, 2, 3));
    }

    #[test]
    fn a_program_that_fails_without_a_failed_test_is_a_failure() {
        assert_eq!(Tally::read("").with_end(false).failed, 1);
        assert_eq!(Tally::read("").with_end(true).failed, 0);
    }
}
