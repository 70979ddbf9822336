//! Which block devices a btrfs lies on: as the kernel has opened them, whatever the device files of these names are now.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use super::tree::number;
use super::{BtrfsError, fs_info, sysfs};
use crate::file::block_device_path;
use crate::pseudo;

/// Where a device's own super block lies on it.
const SUPER_BLOCK: u64 = 64 << 10;
/// Bytes of it that are of interest.
const HEAD: usize = 0xd1;

/// Major and minor numbers of the file system's devices, by its own numbers for them. Where it has one device, no device
/// file is opened; else the devices themselves say which they are. Linux 3.14.
///
/// # Errors
///
/// [`BtrfsError`].
pub fn devices(file: &File) -> Result<BTreeMap<u64, (u32, u32)>, BtrfsError> {
    let info = fs_info(file)?;
    let found = list(&sysfs(file)?.join("devices")).map_err(other("listing btrfs's devices"))?;
    let (last, count) = (info[0], info[1]);
    match found.as_slice() {
        // Its number is the largest one.
        [only] if count == 1 => Ok(BTreeMap::from([(last, *only)])),
        all => all
            .iter()
            .map(|&device| Ok((read_number(device)?, device)))
            .collect::<io::Result<_>>()
            .map_err(other("asking a device which of btrfs's it is")),
    }
}

/// btrfs's own numbers of devices that it only reads: seeds, from which others have grown. What is written to a file there goes
/// to another device. Linux 5.6.
///
/// # Errors
///
/// [`BtrfsError`].
pub fn read_only_devices(file: &File) -> Result<BTreeSet<u64>, BtrfsError> {
    let what = "asking which of btrfs's devices are only read";
    list_read_only(&sysfs(file)?.join("devinfo")).map_err(other(what))
}

/// `devinfo` in sysfs: a directory for each device.
fn list_read_only(dir: &Path) -> io::Result<BTreeSet<u64>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if pseudo::must_read(entry.path().join("writeable"))?.trim() != "0" {
            continue;
        }
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.parse().ok());
        found.insert(number.ok_or_else(|| io::Error::other(format!("no number: {name:?}")))?);
    }
    Ok(found)
}

fn other(what: &'static str) -> impl FnOnce(io::Error) -> BtrfsError {
    move |source| BtrfsError::Other { what, source }
}

/// `devices` in sysfs: links to block devices.
fn list(dir: &Path) -> io::Result<Vec<(u32, u32)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let text = pseudo::must_read(entry?.path().join("dev"))?;
        let numbers = text
            .trim()
            .split_once(':')
            .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        found.push(numbers.ok_or_else(|| io::Error::other(format!("no device: {text}")))?);
    }
    Ok(found)
}

/// `dev_item.devid` of the super block on this very device.
fn read_number(device: (u32, u32)) -> io::Result<u64> {
    let path = block_device_path(device);
    let opened = File::open(&path)?;
    let own = opened.metadata()?.rdev();
    if (rustix::fs::major(own), rustix::fs::minor(own)) != device {
        let (major, minor) = device;
        let text = format!("{} is another device than {major}:{minor}", path.display());
        return Err(io::Error::other(text));
    }
    let mut head = [0; HEAD];
    opened.read_exact_at(&mut head, SUPER_BLOCK)?;
    parse(&head).ok_or_else(|| io::Error::other(format!("no btrfs on {}", path.display())))
}

/// `struct btrfs_super_block`.
fn parse(head: &[u8]) -> Option<u64> {
    (head.get(0x40..0x48)? == b"_BHRfS_M").then_some(())?;
    number(head, 0xc9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_says_which_it_is() {
        let mut head = vec![0; HEAD];
        head[0xc9] = 2;
        assert_eq!(parse(&head), None);
        head[0x40..0x48].copy_from_slice(b"_BHRfS_M");
        assert_eq!(parse(&head), Some(2));
    }
}
