//! Clone, dedupe, and `copy_file_range(2)`: into the pinned range (C03) and from it (C04).

use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, Result, bail};
use rustix::io::Errno;

use super::requests::{CLONE_RANGE, CloneRange, DEDUPE, Dedupe};
use super::{Home, Operation, Victim};
use crate::act::Outcome;

pub(super) const OPERATIONS: &[Operation] = &[
    Operation::new("FICLONE into", "C03", Home::ALL, |v| {
        let donor = v.donor(false)?;
        Ok(rustix::fs::ioctl_ficlone(v.file()?, &donor.file))
    }),
    Operation::new("FICLONERANGE into", "C03", Home::ALL, |v| {
        let donor = v.donor(false)?;
        let (offset, len) = (v.pinned.start, v.pinned_len());
        Ok(clone_range(&donor.file, v.file()?, offset, len))
    }),
    Operation::new("FICLONERANGE beside", "C03", Home::DISK, |v| {
        let donor = v.donor(false)?;
        let (offset, len) = v.page_before();
        Ok(clone_range(&donor.file, v.file()?, offset, len))
    }),
    Operation::new("FIDEDUPERANGE into", "C03", Home::ALL, |v| {
        let donor = v.donor(true)?;
        dedupe(&donor.file, v.file()?, v)
    }),
    Operation::new("copy_file_range into", "C03", Home::ALL, |v| {
        let donor = v.donor(false)?;
        copy_range(&donor.file, v.file()?, v.pinned.start, v.pinned_len())
    }),
    Operation::new("copy_file_range beside", "C03", Home::DISK, |v| {
        let donor = v.donor(false)?;
        let (offset, len) = v.page_before();
        copy_range(&donor.file, v.file()?, offset, len)
    }),
    Operation::new("FICLONE from", "C04", Home::ALL, |v| {
        let donor = v.donor(false)?;
        Ok(rustix::fs::ioctl_ficlone(&donor.file, v.file()?))
    }),
    Operation::new("FICLONERANGE from", "C04", Home::ALL, |v| {
        let donor = v.donor(false)?;
        let (offset, len) = (v.pinned.start, v.pinned_len());
        Ok(clone_range(v.file()?, &donor.file, offset, len))
    }),
    Operation::new("FICLONE from, then a write", "C04", Home::DISK, |v| {
        let donor = v.donor(false)?;
        if let Err(errno) = rustix::fs::ioctl_ficlone(&donor.file, v.file()?) {
            return Ok(Err(errno));
        }
        let bytes = vec![b'w'; usize::try_from(v.pinned_len())?];
        rustix::io::pwrite(v.file()?, &bytes, v.pinned.start).context("write after the clone")?;
        v.file()?.sync_all().context("fsync after the clone")?;
        Ok(Ok(()))
    }),
    Operation::new("FIDEDUPERANGE from", "C04", Home::ALL, |v| {
        let donor = v.donor(true)?;
        dedupe(v.file()?, &donor.file, v)
    }),
    Operation::new("copy_file_range from", "C04", Home::ALL, |v| {
        let donor = v.donor(false)?;
        copy_range(v.file()?, &donor.file, v.pinned.start, v.pinned_len())
    }),
];

/// FICLONERANGE of a range of one file to the same place in another.
pub fn clone_range(from: &impl AsFd, to: &impl AsFd, offset: u64, len: u64) -> Outcome {
    let mut range = CloneRange {
        from: from.as_fd().as_raw_fd().into(),
        from_offset: offset,
        len,
        to_offset: offset,
    };
    CLONE_RANGE.ask(to, &mut range)
}

/// The pinned range of both files, which are alike. The call answers for the destination in its structure.
fn dedupe(from: &impl AsFd, to: &impl AsFd, victim: &Victim<'_>) -> Result<Outcome> {
    let mut range = Dedupe {
        from_offset: victim.pinned.start,
        len: victim.pinned_len(),
        count: 1,
        to: to.as_fd().as_raw_fd().into(),
        to_offset: victim.pinned.start,
        ..Dedupe::default()
    };
    if let Err(errno) = DEDUPE.ask(from, &mut range) {
        return Ok(Err(errno));
    }
    match range.status {
        0 if range.deduped == range.len => Ok(Ok(())),
        0 => bail!("deduped {} bytes of {}", range.deduped, range.len),
        1 => bail!("contents that were written alike differ"),
        errno => Ok(Err(Errno::from_raw_os_error(-errno))),
    }
}

/// `copy_file_range(2)`, as often as it takes.
pub fn copy_range(from: &impl AsFd, to: &impl AsFd, offset: u64, len: u64) -> Result<Outcome> {
    let (mut from_offset, mut to_offset) = (offset, offset);
    let end = offset + len;
    while from_offset < end {
        let rest = usize::try_from(end - from_offset)?;
        let (read, write) = (Some(&mut from_offset), Some(&mut to_offset));
        match rustix::fs::copy_file_range(from, read, to, write, rest) {
            Ok(0) => bail!("copied up to {to_offset} of {end}"),
            Ok(_) => {}
            Err(errno) => return Ok(Err(errno)),
        }
    }
    Ok(Ok(()))
}
