//! What can make a pin slow, or hang it, seen from outside: pages that the kernel would have to move first, because
//! nothing may stay for long where they lie.

use std::fs::File;
use std::io;
use std::ops::Range;

use longpin_linux::memory::{DeviceMemory, Sharing};
use longpin_linux::sparse;
use longpin_linux::zones::{self, Zones};

/// How much is mapped at once to look at it.
const WINDOW: u64 = 64 << 20;

/// What of a file's range would be moved before it is pinned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Obstacles {
    /// Pages of the range that are in memory.
    pub resident: u64,
    /// Of these, pages in ZONE_MOVABLE: each is moved before it is pinned. `None`: the place of pages is told to
    /// CAP_SYS_ADMIN only.
    pub movable: Option<u64>,
    /// Why nobody knows how much memory there is of these kinds.
    pub unknown: Option<String>,
    /// ZONE_MOVABLE has memory on this host, in bytes.
    pub zone_movable: u64,
    /// Memory set aside for contiguous allocations (CMA), in bytes. Pages lent from it are moved, too; which, nobody tells.
    pub cma: u64,
}

impl Obstacles {
    /// Nothing of this host's memory needs moving.
    #[must_use]
    pub const fn are_impossible(&self) -> bool {
        self.zone_movable == 0 && self.cma == 0 && self.unknown.is_none()
    }
}

/// Look at a range of an open file, in pages of `page` bytes. Reads no page in: what is not in memory is not counted.
///
/// # Errors
///
/// What the system says.
pub fn read_obstacles(file: &File, range: &Range<u64>, page: u64) -> io::Result<Obstacles> {
    let told = zones::read().and_then(|zones| Ok((zones, zones::cma_bytes()?)));
    let mut found = Obstacles::default();
    let zones = match told {
        Ok((zones, cma)) => {
            found.zone_movable = zones.movable_bytes();
            found.cma = cma;
            zones
        }
        Err(err) => {
            found.unknown = Some(err.to_string());
            return Ok(found);
        }
    };
    if zones::may_see_frames()? {
        found.movable = Some(0);
    }
    // What is not there costs nothing.
    for run in sparse::Data::of(file, range)? {
        let run = run?;
        let mut at = run.start - run.start % page;
        while at < run.end {
            let len = WINDOW.max(page).min((run.end - at).next_multiple_of(page));
            look(file, at, len, &zones, &mut found)?;
            at += len;
        }
    }
    Ok(found)
}

fn look(file: &File, at: u64, len: u64, zones: &Zones, found: &mut Obstacles) -> io::Result<()> {
    let bytes = usize::try_from(len).map_err(io::Error::other)?;
    let memory = DeviceMemory::of_file(file, at, bytes, false, Sharing::Shared)?;
    let resident = memory.resident()?;
    found.resident += resident.iter().map(|run| run.len() as u64).sum::<u64>();
    if let (Some(count), false) = (&mut found.movable, zones.movable_bytes() == 0) {
        *count += zones.count_movable(&memory, &resident)?;
    }
    Ok(())
}
