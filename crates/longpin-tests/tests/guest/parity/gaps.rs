//! Where a held file may differ from a swap file: by name, or not at all.

use longpin_tests::operations::Home;

use super::cell;
use super::steps::Trial;

/// A difference that is known.
struct Gap {
    /// How the names of the operations begin.
    operation: &'static str,
    /// Where; everywhere if empty.
    homes: &'static [Home],
    /// What the held file answers, as in the table.
    held: &'static str,
    /// Why.
    reason: &'static str,
}

const GAPS: &[Gap] = &[
    gap("older writable mapping", "not held", EXCLUDED),
    gap("older read-only mapping: mprotect", "ETXTBSY", NO_SIGNAL),
    gap("mmap shared, read-only: mprotect", "ETXTBSY", NO_SIGNAL),
    gap("write of nothing", "ETXTBSY", NO_LENGTH).on(&[Home::Xfs]),
    gap("io_uring write of nothing", "ETXTBSY", NO_LENGTH).on(&[Home::Xfs]),
    gap("swapon", "done", NO_HOOK),
    gap("journal its data", "ETXTBSY", JOURNAL).on(&[Home::Ext4]),
    gap("enable fs-verity", "ETXTBSY", NO_FEATURE).on(&[Home::Xfs]),
    gap("umount, lazy", "EBUSY", STRICTER),
    gap("write to a loop device", "done, bytes changed", LOOP),
    gap("write to a direct loop device", "done, bytes changed", LOOP),
];

/// Nothing can refuse a store through it.
const EXCLUDED: &str = "a file with a writable mapping is not held in the first place";
/// The hook can refuse to make a mapping writable, not a store.
const NO_SIGNAL: &str = "mprotect is refused, where the kernel lets the store end by a signal";
/// xfs looks at it before it looks at the file.
const NO_LENGTH: &str = "the hook does not know how much is written";
/// Allowed on a swap file, which stays swapped to in a file system without a name.
const STRICTER: &str = "as for a layout hold: the device must not outlive the mount";
/// Whoever swaps to a held file has it from the holder.
const NO_HOOK: &str = "swapon(2) asks no hook about the file";
/// Allowed on a swap file.
const JOURNAL: &str = "as for a layout hold: the flag drops the file's pages";
/// The hook is asked before the file system, which does not know the command.
const NO_FEATURE: &str = "refused before the file system says that it has none";
/// The loop driver calls no hook.
const LOOP: &str = "the loop driver writes without asking a hook";

const fn gap(operation: &'static str, held: &'static str, reason: &'static str) -> Gap {
    Gap {
        operation,
        homes: &[],
        held,
        reason,
    }
}

impl Gap {
    const fn on(self, homes: &'static [Home]) -> Self {
        Self { homes, ..self }
    }

    fn is_of(&self, home: Home, name: &str) -> bool {
        name.starts_with(self.operation) && (self.homes.is_empty() || self.homes.contains(&home))
    }
}

/// What is wrong with the answer on the held file.
pub(super) fn complaint(home: Home, name: &str, swap: &Trial, held: &Trial) -> Option<String> {
    let gap = GAPS.iter().find(|gap| gap.is_of(home, name));
    let answers = format!("swap file: {}, held file: {}", cell(swap), cell(held));
    // Whether there is anything to collect is chance.
    let by_chance = name.contains("GARBAGE_COLLECT");
    match (swap == held, gap) {
        (true, Some(gap)) => Some(format!(
            "{name}: no gap any more ({}): {answers}",
            gap.reason
        )),
        (false, Some(gap)) if cell(held) == gap.held => None,
        (false, Some(_)) => Some(format!("{name}: not as the gap says: {answers}")),
        (false, None) if !by_chance => Some(format!("{name}: {answers}")),
        _ => None,
    }
}
