//! C09 when hints are missing: a lost hint must not lose a hold.

use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use longpin::guard::{Host, Running};
use longpin_linux::{FixedBuffer, RegisterError};
use longpin_tests::PATIENCE;
use longpin_tests::act::{ftruncate, truncate};
use longpin_tests::mapping::Mapping;
use longpin_tests::scratch::FsKind;
use rustix::fs::MemfdFlags;

use crate::child::Pinner;
use crate::consumers::with_huge_pages;
use crate::files::TestFile;
use crate::pin::{Pinned, must_allow, must_allow_soon, must_refuse, pin, register_mapping};
use crate::{Test, guard};

pub(crate) const TESTS: &[Test] = &[
    ("c09_foreign_short_pins", c09_foreign_short_pins),
    ("c09_older_pins", c09_older_pins),
    ("c09_sweep_finds_all", c09_sweep_finds_all),
    ("c09_lost_hints", c09_lost_hints),
    ("c09_full_table", c09_full_table),
    ("c09_mixed_pages", c09_mixed_pages),
    ("c09_busy", c09_busy),
];

const MIB: u64 = 1 << 20;

/// Readers that pin the same pages for a moment must not end the hold.
fn c09_foreign_short_pins() -> Result<()> {
    guard::on()?;
    let f = TestFile::new(FsKind::Tmpfs, MIB)?;
    let pinned = pin(&f, 0, 1 << 20)?;
    let mapping = Mapping::shared(&f.file, 0, 1 << 20, false)?;
    for round in 0..200 {
        longpin_tests::act::read_foreign(std::process::id(), &mapping)?;
        must_refuse(&format!("round {round}"), ftruncate(&f.file, 0))?;
    }
    f.check_all()?;
    drop((pinned, mapping));
    must_allow_soon("truncate", || ftruncate(&f.file, 0))
}

/// Pinned before the guard began: found by the sweep of its start, listed without an owner.
fn c09_older_pins() -> Result<()> {
    guard::off()?;
    let kinds = [FsKind::Tmpfs, FsKind::TmpfsHuge, FsKind::Ext4, FsKind::Xfs];
    let mut older = Vec::new();
    for kind in kinds {
        let f = TestFile::new(kind, 4 * MIB)?;
        let pinned = pin(&f, 2 * MIB, 4096)?;
        older.push((f, pinned));
    }
    guard::on()?;
    guard::must_know_all()?;
    for (f, _) in &older {
        must_refuse(f.kind.name(), ftruncate(&f.file, 4096))?;
        let holds = guard::holds_on(&f.path)?;
        ensure!(
            holds.len() == 1 && holds[0]["pid"].is_null(),
            "{}: {holds:?}",
            f.kind.name()
        );
    }
    for (f, pinned) in older {
        drop(pinned);
        must_allow_soon("truncate", || ftruncate(&f.file, 0))?;
    }
    Ok(())
}

/// A sweep leaves out free memory and the tails of folios: it sees each pinned folio nevertheless, and each once. The
/// small ones are so many that they lie in many sections of memory, from where the kernel hands it out first: the last.
fn c09_sweep_finds_all() -> Result<()> {
    guard::on()?;
    let small = TestFile::new(FsKind::Tmpfs, 64 * MIB)?;
    must_find_all(&small, 64 * MIB, 16_384)?;
    let large = TestFile::new(FsKind::TmpfsHuge, 8 * MIB)?;
    must_find_all(&large, 8 * MIB, 4)?;
    with_huge_pages(|| {
        let huge = MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
        must_find_all(&TestFile::memfd(huge, 4 * MIB)?, 4 * MIB, 2)
    })
}

/// So many folios more while the file is pinned, and no more than before when it is not.
fn must_find_all(f: &TestFile, size: u64, folios: u64) -> Result<()> {
    let before = count_pinned_folios()?;
    let pinned = pin(f, 0, usize::try_from(size)?)?;
    let found = count_pinned_folios()? - before;
    ensure!(
        found == folios,
        "{}: {found} folios, not {folios}",
        f.path.display()
    );
    drop(pinned);
    must_allow_soon("truncate", || ftruncate(&f.file, 0))?;
    ensure!(count_pinned_folios()? == before, "found what is not pinned");
    Ok(())
}

fn count_pinned_folios() -> Result<u64> {
    let running = Running::open(&Host::default())?;
    Ok(longpin::guard::sweep(&running, &mut |_, _| ())?.folios)
}

/// The exit program is gone, so the hint never comes: the balance of entries and exits tells, and every
/// file is walked until a sweep has looked.
fn c09_lost_hints() -> Result<()> {
    guard::fresh()?;
    let lost = lose_hints();
    // Without its exit programs it is no guard for the other tests.
    guard::off()?;
    lost
}

fn lose_hints() -> Result<()> {
    let other = TestFile::new(FsKind::Tmpfs, MIB)?;
    let f = TestFile::new(FsKind::Tmpfs, MIB)?;
    for function in ["pin_user_pages_fast", "pin_user_pages"] {
        std::fs::remove_file(format!("/sys/fs/bpf/longpin/link_{function}_exit"))?;
    }
    let pinned = pin_without_hint(&f)?;
    must_refuse("a pin without a hint", ftruncate(&f.file, 0))?;
    must_allow("a file that nobody pinned", ftruncate(&other.file, 0))?;
    guard::sweep_until_known()?;
    must_refuse("known by the sweep", ftruncate(&f.file, 0))?;
    drop(pinned);
    must_allow_soon("truncate", || ftruncate(&f.file, 0))
}

/// The kernel detaches a moment later: until then the hint comes.
fn pin_without_hint(f: &TestFile) -> Result<Pinned> {
    let begin = Instant::now();
    loop {
        let pinned = pin(f, 0, 8192)?;
        let status = guard::status()?;
        if status["hints"] != "complete" {
            return Ok(pinned);
        }
        ensure!(begin.elapsed() < PATIENCE, "the hints come: {status}");
    }
}

/// A table that is full makes every file a suspect; nothing is lost but time, and a sweep makes room.
fn c09_full_table() -> Result<()> {
    guard::off()?;
    guard::must(&["guard", "start", "--max-files", "4"])?;
    let tried = fill_table();
    guard::off()?;
    tried
}

fn fill_table() -> Result<()> {
    let files: Vec<TestFile> = (0..8)
        .map(|_| TestFile::new(FsKind::Tmpfs, 65_536))
        .collect::<Result<_>>()?;
    let other = TestFile::new(FsKind::Tmpfs, 65_536)?;
    let pins = files
        .iter()
        .map(|f| pin(f, 0, 4096))
        .collect::<Result<Vec<_>>>()?;
    for f in &files {
        must_refuse("pinned", ftruncate(&f.file, 0))?;
    }
    must_allow("a file that nobody pinned", ftruncate(&other.file, 0))?;
    let status = guard::status()?;
    ensure!(
        status["files-lost"].as_u64() > Some(0) && status["hints"] == "incomplete",
        "{status}"
    );
    drop(pins);
    for f in &files {
        must_allow_soon("released", || ftruncate(&f.file, 0))?;
    }
    guard::sweep_until_known()?;
    let status = guard::status()?;
    ensure!(status["suspects"] == 0, "the table is not empty: {status}");
    let _again = pin(&other, 0, 4096);
    Ok(())
}

/// One call pins pages of anonymous memory and of two files: each file is held.
fn c09_mixed_pages() -> Result<()> {
    guard::on()?;
    let outer = TestFile::new(FsKind::Tmpfs, MIB)?;
    let inner = TestFile::new(FsKind::Tmpfs, MIB)?;
    for (around, what) in [
        (Some(&outer), "inside a file"),
        (None, "inside anonymous memory"),
    ] {
        let mapping = match around {
            Some(file) => Mapping::shared(&file.file, 0, 1 << 20, true)?,
            None => Mapping::anonymous(1 << 20)?,
        };
        mapping.replace(10 * 4096, &inner.file, 40 * 4096, 3 * 4096)?;
        let pinned: Box<dyn Any> = match FixedBuffer::register_memory(mapping.addr(), mapping.len())
        {
            // Before 6.3 or so io_uring takes no buffer across mappings.
            Err(RegisterError::Ring(err)) if err.raw_os_error() == Some(libc::EINVAL) => {
                must_allow("nothing was pinned", ftruncate(&inner.file, 0))?;
                must_allow("growing again", ftruncate(&inner.file, MIB))?;
                Box::new(register_mapping(&mapping)?)
            }
            other => Box::new(other?),
        };
        guard::must_know_all()?;
        must_refuse(what, ftruncate(&inner.file, 4096))?;
        must_allow("behind its pages", ftruncate(&inner.file, 43 * 4096))?;
        if around.is_some() {
            must_refuse("the file around it", ftruncate(&outer.file, 4096))?;
        }
        drop((pinned, mapping));
        must_allow_soon("truncate", || ftruncate(&inner.file, 0))?;
        must_allow("growing again", ftruncate(&inner.file, MIB))?;
    }
    Ok(())
}

/// Many processes pinning at once: hints may be suppressed, holds must not be.
fn c09_busy() -> Result<()> {
    guard::fresh()?;
    let busy: Vec<_> = (0..6)
        .map(|_| TestFile::new(FsKind::Tmpfs, MIB))
        .collect::<Result<_>>()?;
    let pinners: Vec<_> = busy
        .iter()
        .map(|f| Pinner::churn(&f.path, 65_536))
        .collect::<Result<_>>()?;
    let deadline = Instant::now() + Duration::from_secs(crate::hard::rounds(4, 8));
    let failed = AtomicBool::new(false);
    let mut rounds = 0_u32;
    while Instant::now() < deadline {
        let f = TestFile::new(FsKind::Tmpfs, 65_536)?;
        let pin = FixedBuffer::register(&f.file, 0, 65_536)?;
        for _ in 0..20 {
            if must_refuse("a live pin", ftruncate(&f.file, 4096)).is_err() {
                failed.store(true, Ordering::Relaxed);
            }
        }
        pin.unregister()?;
        rounds += 1;
    }
    drop(pinners);
    ensure!(!failed.into_inner(), "a live pin was truncated");
    println!("{rounds} rounds, hints {}", guard::status()?["hints"]);
    for f in &busy {
        must_allow_soon("afterwards", || truncate(&f.path, 0)).context("nobody pins any more")?;
    }
    guard::sweep_until_known()
}
