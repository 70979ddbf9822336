//! What the kernel does to the page cache, by itself or when asked.
//!
//! Not tried: memory that fails. It leaves its file, pinned or not, and the process that brought it about may be killed.

use anyhow::Result;
use rustix::fs::Advice as FileAdvice;
use rustix::io::Errno;
use rustix::mm::Advice;

use super::requests::sync_file_range;
use super::victim::read_uncached;
use super::{Build, Home, Operation, Victim};
use crate::act::Outcome;
use crate::mapping::Mapping;

/// Size of a huge page, and what its address is a multiple of.
const HUGE: usize = 2 << 20;

pub(super) const OPERATIONS: &[Operation] = &[
    Operation::unclaimed("fsync", Home::ALL, |v| Ok(rustix::fs::fsync(v.file()?))),
    Operation::unclaimed("sync_file_range", Home::ALL, |v| {
        let offset = i64::try_from(v.pinned.start)?;
        let len = i64::try_from(v.pinned_len())?;
        Ok(sync_file_range(v.file()?, offset, len))
    }),
    Operation::unclaimed("POSIX_FADV_DONTNEED", Home::ALL, |v| {
        let advice = FileAdvice::DontNeed;
        Ok(rustix::fs::fadvise(v.file()?, 0, None, advice))
    }),
    Operation::unclaimed("uncached read", Home::DISK, |v| {
        let mut room = vec![0; usize::try_from(v.pinned_len())?];
        Ok(read_uncached(v.file()?, &mut room, v.pinned.start))
    }),
    Operation::unclaimed("uncached read of uncached pages", Home::DISK, |v| {
        let mut room = vec![0; usize::try_from(v.pinned_len())?];
        Ok(read_uncached(v.file()?, &mut room, v.pinned.start))
    })
    .on(Build::Uncached),
    Operation::unclaimed("read of uncached pages", Home::DISK, |v| {
        let mut room = vec![0; usize::try_from(v.pinned_len())?];
        Ok(rustix::io::pread(v.file()?, &mut room, v.pinned.start).map(drop))
    })
    .on(Build::Uncached),
    Operation::unclaimed("drop_caches", &[Home::Memfd], |_| {
        Ok(echo("/proc/sys/vm/drop_caches", "3"))
    }),
    Operation::unclaimed("drop_caches, only the pin left", Home::NAMED, |_| {
        Ok(echo("/proc/sys/vm/drop_caches", "3"))
    })
    .alone(),
    // It is slow, and the same for all.
    Operation::unclaimed("compact_memory", &[Home::Tmpfs, Home::Xfs], |_| {
        Ok(echo("/proc/sys/vm/compact_memory", "1"))
    }),
    Operation::unclaimed("MADV_PAGEOUT", Home::ALL, |v| {
        advise(v, Advice::LinuxPageOut)
    }),
    Operation::unclaimed("MADV_COLD", Home::ALL, |v| advise(v, Advice::LinuxCold)),
    Operation::unclaimed("MADV_DONTNEED", Home::ALL, |v| {
        advise(v, Advice::LinuxDontNeed)
    }),
    Operation::unclaimed("MADV_COLLAPSE", Home::ALL, collapse),
];

fn echo(path: &str, word: &str) -> Outcome {
    let written = std::fs::write(path, word);
    written.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

fn advise(victim: &Victim<'_>, advice: Advice) -> Result<Outcome> {
    let len = usize::try_from(victim.pinned_len())?;
    let mapping = Mapping::shared(victim.file()?, victim.pinned.start, len, true)?;
    mapping.populate(0..len)?;
    Ok(mapping.advise(0..len, advice))
}

/// A huge page in the place of the file's first small ones, mapped where a huge page can be.
fn collapse(victim: &mut Victim<'_>) -> Result<Outcome> {
    if victim.file()?.metadata()?.len() < HUGE as u64 {
        victim.file()?.set_len(HUGE as u64)?;
    }
    let room = Mapping::anonymous(2 * HUGE)?;
    let at = room.addr().next_multiple_of(HUGE) - room.addr();
    room.replace(at, victim.file()?, 0, HUGE)?;
    room.populate(at..at + HUGE)?;
    Ok(room.collapse(at..at + HUGE))
}
