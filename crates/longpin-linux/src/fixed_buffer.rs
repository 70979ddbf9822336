//! io_uring fixed buffers over file memory: the long-term pin that needs no hardware.
#![allow(
    unsafe_code,
    reason = "mmap and IORING_REGISTER_BUFFERS take raw memory"
)]

use std::ffi::CStr;
use std::fs::File;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

use io_uring::{IoUring, opcode, types};
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

/// Why a file's memory could not become a fixed buffer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// `mmap(2)` failed.
    #[error("cannot map {len} bytes of the file")]
    Map {
        /// Bytes asked for.
        len: usize,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// io_uring is switched off for this process (sysctl `kernel.io_uring_disabled`, or a filter).
    #[error("io_uring is switched off here")]
    Disabled(#[source] std::io::Error),
    /// The kernel does not pin this memory: a writable long-term pin of a file system that tracks
    /// dirty pages (`EFAULT`, 6.5 and later), or DAX (`EOPNOTSUPP`).
    #[error("the kernel does not pin this file's memory for io_uring")]
    NotPinnable(#[source] std::io::Error),
    /// More memory than `RLIMIT_MEMLOCK` allows.
    #[error("the locked-memory limit does not allow {len} bytes")]
    MemlockLimit {
        /// Bytes asked for.
        len: usize,
    },
    /// Anything else.
    #[error("io_uring failed")]
    Ring(#[source] std::io::Error),
}

/// A shared, writable mapping; unmapped on drop. The device may write it at any time, so it is never
/// a slice.
#[derive(Debug)]
struct Mapping {
    address: NonNull<core::ffi::c_void>,
    len: usize,
}

impl Mapping {
    fn of_file(file: &impl AsFd, offset: u64, len: usize) -> Result<Self, RegisterError> {
        let failed = |err: Errno| RegisterError::Map {
            len,
            source: err.into(),
        };
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh shared mapping; nothing else is placed there.
        let mapped = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                len,
                prot,
                MapFlags::SHARED,
                file,
                offset,
            )
        };
        let address = NonNull::new(mapped.map_err(failed)?).ok_or_else(|| failed(Errno::NOMEM))?;
        Ok(Self { address, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `of_file`, of this length.
        let unmapped = unsafe { rustix::mm::munmap(self.address.as_ptr(), self.len) };
        debug_assert!(unmapped.is_ok(), "munmap of a fixed buffer");
    }
}

/// `IORING_REGISTER_BUFFERS` of a range of a file: its pages are pinned (`FOLL_LONGTERM`, for writing)
/// until [`FixedBuffer::unregister`] or drop.
///
/// Shapes: one buffer of `len` bytes at `offset`, a multiple of the page size. Minimum kernel 5.1 for
/// tmpfs and hugetlbfs. io_uring_register(2).
#[derive(Debug)]
pub struct FixedBuffer {
    // The ring goes first: the mapping outlives the pin.
    ring: Ring,
    mapping: Mapping,
}

struct Ring(IoUring);

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IoUring")
    }
}

impl Ring {
    /// What its one registered buffer holds, by way of the registered pages.
    fn read_buffer(
        &mut self,
        address: NonNull<core::ffi::c_void>,
        len: usize,
    ) -> Result<Vec<u8>, RegisterError> {
        let sink = rustix::fs::memfd_create("device-view", MemfdFlags::CLOEXEC)
            .map_err(|err| RegisterError::Ring(err.into()))?;
        let sink = File::from(sink);
        let count = u32::try_from(len).map_err(|_| RegisterError::Ring(Errno::OVERFLOW.into()))?;
        let address = address.as_ptr().cast_const().cast::<u8>();
        let entry = opcode::WriteFixed::new(types::Fd(sink.as_raw_fd()), address, count, 0).build();
        self.submit(&entry, count)?;
        let mut bytes = vec![0; len];
        std::os::unix::fs::FileExt::read_exact_at(&sink, &mut bytes, 0)
            .map_err(RegisterError::Ring)?;
        Ok(bytes)
    }

    fn submit(&mut self, entry: &io_uring::squeue::Entry, len: u32) -> Result<(), RegisterError> {
        // SAFETY: the entry names the registered buffer and a descriptor that outlive the wait below.
        unsafe { self.0.submission().push(entry) }
            .map_err(|_| RegisterError::Ring(Errno::BUSY.into()))?;
        self.0.submit_and_wait(1).map_err(RegisterError::Ring)?;
        let done = self.0.completion().next().map_or(0, |entry| entry.result());
        if u32::try_from(done) == Ok(len) {
            return Ok(());
        }
        Err(RegisterError::Ring(std::io::Error::from_raw_os_error(
            -done,
        )))
    }
}

impl FixedBuffer {
    /// Map `len` bytes of `file` at `offset` and register them with a new ring.
    ///
    /// # Errors
    ///
    /// [`RegisterError`]; nothing stays mapped or pinned.
    pub fn register(file: &impl AsFd, offset: u64, len: usize) -> Result<Self, RegisterError> {
        Self::register_many(Mapping::of_file(file, offset, len)?, 1)
    }

    /// Register the first `len` bytes of `file` as `times` buffers, each a pin of its own.
    ///
    /// # Errors
    ///
    /// [`RegisterError`]; nothing stays mapped or pinned.
    pub fn register_repeatedly(
        file: &impl AsFd,
        len: usize,
        times: usize,
    ) -> Result<Self, RegisterError> {
        Self::register_many(Mapping::of_file(file, 0, len)?, times)
    }

    fn register_many(mapping: Mapping, times: usize) -> Result<Self, RegisterError> {
        let ring = register_ring(mapping.address, mapping.len, times)?;
        Ok(Self { ring, mapping })
    }

    /// What a device that uses the pinned pages reads: the kernel copies from the registered pages,
    /// not through the mapping.
    ///
    /// # Errors
    ///
    /// [`RegisterError::Ring`].
    pub fn read_as_device(&mut self) -> Result<Vec<u8>, RegisterError> {
        self.ring
            .read_buffer(self.mapping.address, self.mapping.len)
    }

    /// Puts anonymous memory in the place of the file: the pin stays, and no mapping keeps the file.
    ///
    /// # Errors
    ///
    /// [`RegisterError::Map`].
    pub fn leave_file(&self) -> Result<(), RegisterError> {
        let (address, len) = (self.mapping.address.as_ptr(), self.mapping.len);
        let flags = MapFlags::PRIVATE | MapFlags::FIXED;
        // SAFETY: the place is our own mapping, into which no reference exists; munmap of it stays as it was.
        let mapped = unsafe { rustix::mm::mmap_anonymous(address, len, ProtFlags::empty(), flags) };
        mapped.map(drop).map_err(|err| RegisterError::Map {
            len,
            source: err.into(),
        })
    }

    /// `IORING_UNREGISTER_BUFFERS`: end the pin. The pages may stay pinned for a moment after.
    ///
    /// # Errors
    ///
    /// [`RegisterError::Ring`]; the pin then ends when the ring is closed, which dropping does.
    pub fn unregister(self) -> Result<(), RegisterError> {
        self.ring
            .0
            .submitter()
            .unregister_buffers()
            .map_err(RegisterError::Ring)
    }
}

/// The pins of memory that somebody else mapped; unpinned on drop.
#[derive(Debug)]
#[must_use = "dropping it unpins"]
pub struct PinnedMemory {
    ring: Ring,
    address: NonNull<core::ffi::c_void>,
    len: usize,
}

// SAFETY: the address only says to the kernel which part of the buffer is meant; nobody reads memory by it.
unsafe impl Send for PinnedMemory {}

impl PinnedMemory {
    /// What a device that uses the pinned pages reads, whatever is mapped at their address now.
    ///
    /// # Errors
    ///
    /// [`RegisterError::Ring`].
    pub fn read_as_device(&mut self) -> Result<Vec<u8>, RegisterError> {
        self.ring.read_buffer(self.address, self.len)
    }

    /// `IORING_OP_WRITE_FIXED`: from the pinned pages into a file. `at` is counted from the buffer's beginning.
    ///
    /// # Errors
    ///
    /// [`RegisterError::Ring`]: the kernel's answer, or that fewer bytes were moved.
    pub fn write_to(
        &mut self,
        at: Range<usize>,
        file: &impl AsFd,
        offset: u64,
    ) -> Result<(), RegisterError> {
        let (place, count) = self.piece(&at)?;
        let fd = types::Fd(file.as_fd().as_raw_fd());
        let request = opcode::WriteFixed::new(fd, place, count, 0).offset(offset);
        self.ring.submit(&request.build(), count)
    }

    /// `IORING_OP_READ_FIXED`: from a file into the pinned pages.
    ///
    /// # Errors
    ///
    /// As [`Self::write_to`].
    pub fn read_from(
        &mut self,
        at: Range<usize>,
        file: &impl AsFd,
        offset: u64,
    ) -> Result<(), RegisterError> {
        let (place, count) = self.piece(&at)?;
        let fd = types::Fd(file.as_fd().as_raw_fd());
        let request = opcode::ReadFixed::new(fd, place.cast_mut(), count, 0).offset(offset);
        self.ring.submit(&request.build(), count)
    }

    fn piece(&self, at: &Range<usize>) -> Result<(*const u8, u32), RegisterError> {
        let invalid = || RegisterError::Ring(Errno::INVAL.into());
        if at.start > at.end || at.end > self.len {
            return Err(invalid());
        }
        let count = u32::try_from(at.len()).map_err(|_| invalid())?;
        let first = self.address.as_ptr().cast_const().cast::<u8>();
        Ok((first.wrapping_add(at.start), count))
    }

    /// `IORING_UNREGISTER_BUFFERS`. The pages may stay pinned for a moment after.
    ///
    /// # Errors
    ///
    /// [`RegisterError::Ring`]; the pin then ends with the ring, which is closed in any case.
    pub fn unregister(self) -> Result<(), RegisterError> {
        let ended = self.ring.0.submitter().unregister_buffers();
        ended.map_err(RegisterError::Ring)
    }
}

impl FixedBuffer {
    /// `IORING_REGISTER_BUFFERS` of memory at an address of this process, whatever is mapped there. The
    /// kernel pins pages, not mappings: nothing needs to stay mapped, and nothing is read or written.
    ///
    /// # Errors
    ///
    /// [`RegisterError`]; nothing stays pinned.
    pub fn register_memory(address: usize, len: usize) -> Result<PinnedMemory, RegisterError> {
        let address = NonNull::new(std::ptr::without_provenance_mut(address));
        let address = address.ok_or(RegisterError::NotPinnable(Errno::FAULT.into()))?;
        Ok(PinnedMemory {
            ring: register_ring(address, len, 1)?,
            address,
            len,
        })
    }
}

fn register_ring(
    address: NonNull<core::ffi::c_void>,
    len: usize,
    times: usize,
) -> Result<Ring, RegisterError> {
    let ring = IoUring::new(2).map_err(name_setup_error)?;
    let buffer = libc::iovec {
        iov_base: address.as_ptr(),
        iov_len: len,
    };
    let buffers = vec![buffer; times];
    // SAFETY: the call reads the vector and pins the pages behind it, or fails; the memory itself is read or
    // written only by later requests, whose makers keep it mapped.
    unsafe { ring.submitter().register_buffers(&buffers) }
        .map_err(|err| name_register_error(err, len))?;
    Ok(Ring(ring))
}

/// `io_uring_setup(2)`: whether this process may make rings.
///
/// # Errors
///
/// The kernel's answer, where it is neither.
pub fn is_enabled() -> std::io::Result<bool> {
    match IoUring::new(1).map_err(name_setup_error) {
        Ok(_) => Ok(true),
        Err(RegisterError::Disabled(_)) => Ok(false),
        Err(RegisterError::Ring(err)) => Err(err),
        Err(err) => Err(std::io::Error::other(err)),
    }
}

/// `IORING_OP_FALLOCATE`: `fallocate(2)` by way of a ring; what it answered.
///
/// # Errors
///
/// [`RegisterError::Ring`] when the ring itself fails.
pub fn fallocate_by_ring(
    file: &impl AsFd,
    mode: i32,
    offset: u64,
    len: u64,
) -> Result<Result<(), Errno>, RegisterError> {
    let fd = types::Fd(file.as_fd().as_raw_fd());
    let entry = opcode::Fallocate::new(fd, len)
        .offset(offset)
        .mode(mode)
        .build();
    // SAFETY: the entry names a descriptor that outlives the call, and no memory.
    unsafe { ask_ring(&entry) }.map(|answer| answer.map(drop))
}

/// `IORING_OP_FTRUNCATE` (since Linux 6.9): `ftruncate(2)` by way of a ring; what it answered.
///
/// # Errors
///
/// [`RegisterError::Ring`] when the ring itself fails.
pub fn ftruncate_by_ring(file: &impl AsFd, len: u64) -> Result<Result<(), Errno>, RegisterError> {
    let fd = types::Fd(file.as_fd().as_raw_fd());
    let entry = opcode::Ftruncate::new(fd, len).build();
    // SAFETY: the entry names a descriptor that outlives the call, and no memory.
    unsafe { ask_ring(&entry) }.map(|answer| answer.map(drop))
}

/// `IORING_OP_WRITE`: `pwrite(2)` by way of a ring; what it answered. Fewer bytes than asked for are `EIO`.
///
/// # Errors
///
/// [`RegisterError::Ring`] when the ring itself fails.
pub fn write_by_ring(
    file: &impl AsFd,
    offset: u64,
    bytes: &[u8],
) -> Result<Result<(), Errno>, RegisterError> {
    let fd = types::Fd(file.as_fd().as_raw_fd());
    let len =
        u32::try_from(bytes.len()).map_err(|_| RegisterError::Ring(Errno::OVERFLOW.into()))?;
    let entry = opcode::Write::new(fd, bytes.as_ptr(), len)
        .offset(offset)
        .build();
    // SAFETY: the entry names a descriptor and bytes that outlive the call; they are only read.
    let answer = unsafe { ask_ring(&entry) }?;
    Ok(answer.and_then(|count| match count == len {
        true => Ok(()),
        false => Err(Errno::IO),
    }))
}

/// `IORING_OP_OPENAT`: `open(2)` of an absolute path by way of a ring; what it answered.
///
/// # Errors
///
/// [`RegisterError::Ring`] when the ring itself fails.
pub fn open_by_ring(path: &CStr, flags: i32) -> Result<Result<OwnedFd, Errno>, RegisterError> {
    let here = types::Fd(libc::AT_FDCWD);
    let entry = opcode::OpenAt::new(here, path.as_ptr())
        .flags(flags | libc::O_CLOEXEC)
        .build();
    // SAFETY: the path outlives the call.
    let answer = unsafe { ask_ring(&entry) }?;
    let fd = answer.and_then(|fd| i32::try_from(fd).map_err(|_| Errno::BADF));
    // SAFETY: a descriptor that was made just now, and is nobody else's.
    Ok(fd.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Has a ring of its own carry out one request, and waits for it.
///
/// # Safety
///
/// What the entry names must outlive the call.
unsafe fn ask_ring(entry: &io_uring::squeue::Entry) -> Result<Result<u32, Errno>, RegisterError> {
    let mut ring = IoUring::new(2).map_err(name_setup_error)?;
    // SAFETY: the caller keeps what the entry names until the wait below has ended.
    unsafe { ring.submission().push(entry) }
        .map_err(|_| RegisterError::Ring(Errno::BUSY.into()))?;
    ring.submit_and_wait(1).map_err(RegisterError::Ring)?;
    let answer = ring
        .completion()
        .next()
        .map_or(-libc::EIO, |entry| entry.result());
    Ok(u32::try_from(answer).map_err(|_| Errno::from_raw_os_error(-answer)))
}

fn name_setup_error(err: std::io::Error) -> RegisterError {
    match err.raw_os_error() {
        Some(libc::EPERM | libc::ENOSYS) => RegisterError::Disabled(err),
        _ => RegisterError::Ring(err),
    }
}

fn name_register_error(err: std::io::Error, len: usize) -> RegisterError {
    match err.raw_os_error() {
        Some(libc::EFAULT | libc::EOPNOTSUPP) => RegisterError::NotPinnable(err),
        Some(libc::ENOMEM) => RegisterError::MemlockLimit { len },
        _ => RegisterError::Ring(err),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_reads_the_file_and_keeps_reading_it_after_a_truncate() {
        let file = File::from(rustix::fs::memfd_create("fixed", MemfdFlags::CLOEXEC).unwrap());
        std::os::unix::fs::FileExt::write_all_at(&file, &[7; 8192], 0).unwrap();
        let mut buffer = match FixedBuffer::register(&file, 0, 8192) {
            Err(RegisterError::Disabled(err)) => {
                assert!(matches!(
                    err.raw_os_error(),
                    Some(libc::EPERM | libc::ENOSYS)
                ));
                println!("not run: io_uring is switched off here ({err})");
                return;
            }
            other => other.unwrap(),
        };
        assert_eq!(buffer.read_as_device().unwrap(), [7; 8192]);
        file.set_len(0).unwrap();
        assert_eq!(
            buffer.read_as_device().unwrap(),
            [7; 8192],
            "the hazard: orphaned pages"
        );
        buffer.unregister().unwrap();
    }

    #[test]
    fn errno_becomes_a_reason() {
        let err = |errno| name_register_error(std::io::Error::from_raw_os_error(errno), 4096);
        assert!(matches!(err(libc::EFAULT), RegisterError::NotPinnable(_)));
        assert!(matches!(
            err(libc::ENOMEM),
            RegisterError::MemlockLimit { len: 4096 }
        ));
        assert!(matches!(err(libc::EIO), RegisterError::Ring(_)));
    }
}
