//! From a plan to a registration: what every kind of device has in common.
//!
//! The order is the same for all: plan, try (if asked for), hold (at level swapfile), map, register, look whether the file
//! has shrunk meanwhile, ask the guard (if asked for). Whatever fails, nothing stays registered, mapped or held.

mod error;
mod protection;
mod trial;

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use longpin_linux::memory::{self, DeviceMemory, Sharing};
use rustix::io::Errno;

use crate::activation::ByteRange;
use crate::hold::Level;
use crate::plan::{
    self, Access, Device, KernelRules, Medium, Plan, PlanError, PlanRequest, Planned, Wish,
};

pub use error::RegisterError;
pub use protection::{Protection, ProtectionError, ProtectionState};
pub use trial::{Trial, TrialError};

/// How to register.
#[derive(Debug, Clone, Default)]
pub struct RegisterOptions {
    /// Which kind of registration is wanted.
    pub wish: Wish,
    /// What the file is held at. Level swapfile takes a hold of its own before anything else, or refuses: nobody but this
    /// process can change the file meanwhile, and an on-demand region is never torn down for somebody who does.
    pub level: Level,
    /// `mmap(2)` with MAP_SYNC, which DAX files only have: what the device writes to blocks that the file system has just
    /// given is found again after a crash without `fsync(2)`.
    pub map_sync: bool,
    /// Only when the guard holds the file as long as it is pinned; without, a pin nobody protects is made, and says so.
    pub require_hold: bool,
    /// Try it first in a process that can be killed.
    pub trial: Option<Trial>,
}

/// A range of a file, planned for and mapped.
#[derive(Debug)]
#[non_exhaustive]
pub struct Prepared {
    /// The plan, which refuses nothing.
    pub planned: Planned,
    /// The memory.
    pub memory: Arc<DeviceMemory>,
    /// Bytes to register.
    pub len: usize,
    /// The hold of level swapfile, if one was asked for.
    pub taken: Option<Protection>,
}

/// What is registered where, for everything but the last step.
#[derive(Debug)]
pub struct Target<'a> {
    /// The file.
    pub file: &'a File,
    /// Bytes of it.
    pub range: Range<u64>,
    /// What the device does.
    pub access: Access,
    /// For whom.
    pub device: Device,
    /// By which rules.
    pub kernel: KernelRules,
}

impl Target<'_> {
    /// Plan, map, and try if asked for.
    ///
    /// # Errors
    ///
    /// [`RegisterError`]; nothing is registered or mapped.
    pub fn prepare(&self, options: &RegisterOptions) -> Result<Prepared, RegisterError> {
        let planned = self.plan(options)?;
        if planned.plan.refusal().is_some() {
            return Err(RegisterError::Refused(Box::new(planned)));
        }
        if let Some(what) = planned.unknown {
            return Err(RegisterError::Unknown { what });
        }
        let trial = options.trial.as_ref();
        if let Some(trial) = trial.filter(|_| !planned.plan.is_on_demand()) {
            trial.run(self.file, self.device.name(), &planned.range, self.access)?;
        }
        // A mapping that is there before the hold would speak against it.
        let taken = match planned.plan.hold() {
            Some(Level::Swapfile) => Some(Protection::take(self.file, planned.range.clone())?),
            _ => None,
        };
        let (memory, len) = self.map(&planned, options.map_sync)?;
        Ok(Prepared {
            planned,
            memory: Arc::new(memory),
            len,
            taken,
        })
    }

    fn plan(&self, options: &RegisterOptions) -> Result<Planned, RegisterError> {
        let path = protection::path_of(self.file);
        let failed = |source| {
            let path = path.clone();
            RegisterError::Plan(PlanError::File { path, source })
        };
        let len = self.range.end.saturating_sub(self.range.start);
        let request = PlanRequest {
            wanted: Some(ByteRange {
                offset: self.range.start,
                len,
            }),
            sharing: Sharing::Shared,
            access: self.access,
            wish: options.wish,
            level: options.level,
            device: self.device.clone(),
            kernel: self.kernel,
            may_write: plan::writable(self.file).map_err(failed)?,
            memlock: memlock_left(&self.device).map_err(failed)?,
            look_at_blocks: false,
        };
        Ok(plan::plan_file(self.file, &path, &request)?)
    }

    fn map(&self, planned: &Planned, sync: bool) -> Result<(DeviceMemory, usize), RegisterError> {
        let len = planned.range.end - planned.range.start;
        let failed = |errno: Errno| RegisterError::Map {
            bytes: len,
            source: errno.into(),
        };
        let page = plan::page_of(self.file);
        let page = page.map_err(|source| RegisterError::Map { bytes: len, source })?;
        let whole = len
            .checked_next_multiple_of(page)
            .ok_or_else(|| failed(Errno::OVERFLOW))?;
        let whole = usize::try_from(whole).map_err(|_| failed(Errno::OVERFLOW))?;
        let writable = match planned.plan {
            Plan::Longterm(pin) => pin.writable_mapping,
            _ => self.access.writes(),
        };
        let start = planned.range.start;
        let memory = match sync {
            true => DeviceMemory::of_dax_file(self.file, start, whole, writable),
            false => DeviceMemory::of_file(self.file, start, whole, writable, Sharing::Shared),
        };
        let len = usize::try_from(len).map_err(|_| failed(Errno::OVERFLOW))?;
        Ok((memory.map_err(failed)?, len))
    }

    /// What the kernel answered although the plan said yes, or the reason why it could: the file has shrunk.
    #[must_use]
    pub fn explain(&self, errno: Errno, planned: &Planned) -> RegisterError {
        self.check_size(planned)
            .err()
            .unwrap_or(RegisterError::Kernel {
                device: self.device.name().to_owned(),
                bytes: planned.range.end - planned.range.start,
                plan: planned.plan.as_str(),
                source: errno.into(),
            })
    }

    /// A file that has shrunk since the plan has lost the pages that were registered.
    ///
    /// # Errors
    ///
    /// [`RegisterError::Shrunk`].
    pub fn check_size(&self, planned: &Planned) -> Result<(), RegisterError> {
        if planned.question.medium == Medium::DaxDevice {
            return Ok(());
        }
        let now = self.file.metadata();
        let size = now
            .map_err(|source| RegisterError::Map { bytes: 0, source })?
            .len();
        let needed = planned.range.end;
        if size < needed {
            return Err(RegisterError::Shrunk { size, needed });
        }
        Ok(())
    }

    /// The hold of a registration: what was taken, or of one that pins the guard's.
    ///
    /// # Errors
    ///
    /// [`RegisterError::NotHeld`], when one is required and there is none; what keeps the guard from being asked.
    pub fn hold(
        &self,
        planned: &Planned,
        taken: Option<Protection>,
        options: &RegisterOptions,
    ) -> Result<Option<Protection>, RegisterError> {
        let hold = match (taken, planned.plan) {
            (Some(taken), _) => taken,
            (None, Plan::Longterm(_)) => {
                let of = match planned.question.medium {
                    Medium::DaxDevice => Protection::needless,
                    _ => Protection::new,
                };
                of(self.file, planned.range.clone())
                    .map_err(|source| RegisterError::Map { bytes: 0, source })?
            }
            (None, _) => return Ok(None),
        };
        if !options.require_hold {
            return Ok(Some(hold));
        }
        match hold.state()? {
            ProtectionState::Held { .. } | ProtectionState::Needless => Ok(Some(hold)),
            other => Err(RegisterError::NotHeld { why: other.text() }),
        }
    }
}

/// RDMA counts what each process has pinned; io_uring counts for the user, which nobody tells.
fn memlock_left(device: &Device) -> std::io::Result<Option<u64>> {
    let used = match device {
        Device::Rdma(_) => memory::pinned_bytes()?,
        Device::IoUring => 0,
    };
    Ok(memory::memlock_limit()?.map(|limit| limit.saturating_sub(used)))
}
