//! What only ext4 has (C05).

use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Result, ensure};

use super::requests::{ALLOC_DA_BLKS, MIGRATE, MOVE_EXT, MoveExtent, SWAP_BOOT};
use super::{Build, Home, Operation, Victim, blocks};
use crate::PAGE;
use crate::act::Outcome;

const EXT4: &[Home] = &[Home::Ext4];

pub(super) const OPERATIONS: &[Operation] = &[
    Operation::new("ext4 MOVE_EXT, as original", "C05", EXT4, |v| {
        let donor = v.donor(false)?;
        move_extent(v.file()?, &donor.file, v)
    }),
    Operation::new("ext4 MOVE_EXT, as donor", "C05", EXT4, |v| {
        let other = v.donor(false)?;
        move_extent(&other.file, v.file()?, v)
    }),
    Operation::new("ext4 SWAP_BOOT", "C05", EXT4, |v| {
        Ok(SWAP_BOOT.ask(v.file()?, 0).map(drop))
    }),
    Operation::new("ext4 extents to blocks", "C05", EXT4, |v| {
        Ok(blocks::drop_extents(v.file()?))
    })
    .on(Build::Short),
    Operation::new("ext4 extents to blocks and back", "C05", EXT4, |v| {
        let file = v.file()?;
        let there = blocks::drop_extents(file);
        Ok(there.and_then(|()| MIGRATE.ask(file, 0).map(drop)))
    })
    .on(Build::Short),
    Operation::new("ext4 ALLOC_DA_BLKS", "C05", EXT4, |v| {
        Ok(ALLOC_DA_BLKS.ask(v.file()?, 0).map(drop))
    }),
];

/// The pinned range of one file, from and to the same place in the other. ext4 has blocks of a page here.
fn move_extent(file: &impl AsFd, donor: &impl AsFd, victim: &Victim<'_>) -> Result<Outcome> {
    let block = PAGE as u64;
    let mut extent = MoveExtent {
        reserved: 0,
        donor: donor.as_fd().as_raw_fd(),
        start: victim.pinned.start / block,
        donor_start: victim.pinned.start / block,
        len: victim.pinned_len() / block,
        moved: 0,
    };
    let answer = MOVE_EXT.ask(file, &mut extent);
    ensure!(
        answer.is_err() || extent.moved == extent.len,
        "moved {} blocks of {}",
        extent.moved,
        extent.len
    );
    Ok(answer)
}
