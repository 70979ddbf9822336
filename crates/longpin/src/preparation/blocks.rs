//! Blocks for holes, and behind the end, where the file system has fallocate(2).

use std::fs::File;
use std::ops::Range;

use longpin_linux::file::Lease;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::error::{PrepareError, step};
use super::{Work, is_unwritten};
use crate::extents::BlockMap;

/// The end itself moves with the zeroes, so that nobody can read what the blocks held before, also after a kill. `growth`
/// begins at the file's end. False: this file has no fallocate(2), as on ext4 without extents.
pub(super) fn allocate(
    file: &File,
    lease: &Lease<'_>,
    map: &BlockMap<'_>,
    work: &Work,
    growth: Range<u64>,
) -> Result<bool, PrepareError> {
    let size = growth.start;
    match try_allocate(file, work, &growth) {
        Ok(()) => Ok(true),
        Err((Errno::OPNOTSUPP, _)) => Ok(false),
        Err((errno, range)) => {
            // What was allocated of it goes back, if the file is still ours alone; if that fails, too, the first
            // failure is the one to tell.
            let same = file.metadata().is_ok_and(|data| data.len() == size);
            if same && lease.is_whole().is_ok_and(|whole| whole) {
                give_back(file, map, work, &growth);
            }
            Err(step("allocate blocks", range)(errno.into()))
        }
    }
}

fn try_allocate(file: &File, work: &Work, growth: &Range<u64>) -> Result<(), (Errno, Range<u64>)> {
    let size = growth.start;
    if work.holes > 0 {
        let flags = FallocateFlags::empty();
        fallocate(file, flags, 0, size).map_err(|errno| (errno, 0..size))?;
    }
    if growth.is_empty() {
        return Ok(());
    }
    let (flags, len) = (FallocateFlags::KEEP_SIZE, growth.end - size);
    fallocate(file, flags, size, len).map_err(|errno| (errno, growth.clone()))
}

/// Holes become holes again, unless some of what is unwritten was so before: nobody knows which.
fn give_back(file: &File, map: &BlockMap<'_>, work: &Work, growth: &Range<u64>) {
    if !growth.is_empty() {
        let _ = file.set_len(growth.start);
    }
    if work.holes == 0 || work.unwritten > 0 {
        return;
    }
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let extents = map.extents(&(0..growth.start));
    for extent in extents.map_while(Result::ok) {
        if is_unwritten(extent.flags) {
            let _ = fallocate(file, flags, extent.logical, extent.length);
        }
    }
}
