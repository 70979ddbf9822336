//! Why the guard could not be started, asked or stopped, each with the line that mends it.

use std::path::PathBuf;

use longpin_bpf::BpfError;
use longpin_linux::pseudo;

use super::proof::ProofError;
use crate::Claim;
use crate::config::LoadError;

/// Why a guard command failed. Whatever failed, nothing was left half attached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuardError {
    /// Loading the programs, or talking to a running guard, takes CAP_SYS_ADMIN.
    #[error("no privilege: the guard takes CAP_SYS_ADMIN")]
    NoPrivilege,
    /// The kernel was started without the BPF security module.
    #[error("`bpf` is not among the active security modules ({})", modules.join(","))]
    NoBpfLsm {
        /// The modules that are active.
        modules: Vec<String>,
    },
    /// The kernel has no BTF.
    #[error("this kernel offers no BTF: {} is missing", path.display())]
    NoBtf {
        /// Where it would be.
        path: PathBuf,
    },
    /// No BPF file system to pin programs in.
    #[error("no BPF file system is mounted at {}", path.display())]
    NoBpfFs {
        /// Where it would be.
        path: PathBuf,
    },
    /// A guard is running already.
    #[error("the guard is already running")]
    AlreadyRunning,
    /// A guard of another longpin version is running.
    #[error(
        "a guard of another longpin version is running (it speaks ABI {found}, this one {})",
        longpin_bpf::shared::ABI
    )]
    OtherVersion {
        /// What it speaks.
        found: u32,
    },
    /// No guard is running.
    #[error("the guard is not running")]
    NotRunning,
    /// Live holds would end with the guard.
    #[error("{holds} live hold{} would end with the guard", if *holds == 1 { "" } else { "s" })]
    Held {
        /// How many.
        holds: usize,
    },
    /// There is no room for the explicit holds that stand.
    #[error("there is no room for the explicit holds that stand")]
    NoRoomForHolds,
    /// A guard that only records does not take over explicit holds: it would hold nothing.
    #[error(
        "{holds} explicit hold{}, and a guard that only records (--audit) would not hold {}",
        if *holds == 1 { " stands" } else { "s stand" },
        if *holds == 1 { "it" } else { "them" }
    )]
    HoldsUnderAudit {
        /// How many.
        holds: usize,
    },
    /// A hold that was asked for is released by force, unless it was asked to persist.
    #[error("hold {id} on {path} stands until its holder, process {pid} or what it started, ends")]
    Asked {
        /// Its number.
        id: u64,
        /// The file.
        path: String,
        /// Who asked.
        pid: u32,
    },
    /// The kernel lacks what some claims need.
    #[error("this kernel cannot enforce {}", list(missing))]
    Partial {
        /// The claims that would be missing.
        missing: Vec<Claim>,
    },
    /// No hold has this number.
    #[error("there is no hold {id}")]
    NoSuchHold {
        /// The number.
        id: u64,
    },
    /// A hold whose pages are pinned is released by force only.
    #[error("hold {id} is alive: {pages} pages of {path} are pinned by process {pid}")]
    Alive {
        /// Its number.
        id: u64,
        /// Pages.
        pages: u64,
        /// The file.
        path: String,
        /// Who pinned.
        pid: u32,
    },
    /// A file cannot be opened, to be looked up.
    #[error("cannot open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// Only regular files have pages to hold.
    #[error("{} is not a regular file", path.display())]
    NotRegular {
        /// The file.
        path: PathBuf,
    },
    /// Attached, but the forbidden act went through.
    #[error("the guard was attached but did not prove itself; it has been removed")]
    Unproved(#[source] ProofError),
    /// The lock that serialises longpin commands could not be taken.
    #[error("cannot lock {}", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// A pinned guard could not be put in its place.
    #[error("cannot publish the guard at {}", path.display())]
    Publish {
        /// Its place.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// Pinned programs could not be removed.
    #[error("cannot remove {}", path.display())]
    Remove {
        /// What.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// The system did not answer a question.
    #[error("cannot tell about {what}")]
    Probe {
        /// The question.
        what: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The administrator's rules are wrong; nothing was changed.
    #[error(transparent)]
    Config(#[from] LoadError),
    /// The BPF interface failed.
    #[error(transparent)]
    Bpf(#[from] BpfError),
}

fn list(claims: &[Claim]) -> String {
    let names: Vec<_> = claims.iter().map(Claim::to_string).collect();
    names.join(", ")
}

/// What lets this process use io_uring; the switch only where it is what refuses.
#[must_use]
pub fn open_io_uring() -> &'static str {
    let switch = pseudo::read_text("/proc/sys/kernel/io_uring_disabled");
    match switch.ok().flatten().as_deref().map(str::trim) {
        Some("1" | "2") => "sysctl kernel.io_uring_disabled=0",
        _ => OUTSIDE_OF_FILTER,
    }
}

/// Where the switch is open, or there is none.
pub const OUTSIDE_OF_FILTER: &str = "run it where no filter refuses io_uring: outside of the container, or allow io_uring_setup, io_uring_enter \
     and io_uring_register in its seccomp profile (SystemCallFilter= of a service)";

impl GuardError {
    /// What to do about it: lines to paste or to think about.
    #[must_use]
    pub fn hints(&self) -> Vec<String> {
        match self {
            Self::NoBpfLsm { modules } => vec![
                format!(
                    "put `lsm={},bpf` on the kernel command line and reboot",
                    modules.join(",")
                ),
                "on Debian: in GRUB_CMDLINE_LINUX of /etc/default/grub, then `update-grub`".into(),
            ],
            Self::NoBpfFs { path } => vec![format!("mount -t bpf bpf {}", path.display())],
            Self::Alive { id, .. } | Self::Asked { id, .. } => vec![format!(
                "longpin release {id} --force   # the file loses its protection"
            )],
            Self::Unproved(ProofError::NoPin(_)) => vec![open_io_uring().into()],
            _ => self.fixed_hints().iter().map(|&line| line.into()).collect(),
        }
    }

    /// Those that are the same whatever it is about.
    const fn fixed_hints(&self) -> &'static [&'static str] {
        match self {
            Self::NoPrivilege => &["run it as root, for example with sudo"],
            Self::NoBtf { .. } => {
                &["use a kernel built with CONFIG_DEBUG_INFO_BTF=y, as Debian's are"]
            }
            Self::AlreadyRunning => &["longpin guard status"],
            Self::OtherVersion { .. } => &[
                "stop it with the longpin that started it,",
                "or end it and all its holds with `longpin guard stop --force`",
            ],
            Self::NotRunning => &["longpin guard start"],
            Self::Partial { .. } => &[
                "longpin doctor",
                "longpin guard start --partial   # the other claims only",
            ],
            Self::Config(_) => &["longpin guard check-config"],
            Self::NoSuchHold { .. } => &["longpin ls"],
            Self::NoRoomForHolds => &["longpin ls   # end some of these first"],
            Self::HoldsUnderAudit { .. } => &[
                "longpin ls   # wait for these, or release them",
                "longpin guard start   # it takes them over",
            ],
            Self::Held { .. } => &[
                "longpin ls",
                "longpin guard stop --force   # the files lose their protection",
            ],
            Self::Bpf(BpfError::NoAddress { .. } | BpfError::NoStatistics) => {
                &["sysctl kernel.kptr_restrict=1   # if it is 2: then no address is shown"]
            }
            Self::Bpf(BpfError::Load(_)) => &["`longpin -v guard start` shows the verifier's log"],
            Self::Bpf(BpfError::MissingFunction { .. }) => {
                &["docs/kernel-support.md lists the kernels that are known to do"]
            }
            _ => &[],
        }
    }
}
