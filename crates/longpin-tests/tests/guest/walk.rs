//! The walk over the page cache: what broke it once, each as a test.

use anyhow::{Context, Result, ensure};
use longpin_linux::FixedBuffer;
use longpin_tests::act::{ftruncate, punch};
use longpin_tests::scratch::FsKind;
use rustix::fs::MemfdFlags;
use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::files::TestFile;
use crate::pin::{must_allow, must_allow_soon, must_refuse, pin};
use crate::{Test, guard};

pub(crate) const TESTS: &[Test] = &[
    ("walk_sibling", walk_sibling),
    ("walk_middle_of_page", walk_middle_of_page),
    ("walk_one_page_file", walk_one_page_file),
    ("walk_tebibyte", walk_tebibyte),
    ("walk_hugetlbfs", walk_hugetlbfs),
    ("walk_swapped_neighbours", walk_swapped_neighbours),
    ("walk_sparse", walk_sparse),
    ("walk_bounded", walk_bounded),
];

/// Too slow for every day under emulation: `make test-long`.
pub(crate) const LONG_TESTS: &[Test] = &[("walk_many_pins", walk_many_pins)];

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn memfd(flags: MemfdFlags, len: u64) -> Result<File> {
    let file = File::from(rustix::fs::memfd_create(
        "walk",
        flags | MemfdFlags::CLOEXEC,
    )?);
    file.set_len(len)?;
    Ok(file)
}

/// A new size inside a large folio starts on a sibling entry of the xarray.
fn walk_sibling() -> Result<()> {
    guard::on()?;
    for kind in [FsKind::TmpfsHuge, FsKind::Ext4, FsKind::Xfs] {
        let f = TestFile::new(kind, 6 * MIB)?;
        let _pinned = pin(&f, 700 * PAGE, 4096)?;
        for page in (1..=700)
            .step_by(9)
            .chain([511, 512, 513, 575, 576, 577, 699, 700])
        {
            must_refuse(
                &format!("{}: truncate to page {page}", kind.name()),
                ftruncate(&f.file, page * PAGE),
            )?;
        }
        if kind == FsKind::TmpfsHuge {
            // The folio is [512, 1024): cutting it anywhere splits it.
            for page in [701, 767, 768, 1000, 1023] {
                must_refuse(
                    &format!("truncate to page {page}"),
                    ftruncate(&f.file, page * PAGE),
                )?;
            }
            must_refuse(
                "punch behind the page, in its folio",
                punch(&f.file, 900 * PAGE, 4096),
            )?;
        }
        f.check_all()?;
        must_allow("truncate behind the folio", ftruncate(&f.file, 1024 * PAGE))?;
    }
    Ok(())
}

/// A new size in the middle of a pinned page zeroes a part of it.
fn walk_middle_of_page() -> Result<()> {
    guard::on()?;
    let f = TestFile::new(FsKind::Tmpfs, 16 * PAGE)?;
    let _pinned = pin(&f, 5 * PAGE, 4096)?;
    for size in [5 * PAGE, 5 * PAGE + 1, 5 * PAGE + 100, 6 * PAGE - 1] {
        must_refuse(&format!("truncate to {size}"), ftruncate(&f.file, size))?;
    }
    f.check_all()?;
    must_allow(
        "truncate to the end of the page",
        ftruncate(&f.file, 6 * PAGE),
    )
}

/// The page cache of a one-page file is no tree: its head is the folio.
fn walk_one_page_file() -> Result<()> {
    guard::on()?;
    for kind in [FsKind::Tmpfs, FsKind::Ext4, FsKind::Xfs] {
        let f = TestFile::new(kind, PAGE)?;
        let pinned = pin(&f, 0, 4096)?;
        for size in [0, 1, 100, 4095] {
            must_refuse(
                &format!("{} to {size}", kind.name()),
                ftruncate(&f.file, size),
            )?;
        }
        drop(pinned);
        must_allow_soon("truncate", || ftruncate(&f.file, 0))?;
    }
    Ok(())
}

fn walk_tebibyte() -> Result<()> {
    guard::on()?;
    let file = memfd(MemfdFlags::empty(), 4096 * GIB)?;
    let far = 1024 * GIB;
    let pinned = FixedBuffer::register(&file, far, 8192)?;
    must_refuse("truncate to 0", ftruncate(&file, 0))?;
    must_refuse(
        "truncate into the second page",
        ftruncate(&file, far + 4097),
    )?;
    must_refuse("punch of everything", punch(&file, 0, 4096 * GIB))?;
    must_allow("punch before", punch(&file, 0, far))?;
    must_allow("truncate behind", ftruncate(&file, far + 8192))?;
    drop(pinned);
    must_allow_soon("truncate", || ftruncate(&file, 0))
}

/// Before 6.7 the page cache of hugetlbfs counts in huge pages.
fn walk_hugetlbfs() -> Result<()> {
    guard::on()?;
    std::fs::write("/proc/sys/vm/nr_hugepages", "8")?;
    let huge = MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
    let file = memfd(huge, 8 * MIB).context("no huge pages")?;
    let pinned = FixedBuffer::register(&file, 4 * MIB, 2 << 20)?;
    for size in [0, 2 * MIB, 4 * MIB] {
        must_refuse(&format!("truncate to {size}"), ftruncate(&file, size))?;
    }
    must_refuse("punch of the page", punch(&file, 4 * MIB, 2 * MIB))?;
    must_refuse("punch of all", punch(&file, 0, 8 * MIB))?;
    must_allow("punch before", punch(&file, 0, 4 * MIB))?;
    must_allow("truncate behind", ftruncate(&file, 6 * MIB))?;
    drop(pinned);
    must_allow_soon("truncate", || ftruncate(&file, 0))?;
    drop(file);
    std::fs::write("/proc/sys/vm/nr_hugepages", "0")?;
    Ok(())
}

/// Holes, punched pages and pages beside the pinned one: value entries and empty slots on the way.
fn walk_swapped_neighbours() -> Result<()> {
    guard::on()?;
    let f = TestFile::new(FsKind::Ext4, 4 * MIB)?;
    let _pinned = pin(&f, 300 * PAGE, 4096)?;
    // Reclaimed pages leave shadow entries.
    std::fs::write("/proc/sys/vm/drop_caches", "1")?;
    for size in [0, 100 * PAGE, 299 * PAGE, 300 * PAGE] {
        must_refuse(&format!("truncate to {size}"), ftruncate(&f.file, size))?;
    }
    f.check_all()
}

/// 45,000 pages a gigabyte apart: a walk by slots used up the loop's limit on empty ones.
fn walk_sparse() -> Result<()> {
    const PAGES: u64 = 45_000;
    guard::on()?;
    let file = memfd(MemfdFlags::empty(), PAGES * GIB)?;
    for page in 0..PAGES {
        file.write_all_at(&[1], page * GIB)?;
    }
    let before = guard::count("walks-unfinished")?;
    let pinned = FixedBuffer::register(&file, (PAGES - 1) * GIB, 4096)?;
    must_refuse("truncate to a page", ftruncate(&file, 4096))?;
    must_refuse("punch of all", punch(&file, 0, PAGES * GIB))?;
    ensure!(
        guard::count("walks-unfinished")? == before,
        "refused because the walk did not finish"
    );
    drop(pinned);
    must_allow_soon("truncate", || ftruncate(&file, 0))
}

/// A walk that takes too long ends: refused, counted, and not for ever.
fn walk_bounded() -> Result<()> {
    const PAGES: u64 = 8_000;
    guard::off()?;
    let file = memfd(MemfdFlags::empty(), PAGES * GIB)?;
    for page in 0..PAGES {
        file.write_all_at(&[1], page * GIB)?;
    }
    guard::must(&["guard", "start", "--walk-budget", "1"])?;
    let pinned = FixedBuffer::register(&file, (PAGES - 1) * GIB, 4096)?;
    must_refuse("truncate", ftruncate(&file, 4096))?;
    drop(pinned);
    let before = guard::count("walks-unfinished")?;
    ensure!(before > 0, "8,000 leaves were looked at in a millisecond");
    must_refuse(
        "truncate of a file that is not pinned",
        ftruncate(&file, 4096),
    )?;
    ensure!(guard::count("walks-unfinished")? > before);
    guard::off()
}

/// Two million pins of one page turn its reference count negative.
fn walk_many_pins() -> Result<()> {
    guard::on()?;
    let file = memfd(MemfdFlags::empty(), 4096)?;
    let mut pins = Vec::new();
    let count = loop {
        match FixedBuffer::register_repeatedly(&file, 4096, 16_384) {
            Ok(pin) => pins.push(pin),
            Err(_) => break pins.len(),
        }
        if pins.len() > 140 {
            break pins.len();
        }
    };
    println!("{count} times 16,384 pins of one page");
    must_refuse("truncate", ftruncate(&file, 0))?;
    drop(pins);
    must_allow_soon("truncate", || ftruncate(&file, 0))
}
