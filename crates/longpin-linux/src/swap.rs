//! swapon(2), swapoff(2) and `/proc/swaps`.
#![allow(
    unsafe_code,
    reason = "swapon and swapoff take C strings; a mapping is tried"
)]

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, Mode, OFlags, fcntl_getfl};
use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap, mprotect, munmap};

use crate::pseudo;

/// Why the kernel does not swap to a file, or goes on doing it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SwapError {
    /// `EPERM`: no CAP_SYS_ADMIN, too many swap areas, or an immutable file.
    #[error(
        "the kernel does not permit it: CAP_SYS_ADMIN is missing, there are too many swap areas, or \
         the file is immutable"
    )]
    NotPermitted,
    /// `EBUSY`: it is in use already.
    #[error("it is in use as swap already, or the file system moves blocks right now")]
    Busy,
    /// `EINVAL`: the file is not fit (swapon), or is no active swap (swapoff).
    #[error("the kernel says that it is not fit (swapon) or not active (swapoff)")]
    Invalid,
    /// `ENOMEM`: what is swapped out has no room in memory.
    #[error("there is not enough memory for it")]
    NoMemory,
    /// Anything else.
    #[error("the kernel refuses")]
    Other(#[source] io::Error),
}

fn named(err: io::Error) -> SwapError {
    match Errno::from_io_error(&err) {
        Some(Errno::PERM) => SwapError::NotPermitted,
        Some(Errno::BUSY) => SwapError::Busy,
        Some(Errno::INVAL) => SwapError::Invalid,
        Some(Errno::NOMEM) => SwapError::NoMemory,
        _ => SwapError::Other(err),
    }
}

fn c_path(path: &Path) -> Result<CString, SwapError> {
    CString::new(path.as_os_str().as_bytes()).map_err(|err| SwapError::Other(err.into()))
}

/// `swapon(path, 0)`: begin to swap to this file. CAP_SYS_ADMIN.
///
/// # Errors
///
/// [`SwapError`].
pub fn swap_on(path: &Path) -> Result<(), SwapError> {
    let path = c_path(path)?;
    // SAFETY: a C string that outlives the call.
    match unsafe { libc::swapon(path.as_ptr(), 0) } {
        0 => Ok(()),
        _ => Err(named(io::Error::last_os_error())),
    }
}

/// `swapoff(path)`: bring everything back from this file, and end swapping to it. CAP_SYS_ADMIN.
///
/// # Errors
///
/// [`SwapError`].
pub fn swap_off(path: &Path) -> Result<(), SwapError> {
    let path = c_path(path)?;
    // SAFETY: a C string that outlives the call.
    match unsafe { libc::swapoff(path.as_ptr()) } {
        0 => Ok(()),
        _ => Err(named(io::Error::last_os_error())),
    }
}

/// An active swap file, from `/proc/swaps`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwapFile {
    /// Its path when it was activated.
    pub path: PathBuf,
    /// Bytes that are used as swap, without the header.
    pub size: u64,
    /// Bytes that are swapped out to it now.
    pub used: u64,
}

/// Read `/proc/swaps`: the files among the active swap areas. Empty on a kernel without swap.
///
/// # Errors
///
/// The file cannot be read, or nobody knows whether it is there.
pub fn read_swap_files() -> io::Result<Vec<SwapFile>> {
    let text = pseudo::read("/proc/swaps")?;
    Ok(text.map(|text| parse(&text)).unwrap_or_default())
}

/// How many swap areas `/proc/swaps` lists: files, partitions, devices. `None` on a kernel without swap.
///
/// # Errors
///
/// As [`read_swap_files`].
pub fn count_areas() -> io::Result<Option<usize>> {
    let text = pseudo::read_text("/proc/swaps")?;
    Ok(text.map(|text| text.lines().skip(1).count()))
}

/// Does the kernel swap to this file, by whatever path it was activated? Tried: fallocate(2) of a range that no file may
/// have, which changes nothing. `None`: the file may not be opened for writing, so it cannot be tried.
///
/// # Errors
///
/// The descriptor cannot be asked.
pub fn is_swapped_to(file: &File) -> io::Result<Option<bool>> {
    let is_writable = fcntl_getfl(file)?.intersection(OFlags::RWMODE) == OFlags::RDWR;
    let other;
    // A second descriptor would break a lease of the first one's owner.
    let file = if is_writable {
        file
    } else {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(opened) => other = File::from(opened),
            Err(_) => return Ok(None),
        }
        &other
    };
    Ok(match probe(file) {
        Probed::Free => Some(false),
        Probed::Refused => Some(is_mapping_refused(file)),
        Probed::Unknown => None,
    })
}

/// What a probe of a file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probed {
    /// Nobody refuses.
    Free,
    /// ETXTBSY: it is swapped to, or held.
    Refused,
    /// Neither.
    Unknown,
}

/// `fallocate(file, 0, 2^63 - 1, 1)`: no file may have that range, so a file that nobody refuses answers EFBIG.
#[must_use]
pub fn probe(file: &File) -> Probed {
    probe_with(file, FallocateFlags::empty())
}

/// The same, of an operation that takes pages away, wherever they are: FALLOC_FL_COLLAPSE_RANGE.
#[must_use]
pub fn probe_collapse(file: &File) -> Probed {
    probe_with(file, FallocateFlags::COLLAPSE_RANGE)
}

fn probe_with(file: &File, mode: FallocateFlags) -> Probed {
    match rustix::fs::fallocate(file, mode, u64::MAX >> 1, 1) {
        Err(Errno::TXTBSY) => Probed::Refused,
        Err(Errno::FBIG) => Probed::Free,
        _ => Probed::Unknown,
    }
}

/// A swap file gets no shared mapping that may be written, but the kernel lets one become writable later. Who holds a file
/// refuses neither or both.
fn is_mapping_refused(file: &File) -> bool {
    let map = |prot| {
        // SAFETY: the kernel chooses a free address; nothing that exists is replaced, and nobody touches the page.
        unsafe { mmap(std::ptr::null_mut(), 1, prot, MapFlags::SHARED, file, 0) }
    };
    let both = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a mapping made here, of less than a page; no reference into it exists.
    let unmap = |at| unsafe { munmap(at, 1) };
    match map(both) {
        Err(Errno::TXTBSY) => {}
        Err(_) => return false,
        Ok(at) => {
            let _ = unmap(at);
            return false;
        }
    }
    let Ok(at) = map(ProtFlags::READ) else {
        return false;
    };
    // SAFETY: as above.
    let changed = unsafe { mprotect(at, 1, MprotectFlags::READ | MprotectFlags::WRITE) };
    let _ = unmap(at);
    changed.is_ok()
}

/// Lines of name, type, size, used, priority; sizes in KiB.
fn parse(text: &[u8]) -> Vec<SwapFile> {
    let lines = text.split(|&byte| byte == b'\n').skip(1);
    lines.filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<SwapFile> {
    let mut words = line
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty());
    let name = words.next()?;
    if words.next()? != b"file" {
        return None;
    }
    let mut number = || -> Option<u64> {
        let text = std::str::from_utf8(words.next()?).ok()?;
        text.parse::<u64>().ok()?.checked_mul(1024)
    };
    let (size, used) = (number()?, number()?);
    let path = OsString::from_vec(unescape(name)).into();
    Some(SwapFile { path, size, used })
}

/// Blank, tab, newline and backslash are written as three octal digits.
fn unescape(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = name;
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| byte == b'\\');
        let octal = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(value) => {
                out.push(value);
                rest = &after[3..];
            }
            None => {
                out.push(byte);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_from_partitions() {
        let text = b"Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n\
            /dev/vda2                               partition\t1048572\t\t0\t\t-2\n\
            /my\\040swap                            file\t\t8188\t\t4\t\t-3\n";
        let found = parse(text);
        let expected = SwapFile {
            path: "/my swap".into(),
            size: 8188 << 10,
            used: 4096,
        };
        assert_eq!(found, [expected]);
    }

    #[test]
    fn an_ordinary_file_is_free_and_stays_as_it_is() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let before = file.metadata().unwrap();
        assert_eq!(is_swapped_to(&file).unwrap(), Some(false));
        assert_eq!(
            (probe(&file), probe_collapse(&file)),
            (Probed::Free, Probed::Free)
        );
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let reader = File::open(path).unwrap();
        assert_eq!(is_swapped_to(&reader).unwrap(), Some(false));
        let after = file.metadata().unwrap();
        assert_eq!(before.modified().unwrap(), after.modified().unwrap());
        assert_eq!(after.len(), 4096);
    }

    #[test]
    fn the_running_kernel_can_be_asked() {
        read_swap_files().unwrap();
    }
}
