//! Why nothing was registered.

use std::io;

use super::{ProtectionError, TrialError};
use crate::hold::Refusal;
use crate::plan::{PlanError, Planned, Rule};

/// Why a file's memory was not registered. Nothing of it is mapped, registered or pinned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// The plan refuses, by a rule.
    #[error("{}", refusal(.0))]
    Refused(Box<Planned>),
    /// Nobody knows what would happen.
    #[error("it cannot be told whether this can be registered: {what}")]
    Unknown {
        /// What is not known.
        what: String,
    },
    /// No plan could be made.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Level swapfile was asked for, and the file cannot be held at it.
    #[error("level swapfile was asked for, and the hold is refused")]
    Level(#[source] Box<Refusal>),
    /// The file cannot be mapped.
    #[error("cannot map {bytes} bytes of the file")]
    Map {
        /// Bytes.
        bytes: u64,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file became shorter between plan and registration.
    #[error("the file has shrunk to {size} bytes meanwhile, and {needed} are needed")]
    Shrunk {
        /// Its size now.
        size: u64,
        /// The end of the range.
        needed: u64,
    },
    /// The kernel refused what the plan did not.
    #[error("{device} does not register {bytes} bytes ({plan})")]
    Kernel {
        /// The device.
        device: String,
        /// Bytes.
        bytes: u64,
        /// The plan.
        plan: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The trial failed.
    #[error("the registration was tried first, and the trial failed")]
    Trial(#[from] TrialError),
    /// A hold was required.
    #[error("the registration would not be protected: {why}")]
    NotHeld {
        /// Why.
        why: String,
    },
    /// The guard cannot be asked, and a hold was required.
    #[error("a hold is required, and the guard cannot be asked")]
    Protection(#[from] ProtectionError),
    /// The device itself.
    #[error("the device cannot be used")]
    Device(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl RegisterError {
    /// The rule that refused, if one did.
    #[must_use]
    pub fn rule(&self) -> Option<Rule> {
        match self {
            Self::Refused(planned) => planned.plan.refusal(),
            _ => None,
        }
    }
}

/// Rule, numbers, and what would work instead.
fn refusal(planned: &Planned) -> String {
    let rule = planned.plan.refusal().unwrap_or(Rule::FileUnfit);
    let range = format!("{}..{}", planned.range.start, planned.range.end);
    let mut text = format!(
        "{} refuses bytes {range} on {}: {}: {}",
        planned.question.device.name(),
        planned.fs,
        rule.as_str(),
        rule.meaning()
    );
    for reason in &planned.question.unfit {
        text += &format!("; {}", reason.text());
    }
    if rule == Rule::Memlock {
        let left = planned.question.memlock.unwrap_or(0);
        text += &format!(": {} bytes, {left} are left", planned.question.bytes);
    }
    let others: Vec<_> = planned
        .alternatives
        .iter()
        .map(|other| other.as_str())
        .collect();
    match others.as_slice() {
        [] => text,
        others => format!("{text} (instead: {})", others.join(", ")),
    }
}
