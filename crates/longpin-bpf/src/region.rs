//! On-demand regions, as the kernel's own tables have them now.

use std::fs::File;
use std::io::Read;

use crate::BpfError;
use crate::pinned::Pinned;
use crate::shared::{FileId, identity, text, u32_at, u64_at};

/// Bytes of `struct region_row`.
const ROW_LEN: usize = 112;

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
    for row in bytes.chunks_exact(ROW_LEN) {
        let region = parse_region(row);
        if u32_at(row, 88) != 0 {
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

fn parse_region(row: &[u8]) -> Region {
    Region {
        subscription: u64_at(row, 0),
        invalidate: u64_at(row, 8),
        addresses: (u64_at(row, 16), u64_at(row, 24)),
        file: identity(u64_at(row, 32), &row[40..56]),
        first: u64_at(row, 56),
        since_ns: u64_at(row, 64),
        torn: u64_at(row, 72),
        tgid: u32_at(row, 80),
        uid: u32_at(row, 84),
        command: text(&row[96..112]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_told_once() {
        let mut row = [0u8; ROW_LEN];
        row[0..8].copy_from_slice(&5_u64.to_ne_bytes());
        row[32..40].copy_from_slice(&9_u64.to_ne_bytes());
        row[40..48].copy_from_slice(&77_u64.to_ne_bytes());
        row[56..64].copy_from_slice(&3_u64.to_ne_bytes());
        row[80..84].copy_from_slice(&4242_u32.to_ne_bytes());
        row[96..101].copy_from_slice(b"train");
        let mut bytes = [row, row].concat();
        row[16..24].copy_from_slice(&4096_u64.to_ne_bytes());
        bytes.extend(row);
        row[32..40].fill(0);
        row[88] = 1;
        bytes.extend(row);
        let Regions { all: regions, cut } = parse_regions(&bytes);
        assert_eq!(cut, [(4242, "train".to_owned())]);
        assert_eq!(regions.len(), 2, "{regions:?}");
        assert_eq!((regions[0].file.ino, regions[0].first), (77, 3));
        assert_eq!(
            (regions[0].tgid, regions[0].command.as_str()),
            (4242, "train")
        );
        assert_eq!(regions[1].addresses.0, 4096);
    }
}
