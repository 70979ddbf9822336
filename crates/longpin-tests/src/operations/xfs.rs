//! What only xfs has (C05).

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

use anyhow::Result;

use super::requests::{
    BulkTime, COMMIT_RANGE, CommitRange, EXCHANGE_RANGE, ExchangeRange, START_COMMIT, SWAP_EXTENTS,
    SwapExtents,
};
use super::{Home, Operation, Victim};
use crate::act::Outcome;

const XFS: &[Home] = &[Home::Xfs];

pub(super) const OPERATIONS: &[Operation] = &[
    Operation::new("xfs SWAPEXT, as target", "C05", XFS, |v| {
        let donor = v.donor(false)?;
        swap_extents(v.file()?, &donor.file)
    }),
    Operation::new("xfs SWAPEXT, as donor", "C05", XFS, |v| {
        let target = v.donor(false)?;
        swap_extents(&target.file, v.file()?)
    }),
    Operation::new("xfs EXCHANGE_RANGE, called on it", "C05", XFS, |v| {
        let other = v.donor(false)?;
        let mut range = exchange(v, &other.file);
        Ok(EXCHANGE_RANGE.ask(v.file()?, &mut range))
    }),
    Operation::new("xfs EXCHANGE_RANGE, named in it", "C05", XFS, |v| {
        let other = v.donor(false)?;
        let mut range = exchange(v, v.file()?);
        Ok(EXCHANGE_RANGE.ask(&other.file, &mut range))
    }),
    Operation::new("xfs EXCHANGE_RANGE beside", "C05", XFS, |v| {
        let other = v.donor(false)?;
        let (offset, len) = v.page_before();
        let mut range = ExchangeRange {
            file_offset: offset,
            own_offset: offset,
            len,
            ..exchange(v, &other.file)
        };
        Ok(EXCHANGE_RANGE.ask(v.file()?, &mut range))
    }),
    Operation::new("xfs COMMIT_RANGE, called on it", "C05", XFS, |v| {
        let other = v.donor(false)?;
        commit(v.file()?, exchange(v, &other.file))
    }),
    Operation::new("xfs COMMIT_RANGE, named in it", "C05", XFS, |v| {
        let other = v.donor(false)?;
        commit(&other.file, exchange(v, v.file()?))
    }),
];

/// The pinned range, with the same range of this other file.
fn exchange(victim: &Victim<'_>, other: &File) -> ExchangeRange {
    ExchangeRange {
        file: other.as_raw_fd(),
        file_offset: victim.pinned.start,
        own_offset: victim.pinned.start,
        len: victim.pinned_len(),
        ..ExchangeRange::default()
    }
}

fn commit(file: &File, exchange: ExchangeRange) -> Result<Outcome> {
    let mut range = CommitRange::default();
    if let Err(errno) = START_COMMIT.ask(file, &mut range) {
        return Ok(Err(errno));
    }
    range.exchange = exchange;
    Ok(COMMIT_RANGE.ask(file, &mut range))
}

/// Whole files of the same size, as `xfs_fsr` does it; the times say that nobody has changed the target since.
fn swap_extents(target: &File, donor: &File) -> Result<Outcome> {
    let data = target.metadata()?;
    let time = |sec, nsec| -> Result<BulkTime> {
        let nsec = i32::try_from(nsec)?;
        Ok(BulkTime { sec, nsec })
    };
    let mut swap = SwapExtents {
        target: target.as_raw_fd().into(),
        donor: donor.as_raw_fd().into(),
        len: i64::try_from(data.len())?,
        mtime: time(data.mtime(), data.mtime_nsec())?,
        ctime: time(data.ctime(), data.ctime_nsec())?,
        ..SwapExtents::default()
    };
    Ok(SWAP_EXTENTS.ask(target, &mut swap))
}
