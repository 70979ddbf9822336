//! What an administrator does to single files and holds.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use longpin_bpf::rule::RuleAction;
use longpin_bpf::shared::{self, FileId};
use longpin_linux::mounts;

use crate::events::{self, Notice};
use crate::filesystem::{Family, FileSystem};
use crate::guard::{self, Force, GuardError, Running};
use crate::listing::{self, Row};
use crate::names;
use crate::on_demand::{self, OnDemandReport};

/// Everything the guard knows of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileReport {
    /// Its pins, holds or not.
    pub holds: Vec<Row>,
    /// Devices that use it without a pin.
    pub on_demand: OnDemandReport,
    /// What happened to it, as far as it is still kept.
    pub events: Vec<Notice>,
    /// The file of a layer, where the path is on overlayfs.
    pub layer: Option<PathBuf>,
    /// Long-term pins are denied (true) or allowed (false) by name.
    pub rule: Option<bool>,
}

/// Which file a path leads to, as the kernel sees it.
///
/// # Errors
///
/// [`GuardError::Open`], [`GuardError::NotRegular`], or what keeps the guard from answering.
pub fn identify(running: &Running, path: &Path) -> Result<FileId, GuardError> {
    let opened = |source| GuardError::Open {
        path: path.to_owned(),
        source,
    };
    let file = File::options()
        .read(true)
        // A pipe without a writer must not stop us.
        .custom_flags(libc_flags())
        .open(path)
        .map_err(opened)?;
    if !file.metadata().map_err(opened)?.is_file() {
        return Err(GuardError::NotRegular {
            path: path.to_owned(),
        });
    }
    running
        .pinned()
        .identify(&file)?
        .ok_or_else(|| GuardError::Probe {
            what: format!("the inode of {}", path.display()),
            source: std::io::ErrorKind::Unsupported.into(),
        })
}

/// The file of a layer that overlayfs shows at this path; `None`: it is not on overlayfs, or no mount here shows it.
///
/// # Errors
///
/// As [`identify`].
pub fn find_layer(running: &Running, path: &Path) -> Result<Option<PathBuf>, GuardError> {
    let probe = |what: &str| {
        let what = format!("{what} of {}", path.display());
        move |source| GuardError::Probe { what, source }
    };
    let fs = rustix::fs::statfs(path).map_err(|err| probe("the file system")(err.into()))?;
    let magic = u64::try_from(fs.f_type).unwrap_or(0);
    if FileSystem::of_magic(magic).family != Family::Overlay {
        return Ok(None);
    }
    let file = identify(running, path)?;
    let Some(sight) = running.pinned().inspect(&file, 0, 0)? else {
        return Ok(None);
    };
    let mounts = mounts::read_mounts().map_err(probe("the mounts"))?;
    Ok(names::find_path(&file, &sight, &mounts).map(PathBuf::from))
}

/// The same without a guard, which knows: as far as the options of the mount tell it, and the files' numbers say so, too.
#[must_use]
pub fn guess_layer(path: &Path) -> Option<PathBuf> {
    names::find_in_layers(path)
}

fn libc_flags() -> i32 {
    i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0)
}

/// Everything the guard knows of a file.
///
/// # Errors
///
/// As [`identify`].
pub fn look_up(running: &Running, path: &Path) -> Result<FileReport, GuardError> {
    let file = identify(running, path)?;
    let mut holds = listing::read_rows(running)?;
    holds.retain(|hold| hold.is_of(&file));
    let mut on_demand = on_demand::read(running)?.unwrap_or_default();
    on_demand.regions.retain(|region| region.file == file);
    let rules = running.pinned().file_rules()?;
    let ids: Vec<u64> = holds.iter().map(|hold| hold.id).collect();
    let same = |known: &FileId| FileId { inode: 0, ..file } == *known;
    Ok(FileReport {
        layer: find_layer(running, path)?,
        holds,
        on_demand,
        events: events::read_events_of(running, &file, &ids)?,
        rule: rules.iter().find(|(f, _)| same(f)).map(|(_, deny)| *deny),
    })
}

/// Deny long-term pins of a file until the guard stops. How many pins it has now; they go on.
///
/// # Errors
///
/// As [`identify`].
pub fn deny(running: &Running, path: &Path) -> Result<usize, GuardError> {
    set_rule(running, path, RuleAction::Deny)
}

/// Allow long-term pins of a file until the guard stops, whatever broader rule denies them. How many it has now.
///
/// # Errors
///
/// As [`identify`].
pub fn allow(running: &Running, path: &Path) -> Result<usize, GuardError> {
    set_rule(running, path, RuleAction::Allow)
}

fn set_rule(running: &Running, path: &Path, action: RuleAction) -> Result<usize, GuardError> {
    let file = identify(running, path)?;
    running.pinned().set_file_rule(&file, Some(action))?;
    let holds = listing::read_rows(running)?;
    Ok(holds.iter().filter(|hold| hold.is_of(&file)).count())
}

/// Release a hold: its pages stay pinned, and are protected no longer. The file stays held while another row
/// of it is; a new pin of it is a hold again.
///
/// # Errors
///
/// [`GuardError::NoSuchHold`]; [`GuardError::Alive`] without `force`.
pub fn release(running: &Running, id: u64, force: Force) -> Result<Row, GuardError> {
    if !guard::read_status(running)?.hints_are_complete() {
        guard::sweep(running, &mut |_, _| ())?;
    }
    let pinned = running.pinned();
    let holds = listing::read_rows(running)?;
    let rows = pinned.rows()?;
    let (Some(hold), Some(row)) = (
        holds.iter().find(|hold| hold.id == id && id != 0),
        rows.iter().find(|row| row.id == id),
    ) else {
        return Err(GuardError::NoSuchHold { id });
    };
    if row.explicit.is_some() {
        release_explicit(running, hold, row, force)?;
        return Ok(hold.clone());
    }
    if force == Force::No {
        return Err(GuardError::Alive {
            id,
            pages: hold.pages,
            path: hold.path.clone(),
            pid: row.tgid,
        });
    }
    pinned.release_row(row)?;
    let others = holds
        .iter()
        .filter(|other| other.file == row.file && other.id != id);
    if !others.into_iter().any(Row::is_enforced) {
        pinned.unhold(&row.file)?;
    }
    Ok(hold.clone())
}

/// One that persists was asked to stand until now.
fn release_explicit(
    running: &Running,
    hold: &Row,
    row: &shared::Row,
    force: Force,
) -> Result<(), GuardError> {
    if force == Force::No && !row.persists() {
        return Err(GuardError::Asked {
            id: hold.id,
            path: hold.path.clone(),
            pid: row.tgid,
        });
    }
    running.pinned().take_back(row)?;
    guard::settle_holds(running)
}
