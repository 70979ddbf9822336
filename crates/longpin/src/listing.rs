//! Who holds what: the guard's rows, checked against the pages as they are now.

use longpin_linux::arch;
use std::collections::HashMap;
use std::time::Duration;

use longpin_bpf::pinned::Pinned;
use longpin_bpf::shared::{self, FileId, Sight, Stray, Suspect};
pub use longpin_bpf::shared::{Level, Verdict as PinVerdict};
use longpin_linux::cgroups;
use longpin_linux::kallsyms::Kallsyms;
use longpin_linux::mounts::{self, Mount};
use longpin_linux::probe;

use crate::consumer::name_consumer;
use crate::guard::{GuardError, Running};
use crate::names::{leads_to_explicit, name_file};

/// Runs of pinned pages that are listed for one row; the last one stands for all that follow.
const MAX_RUNS: usize = 16;
/// Bytes that a row keeps of a name, at least: it may have been cut inside a character.
const KEPT: usize = 60;

/// A range of a file that is pinned now, and by whom.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Row {
    /// Its number while the guard runs; 0 where nobody is known to have pinned.
    pub id: u64,
    /// Whether it is a hold at all; if not, why.
    pub verdict: PinVerdict,
    /// What is refused because of it.
    pub level: Level,
    /// Somebody asked for it: its range is held whether pages are pinned or not.
    pub explicit: bool,
    /// The file, as seen from here; its device and inode number where no path leads to it.
    pub path: String,
    /// No directory names the file any more.
    pub deleted: bool,
    /// The name that it had when it was pinned, if it has another now.
    pub was: Option<String>,
    /// First pinned byte.
    pub start: u64,
    /// First byte after the last pinned one.
    pub end: u64,
    /// Pages pinned between them, counted by looking.
    pub pages: u64,
    /// Pages that left the file while they were pinned: the hold is broken.
    pub broken: u64,
    /// Who pinned; `None` for pins older than the guard.
    pub owner: Option<Owner>,
    pub(crate) file: FileId,
}

impl Row {
    /// Is this its file? One that is held explicitly may have left memory, and come back at another address.
    pub(crate) fn is_of(&self, file: &FileId) -> bool {
        self.file == *file || (self.explicit && self.file.has_numbers_of(file))
    }

    /// Operations are refused because of it.
    #[must_use]
    pub const fn is_enforced(&self) -> bool {
        matches!(self.verdict, PinVerdict::Held | PinVerdict::Denied)
    }
}

/// The process that asked for a pin.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Owner {
    /// Process id, in the initial pid namespace.
    pub pid: u32,
    /// Name of its main thread.
    pub command: String,
    /// User id.
    pub uid: u32,
    /// cgroup v2 path, or its id where there is none.
    pub cgroup: String,
    /// The kernel's subsystem that pinned, or its function.
    pub consumer: String,
    /// When its first pin was made, since the epoch.
    pub since: Duration,
}

/// All pins, by path and range: holds, and pins that are none. Rows whose pages are no longer pinned are
/// removed in passing, and recorded as ended.
///
/// # Errors
///
/// [`GuardError`].
pub fn read_rows(running: &Running) -> Result<Vec<Row>, GuardError> {
    read(running.pinned())
}

pub(crate) fn read(pinned: &Pinned) -> Result<Vec<Row>, GuardError> {
    let suspects = read_suspects(pinned)?;
    let rows = pinned.rows()?;
    let strays = pinned.strays()?;
    let reader = Reader::new(suspects, strays, &rows)?;
    let mut holds = Vec::new();
    let mut explained: HashMap<FileId, Vec<(u64, u64)>> = HashMap::new();
    for row in rows {
        if let Some(level) = row.explicit {
            holds.push(reader.describe_explicit(pinned, &row, level)?);
            continue;
        }
        match look(pinned, &reader.suspects, &row)? {
            Some(sight) => {
                explained
                    .entry(row.file)
                    .or_default()
                    .push(sight.folios.unwrap_or((row.first, row.last)));
                let hold = reader.describe_row(&row, &sight);
                holds.extend(split_runs(pinned, &row, &sight, hold)?);
            }
            None => match stray_pages(&reader.strays, &row) {
                0 => end(pinned, &row)?,
                pages => holds.push(reader.describe_broken(pinned, &row, pages)?),
            },
        }
    }
    for suspect in reader.suspects.values() {
        let file = suspect.file;
        for (first, last) in gaps(explained.remove(&file).unwrap_or_default()) {
            if let Some(sight) = pinned.inspect(&file, first, last)?.filter(|s| s.pages > 0) {
                holds.push(reader.describe_unknown(suspect, &sight));
            }
        }
    }
    unhold_readers(pinned, &reader.suspects, &holds)?;
    holds.sort_by(|a, b| (&a.path, a.start, a.end, a.id).cmp(&(&b.path, b.start, b.end, b.id)));
    Ok(holds)
}

/// A row keeps one range, from its first page to its last: shown is what of it is pinned.
fn split_runs(
    pinned: &Pinned,
    row: &shared::Row,
    sight: &Sight,
    hold: Row,
) -> Result<Vec<Row>, GuardError> {
    let range = sight.pinned.unwrap_or_default();
    if range.1 - range.0 + 1 == sight.pages {
        return Ok(vec![hold]);
    }
    let runs = pinned.runs(&row.file, range, MAX_RUNS)?;
    let part = |(first, last): (u64, u64)| Row {
        start: first.saturating_mul(arch::page_size()),
        end: last.saturating_add(1).saturating_mul(arch::page_size()),
        pages: last - first + 1,
        ..hold.clone()
    };
    let mut parts: Vec<Row> = runs.into_iter().map(part).collect();
    let others: u64 = parts.iter().rev().skip(1).map(|part| part.pages).sum();
    if let Some(rest) = parts.last_mut() {
        // The last run may stand for many.
        rest.pages = sight.pages.saturating_sub(others).min(rest.pages);
    }
    Ok(parts)
}

/// Rows whose pages are no longer pinned are removed, and recorded as ended; how many rows are left.
pub(crate) fn end_rows(pinned: &Pinned) -> Result<usize, GuardError> {
    let mut left = 0;
    let suspects = read_suspects(pinned)?;
    let rows = pinned.rows()?.into_iter();
    let strays = pinned.strays()?;
    for row in rows.filter(|row| row.explicit.is_none()) {
        let ended = look(pinned, &suspects, &row)?.is_none() && stray_pages(&strays, &row) == 0;
        if ended {
            end(pinned, &row)?;
        } else {
            left += 1;
        }
    }
    Ok(left)
}

/// By the address of the inode.
type Suspects = HashMap<u64, Suspect>;

/// Before the rows: a row that is newer than its suspect is the suspect's.
fn read_suspects(pinned: &Pinned) -> Result<Suspects, GuardError> {
    let suspects = pinned.suspects()?.into_iter();
    Ok(suspects.map(|s| (s.file.inode, s)).collect())
}

/// What of a row is pinned now; `None`: nothing, or its file has gone and left its inode to another.
fn look(
    pinned: &Pinned,
    suspects: &Suspects,
    row: &shared::Row,
) -> Result<Option<Sight>, GuardError> {
    let known = suspects.get(&row.file.inode);
    if known.is_some_and(|suspect| row.id <= suspect.born) {
        return Ok(None);
    }
    let sight = pinned.inspect(&row.file, row.first, row.last)?;
    Ok(sight.filter(|sight| sight.pages > 0))
}

/// The file of an explicit hold, which may have left memory, and come back at another address.
fn inspect_explicit(pinned: &Pinned, row: &shared::Row) -> Result<Option<Sight>, GuardError> {
    let seen = pinned.inspect(&row.file, row.first, row.last)?;
    let Some(inode) = pinned.explicit_at(&row.file)?.filter(|_| seen.is_none()) else {
        return Ok(seen);
    };
    let file = FileId { inode, ..row.file };
    Ok(pinned.inspect(&file, row.first, row.last)?)
}

/// A file that nobody has open may have left memory, or its names: it is held all the same.
fn see_explicit(pinned: &Pinned, row: &shared::Row, mounts: &[Mount]) -> Result<Sight, GuardError> {
    let sight = inspect_explicit(pinned, row)?;
    let mut sight = sight.unwrap_or_else(|| Sight::unseen(Vec::new()));
    // The name that it had is a guess.
    let names = vec![row.name.clone()];
    if sight.names.is_empty() && leads_to_explicit(&row.file, &names, mounts) {
        sight.names = names;
    }
    Ok(sight)
}

/// The file of an explicit hold, which may have left memory.
pub(crate) fn name_explicit(
    pinned: &Pinned,
    row: &shared::Row,
    mounts: &[Mount],
) -> Result<String, GuardError> {
    let sight = see_explicit(pinned, row, mounts)?;
    Ok(name_file(&row.file, &sight, mounts))
}

/// Pages of this row that left their file while they were pinned, and are pinned still. A large folio goes as a whole; the
/// row has only those of its pages that lie in its range.
fn stray_pages(strays: &[Stray], row: &shared::Row) -> u64 {
    let own = strays.iter().filter(|stray| stray.file == row.file);
    own.map(|stray| pages_between(stray, row.first, row.last))
        .sum()
}

fn pages_between(stray: &Stray, first: u64, last: u64) -> u64 {
    let end = stray.first.saturating_add(stray.pages);
    let end = end.min(last.saturating_add(1));
    end.saturating_sub(stray.first.max(first))
}

/// The row's hold is over; the file need not be walked any more if nothing else of it is pinned.
fn end(pinned: &Pinned, row: &shared::Row) -> Result<(), GuardError> {
    pinned.end_row(row)?;
    pinned.forget(&row.file)?;
    Ok(())
}

/// Files that were held, and of which only pins are left that are no holds, are held no longer.
fn unhold_readers(pinned: &Pinned, suspects: &Suspects, holds: &[Row]) -> Result<(), GuardError> {
    let mut held: HashMap<FileId, bool> = HashMap::new();
    for hold in holds.iter().filter(|hold| !hold.explicit) {
        *held.entry(hold.file).or_default() |= hold.is_enforced();
    }
    for (file, held) in held {
        if !held
            && suspects
                .get(&file.inode)
                .is_some_and(|suspect| suspect.held)
        {
            pinned.unhold(&file)?;
        }
    }
    Ok(())
}

/// What rows and sights are described with.
struct Reader {
    suspects: Suspects,
    strays: Vec<Stray>,
    mounts: Vec<Mount>,
    symbols: Kallsyms,
    cgroups: HashMap<u64, String>,
}

impl Reader {
    fn new(
        suspects: Suspects,
        strays: Vec<Stray>,
        rows: &[shared::Row],
    ) -> Result<Self, GuardError> {
        let probe = |what: &str| {
            let what = what.to_owned();
            move |source| GuardError::Probe { what, source }
        };
        let stacks = rows.iter().flat_map(|row| row.stack.iter().copied());
        let mounts = mounts::read_mounts().map_err(probe("the mounts"))?;
        Ok(Self {
            suspects,
            strays,
            symbols: Kallsyms::look_up(stacks).map_err(probe("the kernel's symbols"))?,
            cgroups: cgroups::read_paths(&mounts),
            mounts,
        })
    }

    fn describe_row(&self, row: &shared::Row, sight: &Sight) -> Row {
        let name = sight.names.last();
        let renamed = sight.links > 0
            && !row.name.is_empty()
            && (name.is_some_and(|now| !is_named(now, &row.name)) || row.parent != sight.parent);
        Row {
            id: row.id,
            verdict: row.verdict,
            was: renamed.then(|| row.name.clone()),
            owner: Some(self.owner_of(row)),
            ..self.describe(&row.file, sight)
        }
    }

    fn describe_explicit(
        &self,
        pinned: &Pinned,
        row: &shared::Row,
        level: Level,
    ) -> Result<Row, GuardError> {
        let sight = see_explicit(pinned, row, &self.mounts)?;
        let is_named = !sight.names.is_empty();
        Ok(Row {
            id: row.id,
            verdict: row.verdict,
            was: (!is_named && sight.links > 0).then(|| row.name.clone()),
            level,
            explicit: true,
            start: row.first.saturating_mul(arch::page_size()),
            // The whole file: as long as it is now.
            end: match row.last.saturating_add(1).saturating_mul(arch::page_size()) {
                end if sight.size > 0 && level == Level::Swapfile => end.min(sight.size),
                end => end,
            },
            owner: Some(Owner {
                consumer: "hold".into(),
                ..self.owner_of(row)
            }),
            ..self.describe(&row.file, &sight)
        })
    }

    /// Nothing of it is the file's any more, and the device uses it on.
    fn describe_broken(
        &self,
        pinned: &Pinned,
        row: &shared::Row,
        pages: u64,
    ) -> Result<Row, GuardError> {
        let known = self.suspects.get(&row.file.inode);
        // A suspect ends with its inode, so without one, or with a younger one, another file is there now.
        let is_there = known.is_some_and(|suspect| row.id > suspect.born);
        let sight = pinned.inspect(&row.file, row.first, row.last)?;
        let sight = sight.filter(|_| is_there);
        let has_gone = sight.is_none();
        let sight = sight.unwrap_or_else(|| Sight::unseen(Vec::new()));
        let hold = self.describe(&row.file, &sight);
        Ok(Row {
            id: row.id,
            verdict: row.verdict,
            // As events tell it: no path leads to a file that has gone.
            path: if has_gone {
                format!("{} (gone)", row.name)
            } else {
                hold.path
            },
            start: row.first.saturating_mul(arch::page_size()),
            end: row.last.saturating_add(1).saturating_mul(arch::page_size()),
            pages,
            broken: hold.broken.max(pages),
            owner: Some(self.owner_of(row)),
            ..hold
        })
    }

    fn describe_unknown(&self, suspect: &Suspect, sight: &Sight) -> Row {
        let verdict = if suspect.held {
            PinVerdict::Held
        } else {
            PinVerdict::Reader
        };
        Row {
            verdict,
            ..self.describe(&suspect.file, sight)
        }
    }

    fn describe(&self, file: &FileId, sight: &Sight) -> Row {
        let (first, last) = sight.pinned.unwrap_or_default();
        Row {
            id: 0,
            verdict: PinVerdict::Held,
            level: match self.suspects.get(&file.inode) {
                Some(suspect) if suspect.strict => Level::Swapfile,
                _ => Level::Layout,
            },
            explicit: false,
            path: name_file(file, sight, &self.mounts),
            deleted: sight.links == 0,
            was: None,
            start: first.saturating_mul(arch::page_size()),
            end: last.saturating_add(1).saturating_mul(arch::page_size()),
            pages: sight.pages,
            broken: self.suspects.get(&file.inode).map_or(0, |s| s.broken),
            owner: None,
            file: *file,
        }
    }

    fn owner_of(&self, row: &shared::Row) -> Owner {
        Owner {
            pid: row.tgid,
            command: row.command.clone(),
            uid: row.uid,
            cgroup: self
                .cgroups
                .get(&row.cgroup)
                .map_or_else(|| row.cgroup.to_string(), Clone::clone),
            consumer: name_consumer(&self.symbols, &row.stack).unwrap_or_else(|| "unknown".into()),
            since: probe::boot_to_wall_offset() + Duration::from_nanos(row.since_ns),
        }
    }
}

/// Is this the name, of which the row kept the beginning?
fn is_named(name: &str, kept: &str) -> bool {
    name == kept || (kept.len() >= KEPT && name.starts_with(kept))
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

#[cfg(test)]
mod tests {
    use longpin_bpf::shared::{FileId, Stray};

    use super::{gaps, pages_between};

    #[test]
    fn a_row_has_of_a_folio_what_lies_in_its_range() {
        let file = FileId {
            inode: 1,
            ino: 1,
            dev: 1,
            generation: 0,
        };
        let stray = Stray {
            file,
            first: 16,
            pages: 16,
        };
        for (first, last, pages) in [
            (0, 15, 0),
            (0, 16, 1),
            (18, 19, 2),
            (31, 40, 1),
            (32, 40, 0),
            (0, u64::MAX, 16),
        ] {
            assert_eq!(pages_between(&stray, first, last), pages, "{first}..{last}");
        }
    }

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
