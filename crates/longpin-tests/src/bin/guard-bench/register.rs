//! `ibv_reg_mr` and `ibv_dereg_mr`: what the hints cost whoever registers memory.

use std::fs::File;

use anyhow::{Context, Result};
use longpin_tests::PAGE;
use longpin_tests::mapping::{Mapping, PageSize};
use longpin_tests::rdma::{Access, Device, ProtectionDomain, Region};

use crate::count::{Counter, Counts};
use crate::stages::Places;

/// The device of the guest.
const DEVICE: &str = "rxe0";

/// Sizes, and how often each is registered.
pub(crate) fn sizes(largest: usize) -> [(usize, usize); 3] {
    [(PAGE, 501), (1 << 20, 101), (largest, 3)]
}

/// Kinds of memory, in the order of the table.
pub(crate) const KINDS: [&str; 4] = [
    "anonymous",
    "anonymous, huge pages",
    "tmpfs",
    "tmpfs, huge pages",
];

/// Memory of each kind, all of it there, and a domain to register it in.
pub(crate) struct Memory {
    domain: ProtectionDomain,
    mappings: Vec<Mapping>,
}

impl Memory {
    pub(crate) fn make(places: &Places, largest: usize) -> Result<Self> {
        let domain = Device::open(DEVICE)?.protection_domain()?;
        let small = Mapping::anonymous_of(largest, PageSize::Small)?;
        let huge = Mapping::anonymous_of(largest, PageSize::Huge)?;
        let mut mappings = vec![small, huge];
        for dir in [&places.tmpfs, &places.tmpfs_huge] {
            let path = dir.join("registered");
            let file = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(&path)?;
            file.set_len(largest as u64)?;
            mappings.push(Mapping::shared(&file, 0, largest, true)?);
            std::fs::remove_file(&path)?;
        }
        for mapping in &mappings {
            mapping.touch_to_write();
        }
        Ok(Self { domain, mappings })
    }

    /// Each size of each kind.
    pub(crate) fn count(&self, counter: Counter, largest: usize) -> Result<Vec<Counts>> {
        let mut counts = Vec::new();
        for mapping in &self.mappings {
            for (size, calls) in sizes(largest) {
                let register = || {
                    Region::register(&self.domain, mapping, 0..size, Access::READ_WRITE)
                        .context("register")?
                        .deregister()
                        .context("deregister")
                };
                counts.push(counter.each(calls, || Ok(()), register)?);
            }
        }
        Ok(counts)
    }
}
