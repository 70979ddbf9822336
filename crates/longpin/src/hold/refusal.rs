//! Why a hold was refused. Whatever the reason, file and system are as they were.

use std::io;
use std::path::PathBuf;

use longpin_linux::mappings::Process;
use longpin_linux::swap::SwapError;
use longpin_linux::tasks::Covered;

use super::ReleaseError;
use super::heads::{DIR, HEAD};
use crate::activation::{self, CheckReport};
use crate::extents::MapError;
use crate::guard::GuardError;
use crate::swapfile::ActivateError;

/// Why a hold was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A hold takes privilege.
    #[error("no privilege: {hold} takes {capability}")]
    NoPrivilege {
        /// Which kind of hold.
        hold: &'static str,
        /// Which privilege.
        capability: &'static str,
    },
    /// Backend swap header has the kernel hold, which knows nothing else.
    #[error("a hold by swap header is on the whole file, at level swapfile: it cannot be {what}")]
    NotOffered {
        /// What was asked for.
        what: &'static str,
    },
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
        answer: &'static str,
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
    /// The block map could not be read.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The programs in the kernel.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// It is swapped to, or a hold refuses the header.
    #[error("{} is an active swap file, or held by BPF", path.display())]
    ActiveSwap {
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
        source: ReleaseError,
    },
    /// There is data in what backend swap header gives up.
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
    NoSwapArea {
        /// The file.
        path: PathBuf,
        /// How many there are.
        active: usize,
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
    /// Backend swap header: the header, or swapon(2).
    #[error(transparent)]
    Activate(#[from] ActivateError),
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
    let place = activation::quote(std::path::Path::new(&covered.place));
    Some(format!("umount {place}"))
}

/// What a refusal says of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefusalKind {
    /// It, or this host, is not fit, or somebody else is in the way.
    Refused,
    /// That could not be found out.
    CannotTell,
    /// Nothing: the system failed.
    System,
}

impl Refusal {
    /// What it says of the file.
    #[must_use]
    pub const fn kind(&self) -> RefusalKind {
        match self {
            Self::Ask { .. } | Self::Namespace { .. } | Self::Map(_) => RefusalKind::CannotTell,
            Self::Activate(ActivateError::Kernel { .. }) => RefusalKind::Refused,
            Self::Guard(_) | Self::Keep { .. } | Self::Activate(_) => RefusalKind::System,
            _ => RefusalKind::Refused,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hints(&self) -> Vec<String> {
        match self {
            Self::NoPrivilege { .. } => vec!["run it as root, for example with sudo".into()],
            Self::Unfit(report) => report.hints(),
            Self::Busy { .. } | Self::ActiveSwap { .. } => vec!["longpin ls".into()],
            Self::Looped { devices, .. } => devices
                .iter()
                .map(|device| format!("losetup -d {}", activation::quote(device)))
                .collect(),
            Self::Somebody { path, .. } => {
                let file = activation::quote(path);
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
                activation::quote(path)
            )],
            Self::Ask { source, .. } => covered(source).into_iter().collect(),
            Self::Guard(err) => err.hints(),
            Self::Left { source, .. } => source.hints(),
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
            Self::NoSwapArea { .. } => vec![
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
