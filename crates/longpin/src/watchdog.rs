//! The watchdog: block maps of files that are held at level swapfile, read again and again.
//!
//! The guard refuses what it knows of. A mover that no hook sees shows in the map: the blocks under the file are others
//! than they were.

use std::collections::{HashMap, HashSet};
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use longpin_linux::file::{self, Found};
use rustix::fs::OFlags;

use crate::extents::{BlockMap, MapError};
use crate::filesystem::{Family, FileSystem};
use crate::listing::{Level, Row};

/// Parts of a file whose maps are told apart.
const PARTS: u64 = 4096;
/// Bytes of the smallest part.
const SMALLEST: u64 = 1 << 20;

/// What a look found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// Number of the hold; 0 where nobody is known to have pinned.
    pub hold: u64,
    /// The file.
    pub path: String,
    /// What is to be told of it.
    pub kind: FindingKind,
}

/// What is to be told of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FindingKind {
    /// Its map is known from now on, so many bytes of it.
    Verifying(u64),
    /// In these bytes its blocks are no longer those that they were: the hold is broken.
    Moved(Range<u64>),
    /// Its map cannot be read, or not any more.
    Unverified(String),
}

/// The maps as they were.
#[derive(Debug, Default)]
pub struct Watchdog {
    known: HashMap<(u32, u64), Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// `None`: it has no blocks, or they were never read.
    map: Option<Parts>,
    /// It could not be read when it was looked at last, and that was told.
    unread: bool,
}

/// Digests of the parts of a map.
#[derive(Debug, PartialEq, Eq)]
struct Parts {
    part: u64,
    size: u64,
    digests: Vec<u64>,
}

#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("another file has its name here, or no path leads to it")]
    Elsewhere,
    #[error("cannot open it: {0}")]
    Open(#[from] io::Error),
    #[error("{0}")]
    Map(#[from] MapError),
}

impl Watchdog {
    /// Reads the maps of all files that are held at level swapfile, and compares them with what they were.
    pub fn look(&mut self, holds: &[Row]) -> Vec<Finding> {
        let is_strict = |hold: &&Row| hold.level == Level::Swapfile && hold.is_enforced();
        let mut seen = HashSet::new();
        let mut findings = Vec::new();
        for hold in holds.iter().filter(is_strict) {
            let key = (hold.file.dev, hold.file.ino);
            if seen.insert(key) {
                let kind = self.look_at(key, hold);
                findings.extend(kind.into_iter().map(|kind| Finding {
                    hold: hold.id,
                    path: hold.path.clone(),
                    kind,
                }));
            }
        }
        self.known.retain(|key, _| seen.contains(key));
        findings
    }

    fn look_at(&mut self, key: (u32, u64), hold: &Row) -> Vec<FindingKind> {
        let before = self.known.remove(&key).unwrap_or_default();
        let (known, found) = match read(key, Path::new(&hold.path), before.map.as_ref()) {
            Ok(now) => {
                let found = match (&before.map, &now) {
                    (Some(before), Some(now)) => {
                        before.moved(now).map(FindingKind::Moved).collect()
                    }
                    (None, Some(now)) => vec![FindingKind::Verifying(now.size)],
                    (_, None) => Vec::new(),
                };
                let known = Known {
                    map: now,
                    unread: false,
                };
                (known, found)
            }
            Err(err) => {
                let told = FindingKind::Unverified(err.to_string());
                let known = Known {
                    unread: true,
                    ..before
                };
                (
                    known,
                    if before.unread {
                        Vec::new()
                    } else {
                        vec![told]
                    },
                )
            }
        };
        self.known.insert(key, known);
        found
    }
}

/// The map as it is now, in the parts that it had before; `None`: the file has no blocks.
fn read(key: (u32, u64), path: &Path, before: Option<&Parts>) -> Result<Option<Parts>, Unreadable> {
    let found = Found::at(path).map_err(|err| match err.kind() {
        io::ErrorKind::NotFound => Unreadable::Elsewhere,
        _ => err.into(),
    })?;
    let file = found.open(OFlags::RDONLY)?;
    let status = file::status(&file)?;
    let data = file.metadata()?;
    let device = status.device.0 << 20 | status.device.1;
    if (device, data.ino()) != key {
        return Err(Unreadable::Elsewhere);
    }
    if FileSystem::of_magic(status.magic).family == Family::Memory {
        return Ok(None);
    }
    let (part, size) = match before {
        Some(parts) => (parts.part, parts.size),
        None => (part_of(data.len()), data.len()),
    };
    let map = BlockMap::open(&file, &status)?;
    let digests: Result<_, MapError> = ranges(part, size).map(|it| map.digest(&it)).collect();
    Ok(Some(Parts {
        part,
        size,
        digests: digests?,
    }))
}

/// A part is so large that there are not too many.
const fn part_of(size: u64) -> u64 {
    let part = size.div_ceil(PARTS).next_power_of_two();
    if part < SMALLEST { SMALLEST } else { part }
}

fn ranges(part: u64, size: u64) -> impl Iterator<Item = Range<u64>> {
    let count = size.div_ceil(part);
    (0..count).map(move |index| index * part..size.min((index + 1) * part))
}

impl Parts {
    /// Ranges whose map is another one now; what is adjacent is one.
    fn moved(&self, now: &Self) -> impl Iterator<Item = Range<u64>> + use<> {
        let mut moved: Vec<Range<u64>> = Vec::new();
        let parts = ranges(self.part, self.size).zip(self.digests.iter().zip(&now.digests));
        for (range, _) in parts.filter(|(_, (old, new))| old != new) {
            match moved.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => moved.push(range),
            }
        }
        moved.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(digests: &[u64]) -> Parts {
        Parts {
            part: SMALLEST,
            size: 7 << 19,
            digests: digests.to_vec(),
        }
    }

    #[test]
    fn what_moved_is_told_by_range() {
        let before = parts(&[1, 2, 3, 4]);
        let moved = |now: &[u64]| before.moved(&parts(now)).collect::<Vec<_>>();
        assert_eq!(moved(&[1, 2, 3, 4]), []);
        assert_eq!(moved(&[1, 0, 0, 4]), vec![1 << 20..3 << 20]);
        assert_eq!(moved(&[0, 2, 3, 0]), [0..1 << 20, 3 << 20..7 << 19]);
    }

    #[test]
    fn a_file_has_few_parts() {
        assert_eq!(part_of(0), SMALLEST);
        assert_eq!(ranges(part_of(0), 0).count(), 0);
        for size in [1, SMALLEST, SMALLEST + 1, 1 << 40, (1 << 44) + 1] {
            let all: Vec<_> = ranges(part_of(size), size).collect();
            assert!(all.len() as u64 <= PARTS, "{size}: {}", all.len());
            assert_eq!(all.last().map(|last| last.end), Some(size));
        }
    }
}
