//! What would stop in the middle is refused before anything is done.

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use longpin_linux::file;

use super::error::{PrepareError, step};
use crate::admin;
use crate::guard::{Host, Running};

/// Somebody holds the file: what prepare writes would be refused half way.
pub(super) fn refuse_held(file: &File, path: &Path) -> Result<(), PrepareError> {
    match file::is_write_refused(file).map_err(step("ask whether the file is held", 0..0))? {
        false => Ok(()),
        true => Err(PrepareError::Held { by: holders(path) }),
    }
}

/// Their names, for who may see them.
fn holders(path: &Path) -> Vec<String> {
    let known = Running::open(&Host::default()).and_then(|running| admin::look_up(&running, path));
    let owners = known.map(|known| known.holds).unwrap_or_default();
    let owners = owners.into_iter().filter_map(|hold| hold.owner);
    let mut names: Vec<String> = owners
        .map(|owner| format!("{}[{}] by {}", owner.command, owner.pid, owner.consumer))
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// `RLIMIT_FSIZE`: who writes behind it is killed.
pub(super) fn refuse_over_limit(target: u64) -> Result<(), PrepareError> {
    match file::size_limit() {
        Some(limit) if limit < target => Err(PrepareError::SizeLimit { limit, target }),
        _ => Ok(()),
    }
}

/// Space for all of it, before some of it is taken.
pub(super) fn refuse_full(file: &File, need: u64, range: Range<u64>) -> Result<(), PrepareError> {
    let room = rustix::fs::fstatvfs(file).map_err(std::io::Error::from);
    let room = room.map_err(step("ask for free blocks", range.clone()))?;
    // What is kept for root is nobody else's.
    let blocks = match file::may_use_reserve() {
        true => room.f_bfree,
        false => room.f_bavail,
    };
    if blocks.saturating_mul(room.f_frsize) < need {
        return Err(step("allocate blocks", range)(
            rustix::io::Errno::NOSPC.into(),
        ));
    }
    Ok(())
}
