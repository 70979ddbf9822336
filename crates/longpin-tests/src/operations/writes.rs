//! Writes: through the page cache, past it, and through mappings (C06).

use std::fs::File;
use std::io::{Seek, SeekFrom};

use anyhow::{Context, Result, bail, ensure};
use longpin_linux::write_by_ring;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags};

use super::victim::Aligned;
use super::{Build, Home, Operation, Victim};
use crate::act::Outcome;
use crate::mapping::Mapping;

/// Those where files can share blocks.
const SHARING: &[Home] = &[Home::Xfs, Home::Btrfs];

pub(super) const OPERATIONS: &[Operation] = &[
    Operation::new("write", "C06", Home::ALL, |v| {
        let bytes = vec![b'w'; usize::try_from(v.pinned_len())?];
        write(v.file()?, &bytes, v.pinned.start)
    }),
    Operation::new("sendfile into", "C06", Home::ALL, sendfile),
    Operation::new("splice into", "C06", Home::ALL, splice),
    Operation::new("store through a mapping", "C06", Home::ALL, |v| {
        let len = usize::try_from(v.pinned_len())?;
        match Mapping::shared(v.file()?, v.pinned.start, len, true) {
            Ok(mapping) => mapping.copy_in(0, &vec![b's'; len]),
            Err(errno) => return Ok(Err(errno)),
        }
        Ok(Ok(()))
    }),
    Operation::new("direct write", "C06", Home::ALL, |v| {
        direct(v, v.pinned.start, v.pinned_len())
    }),
    Operation::new("direct write beside the range", "C06", Home::DISK, |v| {
        let (offset, len) = v.page_before();
        direct(v, offset, len)
    }),
    Operation::new("direct write over dirty pages", "C06", Home::DISK, |v| {
        let bytes = vec![b'w'; usize::try_from(v.pinned_len())?];
        if let Err(errno) = write(v.file()?, &bytes, v.pinned.start)? {
            return Ok(Err(errno));
        }
        direct(v, v.pinned.start, v.pinned_len())
    }),
    Operation::new("io_uring direct write", "C06", Home::ALL, |v| {
        let mut bytes = Aligned::of(usize::try_from(v.pinned_len())?, b'r');
        let file = match open_direct(v)? {
            Ok(file) => file,
            Err(errno) => return Ok(Err(errno)),
        };
        Ok(write_by_ring(&file, v.pinned.start, bytes.bytes())?)
    }),
    Operation::new(
        "direct write, file written in place",
        "C06",
        &[Home::Btrfs],
        |v| direct(v, v.pinned.start, v.pinned_len()),
    )
    .on(Build::InPlace),
    Operation::new("write to shared blocks", "C06", SHARING, |v| {
        let bytes = vec![b'w'; usize::try_from(v.pinned_len())?];
        let written = write(v.file()?, &bytes, v.pinned.start)?;
        v.file()?.sync_all()?;
        Ok(written)
    })
    .on(Build::Shared),
    Operation::unclaimed("direct read", Home::DISK, |v| {
        let read = v.on_disk()?.context("nothing to read")?;
        ensure!(read == v.ground.contents()[range(v)?], "read other bytes");
        Ok(Ok(()))
    }),
];

fn range(victim: &Victim<'_>) -> Result<std::ops::Range<usize>> {
    Ok(usize::try_from(victim.pinned.start)?..usize::try_from(victim.pinned.end)?)
}

fn write(file: &File, bytes: &[u8], offset: u64) -> Result<Outcome> {
    let mut done = 0;
    while done < bytes.len() {
        match rustix::io::pwrite(file, &bytes[done..], offset + done as u64) {
            Ok(0) => bail!("wrote {done} bytes of {}", bytes.len()),
            Ok(count) => done += count,
            Err(errno) => return Ok(Err(errno)),
        }
    }
    Ok(Ok(()))
}

fn open_direct(victim: &Victim<'_>) -> Result<Result<File, Errno>> {
    match victim.open(true, OFlags::DIRECT) {
        Ok(file) => Ok(Ok(file)),
        Err(error) => match Errno::from_io_error(&error) {
            Some(errno) => Ok(Err(errno)),
            None => Err(error).context("cannot open the victim for direct writes"),
        },
    }
}

fn direct(victim: &Victim<'_>, offset: u64, len: u64) -> Result<Outcome> {
    let mut bytes = Aligned::of(usize::try_from(len)?, b'd');
    match open_direct(victim)? {
        Ok(file) => write(&file, bytes.bytes(), offset),
        Err(errno) => Ok(Err(errno)),
    }
}

fn sendfile(victim: &mut Victim<'_>) -> Result<Outcome> {
    let donor = victim.donor(false)?;
    let mut to = victim.file()?;
    to.seek(SeekFrom::Start(victim.pinned.start))?;
    let mut from = victim.pinned.start;
    while from < victim.pinned.end {
        let rest = usize::try_from(victim.pinned.end - from)?;
        match rustix::fs::sendfile(to, &donor.file, Some(&mut from), rest) {
            Ok(0) => bail!("sent up to {from}"),
            Ok(_) => {}
            Err(errno) => return Ok(Err(errno)),
        }
    }
    Ok(Ok(()))
}

fn splice(victim: &mut Victim<'_>) -> Result<Outcome> {
    let donor = victim.donor(false)?;
    let (read_end, write_end) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let (mut from, mut to) = (victim.pinned.start, victim.pinned.start);
    let flags = SpliceFlags::empty();
    while to < victim.pinned.end {
        let rest = usize::try_from(victim.pinned.end - from)?.min(1 << 16);
        let source = Some(&mut from);
        let count = rustix::pipe::splice(&donor.file, source, &write_end, None, rest, flags);
        let mut left = match count {
            Ok(0) => bail!("spliced up to {to}"),
            Ok(count) => count,
            Err(errno) => return Ok(Err(errno)),
        };
        while left > 0 {
            let sink = Some(&mut to);
            match rustix::pipe::splice(&read_end, None, victim.file()?, sink, left, flags) {
                Ok(0) => bail!("spliced up to {to}"),
                Ok(count) => left -= count,
                Err(errno) => return Ok(Err(errno)),
            }
        }
    }
    Ok(Ok(()))
}
