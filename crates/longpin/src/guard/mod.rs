//! The guard: programs in the kernel that refuse, with `ETXTBSY`, what would take a pinned page away
//! from its file.
//!
//! It is pinned in bpffs under [`Host::guard_dir`] and needs no process. Starting is one step for
//! everybody else: programs are attached refusing nothing, looked over, proved against this process
//! alone, published by one rename, and only then armed. Whatever a killed start leaves refuses nothing
//! and is cleared by the next command; but where explicit holds stood without a guard, the start is armed before the rename,
//! which exchanges the two sets of programs, and one that is killed there leaves both armed until the next command.
//!
//! # What meets what
//!
//! Each operation, the program that judges it, and what it needs; a cell says from which kernel on, or
//! how the rows differ. "note" is a tracing program that keeps the arguments: without its note the
//! operation is judged for the whole file.
//!
//! | operation | judged in | range from | 6.1 | 6.12 | 7.2 |
//! |---|---|---|---|---|---|
//! | truncate, ftruncate, O_TRUNC (C01) | `inode_setattr` | the new size | hook without idmap | yes | yes |
//! | fallocate, MADV_REMOVE, xfs UNRESVSP64 (C02) | `file_permission` | note, `vfs_fallocate` | yes | yes | yes |
//! | FICLONE, FICLONERANGE into (C03) | `file_permission` | note, `vfs_clone_file_range` | yes | yes | yes |
//! | FIDEDUPERANGE into (C03) | `file_permission` | note, `vfs_dedupe_file_range_one` | yes | yes | yes |
//! | copy_file_range into (C03) | `file_permission` | note, `vfs_copy_file_range` | yes | yes | yes |
//! | clone, dedupe, copy from (C04) | `file_permission`, reading | the same notes | yes | not needed | not needed |
//! | EXCHANGE_RANGE, COMMIT_RANGE, ENCODED_WRITE (C05) | `file_permission` in an ioctl | whole file | ENCODED_WRITE only | yes | yes |
//! | SWAP_BOOT, SETFLAGS, f2fs atomic writes, SEC_TRIM (C05) | `file_ioctl` | whole file | yes | yes | yes |
//! | btrfs's and f2fs's commands, at level swapfile (C05) | `file_ioctl` | file, subvolume or file system | yes | yes | yes |
//! | xfs SWAPEXT (C05) | `file_ioctl` | whole file system | yes | yes | yes |
//! | direct write (C06) | `file_permission` | whole file | yes | yes | yes |
//! | last umount (C08) | `sb_umount` | whole file system | yes | yes | yes |
//! | rmdir of a mount point, rename over it (C08) | `inode_rmdir`, `inode_rename` | whole file system | yes | yes | yes |
//! | quotaon, quotaoff (C05) | `quota_on`, `quotactl` | whole file | yes | yes | yes |
//! | remount read-only (C08) | `sb_remount` | note, `reconfigure_super` | yes | yes | yes |
//! | a page leaves all the same (C13) | `mm_filemap_delete_from_page_cache`, reports only | the page | yes | yes | yes |
//! | pin (C09, C15) | exit of the pin functions | the pages | `pin_user_pages_remote` by probes | yes | yes |
//!
//! What runs beside what:
//!
//! | | a pin in flight | a sweep | a reload of rules | start or stop |
//! |---|---|---|---|---|
//! | an operation | every file is walked until the pin's hint stands | every file is walked | sees the old rules or the new | sees no guard or all of it |
//! | a pin | - | counts as not yet known | is judged by the old rules or the new | start waits for pins that are older; the sweep finds them |
//! | forgetting a suspect | undoes it, or makes every file a suspect | one after the other, by the lock | no matter | one after the other, by the lock |

mod error;
mod levels;
mod proof;
mod rules;
mod start;
mod status;
mod stop;
mod sweep;

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use longpin_bpf::hooks::{self, removal_rank};
use longpin_bpf::pinned::Pinned;
use longpin_bpf::shared::Level;
use longpin_bpf::{BpfError, Mode, STRICT_ALL};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::{Enforcement, config};

pub use error::{GuardError, OUTSIDE_OF_FILTER, open_io_uring};
pub(crate) use levels::settle_holds;
pub use proof::ProofError;
pub use rules::{Reloaded, reload};
pub use start::{StartOptions, Started, start};
pub use status::{Hints, ProgramCost, Status, read_status};
pub use stop::{Force, Stopped, stop};
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
    /// The administrator's rules.
    pub config: PathBuf,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            security_modules: "/sys/kernel/security/lsm".into(),
            btf: "/sys/kernel/btf/vmlinux".into(),
            bpf_fs: "/sys/fs/bpf".into(),
            lock: "/run/longpin.lock".into(),
            config: config::DEFAULT_PATH.into(),
        }
    }
}

impl Host {
    /// Where a started guard is pinned.
    #[must_use]
    pub fn guard_dir(&self) -> PathBuf {
        self.bpf_fs.join("longpin")
    }

    /// Where a guard is assembled or taken apart: armed only for the moment in which it takes the place of explicit holds'
    /// programs. (bpffs allows no dots in names.)
    fn scratch_dir(&self) -> PathBuf {
        self.bpf_fs.join("longpin-scratch")
    }
}

/// `flock(2)`: one command at a time. Released when dropped, or when the process dies.
#[derive(Debug)]
struct Turn {
    _file: File,
}

/// How long a command waits for another one to finish.
const TURN_LIMIT: Duration = Duration::from_secs(60);

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
            // Nobody else may open it: whoever can may hold the lock for ever.
            .mode(0o600)
            .open(&host.lock)
            .map_err(|err| match err.kind() {
                std::io::ErrorKind::PermissionDenied => GuardError::NoPrivilege,
                _ => failed(err),
            })?;
        let deadline = Instant::now() + TURN_LIMIT;
        while let Err(err) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if err != Errno::WOULDBLOCK || Instant::now() > deadline {
                return Err(failed(err.into()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self { _file: file })
    }
}

/// A started guard, and the turn to use it.
#[derive(Debug)]
pub struct Running {
    pinned: Pinned,
    dir: PathBuf,
    // Held for its lock.
    _turn: Option<Turn>,
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
        // What a killed command left there may refuse.
        remove_dir(&host.scratch_dir())?;
        Self::open_with(host, Some(turn))
    }

    /// The same without keeping others waiting: to look and tell, not to sweep or to change anything.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn look(host: &Host) -> Result<Self, GuardError> {
        check_privilege()?;
        Self::open_with(host, None)
    }

    fn open_with(host: &Host, turn: Option<Turn>) -> Result<Self, GuardError> {
        match open_pinned(&host.guard_dir())? {
            Some(pinned) if pinned.state().mode().is_running() => Ok(Self {
                pinned,
                dir: host.guard_dir(),
                _turn: turn,
            }),
            _ => Err(GuardError::NotRunning),
        }
    }

    /// The running guard, or what explicit holds need where none runs.
    pub(crate) fn open_for_holds(host: &Host) -> Result<Self, GuardError> {
        check_privilege()?;
        let turn = Turn::take(host)?;
        remove_dir(&host.scratch_dir())?;
        match read_mode(&host.guard_dir())? {
            Some(mode) if mode.is_running() => {}
            _ => start::start_for_holds(host)?,
        }
        Self::open_with(host, Some(turn))
    }

    pub(crate) fn pinned(&self) -> &Pinned {
        &self.pinned
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The same, of a hold that somebody asked for.
    pub(crate) fn enforcement_of_holds(&self, level: Level) -> Result<Enforcement, GuardError> {
        let attached = read_attached(&self.dir)?;
        Ok(Enforcement::of_explicit_hold(&attached, level))
    }

    /// The program that level swapfile needs, and that this kernel has no place for.
    pub(crate) fn lacks_for_level_swapfile(&self) -> Result<Option<&'static str>, GuardError> {
        let attached = read_attached(&self.dir)?;
        let is_attached = |program: &str| attached.iter().any(|name| name == program);
        Ok(hooks::find_unattached(is_attached))
    }

    /// How much of the promise the attached programs enforce.
    pub(crate) fn enforcement(&self) -> Result<Enforcement, GuardError> {
        let strict = self.pinned.state().strict.load(Ordering::Acquire);
        read_enforcement(&self.dir, level_of(strict))
    }
}

/// How much of the promise the links pinned in a directory enforce.
fn read_enforcement(dir: &Path, level: Level) -> Result<Enforcement, GuardError> {
    Ok(Enforcement::by_programs(&read_attached(dir)?, level))
}

/// At which level each pin is a hold, by the word of the state.
const fn level_of(strict: u32) -> Level {
    if strict & STRICT_ALL == 0 {
        Level::Layout
    } else {
        Level::Swapfile
    }
}

/// The programs attached by the links pinned in a directory.
fn read_attached(dir: &Path) -> Result<Vec<String>, GuardError> {
    let failed = |source| GuardError::Probe {
        what: format!("the programs pinned in {}", dir.display()),
        source,
    };
    let mut attached = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        attached.extend(
            name.to_string_lossy()
                .strip_prefix("link_")
                .map(str::to_owned),
        );
    }
    Ok(attached)
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

/// Whom a guard pinned in a directory refuses, whatever else of it can be opened.
fn read_mode(dir: &Path) -> Result<Option<Mode>, GuardError> {
    match longpin_bpf::pinned::read_mode(dir) {
        Err(BpfError::Abi { found }) => Err(GuardError::OtherVersion { found }),
        other => Ok(other?),
    }
}

/// Unpin everything in a directory of bpffs, and the directory: first what refuses, last the state that
/// says whether it does. What is gone already is no error.
fn remove_dir(dir: &Path) -> Result<(), GuardError> {
    let failed = |source| GuardError::Remove {
        path: dir.to_owned(),
        source,
    };
    let gone = |err: &std::io::Error| err.kind() == std::io::ErrorKind::NotFound;
    let entries = match std::fs::read_dir(dir) {
        Err(err) if gone(&err) => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    let names: Result<Vec<_>, _> = entries.map(|entry| Ok(entry?.file_name())).collect();
    let mut names = names.map_err(failed)?;
    names.sort_by_key(|name| removal_rank(&name.to_string_lossy()));
    for name in names {
        match std::fs::remove_file(dir.join(name)) {
            Err(err) if !gone(&err) => return Err(failed(err)),
            _ => {}
        }
    }
    std::fs::remove_dir(dir).map_err(failed)
}

/// Show, or hide, what libbpf and the verifier say on standard error.
pub fn set_verbose(verbose: bool) {
    longpin_bpf::set_verbose(verbose);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_emptied_refusals_first_state_last() {
        let mut names = [
            "map_state",
            "map_files",
            "link_file_permission",
            "link_pin_exit",
        ];
        names.sort_by_key(|name| removal_rank(name));
        assert_eq!((names[0], names[3]), ("link_file_permission", "map_state"));
        let dir = tempfile::tempdir().unwrap();
        let guard = dir.path().join("longpin");
        std::fs::create_dir(&guard).unwrap();
        std::fs::write(guard.join("map_state"), "").unwrap();
        remove_dir(&guard).unwrap();
        remove_dir(&guard).unwrap();
        assert!(!guard.exists());
    }

    #[test]
    fn only_one_command_has_the_turn() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host {
            lock: dir.path().join("lock"),
            ..Host::default()
        };
        let turn = Turn::take(&host).unwrap();
        let second = File::options().write(true).open(&host.lock).unwrap();
        let taken = flock(&second, FlockOperation::NonBlockingLockExclusive);
        assert_eq!(taken, Err(Errno::WOULDBLOCK));
        drop(turn);
        flock(&second, FlockOperation::NonBlockingLockExclusive).unwrap();
    }
}
