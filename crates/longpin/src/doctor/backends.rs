//! What can hold a file here: BPF, a swap header, the immutable attribute. Strongest first.

use super::{BackendVerdict, Check, ClaimVerdict, HostFacts, HostVerdict, State};

/// Swap areas that a kernel takes at least: 32 less what it uses the numbers for itself (migration, devices' memory,
/// poison, markers). Which of these it was built with is told nowhere; Debian's take 24 (7.2) to 27 (6.12).
const AREAS: usize = 23;

pub(super) fn judge(
    facts: &HostFacts,
    checks: &[Check],
    claims: &[ClaimVerdict],
) -> Vec<BackendVerdict> {
    vec![bpf(checks, claims), swap_header(facts), immutable(facts)]
}

fn bpf(checks: &[Check], claims: &[ClaimVerdict]) -> BackendVerdict {
    let name = "bpf";
    let in_state = |wanted| checks.iter().find(|check| check.state == wanted);
    let because = |check: &Check| format!("{}: {}", check.name, check.found);
    let (verdict, reason) = if let Some(check) = in_state(State::Missing) {
        (HostVerdict::No, because(check))
    } else if let Some(check) = in_state(State::Unknown) {
        (HostVerdict::Unknown, because(check))
    } else if let Some(claim) = claims
        .iter()
        .find(|claim| claim.verdict != HostVerdict::Yes)
    {
        let why = claim.reason.clone().unwrap_or_default();
        (HostVerdict::Partial, format!("{}: {why}", claim.id))
    } else {
        let reason = "all levels, ranges, pins; gives up nothing of the file";
        (HostVerdict::Yes, reason.to_owned())
    };
    BackendVerdict {
        name,
        verdict,
        reason,
    }
}

fn swap_header(facts: &HostFacts) -> BackendVerdict {
    let (verdict, reason) = match &facts.swap_areas {
        Err(why) => (HostVerdict::Unknown, why.clone()),
        Ok(None) => (
            HostVerdict::No,
            "this kernel has no swap: no /proc/swaps".to_owned(),
        ),
        Ok(Some(active)) if *active >= AREAS => (
            HostVerdict::Partial,
            format!("{active} swap areas are active, and the kernel takes {AREAS} or a few more"),
        ),
        Ok(Some(active)) => (
            HostVerdict::Yes,
            format!(
                "`longpin hold --backend swap-header`, not for pins; takes 8 KiB of each file and one of {AREAS} \
                 or more swap areas ({active} in use)"
            ),
        ),
    };
    BackendVerdict {
        name: "swap-header",
        verdict,
        reason,
    }
}

fn immutable(facts: &HostFacts) -> BackendVerdict {
    let (verdict, reason) = if facts.may_make_immutable || !facts.privileged {
        let reason = "`longpin prepare --immutable`, the weakest: root may take it back, and file systems move blocks";
        (HostVerdict::Yes, reason)
    } else {
        (HostVerdict::No, "CAP_LINUX_IMMUTABLE is missing")
    };
    BackendVerdict {
        name: "immutable",
        verdict,
        reason: reason.to_owned(),
    }
}
