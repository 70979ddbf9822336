//! `FS_IMMUTABLE_FL`: nobody opens the file for writing, shrinks it or takes its name away, until somebody clears it.

use std::fs::File;
use std::path::Path;

use longpin_linux::file::{self, Found, Kind, Lease};
use rustix::fs::{IFlags, OFlags};

use super::error::{PrepareError, step};

/// Nobody has the file open but the lease's owner. Who had begun to open it for writing before would get a writable
/// descriptor of an immutable file: then it is taken back.
pub(super) fn set(file: &File, lease: &Lease<'_>, size: u64) -> Result<(), PrepareError> {
    let flags = file::flags(file).map_err(step("read the flags", 0..size))?;
    let flags = flags.unwrap_or(IFlags::empty());
    file::set_flags(file, flags | IFlags::IMMUTABLE)
        .map_err(step("make the file immutable", 0..size))?;
    let synced = file.sync_all().map_err(step("sync", 0..size));
    let alone = lease.is_whole().map_err(step("ask for the lease", 0..size));
    let done = synced.and(alone).and_then(|alone| match alone {
        true => Ok(()),
        false => Err(PrepareError::Opened { at: size }),
    });
    if done.is_err() {
        // If that fails, too, the first failure is the one to tell.
        let _ = file::set_flags(file, flags);
    }
    done
}

/// Clear the attribute, and nothing else: false when it was not set.
///
/// # Errors
///
/// [`PrepareError`].
pub fn clear(path: &Path) -> Result<bool, PrepareError> {
    let failed = |source| PrepareError::Open {
        path: path.to_owned(),
        source,
    };
    let found = Found::at(path).map_err(failed)?;
    let kind = found.kind().map_err(failed)?;
    if kind != Kind::Regular {
        let path = path.to_owned();
        return Err(PrepareError::NotRegular { path, kind });
    }
    let file = found.open(OFlags::RDONLY).map_err(failed)?;
    let flags = file::flags(&file).map_err(step("read the flags", 0..0))?;
    let Some(flags) = flags.filter(|flags| flags.contains(IFlags::IMMUTABLE)) else {
        return Ok(false);
    };
    file::set_flags(&file, flags - IFlags::IMMUTABLE)
        .map_err(step("make the file mutable again", 0..0))?;
    file.sync_all().map_err(step("sync", 0..0))?;
    Ok(true)
}
