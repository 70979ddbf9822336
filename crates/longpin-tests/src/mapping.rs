//! Mappings whose memory a device, or anybody else, may write at any moment.
//!
//! No reference to the mapped bytes ever exists: they are copied, word by word, with volatile accesses.
#![allow(
    unsafe_code,
    reason = "mmap, munmap and accesses to memory that no Rust reference may describe"
)]

use std::ops::Range;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};
use std::rc::Rc;

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

use crate::PAGE;

/// linux/mman.h; the crates beneath do not have it.
const MADV_COLLAPSE: libc::c_int = 25;

/// A mapped range, unmapped when the last owner drops it: this value, or a memory region registered over it.
///
/// An access behind the end of a file that has been truncated raises `SIGBUS`, as it does in any language.
#[derive(Debug, Clone)]
pub struct Mapping {
    memory: Rc<Memory>,
    writable: bool,
}

#[derive(Debug)]
struct Memory {
    base: NonNull<u8>,
    len: usize,
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: `base` and `len` are what mmap returned for this value alone, and no reference into it exists.
        let ended = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert!(ended.is_ok(), "munmap of our own mapping: {ended:?}");
    }
}

/// What anonymous memory is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageSize {
    /// Pages of 4 KiB.
    Small,
    /// Pages of 2 MiB, as far as there are any.
    Huge,
}

impl Mapping {
    /// `mmap(NULL, len, PROT_READ [| PROT_WRITE], MAP_SHARED, file, offset)`.
    pub fn shared(
        file: &impl AsFd,
        offset: u64,
        len: usize,
        writable: bool,
    ) -> Result<Self, Errno> {
        Self::of_file(file, offset, len, writable, MapFlags::SHARED)
    }

    /// `mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, offset)`: the file's pages until they are written, which
    /// makes each a copy.
    pub fn private(file: &impl AsFd, offset: u64, len: usize) -> Result<Self, Errno> {
        Self::of_file(file, offset, len, true, MapFlags::PRIVATE)
    }

    fn of_file(
        file: &impl AsFd,
        offset: u64,
        len: usize,
        writable: bool,
        flags: MapFlags,
    ) -> Result<Self, Errno> {
        let (any, prot) = (ptr::null_mut(), protection(writable));
        // SAFETY: the kernel chooses a free address; nothing that exists is replaced.
        let base = unsafe { mmap(any, len, prot, flags, file, offset)? };
        Self::own(base.cast(), len, writable)
    }

    /// `mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)`: memory without a file.
    pub fn anonymous(len: usize) -> Result<Self, Errno> {
        // SAFETY: the kernel chooses a free address; nothing that exists is replaced.
        let base =
            unsafe { mmap_anonymous(ptr::null_mut(), len, protection(true), MapFlags::PRIVATE)? };
        Self::own(base.cast(), len, true)
    }

    /// The same, made of small or of huge pages (`madvise`, MADV_NOHUGEPAGE or MADV_HUGEPAGE).
    pub fn anonymous_of(len: usize, pages: PageSize) -> Result<Self, Errno> {
        let mapping = Self::anonymous(len)?;
        let advice = match pages {
            PageSize::Small => rustix::mm::Advice::LinuxNoHugepage,
            PageSize::Huge => rustix::mm::Advice::LinuxHugepage,
        };
        let base = mapping.memory.base.as_ptr().cast();
        // SAFETY: the range is this mapping; the advice changes no byte of it.
        unsafe { rustix::mm::madvise(base, len, advice)? };
        Ok(mapping)
    }

    fn own(base: *mut u8, len: usize, writable: bool) -> Result<Self, Errno> {
        let base = NonNull::new(base).ok_or(Errno::NOMEM)?;
        Ok(Self {
            memory: Rc::new(Memory { base, len }),
            writable,
        })
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.memory.len
    }

    /// Whether the mapping is empty; the kernel makes no such mapping.
    pub fn is_empty(&self) -> bool {
        self.memory.len == 0
    }

    /// The address of its first byte.
    pub fn addr(&self) -> usize {
        self.memory.base.as_ptr().addr()
    }

    /// `mmap(addr + at, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, offset)`: another file in the middle of
    /// this mapping.
    pub fn replace(
        &self,
        at: usize,
        file: &impl AsFd,
        offset: u64,
        len: usize,
    ) -> Result<(), Errno> {
        self.assert_inside(&(at..at + len));
        let place = self.pointer(at).cast();
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        // SAFETY: the place lies inside this mapping, into which no reference exists; munmap of the whole ends it too.
        unsafe { mmap(place, len, protection(true), flags, file, offset).map(drop) }
    }

    /// `munmap(addr + start, len)`: a hole in the mapping. Who touches it dies.
    pub fn leave_hole(&self, range: Range<usize>) -> Result<(), Errno> {
        self.assert_inside(&range);
        let place = self.pointer(range.start).cast();
        // SAFETY: the place lies inside this mapping, into which no reference exists; munmap of the whole passes over it.
        unsafe { munmap(place, range.len()) }
    }

    /// `madvise(addr, len, MADV_REMOVE)`: punch the file under the mapping.
    pub fn remove(&self) -> Result<(), Errno> {
        let base = self.memory.base.as_ptr().cast();
        // SAFETY: the mapping is shared and no reference into it exists: bytes that turn to zero harm nobody.
        unsafe { rustix::mm::madvise(base, self.len(), rustix::mm::Advice::LinuxRemove) }
    }

    /// `madvise(addr + start, len, MADV_POPULATE_READ)`: brings pages into memory, and answers an errno where an access would
    /// raise a signal.
    pub fn populate(&self, range: Range<usize>) -> Result<(), Errno> {
        self.advise(range, rustix::mm::Advice::LinuxPopulateRead)
    }

    /// `madvise(addr + start, len, advice)`.
    ///
    /// # Panics
    ///
    /// When the range is not inside the mapping.
    pub fn advise(&self, range: Range<usize>, advice: rustix::mm::Advice) -> Result<(), Errno> {
        self.assert_inside(&range);
        let place = self.pointer(range.start).cast();
        // SAFETY: the range is inside the mapping, into which no reference exists: bytes that change harm nobody.
        unsafe { rustix::mm::madvise(place, range.len(), advice) }
    }

    /// `madvise(addr + start, len, MADV_COLLAPSE)` (since Linux 6.1): puts a huge page in the place of small ones.
    ///
    /// # Panics
    ///
    /// When the range is not inside the mapping.
    pub fn collapse(&self, range: Range<usize>) -> Result<(), Errno> {
        self.assert_inside(&range);
        let place = self.pointer(range.start).cast();
        // SAFETY: the range is inside the mapping, and its bytes stay what they are.
        match unsafe { libc::madvise(place, range.len(), MADV_COLLAPSE) } {
            0 => Ok(()),
            _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
        }
    }

    /// Puts anonymous memory in the place of the file: the mapping no longer keeps the file, and whoever has its pages
    /// pinned keeps just these.
    pub fn leave_file(&self) -> Result<(), Errno> {
        let flags = MapFlags::PRIVATE | MapFlags::FIXED;
        let place = self.pointer(0).cast();
        // SAFETY: the place is this mapping, into which no reference exists; munmap of the whole ends it as before.
        unsafe { mmap_anonymous(place, self.len(), protection(self.writable), flags).map(drop) }
    }

    /// Brings every page into memory by reading one byte of it.
    pub fn touch(&self) {
        for at in (0..self.len()).step_by(PAGE) {
            self.load(at);
        }
    }

    /// Brings every page into memory, and makes it this mapping's own where it is private, by writing a byte of it.
    pub fn touch_to_write(&self) {
        for at in (0..self.len()).step_by(PAGE) {
            self.copy_in(at, &[1]);
        }
    }

    /// Copies a range of bytes out.
    ///
    /// # Panics
    ///
    /// When the range is not inside the mapping.
    pub fn copy_out(&self, range: Range<usize>) -> Vec<u8> {
        self.assert_inside(&range);
        let mut bytes = Vec::with_capacity(range.len());
        let mut at = range.start;
        while at < range.end {
            let place = self.addr() + at;
            if place % 8 == 0 && range.end - at >= 8 {
                // SAFETY: eight aligned bytes inside the mapping, which lives as long as `self`.
                let word = unsafe { self.pointer(at).cast::<u64>().read_volatile() };
                bytes.extend_from_slice(&word.to_ne_bytes());
                at += 8;
            } else {
                bytes.push(self.load(at));
                at += 1;
            }
        }
        bytes
    }

    /// Copies bytes in.
    ///
    /// # Panics
    ///
    /// When the mapping is read-only, or the bytes do not fit behind `offset`.
    pub fn copy_in(&self, offset: usize, bytes: &[u8]) {
        assert!(self.writable, "store into a read-only mapping");
        self.assert_inside(&(offset..offset + bytes.len()));
        let mut at = offset;
        let mut rest = bytes;
        while let Some(byte) = rest.first() {
            let aligned = (self.addr() + at) % 8 == 0;
            if let Some(word) = rest.first_chunk::<8>().filter(|_| aligned) {
                let place = self.pointer(at).cast::<u64>();
                // SAFETY: eight aligned bytes inside the mapping (asserted above), writable, alive as long as `self`.
                unsafe { place.write_volatile(u64::from_ne_bytes(*word)) };
                at += 8;
                rest = &rest[8..];
            } else {
                // SAFETY: inside the mapping (asserted above), which is writable and lives as long as `self`.
                unsafe { self.pointer(at).write_volatile(*byte) };
                at += 1;
                rest = &rest[1..];
            }
        }
    }

    fn load(&self, at: usize) -> u8 {
        // SAFETY: the callers keep `at` below the length; the mapping lives as long as `self`.
        unsafe { self.pointer(at).read_volatile() }
    }

    pub(crate) fn pointer(&self, at: usize) -> *mut u8 {
        self.memory.base.as_ptr().wrapping_add(at)
    }

    fn assert_inside(&self, range: &Range<usize>) {
        assert!(
            range.start <= range.end && range.end <= self.len(),
            "range {range:?} is not inside a mapping of {} bytes",
            self.len()
        );
    }
}

fn protection(writable: bool) -> ProtFlags {
    if writable {
        ProtFlags::READ | ProtFlags::WRITE
    } else {
        ProtFlags::READ
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn copies_in_and_out_at_any_alignment() {
        let mapping = Mapping::anonymous(2 * PAGE).unwrap();
        let bytes: Vec<u8> = (0..100).collect();
        mapping.copy_in(PAGE - 51, &bytes);
        assert_eq!(mapping.copy_out(PAGE - 51..PAGE + 49), bytes);
        assert_eq!(mapping.copy_out(PAGE + 49..PAGE + 52), [0, 0, 0]);
    }

    #[test]
    fn a_shared_mapping_shows_the_file() {
        let file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut &file, b"weights").unwrap();
        let mapping = Mapping::shared(&file, 0, PAGE, false).unwrap();
        mapping.touch();
        assert_eq!(mapping.copy_out(0..7), b"weights");
    }
}
