//! btrfs: its chunk tree, which says on which device a logical address lies, and its devices.
#![allow(
    unsafe_code,
    reason = "BTRFS_IOC_TREE_SEARCH_V2, _FS_INFO and _SCRUB_PROGRESS fill raw memory"
)]

mod ages;
mod devices;
mod tree;

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use uuid::Uuid;

use crate::pseudo;
pub use ages::{Old, find_old};
pub use devices::{devices, read_only_devices};
use tree::{Wanted, number};

/// `_IOWR(0x94, 18, struct btrfs_ioctl_ino_lookup_args)`.
const INO_LOOKUP: libc::c_ulong = 0xd000_9412;
/// `_IOWR(0x94, 29, struct btrfs_ioctl_scrub_args)`.
const SCRUB_PROGRESS: libc::c_ulong = 0xc400_941d;
/// `_IOR(0x94, 31, struct btrfs_ioctl_fs_info_args)`.
const FS_INFO: libc::c_ulong = 0x8400_941f;
/// `BTRFS_CHUNK_TREE_OBJECTID`.
const CHUNK_TREE: u64 = 3;
/// `BTRFS_FIRST_CHUNK_TREE_OBJECTID`.
const FIRST_CHUNK: u64 = 256;
/// `BTRFS_CHUNK_ITEM_KEY`.
const CHUNK_ITEM: u32 = 228;

/// Why btrfs did not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BtrfsError {
    /// `EPERM`: reading the trees needs CAP_SYS_ADMIN.
    #[error("reading btrfs's trees needs CAP_SYS_ADMIN")]
    NoPrivilege,
    /// An item of a tree is not what it should be.
    #[error("btrfs's item {at} cannot be read")]
    Malformed {
        /// Its key's last number: an address, an offset.
        at: u64,
    },
    /// Anything else.
    #[error("{what} failed")]
    Other {
        /// The call.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// How a chunk's bytes are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Once, on one device.
    Single,
    /// Any other, by btrfs's name for it.
    Other(&'static str),
}

/// A chunk: a run of logical addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// First logical address.
    pub start: u64,
    /// Bytes.
    pub length: u64,
    /// How it is spread.
    pub profile: Profile,
    /// Device number and first physical address of its first stripe.
    pub stripe: (u64, u64),
}

/// All chunks of a file system, by address. Some 60 bytes for each, which is one for about each GiB.
#[derive(Debug, Clone, Default)]
pub struct Chunks(Vec<Chunk>);

impl Chunks {
    /// `BTRFS_IOC_TREE_SEARCH_V2` over the chunk tree. Linux 3.16, CAP_SYS_ADMIN.
    ///
    /// # Errors
    ///
    /// [`BtrfsError`].
    pub fn read(file: &File) -> Result<Self, BtrfsError> {
        let mut chunks = Vec::new();
        let mut from = 0;
        loop {
            let before = chunks.len();
            search(file, from, &mut chunks)?;
            let Some(last) = chunks.last().filter(|_| chunks.len() > before) else {
                return Ok(Self(chunks));
            };
            let last: &Chunk = last;
            let Some(next) = last.start.checked_add(1) else {
                return Ok(Self(chunks));
            };
            from = next;
        }
    }

    /// The chunk of a logical address.
    #[must_use]
    pub fn find(&self, logical: u64) -> Option<&Chunk> {
        let behind = self.0.partition_point(|chunk| chunk.start <= logical);
        let chunk = self.0.get(behind.checked_sub(1)?)?;
        (logical - chunk.start < chunk.length).then_some(chunk)
    }
}

/// One buffer full of chunks, from this address on.
fn search(file: &File, from: u64, chunks: &mut Vec<Chunk>) -> Result<(), BtrfsError> {
    let wanted = Wanted {
        tree: CHUNK_TREE,
        object: FIRST_CHUNK,
        kind: CHUNK_ITEM,
        from,
    };
    tree::search(file, &wanted, &mut |start, item| {
        chunks.push(parse_chunk(start, item)?);
        Some(())
    })
}

/// `struct btrfs_chunk` and its first stripe.
fn parse_chunk(start: u64, item: &[u8]) -> Option<Chunk> {
    Some(Chunk {
        start,
        length: number(item, 0)?,
        profile: profile_of(number(item, 24)?),
        stripe: (number(item, 48)?, number(item, 56)?),
    })
}

/// `BTRFS_BLOCK_GROUP_PROFILE_MASK`, and whatever comes after it: single has none of these bits.
fn profile_of(kind: u64) -> Profile {
    const NAMES: [(u64, &str, &str); 8] = [
        (1 << 3, "raid0", "mixed raid0"),
        (1 << 4, "raid1", "mixed raid1"),
        (1 << 5, "dup", "mixed dup"),
        (1 << 6, "raid10", "mixed raid10"),
        (1 << 7, "raid5", "mixed raid5"),
        (1 << 8, "raid6", "mixed raid6"),
        (1 << 9, "raid1c3", "mixed raid1c3"),
        (1 << 10, "raid1c4", "mixed raid1c4"),
    ];
    const DATA_AND_METADATA: u64 = 0b101;
    // DATA, SYSTEM, METADATA.
    if kind & !0b111 == 0 {
        return Profile::Single;
    }
    let name = NAMES.iter().find(|(bit, ..)| kind & bit != 0);
    let is_mixed = kind & DATA_AND_METADATA == DATA_AND_METADATA;
    Profile::Other(name.map_or(
        "unknown",
        |(_, data, mixed)| {
            if is_mixed { mixed } else { data }
        },
    ))
}

/// `struct btrfs_ioctl_ino_lookup_args`.
#[repr(C)]
struct InoLookup {
    tree: u64,
    objectid: u64,
    name: [u8; 4080],
}

/// `BTRFS_IOC_INO_LOOKUP`: the number of the subvolume that a file is in. Linux 2.6.34.
///
/// # Errors
///
/// [`BtrfsError`].
pub fn subvolume(file: &File) -> Result<u64, BtrfsError> {
    let mut lookup = Box::new(InoLookup {
        tree: 0,
        // The root directory, of which everybody may ask.
        objectid: 256,
        name: [0; 4080],
    });
    let pointer = std::ptr::from_mut(&mut *lookup);
    // SAFETY: a whole argument of the size that the request's number says.
    let answer = unsafe { libc::ioctl(file.as_raw_fd(), INO_LOOKUP, pointer) };
    if answer != 0 {
        return Err(last_error("BTRFS_IOC_INO_LOOKUP"));
    }
    Ok(lookup.tree)
}

/// `exclusive_operation` in sysfs: what keeps the file system's chunks moving
/// now, for example `balance`; `None` when nothing does. Linux 5.10.
///
/// # Errors
///
/// [`BtrfsError`].
pub fn exclusive_operation(file: &File) -> Result<Option<String>, BtrfsError> {
    let path = sysfs(file)?.join("exclusive_operation");
    let text = pseudo::must_read(path).map_err(|source| BtrfsError::Other {
        what: "reading exclusive_operation",
        source,
    })?;
    let text = text.trim();
    Ok((text != "none").then(|| text.to_owned()))
}

/// `BTRFS_IOC_SCRUB_PROGRESS`: a scrub reads one of the devices now. While it reads a chunk, writes to that go to new
/// places, and swapon(2) of a file in it answers EINVAL. CAP_SYS_ADMIN. Linux 3.0.
///
/// # Errors
///
/// [`BtrfsError`].
pub fn is_scrubbed(file: &File) -> Result<bool, BtrfsError> {
    for number in 1..=fs_info(file)?[0] {
        let mut progress = Box::new([0_u64; 128]);
        progress[0] = number;
        let pointer = std::ptr::from_mut(&mut *progress);
        // SAFETY: a whole argument of the size that the request's number says.
        if unsafe { libc::ioctl(file.as_raw_fd(), SCRUB_PROGRESS, pointer) } == 0 {
            return Ok(true);
        }
        let err = io::Error::last_os_error();
        // No scrub there; no such device.
        if !matches!(err.raw_os_error(), Some(libc::ENOTCONN | libc::ENODEV)) {
            return Err(named("BTRFS_IOC_SCRUB_PROGRESS", err));
        }
    }
    Ok(false)
}

/// What makes the file system move data by itself, by its name in sysfs; `None` when nothing does, or this kernel
/// has no such thing. Linux 5.19, 6.11.
///
/// # Errors
///
/// [`BtrfsError`].
pub fn background_mover(file: &File) -> Result<Option<String>, BtrfsError> {
    let spaces = sysfs(file)?.join("allocation");
    for space in ["data", "mixed"] {
        for name in [
            "bg_reclaim_threshold",
            "dynamic_reclaim",
            "periodic_reclaim",
        ] {
            let setting = read_setting(&spaces.join(space).join(name))?;
            if let Some(text) = setting.filter(|text| text != "0") {
                return Ok(Some(format!("allocation/{space}/{name} is {text}")));
            }
        }
    }
    Ok(None)
}

/// A file of sysfs; `None` where this kernel has no such file. What cannot be read may be anything.
fn read_setting(path: &Path) -> Result<Option<String>, BtrfsError> {
    let text = pseudo::read_text(path).map_err(|source| BtrfsError::Other {
        what: "reading the settings of reclaim",
        source,
    })?;
    Ok(text.map(|text| text.trim().to_owned()))
}

/// The file system's directory in sysfs.
fn sysfs(file: &File) -> Result<PathBuf, BtrfsError> {
    let info = fs_info(file)?;
    let mut id = [0; 16];
    let halves = id.chunks_mut(8).zip(&info[2..4]);
    halves.for_each(|(bytes, half)| bytes.copy_from_slice(&half.to_ne_bytes()));
    Ok(Path::new("/sys/fs/btrfs").join(Uuid::from_bytes(id).to_string()))
}

/// `BTRFS_IOC_FS_INFO`: the largest number of a device, how many there are, the UUID.
fn fs_info(file: &File) -> Result<Box<[u64; 128]>, BtrfsError> {
    let mut info = Box::new([0_u64; 128]);
    let pointer = std::ptr::from_mut(&mut *info);
    // SAFETY: a whole argument of the size that the request's number says.
    let answer = unsafe { libc::ioctl(file.as_raw_fd(), FS_INFO, pointer) };
    if answer != 0 {
        return Err(last_error("BTRFS_IOC_FS_INFO"));
    }
    Ok(info)
}

fn last_error(what: &'static str) -> BtrfsError {
    named(what, io::Error::last_os_error())
}

fn named(what: &'static str, source: io::Error) -> BtrfsError {
    match Errno::from_io_error(&source) {
        Some(Errno::PERM) => BtrfsError::NoPrivilege,
        _ => BtrfsError::Other { what, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(start: u64, length: u64) -> Chunk {
        Chunk {
            start,
            length,
            profile: Profile::Single,
            stripe: (1, start + 1000),
        }
    }

    #[test]
    fn an_address_belongs_to_the_chunk_around_it() {
        let chunks = Chunks(vec![chunk(100, 10), chunk(200, 20)]);
        let start = |at| chunks.find(at).map(|chunk| chunk.start);
        assert_eq!(start(99), None);
        assert_eq!(start(100), Some(100));
        assert_eq!(start(109), Some(100));
        assert_eq!(start(110), None);
        assert_eq!(start(219), Some(200));
        assert_eq!(start(220), None);
    }

    #[test]
    fn profiles_are_told_apart() {
        assert_eq!(profile_of(1), Profile::Single);
        assert_eq!(profile_of(1 | 1 << 5), Profile::Other("dup"));
        assert_eq!(profile_of(5 | 1 << 5), Profile::Other("mixed dup"));
        assert_eq!(profile_of(1 | 1 << 40), Profile::Other("unknown"));
    }

    #[test]
    fn a_chunk_item_is_read_where_the_kernel_writes_it() {
        let mut item = vec![0; 80];
        item[0..8].copy_from_slice(&(1_u64 << 30).to_le_bytes());
        item[24..32].copy_from_slice(&1_u64.to_le_bytes());
        item[48..56].copy_from_slice(&2_u64.to_le_bytes());
        item[56..64].copy_from_slice(&4096_u64.to_le_bytes());
        let found = parse_chunk(7, &item).unwrap();
        assert_eq!((found.start, found.length), (7, 1 << 30));
        assert_eq!(found.stripe, (2, 4096));
        assert_eq!(parse_chunk(7, &item[..50]), None);
    }

    #[test]
    fn only_a_missing_setting_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let setting = dir.path().join("setting");
        assert_eq!(read_setting(&setting).unwrap(), None);
        std::fs::write(&setting, "30\n").unwrap();
        assert_eq!(read_setting(&setting).unwrap().as_deref(), Some("30"));
        read_setting(dir.path()).unwrap_err();
        read_setting(&setting.join("below")).unwrap_err();
        std::fs::write(&setting, "").unwrap();
        read_setting(&setting).unwrap_err();
    }
}
