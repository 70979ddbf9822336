//! Where a held file may differ from a swap file: by name, or not at all.

use longpin_tests::operations::Home;

use super::steps::Trial;

/// A difference that is known, with what docs/guarantee.md calls it.
struct Gap {
    operation: &'static str,
    /// Where; everywhere if empty.
    homes: &'static [Home],
    /// Why.
    reason: &'static str,
}

const GAPS: &[Gap] = &[everywhere("older writable mapping", EXCLUDED)];

/// Nothing can refuse a store through it.
const EXCLUDED: &str = "a file with a writable mapping is not held in the first place";

const fn everywhere(operation: &'static str, reason: &'static str) -> Gap {
    Gap {
        operation,
        homes: &[],
        reason,
    }
}

/// What is wrong with the answer on the held file.
pub(super) fn complaint(home: Home, name: &str, swap: &Trial, held: &Trial) -> Option<String> {
    let mut gaps = GAPS.iter();
    let gap = gaps.find(|gap| {
        name.starts_with(gap.operation) && (gap.homes.is_empty() || gap.homes.contains(&home))
    });
    let by_chance = name.contains("GARBAGE_COLLECT");
    match (swap == held, gap) {
        (false, None) if !by_chance => Some(format!("{name}: swap {swap:?}, held {held:?}")),
        (true, Some(gap)) => Some(format!("{name}: no gap any more: {}", gap.reason)),
        _ => None,
    }
}
