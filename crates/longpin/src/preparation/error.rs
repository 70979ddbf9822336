//! Why a file could not be prepared, and what to do about it.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use longpin_linux::file::Kind;

use crate::activation::{self, CheckReport};
use crate::extents::MapError;

/// Why a file could not be prepared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// The file cannot be opened or created.
    #[error("cannot open {}", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is none, and no size to create it with.
    #[error("{} is not there, and no size was given to create it with", path.display())]
    Missing {
        /// Which.
        path: PathBuf,
    },
    /// It is no regular file.
    #[error("{} is {}, and only regular files can be prepared", path.display(), kind.name())]
    NotRegular {
        /// Which.
        path: PathBuf,
        /// What it is.
        kind: Kind,
    },
    /// Something that prepare cannot cure.
    #[error("{} cannot be prepared", .0.path.display())]
    Refused(Box<CheckReport>),
    /// The file is larger already.
    #[error("the file has {size} bytes, and prepare does not shrink it to {wanted}")]
    Shrink {
        /// Bytes that it has.
        size: u64,
        /// Bytes asked for.
        wanted: u64,
    },
    /// Somebody has the file open, and might write to it.
    #[error("somebody has the file open: zeroes could overwrite what is written meanwhile")]
    InUse,
    /// A device or somebody's hold keeps the file as it is.
    #[error(
        "the file is held{}: what prepare writes would be refused half way",
        list(by)
    )]
    Held {
        /// By whom, as far as that can be seen.
        by: Vec<String>,
    },
    /// `RLIMIT_FSIZE`.
    #[error(
        "the file would have {target} bytes, and this process may write up to {limit} (RLIMIT_FSIZE)"
    )]
    SizeLimit {
        /// Bytes.
        limit: u64,
        /// Bytes.
        target: u64,
    },
    /// Somebody opened the file while it was being prepared.
    #[error("somebody opens the file; prepare stopped at offset {at}")]
    Opened {
        /// Where.
        at: u64,
    },
    /// On f2fs: an interrupted prepare, and a file that is another one since.
    #[error(
        "an interrupted prepare left bytes {start} to {end} unzeroed, and the file has {size} bytes now: \
         somebody changed it since"
    )]
    ChangedSince {
        /// First byte of the part.
        start: u64,
        /// Behind its last byte.
        end: u64,
        /// Bytes of the file.
        size: u64,
    },
    /// A step failed.
    #[error("cannot {what}, {len} bytes at offset {at}")]
    Step {
        /// Which.
        what: &'static str,
        /// First byte.
        at: u64,
        /// Bytes.
        len: u64,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The block map cannot be read.
    #[error(transparent)]
    Map(#[from] MapError),
}

impl PrepareError {
    /// What to do about it.
    #[must_use]
    pub fn hints(&self, path: &Path) -> Vec<String> {
        let file = activation::quote(path);
        match self {
            Self::Refused(report) => report.hints(),
            Self::InUse | Self::Opened { .. } => vec![
                format!("fuser -v {file}   # who has it open?"),
                format!(
                    "longpin prepare {file}   # again, when it is closed; it goes on where it stopped"
                ),
            ],
            Self::Held { .. } => vec![format!("longpin why {file}   # who must let go first")],
            Self::SizeLimit { .. } => vec!["ulimit -f unlimited".into()],
            Self::ChangedSince { .. } => vec![format!(
                "setfattr -x trusted.longpin.zeroing {file}   # if all of it was written since"
            )],
            Self::Missing { .. } => vec![format!("longpin prepare {file} --size SIZE")],
            _ => Vec::new(),
        }
    }
}

fn list(by: &[String]) -> String {
    match by {
        [] => String::new(),
        names => format!(" by {}", names.join(", ")),
    }
}

pub(super) fn step(
    what: &'static str,
    range: Range<u64>,
) -> impl FnOnce(io::Error) -> PrepareError {
    move |source| PrepareError::Step {
        what,
        at: range.start,
        len: range.end - range.start,
        source,
    }
}
