//! How large a buffer io_uring takes: asked without pinning more than a page.
#![allow(
    unsafe_code,
    reason = "mmap, mprotect, mincore and a registration that fails"
)]

use std::io;
use std::ptr::NonNull;

use io_uring::IoUring;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};
use rustix::param::page_size;

/// Every kernel that has fixed buffers takes so many bytes in one.
pub const LEAST: u64 = 1 << 30;
/// `IORING_MAX_REG_BUFFERS`: buffers of one ring.
pub const BUFFERS: u64 = 1 << 14;

/// Bytes that this kernel takes in one buffer, if these are too many; `None`: it takes them. The limit is a power of
/// two. io_uring_register(2).
///
/// # Errors
///
/// Memory or a ring is not to be had.
pub fn largest_below(bytes: u64) -> io::Result<Option<u64>> {
    if bytes <= LEAST || takes(bytes)? {
        return Ok(None);
    }
    let mut limit = LEAST;
    while limit * 2 < bytes && takes(limit * 2)? {
        limit *= 2;
    }
    Ok(Some(limit))
}

/// A registration that must fail: of so many addresses only the first page has memory. A kernel that refuses the length
/// does so before it touches the page.
fn takes(bytes: u64) -> io::Result<bool> {
    let Ok(len) = usize::try_from(bytes) else {
        return Ok(false);
    };
    let Some(room) = len.checked_next_multiple_of(page_size()).and_then(Room::of) else {
        return Ok(false);
    };
    let ring = IoUring::new(1)?;
    let buffer = libc::iovec {
        iov_base: room.address.as_ptr(),
        iov_len: len,
    };
    // SAFETY: nothing is read or written through the buffer: it is never used, and goes with the ring.
    let answer = unsafe { ring.submitter().register_buffers(&[buffer]) };
    Ok(answer.is_ok() || room.is_touched()?)
}

/// Addresses of which the first page may be used.
struct Room {
    address: NonNull<libc::c_void>,
    len: usize,
}

impl Room {
    /// `None`: there are not so many addresses.
    fn of(len: usize) -> Option<Self> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: the kernel chooses free addresses; nothing that exists is replaced.
        let mapped = unsafe {
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), len, ProtFlags::empty(), flags)
        };
        let room = Self {
            address: NonNull::new(mapped.ok()?)?,
            len,
        };
        let rights = MprotectFlags::READ | MprotectFlags::WRITE;
        // SAFETY: the first page of the mapping above, into which no reference exists.
        unsafe { rustix::mm::mprotect(room.address.as_ptr(), page_size(), rights) }.ok()?;
        Some(room)
    }

    fn is_touched(&self) -> io::Result<bool> {
        let mut page = 0_u8;
        // SAFETY: one page is asked about, and one byte is written.
        match unsafe { libc::mincore(self.address.as_ptr(), page_size(), &raw mut page) } {
            0 => Ok(page & 1 != 0),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `of`, of this length.
        let unmapped = unsafe { rustix::mm::munmap(self.address.as_ptr(), self.len) };
        debug_assert!(unmapped.is_ok(), "munmap of reserved addresses");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_kernel_takes_is_not_asked() {
        assert_eq!(largest_below(LEAST).unwrap(), None);
    }

    #[test]
    fn the_limit_is_found_without_memory() {
        match takes(LEAST) {
            Ok(taken) => assert!(taken),
            Err(err) => return println!("not run: no ring here ({err})"),
        }
        let limit = largest_below(1 << 50).unwrap();
        println!("{limit:?}");
        assert!(limit.is_some_and(|limit| limit >= LEAST && limit.is_power_of_two()));
    }
}
