//! io_uring fixed buffers that follow the plan, with real bytes.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, bail, ensure};
use longpin::fixed_buffer::FixedBuffer;
use longpin::registration::{ProtectionState, RegisterError, RegisterOptions};
use longpin_tests::act::{ftruncate, punch};
use longpin_tests::scratch::FsKind;
use rustix::fs::MemfdFlags;

use super::ground::{Left, with_huge_pages};
use crate::files::TestFile;
use crate::guard;
use crate::pin::{must_allow, must_allow_soon, must_refuse};

const UNIT: u64 = 64 << 10;
const HUGE: u64 = 2 << 20;

const HELD: RegisterOptions = RegisterOptions {
    wish: longpin::plan::Wish::Pin,
    level: longpin::plan::Level::Layout,
    map_sync: false,
    require_hold: true,
    trial: None,
};

pub(crate) fn plan_ring() -> Result<()> {
    guard::on()?;
    let file = TestFile::new(FsKind::Tmpfs, 4 * UNIT)?;
    must_work(&file, UNIT).context("tmpfs")?;
    let file = TestFile::memfd(MemfdFlags::empty(), 4 * UNIT)?;
    must_work(&file, UNIT).context("memfd")?;
    with_huge_pages(|| {
        let file = TestFile::memfd(MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB, 4 * HUGE)?;
        must_work(&file, HUGE).context("hugetlbfs")
    })
}

/// Bytes go out of the file and into it, it is held meanwhile, and free afterwards.
fn must_work(file: &TestFile, unit: u64) -> Result<()> {
    let mut buffer = FixedBuffer::register_with(&file.file, unit..3 * unit, &HELD)?;
    let found = buffer.hold().state()?;
    ensure!(matches!(found, ProtectionState::Held { .. }), "{found:?}");
    must_refuse("truncate", ftruncate(&file.file, unit))?;
    must_refuse("punch", punch(&file.file, 2 * unit, unit))?;
    must_allow("punch before", punch(&file.file, 0, unit))?;
    let other = TestFile::new(FsKind::Ext4, 8192)?;
    buffer.write_to(4096..8192, &other.file, 0)?;
    let mut seen = [0; 4096];
    other.file.read_exact_at(&mut seen, 0)?;
    file.check(unit / 4096 + 1, &seen).context("written")?;
    // The second page of the other file: into the file's memory, past every copy.
    buffer.read_from(0..4096, &other.file, 4096)?;
    let seen = buffer.memory().copy_out(0..4096).unwrap_or_default();
    other.check(1, &seen).context("read")?;
    ensure!(
        buffer.read_from(0..usize::MAX, &other.file, 0).is_err(),
        "too long"
    );
    buffer.unregister()?;
    must_allow_soon("truncate", || ftruncate(&file.file, unit))
}

fn must_fail(file: &File, range: Range<u64>, word: &str) -> Result<()> {
    match FixedBuffer::register(file, range.clone()) {
        Ok(_) => bail!("{range:?}: registered"),
        Err(err @ RegisterError::Refused(_)) => {
            ensure!(
                err.to_string().contains(word),
                "{range:?}: no {word:?}: {err}"
            );
            Ok(())
        }
        Err(err) => Err(err).with_context(|| format!("{range:?}")),
    }
}

pub(crate) fn plan_ring_bad_input() -> Result<()> {
    let file = TestFile::new(FsKind::Tmpfs, UNIT)?;
    let disk = TestFile::new(FsKind::Xfs, UNIT)?;
    let reader = File::open(&file.path)?;
    let left = Left::count()?;
    must_fail(&file.file, 0..2 * UNIT, "beyond-end")?;
    must_fail(&file.file, 100..4096, "not-on-pages")?;
    must_fail(&file.file, 0..0, "empty")?;
    must_fail(&reader, 0..UNIT, "not-writable")?;
    // Which of the two depends on the kernel; the matrix looks closer.
    must_fail(&disk.file, 0..UNIT, "memory-file")?;
    left.must_be_all()
}
