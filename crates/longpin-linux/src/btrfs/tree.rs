//! `BTRFS_IOC_TREE_SEARCH_V2`: items of btrfs's trees, a buffer full at a time.

use std::fs::File;
use std::os::fd::AsRawFd;

use super::{BtrfsError, last_error};

/// `_IOWR(0x94, 17, struct btrfs_ioctl_search_args_v2)`.
const TREE_SEARCH_V2: libc::c_ulong = 0xc070_9411;
/// Bytes for the answers of one search.
const ROOM: usize = 16 << 10;

/// `struct btrfs_ioctl_search_args_v2`, with room for what is found.
#[repr(C)]
struct Search {
    tree: u64,
    objectid: [u64; 2],
    offset: [u64; 2],
    transid: [u64; 2],
    kind: [u32; 2],
    items: u32,
    unused: u32,
    unused64: [u64; 4],
    size: u64,
    found: [u8; ROOM],
}

const _: () = assert!(size_of::<Search>() == 112 + ROOM);

/// Items of one kind of one object.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// Whose tree; 0: that of the file's subvolume.
    pub(super) tree: u64,
    /// `objectid`.
    pub(super) object: u64,
    /// `type`.
    pub(super) kind: u32,
    /// First `offset`.
    pub(super) from: u64,
}

/// One buffer full of items, in the order of their offsets; `take` gets each one's offset and bytes, and says `None` of
/// what it cannot read. Linux 3.16, CAP_SYS_ADMIN.
pub(super) fn search(
    file: &File,
    wanted: &Wanted,
    take: &mut dyn FnMut(u64, &[u8]) -> Option<()>,
) -> Result<(), BtrfsError> {
    let mut search = Box::new(Search {
        tree: wanted.tree,
        objectid: [wanted.object; 2],
        offset: [wanted.from, u64::MAX],
        transid: [0, u64::MAX],
        kind: [wanted.kind; 2],
        items: u32::MAX,
        unused: 0,
        unused64: [0; 4],
        size: ROOM as u64,
        found: [0; ROOM],
    });
    let pointer = std::ptr::from_mut(&mut *search);
    // SAFETY: a whole argument; `size` says how much room follows its head.
    let answer = unsafe { libc::ioctl(file.as_raw_fd(), TREE_SEARCH_V2, pointer) };
    if answer != 0 {
        return Err(last_error("BTRFS_IOC_TREE_SEARCH_V2"));
    }
    let mut rest = &search.found[..];
    for _ in 0..search.items {
        // `struct btrfs_ioctl_search_header`: transid, objectid, offset, type, len.
        let malformed = BtrfsError::Malformed { at: wanted.from };
        let Some((at, len)) = number(rest, 16).zip(half(rest, 28)) else {
            return Err(malformed);
        };
        let item = rest.get(32..32 + len as usize).ok_or(malformed)?;
        take(at, item).ok_or(BtrfsError::Malformed { at })?;
        rest = &rest[32 + len as usize..];
    }
    Ok(())
}

pub(super) fn number(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + 8)?.try_into().ok()?;
    Some(u64::from_le_bytes(bytes))
}

fn half(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_le_bytes(bytes))
}
