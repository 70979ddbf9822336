//! Accesses to mappings that may end a process by a signal, each in a child of its own; and those that answer an errno
//! where a signal would be.
#![allow(
    unsafe_code,
    reason = "fork(2), mprotect(2) and stores into memory that no Rust reference may describe"
)]

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use rustix::io::Errno;

use crate::PAGE;
use crate::act::{Outcome, errno_name, last_errno};
use crate::mapping::Mapping;

/// What became of an operation: what the kernel answered, or the signal that it sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It was done.
    Done,
    /// It was refused.
    Errno(Errno),
    /// It ended its process.
    Signal(i32),
}

impl From<Outcome> for Answer {
    fn from(outcome: Outcome) -> Self {
        outcome.map_or_else(Self::Errno, |()| Self::Done)
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.pad("done"),
            Self::Errno(errno) => {
                let name = errno_name(*errno);
                f.pad(name.split(" (").next().unwrap_or(&name))
            }
            Self::Signal(libc::SIGBUS) => f.pad("SIGBUS"),
            Self::Signal(libc::SIGSEGV) => f.pad("SIGSEGV"),
            Self::Signal(number) => write!(f, "signal {number}"),
        }
    }
}

/// What the child does with the first page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reads a byte of it.
    Load,
    /// Writes one.
    Store,
    /// `mprotect(PROT_READ | PROT_WRITE)`, then writes one.
    ProtectAndStore,
}

/// A child inherits the mapping and does this.
///
/// # Errors
///
/// There is no child, or it cannot be waited for.
pub fn in_child(mapping: &Mapping, access: Access) -> io::Result<Answer> {
    let place = mapping.pointer(0);
    // SAFETY: the child makes system calls and touches one byte, nothing else, and ends without returning.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => act_and_exit(place, access),
        child => wait_for(child),
    }
}

fn act_and_exit(place: *mut u8, access: Access) -> ! {
    let mut code = 0;
    if access == Access::ProtectAndStore {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the page is the mapping's first; no reference into it exists.
        if unsafe { libc::mprotect(place.cast(), PAGE, protection) } != 0 {
            code = last_errno().raw_os_error();
        }
    }
    if code == 0 {
        if access == Access::Load {
            // SAFETY: a byte of the mapping, which lives; what the kernel does not allow ends this child only.
            unsafe { place.read_volatile() };
        } else {
            // SAFETY: as above.
            unsafe { place.write_volatile(b's') };
        }
    }
    // SAFETY: ends the child without running what its parent would run at its end.
    unsafe { libc::_exit(code) }
}

fn wait_for(child: libc::pid_t) -> io::Result<Answer> {
    let mut status = 0;
    // SAFETY: waits for our own child; the status is ours.
    if unsafe { libc::waitpid(child, &raw mut status, 0) } != child {
        return Err(io::Error::last_os_error());
    }
    if libc::WIFSIGNALED(status) {
        return Ok(Answer::Signal(libc::WTERMSIG(status)));
    }
    Ok(match libc::WEXITSTATUS(status) {
        0 => Answer::Done,
        code => Answer::Errno(Errno::from_raw_os_error(code)),
    })
}

/// `read(2)` of one page of zeroes into the mapping.
///
/// # Errors
///
/// `/dev/zero` cannot be opened.
pub fn read_into(mapping: &Mapping) -> io::Result<Answer> {
    let zero = File::open("/dev/zero")?;
    // SAFETY: the kernel writes to one page of the mapping, into which no reference exists, or answers EFAULT.
    let count = unsafe { libc::read(zero.as_raw_fd(), mapping.pointer(0).cast(), PAGE) };
    Ok(match count {
        0.. => Answer::Done,
        _ => Answer::Errno(last_errno()),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn tells_answers_apart() {
        let file = tempfile::tempfile().unwrap();
        let mapping = Mapping::shared(&file, 0, PAGE, true).unwrap();
        // Behind the end of the file.
        let store = || in_child(&mapping, Access::Store).unwrap();
        assert_eq!(store(), Answer::Signal(libc::SIGBUS));
        assert_eq!(read_into(&mapping).unwrap(), Answer::Errno(Errno::FAULT));
        file.set_len(PAGE as u64).unwrap();
        assert_eq!(store(), Answer::Done);
        assert_eq!(mapping.copy_out(0..1), b"s");
        let seen = Mapping::shared(&file, 0, PAGE, false).unwrap();
        let access = |access| in_child(&seen, access).unwrap().to_string();
        assert_eq!(access(Access::Load), "done");
        assert_eq!(access(Access::Store), "SIGSEGV");
        assert_eq!(access(Access::ProtectAndStore), "done");
    }
}
