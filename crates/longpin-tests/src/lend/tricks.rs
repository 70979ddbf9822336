//! What may be tried on a mapping of a lend's dma-buf, and a child that has whatever its parent had.

use rustix::io::Errno;

use crate::PAGE;
use crate::act::{Outcome, last_errno};
use crate::mapping::Mapping;

fn outcome(answer: libc::c_int) -> Outcome {
    match answer {
        0 => Ok(()),
        _ => Err(last_errno()),
    }
}

/// `mprotect(addr, len, protection)`.
///
/// # Errors
///
/// What the kernel answered.
pub fn protect(mapping: &Mapping, protection: libc::c_int) -> Outcome {
    // SAFETY: the range is this mapping, into which no reference exists.
    outcome(unsafe { libc::mprotect(mapping.pointer(0).cast(), mapping.len(), protection) })
}

/// `remap_file_pages(addr, 4096, 0, page, 0)`: another page of the file in the place of the first.
///
/// # Errors
///
/// What the kernel answered.
pub fn remap_first(mapping: &Mapping, page: usize) -> Outcome {
    // SAFETY: the range is inside this mapping, into which no reference exists.
    outcome(unsafe { libc::remap_file_pages(mapping.pointer(0).cast(), PAGE, 0, page, 0) })
}

/// `mremap(addr, len, 2 * len, MREMAP_MAYMOVE)`.
///
/// # Errors
///
/// What the kernel answered.
///
/// # Panics
///
/// It was done: the mapping is not where it was.
pub fn grow(mapping: &Mapping) -> Outcome {
    let (len, flags) = (mapping.len(), libc::MREMAP_MAYMOVE);
    // SAFETY: the range is this mapping, into which no reference exists; if it moves, nobody goes on (below).
    let moved = unsafe { libc::mremap(mapping.pointer(0).cast(), len, 2 * len, flags) };
    assert_eq!(moved, libc::MAP_FAILED, "a mapping of a lend has grown");
    Err(last_errno())
}

/// `madvise(addr, len, advice)` for the whole mapping.
///
/// # Errors
///
/// What the kernel answered.
pub fn advise(mapping: &Mapping, advice: libc::c_int) -> Outcome {
    // SAFETY: the range is this mapping, into which no reference exists: bytes that change harm nobody.
    outcome(unsafe { libc::madvise(mapping.pointer(0).cast(), mapping.len(), advice) })
}

/// A child with all mappings of its parent and no descriptor, asleep; killed on drop.
#[derive(Debug)]
pub struct Sleeper(libc::pid_t);

impl Sleeper {
    /// `fork(2)`, and `close_range(2)` in the child.
    ///
    /// # Errors
    ///
    /// What the kernel answered.
    pub fn start() -> Result<Self, Errno> {
        // SAFETY: the child makes two system calls and nothing else, which any thread's child may.
        match unsafe { libc::fork() } {
            -1 => Err(last_errno()),
            0 => Self::sleep(),
            child => Ok(Self(child)),
        }
    }

    fn sleep() -> ! {
        // SAFETY: nobody in this child uses a descriptor any more.
        unsafe { libc::close_range(0, libc::c_uint::MAX, 0) };
        loop {
            // SAFETY: waits for a signal.
            unsafe { libc::pause() };
        }
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        // SAFETY: our own child, which nobody else waits for.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
        // SAFETY: as above; its status is of no interest.
        unsafe { libc::waitpid(self.0, std::ptr::null_mut(), 0) };
    }
}
