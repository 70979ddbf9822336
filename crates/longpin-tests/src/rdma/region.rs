//! Memory regions: the pin itself.
#![allow(
    unsafe_code,
    reason = "ibv_reg_mr and ibv_dereg_mr, called directly because the wrapping crate drops the answer of the second"
)]

use std::ops::Range;
use std::ptr::NonNull;

use rdma_mummy_sys as sys;
use rustix::io::Errno;
use sideway::ibverbs::AccessFlags;

use super::ProtectionDomain;
use crate::act::{errno_name, last_errno};
use crate::mapping::Mapping;

/// What the device, and the other end through it, may do with a region. Reading locally is always allowed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Access {
    /// `IBV_ACCESS_REMOTE_READ`.
    pub remote_read: bool,
    /// `IBV_ACCESS_REMOTE_WRITE`, with `IBV_ACCESS_LOCAL_WRITE`, which it needs.
    pub remote_write: bool,
    /// `IBV_ACCESS_LOCAL_WRITE`: the device may write what arrives here.
    pub local_write: bool,
    /// `IBV_ACCESS_ON_DEMAND`: nothing is pinned, the device faults pages in.
    pub on_demand: bool,
}

impl Access {
    /// A pinned region that the other end may read.
    pub const READ: Self = Self {
        remote_read: true,
        remote_write: false,
        local_write: false,
        on_demand: false,
    };

    /// A pinned region that the other end may read and write.
    pub const READ_WRITE: Self = Self {
        remote_write: true,
        local_write: true,
        ..Self::READ
    };

    /// The same access without a pin.
    pub const fn on_demand(self) -> Self {
        Self {
            on_demand: true,
            ..self
        }
    }

    fn bits(self) -> i32 {
        let set = [
            (self.remote_read, AccessFlags::RemoteRead),
            (self.remote_write, AccessFlags::RemoteWrite),
            (
                self.local_write || self.remote_write,
                AccessFlags::LocalWrite,
            ),
            (self.on_demand, AccessFlags::OnDemand),
        ];
        let wanted = set.iter().filter(|(wanted, _)| *wanted);
        wanted.fold(0, |bits, (_, flag)| bits | flag.bits())
    }
}

/// How often an interrupted registration is begun anew.
const TRIES: usize = 100;

/// The kernel or the device refused a region.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("cannot register {len} bytes {}: {}", if access.on_demand { "on demand" } else { "pinned" }, errno_name(*errno))]
pub struct RegisterError {
    /// What the kernel answered.
    pub errno: Errno,
    /// What was asked for.
    pub access: Access,
    /// The length asked for, in bytes.
    pub len: usize,
}

/// The device did not let go of a region. It may still be pinned, so its memory stays mapped until the process ends.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("cannot deregister the region: {}", errno_name(*errno))]
pub struct DeregisterError {
    /// What the kernel answered.
    pub errno: Errno,
}

/// A registered range of a mapping, pinned unless it is on demand.
///
/// It keeps the mapping: memory that the device may write is not reused while it may.
#[derive(Debug)]
#[must_use = "the region is deregistered when it is dropped"]
pub struct Region {
    /// `None` once deregistered.
    region: Option<NonNull<sys::ibv_mr>>,
    lkey: u32,
    rkey: u32,
    range: Range<usize>,
    mapping: Mapping,
    _domain: ProtectionDomain,
}

impl Region {
    /// `ibv_reg_mr(pd, mapping + range.start, range.len(), access)`.
    ///
    /// # Panics
    ///
    /// When the range is not inside the mapping.
    pub fn register(
        domain: &ProtectionDomain,
        mapping: &Mapping,
        range: Range<usize>,
        access: Access,
    ) -> Result<Self, RegisterError> {
        let inside = range.start <= range.end && range.end <= mapping.len();
        assert!(inside, "range {range:?} is not inside the mapping");
        // SAFETY: the domain lives as long as the region, which keeps it.
        let pd = unsafe { domain.domain.pd() };
        let first = mapping.pointer(range.start).cast();
        let bits = access.bits();
        let ask = || {
            // SAFETY: the range is inside the mapping (asserted above), which the region keeps mapped; no reference to
            // that memory exists, so the device may write it at any moment.
            let region = unsafe { sys::ibv_reg_mr(pd.as_ptr(), first, range.len(), bits) };
            NonNull::new(region).ok_or_else(|| RegisterError {
                errno: last_errno(),
                access,
                len: range.len(),
            })
        };
        let interrupted = |err: &RegisterError| err.errno == Errno::INTR;
        // The first on-demand region of a process watches all of its memory, and gives up when a signal is pending.
        let mut answers = std::iter::repeat_with(ask).take(TRIES);
        let region = answers.find(|it| !it.as_ref().is_err_and(interrupted));
        let region = region.unwrap_or(Err(RegisterError {
            errno: Errno::INTR,
            access,
            len: range.len(),
        }))?;
        // SAFETY: the library returned it, and it stays valid until ibv_dereg_mr.
        let keys = unsafe { region.as_ref() };
        Ok(Self {
            lkey: keys.lkey,
            rkey: keys.rkey,
            region: Some(region),
            range,
            mapping: mapping.clone(),
            _domain: domain.clone(),
        })
    }

    /// The key for work requests of this process.
    pub const fn lkey(&self) -> u32 {
        self.lkey
    }

    /// The key that the other end needs.
    pub const fn rkey(&self) -> u32 {
        self.rkey
    }

    /// The address that the other end names.
    pub fn addr(&self) -> u64 {
        (self.mapping.addr() + self.range.start) as u64
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// `ibv_dereg_mr`: the device lets go, and the pages are unpinned before this returns.
    pub fn deregister(mut self) -> Result<(), DeregisterError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), DeregisterError> {
        let Some(region) = self.region.take() else {
            return Ok(());
        };
        // SAFETY: it is ours, valid, and taken: nobody uses it afterwards.
        match unsafe { sys::ibv_dereg_mr(region.as_ptr()) } {
            0 => Ok(()),
            answer => {
                // The device may still write there: leak one owner, so that the memory is never given to anybody else.
                std::mem::forget(self.mapping.clone());
                Err(DeregisterError {
                    errno: Errno::from_raw_os_error(answer),
                })
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
