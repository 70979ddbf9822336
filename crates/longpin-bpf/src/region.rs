//! On-demand regions, as the kernel's own tables have them now.

use std::fs::File;
use std::io::Read;

use crate::BpfError;
use crate::pinned::Pinned;
use crate::shared::{FileId, text};
use crate::types::region_row;

/// A file mapping in an on-demand region: nothing of it is pinned, the hardware faults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// Kernel address of the region (`struct mmu_interval_notifier`).
    pub subscription: u64,
    /// Kernel address of the function by which its driver gives pages back.
    pub invalidate: u64,
    /// First byte's address in the process, and the address behind the last.
    pub addresses: (u64, u64),
    /// The file.
    pub file: FileId,
    /// Page index in the file of the first byte.
    pub first: u64,
    /// When it began, nanoseconds of boot time; 0: before the guard, or unseen.
    pub since_ns: u64,
    /// How often something was taken back from the region, as far as the guard saw.
    pub torn: u64,
    /// The process, in the initial pid namespace.
    pub tgid: u32,
    /// Its user.
    pub uid: u32,
    /// Its command.
    pub command: String,
}

impl Pinned {
    /// The on-demand regions of files; `None` where the kernel or the guard has nothing to tell them by.
    ///
    /// # Errors
    ///
    /// [`BpfError::Run`].
    pub fn regions(&self) -> Result<Option<Regions>, BpfError> {
        let failed = |source| BpfError::Run {
            program: crate::hooks::REGIONS,
            source,
        };
        let mut file = match File::open(&self.regions) {
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(failed)?,
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        Ok(Some(parse_regions(&bytes)))
    }
}

/// What `list_regions` tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Regions {
    /// Each once.
    pub all: Vec<Region>,
    /// Processes that have more than are told: thread group and command.
    pub cut: Vec<(u32, String)>,
}

/// A process whose first thread has ended is told by each of the others.
fn parse_regions(bytes: &[u8]) -> Regions {
    let mut found = Regions::default();
    for row in bytes.chunks_exact(size_of::<region_row>()) {
        let row: region_row = bytemuck::pod_read_unaligned(row);
        let region = Region::of(&row);
        if row.cut != 0 {
            found.cut.push((region.tgid, region.command.clone()));
        }
        // Of memory without a file.
        if region.file.inode != 0 {
            found.all.push(region);
        }
    }
    found
        .all
        .sort_by_key(|region| (region.subscription, region.addresses));
    found
        .all
        .dedup_by_key(|region| (region.subscription, region.addresses));
    found.cut.sort();
    found.cut.dedup();
    found
}

impl Region {
    fn of(row: &region_row) -> Self {
        Self {
            subscription: row.subscription,
            invalidate: row.invalidate,
            addresses: (row.start, row.end),
            file: FileId::of(row.inode, &row.file),
            first: row.first,
            since_ns: row.since,
            torn: row.torn,
            tgid: row.tgid,
            uid: row.uid,
            command: text(&row.comm),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;

    use super::*;

    #[test]
    fn a_region_is_told_once() {
        let row = region_row {
            subscription: 5,
            inode: 9,
            tgid: 4242,
            ..Zeroable::zeroed()
        };
        let further = region_row { start: 4096, ..row };
        let cut = region_row {
            inode: 0,
            cut: 1,
            ..further
        };
        let bytes = [row, row, further, cut].map(|row| bytemuck::bytes_of(&row).to_vec());
        let Regions { all, cut } = parse_regions(&bytes.concat());
        assert_eq!(cut, [(4242, String::new())]);
        let found: Vec<_> = all.iter().map(|region| region.addresses.0).collect();
        assert_eq!(found, [0, 4096]);
    }
}
