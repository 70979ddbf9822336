//! Who holds what: the guard's rows, checked against the pages as they are now.

use std::collections::HashMap;
use std::time::Duration;

use longpin_bpf::pinned::Pinned;
use longpin_bpf::shared::{FileId, Row, Sight};
use longpin_linux::kallsyms::Kallsyms;
use longpin_linux::mounts::{self, Mount};
use longpin_linux::probe;

use crate::consumer::name_consumer;
use crate::guard::{GuardError, Running};

/// Bytes of a page.
const PAGE: u64 = 4096;

/// A range of a file that is pinned now, and by whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The file, as seen from here; its device and inode number where no path leads to it.
    pub path: String,
    /// No directory names the file any more.
    pub deleted: bool,
    /// First pinned byte.
    pub start: u64,
    /// First byte after the last pinned one.
    pub end: u64,
    /// Pages pinned between them, counted by looking.
    pub pages: u64,
    /// Who pinned; `None` for pins older than the guard.
    pub owner: Option<Owner>,
}

/// The process that asked for a pin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Process id, in the initial pid namespace.
    pub pid: u32,
    /// Name of its main thread.
    pub command: String,
    /// User id.
    pub uid: u32,
    /// cgroup v2 id.
    pub cgroup: u64,
    /// The kernel's subsystem that pinned, or its function.
    pub consumer: String,
    /// When its first pin was made, since the epoch.
    pub since: Duration,
}

/// All holds, by path and range. Rows whose pages are no longer pinned are removed in passing.
///
/// # Errors
///
/// [`GuardError`].
pub fn read_holds(running: &Running) -> Result<Vec<Hold>, GuardError> {
    read(running.pinned())
}

pub(crate) fn read(pinned: &Pinned) -> Result<Vec<Hold>, GuardError> {
    let probe = |what: &str| {
        let what = what.to_owned();
        move |source| GuardError::Probe { what, source }
    };
    let mounts = mounts::read_mounts().map_err(probe("the mounts"))?;
    let symbols = Kallsyms::read().map_err(probe("the kernel's symbols"))?;
    let mut holds = Vec::new();
    let mut explained: HashMap<FileId, Vec<(u64, u64)>> = HashMap::new();
    for row in pinned.rows()? {
        match pinned.inspect(&row.file, row.first, row.last)? {
            Some(sight) if sight.pages > 0 => {
                explained
                    .entry(row.file)
                    .or_default()
                    .push((row.first, row.last));
                let owner = Some(owner_of(&row, &symbols));
                holds.push(describe(&row.file, &sight, &mounts, owner));
            }
            _ => pinned.remove_row(&row.key)?,
        }
    }
    for file in pinned.files()? {
        for (first, last) in gaps(explained.remove(&file).unwrap_or_default()) {
            if let Some(sight) = pinned.inspect(&file, first, last)?.filter(|s| s.pages > 0) {
                holds.push(describe(&file, &sight, &mounts, None));
            }
        }
    }
    holds.sort_by(|a, b| (&a.path, a.start, a.end).cmp(&(&b.path, b.start, b.end)));
    Ok(holds)
}

/// What lies outside these ranges of page indexes: pinned pages there have no known owner.
fn gaps(mut ranges: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    ranges.sort_unstable();
    let mut gaps = Vec::new();
    let mut next = Some(0);
    for (first, last) in ranges {
        let Some(from) = next else { break };
        if first > from {
            gaps.push((from, first - 1));
        }
        next = last.checked_add(1).map(|after| after.max(from));
    }
    gaps.extend(next.map(|from| (from, u64::MAX)));
    gaps
}

fn describe(file: &FileId, sight: &Sight, mounts: &[Mount], owner: Option<Owner>) -> Hold {
    let (first, last) = sight.pinned.unwrap_or_default();
    Hold {
        path: name_file(file, sight, mounts),
        deleted: sight.links == 0,
        start: first.saturating_mul(PAGE),
        end: last.saturating_add(1).saturating_mul(PAGE),
        pages: sight.pages,
        owner,
    }
}

fn name_file(file: &FileId, sight: &Sight, mounts: &[Mount]) -> String {
    let (major, minor) = file.device();
    mounts::path_on(mounts, file.device(), &sight.names).unwrap_or_else(|| {
        match sight.names.as_slice() {
            [name] if name.starts_with("memfd:") => format!("/{name}"),
            _ => format!("inode {} on {major}:{minor}", file.ino),
        }
    })
}

fn owner_of(row: &Row, symbols: &Kallsyms) -> Owner {
    Owner {
        pid: row.tgid,
        command: row.command.clone(),
        uid: row.uid,
        cgroup: row.cgroup,
        consumer: name_consumer(symbols, &row.stack).unwrap_or_else(|| "unknown".into()),
        since: probe::boot_to_wall_offset() + Duration::from_nanos(row.since_ns),
    }
}

#[cfg(test)]
mod tests {
    use super::gaps;

    #[test]
    fn gaps_are_what_no_row_covers() {
        assert_eq!(gaps(vec![]), [(0, u64::MAX)]);
        assert_eq!(gaps(vec![(0, u64::MAX)]), []);
        assert_eq!(
            gaps(vec![(8, 9), (2, 3), (3, 5)]),
            [(0, 1), (6, 7), (10, u64::MAX)]
        );
        assert_eq!(gaps(vec![(0, 9), (2, 3)]), [(10, u64::MAX)]);
    }
}
