//! How much of each claim this host can enforce, by the table of hooks.

use longpin_bpf::Claim;
use longpin_bpf::hooks::{self, Hook, Lost, Offered, On};
use longpin_bpf::shared::Level;

use super::{BtfFacts, Check, ClaimVerdict, HostFacts, HostVerdict, State};

impl Offered for BtfFacts {
    fn arguments(&self, function: &str) -> Option<usize> {
        self.functions.get(function).copied()
    }

    fn has_tracepoint(&self, name: &str) -> bool {
        self.tracepoints.contains(&name)
    }
}

/// A verdict and its reason.
type Judged = (HostVerdict, Option<String>);

pub(super) fn judge_claims(facts: &HostFacts, checks: &[Check]) -> Vec<ClaimVerdict> {
    let first = |state| checks.iter().find(|check| check.state == state);
    let (missing, unknown) = (first(State::Missing), first(State::Unknown));
    let judged = Claim::LAYOUT.into_iter().map(|claim| {
        if let Some(check) = missing {
            return verdict(claim, (HostVerdict::No, Some(told(check))), &check.remedy);
        }
        let btf = facts.btf.as_ref().ok().and_then(Option::as_ref);
        let own = btf.map_or((HostVerdict::Yes, None), |btf| judge(claim, btf, facts));
        match unknown {
            Some(check) if own.0 == HostVerdict::Yes => verdict(
                claim,
                (HostVerdict::Unknown, Some(told(check))),
                &check.remedy,
            ),
            _ => verdict(claim, own, &[]),
        }
    });
    judged.collect()
}

fn told(check: &Check) -> String {
    format!("{}: {}", check.name, check.found)
}

fn verdict(claim: Claim, (verdict, reason): Judged, remedy: &[String]) -> ClaimVerdict {
    let lacks = remedy.is_empty() && matches!(verdict, HostVerdict::No | HostVerdict::Partial);
    let newer = "use a kernel that has it; docs/kernel-support.md lists those that are tested";
    ClaimVerdict {
        id: claim.id(),
        summary: claim.summary(),
        verdict,
        reason,
        remedy: if lacks {
            vec![newer.to_owned()]
        } else {
            remedy.to_vec()
        },
    }
}

fn judge(claim: Claim, btf: &BtfFacts, facts: &HostFacts) -> Judged {
    if matches!(claim, Claim::C09 | Claim::C15) {
        return judge_pins(btf, facts, claim == Claim::C15);
    }
    let all: Vec<_> = hooks::needed_by(claim, Level::Layout).collect();
    let is_part = |hook: &&Hook| matches!(hook.lost, Lost::Part(_));
    let parts = all.iter().filter(|hook| is_part(hook)).count();
    let gone = all.iter().filter(|hook| !hooks::has_place(btf, hook));
    let gone: Vec<_> = gone.copied().collect();
    let reasons: Vec<_> = gone.iter().copied().map(reason).collect();
    let verdict = match gone.iter().filter(|hook| is_part(hook)).count() {
        0 if gone.is_empty() => return (HostVerdict::Yes, None),
        count if count == gone.len() && count < parts => HostVerdict::Partial,
        _ => HostVerdict::No,
    };
    (verdict, Some(reasons.join("; ")))
}

fn reason(hook: &Hook) -> String {
    let function = hook.function().unwrap_or_default();
    match (hook.lost, hook.on) {
        (Lost::Part(act), _) => format!("no {function}: {act} is not refused"),
        (_, On::Tracepoint(name)) => format!("this kernel has no typed tracepoint {name}"),
        _ => format!("this kernel's BTF has no {function}"),
    }
}

/// RDMA and io_uring pin with `pin_user_pages_fast`. Of the others, those are a gap that the kernel has
/// and nobody can watch: files are walked instead, so that holds stand, but a pin cannot be denied.
fn judge_pins(btf: &BtfFacts, facts: &HostFacts, watched: bool) -> Judged {
    let there: &[&str] = facts
        .symbols
        .as_ref()
        .map_or(&[], |symbols| &symbols.pin_functions);
    let typed = hooks::unwatched(btf);
    let is_unwatched = |name: &&str| match btf.arguments(name) {
        Some(_) => typed.contains(name),
        None => there.contains(name),
    };
    let mut unwatched = hooks::pin_functions();
    unwatched.retain(is_unwatched);
    if unwatched.is_empty() {
        return (HostVerdict::Yes, None);
    }
    let names = unwatched.join(", ");
    if watched {
        let reason = format!("{names} cannot be watched here: pins made by it are not forbidden");
        return (HostVerdict::Partial, Some(reason));
    }
    let reason = format!("{names} cannot be watched here, so every file is walked");
    (HostVerdict::Yes, Some(reason))
}
