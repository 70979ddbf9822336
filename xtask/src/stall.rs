//! Whether the tests in a guest go on: what they report is watched from outside, so that a guest in which nothing runs any
//! more is noticed, too.

use std::path::Path;
use std::time::{Duration, Instant};

/// After its time a test ends its program by itself; so much later nobody waits for that any more.
const GRACE: Duration = Duration::from_secs(60);

/// What was seen of the report, and when.
pub(crate) struct Stall {
    limit: Duration,
    seen: u64,
    since: Instant,
}

impl Stall {
    /// Nothing may be reported for so long.
    pub(crate) fn new(limit: Duration) -> Self {
        Self {
            limit: limit + GRACE,
            seen: 0,
            since: Instant::now(),
        }
    }

    /// True if the last thing was reported too long ago. Before the first there is no test.
    pub(crate) fn is_over(&mut self, report: &Path) -> bool {
        let Ok(data) = std::fs::metadata(report) else {
            return false;
        };
        if data.len() != self.seen {
            self.seen = data.len();
            self.since = Instant::now();
            let told = std::fs::read_to_string(report).unwrap_or_default();
            if told
                .lines()
                .last()
                .is_some_and(|line| line.contains("\"hung\""))
            {
                self.limit = GRACE;
            }
        }
        self.since.elapsed() > self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_that_does_not_grow_is_a_stall() {
        let path = std::env::temp_dir().join(format!("longpin-stall-{}", std::process::id()));
        let mut stall = Stall::new(Duration::ZERO);
        stall.limit = Duration::ZERO;
        assert!(!stall.is_over(&path), "no test has begun");
        std::fs::write(&path, "{\"event\":\"begin\"}\n").unwrap();
        stall.is_over(&path);
        std::thread::sleep(Duration::from_millis(2));
        assert!(stall.is_over(&path));
        std::fs::write(&path, "{\"event\":\"begin\"}\n{\"event\":\"hung\"}\n").unwrap();
        assert!(!stall.is_over(&path), "it may end by itself");
        std::fs::remove_file(path).unwrap();
    }
}
