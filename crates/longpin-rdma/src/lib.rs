//! RDMA memory regions over files: on demand where the device can fault, else pinned and held by the guard.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use longpin_rdma::{Access, Context, MemoryRegion};
//!
//! let file = std::fs::File::open("/srv/weights.bin")?;
//! let domain = Context::open("rxe0")?.protection_domain()?;
//! let region = MemoryRegion::register(&domain, &file, 0..1 << 20, Access::READ)?;
//! println!("{:#x} {}: {}", region.address(), region.rkey(), region.kind().text());
//! region.deregister()?;
//! # Ok(())
//! # }
//! ```
//!
//! libibverbs is loaded at run time: this crate builds, and its tests run, without RDMA packages. Queue pairs are made with
//! any other library: [`ProtectionDomain::as_raw`] and [`ProtectionDomain::from_raw`] pass domains to and fro.
//!
//! # What the other end sees when the file system takes the range away
//!
//! | | pinned | on demand |
//! |---|---|---|
//! | truncate, punch, guard on | refused with ETXTBSY: nothing changes | allowed |
//! | the other end's next access there | the file's bytes | a hole punched: zeroes, the file's new contents; behind the end: the access fails with a remote error, and the connection has to be made anew |
//! | truncate, punch, guard off | allowed: the other end goes on with memory that is no longer the file | allowed, as above |
//! | the file grows again | - | the new contents; [`MemoryRegion::prefetch`] brings them in, where rdma-core knows how |
//!
//! With [`RegisterOptions::level`] [`Level::Swapfile`] the file is held before it is mapped, on demand as well as pinned: whatever
//! would take the range away, and every write by others, is refused with ETXTBSY, so that an on-demand mapping is never
//! torn down for it. That is the plan for files on persistent memory (DAX), which cannot be pinned.
//!
//! The kernel tears an on-demand mapping down before the file system goes on, so no access sees pages that have left the
//! file.
#![forbid(unsafe_code)]

mod device;
mod region;

pub use longpin::plan::{
    Access, Capabilities, KernelRules, Level, Plan, Rule, TransportCaps, Wish,
};
pub use longpin::registration::{
    Protection, ProtectionState, RegisterError, RegisterOptions, Trial, TrialError,
};
pub use longpin_linux::memory::DeviceMemory;
pub use longpin_linux::verbs::{Context, ProtectionDomain, VerbsError};

pub use device::{DeviceError, find_device};
pub use region::{DeregisterError, Kind, MemoryRegion, PrefetchError, kernel_rules};
