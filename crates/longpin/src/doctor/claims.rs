//! What each claim needs beside what all need: functions and tracepoints of the kernel.

use longpin_bpf::facts::{MAX_ARGUMENTS, PIN_FUNCTIONS, PROBED};

use super::{BtfFacts, Check, ClaimVerdict, HostFacts, State, Verdict};

/// Pages leave the page cache through it.
const DELETE: &str = "mm_filemap_delete_from_page_cache";

/// A claim and what it takes.
struct Need {
    id: &'static str,
    summary: &'static str,
    takes: Takes,
}

/// What a claim takes of the kernel.
enum Takes {
    /// What all claims take.
    Nothing,
    /// Every one of these functions.
    All(&'static [&'static str]),
    /// These functions, each for a part of the claim.
    Each(&'static [(&'static str, &'static str)]),
    /// The pin functions that the kernel has. `watched`: those that cannot be watched are a gap.
    Pins { watched: bool },
    /// This tracepoint.
    Tracepoint(&'static str),
}

const NEEDS: [Need; 13] = [
    need(
        "C01",
        "truncate into a pinned range is refused",
        Takes::All(&["bpf_lsm_inode_setattr"]),
    ),
    need(
        "C02",
        "punch, collapse, insert, zero of a pinned range are refused",
        Takes::All(&["bpf_lsm_file_permission", "vfs_fallocate"]),
    ),
    need(
        "C03",
        "clone, dedupe, copy into a pinned range are refused",
        Takes::Each(&COPIES),
    ),
    need(
        "C04",
        "clone, dedupe, copy from a range pinned for writing are refused",
        Takes::Each(&COPIES),
    ),
    need(
        "C05",
        "extent movers that would drop pinned pages are refused",
        Takes::All(&["bpf_lsm_file_ioctl"]),
    ),
    need(
        "C06",
        "direct writes over pinned pages are refused",
        Takes::All(&["bpf_lsm_file_permission"]),
    ),
    need(
        "C08",
        "umount and remount read-only of a held file system are refused",
        Takes::Each(&MOUNTS),
    ),
    need(
        "C09",
        "a hold stands as long as a page is pinned, and no longer",
        Takes::Pins { watched: false },
    ),
    need("C10", "holds outlive every longpin process", Takes::Nothing),
    need(
        "C11",
        "on-demand registrations make no hold",
        Takes::Nothing,
    ),
    need(
        "C13",
        "operations that began before the hold are detected",
        Takes::Tracepoint(DELETE),
    ),
    need(
        "C14",
        "other files behave as if longpin were not there",
        Takes::Nothing,
    ),
    need(
        "C15",
        "a rule can forbid long-term pins",
        Takes::Pins { watched: true },
    ),
];

const COPIES: [(&str, &str); 3] = [
    ("vfs_clone_file_range", "clone"),
    ("vfs_dedupe_file_range_one", "dedupe"),
    ("vfs_copy_file_range", "copy_file_range"),
];

const MOUNTS: [(&str, &str); 3] = [
    ("bpf_lsm_sb_umount", "umount"),
    ("bpf_lsm_sb_remount", "remount"),
    ("reconfigure_super", "reconfiguration by fsconfig(2)"),
];

const fn need(id: &'static str, summary: &'static str, takes: Takes) -> Need {
    Need { id, summary, takes }
}

/// Every function that some claim takes.
pub(super) fn functions() -> Vec<&'static str> {
    let mut names: Vec<&'static str> = PIN_FUNCTIONS.to_vec();
    for need in &NEEDS {
        match need.takes {
            Takes::All(functions) => names.extend(functions),
            Takes::Each(functions) => names.extend(functions.iter().map(|(name, _)| *name)),
            Takes::Nothing | Takes::Pins { .. } | Takes::Tracepoint(_) => {}
        }
    }
    names.sort_unstable();
    names.dedup();
    names
}

/// Every tracepoint that some claim takes.
pub(super) fn tracepoints() -> Vec<&'static str> {
    let names = NEEDS.iter().filter_map(|need| match need.takes {
        Takes::Tracepoint(name) => Some(name),
        _ => None,
    });
    names.collect()
}

/// A verdict and its reason.
type Judged = (Verdict, Option<String>);

pub(super) fn judge_claims(facts: &HostFacts, checks: &[Check]) -> Vec<ClaimVerdict> {
    let first = |state| checks.iter().find(|check| check.state == state);
    let (missing, unknown) = (first(State::Missing), first(State::Unknown));
    let judged = NEEDS.iter().map(|need| {
        if let Some(check) = missing {
            return verdict(need, (Verdict::No, Some(told(check))), &check.remedy);
        }
        let own = facts.btf.as_ref().ok().and_then(Option::as_ref);
        let own = own.map_or((Verdict::Yes, None), |btf| need.takes.judge(btf, facts));
        match unknown {
            Some(check) if own.0 == Verdict::Yes => {
                verdict(need, (Verdict::Unknown, Some(told(check))), &check.remedy)
            }
            _ => verdict(need, own, &[]),
        }
    });
    judged.collect()
}

fn told(check: &Check) -> String {
    format!("{}: {}", check.name, check.found)
}

fn verdict(need: &Need, (verdict, reason): Judged, remedy: &[String]) -> ClaimVerdict {
    let lacks = remedy.is_empty() && matches!(verdict, Verdict::No | Verdict::Partial);
    let newer = "use a kernel that has it; docs/kernel-support.md lists those that are tested";
    ClaimVerdict {
        id: need.id,
        summary: need.summary,
        verdict,
        reason,
        remedy: if lacks {
            vec![newer.to_owned()]
        } else {
            remedy.to_vec()
        },
    }
}

impl Takes {
    fn judge(&self, btf: &BtfFacts, facts: &HostFacts) -> Judged {
        let absent = |name: &str| !btf.functions.contains_key(name);
        match self {
            Self::Nothing => (Verdict::Yes, None),
            Self::All(names) => {
                let gone: Vec<&str> = names.iter().copied().filter(|name| absent(name)).collect();
                if gone.is_empty() {
                    return (Verdict::Yes, None);
                }
                let reason = format!("this kernel's BTF has no {}", gone.join(", "));
                (Verdict::No, Some(reason))
            }
            Self::Each(parts) => {
                let gone: Vec<_> = parts.iter().filter(|(name, _)| absent(name)).collect();
                let said = gone
                    .iter()
                    .map(|(name, what)| format!("no {name}: {what} is not refused"));
                let reason = said.collect::<Vec<_>>().join("; ");
                match gone.len() {
                    0 => (Verdict::Yes, None),
                    all if all == parts.len() => (Verdict::No, Some(reason)),
                    _ => (Verdict::Partial, Some(reason)),
                }
            }
            Self::Pins { watched } => judge_pins(btf, facts, *watched),
            Self::Tracepoint(name) if btf.tracepoints.contains(name) => (Verdict::Yes, None),
            Self::Tracepoint(name) => {
                let reason = format!("this kernel has no typed tracepoint {name}");
                (Verdict::No, Some(reason))
            }
        }
    }
}

/// RDMA and io_uring pin with `pin_user_pages_fast`. Of the others, those are a gap that the kernel has
/// and nobody can watch: files are walked instead, so that holds stand, but a pin cannot be denied.
fn judge_pins(btf: &BtfFacts, facts: &HostFacts, watched: bool) -> Judged {
    const NEEDED: &str = "pin_user_pages_fast";
    if !btf.functions.contains_key(NEEDED) {
        let reason = format!("this kernel's BTF has no {NEEDED}");
        return (Verdict::No, Some(reason));
    }
    let there: &[&str] = facts
        .symbols
        .as_ref()
        .map_or(&[], |symbols| &symbols.pin_functions);
    let unwatched = PIN_FUNCTIONS
        .iter()
        .copied()
        .filter(|name| match btf.functions.get(name) {
            Some(arguments) => *arguments > MAX_ARGUMENTS && *name != PROBED,
            None => there.contains(name),
        });
    let unwatched: Vec<&str> = unwatched.collect();
    if unwatched.is_empty() {
        return (Verdict::Yes, None);
    }
    let names = unwatched.join(", ");
    if watched {
        let reason = format!("{names} cannot be watched here: pins made by it are not forbidden");
        return (Verdict::Partial, Some(reason));
    }
    let reason = format!("{names} cannot be watched here, so every file is walked");
    (Verdict::Yes, Some(reason))
}
