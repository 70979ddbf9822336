//! Blocks that the next store would leave are made new: the same bytes are written again, and the file system puts them
//! on blocks that are the file's alone. Whoever is killed in between leaves the file's bytes as they were.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use longpin_linux::btrfs;
use longpin_linux::file::Lease;
use rustix::fs::FallocateFlags;

use super::error::{PrepareError, step};
use crate::extents::{self, BlockMap, ExtentFlags, MapError};
use crate::filesystem::Family;

/// Bytes that are read and written at once.
const CHUNK: u64 = 4 << 20;

/// What is shared, then what is old: so many bytes.
pub(super) fn all(
    file: &File,
    lease: &Lease<'_>,
    map: &BlockMap<'_>,
    family: Family,
    size: u64,
    (shared, old): (u64, u64),
) -> Result<(), PrepareError> {
    if shared > 0 {
        unshare(file, lease, map, size, family)?;
    }
    if old > 0 {
        renew_old(file, lease, size)?;
    }
    Ok(())
}

/// xfs: `FALLOC_FL_UNSHARE_RANGE`, the file system copies what is shared under its own locks. btrfs has no such call.
fn unshare(
    file: &File,
    lease: &Lease<'_>,
    map: &BlockMap<'_>,
    size: u64,
    family: Family,
) -> Result<(), PrepareError> {
    for extent in map.extents(&(0..size)) {
        let extent = extent?;
        if !extent.flags.any(ExtentFlags::SHARED) {
            continue;
        }
        let (at, len) = (extent.logical, extent.length);
        if family == Family::Btrfs {
            write_again(file, lease, at..at + len)?;
            continue;
        }
        let unshared = rustix::fs::fallocate(file, FallocateFlags::UNSHARE_RANGE, at, len);
        unshared.map_err(|errno| step("unshare blocks", at..at + len)(errno.into()))?;
    }
    Ok(())
}

/// Bytes on blocks of btrfs that are as old as a snapshot, also one that is gone.
pub(super) fn count_old(file: &File, family: Family, size: u64) -> Result<u64, MapError> {
    match family {
        Family::Btrfs => Ok(btrfs::find_old(file, &(0..size), &mut |_| {})?.bytes),
        _ => Ok(0),
    }
}

/// Those are written again.
fn renew_old(file: &File, lease: &Lease<'_>, size: u64) -> Result<(), PrepareError> {
    extents::settle(file).map_err(step("sync", 0..size))?;
    let mut outcome = Ok(());
    let found = btrfs::find_old(file, &(0..size), &mut |range| {
        if outcome.is_ok() {
            outcome = write_again(file, lease, range);
        }
    });
    found.map_err(MapError::from)?;
    outcome?;
    extents::settle(file).map_err(step("sync", 0..size))
}

fn write_again(file: &File, lease: &Lease<'_>, range: Range<u64>) -> Result<(), PrepareError> {
    let mut at = range.start;
    while at < range.end {
        let end = range.end.min(at + CHUNK);
        let failed = |what| step(what, at..end);
        let mut bytes = vec![0; usize::try_from(end - at).unwrap_or(0)];
        file.read_exact_at(&mut bytes, at)
            .map_err(failed("read the file"))?;
        // Whoever opens the file could write to it in between.
        if !lease.is_whole().map_err(failed("ask for the lease"))? {
            return Err(PrepareError::Opened { at });
        }
        file.write_all_at(&bytes, at)
            .map_err(failed("write the file again"))?;
        at = end;
    }
    Ok(())
}
