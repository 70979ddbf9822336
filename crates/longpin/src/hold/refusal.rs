//! Why a hold was refused. Whatever the reason, file and system are as they were.

use std::io;
use std::path::PathBuf;

use longpin_linux::mappings::Process;
use longpin_linux::tasks::Covered;

use crate::activation::{CheckError, CheckReport};
use crate::extents::MapError;
use crate::guard::GuardError;

/// Why a hold was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A hold takes privilege.
    #[error("no privilege: a hold takes CAP_LINUX_IMMUTABLE")]
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
    /// Another hold excludes this one.
    #[error("{} is held already", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// Activation refuses the file.
    #[error("{} cannot be held", .0.path.display())]
    Unfit(Box<CheckReport>),
    /// The programs cannot tell the files of btrfs's subvolumes apart.
    #[error(
        "{} lies in btrfs's subvolume {number}, which cannot be told from others: \
         this kernel has no BTF of btrfs",
        path.display()
    )]
    Subvolume {
        /// The file.
        path: PathBuf,
        /// Which.
        number: u64,
    },
    /// Somebody may write to the file without asking anybody.
    #[error("{} is mapped shared and writable by {}", path.display(), list(by))]
    Mapped {
        /// The file.
        path: PathBuf,
        /// Who.
        by: Vec<Process>,
    },
    /// Somebody whom the kernel does not name may write to the file without asking anybody.
    #[error("somebody may write to {}: the kernel counts who {may}, and not all are found", path.display())]
    Somebody {
        /// The file.
        path: PathBuf,
        /// How.
        may: &'static str,
    },
    /// A device may write to the file without asking anybody.
    #[error("{pages} pages of {} are pinned by {}: a device may write to them", path.display(), list(by))]
    Pinned {
        /// The file.
        path: PathBuf,
        /// How many.
        pages: u64,
        /// Who, as far as the guard saw it.
        by: Vec<Process>,
    },
    /// Processes of other pid namespaces are not seen.
    #[error(
        "cannot tell whether an operation on {} is under way: /proc shows the processes of one pid namespace only",
        path.display()
    )]
    Namespace {
        /// The file.
        path: PathBuf,
    },
    /// It was released while it was judged.
    #[error("the hold on {} was released before it was judged", path.display())]
    Released {
        /// The file.
        path: PathBuf,
    },
    /// The kernel does not call the programs.
    #[error("the kernel calls none of the guard's programs: kernel.ftrace_enabled is 0")]
    Silent,
    /// The loop driver may write to the file without asking anybody.
    #[error("{} is behind the writable loop device {}", path.display(), list_paths(devices))]
    Looped {
        /// The file.
        path: PathBuf,
        /// Which.
        devices: Vec<PathBuf>,
    },
    /// An operation that began before the hold does not end.
    #[error(
        "process {} ({}) is in an operation that may be on {} and began before the hold",
        by.pid,
        by.command,
        path.display()
    )]
    InFlight {
        /// The file.
        path: PathBuf,
        /// Who.
        by: Process,
    },
    /// Direct reads or writes do not end.
    #[error("{count} direct reads or writes of {} that began before the hold do not end", path.display())]
    Direct {
        /// The file.
        path: PathBuf,
        /// How many.
        count: u32,
    },
    /// The blocks moved while they were read.
    #[error("the blocks of {} move", path.display())]
    Moved {
        /// The file.
        path: PathBuf,
    },
    /// The hold stood, and refused nothing.
    #[error("the hold did not prove itself: fallocate of {} answered {answer}", path.display())]
    Unproved {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        answer: String,
    },
    /// This kernel has not what the level takes.
    #[error("this kernel cannot enforce level swapfile: {program} is not attached")]
    Kernel {
        /// The program.
        program: &'static str,
    },
    /// The guard refuses nothing, so a hold would hold nothing.
    #[error("the guard only records what it would refuse: it was started with --audit")]
    Audit,
    /// The tables are full.
    #[error("there is no room for another hold")]
    NoRoom,
    /// A question to the system was not answered.
    #[error("cannot tell {what}")]
    Ask {
        /// The question.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The check could not be made.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// The block map could not be read.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The programs in the kernel.
    #[error(transparent)]
    Guard(#[from] GuardError),
}

fn list_paths(paths: &[PathBuf]) -> String {
    let names: Vec<_> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    names.join(", ")
}

fn list(processes: &[Process]) -> String {
    let mut names: Vec<_> = processes
        .iter()
        .map(|process| match process.pid {
            0 => "somebody".to_owned(),
            pid => format!("{}[{pid}]", process.command),
        })
        .collect();
    names.dedup();
    if names.is_empty() {
        names.push("somebody".to_owned());
    }
    names.join(", ")
}

/// What uncovers a process.
fn covered(err: &io::Error) -> Option<String> {
    let covered = err.get_ref()?.downcast_ref::<Covered>()?;
    let place = crate::activation::quote(std::path::Path::new(&covered.place));
    Some(format!("umount {place}"))
}

impl Refusal {
    /// What to do about it.
    #[must_use]
    pub fn hints(&self) -> Vec<String> {
        match self {
            Self::NoPrivilege => vec!["run it as root, for example with sudo".into()],
            Self::Unfit(report) => report.hints(),
            Self::Busy { .. } => vec!["longpin ls".into()],
            Self::Looped { devices, .. } => devices
                .iter()
                .map(|device| format!("losetup -d {}", crate::activation::quote(device)))
                .collect(),
            Self::Somebody { path, .. } => {
                let file = crate::activation::quote(path);
                vec![
                    format!("fuser -vm {file}; losetup -l; accton off   # who writes to it?"),
                    format!(
                        "ls -l /sys/kernel/config/nvmet/subsystems/*/namespaces/*/device_path   # {file}?"
                    ),
                    format!("grep File: /sys/kernel/config/target/core/*/*/info   # {file}?"),
                ]
            }
            Self::Pinned { .. } => vec!["longpin ls --all".into()],
            Self::Namespace { .. } => {
                vec!["nsenter -t 1 -p -m longpin hold …   # from the first pid namespace".into()]
            }
            Self::Silent => vec!["sysctl kernel.ftrace_enabled=1".into()],
            Self::Audit => vec!["longpin guard stop && longpin guard start".into()],
            Self::Subvolume { path, .. } => vec![format!(
                "longpin hold --level layout {} -- …   # its pages stay; contents, and blocks, may change",
                crate::activation::quote(path)
            )],
            Self::Ask { source, .. } => covered(source).into_iter().collect(),
            Self::Guard(err) => err.hints(),
            _ => Vec::new(),
        }
    }
}
