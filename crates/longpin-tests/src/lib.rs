//! What the tests that need a kernel share: file systems to spoil, files whose every byte is known, the acts that a
//! pin must survive, and devices that pin: by VFIO, udmabuf, and (feature `rdma`) RDMA;
//! a camera that writes into DMA buffers, and the module that lends pages to all of them.
//!
//! Everything here acts on the running kernel, most of it as root: it is meant for the guest.

pub mod act;
pub mod camera;
pub mod frames;
pub mod history;
pub mod lend;
pub mod mapping;
pub mod operations;
pub mod pattern;
pub mod peer;
pub mod programs;
#[cfg(feature = "rdma")]
pub mod rdma;
pub mod scratch;
pub mod stores;
pub mod udmabuf;
pub mod vfio;

/// How long a test waits for what must come, and comes at once on an idle machine: an emulated guest on a busy one may stand
/// still for a minute. Whoever waits goes on as soon as it is there.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(180);

/// The unit in which files are filled and mappings are touched.
pub const PAGE: usize = 4096;
