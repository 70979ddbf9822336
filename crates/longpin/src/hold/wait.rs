//! How long an acquisition waits.

use std::time::{Duration, Instant};

/// How long operations that began before the hold are waited for, at least.
const LANDING: Duration = Duration::from_secs(10);

/// How long to wait for another hold to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    No,
    /// So long.
    For(Duration),
    /// As long as it takes.
    Forever,
}

impl Wait {
    /// `None`: there is none.
    pub(super) fn deadline(self) -> Option<Instant> {
        match self {
            Self::No => Some(Instant::now()),
            Self::For(time) => Instant::now().checked_add(time),
            Self::Forever => None,
        }
    }

    /// For operations that began before: they end by themselves, and soon, as a rule.
    pub(super) fn landing(self) -> Duration {
        match self {
            Self::For(time) => time.max(LANDING),
            Self::No | Self::Forever => LANDING,
        }
    }
}
