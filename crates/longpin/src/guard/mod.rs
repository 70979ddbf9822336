//! The guard: programs in the kernel that refuse, with `ETXTBSY`, what would take a pinned page away
//! from its file.
//!
//! It is pinned in bpffs under [`Host::guard_dir`] and needs no process. Starting is one step for
//! everybody else: programs are attached refusing nothing, looked over, proved against this process
//! alone, published by one rename, and only then armed. Whatever a killed start leaves refuses nothing
//! and is cleared by the next command.

mod error;
mod proof;
mod start;
mod status;
mod stop;
mod sweep;

use std::fs::File;
use std::path::{Path, PathBuf};

use longpin_bpf::pinned::Pinned;
use longpin_bpf::{BpfError, Mode};
use rustix::fs::{FlockOperation, flock};

pub use error::GuardError;
pub use proof::ProofError;
pub use start::start;
pub use status::{Hints, Status, read_status};
pub use stop::{Stopped, stop};
pub use sweep::{Swept, sweep};

/// Where the guard meets this host. The defaults are the real places; tests put fakes there.
#[derive(Debug, Clone)]
pub struct Host {
    /// The list of active security modules.
    pub security_modules: PathBuf,
    /// The kernel's BTF.
    pub btf: PathBuf,
    /// Where bpffs is mounted.
    pub bpf_fs: PathBuf,
    /// Held by one longpin command at a time.
    pub lock: PathBuf,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            security_modules: "/sys/kernel/security/lsm".into(),
            btf: "/sys/kernel/btf/vmlinux".into(),
            bpf_fs: "/sys/fs/bpf".into(),
            lock: "/run/longpin.lock".into(),
        }
    }
}

impl Host {
    /// Where a started guard is pinned.
    #[must_use]
    pub fn guard_dir(&self) -> PathBuf {
        self.bpf_fs.join("longpin")
    }

    /// Where a guard is assembled or taken apart: never armed. (bpffs allows no dots in names.)
    fn scratch_dir(&self) -> PathBuf {
        self.bpf_fs.join("longpin-scratch")
    }
}

/// `flock(2)`: one command at a time. Released when dropped, or when the process dies.
#[derive(Debug)]
struct Turn {
    _file: File,
}

impl Turn {
    fn take(host: &Host) -> Result<Self, GuardError> {
        let failed = |source: std::io::Error| GuardError::Lock {
            path: host.lock.clone(),
            source,
        };
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&host.lock)
            .map_err(|err| match err.kind() {
                std::io::ErrorKind::PermissionDenied => GuardError::NoPrivilege,
                _ => failed(err),
            })?;
        flock(&file, FlockOperation::LockExclusive).map_err(|err| failed(err.into()))?;
        Ok(Self { _file: file })
    }
}

/// A started guard, and the turn to use it.
#[derive(Debug)]
pub struct Running {
    pinned: Pinned,
    _turn: Turn,
}

impl Running {
    /// The running guard of this host.
    ///
    /// # Errors
    ///
    /// [`GuardError::NotRunning`], [`GuardError::OtherVersion`], or what keeps it from being opened.
    pub fn open(host: &Host) -> Result<Self, GuardError> {
        check_privilege()?;
        let turn = Turn::take(host)?;
        match open_pinned(&host.guard_dir())? {
            Some(pinned) if pinned.state().mode() == Mode::Enforcing => Ok(Self {
                pinned,
                _turn: turn,
            }),
            _ => Err(GuardError::NotRunning),
        }
    }

    pub(crate) fn pinned(&self) -> &Pinned {
        &self.pinned
    }
}

/// What is pinned in a directory; `None` when nothing is, or only the rest of a killed command.
fn open_pinned(dir: &Path) -> Result<Option<Pinned>, GuardError> {
    if !dir.join("map_state").exists() {
        return Ok(None);
    }
    match Pinned::open(dir) {
        Ok(pinned) => Ok(Some(pinned)),
        Err(BpfError::Abi { found }) => Err(GuardError::OtherVersion { found }),
        Err(err) => Err(err.into()),
    }
}

fn check_privilege() -> Result<(), GuardError> {
    match longpin_linux::probe::may_load_lsm_programs() {
        Ok(true) => Ok(()),
        Ok(false) => Err(GuardError::NoPrivilege),
        Err(source) => Err(GuardError::Probe {
            what: "capabilities".into(),
            source,
        }),
    }
}

/// Unpin everything in a directory of bpffs, and the directory. What is gone already is no error.
fn remove_dir(dir: &Path) -> Result<(), GuardError> {
    let failed = |source| GuardError::Remove {
        path: dir.to_owned(),
        source,
    };
    match std::fs::remove_dir_all(dir) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => Err(failed(err)),
        _ => Ok(()),
    }
}

/// Show, or hide, what libbpf and the verifier say on standard error.
pub fn set_verbose(verbose: bool) {
    longpin_bpf::set_verbose(verbose);
}
