//! The devices that pin a victim, and look at what they have pinned.

use std::fs::File;
use std::ops::Range;

use anyhow::Result;
use longpin_linux::FixedBuffer;
use longpin_tests::operations::Home;

#[cfg(feature = "rdma")]
use longpin_tests::{
    mapping::Mapping,
    rdma::{Access, Device, ProtectionDomain, QueuePair, Region, loopback},
};
#[cfg(feature = "rdma")]
use rustix::io::Errno;

/// A device of each kind.
pub(super) struct Eye {
    #[cfg(feature = "rdma")]
    domain: ProtectionDomain,
    /// The end that reads, and the one that is read.
    #[cfg(feature = "rdma")]
    ends: (QueuePair, QueuePair),
}

/// A pinned range, which nothing but the pin holds; unpinned on drop.
pub(super) enum Pin {
    Ring(FixedBuffer),
    #[cfg(feature = "rdma")]
    Region(Region),
}

impl Eye {
    #[cfg(feature = "rdma")]
    pub(super) fn new() -> Result<Self> {
        let domain = Device::open("rxe0")?.protection_domain()?;
        let ends = loopback(&domain)?;
        Ok(Self { domain, ends })
    }

    #[cfg(not(feature = "rdma"))]
    pub(super) fn new() -> Result<Self> {
        Ok(Self {})
    }

    /// io_uring for files that are memory, soft-RoCE for those with blocks.
    pub(super) fn pin(&self, home: Home, file: &File, range: &Range<u64>) -> Result<Pin> {
        let len = usize::try_from(range.end - range.start)?;
        if home.is_memory() {
            let buffer = FixedBuffer::register(file, range.start, len)?;
            buffer.leave_file()?;
            return Ok(Pin::Ring(buffer));
        }
        self.register(file, range.start, len)
    }

    #[cfg(feature = "rdma")]
    fn register(&self, file: &File, offset: u64, len: usize) -> Result<Pin> {
        let region = |writable| {
            let mapping = Mapping::shared(file, offset, len, writable)?;
            mapping.populate(0..len)?;
            let region = Region::register(&self.domain, &mapping, 0..len, Access::READ);
            mapping.leave_file()?;
            anyhow::Ok(region)
        };
        // Before 6.2 the RDMA core pins for writing whatever was asked, which a read-only mapping does not bear.
        let registered = match region(false)? {
            Err(err) if err.errno == Errno::FAULT => region(true)?,
            other => other,
        };
        Ok(Pin::Region(registered?))
    }

    #[cfg(not(feature = "rdma"))]
    fn register(&self, _: &File, _: u64, _: usize) -> Result<Pin> {
        anyhow::bail!("built without the feature rdma")
    }

    /// What the device finds in the pages that it has pinned.
    pub(super) fn read(&mut self, pin: &mut Pin) -> Result<Vec<u8>> {
        match pin {
            Pin::Ring(buffer) => Ok(buffer.read_as_device()?),
            #[cfg(feature = "rdma")]
            Pin::Region(region) => {
                Ok(self
                    .ends
                    .0
                    .read(region.addr(), region.rkey(), region.len())?)
            }
        }
    }
}
