//! What the tests that need a kernel share: file systems to spoil, files whose every byte is known, the acts that a
//! pin must survive, and devices that pin: by VFIO, udmabuf, and (feature `rdma`) RDMA.
//!
//! Everything here acts on the running kernel, most of it as root: it is meant for the guest.

pub mod act;
pub mod frames;
pub mod history;
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

/// The unit in which files are filled and mappings are touched.
pub const PAGE: usize = 4096;
