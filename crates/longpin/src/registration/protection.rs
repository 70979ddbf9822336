//! The hold of a registration: the guard's, known from the pages, or at level swapfile one that was taken first.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use rustix::io::FdFlags;

use super::RegisterError;
use crate::guard::{GuardError, Host, Running, read_status};
use crate::hold::{Hold, Level, Refusal, ReleaseError};
use crate::{Enforcement, admin};

/// What protects the file of a registration.
///
/// At level layout it is what the guard keeps as long as the pages are pinned: no object of the kernel's, and dropping it
/// ends nothing. At level swapfile it is a hold that this process took before it mapped the file, and dropping it ends
/// that one; a registration drops it after the device has let go. A process that dies takes its memory from the device
/// before its hold.
#[derive(Debug)]
pub struct Protection {
    file: File,
    range: Range<u64>,
    level: Level,
    explicit: Option<Box<Hold>>,
    /// There is nobody to hold it against.
    needless: bool,
}

/// The guard is there, and cannot be asked.
#[derive(Debug, thiserror::Error)]
#[error("cannot ask the guard about the hold")]
pub struct ProtectionError(#[source] pub GuardError);

/// How much of the hold there is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub enum ProtectionState {
    /// The guard refuses what would take the pages away.
    Held {
        /// How much of the promise it enforces.
        enforcement: Enforcement,
    },
    /// Nobody can take the memory away: a DAX device has no file system.
    Needless,
    /// The pages are pinned, and nobody protects them; why.
    None {
        /// In words.
        why: String,
    },
    /// Only CAP_SYS_ADMIN may ask.
    Unknown,
}

impl ProtectionState {
    /// In words.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Held {
                enforcement: Enforcement::Full,
            } => "held, all claims enforced".into(),
            Self::Held {
                enforcement: Enforcement::Partial { missing },
            } => {
                let missing: Vec<_> = missing.iter().map(ToString::to_string).collect();
                format!("held, without {}", missing.join(", "))
            }
            Self::Held {
                enforcement: Enforcement::None,
            } => "not held: the guard enforces nothing".into(),
            Self::Needless => "no hold needed: no file system can take it away".into(),
            Self::None { why } => format!("not held: {why}"),
            Self::Unknown => "not known: only CAP_SYS_ADMIN may ask the guard".into(),
        }
    }
}

impl Protection {
    /// The guard's.
    pub(super) fn new(file: &File, range: Range<u64>) -> io::Result<Self> {
        Ok(Self {
            file: file.try_clone()?,
            range,
            level: Level::Layout,
            explicit: None,
            needless: false,
        })
    }

    /// Of a DAX device.
    pub(super) fn needless(file: &File, range: Range<u64>) -> io::Result<Self> {
        let guard = Self::new(file, range)?;
        let needless = true;
        Ok(Self { needless, ..guard })
    }

    /// Level swapfile, for the whole file: whoever is to map it comes afterwards.
    pub(super) fn take(file: &File, range: Range<u64>) -> Result<Self, RegisterError> {
        let refused = |refusal| RegisterError::Level(Box::new(refusal));
        let asked = |source| {
            let what = "what a descriptor of the hold is";
            refused(Refusal::Ask { what, source })
        };
        let explicit = Hold::of_file(file)
            .level(Level::Swapfile)
            .acquire(&Host::default())
            .map_err(refused)?;
        // A command that this process starts is no holder, and does not prolong the hold.
        rustix::io::fcntl_setfd(explicit.token(), FdFlags::CLOEXEC)
            .map_err(|errno| asked(errno.into()))?;
        Ok(Self {
            file: file.try_clone().map_err(asked)?,
            range,
            level: Level::Swapfile,
            explicit: Some(Box::new(explicit)),
            needless: false,
        })
    }

    /// End what was taken, and what only that needed in the kernel. Whatever it answers, it has ended. Not before the
    /// device has let go.
    ///
    /// # Errors
    ///
    /// [`ReleaseError`].
    pub fn release(self) -> Result<(), ReleaseError> {
        match self.explicit {
            Some(explicit) => explicit.release().map(drop),
            None => Ok(()),
        }
    }

    /// What the file is held at.
    #[must_use]
    pub const fn level(&self) -> Level {
        self.level
    }

    /// The bytes that were registered.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// Ask the guard: it looks at the pages, now, and at what was taken.
    ///
    /// # Errors
    ///
    /// [`ProtectionError`], when it is there and does not answer.
    pub fn state(&self) -> Result<ProtectionState, ProtectionError> {
        if self.needless {
            return Ok(ProtectionState::Needless);
        }
        let running = match Running::look(&Host::default()) {
            Err(GuardError::NotRunning) => {
                return Ok(ProtectionState::None {
                    why: "the guard is not running (longpin guard start)".into(),
                });
            }
            Err(GuardError::NoPrivilege) => return Ok(ProtectionState::Unknown),
            other => other.map_err(ProtectionError)?,
        };
        let mut status = read_status(&running).map_err(ProtectionError)?;
        if status.audit {
            return Ok(ProtectionState::None {
                why: "the guard only records (--audit)".into(),
            });
        }
        let known = admin::look_up(&running, &path_of(&self.file)).map_err(ProtectionError)?;
        let mut enforced: Vec<_> = known.holds.iter().collect();
        enforced.retain(|hold| hold.is_enforced() && hold.level >= self.level);
        if let Some(taken) = &self.explicit {
            enforced.retain(|hold| hold.explicit);
            status.enforcement = taken.enforcement().clone();
        }
        let enforced = enforced.into_iter();
        if covers(&self.range, enforced.map(|hold| hold.start..hold.end)) {
            return Ok(ProtectionState::Held {
                enforcement: status.enforcement,
            });
        }
        let mut verdicts = known.holds.iter().map(|hold| hold.verdict.reason());
        let why = verdicts
            .next_back()
            .unwrap_or("the guard does not see its pages pinned");
        Ok(ProtectionState::None { why: why.into() })
    }
}

pub(super) fn path_of(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Whether these ranges have every byte of the wanted one.
fn covers(wanted: &Range<u64>, held: impl Iterator<Item = Range<u64>>) -> bool {
    let mut held: Vec<_> = held.collect();
    held.sort_by_key(|range| range.start);
    let mut next = wanted.start;
    for range in held {
        if range.start > next {
            break;
        }
        next = next.max(range.end);
    }
    next >= wanted.end
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn a_hold_may_have_several_parts() {
        let covers = |held: &[(u64, u64)]| covers(&(4..12), held.iter().map(|&(a, b)| a..b));
        assert!(covers(&[(0, 20)]));
        assert!(covers(&[(8, 12), (4, 8)]));
        assert!(!covers(&[(4, 8), (9, 12)]));
        assert!(!covers(&[(5, 12)]));
        assert!(!covers(&[]));
    }
}
