//! The walk against the truncate it stands before.
//!
//! A file whose last page is pinned refuses to be cut to nothing, and to refuse it the guard walks all of it: a walk that
//! can be repeated, of the same length as one that finds nothing.

use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use longpin_linux::FixedBuffer;
use longpin_tests::mapping::Mapping;
use longpin_tests::rdma::{Access, Device, ProtectionDomain, Region};
use longpin_tests::scratch::{FsKind, Scratch};
use longpin_tests::{PAGE, act};
use rustix::fs::{Advice, FallocateFlags, fadvise, fallocate};
use rustix::io::Errno;

use crate::count::{Counter, Counts};
use crate::folios;
use crate::guard::Guard;
use crate::options::Asked;
use crate::table::{self, Table, above, bytes, number, percent, progress};

/// Sizes of the files.
const SIZES: [u64; 5] = [1 << 20, 16 << 20, 256 << 20, 1 << 30, 4 << 30];
/// A file on a block device is no larger: its device lies in the guest's memory.
const LARGEST_ON_BLOCKS: u64 = 1 << 30;
/// What one read brings in, so that the kernel reads ahead in large folios.
const READ: usize = 128 << 10;

/// How the page cache gets filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fill {
    /// `fallocate`: in memory, that makes the pages.
    Allocate,
    /// `fallocate`, then `fadvise(WILLNEED)`, which reads in single pages.
    Advise,
    /// `fallocate`, then reads in order, which read ahead in large folios.
    Read,
}

/// File systems, and the size of folio that each is there for.
const CASES: [(&str, FsKind, Fill); 4] = [
    ("tmpfs", FsKind::Tmpfs, Fill::Allocate),
    ("tmpfs, huge pages", FsKind::TmpfsHuge, Fill::Allocate),
    ("ext4", FsKind::Ext4, Fill::Advise),
    ("xfs, large folios", FsKind::Xfs, Fill::Read),
];

/// What was counted for one size on one file system.
struct Row {
    name: &'static str,
    size: u64,
    folio_pages: u64,
    truncate: Counts,
    guarded: Counts,
    walk: Counts,
}

/// Measures and prints.
pub(crate) fn run(asked: &Asked, counter: Counter) -> Result<()> {
    let mut rows = Vec::new();
    for (name, kind, fill) in CASES {
        let largest = if kind.is_memory() {
            asked.largest as u64
        } else {
            LARGEST_ON_BLOCKS.min(asked.largest as u64)
        };
        // Room for the file and for what a file system keeps for itself.
        let scratch = Scratch::new(kind, largest + largest / 4 + (64 << 20))?;
        let stage = Stage {
            counter,
            fill,
            kind,
            path: scratch.dir().join("walked"),
        };
        let sizes: Vec<_> = SIZES.into_iter().filter(|size| *size <= largest).collect();
        stage.rows(name, &sizes, &mut rows).with_context(|| name)?;
        scratch.close()?;
    }
    print(&rows);
    Ok(())
}

struct Stage {
    counter: Counter,
    fill: Fill,
    kind: FsKind,
    path: PathBuf,
}

impl Stage {
    fn rows(&self, name: &'static str, sizes: &[u64], rows: &mut Vec<Row>) -> Result<()> {
        let first = rows.len();
        progress(&format!("walk, {name}: without the guard"));
        for &size in sizes {
            let truncate = self.truncate(size)?;
            let (guarded, walk) = (truncate.clone(), truncate.clone());
            rows.push(Row {
                name,
                size,
                folio_pages: 1,
                truncate,
                guarded,
                walk,
            });
        }
        progress(&format!("walk, {name}: with it"));
        let guard = Guard::start()?;
        for row in &mut rows[first..] {
            row.guarded = self.truncate(row.size)?;
            (row.folio_pages, row.walk) = self.walk(row.size)?;
        }
        guard.stop()
    }

    /// A file that is all in memory.
    fn file(&self, size: u64) -> Result<File> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&self.path)?;
        fallocate(&file, FallocateFlags::empty(), 0, size).context("fallocate")?;
        match self.fill {
            Fill::Allocate => {}
            Fill::Advise => advise(&file, size)?,
            Fill::Read => read(&file, size)?,
        }
        Ok(file)
    }

    /// `ftruncate` of all of a file.
    fn truncate(&self, size: u64) -> Result<Counts> {
        let calls = if size > 64 << 20 { 1 } else { 5 };
        let file = std::cell::RefCell::new(None);
        let fill = || {
            *file.borrow_mut() = Some(self.file(size)?);
            Ok(())
        };
        let cut = || match &*file.borrow() {
            Some(file) => act::ftruncate(file, 0).context("ftruncate"),
            None => Ok(()),
        };
        let counts = self.counter.each(calls, fill, cut)?;
        std::fs::remove_file(&self.path)?;
        Ok(counts)
    }

    /// A refused `ftruncate`, for which all folios were looked at; and how many pages a folio has.
    fn walk(&self, size: u64) -> Result<(u64, Counts)> {
        let file = self.file(size)?;
        let folio_pages = folios::mean_pages(&file, size)?;
        let pin = self.pin(&file, size - PAGE as u64)?;
        let counts = self.counter.each(
            11,
            || Ok(()),
            || {
                let answer = act::ftruncate(&file, 0);
                ensure!(
                    answer == Err(Errno::TXTBSY),
                    "a held file was cut: {}",
                    act::outcome_name(answer)
                );
                Ok(())
            },
        )?;
        drop(pin);
        std::fs::remove_file(&self.path)?;
        Ok((folio_pages, counts))
    }

    fn pin(&self, file: &File, offset: u64) -> Result<Pin> {
        if self.kind.is_memory() {
            return Ok(Pin::Ring(FixedBuffer::register(file, offset, PAGE)?));
        }
        let domain: ProtectionDomain = Device::open("rxe0")?.protection_domain()?;
        // Before 6.2 the RDMA core pins for writing whatever was asked.
        let mapping = Mapping::shared(file, offset, PAGE, true)?;
        mapping.touch();
        Ok(Pin::Region(Region::register(
            &domain,
            &mapping,
            0..PAGE,
            Access::READ,
        )?))
    }
}

/// A pinned page; let go on drop.
enum Pin {
    Ring(#[expect(dead_code, reason = "held for its pin")] FixedBuffer),
    Region(#[expect(dead_code, reason = "held for its pin")] Region),
}

fn advise(file: &File, size: u64) -> Result<()> {
    // The kernel reads no more than a part of what it is advised of at once.
    for at in (0..size).step_by(READ) {
        let len = std::num::NonZeroU64::new(READ as u64);
        fadvise(file, at, len, Advice::WillNeed).context("fadvise")?;
    }
    Ok(())
}

fn read(file: &File, size: u64) -> Result<()> {
    let mut bytes = vec![0_u8; READ];
    for at in (0..size).step_by(READ) {
        rustix::io::pread(file, &mut bytes[..], at).context("pread")?;
    }
    Ok(())
}

fn print(rows: &[Row]) {
    let mut table = Table::new([
        "truncate to 0",
        "size",
        "pages a folio",
        "no guard",
        "guard, not held",
        "the walk",
        "walk, %",
        "walk, a folio",
    ]);
    for row in rows {
        let (cut, walk) = (row.truncate.typical(), row.walk.typical());
        let folios = row.size / PAGE as u64 / row.folio_pages.max(1);
        table.row(vec![
            row.name.to_owned(),
            bytes(row.size),
            number(row.folio_pages),
            number(cut),
            above(row.guarded.typical(), cut),
            number(walk),
            percent(walk, cut),
            number(walk / folios.max(1)),
        ]);
    }
    table::line("");
    table.print();
}
