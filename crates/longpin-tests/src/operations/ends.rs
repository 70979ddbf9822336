//! The end of a file: what the kernel drops there is not the range that it was asked for (C01 to C03).
//!
//! Each act is tried on files whose last page differs: on a block that is written, on one that is not, on none; clean or
//! dirty; in a large folio or a small one; and with an end inside of a page or between two.

use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::LazyLock;

use anyhow::Result;
use rustix::fs::{Advice, FallocateFlags};

use super::copies::{clone_range, copy_range};
use super::{Build, Home, Operation, Victim};
use crate::PAGE;
use crate::act::{self, Outcome};

/// What lies under the last page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// A block with data.
    Written,
    /// A block that reads as zeroes.
    Unwritten,
    /// No block.
    Hole,
}

/// What the last page of a file is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// What lies under it.
    pub content: Content,
    /// Not written back.
    pub dirty: bool,
    /// In a large folio.
    pub large: bool,
    /// The file ends with it, and not inside of it.
    pub aligned: bool,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let content = match self.content {
            Content::Written => "written",
            Content::Unwritten => "unwritten",
            Content::Hole => "hole",
        };
        let state = if self.dirty { "dirty" } else { "clean" };
        let folio = if self.large { "large" } else { "small" };
        let end = if self.aligned { "between" } else { "inside" };
        write!(f, "{content}, {state}, {folio}, {end}")
    }
}

/// So many pages: readahead makes large folios of the last ones.
const PAGES: usize = 128;
/// The file ends so many bytes before its last page does.
const SHORT: usize = 100;
/// By how much a file grows inside of its last page.
const LITTLE: u64 = MORE.len() as u64;
/// What is written there.
const MORE: [u8; 10] = [b'm'; 10];
/// Pages at the end of the file that are pinned.
const PINNED: usize = 4;

type Act = (
    &'static str,
    &'static str,
    fn(&mut Victim<'_>) -> Result<Outcome>,
);

const ACTS: &[Act] = &[
    ("ftruncate to its size", "C01", |v| {
        Ok(act::ftruncate(v.file()?, size(v)?))
    }),
    ("ftruncate to a little more", "C01", |v| {
        Ok(act::ftruncate(v.file()?, size(v)? + LITTLE))
    }),
    ("ftruncate to some pages more", "C01", |v| {
        Ok(act::ftruncate(v.file()?, behind(v)? + LITTLE))
    }),
    ("ftruncate to a little less", "C01", |v| {
        Ok(act::ftruncate(v.file()?, size(v)? - LITTLE))
    }),
    ("fallocate of a little more", "C02", |v| {
        fallocate(v, FallocateFlags::empty(), 0, size(v)? + LITTLE)
    }),
    ("fallocate behind the end", "C02", |v| {
        fallocate(v, FallocateFlags::empty(), behind(v)?, LITTLE)
    }),
    ("fallocate KEEP_SIZE behind the end", "C02", |v| {
        fallocate(v, FallocateFlags::KEEP_SIZE, behind(v)?, LITTLE)
    }),
    ("PUNCH_HOLE behind the end", "C02", |v| {
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(v, mode, behind(v)?, PAGE as u64)
    }),
    ("ZERO_RANGE behind the end", "C02", |v| {
        fallocate(v, FallocateFlags::ZERO_RANGE, behind(v)?, PAGE as u64)
    }),
    ("FICLONERANGE behind the end", "C03", |v| {
        let (donor, to) = (v.donor(false)?, behind(v)?);
        donor.file.set_len(to + PAGE as u64)?;
        Ok(clone_range(&donor.file, v.file()?, to, PAGE as u64))
    }),
    ("copy_file_range behind the end", "C03", |v| {
        let (donor, to) = (v.donor(false)?, behind(v)?);
        donor.file.set_len(to + PAGE as u64)?;
        copy_range(&donor.file, v.file()?, to, PAGE as u64)
    }),
    ("write of a little more", "C06", |v| {
        Ok(rustix::io::pwrite(v.file()?, &MORE, size(v)?).map(drop))
    }),
    ("write behind the end", "C06", |v| {
        Ok(rustix::io::pwrite(v.file()?, &[b'b'; PAGE], behind(v)?).map(drop))
    }),
];

fn size(victim: &Victim<'_>) -> Result<u64> {
    Ok(victim.file()?.metadata()?.len())
}

/// Where a page begins, and something lies between it and the end.
fn behind(victim: &Victim<'_>) -> Result<u64> {
    Ok(size(victim)?.next_multiple_of(PAGE as u64) + 2 * PAGE as u64)
}

fn fallocate(victim: &Victim<'_>, mode: FallocateFlags, offset: u64, len: u64) -> Result<Outcome> {
    Ok(rustix::fs::fallocate(victim.file()?, mode, offset, len))
}

impl Shape {
    const CONTENTS: [Content; 3] = [Content::Written, Content::Unwritten, Content::Hole];

    /// Every one that is tried.
    fn all() -> impl Iterator<Item = Self> {
        let mut all = Vec::new();
        for content in Self::CONTENTS {
            for (dirty, aligned) in [(false, false), (true, false), (false, true)] {
                for large in [true, false] {
                    all.push(Self {
                        content,
                        dirty,
                        large,
                        aligned,
                    });
                }
            }
        }
        all.into_iter()
    }

    /// Tried every day: what was found to lose pages somewhere.
    fn is_daily(self, act: &str) -> bool {
        let transfer = act.starts_with("FICLONERANGE") || act.starts_with("copy_file_range");
        let cuts = act.ends_with("its size") || act.ends_with("a little more");
        let plain = !self.dirty && !self.aligned;
        plain && (self.large && cuts || transfer && self.content == Content::Written)
    }

    fn len(self) -> usize {
        PAGES * PAGE - if self.aligned { 0 } else { SHORT }
    }

    /// The pages at the end.
    pub(super) fn pinned(self) -> Range<u64> {
        let page = PAGE as u64;
        (PAGES - PINNED) as u64 * page..PAGES as u64 * page
    }

    /// Makes an empty file one of this shape, with as much as is needed of these contents.
    pub(super) fn make(self, file: &File, contents: &[u8]) -> Result<()> {
        let len = self.len();
        match self.content {
            Content::Written => {
                for at in (0..len).step_by(contents.len()) {
                    let count = contents.len().min(len - at);
                    file.write_all_at(&contents[..count], at as u64)?;
                }
            }
            Content::Unwritten => {
                rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len as u64)?;
            }
            Content::Hole => {
                file.write_all_at(&contents[..PAGE], 0)?;
                file.set_len(len as u64)?;
            }
        }
        file.sync_all()?;
        self.read_in(file)?;
        if self.dirty {
            let last = [b'd'];
            file.write_all_at(&last, len as u64 - 1)?;
        }
        Ok(())
    }

    /// In large folios by reading on, in small ones by reading here and there.
    fn read_in(self, file: &File) -> Result<()> {
        rustix::fs::fadvise(file, 0, None, Advice::DontNeed)?;
        let advice = if self.large {
            Advice::Sequential
        } else {
            Advice::Random
        };
        rustix::fs::fadvise(file, 0, None, advice)?;
        let mut page = [0; PAGE];
        for at in (0..self.len()).step_by(PAGE) {
            file.read_at(&mut page, at as u64)?;
        }
        Ok(())
    }
}

/// Each act on each shape.
static OPERATIONS: LazyLock<Vec<(Operation, bool)>> = LazyLock::new(|| {
    let acts = ACTS
        .iter()
        .flat_map(|act| Shape::all().map(move |shape| (act, shape)));
    acts.map(|((name, claim, act), shape)| {
        // Made once, as long as the program runs.
        let full: &'static str = Box::leak(format!("{name}: {shape}").into_boxed_str());
        let operation = Operation::new(full, claim, Home::DISK, *act).on(Build::End(shape));
        (operation, shape.is_daily(name))
    })
    .collect()
});

/// Each act on each shape of a file's end; or only what is tried every day.
pub(super) fn all(only_daily: bool) -> impl Iterator<Item = &'static Operation> {
    let wanted = OPERATIONS
        .iter()
        .filter(move |(_, daily)| *daily || !only_daily);
    wanted.map(|(operation, _)| operation)
}
