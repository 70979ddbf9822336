//! Why a hold by swap header was refused. Whatever the reason, file and system are as they were.

use std::io;
use std::path::PathBuf;

use longpin_linux::swap::SwapError;

use super::EndError;
use crate::activation::{self, CheckReport};
use crate::hold::heads::{DIR, HEAD};
use crate::swapfile::ActivateError;

/// Why a hold by swap header was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// swapon(2) takes privilege.
    #[error("no privilege: a hold by swap header takes CAP_SYS_ADMIN")]
    NoPrivilege,
    /// The file cannot be opened, or not for writing.
    #[error("cannot open {}", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another hold by swap header.
    #[error("{} is held already", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// It is swapped to, or a hold refuses the header.
    #[error("{} is an active swap file, or held by BPF", path.display())]
    Swap {
        /// The file.
        path: PathBuf,
    },
    /// A hold that was not ended in order: the file's first 8 KiB are not where they belong.
    #[error("hold {id} of {} is over, and its first {HEAD} bytes are not put back yet", path.display())]
    Left {
        /// The file.
        path: PathBuf,
        /// The hold.
        id: u64,
        /// Why not.
        #[source]
        source: EndError,
    },
    /// Activation, or a lender's check, refuses the file.
    #[error("{} cannot be held", .0.path.display())]
    Unfit(Box<CheckReport>),
    /// There is data in what this backend gives up.
    #[error(
        "{} has data in its first {HEAD} bytes (at offset {at}), which a swap header takes while the file is held",
        path.display()
    )]
    Data {
        /// The file.
        path: PathBuf,
        /// Where.
        at: usize,
    },
    /// Blocks smaller than a page, and the file does not begin where a page of the device does.
    #[error(
        "the kernel would not swap to the second page of {}, but elsewhere in it: byte {at} lies at no page of the device",
        path.display()
    )]
    SlotElsewhere {
        /// The file.
        path: PathBuf,
        /// Where.
        at: u64,
    },
    /// Somebody has the file open, and might write to its head.
    #[error("somebody has {} open: what is written to its head meanwhile could be lost", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// Somebody wrote to the head while the hold was made.
    #[error("the head of {} changed while the hold was made", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The kernel's table of swap areas is full.
    #[error(
        "the kernel takes no more swap areas, and {} needs one: {active} are active",
        path.display()
    )]
    NoRoom {
        /// The file.
        path: PathBuf,
        /// How many there are.
        active: usize,
    },
    /// The hold stood, and refused nothing.
    #[error("the hold did not prove itself: fallocate of {} answered {answer}", path.display())]
    Unproved {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        answer: String,
    },
    /// There is no place for the 8 KiB.
    #[error("cannot keep the first {HEAD} bytes of {} in {DIR}", path.display())]
    Keep {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A question to the system was not answered.
    #[error("cannot tell {what}")]
    Ask {
        /// The question.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The header, or swapon(2).
    #[error(transparent)]
    Activate(#[from] ActivateError),
}

impl Refusal {
    /// The system failed; nothing is wrong with the file.
    #[must_use]
    pub const fn is_of_the_system(&self) -> bool {
        match self {
            Self::Keep { .. } | Self::Ask { .. } | Self::Unproved { .. } => true,
            Self::Activate(err) => !matches!(err, ActivateError::Kernel { .. }),
            _ => false,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hints(&self) -> Vec<String> {
        match self {
            Self::NoPrivilege => vec!["run it as root, for example with sudo".into()],
            Self::Busy { .. } | Self::Swap { .. } => vec!["longpin ls".into()],
            Self::Left { source, .. } => source.hints(),
            Self::Unfit(report) => report.hints(),
            Self::Data { .. } => vec![
                "add --overwrite-head if the holder can do without them; they are put back at the end".into(),
            ],
            Self::SlotElsewhere { path, .. } => vec![format!(
                "use a file system with blocks of 4096 bytes (stat -f -c %S {})",
                activation::quote(path)
            )],
            Self::InUse { path } | Self::Changed { path } => vec![format!(
                "fuser -v {}   # who has it open?",
                activation::quote(path)
            )],
            Self::NoRoom { .. } => vec![
                "longpin ls   # which holds can be released?".into(),
                "cat /proc/swaps   # partitions count, too; or is a file immutable (lsattr)?".into(),
            ],
            Self::Activate(ActivateError::Kernel { source, .. }) => match source {
                SwapError::Other(_) => vec!["longpin doctor   # has this kernel swap?".into()],
                _ => vec!["dmesg | tail   # the kernel says there what it misses".into()],
            },
            _ => Vec::new(),
        }
    }
}
