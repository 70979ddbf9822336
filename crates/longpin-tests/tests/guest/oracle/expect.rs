//! What the guard must answer to each operation, given what the operation does without it.

use longpin_tests::act::outcome_name;
use longpin_tests::operations::{Build, Home, Operation};
use rustix::io::Errno;

use super::trial::Trial;

/// An operation that takes pinned pages away although the guard runs.
pub(super) struct Gap {
    operation: &'static str,
    /// Where; everywhere if empty.
    homes: &'static [Home],
    /// The words by which docs/guarantee.md names it.
    pub(super) named: &'static str,
}

/// What goes round the guard, or is allowed by the claim.
pub(super) const NAMED_GAPS: &[Gap] = &[
    everywhere("discard on a loop device over it", "loop driver"),
    everywhere("zero out on a loop device over it", "loop driver"),
    everywhere("write to a direct loop device over it", "loop driver"),
    everywhere("uncached read of uncached pages", "RWF_DONTCACHE"),
    everywhere("read of uncached pages", "RWF_DONTCACHE"),
    everywhere("end of its mount namespace", "end of a mount namespace"),
    everywhere("unlink, only the pin left", "unlinked"),
    everywhere("rename over, only the pin left", "unlinked"),
    everywhere("btrfs subvolume delete, only the pin left", "subvolume"),
];

const fn everywhere(operation: &'static str, named: &'static str) -> Gap {
    Gap {
        operation,
        homes: &[],
        named,
    }
}

/// An operation that is refused although it would take nothing away.
struct Refusal {
    /// How the names of the operations begin.
    operations: &'static str,
    /// Whether only on file systems with blocks.
    disk: bool,
    /// Whether it must be refused wherever the kernel has it, or only may be.
    must: bool,
}

impl Refusal {
    fn is_of(&self, operation: &Operation, home: Home) -> bool {
        operation.name.starts_with(self.operations) && !(self.disk && home.is_memory())
    }
}

/// Refused on purpose: the hook does not see the range, or the file system decides too late.
const DELIBERATE: &[Refusal] = &[
    // What they do differs between file systems and kernels, and nobody needs it.
    must("copy_file_range into"),
    must("32-bit copy_file_range into"),
    // A page that the new end cuts.
    must("ftruncate to a little less"),
    must("FIDEDUPERANGE into"),
    may("copy_file_range beside"),
    may("copy_file_range behind"),
    // The hook has no range, and whether a direct write goes past the page cache is the file system's secret.
    must("direct write").on_disk(),
    must("io_uring direct write").on_disk(),
    // It drops more of the page cache than it exchanges.
    may("xfs EXCHANGE_RANGE"),
    may("xfs COMMIT_RANGE"),
    // What it does to the pages comes later, from calls that cannot be refused.
    must("f2fs START_ATOMIC"),
    must("f2fs atomic"),
    // The other file is not named to the hook.
    may("ext4 MOVE_EXT"),
    may("f2fs MOVE_RANGE"),
    may("journal its data"),
    // A file that somebody has open stays; the hook does not know who has.
    may("encryption key removed"),
    may("flag: DAX"),
    // The page would stay, but the device would write to a file system that must not be written.
    must("remount read-only"),
    // It gives the file other blocks, and keeps the pages.
    may("fallocate UNSHARE_RANGE"),
    may("UNSHARE_RANGE of shared"),
    // C04, where the pin may be writable.
    may("FICLONE from"),
    may("FICLONERANGE from"),
    may("FIDEDUPERANGE from"),
    may("copy_file_range from"),
    may("btrfs snapshot"),
];

impl Refusal {
    const fn on_disk(self) -> Self {
        Self { disk: true, ..self }
    }
}

const fn must(operations: &'static str) -> Refusal {
    Refusal {
        operations,
        disk: false,
        must: true,
    }
}

const fn may(operations: &'static str) -> Refusal {
    Refusal {
        must: false,
        ..must(operations)
    }
}

pub(super) fn is_gap(operation: &Operation, home: Home) -> bool {
    NAMED_GAPS.iter().any(|gap| {
        gap.operation == operation.name && (gap.homes.is_empty() || gap.homes.contains(&home))
    })
}

/// The errno of a refusal.
fn refusal(operation: &Operation) -> Errno {
    match operation.claim {
        Some("C08") => Errno::BUSY,
        _ => Errno::TXTBSY,
    }
}

/// What is wrong with the answer under guard.
pub(super) fn judge(
    operation: &Operation,
    home: Home,
    free: &Trial,
    guarded: &Trial,
) -> Option<String> {
    let refused = guarded.answer == Err(refusal(operation));
    let complaint = if is_gap(operation, home) {
        let closed = free.effect.is_loss() && !guarded.effect.is_loss();
        closed.then_some("is no gap any more: strike it from the list and from the guarantee")
    } else if guarded.effect.is_loss() {
        Some("took pinned pages away")
    } else if refused && operation.claim != Some("C06") && !guarded.intact {
        Some("was refused, and changed the file")
    } else if free.effect.is_loss() {
        (!refused).then_some("was not refused")
    } else {
        judge_harmless(operation, home, free, guarded, refused)
    };
    complaint.map(|complaint| {
        format!(
            "{home}: {}: {complaint} (without guard: {}, {}; with: {}, {})",
            operation.name,
            outcome_name(free.answer),
            free.effect,
            outcome_name(guarded.answer),
            guarded.effect,
        )
    })
}

/// Dropped where it is clean, and of xfs where it has no data; the hook can tell neither for the time of the act.
fn may_be_cut(operation: &Operation, home: Home) -> bool {
    let Build::End(shape) = operation.build else {
        return false;
    };
    let is = |act: &str| operation.name.starts_with(act);
    if is("FICLONERANGE") || is("copy_file_range") {
        return home == Home::Xfs && !shape.aligned;
    }
    let grows = operation.name.contains("a little more");
    let cuts = is("ftruncate to its size")
        || is("ftruncate") && grows && home != Home::Btrfs
        || is("fallocate") && grows && home == Home::Xfs;
    cuts && shape.large && !shape.aligned
}

/// Without guard it takes nothing away: then it answers as there, if it is not refused on purpose.
fn judge_harmless(
    operation: &Operation,
    home: Home,
    free: &Trial,
    guarded: &Trial,
    refused: bool,
) -> Option<&'static str> {
    let on_purpose = DELIBERATE.iter().find(|it| it.is_of(operation, home));
    // Whether there is anything to collect is chance.
    if operation.name.contains("GARBAGE_COLLECT") {
        return None;
    }
    if guarded.answer == free.answer {
        let missing = on_purpose.is_some_and(|it| it.must) && free.answer.is_ok();
        missing.then_some("was not refused, as it is on purpose")
    } else if refused {
        let for_nothing = on_purpose.is_none() && !may_be_cut(operation, home);
        for_nothing.then_some("was refused for nothing")
    } else {
        Some("answered otherwise")
    }
}
