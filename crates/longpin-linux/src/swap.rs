//! swapon(2), swapoff(2) and `/proc/swaps`.
#![allow(unsafe_code, reason = "swapon and swapoff take C strings")]

use std::ffi::{CString, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

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
    fn the_running_kernel_can_be_asked() {
        read_swap_files().unwrap();
    }
}
