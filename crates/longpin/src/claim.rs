//! The numbered claims of `docs/guarantee.md`, and how much of them a running kernel enforces.

use std::fmt;

use longpin_bpf::load::STRICT;
use longpin_bpf::shared::Level;

/// A claim of the guarantee, level layout.
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
    /// The last `umount(2)`, and a remount to read-only, are refused.
    C08,
    /// A hold stands exactly as long as a page of the range is pinned.
    C09,
    /// Holds outlive every longpin process.
    C10,
    /// Pins that the hardware can fault make no hold.
    C11,
    /// A pinned page that leaves its file all the same is reported.
    C13,
    /// Files without a hold behave as if longpin were not there.
    C14,
    /// A file or a rule may refuse long-term pins.
    C15,
}

impl Claim {
    /// All claims that this version makes.
    pub const ALL: [Self; 13] = [
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
            Self::C08 => "the last umount, and a remount to read-only, are refused",
            Self::C09 => "a hold stands as long as a page is pinned, and no longer",
            Self::C10 => "holds outlive every longpin process",
            Self::C11 => "on-demand registrations make no hold",
            Self::C13 => "a pinned page that leaves its file all the same is reported",
            Self::C14 => "other files behave as if longpin were not there",
            Self::C15 => "a file or a rule may refuse long-term pins",
        }
    }

    /// Programs of the guard without which the claim does not hold; any one of each group.
    pub(crate) const fn programs(self) -> &'static [&'static [&'static str]] {
        match self {
            Self::C01 => &[&["inode_setattr", "inode_setattr_without_idmap"]],
            Self::C02 => &[&["file_permission"], &["vfs_fallocate_entry"]],
            Self::C03 | Self::C04 => &[
                &["file_permission"],
                &["vfs_clone_file_range_entry"],
                &["vfs_copy_file_range_entry"],
                &["vfs_dedupe_file_range_one_entry"],
            ],
            Self::C05 => &[&["file_ioctl"]],
            Self::C06 => &[&["file_permission"]],
            Self::C08 => &[
                &["sb_umount"],
                &["sb_remount"],
                &["reconfigure_super_entry"],
            ],
            Self::C09 | Self::C15 => &[&["pin_user_pages_fast_exit"], &["inode_free_security"]],
            Self::C13 => &[&["page_removed"]],
            Self::C10 | Self::C11 | Self::C14 => &[],
        }
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// How much of the promise the running kernel enforces.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Enforcement {
    /// Every claim.
    Full,
    /// All but these.
    Partial {
        /// The claims that are not enforced.
        missing: Vec<Claim>,
    },
    /// Nothing.
    None,
}

impl Enforcement {
    /// What these programs, attached, enforce.
    pub(crate) fn by_programs(attached: &[String]) -> Self {
        let is_attached = |program: &&str| attached.iter().any(|name| name == program);
        let lacks = |claim: &Claim| {
            let mut groups = claim.programs().iter();
            !groups.all(|group| group.iter().any(is_attached))
        };
        let missing: Vec<_> = Claim::ALL.into_iter().filter(lacks).collect();
        if missing.is_empty() {
            Self::Full
        } else if [Claim::C01, Claim::C02].iter().all(|c| missing.contains(c)) {
            Self::None
        } else {
            Self::Partial { missing }
        }
    }

    /// What these programs enforce of a hold that somebody asked for: what is about pins does not matter.
    /// Level swapfile has a program of its own for whatever asks for permission to write.
    pub(crate) fn of_explicit_hold(attached: &[String], level: Level) -> Self {
        let about_pins = [Claim::C09, Claim::C11, Claim::C13, Claim::C15];
        let by_permission = [Claim::C02, Claim::C03, Claim::C04, Claim::C06];
        let is_strict = level == Level::Swapfile && attached.iter().any(|name| name == STRICT[0]);
        let Self::Partial { mut missing } = Self::by_programs(attached) else {
            return Self::by_programs(attached);
        };
        missing.retain(|claim| !about_pins.contains(claim));
        missing.retain(|claim| !(is_strict && by_permission.contains(claim)));
        if missing.is_empty() {
            Self::Full
        } else {
            Self::Partial { missing }
        }
    }

    /// The claims that are not enforced.
    #[must_use]
    pub fn missing(&self) -> &[Claim] {
        match self {
            Self::Full => &[],
            Self::Partial { missing } => missing,
            Self::None => &Claim::ALL,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_needs_its_programs() {
        let mut all: Vec<String> = Claim::ALL
            .into_iter()
            .flat_map(|claim| claim.programs().iter().filter_map(|group| group.last()))
            .map(|name| (*name).to_owned())
            .collect();
        assert_eq!(Enforcement::by_programs(&all), Enforcement::Full);
        all.retain(|name| name != "sb_umount");
        let partial = Enforcement::by_programs(&all);
        assert_eq!(partial.missing(), [Claim::C08]);
        assert_eq!(Enforcement::by_programs(&[]), Enforcement::None);
    }
}
