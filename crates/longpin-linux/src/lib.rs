//! Linux interfaces that rustix lacks, as safe wrappers: a descriptor goes in, a typed value comes out,
//! and errno becomes a named variant here, once.

pub mod arch;
pub mod attribute;
pub mod btrfs;
pub mod cgroups;
pub mod code;
pub mod commands;
pub mod devdax;
pub mod ext4;
pub mod f2fs;
pub mod fiemap;
pub mod file;
pub mod fixed_buffer;
pub mod flight;
pub mod identity;
pub mod kallsyms;
pub mod loops;
pub mod mappings;
pub mod memory;
pub mod mounts;
pub mod probe;
pub mod pseudo;
pub mod relay;
pub mod ring_limits;
pub mod sparse;
pub mod swap;
pub mod tasks;
pub mod users;
pub mod verbs;
pub mod xfs;
pub mod zones;

pub use fixed_buffer::{
    FixedBuffer, PinnedMemory, RegisterError, fallocate_by_ring, ftruncate_by_ring, open_by_ring,
    write_by_ring,
};
