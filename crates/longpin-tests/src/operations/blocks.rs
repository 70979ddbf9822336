//! What several file systems have for a file's flags and blocks: `FS_IOC_SETFLAGS`, fs-verity.

use std::os::fd::AsFd;

use anyhow::Result;
use rustix::fs::OFlags;

use super::requests::{ENABLE_VERITY, GET_FLAGS, SET_FLAGS, Verity};
use super::{Build, Home, Operation, Victim};
use crate::PAGE;
use crate::act::Outcome;

/// `FS_COMPR_FL`.
pub(super) const COMPRESSED: u32 = 0x4;
/// `FS_JOURNAL_DATA_FL`.
pub(super) const JOURNAL_DATA: u32 = 0x4000;
/// `FS_EXTENT_FL`.
const EXTENTS: u32 = 0x8_0000;
/// `FS_NOCOW_FL`.
pub(super) const NOCOW: u32 = 0x80_0000;
/// `FS_DAX_FL`.
const DAX: u32 = 0x200_0000;

pub(super) const OPERATIONS: &[Operation] = &[
    Operation::new("journal its data", "C05", &[Home::Ext4, Home::F2fs], |v| {
        Ok(add_flags(v.file()?, JOURNAL_DATA))
    }),
    Operation::new(
        "journal its data, then no more",
        "C05",
        &[Home::Ext4, Home::F2fs],
        |v| {
            let file = v.file()?;
            let on = add_flags(file, JOURNAL_DATA);
            Ok(on.and_then(|()| change_flags(file, |flags| flags & !JOURNAL_DATA)))
        },
    ),
    Operation::new("flag: compress", "C05", Home::DISK, |v| {
        Ok(add_flags(v.file()?, COMPRESSED))
    }),
    Operation::new("flag: no copy on write", "C05", Home::DISK, |v| {
        Ok(add_flags(v.file()?, NOCOW))
    }),
    Operation::new("flag: DAX", "C05", Home::DISK, |v| {
        Ok(add_flags(v.file()?, DAX))
    }),
    Operation::new("flag: DAX, then closed", "C05", Home::DISK, |v| {
        let file = v.open(false, OFlags::empty())?;
        Ok(add_flags(&file, DAX))
    })
    .alone(),
    Operation::new("journal its data no more", "C05", &[Home::Ext4], |v| {
        Ok(change_flags(v.file()?, |flags| flags & !JOURNAL_DATA))
    })
    .on(Build::Journalled),
    Operation::new(
        "flags of journalled data as they are",
        "C05",
        &[Home::Ext4],
        |v| Ok(change_flags(v.file()?, |flags| flags)),
    )
    .on(Build::Journalled),
    Operation::new("enable fs-verity", "C05", Home::DISK, enable_verity),
];

fn change_flags(file: &impl AsFd, change: impl Fn(u32) -> u32) -> Outcome {
    let mut flags = [0; 2];
    GET_FLAGS.ask(file, &mut flags)?;
    SET_FLAGS.ask(file, &mut [change(flags[0]), 0])
}

/// `FS_IOC_SETFLAGS` of these flags besides those that are set.
pub(super) fn add_flags(file: &impl AsFd, flags: u32) -> Outcome {
    change_flags(file, |old| old | flags)
}

/// `FS_IOC_SETFLAGS` without `FS_EXTENT_FL`.
pub(super) fn drop_extents(file: &impl AsFd) -> Outcome {
    change_flags(file, |flags| flags & !EXTENTS)
}

/// `FS_IOC_ENABLE_VERITY` wants a descriptor for reading, and nobody writing.
fn enable_verity(victim: &mut Victim<'_>) -> Result<Outcome> {
    victim.close();
    victim.reopen()?;
    let mut verity = Verity {
        version: 1,
        hash_algorithm: 1,
        block_size: u32::try_from(PAGE)?,
        none: [0; 29],
    };
    Ok(ENABLE_VERITY.ask(victim.file()?, &mut verity))
}
