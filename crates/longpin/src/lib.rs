//! Hold files whose pages or blocks a device has, on stock Linux kernels.
//!
//! A device that cannot take page faults pins a file's pages for hours, and the file system is never told. This library
//! checks whether a file is fit for that, makes it so, says which kind of pin a device will get, and holds the file: what
//! would pull its pages or blocks away is refused with `ETXTBSY`. What exactly is promised stands in
//! `docs/guarantee.md`; its claims are [`Claim`].
//!
//! # Where to start
//!
//! | you want to | start from |
//! |---|---|
//! | lend a file to a device, by its blocks or its pages, and have it held | [`Hold::on`], [`Hold::of_file`] |
//! | know whether a file is fit, and what cures it | [`activation::check`] |
//! | make it fit | [`preparation::prepare`] |
//! | know which bytes lie where on which block device | [`extents::BlockMap`] |
//! | register a file's memory with io_uring | [`fixed_buffer::FixedBuffer`]; with RDMA: the crate `longpin-rdma` |
//! | know beforehand how a registration will go | [`plan::plan_file`] |
//! | hold every file that is pinned, by anybody | [`guard::start`]; the guard lives in the kernel |
//! | know who holds what, and what happened | [`listing::read_rows`], [`admin::look_up`], [`events`] |
//! | know what this host can enforce | [`doctor::read_host`] |
//! | swap to a file | [`swapfile::activate`] |
//!
//! # Example
//!
//! Hold a file, hand it to a device, and let go:
//!
//! ```no_run
//! use longpin::guard::Host;
//! use longpin::{Enforcement, Hold, Refusal};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let hold = match Hold::on("/srv/weights.bin").acquire(&Host::default()) {
//!     Ok(hold) => hold,
//!     Err(Refusal::Unfit(report)) => {
//!         // Commands that cure it, such as `longpin prepare /srv/weights.bin`.
//!         return Err(report.hints().join("\n").into());
//!     }
//!     Err(refusal) => return Err(refusal.into()),
//! };
//! if let Enforcement::Partial { missing } = hold.enforcement() {
//!     eprintln!("this kernel does not enforce {missing:?}");
//! }
//! // Nobody else can write to the file, truncate, clone or unlink it now. Processes that inherit
//! // `hold.token()` share the hold, which ends with the last of them.
//! hold.release()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Limitations
//!
//! - Linux on x86-64. The guard and BPF holds need `bpf` in the kernel's list of security modules, BTF, and bpffs;
//!   [`hold::Backend::SwapHeader`] needs none of these, and gives up 8 KiB of the file.
//! - Holds need `CAP_LINUX_IMMUTABLE` and `CAP_SYS_ADMIN`; so do questions to the guard. Checks and plans need no
//!   privilege, except for the blocks of btrfs and f2fs.
//! - All calls block; a hold may wait ten seconds for operations that began before it.
//! - How much a kernel enforces differs: see [`Enforcement`]. What the guard cannot see stands in `docs/guarantee.md`.
//! - Before version 1.0 names may change; `CHANGELOG.md` says which.
#![forbid(unsafe_code)]

pub mod activation;
pub mod admin;
mod claim;
pub mod config;
mod consumer;
pub mod doctor;
pub mod events;
pub mod extents;
pub mod filesystem;
pub mod fixed_buffer;
pub mod guard;
pub mod hold;
pub mod listing;
mod names;
pub mod on_demand;
pub mod plan;
pub mod preparation;
pub mod registration;
pub mod swapfile;
pub mod watchdog;

pub use claim::{Claim, Enforcement};
pub use hold::{Hold, Refusal};
