//! Long-term pins by the devices of the guest: io_uring for memory file systems, soft-RoCE (read-only)
//! for those with blocks, which the kernel lets nobody pin for writing.

use std::fs::File;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use longpin_linux::FixedBuffer;
use longpin_tests::PATIENCE;
use longpin_tests::act::{Outcome, outcome_name};
use rustix::io::Errno;

use crate::files::TestFile;

/// A pinned range; unpinned on drop.
pub(crate) enum Pinned {
    Ring(FixedBuffer),
    #[cfg(feature = "rdma")]
    Region(#[expect(dead_code, reason = "held for its pin")] longpin_tests::rdma::Region),
}

/// Pin `[offset, offset + len)` of a file with the device that can.
pub(crate) fn pin(file: &TestFile, offset: u64, len: usize) -> Result<Pinned> {
    if file.kind.is_memory() {
        return Ok(Pinned::Ring(FixedBuffer::register(
            &file.file, offset, len,
        )?));
    }
    register(file, offset, len, false)
}

pub(crate) fn register(
    file: &TestFile,
    offset: u64,
    len: usize,
    on_demand: bool,
) -> Result<Pinned> {
    register_file(&file.file, offset, len, on_demand)
}

#[cfg(feature = "rdma")]
pub(crate) fn register_file(
    file: &File,
    offset: u64,
    len: usize,
    on_demand: bool,
) -> Result<Pinned> {
    use longpin_tests::mapping::Mapping;
    use longpin_tests::rdma::{Access, Device, Region};

    let domain = Device::open("rxe0")?.protection_domain()?;
    let access = if on_demand {
        Access::READ.on_demand()
    } else {
        Access::READ
    };
    let region = |writable| {
        let mapping = Mapping::shared(file, offset, len, writable)?;
        mapping.touch();
        anyhow::Ok(Region::register(&domain, &mapping, 0..len, access))
    };
    // Before 6.2 the RDMA core pins for writing whatever was asked, which a read-only mapping does not bear.
    let registered = match region(false)? {
        Err(err) if err.errno == Errno::FAULT => region(true)?,
        other => other,
    };
    Ok(Pinned::Region(registered?))
}

/// Whatever is mapped there, in one region.
#[cfg(feature = "rdma")]
pub(crate) fn register_mapping(mapping: &longpin_tests::mapping::Mapping) -> Result<Pinned> {
    use longpin_tests::rdma::{Access, Device, Region};

    let domain = Device::open("rxe0")?.protection_domain()?;
    mapping.touch();
    let region = Region::register(&domain, mapping, 0..mapping.len(), Access::READ)?;
    Ok(Pinned::Region(region))
}

#[cfg(not(feature = "rdma"))]
pub(crate) fn register_mapping(_: &longpin_tests::mapping::Mapping) -> Result<Pinned> {
    anyhow::bail!("built without the feature rdma")
}

#[cfg(not(feature = "rdma"))]
pub(crate) fn register_file(_: &File, _: u64, _: usize, _: bool) -> Result<Pinned> {
    anyhow::bail!("built without the feature rdma")
}

impl Pinned {
    /// What the device reads through the pin (io_uring only: the RDMA demo reads over a queue pair).
    pub(crate) fn read_as_device(&mut self) -> Result<Option<Vec<u8>>> {
        match self {
            Self::Ring(buffer) => Ok(Some(buffer.read_as_device()?)),
            #[cfg(feature = "rdma")]
            Self::Region(_) => Ok(None),
        }
    }

    /// The consumer that `ls` must name.
    pub(crate) fn consumer(&self) -> &'static str {
        match self {
            Self::Ring(_) => "io_uring",
            #[cfg(feature = "rdma")]
            Self::Region(_) => "rdma",
        }
    }
}

/// The act must have answered ETXTBSY.
pub(crate) fn must_refuse(what: &str, outcome: Outcome) -> Result<()> {
    ensure!(
        outcome == Err(Errno::TXTBSY),
        "{what}: {}, not ETXTBSY",
        outcome_name(outcome)
    );
    Ok(())
}

/// The act must have gone through.
pub(crate) fn must_allow(what: &str, outcome: Outcome) -> Result<()> {
    ensure!(outcome.is_ok(), "{what}: {}", outcome_name(outcome));
    Ok(())
}

/// After the release the act must go through, at the latest when the kernel has dropped the pins.
pub(crate) fn must_allow_soon(what: &str, act: impl Fn() -> Outcome) -> Result<()> {
    let begin = Instant::now();
    loop {
        match act() {
            Err(Errno::TXTBSY) if begin.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(20));
            }
            outcome => return must_allow(what, outcome).context("after the release"),
        }
    }
}
