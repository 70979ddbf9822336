//! Growing a pinned file on f2fs.
//!
//! f2fs writes to a pinned file only before its end, moves that end only by allocating, and allocates blocks
//! with whatever they hold. So the end moves before the zeroes, a little at a time, and an attribute says
//! of which bytes that is true: should this be killed, the next prepare zeroes them.

use std::fs::File;
use std::io;
use std::ops::Range;

use longpin_linux::attribute;
use rustix::fs::FallocateFlags;

use super::zeroes::Zeroer;
use super::{PrepareError, step};
use crate::activation::Facts;
use crate::extents::{BlockDevice, MapError, section_of};

/// Bytes by which a file grows at once, at least.
const GROWTH: u64 = 4 << 20;

/// What is left of a prepare that was killed, then the growth.
pub(super) fn grow(
    file: &File,
    zeroer: &mut Zeroer<'_>,
    facts: &Facts,
    growth: Range<u64>,
) -> Result<(), PrepareError> {
    if let Some(left) = &facts.zeroing {
        finish_interrupted(zeroer, left, growth.start)?;
    }
    let part = growth_at_once(facts)?;
    let mut at = growth.start;
    while at < growth.end {
        // From one boundary to the next: f2fs allocates whole sections.
        let end = growth.end.min((at / part + 1) * part);
        move_end(file, at..end).map_err(step("allocate blocks", at..end))?;
        // Whoever waits to open the file must not see, or write to, what the next prepare would zero.
        let zeroed = zeroer.fill(at..end).or_else(|err| {
            zeroer.fill_with_waiter(at..end)?;
            file.sync_data().map_err(step("sync", at..end))?;
            attribute::end_zeroing(file).map_err(step("say that all is zeroed", at..end))?;
            Err(err)
        });
        zeroed?;
        at = end;
    }
    // Not before the zeroes are there to stay.
    file.sync_data().map_err(step("sync", growth.clone()))?;
    attribute::end_zeroing(file).map_err(step("say that all is zeroed", growth))
}

/// Only the file that was interrupted is finished: one that did not grow yet, or by just this part.
fn finish_interrupted(
    zeroer: &mut Zeroer<'_>,
    left: &Range<u64>,
    size: u64,
) -> Result<(), PrepareError> {
    if size == left.end {
        return zeroer.fill(left.clone());
    }
    if size == left.start {
        return Ok(());
    }
    let Range { start, end } = *left;
    Err(PrepareError::ChangedSince { start, end, size })
}

fn growth_at_once(facts: &Facts) -> Result<u64, MapError> {
    let (major, minor) = facts.status.device;
    let section = section_of(BlockDevice(major, minor))?.max(4096);
    Ok(GROWTH.next_multiple_of(section))
}

fn move_end(file: &File, part: Range<u64>) -> io::Result<()> {
    attribute::set_zeroing(file, &part)?;
    let len = part.end - part.start;
    let moved = rustix::fs::fallocate(file, FallocateFlags::empty(), part.start, len);
    if moved.is_err() && file.metadata()?.len() == part.start {
        attribute::end_zeroing(file)?;
    }
    Ok(moved?)
}
