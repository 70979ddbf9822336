//! xfs: what it says of itself, and what it has allocated beforehand.
#![allow(
    unsafe_code,
    reason = "XFS_IOC_FSGEOMETRY, XFS_IOC_FREE_EOFBLOCKS and FS_IOC_GETFSMAP take raw memory"
)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// `_IOR('X', 126, struct xfs_fsop_geom)`.
const FSGEOMETRY: libc::c_ulong = 0x8100_587e;
/// `_IOWR('X', 59, struct fsmap_head)`.
const GETFSMAP: libc::c_ulong = 0xc0c0_583b;
/// `_IOR('X', 58, struct xfs_fs_eofblocks)`.
const FREE_EOFBLOCKS: libc::c_ulong = 0x8080_583a;
/// `XFS_FSOP_GEOM_FLAGS_REFLINK`.
const REFLINK: u32 = 1 << 20;
/// `XFS_FSOP_GEOM_FLAGS_ZONED`.
const ZONED: u32 = 1 << 27;
/// `XFS_EOF_FLAGS_SYNC`, `_UID`, `_GID`, `_MINFILESIZE`.
const LIKE_THIS_FILE: u32 = 1 | 1 << 1 | 1 << 2 | 1 << 4;

/// What the file system says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Files may share blocks; what is written to such blocks goes to new ones.
    pub reflink: bool,
    /// Every write of a real-time file goes to a new place.
    pub zoned: bool,
}

/// `ioctl(XFS_IOC_FSGEOMETRY)`. Linux 5.2.
///
/// # Errors
///
/// What the kernel says.
pub fn geometry(file: &File) -> io::Result<Geometry> {
    let mut found = [0_u32; 64];
    let pointer = found.as_mut_ptr();
    // SAFETY: 256 bytes, as the request's number says.
    let answer = unsafe { libc::ioctl(file.as_raw_fd(), FSGEOMETRY, pointer) };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    let flags = found[23];
    Ok(Geometry {
        reflink: flags & REFLINK != 0,
        zoned: flags & ZONED != 0,
    })
}

/// `struct fsmap`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Key {
    device: u32,
    flags: u32,
    physical: u64,
    owner: u64,
    offset: u64,
    length: u64,
    unused: [u64; 3],
}

/// `struct fsmap_head`, without room for records.
#[repr(C)]
#[derive(Default)]
struct Query {
    flags: [u32; 2],
    count: u32,
    entries: u32,
    unused: [u64; 6],
    keys: [Key; 2],
}

const _: () = assert!(size_of::<Query>() == 192);

/// `ioctl(FS_IOC_GETFSMAP)`: whether the file system lies on this block device, whatever the names of its devices lead to
/// now. Linux 4.12.
///
/// # Errors
///
/// What the kernel says.
pub fn lies_on(file: &File, (major, minor): (u32, u32)) -> io::Result<bool> {
    let device = minor & 0xff | major << 8 | (minor & !0xff) << 12;
    let key = Key {
        device,
        ..Key::default()
    };
    // A range of nothing is refused as well.
    let behind = Key {
        physical: 4096,
        ..key
    };
    let mut query = Query {
        keys: [key, behind],
        ..Query::default()
    };
    let pointer = std::ptr::from_mut(&mut query);
    // SAFETY: a whole argument that asks for no records.
    if unsafe { libc::ioctl(file.as_raw_fd(), GETFSMAP, pointer) } == 0 {
        return Ok(true);
    }
    let err = io::Error::last_os_error();
    match err.raw_os_error() {
        Some(libc::EINVAL) => Ok(false),
        _ => Err(err),
    }
}

/// `struct xfs_fs_eofblocks`.
#[repr(C)]
#[derive(Default)]
struct Blocks {
    version: u32,
    flags: u32,
    uid: u32,
    gid: u32,
    project: u32,
    unused: u32,
    min_file_size: u64,
    unused64: [u64; 12],
}

const _: () = assert!(size_of::<Blocks>() == 128);

/// `ioctl(XFS_IOC_FREE_EOFBLOCKS)`: give back the blocks that were allocated beforehand, for writes behind the end and
/// for copies of shared blocks, of this file and of others of its owner that are as large. They are in no file: data,
/// sizes and times stay as they are. The file must be written back, or its copies stay. CAP_SYS_ADMIN. Linux 3.8.
///
/// # Errors
///
/// What the kernel says.
pub fn free_preallocated(file: &File) -> io::Result<()> {
    let data = rustix::fs::fstat(file)?;
    let blocks = Blocks {
        version: 1,
        flags: LIKE_THIS_FILE,
        uid: data.st_uid,
        gid: data.st_gid,
        min_file_size: u64::try_from(data.st_size).unwrap_or(0),
        ..Blocks::default()
    };
    let pointer = std::ptr::from_ref(&blocks);
    // SAFETY: the kernel reads a whole argument of the size that the request's number says.
    let answer = unsafe { libc::ioctl(file.as_raw_fd(), FREE_EOFBLOCKS, pointer) };
    match answer {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
