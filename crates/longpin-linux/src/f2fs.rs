//! f2fs: pinned files, and what its super block says of sections and devices.
#![allow(unsafe_code, reason = "F2FS_IOC_SET_PIN_FILE takes raw memory")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use rustix::fs::IFlags;
use rustix::io::Errno;

/// `_IOW(0xf5, 13, __u32)`.
const SET_PIN_FILE: libc::c_ulong = 0x4004_f50d;
/// `F2FS_SUPER_MAGIC`.
const MAGIC: u32 = 0xf2f5_2010;
/// Where the super block lies on the device.
const SUPER_BLOCK: u64 = 1024;
/// Bytes of the super block that are of interest, up to the first device's name.
const HEAD: usize = 2202;

/// Why a file could not be pinned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PinError {
    /// `EINVAL`, `EFBIG`: the file has blocks already, or the file system is in a mode that pins nothing.
    #[error("f2fs pins only files that have no blocks yet")]
    NotEmpty,
    /// Anything else.
    #[error("F2FS_IOC_SET_PIN_FILE failed")]
    Other(#[source] io::Error),
}

/// Does the garbage collection leave the file's blocks where they are? `FS_IOC_GETFLAGS` says so as
/// `FS_NOCOW_FL`; `F2FS_IOC_GET_PIN_FILE` cannot tell a file that the collection has not met yet.
#[must_use]
pub const fn is_pinned(flags: IFlags) -> bool {
    flags.contains(IFlags::NOCOW)
}

/// `ioctl(F2FS_IOC_SET_PIN_FILE, 1)`: blocks that the file gets from now on stay where they are. Linux 4.16.
///
/// # Errors
///
/// [`PinError`].
pub fn pin(file: &File) -> Result<(), PinError> {
    let on: u32 = 1;
    let pointer = std::ptr::from_ref(&on);
    // SAFETY: the kernel reads 32 bits.
    let answer = unsafe { libc::ioctl(file.as_raw_fd(), SET_PIN_FILE, pointer) };
    if answer >= 0 {
        return Ok(());
    }
    let err = io::Error::last_os_error();
    Err(match Errno::from_io_error(&err) {
        Some(Errno::INVAL | Errno::FBIG) => PinError::NotEmpty,
        _ => PinError::Other(err),
    })
}

/// What the super block says of where data may lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// First byte of the data area.
    pub main: u64,
    /// Bytes of a section, the unit of garbage collection.
    pub section: u64,
    /// The file system spans several devices; its addresses are not the first one's.
    pub many_devices: bool,
}

/// Read the super block from the block device.
///
/// # Errors
///
/// The device cannot be read, or has no f2fs on it.
pub fn read_layout(device: &File) -> io::Result<Layout> {
    let mut head = [0; HEAD];
    device.read_exact_at(&mut head, SUPER_BLOCK)?;
    parse_layout(&head).ok_or_else(|| io::Error::other("no f2fs super block there"))
}

/// `struct f2fs_super_block`, packed.
fn parse_layout(head: &[u8]) -> Option<Layout> {
    let word = |at: usize| {
        let bytes = head.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_le_bytes(bytes))
    };
    let log_block = word(16)?;
    let log_segment = word(20)?;
    let sane = word(0)? == MAGIC && (9..=16).contains(&log_block) && log_segment <= 16;
    let section = u64::from(word(24)?) << log_segment << log_block;
    sane.then_some(Layout {
        main: u64::from(word(92)?) << log_block,
        section,
        many_devices: *head.get(2201)? != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_super_block_is_read_where_the_kernel_writes_it() {
        let mut head = vec![0; HEAD];
        let mut put = |at: usize, value: u32| {
            head[at..at + 4].copy_from_slice(&value.to_le_bytes());
        };
        put(0, MAGIC);
        put(16, 12);
        put(20, 9);
        put(24, 2);
        put(92, 0x1000);
        let layout = parse_layout(&head).unwrap();
        assert_eq!((layout.main, layout.section), (0x100_0000, 4 << 20));
        assert!(!layout.many_devices);
        head[2201] = b'/';
        assert!(parse_layout(&head).unwrap().many_devices);
        head[0] = 0;
        assert_eq!(parse_layout(&head), None);
    }
}
