//! The administrator's rules, put into force.

use std::sync::atomic::Ordering;

use longpin_bpf::STRICT_RULES;
use longpin_bpf::pinned::Pinned;
use longpin_bpf::rule::{Rule, RuleAction};
use rustix::thread::{MembarrierCommand, membarrier};

use super::{GuardError, Host, Running};
use crate::config::{self, Action, Problem, Resolved, ResolvedRule};

/// What was put into force.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reloaded {
    /// Rules that can match.
    pub rules: usize,
    /// What works otherwise than somebody may think.
    pub warnings: Vec<Problem>,
}

/// Read the configuration anew and put it into force by one store: at no moment is there no rule, or a
/// mixture. What is wrong leaves the old rules in force.
///
/// # Errors
///
/// [`GuardError::Config`], or what keeps the table from being written.
pub fn reload(host: &Host, running: &Running) -> Result<Reloaded, GuardError> {
    let resolved = config::load(&host.config, config::Missing::NoRules)?;
    apply(running.pinned(), &resolved)?;
    Ok(Reloaded {
        rules: resolved.rules.len(),
        warnings: resolved.warnings,
    })
}

pub(super) fn apply(pinned: &Pinned, resolved: &Resolved) -> Result<(), GuardError> {
    let rules: Vec<Rule> = resolved.rules.iter().map(to_rule).collect();
    pinned.set_rules(&rules)?;
    let swapfile = |rule: &Rule| rule.action == RuleAction::Swapfile;
    want_level(pinned, rules.iter().any(swapfile))?;
    let quota = &pinned.state().quota_files;
    quota.store(resolved.files_per_user, Ordering::Release);
    Ok(())
}

/// Whether rules may ask for level swapfile. What is pinned at that level stays at it after its rule has gone.
fn want_level(pinned: &Pinned, wanted: bool) -> Result<(), GuardError> {
    let strict = &pinned.state().strict;
    if wanted {
        strict.fetch_or(STRICT_RULES, Ordering::AcqRel);
        return Ok(());
    }
    if strict.load(Ordering::Acquire) & STRICT_RULES == 0 {
        return Ok(());
    }
    // A pin call that has read the old rules marks its file before this returns. Where it cannot be waited for,
    // the level stays.
    if membarrier(MembarrierCommand::Global).is_err() {
        return Ok(());
    }
    for suspect in pinned.suspects()? {
        if suspect.strict && !pinned.forget(&suspect.file)? {
            return Ok(());
        }
    }
    strict.fetch_and(!STRICT_RULES, Ordering::AcqRel);
    Ok(())
}

fn to_rule(rule: &ResolvedRule) -> Rule {
    Rule {
        action: match rule.action {
            Action::Enforce => RuleAction::Enforce,
            Action::Ignore => RuleAction::Ignore,
            Action::Deny => RuleAction::Deny,
            Action::Allow => RuleAction::Allow,
            Action::Longterm => RuleAction::Longterm,
            Action::Exempt => RuleAction::Exempt,
            Action::Layout => RuleAction::Layout,
            Action::Swapfile => RuleAction::Swapfile,
        },
        file: rule.file.map(|file| (file.dev, file.ino)),
        uid: rule.uid,
        cgroup: rule.cgroup.map(|group| (group.id, group.level)),
        consumer: rule.consumer.clone(),
    }
}
