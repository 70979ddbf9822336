//! Where a held file may differ from a swap file: by name, or not at all.

use longpin_tests::operations::Home;

use super::cell;
use super::steps::Trial;
use super::subject::Kind;

/// A difference that is known.
struct Gap {
    /// How the names of the operations begin.
    operation: &'static str,
    /// Where; everywhere if empty.
    homes: &'static [Home],
    /// For which of the two that the guard protects; both if `None`.
    kind: Option<Kind>,
    /// Not on every kernel.
    sometimes: bool,
    /// What the held file answers, as in the table.
    held: &'static str,
    /// The words by which docs/guarantee.md names it.
    named: &'static str,
}

/// The contract, which must name every gap.
const GUARANTEE: &str = include_str!("../../../../../docs/guarantee.md");

const GAPS: &[Gap] = &[
    gap("older writable mapping", "not held", EXCLUDED).of(Kind::Held),
    gap("older writable mapping: store", STORED, OLDER).of(Kind::Pinned),
    gap("older writable mapping: read(2)", STORED, OLDER).of(Kind::Pinned),
    gap("older writable mapping: MADV_POPULATE", "done", OLDER).of(Kind::Pinned),
    // Before 6.2 RDMA pins by a writable mapping, which keeps the mount writable.
    gap("bind mount made read-only", "done", BIND)
        .of(Kind::Pinned)
        .sometimes(),
    gap("older read-only mapping: mprotect", "ETXTBSY", NO_SIGNAL),
    gap("mmap shared, read-only: mprotect", "ETXTBSY", NO_SIGNAL),
    gap("write of nothing", "ETXTBSY", NO_LENGTH).on(&[Home::Xfs]),
    gap("io_uring write of nothing", "ETXTBSY", NO_LENGTH).on(&[Home::Xfs]),
    gap("journal its data", "ETXTBSY", JOURNAL).on(&[Home::Ext4]),
    gap("flag: DAX", "ETXTBSY", FLAG_DAX).on(&[Home::Ext4, Home::Xfs]),
    gap("enable fs-verity", "ETXTBSY", NO_FEATURE).on(&[Home::Xfs]),
    gap("umount, lazy", "EBUSY", LAZY),
    gap("write to a loop device", "ETXTBSY", LOOP),
    gap("write to a direct loop device", "ETXTBSY", LOOP),
    gap("discard on a loop device", "ETXTBSY", LOOP),
    gap("zero out on a loop device", "ETXTBSY", LOOP),
    // A swap file's chunk is passed over, or lies before the new end.
    gap("btrfs balance", "ETXTBSY", WHOLE).on(&[Home::Btrfs]),
    gap("btrfs resize, shrinking", "ETXTBSY", WHOLE).on(&[Home::Btrfs]),
    gap("btrfs delete of another subvolume", "EPERM", WHOLE).on(&[Home::Btrfs]),
    gap("f2fs SEC_TRIM_FILE", "ETXTBSY", TRIM).on(&[Home::F2fs]),
    gap("f2fs SET_PIN_FILE", "ETXTBSY", PLACE).on(&[Home::F2fs]),
    // 6.1 lets it begin, or does not know it.
    gap("f2fs START_ATOMIC", "EINVAL", ATOMIC)
        .on(&[Home::F2fs])
        .sometimes(),
    gap("f2fs atomic", "EINVAL", ATOMIC)
        .on(&[Home::F2fs])
        .sometimes(),
    // 6.12 says EIO of a pinned file that would grow.
    gap("write behind the end", "ETXTBSY", BEHIND)
        .on(&[Home::F2fs])
        .sometimes(),
];

const EXCLUDED: &str = "shared mappings (`i_mmap`), one of them writable | refused by process";
const OLDER: &str = "mappings that are older than a *pin* are not refused";
const STORED: &str = "done, bytes changed";
const BIND: &str = "and of a pinned file, they are allowed";
const NO_SIGNAL: &str = "mprotect answers ETXTBSY";
const NO_LENGTH: &str = "write of length zero answers ETXTBSY";
const JOURNAL: &str = "journalling of its data on ext4";
const FLAG_DAX: &str = "a change of the flag DAX on ext4 and xfs";
const NO_FEATURE: &str = "fs-verity where the file system has none";
const LAZY: &str = "a lazy umount (EBUSY)";
const WHOLE: &str = "Commands that act on a whole file system";
const TRIM: &str = "SEC_TRIM_FILE, which trims a swap file";
const PLACE: &str = "SET_PIN_FILE, which takes a swap file's place from it";
const ATOMIC: &str = "atomic writes answer EINVAL on every kernel";
const BEHIND: &str = "a write behind the end on Linux 6.12 (EIO of a swap file)";
const LOOP: &str = "A held file gets no writable loop device";

const fn gap(operation: &'static str, held: &'static str, named: &'static str) -> Gap {
    Gap {
        operation,
        homes: &[],
        kind: None,
        sometimes: false,
        held,
        named,
    }
}

impl Gap {
    const fn on(self, homes: &'static [Home]) -> Self {
        Self { homes, ..self }
    }

    const fn sometimes(self) -> Self {
        Self {
            sometimes: true,
            ..self
        }
    }

    const fn of(self, kind: Kind) -> Self {
        Self {
            kind: Some(kind),
            ..self
        }
    }

    fn is_of(&self, home: Home, name: &str) -> bool {
        name.starts_with(self.operation) && (self.homes.is_empty() || self.homes.contains(&home))
    }
}

/// What is wrong with the answer on the held file.
pub(super) fn complaint(
    home: Home,
    kind: Kind,
    name: &str,
    swap: &Trial,
    held: &Trial,
) -> Option<String> {
    let is_it = |gap: &&Gap| {
        gap.is_of(home, name) && gap.kind.map_or(kind != Kind::Flagged, |it| it == kind)
    };
    let gap = GAPS.iter().find(is_it);
    let answers = format!("swap file: {}, {}: {}", cell(swap), kind.name(), cell(held));
    // Whether there is anything to collect is chance.
    let by_chance = name.contains("GARBAGE_COLLECT");
    match (swap == held, gap) {
        (true, Some(gap)) if gap.sometimes => None,
        (true, Some(gap)) => Some(format!(
            "{name}: no gap any more ({}): {answers}",
            gap.named
        )),
        (false, Some(gap)) if cell(held) == gap.held => None,
        (false, Some(_)) => Some(format!("{name}: not as the gap says: {answers}")),
        (false, None) if !by_chance => Some(format!("{name}: {answers}")),
        _ => None,
    }
}

/// Gaps of which the contract does not speak.
pub(super) fn unnamed() -> impl Iterator<Item = String> {
    let words: Vec<_> = GUARANTEE.split_whitespace().collect();
    let guarantee = words.join(" ");
    let unnamed = GAPS
        .iter()
        .filter(move |gap| !guarantee.contains(gap.named));
    unnamed.map(|gap| format!("docs/guarantee.md does not speak of {:?}", gap.named))
}
