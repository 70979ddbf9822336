//! What the functions do, in Rust's words.

use std::error::Error;
use std::ffi::c_int;
use std::path::Path;

use longpin::activation::{self, ByteRange, CheckReport, CheckVerdict, Policy, Reason};
use longpin::guard::Host;
use longpin::hold::{Hold, Refusal, RefusalKind, Request};
use longpin::plan::{self, Access, Level, PlanRequest, Planned, Wish};
use longpin_linux::file::Found;
use longpin_linux::memory::{self, Sharing};
use longpin_rdma::find_device;
use rustix::fs::OFlags;

use crate::numbers::{CheckResult, HoldResult, PlanResult};

/// `enum longpin_answer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Yes = 0,
    Refused = 1,
    CannotTell = 2,
    Misused = 16,
}

/// An answer, and its words.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) answer: Answer,
    pub(crate) lines: Vec<String>,
}

impl Said {
    pub(crate) fn of(answer: Answer, words: impl Into<String>) -> Self {
        let lines = vec![words.into()];
        Self { answer, lines }
    }

    pub(crate) fn yes(words: &str) -> Self {
        Self::of(Answer::Yes, words)
    }

    /// The error and what caused it.
    fn failed(answer: Answer, err: &dyn Error) -> Self {
        let mut lines = vec![err.to_string()];
        let mut cause = err.source();
        while let Some(inner) = cause {
            lines.push(inner.to_string());
            cause = inner.source();
        }
        Self { answer, lines }
    }

    fn with_hints(mut self, hints: impl IntoIterator<Item = String>) -> Self {
        let hints = hints.into_iter().map(|hint| format!("hint: {hint}"));
        self.lines.extend(hints);
        self
    }
}

const fn answer_of(verdict: CheckVerdict) -> Answer {
    match verdict {
        CheckVerdict::Yes => Answer::Yes,
        CheckVerdict::Refused => Answer::Refused,
        CheckVerdict::CannotTell => Answer::CannotTell,
    }
}

fn no_such(what: &str, number: c_int) -> Said {
    Said::of(Answer::Misused, format!("{number} is no {what}"))
}

fn level_of(level: c_int) -> Result<Level, Said> {
    match level {
        1 => Ok(Level::Layout),
        2 => Ok(Level::Swapfile),
        other => Err(no_such("level", other)),
    }
}

pub(crate) fn check(path: &Path, purpose: c_int, wanted: Option<ByteRange>) -> (Said, CheckResult) {
    let said = match purpose {
        0 => Ok(Policy::Pages),
        1 => Ok(Policy::Blocks),
        2 => Ok(Policy::Swap),
        other => Err(no_such("purpose", other)),
    };
    let checked = said.and_then(|policy| {
        activation::check(path, policy, wanted)
            .map_err(|err| Said::failed(Answer::CannotTell, &err))
    });
    match checked {
        Ok(report) => (judged(&report), CheckResult::from(&report)),
        Err(said) => (said, CheckResult::default()),
    }
}

fn judged(report: &CheckReport) -> Said {
    let said = Said {
        answer: answer_of(report.verdict()),
        lines: report.reasons.iter().map(Reason::text).collect(),
    };
    said.with_hints(report.hints())
}

pub(crate) fn plan(
    path: &Path,
    device: &str,
    access: c_int,
    level: c_int,
    wanted: Option<ByteRange>,
) -> (Said, PlanResult) {
    let access = match access {
        0 => Ok(Access::READ),
        1 => Ok(Access::READ_WRITE),
        other => Err(no_such("access", other)),
    };
    let asked = access.and_then(|access| Ok((access, level_of(level)?)));
    let planned = asked.and_then(|(access, level)| {
        planned(path, device, access, level, wanted)
            .map_err(|err| Said::failed(Answer::CannotTell, &*err))
    });
    match planned {
        Ok(planned) => (told(path, &planned), PlanResult::from(&planned)),
        Err(said) => (said, PlanResult::default()),
    }
}

fn planned(
    path: &Path,
    device: &str,
    access: Access,
    level: Level,
    wanted: Option<ByteRange>,
) -> Result<Planned, Box<dyn Error>> {
    let found = Found::at(path)?;
    let file = found.open(OFlags::RDONLY)?;
    let (device, kernel) = find_device(device)?;
    let request = PlanRequest {
        wanted,
        sharing: Sharing::Shared,
        access,
        wish: Wish::Any,
        level,
        device,
        kernel,
        may_write: found.open(OFlags::RDWR).is_ok(),
        memlock: memory::memlock_limit()?,
        look_at_blocks: true,
    };
    Ok(plan::plan_file(&file, path, &request)?)
}

fn told(path: &Path, planned: &Planned) -> Said {
    let mut lines = Vec::new();
    match planned.plan.refusal() {
        Some(rule) => lines.push(format!("{}: {}", rule.as_str(), rule.meaning())),
        None => lines.push(planned.plan.as_str().to_owned()),
    }
    lines.extend(planned.question.unfit.iter().map(Reason::text));
    lines.extend(planned.unknown.iter().map(ToString::to_string));
    let path = activation::quote(path);
    let others = planned
        .alternatives
        .iter()
        .map(|other| other.hint(&path, planned.question.device.name()));
    let answer = answer_of(planned.verdict());
    Said { answer, lines }.with_hints(others)
}

pub(crate) fn hold(
    request: Request<'_>,
    level: c_int,
    range: Option<ByteRange>,
) -> (Option<Hold>, Said, HoldResult) {
    let level = match level_of(level) {
        Ok(level) => level,
        Err(said) => return (None, said, HoldResult::default()),
    };
    match request.level(level).range(range).acquire(&Host::default()) {
        Ok(hold) => (Some(hold), Said::yes("held"), HoldResult::default()),
        Err(refusal) => (None, refused(&refusal), HoldResult::from(&refusal)),
    }
}

fn refused(refusal: &Refusal) -> Said {
    let answer = match (refusal, refusal.kind()) {
        (Refusal::Unfit(report), _) => return judged(report),
        (_, RefusalKind::Refused) => Answer::Refused,
        _ => Answer::CannotTell,
    };
    Said::failed(answer, refusal).with_hints(refusal.hints())
}

pub(crate) fn release(hold: Hold) -> Said {
    match hold.release() {
        Ok(_) => Said::yes(""),
        Err(err) => Said::failed(Answer::CannotTell, &err).with_hints(err.hints()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_named() {
        let missing = Path::new("/nowhere/at/all");
        let (said, _) = check(missing, 0, None);
        assert_eq!(said.answer, Answer::CannotTell);
        assert!(said.lines.join("\n").contains("No such file"), "{said:?}");
        assert_eq!(check(missing, 9, None).0.answer, Answer::Misused);
        assert_eq!(
            plan(missing, "io_uring", 7, 1, None).0.answer,
            Answer::Misused
        );
        assert_eq!(
            plan(missing, "io_uring", 0, 0, None).0.answer,
            Answer::Misused
        );
        let (_, said, _) = hold(Hold::on(missing), 3, None);
        assert_eq!(said.answer, Answer::Misused);
    }

    #[test]
    fn an_empty_file_is_refused_with_its_reason_and_what_cures_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (said, _) = check(file.path(), 1, None);
        assert_eq!(said.answer, Answer::Refused);
        assert!(said.lines[0].starts_with("empty: "), "{said:?}");
        assert!(
            said.lines
                .iter()
                .any(|line| line.starts_with("hint: longpin prepare")),
            "{said:?}"
        );
    }
}
