//! The acts that take pages away from a file: what a pin must survive.
//!
//! Each is one system call, and answers with the errno of that call.
#![allow(
    unsafe_code,
    reason = "truncate(2) by path, sync_file_range(2), swapon(2), quotactl(2) and process_vm_readv(2), which rustix does not have"
)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::mapping::Mapping;

/// What the kernel answered.
pub type Outcome = Result<(), Errno>;

/// `truncate(path, len)`. Another way into the kernel than [`ftruncate`]: there is no open file.
pub fn truncate(path: &Path, len: u64) -> Outcome {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::INVAL)?;
    let len = libc::off_t::try_from(len).map_err(|_| Errno::INVAL)?;
    // SAFETY: `path` is a NUL-terminated string that lives across the call.
    match unsafe { libc::truncate(path.as_ptr(), len) } {
        0 => Ok(()),
        _ => Err(last_errno()),
    }
}

/// `ftruncate(file, len)`.
pub fn ftruncate(file: &impl AsFd, len: u64) -> Outcome {
    rustix::fs::ftruncate(file, len)
}

/// `open(path, O_WRONLY | O_TRUNC)`.
pub fn open_truncate(path: &Path) -> Outcome {
    let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map(drop)
}

/// `fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, len)`.
pub fn punch(file: &impl AsFd, offset: u64, len: u64) -> Outcome {
    let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(file, mode, offset, len)
}

/// `sync_file_range(file, 0, 0, WAIT_BEFORE | WRITE | WAIT_AFTER)`: writes all of the file's dirty pages back, without a
/// word to its metadata.
pub fn write_back(file: &impl AsFd) -> Outcome {
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE
        | libc::SYNC_FILE_RANGE_WRITE
        | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: the call takes numbers; the descriptor is open across it.
    match unsafe { libc::sync_file_range(fd, 0, 0, flags) } {
        0 => Ok(()),
        _ => Err(last_errno()),
    }
}

/// `swapon(path, 0)` or `swapoff(path)`.
pub fn swap(path: &CStr, on: bool) -> Outcome {
    let answer = if on {
        // SAFETY: `path` is a NUL-terminated string that lives across the call.
        unsafe { libc::swapon(path.as_ptr(), 0) }
    } else {
        // SAFETY: as above.
        unsafe { libc::swapoff(path.as_ptr()) }
    };
    match answer {
        0 => Ok(()),
        _ => Err(last_errno()),
    }
}

/// `quotactl(2)`: users' quota of the file system on this device kept in a file of format v1 (Q_QUOTAON), or no more.
pub fn quota(device: &CStr, file: Option<&CStr>) -> Outcome {
    const QUOTAON: libc::c_int = 0x80_0002;
    const QUOTAOFF: libc::c_int = 0x80_0003;
    const VFS_V1: libc::c_int = 4;
    let command = if file.is_some() { QUOTAON } else { QUOTAOFF };
    let path = file.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: both strings end, or are null, and live across the call, which only reads them.
    match unsafe { libc::quotactl(command << 8, device.as_ptr(), VFS_V1, path.cast_mut()) } {
        0 => Ok(()),
        _ => Err(last_errno()),
    }
}

/// Become a user for good: no groups, no capabilities; in a user namespace of its own, if asked, where it is root.
pub fn become_user(uid: u32, in_namespace: bool) -> io::Result<()> {
    let checked = |result: libc::c_int| match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    // SAFETY: these calls take numbers, and a null pointer for an empty list.
    checked(unsafe { libc::setgroups(0, std::ptr::null()) })?;
    // SAFETY: as above.
    checked(unsafe { libc::setresgid(uid, uid, uid) })?;
    // SAFETY: as above.
    checked(unsafe { libc::setresuid(uid, uid, uid) })?;
    if !in_namespace {
        return Ok(());
    }
    // SAFETY: as above. Its own mappings are this process's to write only while it is dumpable.
    checked(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) })?;
    // SAFETY: as above; the process has one thread.
    checked(unsafe { libc::unshare(libc::CLONE_NEWUSER) })?;
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/gid_map", format!("0 {uid} 1"))?;
    std::fs::write("/proc/self/uid_map", format!("0 {uid} 1"))
}

/// `process_vm_readv(pid, …)` of a whole mapping at the same address in another process (or this one): pins each page
/// for a moment, as any debugger may.
pub fn read_foreign(pid: u32, mapping: &Mapping) -> Outcome {
    read_foreign_at(pid, mapping, 0, &mut vec![0; mapping.len()])
}

/// The same of the part that begins at this offset and is as long as the room.
pub fn read_foreign_at(pid: u32, mapping: &Mapping, at: usize, bytes: &mut [u8]) -> Outcome {
    let pid = libc::pid_t::try_from(pid).map_err(|_| Errno::SRCH)?;
    if mapping.len().checked_sub(at) < Some(bytes.len()) {
        return Err(Errno::FAULT);
    }
    let into = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    let from = libc::iovec {
        iov_base: (mapping.addr() + at) as *mut libc::c_void,
        iov_len: bytes.len(),
    };
    // SAFETY: the local vector is a live buffer of that length; the remote one is only read, and by the kernel.
    let read = unsafe { libc::process_vm_readv(pid, &raw const into, 1, &raw const from, 1, 0) };
    match usize::try_from(read) {
        Ok(count) if count == bytes.len() => Ok(()),
        Ok(_) => Err(Errno::IO),
        Err(_) => Err(last_errno()),
    }
}

/// What the system call that has just failed answered.
pub(crate) fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// `done`, or the errno by name and in words: `ETXTBSY (Text file busy)`.
pub fn outcome_name(outcome: Outcome) -> String {
    match outcome {
        Ok(()) => "done".to_owned(),
        Err(errno) => errno_name(errno),
    }
}

/// An errno by name and in words: `ETXTBSY (Text file busy)`.
pub fn errno_name(errno: Errno) -> String {
    let words = io::Error::from(errno).to_string();
    let words = words.split(" (os error").next().unwrap_or(&words);
    match symbol(errno) {
        Some(symbol) => format!("{symbol} ({words})"),
        None => format!("errno {} ({words})", errno.raw_os_error()),
    }
}

/// The names of the errnos that these acts and registrations meet.
fn symbol(errno: Errno) -> Option<&'static str> {
    Some(match errno {
        Errno::ACCESS => "EACCES",
        Errno::AGAIN => "EAGAIN",
        Errno::BADF => "EBADF",
        Errno::BUSY => "EBUSY",
        Errno::EXIST => "EEXIST",
        Errno::FAULT => "EFAULT",
        Errno::FBIG => "EFBIG",
        Errno::INVAL => "EINVAL",
        Errno::IO => "EIO",
        Errno::ISDIR => "EISDIR",
        Errno::NODATA => "ENODATA",
        Errno::NODEV => "ENODEV",
        Errno::NOENT => "ENOENT",
        Errno::NOEXEC => "ENOEXEC",
        Errno::NOMEM => "ENOMEM",
        Errno::NOSPC => "ENOSPC",
        Errno::NOTTY => "ENOTTY",
        Errno::OPNOTSUPP => "EOPNOTSUPP",
        Errno::PERM => "EPERM",
        Errno::ROFS => "EROFS",
        Errno::TXTBSY => "ETXTBSY",
        Errno::XDEV => "EXDEV",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn names_the_errno() {
        assert_eq!(outcome_name(Ok(())), "done");
        assert_eq!(outcome_name(Err(Errno::TXTBSY)), "ETXTBSY (Text file busy)");
        assert!(outcome_name(Err(Errno::LOOP)).starts_with("errno 40 ("));
    }

    #[test]
    fn each_act_acts() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let len = || file.as_file().metadata().unwrap().len();
        assert_eq!(ftruncate(file.as_file(), 9000), Ok(()));
        assert_eq!(len(), 9000);
        assert_eq!(truncate(file.path(), 100), Ok(()));
        assert_eq!(len(), 100);
        assert_eq!(open_truncate(file.path()), Ok(()));
        assert_eq!(len(), 0);
        let gone = Path::new("/nowhere/at/all");
        assert_eq!(truncate(gone, 0), Err(Errno::NOENT));
        assert_eq!(open_truncate(gone), Err(Errno::NOENT));
    }
}
