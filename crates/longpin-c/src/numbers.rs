//! Results in numbers, as `include/longpin.h` lays them out.

use longpin::activation::{CheckReport, Reason};
use longpin::hold::Refusal;
use longpin::plan::{Plan, Planned, Rule};

/// `LONGPIN_MAX_REASONS`.
const MAX_REASONS: usize = 16;

/// `struct longpin_reason`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ReasonNumbers {
    name: u32,
    reserved: u32,
    count: u64,
    bytes: u64,
    first: u64,
}

/// `struct longpin_reasons`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Reasons {
    count: u32,
    reserved: u32,
    list: [ReasonNumbers; MAX_REASONS],
}

impl Reasons {
    fn of(reasons: &[Reason]) -> Self {
        let mut all = Self {
            count: u32::try_from(reasons.len()).unwrap_or(u32::MAX),
            ..Self::default()
        };
        for (to, reason) in all.list.iter_mut().zip(reasons) {
            *to = ReasonNumbers {
                name: reason.name.number(),
                reserved: 0,
                count: reason.count,
                bytes: reason.bytes,
                first: reason.first.unwrap_or(u64::MAX),
            };
        }
        all
    }
}

/// `struct longpin_check_result`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct CheckResult {
    start: u64,
    end: u64,
    extents: u64,
    reasons: Reasons,
}

impl From<&CheckReport> for CheckResult {
    fn from(report: &CheckReport) -> Self {
        Self {
            start: report.range.start,
            end: report.range.end,
            extents: report.extents,
            reasons: Reasons::of(&report.reasons),
        }
    }
}

/// `struct longpin_plan_result`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct PlanResult {
    plan: u32,
    rule: u32,
    level: u32,
    writable_mapping: u32,
    start: u64,
    end: u64,
    errnos: [i32; 2],
    reasons: Reasons,
}

impl From<&Planned> for PlanResult {
    fn from(planned: &Planned) -> Self {
        let rule = planned.plan.refusal();
        let mut errnos = rule.into_iter().flat_map(Rule::errnos);
        let mut errno = || errnos.next().map_or(0, |errno| errno.raw_os_error());
        Self {
            plan: match &planned.unknown {
                Some(_) if rule.is_none() => 0,
                _ => plan_number(planned.plan),
            },
            rule: rule.map_or(0, Rule::number),
            level: planned.plan.hold().map_or(0, |level| level as u32),
            writable_mapping: match planned.plan {
                Plan::Longterm(pin) => pin.writable_mapping.into(),
                _ => 0,
            },
            start: planned.range.start,
            end: planned.range.end,
            errnos: [errno(), errno()],
            reasons: Reasons::of(&planned.question.unfit),
        }
    }
}

const fn plan_number(plan: Plan) -> u32 {
    match plan {
        Plan::OnDemand => 1,
        Plan::HeldOnDemand => 2,
        Plan::Longterm(_) => 3,
        Plan::Copy => 4,
        Plan::LendBlocks(_) => 5,
        _ => 6,
    }
}

/// `struct longpin_hold_result`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct HoldResult {
    refusal: u32,
    pid: i32,
    reasons: Reasons,
}

impl From<&Refusal> for HoldResult {
    fn from(refusal: &Refusal) -> Self {
        let by = match refusal {
            Refusal::Mapped { by, .. } | Refusal::Pinned { by, .. } => by.first(),
            Refusal::InFlight { by, .. } => Some(by),
            _ => None,
        };
        Self {
            refusal: refusal_number(refusal),
            pid: by.map_or(0, |by| i32::try_from(by.pid).unwrap_or(0)),
            reasons: match refusal {
                Refusal::Unfit(report) => Reasons::of(&report.reasons),
                _ => Reasons::default(),
            },
        }
    }
}

/// `enum longpin_refusal`.
const fn refusal_number(refusal: &Refusal) -> u32 {
    match refusal {
        Refusal::NoPrivilege { .. } => 1,
        Refusal::Open { .. } => 2,
        Refusal::Busy { .. } => 3,
        Refusal::Unfit(_) => 4,
        Refusal::Subvolume { .. } => 5,
        Refusal::Mapped { .. } => 6,
        Refusal::Somebody { .. } => 7,
        Refusal::Pinned { .. } => 8,
        Refusal::Looped { .. } => 9,
        Refusal::InFlight { .. } => 10,
        Refusal::Direct { .. } => 11,
        Refusal::Moved { .. } => 12,
        Refusal::Unproved { .. } => 13,
        Refusal::Kernel { .. } => 14,
        Refusal::Audit => 15,
        Refusal::Silent => 16,
        Refusal::NoRoom => 17,
        Refusal::Released { .. } => 18,
        Refusal::Ask { .. } | Refusal::Namespace { .. } | Refusal::Map(_) => 19,
        _ => 20,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::ErrorKind;

    use longpin::activation::Name;

    use super::*;

    const HEADER: &str = include_str!("../include/longpin.h");

    /// `LONGPIN_prefix_X = n`, as X and n.
    fn numbers(prefix: &str) -> BTreeMap<String, u32> {
        let lines = HEADER.lines();
        let lines = lines.filter_map(|line| line.trim().strip_prefix(prefix));
        let pairs = lines.filter_map(|line| line.split_once(" = "));
        let number = |text: &str| text.split(',').next().unwrap().parse().unwrap();
        pairs
            .map(|(name, text)| (name.to_owned(), number(text)))
            .collect()
    }

    fn shouted(names: impl Iterator<Item = (&'static str, u32)>) -> BTreeMap<String, u32> {
        names
            .map(|(name, number)| (name.replace('-', "_").to_uppercase(), number))
            .collect()
    }

    #[test]
    fn the_header_has_the_numbers() {
        let reasons = Name::ALL.into_iter().map(|it| (it.as_str(), it.number()));
        assert_eq!(numbers("LONGPIN_REASON_"), shouted(reasons));
        let rules = Rule::ALL.into_iter().map(|it| (it.as_str(), it.number()));
        assert_eq!(numbers("LONGPIN_RULE_"), shouted(rules));
        let rule = Rule::Memlock;
        let mut plans = vec![Plan::OnDemand, Plan::HeldOnDemand, Plan::Copy];
        plans.extend([Plan::LendBlocks(rule), Plan::Refused(rule)]);
        let mut in_header = numbers("LONGPIN_PLAN_");
        assert_eq!(in_header.remove("LONGTERM"), Some(3));
        let plans = plans.into_iter().map(|it| (it.as_str(), plan_number(it)));
        assert_eq!(in_header, shouted(plans));
    }

    #[test]
    fn the_header_has_the_refusals() {
        let path = || "/file".into();
        let ask = Refusal::Ask {
            what: "",
            source: ErrorKind::Other.into(),
        };
        let some = [
            ("busy", Refusal::Busy { path: path() }),
            ("moved", Refusal::Moved { path: path() }),
            ("audit", Refusal::Audit),
            ("no-room", Refusal::NoRoom),
            ("released", Refusal::Released { path: path() }),
            ("cannot-tell", ask),
            ("other", Refusal::InUse { path: path() }),
        ];
        let in_header = numbers("LONGPIN_REFUSAL_");
        assert_eq!(in_header.len(), 20);
        let some = some.iter().map(|(name, it)| (*name, refusal_number(it)));
        for (name, number) in shouted(some) {
            assert_eq!(in_header.get(&name), Some(&number), "{name}");
        }
    }

    #[test]
    fn the_header_has_the_version() {
        for (name, value) in [
            ("MAJOR", env!("CARGO_PKG_VERSION_MAJOR")),
            ("MINOR", env!("CARGO_PKG_VERSION_MINOR")),
            ("PATCH", env!("CARGO_PKG_VERSION_PATCH")),
        ] {
            let line = format!("#define LONGPIN_VERSION_{name} {value}\n");
            assert!(HEADER.contains(&line), "{line}");
        }
    }
}
