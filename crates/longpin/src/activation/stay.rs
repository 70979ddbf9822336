//! What has to go before a store in place stays in place, and is in no file.

use std::fs::File;
use std::io;
use std::path::Path;

use longpin_linux::{file, xfs};

use super::{Name, Policy, Reason};
use crate::extents::settle;
use crate::filesystem::{Family, FileSystem};

/// What is not known where it fails.
pub(crate) const STAYS: &str = "whether stores stay in place: xfs keeps blocks for copies";

/// xfs keeps blocks for copies of shared ones, in runs, for half an hour after nobody shares them any more; the map
/// does not show them, and what is stored meanwhile goes there. They are given back: of this file and of others of its
/// owner that are as large, with the blocks behind their ends. Neither data nor sizes, maps or times change. Nobody may
/// write to the file meanwhile, or some of it could stay.
///
/// # Errors
///
/// What the kernel says: then a store may move blocks.
pub(crate) fn clear_preallocated(file: &File) -> io::Result<()> {
    let family = FileSystem::of_magic(file::status(file)?.magic).family;
    if family != Family::Xfs || !xfs::geometry(file)?.reflink {
        return Ok(());
    }
    // Blocks that wait to be written to are not given back.
    settle(file)?;
    xfs::free_preallocated(file)
}

/// Why blocks of a file move with the next store to them, or when the file system likes: names of reasons, or what
/// could not be found out. `None`: they stay, as far as the file system goes.
#[must_use]
pub fn moving_blocks(file: &File) -> Option<String> {
    let path = Path::new("");
    let report = match super::check_file(file, path, Policy::Blocks, None) {
        Ok(report) => report,
        Err(err) => return Some(format!("cannot tell: {err}")),
    };
    let moves = |reason: &&Reason| {
        use Name::{Changed, Compressed, CopyOnWrite, Delalloc, Encoded, FileSystemBusy, Inline};
        use Name::{LogStructured, MovesData, NotPinned, Shared, Snapshotted};
        matches!(
            reason.name,
            CopyOnWrite | Compressed | NotPinned | LogStructured | FileSystemBusy | MovesData
        ) || matches!(
            reason.name,
            Shared | Snapshotted | Inline | Encoded | Delalloc | Changed
        )
    };
    let names: Vec<&str> = report
        .reasons
        .iter()
        .filter(moves)
        .map(|r| r.name.as_str())
        .collect();
    match (names.is_empty(), report.unknown) {
        (false, _) => Some(names.join(", ")),
        (true, Some(unknown)) => Some(format!("cannot tell: {unknown}")),
        (true, None) => None,
    }
}
