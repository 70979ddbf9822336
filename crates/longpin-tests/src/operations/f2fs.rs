//! What only f2fs has (C05).

use std::os::fd::{AsFd, AsRawFd};

use anyhow::Result;
use rustix::io::pwrite;

use super::requests::{
    ABORT_ATOMIC, BLOCK_OF, COMMIT_ATOMIC, COMPRESS_FILE, Command, DECOMPRESS_FILE,
    F2FS_DEFRAGMENT, GARBAGE_COLLECT, GARBAGE_COLLECT_RANGE, MOVE_RANGE, MoveRange,
    RELEASE_COMPRESS_BLOCKS, RESERVE_COMPRESS_BLOCKS, SEC_TRIM_FILE, SET_COMPRESS_OPTION,
    SET_PIN_FILE, START_ATOMIC, START_ATOMIC_REPLACE, WRITE_CHECKPOINT,
};
use super::{Build, Home, Operation, Victim};
use crate::PAGE;
use crate::act::Outcome;

const F2FS: &[Home] = &[Home::F2fs];

/// `F2FS_TRIM_FILE_DISCARD`.
const DISCARD: u64 = 1;
/// `F2FS_TRIM_FILE_ZEROOUT`.
const ZERO_OUT: u64 = 2;

pub(super) const OPERATIONS: &[Operation] = &[
    Operation::new("f2fs MOVE_RANGE from", "C05", F2FS, |v| {
        let donor = v.donor(false)?;
        Ok(move_range(v.file()?, &donor.file, v))
    }),
    Operation::new("f2fs MOVE_RANGE into", "C05", F2FS, |v| {
        let donor = v.donor(false)?;
        Ok(move_range(&donor.file, v.file()?, v))
    }),
    Operation::new("f2fs SEC_TRIM_FILE, discard", "C05", F2FS, |v| {
        section_trim(v, DISCARD)
    }),
    Operation::new("f2fs SEC_TRIM_FILE, zero out", "C05", F2FS, |v| {
        section_trim(v, ZERO_OUT)
    }),
    Operation::new("f2fs START_ATOMIC_WRITE", "C05", F2FS, |v| {
        atomic(v, &START_ATOMIC, false, None)
    }),
    Operation::new("f2fs atomic write, committed", "C05", F2FS, |v| {
        atomic(v, &START_ATOMIC, true, Some(&COMMIT_ATOMIC))
    }),
    Operation::new("f2fs atomic write, aborted", "C05", F2FS, |v| {
        atomic(v, &START_ATOMIC, true, Some(&ABORT_ATOMIC))
    }),
    Operation::new("f2fs atomic write, only closed", "C05", F2FS, |v| {
        let answer = atomic(v, &START_ATOMIC, true, None)?;
        v.close();
        Ok(answer)
    }),
    Operation::new("f2fs START_ATOMIC_REPLACE", "C05", F2FS, |v| {
        atomic(v, &START_ATOMIC_REPLACE, false, None)
    }),
    Operation::new("f2fs atomic replace, committed", "C05", F2FS, |v| {
        atomic(v, &START_ATOMIC_REPLACE, true, Some(&COMMIT_ATOMIC))
    }),
    Operation::new("f2fs DEFRAGMENT", "C05", F2FS, |v| {
        Ok(F2FS_DEFRAGMENT.ask(v.file()?, &mut [0, 2 * v.pinned_len()]))
    }),
    Operation::new("f2fs GARBAGE_COLLECT", "C05", F2FS, |v| {
        Ok(GARBAGE_COLLECT.ask(v.file()?, &mut 1))
    }),
    Operation::new("f2fs GARBAGE_COLLECT_RANGE", "C05", F2FS, collect_range),
    Operation::new("f2fs WRITE_CHECKPOINT", "C05", F2FS, |v| {
        Ok(WRITE_CHECKPOINT.ask(v.file()?, 0).map(drop))
    }),
    Operation::new("f2fs SET_PIN_FILE on", "C05", F2FS, |v| {
        Ok(SET_PIN_FILE.ask(v.file()?, &mut 1))
    }),
    Operation::new("f2fs SET_PIN_FILE off", "C05", F2FS, |v| {
        Ok(SET_PIN_FILE.ask(v.file()?, &mut 0))
    })
    .on(Build::PlacePinned),
    Operation::new("f2fs RELEASE_COMPRESS_BLOCKS", "C05", F2FS, |v| {
        Ok(RELEASE_COMPRESS_BLOCKS.ask(v.file()?, &mut 0))
    })
    .on(Build::Compressed),
    Operation::new("f2fs RESERVE_COMPRESS_BLOCKS", "C05", F2FS, |v| {
        let file = v.file()?;
        let released = RELEASE_COMPRESS_BLOCKS.ask(file, &mut 0);
        Ok(released.and_then(|()| RESERVE_COMPRESS_BLOCKS.ask(file, &mut 0)))
    })
    .on(Build::Compressed),
    Operation::new("f2fs SET_COMPRESS_OPTION", "C05", F2FS, |v| {
        Ok(SET_COMPRESS_OPTION.ask(v.file()?, &mut [0, 3]))
    })
    .on(Build::Compressed),
    Operation::new("f2fs DECOMPRESS_FILE", "C05", F2FS, |v| {
        Ok(DECOMPRESS_FILE.ask(v.file()?, 0).map(drop))
    })
    .on(Build::Compressed),
    Operation::new("f2fs COMPRESS_FILE", "C05", F2FS, |v| {
        let file = v.file()?;
        let plain = DECOMPRESS_FILE.ask(file, 0);
        Ok(plain.and_then(|_| COMPRESS_FILE.ask(file, 0)).map(drop))
    })
    .on(Build::Compressed),
];

fn move_range(from: &impl AsFd, to: &impl AsFd, victim: &Victim<'_>) -> Outcome {
    let mut range = MoveRange {
        to: to.as_fd().as_raw_fd(),
        pad: 0,
        from_offset: victim.pinned.start,
        to_offset: victim.pinned.start,
        len: victim.pinned_len(),
    };
    MOVE_RANGE.ask(from, &mut range)
}

fn section_trim(victim: &Victim<'_>, how: u64) -> Result<Outcome> {
    let mut range = [victim.pinned.start, victim.pinned_len(), how];
    Ok(SEC_TRIM_FILE.ask(victim.file()?, &mut range))
}

/// An atomic write begins, changes the pinned range, and ends.
fn atomic(
    victim: &Victim<'_>,
    begin: &Command,
    change: bool,
    end: Option<&Command>,
) -> Result<Outcome> {
    let file = victim.file()?;
    if let Err(errno) = begin.ask(file, 0) {
        return Ok(Err(errno));
    }
    if change {
        let bytes = vec![b'a'; usize::try_from(victim.pinned_len())?];
        // A swap file of 6.1 lets it begin, and refuses this.
        if let Err(errno) = pwrite(file, &bytes, victim.pinned.start) {
            end.map(|end| end.ask(file, 0));
            return Ok(Err(errno));
        }
    }
    let Some(end) = end else { return Ok(Ok(())) };
    Ok(end.ask(file, 0).map(drop))
}

/// The blocks of the pinned range are moved elsewhere.
fn collect_range(victim: &mut Victim<'_>) -> Result<Outcome> {
    let page = PAGE as u64;
    let mut block = i32::try_from(victim.pinned.start / page)?;
    BLOCK_OF.ask(victim.file()?, &mut block)?;
    let start = u64::try_from(block)?;
    let mut range = [1, start, victim.pinned_len() / page];
    Ok(GARBAGE_COLLECT_RANGE.ask(victim.file()?, &mut range))
}
