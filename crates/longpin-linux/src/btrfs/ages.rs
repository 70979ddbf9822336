//! How old a file's extents are: what is not younger than the last snapshot of its subvolume is written to a new place,
//! also when that snapshot is gone and nobody shares the blocks any more.

use std::fs::File;
use std::ops::Range;

use rustix::fs::fstat;

use super::tree::{Wanted, number, search};
use super::{BtrfsError, subvolume};

/// `BTRFS_ROOT_TREE_OBJECTID`.
const ROOT_TREE: u64 = 1;
/// `BTRFS_ROOT_ITEM_KEY`.
const ROOT_ITEM: u32 = 132;
/// `BTRFS_EXTENT_DATA_KEY`.
const EXTENT_DATA: u32 = 108;
/// `last_snapshot` of `struct btrfs_root_item`.
const LAST_SNAPSHOT: usize = 200;
/// `BTRFS_FILE_EXTENT_INLINE`.
const INLINE: u8 = 0;

/// Blocks of a range that a store would leave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Old {
    /// Extents.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Offset of the first.
    pub first: u64,
}

/// `struct btrfs_file_extent_item`, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Item {
    start: u64,
    length: u64,
    generation: u64,
}

/// The extents of a range that are not younger than the last snapshot of the file's subvolume. Each is told to `seen`, cut to
/// the range. The file system must be synced, or the trees may say what was. CAP_SYS_ADMIN.
///
/// # Errors
///
/// [`BtrfsError`].
pub fn find_old(
    file: &File,
    range: &Range<u64>,
    seen: &mut dyn FnMut(Range<u64>),
) -> Result<Old, BtrfsError> {
    let snapshot = last_snapshot(file)?;
    let mut old = Old::default();
    if snapshot == 0 {
        return Ok(old);
    }
    for_each_extent(file, range, &mut |item| {
        let cut = item.start.max(range.start)..(item.start + item.length).min(range.end);
        if item.generation > snapshot || cut.is_empty() {
            return;
        }
        if old.count == 0 {
            old.first = cut.start;
        }
        old.count += 1;
        old.bytes += cut.end - cut.start;
        seen(cut);
    })?;
    Ok(old)
}

/// The transaction of the last snapshot that was taken of the file's subvolume; 0: none ever.
fn last_snapshot(file: &File) -> Result<u64, BtrfsError> {
    let wanted = Wanted {
        tree: ROOT_TREE,
        object: subvolume(file)?,
        kind: ROOT_ITEM,
        from: 0,
    };
    let mut found = None;
    // There is one item, at any offset.
    search(file, &wanted, &mut |_, item| {
        found = Some(number(item, LAST_SNAPSHOT)?);
        Some(())
    })?;
    found.ok_or(BtrfsError::Malformed { at: wanted.object })
}

fn for_each_extent(
    file: &File,
    range: &Range<u64>,
    take: &mut dyn FnMut(Item),
) -> Result<(), BtrfsError> {
    let data = fstat(file).map_err(|errno| BtrfsError::Other {
        what: "fstat(2)",
        source: errno.into(),
    })?;
    let mut wanted = Wanted {
        tree: 0,
        object: data.st_ino,
        kind: EXTENT_DATA,
        from: 0,
    };
    loop {
        let mut last = None;
        search(file, &wanted, &mut |at, item| {
            last = Some(at);
            if let Some(found) = parse(at, item)? {
                take(found);
            }
            Some(())
        })?;
        match last.and_then(|last| last.checked_add(1)) {
            Some(next) if next < range.end => wanted.from = next,
            _ => return Ok(()),
        }
    }
}

/// `Some(None)`: a hole, or data among metadata. `None`: no such item.
#[allow(
    clippy::option_option,
    reason = "nothing there, and not to be read, are two things"
)]
fn parse(start: u64, item: &[u8]) -> Option<Option<Item>> {
    let generation = number(item, 0)?;
    if *item.get(20)? == INLINE {
        return Some(None);
    }
    let found = Item {
        start,
        length: number(item, 45)?,
        generation,
    };
    Some((number(item, 21)? != 0).then_some(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extent_is_read_where_the_kernel_writes_it() {
        let mut item = vec![0; 53];
        item[0..8].copy_from_slice(&8_u64.to_le_bytes());
        item[20] = 1;
        item[45..53].copy_from_slice(&4096_u64.to_le_bytes());
        assert_eq!(parse(7, &item), Some(None), "a hole");
        item[21..29].copy_from_slice(&(1_u64 << 20).to_le_bytes());
        let found = Item {
            start: 7,
            length: 4096,
            generation: 8,
        };
        assert_eq!(parse(7, &item), Some(Some(found)));
        item[20] = INLINE;
        assert_eq!(parse(7, &item[..21]), Some(None));
        assert_eq!(parse(7, &item[..20]), None);
    }
}
