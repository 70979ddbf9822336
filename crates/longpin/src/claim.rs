//! The numbered claims of `docs/guarantee.md`, and how much of them a running kernel enforces.

use std::fmt;

/// A claim of the guarantee, level layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub enum Claim {
    /// Shrinking into the range is refused.
    C01,
    /// `fallocate` and `MADV_REMOVE` that change the mapping of the range are refused.
    C02,
    /// A hold stands exactly as long as a page of the range is pinned.
    C09,
    /// Holds outlive every longpin process.
    C10,
    /// Pins that the hardware can fault make no hold.
    C11,
    /// Files without a hold behave as if longpin were not there.
    C14,
}

impl Claim {
    /// All claims that this version makes.
    pub const ALL: [Self; 6] = [
        Self::C01,
        Self::C02,
        Self::C09,
        Self::C10,
        Self::C11,
        Self::C14,
    ];

    /// The claim in a few words.
    #[must_use]
    pub const fn summary(self) -> &'static str {
        match self {
            Self::C01 => "truncate into a pinned range is refused",
            Self::C02 => "punch, collapse, insert, zero of a pinned range are refused",
            Self::C09 => "a hold stands as long as a page is pinned, and no longer",
            Self::C10 => "holds outlive every longpin process",
            Self::C11 => "on-demand registrations make no hold",
            Self::C14 => "other files behave as if longpin were not there",
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
