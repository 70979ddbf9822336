//! A file's memory as devices get it: mapped, and never a slice.
#![allow(
    unsafe_code,
    reason = "mmap, munmap, and memory that a device may write at any moment"
)]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::{self, NonNull};

use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};

/// `mmap(2)`'s MAP_SHARED or MAP_PRIVATE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// The file's own pages.
    Shared,
    /// The file's pages until somebody writes or pins them: then copies.
    Private,
}

/// `mmap(NULL, len, PROT_READ [| PROT_WRITE], MAP_SHARED | MAP_PRIVATE, file, offset)`, unmapped on drop.
///
/// A device may write it at any time, so its bytes are only copied, with volatile accesses; no reference to them exists.
/// An access behind the end of a file that has been truncated raises `SIGBUS`, as in any language. mmap(2).
#[derive(Debug)]
pub struct DeviceMemory {
    address: NonNull<u8>,
    len: usize,
    writable: bool,
}

// SAFETY: the mapping belongs to the process, not to a thread, and no reference into it exists.
unsafe impl Send for DeviceMemory {}
// SAFETY: all accesses are volatile copies, which tear at worst; that is what device memory does anyway.
unsafe impl Sync for DeviceMemory {}

impl DeviceMemory {
    /// Map a range of a file; offset and length in bytes, multiples of the file's page.
    ///
    /// # Errors
    ///
    /// What `mmap(2)` says: EACCES for a descriptor that does not allow it, EINVAL for a range that is not of whole
    /// pages, ENOMEM where huge pages are missing.
    pub fn of_file(
        file: &impl AsFd,
        offset: u64,
        len: usize,
        writable: bool,
        sharing: Sharing,
    ) -> Result<Self, Errno> {
        let flags = match sharing {
            Sharing::Shared => MapFlags::SHARED,
            Sharing::Private => MapFlags::PRIVATE,
        };
        Self::map(file, offset, len, writable, flags)
    }

    /// The same with MAP_SHARED_VALIDATE | MAP_SYNC, of a DAX file: before a page can be written, the file system has
    /// written down where it lies, so that a store needs no fsync(2) to be found again. Linux 4.15.
    ///
    /// # Errors
    ///
    /// EOPNOTSUPP for a file that is not on DAX memory; else as [`Self::of_file`].
    pub fn of_dax_file(
        file: &impl AsFd,
        offset: u64,
        len: usize,
        writable: bool,
    ) -> Result<Self, Errno> {
        let flags = MapFlags::SHARED_VALIDATE | MapFlags::SYNC;
        Self::map(file, offset, len, writable, flags)
    }

    fn map(
        file: &impl AsFd,
        offset: u64,
        len: usize,
        writable: bool,
        flags: MapFlags,
    ) -> Result<Self, Errno> {
        let prot = if writable {
            ProtFlags::READ | ProtFlags::WRITE
        } else {
            ProtFlags::READ
        };
        // SAFETY: the kernel chooses a free address; nothing that exists is replaced.
        let mapped = unsafe { rustix::mm::mmap(ptr::null_mut(), len, prot, flags, file, offset)? };
        Ok(Self {
            address: NonNull::new(mapped.cast()).ok_or(Errno::NOMEM)?,
            len,
            writable,
        })
    }

    /// The address of its first byte.
    #[must_use]
    pub fn address(&self) -> usize {
        self.address.as_ptr().addr()
    }

    pub(crate) fn pointer(&self) -> NonNull<u8> {
        self.address
    }

    /// Bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none; the kernel makes no such mapping.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// `madvise(address + start, len, MADV_POPULATE_READ)`: brings pages in, and answers an errno where an access
    /// would raise a signal. Linux 5.14.
    ///
    /// # Errors
    ///
    /// What `madvise(2)` says; EINVAL also for a range that is not inside.
    pub fn populate(&self, range: Range<usize>) -> Result<(), Errno> {
        let place = self.place(&range).ok_or(Errno::INVAL)?.cast();
        // SAFETY: the range is inside the mapping, into which no reference exists, and its bytes stay what they are.
        unsafe { rustix::mm::madvise(place, range.len(), Advice::LinuxPopulateRead) }
    }

    /// `mincore(address, len, …)`: which pages of 4 KiB are in memory, as runs of their numbers. mincore(2).
    ///
    /// # Errors
    ///
    /// What `mincore(2)` says.
    pub fn resident(&self) -> Result<Vec<Range<usize>>, Errno> {
        let mut pages = vec![0_u8; self.len.div_ceil(4096)];
        let (first, vector) = (self.address.as_ptr().cast(), pages.as_mut_ptr());
        // SAFETY: the vector has a byte for each page of the mapping, which is only asked about.
        if unsafe { libc::mincore(first, self.len, vector) } != 0 {
            return Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO));
        }
        let mut runs: Vec<Range<usize>> = Vec::new();
        for (at, _) in pages.iter().enumerate().filter(|(_, page)| **page & 1 != 0) {
            match runs.last_mut().filter(|run| run.end == at) {
                Some(run) => run.end += 1,
                None => runs.push(at..at + 1),
            }
        }
        Ok(runs)
    }

    /// Copy bytes out; `None` where they are not inside.
    #[must_use]
    pub fn copy_out(&self, range: Range<usize>) -> Option<Vec<u8>> {
        let first = self.place(&range)?;
        let byte = |at: usize| {
            let place = first.wrapping_add(at);
            // SAFETY: inside the mapping, as `place` found, which lives as long as `self`.
            unsafe { place.read_volatile() }
        };
        Some((0..range.len()).map(byte).collect())
    }

    /// Copy bytes in; `None` where they do not fit, or the mapping is read-only.
    #[must_use]
    pub fn copy_in(&self, offset: usize, bytes: &[u8]) -> Option<()> {
        let end = offset.checked_add(bytes.len())?;
        let first = self.place(&(offset..end)).filter(|_| self.writable)?;
        for (at, byte) in bytes.iter().enumerate() {
            let place = first.wrapping_add(at);
            // SAFETY: inside the mapping, as `place` found, which is writable and lives as long as `self`.
            unsafe { place.write_volatile(*byte) };
        }
        Some(())
    }

    fn place(&self, range: &Range<usize>) -> Option<*mut u8> {
        let inside = range.start <= range.end && range.end <= self.len;
        inside.then(|| self.address.as_ptr().wrapping_add(range.start))
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `of_file`, of this length, into which no reference exists.
        let ended = unsafe { rustix::mm::munmap(self.address.as_ptr().cast(), self.len) };
        debug_assert!(ended.is_ok(), "munmap of our own mapping: {ended:?}");
    }
}

/// `memfd_create(2)` of one page: memory to try something on.
///
/// # Errors
///
/// What the kernel says.
pub fn scratch_page() -> io::Result<File> {
    let made: OwnedFd = rustix::fs::memfd_create("longpin-probe", MemfdFlags::CLOEXEC)?;
    let file = File::from(made);
    file.set_len(rustix::param::page_size() as u64)?;
    Ok(file)
}

/// `getrlimit(RLIMIT_MEMLOCK)`, as far as it binds this process: bytes, `None` where nothing does (unlimited, or
/// CAP_IPC_LOCK).
///
/// # Errors
///
/// The kernel does not tell the capabilities.
pub fn memlock_limit() -> io::Result<Option<u64>> {
    use rustix::thread::CapabilitySet;
    let held = rustix::thread::capabilities(None)?.effective;
    if held.contains(CapabilitySet::IPC_LOCK) {
        return Ok(None);
    }
    Ok(rustix::process::getrlimit(rustix::process::Resource::Memlock).current)
}

/// `VmPin` of `/proc/self/status`: bytes that devices have pinned of this process.
///
/// # Errors
///
/// The file cannot be read.
pub fn pinned_bytes() -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    parse_pinned(&text).ok_or_else(|| io::Error::other("/proc/self/status has no VmPin"))
}

fn parse_pinned(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("VmPin:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.map(|kilobytes| kilobytes.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_in_and_out_inside_only() {
        let file = scratch_page().unwrap();
        let page = rustix::param::page_size();
        let memory = DeviceMemory::of_file(&file, 0, page, true, Sharing::Shared).unwrap();
        memory.copy_in(page - 3, b"abc").unwrap();
        assert_eq!(memory.copy_out(page - 3..page).unwrap(), b"abc");
        assert!(memory.copy_in(page - 2, b"abc").is_none());
        assert!(memory.copy_in(usize::MAX, b"abc").is_none());
        assert!(memory.copy_out(0..page + 1).is_none());
        memory.populate(0..page).unwrap();
        let resident = memory.resident().unwrap();
        assert_eq!(resident.first(), Some(&(0..page.div_ceil(4096))));
        let mut found = [0; 3];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut found, page as u64 - 3).unwrap();
        assert_eq!(&found, b"abc");
        let read = DeviceMemory::of_file(&file, 0, page, false, Sharing::Shared).unwrap();
        assert!(read.copy_in(0, b"x").is_none());
    }

    #[test]
    fn pinned_memory_is_told_in_kilobytes() {
        let text = "VmLck:\t 8 kB\nVmPin:\t   12 kB\n";
        assert_eq!(parse_pinned(text), Some(12 << 10));
        assert_eq!(parse_pinned(""), None);
    }
}
