//! Everything that is known to touch the pages or the blocks of a file, each as a value that can be tried: which of it takes
//! a pinned page away from its file is found by trying, not by reading kernel source.
//!
//! An operation acts on a [`Victim`], a fresh file of which a range is pinned, and says what the kernel answered. Whoever
//! calls it looks at the pages before and after ([`frames`](crate::frames)).

use anyhow::Result;
use rustix::io::Errno;

use crate::act::Outcome;

mod blocks;
mod btrfs;
pub mod compat;
mod copies;
mod devices;
mod ends;
mod ext4;
mod f2fs;
mod ground;
mod keys;
mod lent;
mod memory;
mod mounts;
mod names;
mod requests;
mod sizes;
mod uses;
mod victim;
mod writes;
mod xfs;
mod zlib;

pub use copies::{clone_range, copy_range};
pub use ends::{Content, Shape};
pub use ground::{Ground, Home, reserve_huge_pages};
pub use victim::{Build, Donor, Victim};

/// How often an interrupted operation is tried again.
const INTERRUPTED: u32 = 100;

/// One way to touch a file.
#[derive(Clone, Copy)]
pub struct Operation {
    /// What people call it; unique.
    pub name: &'static str,
    /// The claim of docs/guarantee.md that speaks of it.
    pub claim: Option<&'static str>,
    /// The file systems on which it makes sense to try it. That one lacks it is for the kernel to say.
    pub homes: &'static [Home],
    /// What kind of file it is tried on.
    pub build: Build,
    /// Whether nothing but the pin may hold the file meanwhile: no descriptor, no mapping.
    pub alone: bool,
    act: fn(&mut Victim<'_>) -> Result<Outcome>,
}

impl Operation {
    /// Tries it. An error is the test's own, not the kernel's answer.
    ///
    /// # Errors
    ///
    /// What keeps it from being tried.
    pub fn try_on(&self, victim: &mut Victim<'_>) -> Result<Outcome> {
        // A ring's late work interrupts its task as a signal does (tmpfs: EINTR of fallocate): that is no answer.
        for _ in 0..INTERRUPTED {
            match (self.act)(victim)? {
                Err(Errno::INTR) => {}
                answer => return Ok(answer),
            }
        }
        (self.act)(victim)
    }

    const fn new(
        name: &'static str,
        claim: &'static str,
        homes: &'static [Home],
        act: fn(&mut Victim<'_>) -> Result<Outcome>,
    ) -> Self {
        Self {
            name,
            claim: Some(claim),
            homes,
            build: Build::Plain,
            alone: false,
            act,
        }
    }

    /// An operation of which no claim speaks.
    const fn unclaimed(
        name: &'static str,
        homes: &'static [Home],
        act: fn(&mut Victim<'_>) -> Result<Outcome>,
    ) -> Self {
        Self {
            claim: None,
            ..Self::new(name, "", homes, act)
        }
    }

    const fn on(self, build: Build) -> Self {
        Self { build, ..self }
    }

    const fn alone(self) -> Self {
        Self {
            alone: true,
            ..self
        }
    }
}

/// Every operation, in the order of the tables. Those that end a mount come last.
pub fn all() -> impl Iterator<Item = &'static Operation> {
    [
        sizes::OPERATIONS,
        copies::OPERATIONS,
        writes::OPERATIONS,
        compat::OPERATIONS,
        blocks::OPERATIONS,
        keys::OPERATIONS,
        ext4::OPERATIONS,
        xfs::OPERATIONS,
        btrfs::OPERATIONS,
        f2fs::OPERATIONS,
        memory::OPERATIONS,
        names::OPERATIONS,
        devices::OPERATIONS,
        mounts::OPERATIONS,
    ]
    .into_iter()
    .flatten()
}

/// What is done at and behind the end of a file, by what its last page is like.
pub fn at_end() -> impl Iterator<Item = &'static Operation> {
    ends::all(false)
}

/// Of [`at_end`] what is tried every day.
pub fn at_end_daily() -> impl Iterator<Item = &'static Operation> {
    ends::all(true)
}

/// What leaves a file its pages and blocks, and is refused all the same where nobody else may use the file; and what is
/// allowed even there.
pub fn uses() -> impl Iterator<Item = &'static Operation> {
    [
        uses::OPERATIONS,
        uses::ATTRIBUTES,
        uses::NAMES,
        btrfs::BESIDE,
    ]
    .into_iter()
    .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_claims_exist() {
        let mut names: Vec<_> = all()
            .chain(at_end())
            .chain(uses())
            .map(|operation| operation.name)
            .collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        for claim in all().filter_map(|operation| operation.claim) {
            assert!(("C01"..="C08").contains(&claim), "{claim}");
        }
    }
}
