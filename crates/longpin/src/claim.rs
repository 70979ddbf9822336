//! The numbered claims of `docs/guarantee.md`, and how much of them a running kernel enforces.

use longpin_bpf::hooks;
use longpin_bpf::shared::Level;

pub use longpin_bpf::Claim;

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
    /// What these programs, attached, enforce of pinned files.
    pub(crate) fn by_programs(attached: &[String], level: Level) -> Self {
        let is_attached = |program: &str| attached.iter().any(|name| name == program);
        let lacks = |claim: &Claim| !hooks::holds(*claim, level, is_attached);
        let more: &[Claim] = match level {
            Level::Layout => &[],
            Level::Swapfile => &[Claim::C07, Claim::C16],
        };
        let all = Claim::LAYOUT.iter().chain(more);
        let missing: Vec<_> = all.copied().filter(lacks).collect();
        if missing.is_empty() {
            Self::Full
        } else if [Claim::C01, Claim::C02].iter().all(|c| missing.contains(c)) {
            Self::None
        } else {
            Self::Partial { missing }
        }
    }

    /// What these programs enforce of a hold that somebody asked for: what is about pins does not matter.
    /// Level swapfile refuses whatever asks for permission to write, notes or no notes.
    pub(crate) fn of_explicit_hold(attached: &[String], level: Level) -> Self {
        let about_pins = [Claim::C09, Claim::C11, Claim::C13, Claim::C15];
        let by_permission = [Claim::C02, Claim::C03, Claim::C04, Claim::C06];
        let is_strict = level == Level::Swapfile;
        let Self::Partial { mut missing } = Self::by_programs(attached, level) else {
            return Self::by_programs(attached, level);
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
            Self::None => &Claim::LAYOUT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_needs_its_programs() {
        let needed = |claim| hooks::needed_by(claim, Level::Layout);
        let needed = Claim::LAYOUT.into_iter().flat_map(needed);
        let mut all: Vec<_> = needed.map(|hook| hook.program.to_owned()).collect();
        assert_eq!(
            Enforcement::by_programs(&all, Level::Layout),
            Enforcement::Full
        );
        all.retain(|name| name != "sb_umount");
        let partial = Enforcement::by_programs(&all, Level::Layout);
        assert_eq!(partial.missing(), [Claim::C08]);
        let strict = Enforcement::by_programs(&all, Level::Swapfile);
        assert_eq!(
            strict.missing(),
            [Claim::C06, Claim::C08, Claim::C07, Claim::C16]
        );
        let nothing = Enforcement::by_programs(&[], Level::Layout);
        assert_eq!(nothing, Enforcement::None);
    }
}
