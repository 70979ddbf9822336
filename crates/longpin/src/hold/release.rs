//! What the end of a hold answers.

use std::io;
use std::path::PathBuf;

use crate::activation;
use crate::guard::GuardError;
use crate::swapfile::ActivateError;

/// A hold that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReleaseReport {
    /// The file.
    pub path: PathBuf,
    /// False: somebody else had ended it before, and the file was not held since.
    pub was_held: bool,
    /// f2fs: `swapoff(2)` took the file's pin away, and this kernel pins only empty files.
    pub unpinned: bool,
}

impl ReleaseReport {
    /// As it should be.
    pub(super) const fn of(path: PathBuf) -> Self {
        Self {
            path,
            was_held: true,
            unpinned: false,
        }
    }
}

/// Why a hold could not be ended. What is done is done, and the rest can be tried again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReleaseError {
    /// No hold has this number.
    #[error("there is no hold {id}")]
    NoSuchHold {
        /// The number.
        id: u64,
    },
    /// It was not asked to persist, and its holder lives.
    #[error("hold {id} on {} stands until its holder, process {pid} or what it started, ends", path.display())]
    Alive {
        /// Its number.
        id: u64,
        /// The file.
        path: PathBuf,
        /// Who asked.
        pid: u32,
    },
    /// The file has been renamed, or its head overwritten.
    #[error(
        "no file with the header of hold {id} is to be found, also not at {}; its first 8 KiB are kept in {}",
        path.display(),
        record.display()
    )]
    Lost {
        /// Its number.
        id: u64,
        /// Where the file was.
        path: PathBuf,
        /// Where the 8 KiB are.
        record: PathBuf,
    },
    /// `swapoff(2)`.
    #[error(transparent)]
    Deactivate(#[from] ActivateError),
    /// The 8 KiB are not back yet.
    #[error("cannot put the first 8 KiB of {} back", path.display())]
    PutBack {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The records cannot be read or removed.
    #[error("cannot use the records of holds in {}", path.display())]
    Records {
        /// Where they are.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The programs in the kernel.
    #[error(transparent)]
    Guard(#[from] GuardError),
}

impl ReleaseError {
    /// What to do about it.
    #[must_use]
    pub fn hints(&self) -> Vec<String> {
        match self {
            Self::NoSuchHold { .. } => vec!["longpin ls".into()],
            Self::Alive { id, .. } => vec![format!(
                "longpin release {id} --force   # the file loses its protection"
            )],
            Self::Lost { record, .. } => vec![format!(
                "head -c 8192 {} | dd of=FILE conv=notrunc   # where FILE is now; then remove the record",
                activation::quote(record)
            )],
            Self::Deactivate(_) | Self::PutBack { .. } => {
                vec!["longpin ls   # and `longpin release ID` again".into()]
            }
            Self::Guard(err) => err.hints(),
            Self::Records { .. } => vec!["run it as root, for example with sudo".into()],
        }
    }
}
