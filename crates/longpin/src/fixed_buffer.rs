//! io_uring fixed buffers over a file's memory: tmpfs, hugetlbfs, memfd. Planned, mapped and held as every registration.
//!
//! The ring is the buffer's own: data moves by [`FixedBuffer::write_to`] and [`FixedBuffer::read_from`], without the
//! processor copying it out of the file first.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;

use longpin_linux::memory::DeviceMemory;
use longpin_linux::{PinnedMemory, RegisterError as RingError};
use rustix::io::Errno;

use crate::plan::{Access, Device, KernelRules};
use crate::registration::{Protection, RegisterError, RegisterOptions, Target};

/// A range of a file, pinned for io_uring. The mapping outlives the pin, whatever is dropped first.
#[derive(Debug)]
#[must_use = "the buffer is unregistered when it is dropped"]
pub struct FixedBuffer {
    // The pin goes first.
    pinned: PinnedMemory,
    memory: Arc<DeviceMemory>,
    hold: Protection,
}

/// The buffer could not be used or let go.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} the fixed buffer")]
pub struct RingFailed {
    what: &'static str,
    #[source]
    source: RingError,
}

impl FixedBuffer {
    /// Plan, map, `IORING_REGISTER_BUFFERS`. The range in bytes, whole pages or up to the end of the file.
    ///
    /// # Errors
    ///
    /// [`RegisterError`]; nothing stays mapped or pinned.
    pub fn register(file: &File, range: Range<u64>) -> Result<Self, RegisterError> {
        Self::register_with(file, range, &RegisterOptions::default())
    }

    /// The same with options.
    ///
    /// # Errors
    ///
    /// [`RegisterError`]; nothing stays mapped or pinned.
    pub fn register_with(
        file: &File,
        range: Range<u64>,
        options: &RegisterOptions,
    ) -> Result<Self, RegisterError> {
        let target = Target {
            file,
            range,
            access: Access::READ_WRITE,
            device: Device::IoUring,
            kernel: KernelRules::probe()?,
        };
        let prepared = target.prepare(options)?;
        let (memory, planned) = (prepared.memory, prepared.planned);
        let address = memory.address();
        let pinned = longpin_linux::FixedBuffer::register_memory(address, prepared.len);
        let pinned = pinned.map_err(|err| target.explain(errno_of(&err), &planned))?;
        target.check_size(&planned)?;
        let hold = target
            .hold(&planned, prepared.taken, options)?
            .ok_or_else(|| target.explain(Errno::INVAL, &planned))?;
        Ok(Self {
            pinned,
            memory,
            hold,
        })
    }

    /// The hold.
    #[must_use]
    pub const fn hold(&self) -> &Protection {
        &self.hold
    }

    /// The memory, for this process's own reads and writes.
    #[must_use]
    pub fn memory(&self) -> &DeviceMemory {
        &self.memory
    }

    /// `IORING_OP_WRITE_FIXED`: bytes of the buffer into another file.
    ///
    /// # Errors
    ///
    /// The kernel's answer, or that fewer bytes were moved.
    pub fn write_to(
        &mut self,
        bytes: Range<usize>,
        file: &impl AsFd,
        offset: u64,
    ) -> Result<(), RingFailed> {
        let what = "write from";
        let done = self.pinned.write_to(bytes, file, offset);
        done.map_err(|source| RingFailed { what, source })
    }

    /// `IORING_OP_READ_FIXED`: bytes of another file into the buffer, which is the registered file's memory.
    ///
    /// # Errors
    ///
    /// The kernel's answer, or that fewer bytes were moved.
    pub fn read_from(
        &mut self,
        bytes: Range<usize>,
        file: &impl AsFd,
        offset: u64,
    ) -> Result<(), RingFailed> {
        let what = "read into";
        let done = self.pinned.read_from(bytes, file, offset);
        done.map_err(|source| RingFailed { what, source })
    }

    /// `IORING_UNREGISTER_BUFFERS`. The kernel may drop the pins some milliseconds later; so long the guard's hold stands.
    /// One of level swapfile ends here.
    ///
    /// # Errors
    ///
    /// The kernel's answer; the pin then ends with the ring, which is closed in any case.
    pub fn unregister(self) -> Result<(), RingFailed> {
        let what = "unregister";
        let ended = self.pinned.unregister();
        // What it leaves in the kernel refuses nothing, and goes with the next command.
        let _ = self.hold.release();
        ended.map_err(|source| RingFailed { what, source })
    }
}

fn errno_of(err: &RingError) -> Errno {
    let source = match err {
        RingError::MemlockLimit { .. } => return Errno::NOMEM,
        RingError::Map { source, .. }
        | RingError::Disabled(source)
        | RingError::NotPinnable(source)
        | RingError::Ring(source) => source,
        _ => &io::Error::other("io_uring"),
    };
    Errno::from_io_error(source).unwrap_or(Errno::IO)
}
