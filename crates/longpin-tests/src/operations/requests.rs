//! The ioctls that the operations need, by number and structure.
//!
//! The door to `ioctl(2)`: nobody outside this file can pair a number with a structure.
#![allow(
    unsafe_code,
    reason = "ioctl(2), which no crate offers for these requests"
)]

use std::ffi::{c_int, c_long, c_ulong};
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

use crate::act::Outcome;

mod keys;
#[cfg(test)]
mod numbers;

pub(super) use keys::{
    ADD_KEY, AddKey, KeyPolicy, KeySpecifier, REMOVE_KEY, RemoveKey, SET_KEY_POLICY,
};

const NONE: u32 = 0;
const WRITE: u32 = 1;
const READ: u32 = 2;

const fn number(direction: u32, magic: u8, nr: u8, size: usize) -> c_ulong {
    let size = size as c_ulong;
    assert!(size < 1 << 14, "the kernel has 14 bits for the size");
    (direction as c_ulong) << 30 | size << 16 | (magic as c_ulong) << 8 | nr as c_ulong
}

/// A request whose argument points to a `T`, which the kernel reads, writes, or both.
///
/// Only constants of this file: each names the structure that the kernel takes for that number, made of integers that
/// may have any value, none of them an address.
pub(super) struct Request<T> {
    number: c_ulong,
    argument: PhantomData<fn(T)>,
}

impl<T> Request<T> {
    /// `_IOR`, `_IOW`, `_IOWR` (linux/ioctl.h).
    const fn new(direction: u32, magic: u8, nr: u8) -> Self {
        Self {
            number: number(direction, magic, nr, size_of::<T>()),
            argument: PhantomData,
        }
    }

    /// `ioctl(fd, number, &argument)`.
    pub(super) fn ask(&self, fd: &impl AsFd, argument: &mut T) -> Outcome {
        let fd = fd.as_fd().as_raw_fd();
        let argument: *mut T = argument;
        // SAFETY: the constants of this file pair each number with the structure that the kernel takes for it; the
        // structure is ours, alive, and valid whatever the kernel writes into it.
        outcome(unsafe { libc::ioctl(fd, self.number, argument) }).map(drop)
    }
}

/// A request whose argument is a number, or nothing (then any number will do).
pub(super) struct Command(c_ulong);

impl Command {
    const fn new(magic: u8, nr: u8) -> Self {
        Self(number(NONE, magic, nr, 0))
    }

    /// `ioctl(fd, number, argument)`: what it returned.
    pub(super) fn ask(&self, fd: &impl AsFd, argument: c_int) -> Result<c_int, Errno> {
        let argument = c_long::from(argument);
        // SAFETY: the constants of this file are requests that take their argument as a number.
        outcome(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), self.0, argument) })
    }
}

fn outcome(answer: c_int) -> Result<c_int, Errno> {
    match answer {
        0.. => Ok(answer),
        _ => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}

// linux/fs.h, linux/fsverity.h, linux/falloc.h

/// `struct file_clone_range`.
#[repr(C)]
pub(super) struct CloneRange {
    pub(super) from: i64,
    pub(super) from_offset: u64,
    pub(super) len: u64,
    pub(super) to_offset: u64,
}
/// `FICLONERANGE`.
pub(super) const CLONE_RANGE: Request<CloneRange> = Request::new(WRITE, 0x94, 13);

/// `struct file_dedupe_range` with one destination.
#[repr(C)]
#[derive(Default)]
pub(super) struct Dedupe {
    pub(super) from_offset: u64,
    pub(super) len: u64,
    pub(super) count: u16,
    pub(super) reserved: [u16; 3],
    pub(super) to: i64,
    pub(super) to_offset: u64,
    pub(super) deduped: u64,
    pub(super) status: i32,
    pub(super) reserved_too: u32,
}
/// `FIDEDUPERANGE`; its number counts the head alone.
pub(super) const DEDUPE: Request<Dedupe> = Request {
    number: number(READ | WRITE, 0x94, 54, 24),
    argument: PhantomData,
};

/// `FS_IOC_GETFLAGS` and `FS_IOC_SETFLAGS`: the numbers say long, the kernel takes an int.
pub(super) const GET_FLAGS: Request<[u32; 2]> = Request::new(READ, b'f', 1);
/// See [`GET_FLAGS`].
pub(super) const SET_FLAGS: Request<[u32; 2]> = Request::new(WRITE, b'f', 2);

/// `FS_IOC_FSGETXATTR` and `FS_IOC_FSSETXATTR`, of `struct fsxattr`: the fourth number is the project.
pub(super) const GET_XFLAGS: Request<[u32; 7]> = Request::new(READ, b'X', 31);
/// See [`GET_XFLAGS`].
pub(super) const SET_XFLAGS: Request<[u32; 7]> = Request::new(WRITE, b'X', 32);

/// `struct fsverity_enable_arg` without salt and signature.
#[repr(C)]
pub(super) struct Verity {
    pub(super) version: u32,
    pub(super) hash_algorithm: u32,
    pub(super) block_size: u32,
    pub(super) none: [u32; 29],
}
/// `FS_IOC_ENABLE_VERITY`.
pub(super) const ENABLE_VERITY: Request<Verity> = Request::new(WRITE, b'f', 133);

/// `struct space_resv`, of old `struct xfs_flock64`.
#[repr(C)]
#[derive(Default)]
pub(super) struct Space {
    pub(super) kind: i16,
    pub(super) whence: i16,
    pub(super) start: i64,
    pub(super) len: i64,
    pub(super) sysid: i32,
    pub(super) pid: u32,
    pub(super) pad: [i32; 4],
}
/// `XFS_IOC_ALLOCSP64`.
pub(super) const ALLOCSP64: Request<Space> = Request::new(WRITE, b'X', 36);
/// `XFS_IOC_FREESP64`.
pub(super) const FREESP64: Request<Space> = Request::new(WRITE, b'X', 37);
/// `FS_IOC_RESVSP64`.
pub(super) const RESVSP64: Request<Space> = Request::new(WRITE, b'X', 42);
/// `FS_IOC_UNRESVSP64`.
pub(super) const UNRESVSP64: Request<Space> = Request::new(WRITE, b'X', 43);
/// `FS_IOC_ZERO_RANGE`.
pub(super) const ZERO_RANGE: Request<Space> = Request::new(WRITE, b'X', 57);

/// `FIFREEZE`.
pub(super) const FREEZE: Request<i32> = Request::new(READ | WRITE, b'X', 119);
/// `FITHAW`.
pub(super) const THAW: Request<i32> = Request::new(READ | WRITE, b'X', 120);
/// `FIBMAP`: the number of the block, for the number of the block in the file.
pub(super) const BLOCK_OF: Request<i32> = Request {
    number: number(NONE, 0, 1, 0),
    argument: PhantomData,
};

// ext4

/// `struct move_extent`, in blocks.
#[repr(C)]
pub(super) struct MoveExtent {
    pub(super) reserved: u32,
    pub(super) donor: i32,
    pub(super) start: u64,
    pub(super) donor_start: u64,
    pub(super) len: u64,
    pub(super) moved: u64,
}
/// `EXT4_IOC_MOVE_EXT`.
pub(super) const MOVE_EXT: Request<MoveExtent> = Request::new(READ | WRITE, b'f', 15);
/// `EXT4_IOC_SETVERSION`; its number says long, the kernel takes an int.
pub(super) const EXT4_SET_VERSION: Request<u64> = Request::new(WRITE, b'f', 4);
/// `EXT4_IOC_MIGRATE`.
pub(super) const MIGRATE: Command = Command::new(b'f', 9);
/// `EXT4_IOC_ALLOC_DA_BLKS`.
pub(super) const ALLOC_DA_BLKS: Command = Command::new(b'f', 12);
/// `EXT4_IOC_SWAP_BOOT`.
pub(super) const SWAP_BOOT: Command = Command::new(b'f', 17);

// xfs

/// `struct xfs_bstime`.
#[repr(C)]
#[derive(Default)]
pub(super) struct BulkTime {
    pub(super) sec: i64,
    pub(super) nsec: i32,
}

/// `struct xfs_swapext`, of whose `struct xfs_bstat` the kernel reads the times of the target only.
#[repr(C)]
#[derive(Default)]
pub(super) struct SwapExtents {
    pub(super) version: i64,
    pub(super) target: i64,
    pub(super) donor: i64,
    pub(super) offset: i64,
    pub(super) len: i64,
    pub(super) pad: [u64; 2],
    pub(super) unread: [u64; 5],
    pub(super) atime: BulkTime,
    pub(super) mtime: BulkTime,
    pub(super) ctime: BulkTime,
    pub(super) unread_too: [u64; 6],
}
/// `XFS_IOC_SWAPEXT`.
pub(super) const SWAP_EXTENTS: Request<SwapExtents> = Request::new(READ | WRITE, b'X', 109);

/// `struct xfs_exchange_range`: `file` names one, the descriptor of the call is the other.
#[repr(C)]
#[derive(Default)]
pub(super) struct ExchangeRange {
    pub(super) file: i32,
    pub(super) pad: u32,
    pub(super) file_offset: u64,
    pub(super) own_offset: u64,
    pub(super) len: u64,
    pub(super) flags: u64,
}
/// `XFS_IOC_EXCHANGE_RANGE`.
pub(super) const EXCHANGE_RANGE: Request<ExchangeRange> = Request::new(WRITE, b'X', 129);

/// `struct xfs_commit_range`.
#[repr(C)]
#[derive(Default)]
pub(super) struct CommitRange {
    pub(super) exchange: ExchangeRange,
    pub(super) freshness: [u64; 6],
}
/// `XFS_IOC_START_COMMIT`.
pub(super) const START_COMMIT: Request<CommitRange> = Request::new(READ, b'X', 130);
/// `XFS_IOC_COMMIT_RANGE`.
pub(super) const COMMIT_RANGE: Request<CommitRange> = Request::new(WRITE, b'X', 131);

// f2fs

/// `F2FS_IOC_START_ATOMIC_WRITE`.
pub(super) const START_ATOMIC: Command = Command::new(0xf5, 1);
/// `F2FS_IOC_COMMIT_ATOMIC_WRITE`.
pub(super) const COMMIT_ATOMIC: Command = Command::new(0xf5, 2);
/// `F2FS_IOC_ABORT_ATOMIC_WRITE`.
pub(super) const ABORT_ATOMIC: Command = Command::new(0xf5, 5);
/// `F2FS_IOC_GARBAGE_COLLECT`.
pub(super) const GARBAGE_COLLECT: Request<u32> = Request::new(WRITE, 0xf5, 6);
/// `F2FS_IOC_WRITE_CHECKPOINT`.
pub(super) const WRITE_CHECKPOINT: Command = Command::new(0xf5, 7);
/// `F2FS_IOC_DEFRAGMENT`: start, len.
pub(super) const F2FS_DEFRAGMENT: Request<[u64; 2]> = Request::new(READ | WRITE, 0xf5, 8);
/// `struct f2fs_move_range`.
#[repr(C)]
pub(super) struct MoveRange {
    pub(super) to: i32,
    pub(super) pad: u32,
    pub(super) from_offset: u64,
    pub(super) to_offset: u64,
    pub(super) len: u64,
}
/// `F2FS_IOC_MOVE_RANGE`.
pub(super) const MOVE_RANGE: Request<MoveRange> = Request::new(READ | WRITE, 0xf5, 9);
/// `F2FS_IOC_GARBAGE_COLLECT_RANGE`: sync, start, len.
pub(super) const GARBAGE_COLLECT_RANGE: Request<[u64; 3]> = Request::new(WRITE, 0xf5, 11);
/// `F2FS_IOC_SET_PIN_FILE`.
pub(super) const SET_PIN_FILE: Request<u32> = Request::new(WRITE, 0xf5, 13);
/// `F2FS_IOC_RELEASE_COMPRESS_BLOCKS`.
pub(super) const RELEASE_COMPRESS_BLOCKS: Request<u64> = Request::new(READ, 0xf5, 18);
/// `F2FS_IOC_RESERVE_COMPRESS_BLOCKS`.
pub(super) const RESERVE_COMPRESS_BLOCKS: Request<u64> = Request::new(READ, 0xf5, 19);
/// `F2FS_IOC_SEC_TRIM_FILE`: start, len, flags.
pub(super) const SEC_TRIM_FILE: Request<[u64; 3]> = Request::new(WRITE, 0xf5, 20);
/// `F2FS_IOC_SET_COMPRESS_OPTION`: algorithm, logarithm of the cluster's size.
pub(super) const SET_COMPRESS_OPTION: Request<[u8; 2]> = Request::new(WRITE, 0xf5, 22);
/// `F2FS_IOC_DECOMPRESS_FILE`.
pub(super) const DECOMPRESS_FILE: Command = Command::new(0xf5, 23);
/// `F2FS_IOC_COMPRESS_FILE`.
pub(super) const COMPRESS_FILE: Command = Command::new(0xf5, 24);
/// `F2FS_IOC_START_ATOMIC_REPLACE`.
pub(super) const START_ATOMIC_REPLACE: Command = Command::new(0xf5, 25);

// btrfs

/// `struct btrfs_ioctl_vol_args` and `_v2`: in both the name ends the structure.
#[repr(C)]
pub(super) struct Volume<const HEAD: usize, const NAME: usize> {
    pub(super) head: [u64; HEAD],
    pub(super) name: [u8; NAME],
}
/// `struct btrfs_ioctl_vol_args`: the head is a descriptor.
pub(super) type VolumeArgs = Volume<1, 4088>;
/// `struct btrfs_ioctl_vol_args_v2`: the head begins with descriptor, transaction, flags.
pub(super) type VolumeArgsV2 = Volume<7, 4040>;
/// `BTRFS_IOC_RESIZE`.
pub(super) const RESIZE: Request<VolumeArgs> = Request::new(WRITE, 0x94, 3);
/// `BTRFS_IOC_ADD_DEV`.
pub(super) const ADD_DEVICE: Request<VolumeArgs> = Request::new(WRITE, 0x94, 10);
/// `BTRFS_IOC_RM_DEV`.
pub(super) const REMOVE_DEVICE: Request<VolumeArgs> = Request::new(WRITE, 0x94, 11);
/// `BTRFS_IOC_SUBVOL_CREATE`.
pub(super) const CREATE_SUBVOLUME: Request<VolumeArgs> = Request::new(WRITE, 0x94, 14);
/// `BTRFS_IOC_SNAP_DESTROY`.
pub(super) const DESTROY_SUBVOLUME: Request<VolumeArgs> = Request::new(WRITE, 0x94, 15);
/// `BTRFS_IOC_SNAP_CREATE_V2`.
pub(super) const CREATE_SNAPSHOT: Request<VolumeArgsV2> = Request::new(WRITE, 0x94, 23);
/// `BTRFS_IOC_SUBVOL_SETFLAGS`.
pub(super) const SUBVOLUME_FLAGS: Request<u64> = Request::new(WRITE, 0x94, 26);

/// `struct btrfs_ioctl_defrag_range_args`.
#[repr(C)]
#[derive(Default)]
pub(super) struct DefragRange {
    pub(super) start: u64,
    pub(super) len: u64,
    pub(super) flags: u64,
    pub(super) extent_thresh: u32,
    pub(super) compress_type: u32,
    pub(super) unused: [u32; 4],
}
/// `BTRFS_IOC_DEFRAG_RANGE`.
pub(super) const BTRFS_DEFRAG: Request<DefragRange> = Request::new(WRITE, 0x94, 16);

/// `struct btrfs_ioctl_balance_args`, of which only the flags are used.
#[repr(C)]
pub(super) struct Balance {
    pub(super) flags: u64,
    pub(super) rest: [u64; 127],
}
/// `BTRFS_IOC_BALANCE_V2`.
pub(super) const BALANCE: Request<Balance> = Request::new(READ | WRITE, 0x94, 32);

/// `struct btrfs_ioctl_dev_replace_args` to start, its union padded to the size of the largest member.
#[repr(C)]
pub(super) struct ReplaceDevice {
    pub(super) command: u64,
    pub(super) result: u64,
    pub(super) from: u64,
    pub(super) reading_mode: u64,
    pub(super) from_name: [u8; 1025],
    pub(super) to_name: [u8; 1025],
    pub(super) rest: [u8; 518],
}
/// `BTRFS_IOC_DEV_REPLACE`.
pub(super) const REPLACE_DEVICE: Request<ReplaceDevice> = Request::new(READ | WRITE, 0x94, 53);

/// `struct btrfs_ioctl_encoded_io_args`.
#[repr(C)]
struct Encoded {
    vector: *const libc::iovec,
    vectors: c_ulong,
    offset: i64,
    flags: u64,
    len: u64,
    unencoded_len: u64,
    unencoded_offset: u64,
    compression: u32,
    encryption: u32,
    reserved: [u64; 8],
}

/// `BTRFS_IOC_ENCODED_WRITE` of zlib-compressed data that decompresses to `len` bytes at `offset`.
pub(super) fn encoded_write(fd: &impl AsFd, offset: i64, len: u64, zlib: &[u8]) -> Outcome {
    let vector = libc::iovec {
        iov_base: zlib.as_ptr().cast_mut().cast(),
        iov_len: zlib.len(),
    };
    let mut encoded = Encoded {
        vector: &raw const vector,
        vectors: 1,
        offset,
        flags: 0,
        len,
        unencoded_len: len,
        unencoded_offset: 0,
        compression: 1,
        encryption: 0,
        reserved: [0; 8],
    };
    let request = number(WRITE, 0x94, 64, size_of::<Encoded>());
    // SAFETY: this request takes this structure; the vector and the bytes that it names outlive the call, and are only
    // read.
    outcome(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), request, &raw mut encoded) }).map(drop)
}

// Loop devices

/// `LOOP_CTL_GET_FREE`: the number of a device that is free.
pub(super) const LOOP_GET_FREE: Command = Command::new(0x4c, 0x82);
/// `struct loop_config`, of whose `struct loop_info64` the flags are used.
#[repr(C)]
pub(super) struct LoopConfig {
    pub(super) fd: i32,
    pub(super) block_size: u32,
    pub(super) before: [u32; 13],
    pub(super) flags: u32,
    pub(super) rest: [u64; 30],
}
/// `LOOP_CONFIGURE`; its number has no size.
pub(super) const LOOP_CONFIGURE: Request<LoopConfig> = Request {
    number: number(NONE, 0x4c, 0xa, 0),
    argument: PhantomData,
};
/// `LOOP_CLR_FD`.
pub(super) const LOOP_CLEAR_FD: Command = Command::new(0x4c, 1);
/// `BLKDISCARD`: start, len. The number has no size.
pub(super) const DISCARD: Request<[u64; 2]> = Request {
    number: number(NONE, 0x12, 119, 0),
    argument: PhantomData,
};
/// `BLKZEROOUT`: start, len. The number has no size.
pub(super) const ZERO_OUT: Request<[u64; 2]> = Request {
    number: number(NONE, 0x12, 127, 0),
    argument: PhantomData,
};

/// `sync_file_range(fd, offset, len, WAIT_BEFORE | WRITE | WAIT_AFTER)`.
pub(super) fn sync_file_range(fd: &impl AsFd, offset: i64, len: i64) -> Outcome {
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE
        | libc::SYNC_FILE_RANGE_WRITE
        | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: takes no memory.
    let answer = unsafe { libc::sync_file_range(fd.as_fd().as_raw_fd(), offset, len, flags) };
    outcome(answer).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers as the kernel's headers have them.
    #[test]
    fn numbers_are_the_kernels() {
        assert_eq!(CLONE_RANGE.number, 0x4020_940d);
        assert_eq!(DEDUPE.number, 0xc018_9436);
        assert_eq!(SET_FLAGS.number, 0x4008_6602);
        assert_eq!(SET_XFLAGS.number, 0x401c_5820);
        assert_eq!(ENABLE_VERITY.number, 0x4080_6685);
        assert_eq!(MOVE_EXT.number, 0xc028_660f);
        assert_eq!(SWAP_BOOT.0, 0x6611);
        assert_eq!(SWAP_EXTENTS.number, 0xc0c0_586d);
        assert_eq!(EXCHANGE_RANGE.number, 0x4028_5881);
        assert_eq!(COMMIT_RANGE.number, 0x4058_5883);
        assert_eq!(UNRESVSP64.number, 0x4030_582b);
        assert_eq!(MOVE_RANGE.number, 0xc020_f509);
        assert_eq!(SEC_TRIM_FILE.number, 0x4018_f514);
        assert_eq!(CREATE_SNAPSHOT.number, 0x5000_9417);
        assert_eq!(BALANCE.number, 0xc400_9420);
        assert_eq!(REPLACE_DEVICE.number, 0xca28_9435);
        assert_eq!(BTRFS_DEFRAG.number, 0x4030_9410);
        assert_eq!(size_of::<Encoded>(), 128);
        assert_eq!(size_of::<LoopConfig>(), 304);
        assert_eq!(std::mem::offset_of!(LoopConfig, flags), 60);
    }
}
