//! The numbered claims of `docs/guarantee.md`.

use std::fmt;

/// A claim of the guarantee.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub enum Claim {
    /// Shrinking into the range is refused.
    C01,
    /// `fallocate` and `MADV_REMOVE` that change the mapping of the range are refused.
    C02,
    /// Clone, dedupe and `copy_file_range` into the range are refused.
    C03,
    /// The same from the range, where a device's store would reach the clone.
    C04,
    /// File systems' commands that drop the page cache of the range are refused.
    C05,
    /// Direct writes over pinned page cache are refused.
    C06,
    /// Unlink and rename are refused at level swapfile, and reported else.
    C07,
    /// The last `umount(2)`, and a remount to read-only, are refused.
    C08,
    /// A hold stands exactly as long as a page of the range is pinned.
    C09,
    /// Holds outlive every longpin process.
    C10,
    /// Pins that the hardware can fault make no hold.
    C11,
    /// A refused acquisition leaves file and system as they were.
    C12,
    /// A pinned page that leaves its file all the same is reported.
    C13,
    /// Files without a hold behave as if longpin were not there.
    C14,
    /// A file or a rule may refuse long-term pins.
    C15,
    /// At level swapfile: execve, fs-verity and whatever else a swap file refuses.
    C16,
}

impl Claim {
    /// What a guard promises of every pinned file, at level layout.
    pub const LAYOUT: [Self; 13] = [
        Self::C01,
        Self::C02,
        Self::C03,
        Self::C04,
        Self::C05,
        Self::C06,
        Self::C08,
        Self::C09,
        Self::C10,
        Self::C11,
        Self::C13,
        Self::C14,
        Self::C15,
    ];

    /// The claim in a few words.
    #[must_use]
    pub const fn summary(self) -> &'static str {
        match self {
            Self::C01 => "truncate into a pinned range is refused",
            Self::C02 => "punch, collapse, insert, zero of a pinned range are refused",
            Self::C03 => "clone, dedupe and copy_file_range into a pinned range are refused",
            Self::C04 => "the same from a range that a device may write",
            Self::C05 => "commands that drop a pinned file's page cache are refused",
            Self::C06 => "direct writes to a pinned file are refused",
            Self::C07 => "unlink and rename are refused at level swapfile",
            Self::C08 => "the last umount, and a remount to read-only, are refused",
            Self::C09 => "a hold stands as long as a page is pinned, and no longer",
            Self::C10 => "holds outlive every longpin process",
            Self::C11 => "on-demand registrations make no hold",
            Self::C12 => "a refused acquisition leaves file and system as they were",
            Self::C13 => "a pinned page that leaves its file all the same is reported",
            Self::C14 => "other files behave as if longpin were not there",
            Self::C15 => "a file or a rule may refuse long-term pins",
            Self::C16 => "execve and opens for programs are refused at level swapfile",
        }
    }

    /// Its number, as the documents have it.
    #[must_use]
    pub fn id(self) -> String {
        format!("{self:?}")
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
