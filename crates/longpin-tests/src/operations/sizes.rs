//! Truncation and `fallocate(2)`, by every door (C01, C02).

use anyhow::Result;
use longpin_linux::{fallocate_by_ring, ftruncate_by_ring};
use rustix::fs::FallocateFlags;
use rustix::mm::Advice;

use super::requests::{self, Request, Space};
use super::{Build, Home, Operation, Victim};
use crate::act::{self, Outcome};
use crate::mapping::Mapping;

/// `FALLOC_FL_WRITE_ZEROES` (since Linux 6.17).
const WRITE_ZEROES: u32 = 0x80;

pub(super) const OPERATIONS: &[Operation] = &[
    Operation::new("truncate", "C01", Home::ALL, |v| {
        Ok(act::truncate(&v.path, v.pinned.start))
    }),
    Operation::new("ftruncate", "C01", Home::ALL, |v| {
        Ok(act::ftruncate(v.file()?, v.pinned.start))
    }),
    Operation::new("open with O_TRUNC", "C01", Home::ALL, |v| {
        Ok(act::open_truncate(&v.path))
    }),
    Operation::new("io_uring ftruncate", "C01", Home::ALL, |v| {
        Ok(ftruncate_by_ring(v.file()?, v.pinned.start)?)
    }),
    Operation::new("truncate behind the range", "C01", Home::ALL, |v| {
        Ok(act::truncate(&v.path, v.pinned.end))
    }),
    Operation::new("truncate to grow", "C01", Home::ALL, |v| {
        Ok(act::truncate(&v.path, 4 * v.pinned.end))
    }),
    Operation::new("fallocate", "C02", Home::ALL, |v| {
        fallocate(v, FallocateFlags::empty())
    }),
    Operation::new("fallocate PUNCH_HOLE", "C02", Home::ALL, |v| {
        fallocate(v, PUNCH)
    }),
    Operation::new("PUNCH_HOLE beside the range", "C02", Home::ALL, |v| {
        let (offset, len) = v.page_before();
        Ok(rustix::fs::fallocate(v.file()?, PUNCH, offset, len))
    }),
    Operation::new("fallocate ZERO_RANGE", "C02", Home::ALL, |v| {
        fallocate(v, FallocateFlags::ZERO_RANGE)
    }),
    Operation::new("fallocate COLLAPSE_RANGE", "C02", Home::ALL, |v| {
        fallocate(v, FallocateFlags::COLLAPSE_RANGE)
    }),
    Operation::new("fallocate INSERT_RANGE", "C02", Home::ALL, |v| {
        fallocate(v, FallocateFlags::INSERT_RANGE)
    }),
    Operation::new("fallocate UNSHARE_RANGE", "C02", Home::ALL, |v| {
        fallocate(v, FallocateFlags::UNSHARE_RANGE)
    }),
    Operation::new("UNSHARE_RANGE of shared blocks", "C02", &[Home::Xfs], |v| {
        fallocate(v, FallocateFlags::UNSHARE_RANGE)
    })
    .on(Build::Shared),
    Operation::new("fallocate WRITE_ZEROES", "C02", Home::ALL, |v| {
        fallocate(v, FallocateFlags::from_bits_retain(WRITE_ZEROES))
    }),
    Operation::new("io_uring fallocate PUNCH_HOLE", "C02", Home::ALL, |v| {
        let mode = i32::try_from(PUNCH.bits())?;
        let len = v.pinned_len();
        Ok(fallocate_by_ring(v.file()?, mode, v.pinned.start, len)?)
    }),
    Operation::new("MADV_REMOVE", "C02", Home::ALL, |v| {
        let len = usize::try_from(v.pinned_len())?;
        let mapping = Mapping::shared(v.file()?, v.pinned.start, len, true)?;
        Ok(mapping.advise(0..len, Advice::LinuxRemove))
    }),
    Operation::new("XFS_IOC_ALLOCSP64", "C02", Home::DISK, |v| {
        space(v, &requests::ALLOCSP64)
    }),
    Operation::new("XFS_IOC_FREESP64", "C01", Home::DISK, |v| {
        space(v, &requests::FREESP64)
    }),
    Operation::new("XFS_IOC_RESVSP64", "C02", Home::ALL, |v| {
        space(v, &requests::RESVSP64)
    }),
    Operation::new("XFS_IOC_UNRESVSP64", "C02", Home::ALL, |v| {
        space(v, &requests::UNRESVSP64)
    }),
    Operation::new("XFS_IOC_ZERO_RANGE", "C02", Home::ALL, |v| {
        space(v, &requests::ZERO_RANGE)
    }),
];

const PUNCH: FallocateFlags = FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE);

fn fallocate(victim: &Victim<'_>, flags: FallocateFlags) -> Result<Outcome> {
    let (offset, len) = (victim.pinned.start, victim.pinned_len());
    Ok(rustix::fs::fallocate(victim.file()?, flags, offset, len))
}

fn space(victim: &Victim<'_>, request: &Request<Space>) -> Result<Outcome> {
    let mut space = Space {
        start: i64::try_from(victim.pinned.start)?,
        len: i64::try_from(victim.pinned_len())?,
        ..Space::default()
    };
    Ok(request.ask(victim.file()?, &mut space))
}
