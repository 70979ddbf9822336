//! The right kind of pin for a device: asked beforehand, so that nobody has to guess what a bare EFAULT or EOPNOTSUPP
//! means.
//!
//! [`decide`] is a pure function from a [`Question`] (file, mapping, access, device, kernel) to a [`Plan`]. What it says is
//! what the kernel will answer; a test in the guest compares the two, cell by cell, on every kernel.
//!
//! | memory, MAP_SHARED | a device that faults | pin to read | pin to write | io_uring (always writes) |
//! |---|---|---|---|---|
//! | tmpfs, memfd, hugetlbfs | on demand | pin | pin | pin |
//! | ext4, xfs, btrfs, f2fs | on demand | pin | before 6.5 pin; then refused: `dirty-tracking` | refused: before 6.5 `io-uring-memory-only`, then `dirty-tracking` |
//! | DAX on persistent memory | on demand | refused: `dax-longterm` | refused: `dax-longterm` | refused: `dax-longterm` |
//! | a DAX device, without a file system | on demand | pin | pin | before 6.5 refused: `io-uring-memory-only`; then pin |
//! | memfd_secret | refused: `secret-memory` | the same | the same | the same |
//!
//! A private mapping is pinned as a copy, which is not the file's memory ([`Plan::Copy`]). Before 6.2 the RDMA core pins
//! for writing whatever was asked, so the mapping must be writable even for a device that reads ([`Longterm`]).
//!
//! Where [`Level::Swapfile`] is asked for, the file is first held as an active swap file is, after the same checks: "on
//! demand" becomes [`Plan::HeldOnDemand`], so that the file system has no reason to tear the device's mapping down, and a
//! pin is held at that level. A file that does not pass the checks is refused.
//!
//! Which rules the running kernel has is probed ([`KernelRules::probe`]), and what the device can do comes from the device.

mod alternatives;
mod decide;
mod device;
mod lack;
mod obstacles;
mod read;
mod rule;

use longpin_linux::memory::Sharing;
pub use longpin_linux::verbs::{Capabilities, RegionAccess as Access, TransportCaps};

pub use crate::hold::Level;
pub use alternatives::Alternative;
pub use decide::decide;
pub use obstacles::{Obstacles, read_obstacles};
pub use read::{PlanError, PlanRequest, Planned, page_of, plan_file, writable};
pub use rule::Rule;

use crate::activation::Reason;
use crate::filesystem::Family;

/// What a file's memory is, as the kernel's pin functions see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Medium {
    /// tmpfs, memfd, ramfs: pages without blocks behind them.
    Memory,
    /// hugetlbfs.
    HugePages,
    /// The page cache of a file system that writes back.
    PageCache,
    /// DAX: persistent memory is mapped directly.
    Dax,
    /// A DAX device: the same memory without a file system.
    DaxDevice,
    /// memfd_secret(2): not even the kernel maps it.
    Secret,
    /// A file system that is not known.
    Unknown,
}

impl Medium {
    /// By the file system's magic number, and whether the file is a DAX one.
    #[must_use]
    pub(crate) const fn of(magic: u64, family: Family, dax: bool) -> Self {
        const HUGETLBFS: u64 = 0x9584_58f6;
        const SECRETMEM: u64 = 0x5345_434d;
        match (magic, family) {
            (SECRETMEM, _) => Self::Secret,
            (HUGETLBFS, _) => Self::HugePages,
            (_, Family::Memory) => Self::Memory,
            (_, Family::Unknown) => Self::Unknown,
            _ if dax => Self::Dax,
            _ => Self::PageCache,
        }
    }

    /// The name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::HugePages => "huge-pages",
            Self::PageCache => "page-cache",
            Self::Dax => "dax",
            Self::DaxDevice => "dax-device",
            Self::Secret => "secret-memory",
            Self::Unknown => "unknown",
        }
    }
}

/// Who is to get the memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Device {
    /// io_uring fixed buffers, which are pinned for writing.
    IoUring,
    /// An RDMA device, and what it says of itself.
    Rdma(Capabilities),
}

impl Device {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::IoUring => "io_uring",
            Self::Rdma(caps) => &caps.device,
        }
    }
}

/// Which kind of registration is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Wish {
    /// The best there is: on demand where the device can, else pinned.
    #[default]
    Any,
    /// On demand, or nothing.
    OnDemand,
    /// Pinned, also where the device could do without.
    Pin,
}

/// What the running kernel does, as far as kernels differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelRules {
    /// Refuses long-term pins for writing in shared mappings of file systems that write back (since 6.5).
    pub refuses_tracked_writes: bool,
    /// io_uring takes tmpfs and hugetlbfs only, and one file to a buffer (before 6.5).
    pub io_uring_memory_only: bool,
    /// The RDMA core pins for writing whatever was asked (before 6.2).
    pub rdma_always_writes: bool,
    /// io_uring is switched on for this process.
    pub io_uring: bool,
}

/// All that the plan depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The memory.
    pub medium: Medium,
    /// How it is mapped.
    pub sharing: Sharing,
    /// What the device does with it; io_uring always writes.
    pub access: Access,
    /// Which kind of registration is wanted.
    pub wish: Wish,
    /// What the file is to be held at, at least.
    pub level: Level,
    /// Whether it would be fit for level layout; false where that was not asked.
    pub fit_for_layout: bool,
    /// For whom.
    pub device: Device,
    /// By which rules.
    pub kernel: KernelRules,
    /// Whether the file can be mapped for writing.
    pub may_write: bool,
    /// The size of the range.
    pub bytes: u64,
    /// Bytes that may still be pinned; `None`: as many as there are.
    pub memlock: Option<u64>,
    /// What the kernel or the file system has less of than would be needed.
    pub lack: Option<Lack>,
    /// What of the file itself speaks against it.
    pub unfit: Vec<Reason>,
    /// Whether its blocks could be lent; `None`: nobody has looked.
    pub blocks: Option<bool>,
}

/// Less than is needed, found by asking beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lack {
    /// The rule that refuses for it.
    pub rule: Rule,
    /// Bytes that would be needed.
    pub needed: u64,
    /// Bytes that there are.
    pub there: u64,
}

/// A long-term pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Longterm {
    /// What the file is held at meanwhile: layout by the guard, which knows it from the pages; swapfile by a hold that is
    /// taken first.
    pub level: Level,
    /// The mapping must be writable, although the device may only read.
    pub writable_mapping: bool,
}

/// What will happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Plan {
    /// The device faults pages in, and gives them back when the file system wants them: no pin, no hold.
    OnDemand,
    /// The same, after the file is held at level swapfile: the file system has nothing to take back.
    HeldOnDemand,
    /// The file's pages are pinned.
    Longterm(Longterm),
    /// Pages are pinned that are no longer the file's: a private mapping.
    Copy,
    /// Refused by this rule; the file's blocks could be lent instead.
    LendBlocks(Rule),
    /// Refused by this rule.
    Refused(Rule),
}

impl Plan {
    /// The name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OnDemand => "on-demand",
            Self::HeldOnDemand => "held-on-demand",
            Self::Longterm(_) => "longterm",
            Self::Copy => "copy",
            Self::LendBlocks(_) => "lend-blocks",
            Self::Refused(_) => "refused",
        }
    }

    /// Nothing is pinned: the device faults pages in.
    #[must_use]
    pub const fn is_on_demand(self) -> bool {
        matches!(self, Self::OnDemand | Self::HeldOnDemand)
    }

    /// What the file is held at while it is registered; `None`: nobody holds it.
    #[must_use]
    pub const fn hold(self) -> Option<Level> {
        match self {
            Self::HeldOnDemand => Some(Level::Swapfile),
            Self::Longterm(pin) => Some(pin.level),
            _ => None,
        }
    }

    /// The rule that refuses; `None`: the memory can be registered.
    #[must_use]
    pub const fn refusal(self) -> Option<Rule> {
        match self {
            Self::LendBlocks(rule) | Self::Refused(rule) => Some(rule),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
