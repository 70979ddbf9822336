//! `struct ibv_mr`.
#![allow(unsafe_code, reason = "ibv_reg_mr, ibv_dereg_mr, ibv_advise_mr")]

use std::ffi::c_void;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::io::Errno;

use super::abi::{self, Before};
use super::{ProtectionDomain, extended};
use crate::memory::DeviceMemory;

/// How often a registration that was interrupted is begun anew.
const TRIES: usize = 1000;

/// What the device, and the other end through it, may do. Reading locally is always allowed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RegionAccess {
    /// `IBV_ACCESS_LOCAL_WRITE`: the device may write what arrives here.
    pub local_write: bool,
    /// `IBV_ACCESS_REMOTE_READ`.
    pub remote_read: bool,
    /// `IBV_ACCESS_REMOTE_WRITE`; brings `IBV_ACCESS_LOCAL_WRITE`, which it needs.
    pub remote_write: bool,
}

impl RegionAccess {
    /// The other end may read.
    pub const READ: Self = Self {
        local_write: false,
        remote_read: true,
        remote_write: false,
    };

    /// The other end may read and write.
    pub const READ_WRITE: Self = Self {
        local_write: true,
        remote_read: true,
        remote_write: true,
    };

    /// The device writes the memory.
    #[must_use]
    pub const fn writes(self) -> bool {
        self.local_write || self.remote_write
    }

    fn bits(self, on_demand: bool) -> i32 {
        let set = [
            (self.writes(), abi::LOCAL_WRITE),
            (self.remote_write, abi::REMOTE_WRITE),
            (self.remote_read, abi::REMOTE_READ),
            (on_demand, abi::ON_DEMAND),
        ];
        let wanted = set.iter().filter(|(wanted, _)| *wanted);
        wanted.fold(0, |bits, (_, bit)| bits | bit)
    }
}

/// A registered range of memory. It keeps the memory and the domain, whatever is dropped first.
#[derive(Debug)]
#[must_use = "the region is deregistered when it is dropped"]
pub struct Region {
    /// `None` once deregistered.
    raw: Option<NonNull<abi::Mr>>,
    lkey: u32,
    rkey: u32,
    len: usize,
    memory: Arc<DeviceMemory>,
    domain: ProtectionDomain,
}

// SAFETY: libibverbs locks for itself, and the memory is Send and Sync.
unsafe impl Send for Region {}
// SAFETY: as above; nothing is changed through a shared reference.
unsafe impl Sync for Region {}

impl Region {
    /// `ibv_reg_mr(pd, memory, len, access)`; `on_demand` adds `IBV_ACCESS_ON_DEMAND`. ibv_reg_mr(3).
    ///
    /// # Errors
    ///
    /// The kernel's or the driver's answer; nothing stays registered. EINVAL for more bytes than the memory has.
    pub fn register(
        domain: &ProtectionDomain,
        memory: &Arc<DeviceMemory>,
        len: usize,
        access: RegionAccess,
        on_demand: bool,
    ) -> Result<Self, Errno> {
        if len > memory.len() {
            return Err(Errno::INVAL);
        }
        let first = memory.pointer().as_ptr().cast();
        let (pd, bits) = (domain.0.raw.as_ptr(), access.bits(on_demand));
        let ask = || {
            // SAFETY: the range is inside the memory, which the region keeps mapped, as it keeps the domain; no reference
            // to that memory exists, so the device may write it at any moment.
            let made = unsafe { (domain.0.library.reg_mr)(pd, first, len, bits) };
            NonNull::new(made).ok_or_else(last_errno)
        };
        // The first on-demand region of a process watches all of its memory, and gives up when a signal is pending.
        let mut answers = std::iter::repeat_with(ask).take(TRIES);
        let raw = answers
            .find(|answer| !matches!(answer, Err(Errno::INTR)))
            .unwrap_or(Err(Errno::INTR))?;
        // SAFETY: the library returned it, and it stays valid until ibv_dereg_mr.
        let keys = unsafe { raw.as_ref() };
        Ok(Self {
            lkey: keys.lkey,
            rkey: keys.rkey,
            raw: Some(raw),
            len,
            memory: memory.clone(),
            domain: domain.clone(),
        })
    }

    /// The key for work requests of this process.
    #[must_use]
    pub const fn lkey(&self) -> u32 {
        self.lkey
    }

    /// The key that the other end needs.
    #[must_use]
    pub const fn rkey(&self) -> u32 {
        self.rkey
    }

    /// Registered bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The memory.
    #[must_use]
    pub const fn memory(&self) -> &Arc<DeviceMemory> {
        &self.memory
    }

    /// `ibv_advise_mr(IBV_ADVISE_MR_ADVICE_PREFETCH[_WRITE], IBV_ADVISE_MR_FLAG_FLUSH)`: fault pages of an on-demand
    /// region in, and return when they are. Where rdma-core's driver has no such call, the kernel is asked all the same, as
    /// other drivers do (`ibv_cmd_advise_mr`): soft-RoCE's kernel part takes advice since Linux 6.17. ibv_advise_mr(3).
    ///
    /// # Errors
    ///
    /// EOPNOTSUPP where library, driver or kernel take no advice for this region; EINVAL for a range that is not inside; else the driver's answer.
    pub fn prefetch(&self, range: Range<usize>, write: bool) -> Result<(), Errno> {
        const FLUSH: u32 = 1;
        if range.start > range.end || range.end > self.len {
            return Err(Errno::INVAL);
        }
        let piece = abi::Sge {
            addr: (self.memory.address() + range.start) as u64,
            length: u32::try_from(range.len()).map_err(|_| Errno::INVAL)?,
            lkey: self.lkey,
        };
        let pd = self.domain.0.raw.as_ptr();
        let ask = |advise: abi::AdviseMr| {
            let mut piece = piece;
            // SAFETY: one piece, which is read only; the domain is alive.
            match unsafe { advise(pd, u32::from(write), FLUSH, &raw mut piece, 1) } {
                0 => Ok(()),
                // The range is inside. soft-RoCE says so of regions that the device may not write.
                libc::EINVAL => Err(Errno::OPNOTSUPP),
                err => Err(Errno::from_raw_os_error(err.abs())),
            }
        };
        let answer = self.advice().map_or(Err(Errno::OPNOTSUPP), ask);
        match (answer, self.domain.0.library.cmd_advise_mr) {
            (Err(Errno::OPNOTSUPP | Errno::NOSYS), Some(directly)) => ask(directly),
            (answer, _) => answer,
        }
    }

    /// The driver's `advise_mr`.
    fn advice(&self) -> Option<abi::AdviseMr> {
        // SAFETY: the domain's context is open as long as the domain, which `self` keeps.
        let context = NonNull::new(unsafe { self.domain.0.raw.as_ref() }.context)?;
        // SAFETY: as above.
        let found = unsafe { extended(context, Before::AdviseMr) }?;
        // SAFETY: the member of this name has this type.
        Some(unsafe { std::mem::transmute::<*mut c_void, abi::AdviseMr>(found.as_ptr()) })
    }

    /// `ibv_dereg_mr`: the device lets go, and the pages are unpinned before this returns. ibv_dereg_mr(3).
    ///
    /// # Errors
    ///
    /// The driver's answer. The device may still use the memory then: it stays mapped until the process ends.
    pub fn deregister(mut self) -> Result<(), Errno> {
        self.end()
    }

    /// The same for an owner who has to know whether it worked when it is dropped. The second time there is nothing to do.
    ///
    /// # Errors
    ///
    /// As [`Region::deregister`].
    pub fn end(&mut self) -> Result<(), Errno> {
        let Some(raw) = self.raw.take() else {
            return Ok(());
        };
        // SAFETY: ours, valid, and taken: nobody uses it afterwards.
        match unsafe { (self.domain.0.library.dereg_mr)(raw.as_ptr()) } {
            0 => Ok(()),
            answer => {
                // One owner is lost on purpose, so that nobody else is ever given what the device may write.
                std::mem::forget(self.memory.clone());
                Err(Errno::from_raw_os_error(answer.abs()))
            }
        }
    }
}

impl Drop for Region {
    /// The emergency path: [`Region::deregister`] says whether it worked.
    fn drop(&mut self) {
        let _ = self.end();
    }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
