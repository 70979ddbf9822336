//! `longpin watch --verify`: the block maps of held files, as they were and as they are.

use std::time::{Duration, Instant};

use longpin::guard::{GuardError, Host, Running};
use longpin::listing;
use longpin::watchdog::{Finding, FindingKind, Watchdog};
use serde_json::json;

use super::watch::stamp;
use crate::output::{human, visible};

/// At most so often, whatever happens.
const REST: Duration = Duration::from_secs(1);

/// Looks when something happened, and now and then.
pub(super) struct Verifier {
    dog: Watchdog,
    every: Duration,
    last: Option<Instant>,
    happened: bool,
}

impl Verifier {
    pub(super) fn every(seconds: u64) -> Self {
        Self {
            dog: Watchdog::default(),
            every: Duration::from_secs(seconds),
            last: None,
            happened: false,
        }
    }

    /// What there is to tell, if it is time to look. `happened`: there were events.
    pub(super) fn look(
        &mut self,
        host: &Host,
        happened: bool,
        json: bool,
    ) -> Result<Vec<String>, GuardError> {
        self.happened |= happened;
        let rest = if self.happened { REST } else { self.every };
        if self.last.is_some_and(|last| last.elapsed() < rest) {
            return Ok(Vec::new());
        }
        let running = match Running::open(host) {
            // The next round tells.
            Err(GuardError::NotRunning) => return Ok(Vec::new()),
            running => running?,
        };
        let holds = listing::read_rows(&running)?;
        drop(running);
        let findings = self.dog.look(&holds);
        self.happened = false;
        self.last = Some(Instant::now());
        let to_text = if json { to_json } else { to_line };
        Ok(findings.iter().map(to_text).collect())
    }
}

fn to_line(finding: &Finding) -> String {
    let path = &finding.path;
    let (event, what) = match &finding.kind {
        FindingKind::Verifying(size) => (
            "verifying",
            format!("{path} 0..{}: its blocks", human(*size)),
        ),
        FindingKind::Moved(range) => {
            let range = format!("{}..{}", human(range.start), human(range.end));
            ("broken", format!("{path} {range}: its blocks have moved"))
        }
        FindingKind::Unverified(why) => ("unverified", format!("{path}: {why}")),
        other => ("unverified", format!("{path}: {other:?}")),
    };
    let now = stamp(jiff::Timestamp::now());
    visible(&format!("{now} {event:<12} {what} hold {}", finding.hold))
}

fn to_json(finding: &Finding) -> String {
    let (event, range, why) = match &finding.kind {
        FindingKind::Verifying(size) => ("verifying", Some(0..*size), None),
        FindingKind::Moved(range) => ("broken", Some(range.clone()), None),
        FindingKind::Unverified(why) => ("unverified", None, Some(why)),
        _ => ("unverified", None, None),
    };
    json!({
        "version": 1,
        "time": stamp(jiff::Timestamp::now()),
        "event": event,
        "operation": (event == "broken").then_some("blocks moved"),
        "path": finding.path,
        "start": range.as_ref().map(|range| range.start),
        "end": range.as_ref().map(|range| range.end),
        "hold": (finding.hold != 0).then_some(finding.hold),
        "why": why,
    })
    .to_string()
}
