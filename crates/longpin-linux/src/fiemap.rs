//! `FS_IOC_FIEMAP`: where a file's bytes lie, as its file system tells it.
#![allow(
    unsafe_code,
    reason = "FS_IOC_FIEMAP fills a structure of varying length"
)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use rustix::io::Errno;

/// `_IOWR('f', 11, struct fiemap)`.
const FS_IOC_FIEMAP: libc::c_ulong = 0xc020_660b;
/// `FIEMAP_FLAG_SYNC`: write the file back first.
const FIEMAP_FLAG_SYNC: u32 = 1;
/// Extents that one call may return: 28 KiB, however many the file has.
const AT_ONCE: usize = 512;

/// `FIEMAP_EXTENT_*`: what the file system says of one extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct ExtentFlags(pub u32);

impl ExtentFlags {
    /// The last extent of the file.
    pub const LAST: Self = Self(0x1);
    /// The data is somewhere that has no address.
    pub const UNKNOWN: Self = Self(0x2);
    /// The data is still in memory.
    pub const DELALLOC: Self = Self(0x4);
    /// The data must be decoded: compressed or encrypted.
    pub const ENCODED: Self = Self(0x8);
    /// The data is encrypted by the file system.
    pub const DATA_ENCRYPTED: Self = Self(0x80);
    /// The ends may not be block aligned.
    pub const NOT_ALIGNED: Self = Self(0x100);
    /// The data lies among metadata.
    pub const DATA_INLINE: Self = Self(0x200);
    /// The data is the packed tail of a block.
    pub const DATA_TAIL: Self = Self(0x400);
    /// Space is allocated, and reads as zeroes whatever it holds.
    pub const UNWRITTEN: Self = Self(0x800);
    /// The file system maps single blocks; this extent is made of many answers.
    pub const MERGED: Self = Self(0x1000);
    /// Other files use the same space.
    pub const SHARED: Self = Self(0x2000);

    const NAMES: [(Self, &'static str); 11] = [
        (Self::LAST, "last"),
        (Self::UNKNOWN, "unknown"),
        (Self::DELALLOC, "delalloc"),
        (Self::ENCODED, "encoded"),
        (Self::DATA_ENCRYPTED, "encrypted"),
        (Self::NOT_ALIGNED, "not-aligned"),
        (Self::DATA_INLINE, "inline"),
        (Self::DATA_TAIL, "tail"),
        (Self::UNWRITTEN, "unwritten"),
        (Self::MERGED, "merged"),
        (Self::SHARED, "shared"),
    ];

    /// Has one of these flags.
    #[must_use]
    pub const fn any(self, wanted: Self) -> bool {
        self.0 & wanted.0 != 0
    }

    /// These flags and those.
    #[must_use]
    pub const fn with(self, more: Self) -> Self {
        Self(self.0 | more.0)
    }

    /// The kernel's names, in small letters; a flag without a name as a number.
    #[must_use]
    pub fn names(self) -> Vec<String> {
        let known = Self::NAMES.iter().filter(|(flag, _)| self.any(*flag));
        let mut names: Vec<String> = known.map(|&(_, name)| name.to_owned()).collect();
        let named = Self::NAMES.iter().fold(0, |all, (flag, _)| all | flag.0);
        if self.0 & !named != 0 {
            names.push(format!("{:#x}", self.0 & !named));
        }
        names
    }
}

/// `struct fiemap_extent`: one run of the file, and where the file system says that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawExtent {
    /// Offset in the file, in bytes.
    pub logical: u64,
    /// Offset in the file system's own address space, in bytes: on most, of its block device.
    pub physical: u64,
    /// Bytes.
    pub length: u64,
    /// What the file system says of it.
    pub flags: ExtentFlags,
}

/// Why a file has no map.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FiemapError {
    /// `EOPNOTSUPP`, `ENOTTY`: the file system does not tell.
    #[error("the file system does not tell where its files lie (no FIEMAP)")]
    Unsupported,
    /// The kernel does not get on: an extent that ends before it begins, or where the last one ended.
    #[error("the file system's map makes no sense at offset {at}")]
    Nonsense {
        /// Offset in the file.
        at: u64,
    },
    /// Anything else.
    #[error("FIEMAP failed")]
    Other(#[source] io::Error),
}

/// `struct fiemap` and room for extents.
#[repr(C)]
#[derive(Debug)]
struct Request {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    count: u32,
    reserved: u32,
    extents: [KernelExtent; AT_ONCE],
}

/// `struct fiemap_extent`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct KernelExtent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved64: [u64; 2],
    flags: u32,
    reserved: [u32; 3],
}

const _: () = assert!(size_of::<KernelExtent>() == 56);
const _: () = assert!(size_of::<Request>() == 32 + 56 * AT_ONCE);

/// `ioctl(FS_IOC_FIEMAP)` over a range, as an iterator: extents in the order of the file. The file is
/// written back first (`FIEMAP_FLAG_SYNC`). Memory: one buffer of 28 KiB, whatever the number of extents.
///
/// The map may change between two calls; who must know that compares two readings. Linux 2.6.28.
#[derive(Debug)]
pub struct Fiemap<'file> {
    file: &'file File,
    request: Box<Request>,
    /// Next extent of the buffer.
    next: usize,
    end: u64,
    done: bool,
}

impl<'file> Fiemap<'file> {
    /// The extents that touch `start..end`, in bytes.
    #[must_use]
    pub fn new(file: &'file File, start: u64, end: u64) -> Self {
        let request = Request {
            start,
            length: end.saturating_sub(start),
            flags: FIEMAP_FLAG_SYNC,
            mapped: 0,
            count: 0,
            reserved: 0,
            extents: [KernelExtent::default(); AT_ONCE],
        };
        Self {
            file,
            request: Box::new(request),
            next: 0,
            end,
            done: start >= end,
        }
    }

    /// The next buffer full.
    fn fill(&mut self) -> Result<(), FiemapError> {
        let request = &mut *self.request;
        request.mapped = 0;
        // AT_ONCE is 512.
        request.count = u32::try_from(AT_ONCE).unwrap_or(0);
        request.length = self.end - request.start;
        self.next = 0;
        let pointer = std::ptr::from_mut(request);
        // SAFETY: a whole `struct fiemap` with room for `count` extents behind it, ours alone.
        let answer = unsafe { libc::ioctl(self.file.as_raw_fd(), FS_IOC_FIEMAP, pointer) };
        if answer == 0 {
            // Written back once is enough; what is written later is a change of the file.
            self.request.flags = 0;
            return Ok(());
        }
        let err = io::Error::last_os_error();
        Err(match Errno::from_io_error(&err) {
            Some(Errno::OPNOTSUPP | Errno::NOTTY) => FiemapError::Unsupported,
            _ => FiemapError::Other(err),
        })
    }

    fn take(&mut self) -> Result<Option<RawExtent>, FiemapError> {
        if self.next >= self.request.mapped as usize {
            self.fill()?;
        }
        let mapped = (self.request.mapped as usize).min(AT_ONCE);
        let Some(found) = self.request.extents[..mapped].get(self.next) else {
            return Ok(None);
        };
        self.next += 1;
        let extent = RawExtent {
            logical: found.logical,
            physical: found.physical,
            length: found.length,
            flags: ExtentFlags(found.flags),
        };
        let end = extent.logical.checked_add(extent.length);
        let nonsense = FiemapError::Nonsense { at: extent.logical };
        let end = end
            .filter(|&end| end > self.request.start)
            .ok_or(nonsense)?;
        self.request.start = end;
        self.done = end >= self.end || extent.flags.any(ExtentFlags::LAST);
        Ok(Some(extent))
    }
}

impl Iterator for Fiemap<'_> {
    type Item = Result<RawExtent, FiemapError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let taken = self.take().transpose();
        self.done |= !matches!(taken, Some(Ok(_)));
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn a_sparse_file_has_an_extent_for_each_island() {
        let file = tempfile::tempfile().unwrap();
        // More islands than one call returns.
        let islands = 2 * AT_ONCE as u64 + 3;
        for island in 0..islands {
            file.write_all_at(&[1; 4096], island * 8192).unwrap();
        }
        let found: Result<Vec<_>, _> = Fiemap::new(&file, 0, islands * 8192).collect();
        let found = match found {
            Err(FiemapError::Unsupported) => return println!("not tried: no FIEMAP here"),
            other => other.unwrap(),
        };
        let covered: u64 = found.iter().map(|extent| extent.length).sum();
        assert!(covered >= islands * 4096);
        for island in 0..islands {
            let at = island * 8192;
            let inside = |e: &&RawExtent| e.logical <= at && at < e.logical + e.length;
            assert_eq!(found.iter().filter(inside).count(), 1, "island {island}");
        }
    }

    #[test]
    fn a_range_gets_what_touches_it() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[1; 4096], 0).unwrap();
        file.write_all_at(&[1; 4096], 1 << 20).unwrap();
        let found: Result<Vec<_>, _> = Fiemap::new(&file, 4096, 1 << 20).collect();
        match found {
            Err(FiemapError::Unsupported) => println!("not tried: no FIEMAP here"),
            other => assert!(other.unwrap().is_empty()),
        }
        assert_eq!(Fiemap::new(&file, 5, 5).count(), 0);
    }

    #[test]
    fn flags_have_the_kernels_names() {
        let flags = ExtentFlags(0x1 | 0x800 | 0x4000_0000);
        assert_eq!(flags.names(), ["last", "unwritten", "0x40000000"]);
    }
}
