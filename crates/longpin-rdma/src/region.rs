//! Regions.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use longpin::hold::ReleaseError;
use longpin::plan::{Access, Device, KernelRules, Plan, Planned};
use longpin::registration::{Protection, RegisterError, RegisterOptions, Target};
use longpin_linux::memory::{self, DeviceMemory, Sharing};
use longpin_linux::verbs::{ProtectionDomain, Region};
use rustix::io::Errno;

/// The most that one piece of advice covers: its length has 32 bits.
const ADVICE: usize = 1 << 30;

/// How the device got the memory.
#[derive(Debug)]
pub enum Kind {
    /// The device faults pages in; the file system may take them back at any time.
    OnDemand,
    /// The device faults pages in, and the file is held at level swapfile: the file system has nothing to take back.
    HeldOnDemand {
        /// What holds the file.
        hold: Protection,
        /// The pages were brought in when it was registered; otherwise the first accesses wait.
        prefetched: bool,
    },
    /// The pages are pinned.
    Longterm {
        /// What keeps them the file's.
        hold: Protection,
    },
}

impl Kind {
    /// What holds the file; `None`: nobody does.
    #[must_use]
    pub const fn hold(&self) -> Option<&Protection> {
        match self {
            Self::OnDemand => None,
            Self::HeldOnDemand { hold, .. } | Self::Longterm { hold } => Some(hold),
        }
    }

    /// In words; asks the guard.
    #[must_use]
    pub fn text(&self) -> String {
        let name = match self {
            Self::Longterm { .. } => "pinned",
            _ => "on demand",
        };
        match self.hold().map(Protection::state) {
            None => name.into(),
            Some(Ok(protection)) => format!("{name}, {}", protection.text()),
            Some(Err(err)) => format!("{name}, {err}"),
        }
    }
}

/// A registered range of a file. It keeps the mapping and the domain, whatever is dropped first.
#[derive(Debug)]
#[must_use = "the region is deregistered when it is dropped"]
pub struct MemoryRegion {
    region: Region,
    /// Its hold ends after the region, or not before the process does.
    kind: Kind,
}

/// What did not end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeregisterError {
    /// The device did not let go. It may still use the memory, which stays mapped, and held where it was, until the process
    /// ends.
    #[error("cannot deregister the region")]
    Device(#[source] io::Error),
    /// The device has let go, and the file is free; what the hold needed in the kernel was not removed.
    #[error("cannot clear up after the hold")]
    Hold(#[source] ReleaseError),
}

/// Pages could not be brought in beforehand. The region works all the same.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrefetchError {
    /// A pinned region has all its pages.
    #[error("the region is pinned: there is nothing to bring in")]
    Pinned,
    /// Library, driver or kernel take no such advice, or not for this region: soft-RoCE only where the device may write.
    #[error("this device takes no prefetch advice for this region")]
    Unsupported,
    /// The pages are not to be had: behind the end of the file, or outside the region.
    #[error("cannot bring in bytes {}..{} of the region", range.start, range.end)]
    Failed {
        /// The bytes.
        range: Range<usize>,
        /// What the driver said.
        #[source]
        source: io::Error,
    },
}

impl MemoryRegion {
    /// Plan, `mmap(2)`, `ibv_reg_mr`. The range in bytes, whole pages or up to the end of the file.
    ///
    /// Reports how it is protected ([`Protection::state`]); to insist on it, [`RegisterOptions::require_hold`].
    ///
    /// # Errors
    ///
    /// [`RegisterError`]; nothing stays mapped or registered.
    pub fn register(
        domain: &ProtectionDomain,
        file: &File,
        range: Range<u64>,
        access: Access,
    ) -> Result<Self, RegisterError> {
        Self::register_with(domain, file, range, access, &RegisterOptions::default())
    }

    /// The same with options.
    ///
    /// # Errors
    ///
    /// [`RegisterError`]; nothing stays mapped or registered.
    pub fn register_with(
        domain: &ProtectionDomain,
        file: &File,
        range: Range<u64>,
        access: Access,
        options: &RegisterOptions,
    ) -> Result<Self, RegisterError> {
        let device = domain.capabilities().map_err(device_failed)?;
        let target = Target {
            file,
            range,
            access,
            device: Device::Rdma(device),
            kernel: kernel_rules(domain)?,
        };
        let prepared = target.prepare(options)?;
        let (memory, planned) = (prepared.memory, prepared.planned);
        let on_demand = planned.plan.is_on_demand();
        // Declared after the hold in `prepared`: whatever fails, it ends before it.
        let region = Region::register(domain, &memory, prepared.len, access, on_demand)
            .map_err(|errno| target.explain(errno, &planned))?;
        if planned.plan != Plan::OnDemand {
            // What shrinks under an on-demand region that nobody holds is for the device to meet.
            target.check_size(&planned)?;
        }
        let hold = target.hold(&planned, prepared.taken, options)?;
        let mut made = Self {
            region,
            kind: match hold {
                None => Kind::OnDemand,
                Some(hold) if on_demand => Kind::HeldOnDemand {
                    hold,
                    prefetched: false,
                },
                Some(hold) => Kind::Longterm { hold },
            },
        };
        made.prefetch_held(access.writes(), &target, &planned)?;
        Ok(made)
    }

    /// All pages are there, and nobody takes them away: bring them in now.
    fn prefetch_held(
        &mut self,
        write: bool,
        target: &Target<'_>,
        planned: &Planned,
    ) -> Result<(), RegisterError> {
        if !matches!(self.kind, Kind::HeldOnDemand { .. }) {
            return Ok(());
        }
        match (self.advise(0..self.len(), write), &mut self.kind) {
            (Ok(()), Kind::HeldOnDemand { prefetched, .. }) => *prefetched = true,
            (Err((_, Errno::OPNOTSUPP | Errno::NOSYS)), _) | (Ok(()), _) => {}
            (Err((_, errno)), _) => return Err(target.explain(errno, planned)),
        }
        Ok(())
    }

    /// How the device got the memory.
    #[must_use]
    pub const fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The address that the other end names.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.memory().address() as u64
    }

    /// Bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.region.len()
    }

    /// Whether there are none; such a region is not made.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.region.is_empty()
    }

    /// The key for work requests of this process.
    #[must_use]
    pub const fn lkey(&self) -> u32 {
        self.region.lkey()
    }

    /// The key that the other end needs.
    #[must_use]
    pub const fn rkey(&self) -> u32 {
        self.region.rkey()
    }

    /// The memory, for this process's own reads and writes.
    #[must_use]
    pub fn memory(&self) -> &Arc<DeviceMemory> {
        self.region.memory()
    }

    /// `ibv_advise_mr`: the device brings these bytes of an on-demand region in, so that the first access does not wait.
    ///
    /// # Errors
    ///
    /// [`PrefetchError`].
    pub fn prefetch(&self, bytes: Range<usize>, write: bool) -> Result<(), PrefetchError> {
        if matches!(self.kind, Kind::Longterm { .. }) {
            return Err(PrefetchError::Pinned);
        }
        self.advise(bytes, write)
            .map_err(|(range, errno)| match errno {
                Errno::OPNOTSUPP | Errno::NOSYS => PrefetchError::Unsupported,
                errno => PrefetchError::Failed {
                    range,
                    source: errno.into(),
                },
            })
    }

    fn advise(&self, bytes: Range<usize>, write: bool) -> Result<(), (Range<usize>, Errno)> {
        if bytes.start > bytes.end || bytes.end > self.len() {
            return Err((bytes, Errno::INVAL));
        }
        for start in bytes.clone().step_by(ADVICE) {
            let piece = start..bytes.end.min(start + ADVICE);
            let advised = self.region.prefetch(piece.clone(), write);
            advised.map_err(|errno| (piece, errno))?;
        }
        Ok(())
    }

    /// `ibv_dereg_mr`: the device lets go, and the pages are unpinned before this returns. Then a hold of level swapfile
    /// ends.
    ///
    /// # Errors
    ///
    /// [`DeregisterError`].
    pub fn deregister(mut self) -> Result<(), DeregisterError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), DeregisterError> {
        let ended = self.region.end();
        match (ended, std::mem::replace(&mut self.kind, Kind::OnDemand)) {
            (Err(errno), kind) => {
                // The device may go on: the hold is lost on purpose, so that it stands as long as this process.
                std::mem::forget(kind);
                Err(DeregisterError::Device(errno.into()))
            }
            (Ok(()), Kind::HeldOnDemand { hold, .. } | Kind::Longterm { hold }) => {
                hold.release().map_err(DeregisterError::Hold)
            }
            (Ok(()), Kind::OnDemand) => Ok(()),
        }
    }
}

impl Drop for MemoryRegion {
    /// The emergency path: [`MemoryRegion::deregister`] says whether it worked.
    fn drop(&mut self) {
        let _ = self.end();
    }
}

fn device_failed(err: impl std::error::Error + Send + Sync + 'static) -> RegisterError {
    RegisterError::Device(Box::new(err))
}

/// The kernel's rules, as far as they concern this device. One page of a memfd that may only be read is registered for it,
/// and let go: before Linux 6.2 that fails.
///
/// # Errors
///
/// [`RegisterError::Device`], [`RegisterError::Plan`].
pub fn kernel_rules(domain: &ProtectionDomain) -> Result<KernelRules, RegisterError> {
    static RULES: std::sync::OnceLock<KernelRules> = std::sync::OnceLock::new();
    if let Some(rules) = RULES.get() {
        return Ok(*rules);
    }
    let rules = KernelRules {
        rdma_always_writes: always_writes(domain)?,
        ..KernelRules::probe()?
    };
    Ok(*RULES.get_or_init(|| rules))
}

fn always_writes(domain: &ProtectionDomain) -> Result<bool, RegisterError> {
    let page = memory::scratch_page().map_err(device_failed)?;
    let len = rustix::param::page_size();
    let mapped = DeviceMemory::of_file(&page, 0, len, false, Sharing::Shared);
    let mapped = Arc::new(mapped.map_err(|errno| device_failed(io::Error::from(errno)))?);
    match Region::register(domain, &mapped, len, Access::READ, false) {
        Ok(region) => region
            .deregister()
            .map(|()| false)
            .map_err(|errno| device_failed(io::Error::from(errno))),
        Err(Errno::FAULT) => Ok(true),
        Err(errno) => Err(device_failed(io::Error::from(errno))),
    }
}
