//! What only btrfs has (C05).

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, ensure};
use rustix::fs::XattrFlags;

use super::devices::{LoopDevice, backed_by};
use super::requests::{
    ADD_DEVICE, BALANCE, BTRFS_DEFRAG, Balance, CREATE_SNAPSHOT, CREATE_SUBVOLUME,
    DESTROY_SUBVOLUME, DefragRange, REMOVE_DEVICE, REPLACE_DEVICE, RESIZE, ReplaceDevice,
    SUBVOLUME_FLAGS, Volume, encoded_write,
};
use super::victim::{NEXT, create};
use super::zlib::zlib_of;
use super::{Build, Home, Operation, Victim};
use crate::act::Outcome;

const BTRFS: &[Home] = &[Home::Btrfs];

/// `BTRFS_SUBVOL_RDONLY`.
const READ_ONLY: u64 = 2;
/// `BTRFS_DEFRAG_RANGE_COMPRESS`.
const COMPRESS: u64 = 1;
/// `BTRFS_DEFRAG_RANGE_START_IO`.
const START_IO: u64 = 2;
/// `BTRFS_BALANCE_DATA`, `_SYSTEM`, `_METADATA`, `_FORCE`.
const BALANCE_ALL: u64 = 0xf;

pub(super) const OPERATIONS: &[Operation] = &[
    Operation::new("btrfs ENCODED_WRITE", "C05", BTRFS, encode),
    Operation::new("btrfs defragment", "C05", BTRFS, |v| {
        defragment(v, START_IO)
    }),
    Operation::new("btrfs defragment and compress", "C05", BTRFS, |v| {
        defragment(v, START_IO | COMPRESS)
    }),
    Operation::new("btrfs property compression", "C05", BTRFS, |v| {
        let (name, value) = ("btrfs.compression", b"zlib");
        let flags = XattrFlags::empty();
        Ok(rustix::fs::fsetxattr(v.file()?, name, value, flags))
    }),
    Operation::new("btrfs snapshot", "C04", BTRFS, |v| {
        snapshot(v, "snapshot-1")
    })
    .on(Build::Subvolume),
    Operation::new("btrfs snapshot, then a write", "C04", BTRFS, |v| {
        let taken = snapshot(v, "snapshot-2")?;
        if taken.is_ok() {
            let bytes = vec![b'w'; usize::try_from(v.pinned_len())?];
            rustix::io::pwrite(v.file()?, &bytes, v.pinned.start)?;
            v.file()?.sync_all()?;
        }
        Ok(taken)
    })
    .on(Build::Subvolume),
    Operation::new("btrfs subvolume read-only", "C05", BTRFS, |v| {
        let subvolume = subvolume(v)?;
        let answer = SUBVOLUME_FLAGS.ask(&subvolume, &mut { READ_ONLY });
        SUBVOLUME_FLAGS
            .ask(&subvolume, &mut 0)
            .context("take it back")?;
        Ok(answer)
    })
    .on(Build::Subvolume),
    Operation::new("btrfs subvolume delete", "C05", BTRFS, delete).on(Build::Subvolume),
    Operation::new(
        "btrfs subvolume delete, only the pin left",
        "C05",
        BTRFS,
        delete,
    )
    .on(Build::Subvolume)
    .alone(),
    Operation::new("btrfs balance", "C05", BTRFS, |v| {
        let mut balance = Balance {
            flags: BALANCE_ALL,
            rest: [0; 127],
        };
        Ok(BALANCE.ask(&mounted(v)?, &mut balance))
    }),
    Operation::new("btrfs resize, shrinking", "C05", BTRFS, |v| {
        let mounted = mounted(v)?;
        let answer = resize(&mounted, "-32m")?;
        if answer == Err(rustix::io::Errno::TXTBSY) {
            shrinks_in_no_spelling(&mounted)?;
        }
        resize(&mounted, "max")?.context("make it as large as before")?;
        Ok(answer)
    }),
    Operation::new("btrfs device remove", "C05", BTRFS, remove_device),
    Operation::new("btrfs device replace", "C05", BTRFS, replace_device),
];

/// What is beside the file: its file system, or another subvolume.
pub(super) const BESIDE: &[Operation] = &[
    Operation::unclaimed("btrfs write to its namesake", BTRFS, |v| {
        let other = beside(v)?;
        let namesake = create(&other.join("namesake"))?;
        let numbers = (namesake.metadata()?.ino(), v.file()?.metadata()?.ino());
        ensure!(numbers.0 == numbers.1, "no namesake: {numbers:?}");
        Ok(rustix::io::pwrite(&namesake, b"beside", 0).map(drop))
    }),
    Operation::unclaimed("btrfs snapshot of another subvolume", BTRFS, |v| {
        let other = beside(v)?;
        snapshot_of(
            v,
            &File::open(&other)?,
            &format!("{}-snapshot", name_of(&other)?),
        )
    }),
    Operation::unclaimed("btrfs delete of another subvolume", BTRFS, |v| {
        let other = beside(v)?;
        let mut name = volume(&name_of(&other)?)?;
        Ok(DESTROY_SUBVOLUME.ask(&mounted(v)?, &mut name))
    }),
    Operation::unclaimed("btrfs resize, growing", BTRFS, |v| {
        resize(&mounted(v)?, "max")
    }),
];

fn beside(victim: &Victim<'_>) -> Result<PathBuf> {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    create_subvolume(victim.ground.dir()?, &format!("beside-{number}"))
}

fn name_of(path: &Path) -> Result<String> {
    let name = path.file_name().context("no name")?;
    Ok(name.to_string_lossy().into_owned())
}

/// Resizes the only device; its number is 1 until it has been removed and added again.
fn resize(mounted: &File, size: &str) -> Result<Outcome> {
    for number in 1..10 {
        let answer = RESIZE.ask(mounted, &mut volume(&format!("{number}:{size}"))?);
        if answer != Err(rustix::io::Errno::NODEV) {
            return Ok(answer);
        }
    }
    anyhow::bail!("no device has a number below 10")
}

/// A shrink that looks like growing: by the device's number, or by what is left behind the end of the text.
fn shrinks_in_no_spelling(mounted: &File) -> Result<()> {
    for spelling in [format!("+{:040}:-32m", 1), "-32m\0:+32m".to_owned()] {
        // The device may have another number by now: ENODEV of a swap file.
        let answer = RESIZE.ask(mounted, &mut volume(&spelling)?);
        ensure!(answer.is_err(), "{spelling:?} shrinks");
    }
    Ok(())
}

fn mounted(victim: &Victim<'_>) -> Result<File> {
    Ok(File::open(victim.ground.dir()?)?)
}

fn subvolume(victim: &Victim<'_>) -> Result<File> {
    Ok(File::open(subvolume_path(victim)?)?)
}

fn subvolume_path<'a>(victim: &'a Victim<'_>) -> Result<&'a Path> {
    victim.path.parent().context("the victim has no directory")
}

fn volume<const HEAD: usize, const NAME: usize>(name: &str) -> Result<Volume<HEAD, NAME>> {
    let mut volume = Volume {
        head: [0; HEAD],
        name: [0; NAME],
    };
    let room = volume.name.get_mut(..name.len()).context("a long name")?;
    room.copy_from_slice(name.as_bytes());
    Ok(volume)
}

/// `BTRFS_IOC_SUBVOL_CREATE`.
pub(super) fn create_subvolume(dir: &Path, name: &str) -> Result<PathBuf> {
    CREATE_SUBVOLUME.ask(&File::open(dir)?, &mut volume(name)?)?;
    Ok(dir.join(name))
}

fn encode(victim: &mut Victim<'_>) -> Result<Outcome> {
    let len = victim.pinned_len();
    let zlib = zlib_of(b'e', usize::try_from(len)?)?;
    let offset = i64::try_from(victim.pinned.start)?;
    Ok(encoded_write(victim.file()?, offset, len, &zlib))
}

fn defragment(victim: &Victim<'_>, flags: u64) -> Result<Outcome> {
    let mut range = DefragRange {
        len: u64::MAX,
        flags,
        extent_thresh: u32::MAX,
        compress_type: u32::from(flags & COMPRESS != 0),
        ..DefragRange::default()
    };
    Ok(BTRFS_DEFRAG.ask(victim.file()?, &mut range))
}

fn snapshot(victim: &Victim<'_>, name: &str) -> Result<Outcome> {
    let name = format!("{name}-of-{}", name_of(&victim.path)?);
    snapshot_of(victim, &subvolume(victim)?, &name)
}

fn snapshot_of(victim: &Victim<'_>, subvolume: &File, name: &str) -> Result<Outcome> {
    let mut snapshot = volume(name)?;
    snapshot.head[0] = u64::try_from(subvolume.as_raw_fd())?;
    Ok(CREATE_SNAPSHOT.ask(&mounted(victim)?, &mut snapshot))
}

fn delete(victim: &mut Victim<'_>) -> Result<Outcome> {
    let path = subvolume_path(victim)?;
    let name = path.file_name().context("a subvolume without a name")?;
    let mut subvolume = volume(&name.to_string_lossy())?;
    Ok(DESTROY_SUBVOLUME.ask(&mounted(victim)?, &mut subvolume))
}

/// A second device of the same size is added, and the first removed: everything moves over, and then back.
fn remove_device(victim: &mut Victim<'_>) -> Result<Outcome> {
    let mounted = mounted(victim)?;
    let second = second_device(victim)?;
    ADD_DEVICE.ask(&mounted, &mut volume(second.name()?)?)?;
    let image = victim.ground.image()?;
    let answer = REMOVE_DEVICE.ask(&mounted, &mut volume(&backed_by(image)?)?);
    if answer == Err(rustix::io::Errno::TXTBSY) {
        // A held file keeps every device; a swap file its own.
        return match REMOVE_DEVICE.ask(&mounted, &mut volume(second.name()?)?) {
            Err(rustix::io::Errno::TXTBSY) => {
                victim.ground.keep(second);
                Ok(answer)
            }
            other => Ok(other.and(answer)),
        };
    }
    let first = match answer {
        // The kernel let go of the loop device along with the file system.
        Ok(()) => Some(LoopDevice::over(&open_both_ways(image)?, false)??),
        Err(_) => None,
    };
    if let Some(first) = &first {
        ADD_DEVICE.ask(&mounted, &mut volume(first.name()?)?)?;
    }
    REMOVE_DEVICE.ask(&mounted, &mut volume(second.name()?)?)?;
    Ok(answer)
}

/// The device is replaced by another one, and that by the first.
fn replace_device(victim: &mut Victim<'_>) -> Result<Outcome> {
    let mounted = mounted(victim)?;
    let second = second_device(victim)?;
    let image = victim.ground.image()?;
    let answer = replace(&mounted, &backed_by(image)?, second.name()?)?;
    if answer.is_ok() {
        let first = LoopDevice::over(&open_both_ways(image)?, false)??;
        replace(&mounted, second.name()?, first.name()?)?.context("replace it back")?;
    }
    Ok(answer)
}

fn second_device(victim: &Victim<'_>) -> Result<LoopDevice> {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = victim.ground.store()?.join(format!("second-{number}"));
    let file = File::create(&path)?;
    file.set_len(victim.ground.image()?.metadata()?.len())?;
    let device = LoopDevice::over(&open_both_ways(&path)?, false)??;
    // Its room goes with the device.
    std::fs::remove_file(&path)?;
    Ok(device)
}

/// Takes a device out that could not be taken out before.
pub(super) fn give_back(dir: &Path, device: &LoopDevice) -> Result<()> {
    let removed = REMOVE_DEVICE.ask(&File::open(dir)?, &mut volume(device.name()?)?);
    removed.with_context(|| format!("cannot remove {}", device.name().unwrap_or_default()))
}

fn open_both_ways(path: &Path) -> Result<File> {
    Ok(File::options().read(true).write(true).open(path)?)
}

fn replace(mounted: &impl AsFd, from: &str, to: &str) -> Result<Outcome> {
    let mut names = [[0; 1025]; 2];
    for (room, name) in names.iter_mut().zip([from, to]) {
        let room = room.get_mut(..name.len()).context("a long name")?;
        room.copy_from_slice(name.as_bytes());
    }
    let [from_name, to_name] = names;
    let mut replace = ReplaceDevice {
        command: 0,
        result: 0,
        from: 0,
        reading_mode: 0,
        from_name,
        to_name,
        rest: [0; 518],
    };
    let answer = REPLACE_DEVICE.ask(mounted, &mut replace);
    ensure!(
        answer.is_err() || replace.result == 0,
        "replace answered {}",
        replace.result
    );
    Ok(answer)
}
