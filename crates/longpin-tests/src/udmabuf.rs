//! udmabuf: pages of a memfd as a DMA buffer, such as a GPU imports.
//!
//! The kernel pins them with `memfd_pin_folios` since 6.11, for as long as the buffer has a descriptor or a mapping;
//! before, it took plain references, which nobody can tell from any other. Debian's 6.1 has no udmabuf at all.
#![allow(
    unsafe_code,
    reason = "ioctl(2) on /dev/udmabuf, and the descriptor that it returns"
)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::fs::SealFlags;
use rustix::io::Errno;

use crate::PAGE;
use crate::act::{errno_name, last_errno};
use crate::mapping::Mapping;

const DEVICE: &str = "/dev/udmabuf";

/// `struct udmabuf_create` of linux/udmabuf.h.
#[repr(C)]
struct Create {
    memfd: u32,
    flags: u32,
    offset: u64,
    size: u64,
}

/// `struct udmabuf_create_list` with two items.
#[repr(C)]
struct CreateList {
    flags: u32,
    count: u32,
    items: [Item; 2],
}

/// `struct udmabuf_create_item`.
#[repr(C)]
struct Item {
    memfd: u32,
    pad: u32,
    offset: u64,
    size: u64,
}

/// `UDMABUF_CREATE_LIST`: `_IOW('u', 0x43, struct udmabuf_create_list)`, without the items.
const UDMABUF_CREATE_LIST: libc::Ioctl = 0x4008_7543;
const _: () = assert!(size_of::<CreateList>() == 8 + 2 * 24);

/// `UDMABUF_CREATE`: `_IOW('u', 0x42, struct udmabuf_create)`.
const UDMABUF_CREATE: libc::Ioctl = 0x4018_7542;
const _: () = assert!(size_of::<Create>() as u64 == (UDMABUF_CREATE >> 16) & 0x3fff);
const UDMABUF_FLAGS_CLOEXEC: u32 = 1;

/// The kernel made no buffer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// The memfd does not take the seal against shrinking, without which the kernel makes no buffer of it.
    #[error("cannot seal the file against shrinking: {}", errno_name(*errno))]
    NotSealed {
        /// What the kernel answered.
        errno: Errno,
    },
    /// The device cannot be opened.
    #[error("cannot open {DEVICE}")]
    Open(#[source] io::Error),
    /// `UDMABUF_CREATE` failed.
    #[error("no buffer of {len} bytes at {offset}: {}", errno_name(*errno))]
    Refused {
        /// Offset in the file, bytes.
        offset: u64,
        /// Bytes asked for.
        len: usize,
        /// What the kernel answered.
        errno: Errno,
    },
}

/// A DMA buffer of a range of a memfd; its pages are unpinned when it is dropped.
#[derive(Debug)]
#[must_use = "dropping it unpins"]
pub struct Udmabuf {
    buffer: OwnedFd,
    len: usize,
}

/// Whether the kernel has udmabuf: it is built in or absent on all of Debian's.
pub fn supported() -> io::Result<bool> {
    std::fs::exists(DEVICE)
}

fn open() -> Result<File, CreateError> {
    let device = File::options().read(true).write(true).open(DEVICE);
    device.map_err(CreateError::Open)
}

impl Udmabuf {
    /// `fcntl(memfd, F_ADD_SEALS, F_SEAL_SHRINK)` and `ioctl(UDMABUF_CREATE)` of `[offset, offset + len)`, in pages.
    ///
    /// The seal stays when the buffer has gone. It forbids `ftruncate`, and allows hole punches.
    pub fn create(memfd: &impl AsFd, offset: u64, len: usize) -> Result<Self, CreateError> {
        rustix::fs::fcntl_add_seals(memfd, SealFlags::SHRINK)
            .map_err(|errno| CreateError::NotSealed { errno })?;
        let device = open()?;
        let refused = |errno| CreateError::Refused { offset, len, errno };
        let fd = u32::try_from(memfd.as_fd().as_raw_fd()).map_err(|_| refused(Errno::BADF))?;
        let asked = Create {
            memfd: fd,
            flags: UDMABUF_FLAGS_CLOEXEC,
            offset,
            size: len as u64,
        };
        // SAFETY: the kernel reads one `udmabuf_create`, which lives across the call, and touches no other memory.
        let answer = unsafe { libc::ioctl(device.as_raw_fd(), UDMABUF_CREATE, &raw const asked) };
        if answer < 0 {
            return Err(refused(last_errno()));
        }
        // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
        let buffer = unsafe { OwnedFd::from_raw_fd(answer) };
        Ok(Self { buffer, len })
    }

    /// `ioctl(UDMABUF_CREATE_LIST)` of the first pages of two memfds, both of them sealed.
    pub fn create_of_both(memfds: [&impl AsFd; 2]) -> Result<Self, CreateError> {
        let device = open()?;
        let len = 2 * PAGE;
        let refused = |errno| CreateError::Refused {
            offset: 0,
            len,
            errno,
        };
        let asked = CreateList {
            flags: UDMABUF_FLAGS_CLOEXEC,
            count: 2,
            items: memfds.map(|fd| Item {
                memfd: fd.as_fd().as_raw_fd().unsigned_abs(),
                pad: 0,
                offset: 0,
                size: PAGE as u64,
            }),
        };
        // SAFETY: the kernel reads one list with its two items, which lives across the call, and touches no other memory.
        let answer =
            unsafe { libc::ioctl(device.as_raw_fd(), UDMABUF_CREATE_LIST, &raw const asked) };
        if answer < 0 {
            return Err(refused(last_errno()));
        }
        // SAFETY: as above.
        let buffer = unsafe { OwnedFd::from_raw_fd(answer) };
        Ok(Self { buffer, len })
    }

    /// What a device that imports the buffer reads: the pages themselves, whatever has become of the file.
    pub fn read_as_device(&self) -> Result<Vec<u8>, Errno> {
        let view = Mapping::shared(&self.buffer, 0, self.len, false)?;
        Ok(view.copy_out(0..self.len))
    }
}
