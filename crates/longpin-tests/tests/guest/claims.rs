//! The claims of docs/guarantee.md, each by trying the act.

use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};
use longpin_tests::act::{Outcome, ftruncate, open_truncate, punch, truncate};
use longpin_tests::scratch::FsKind;
use rustix::fs::FallocateFlags;

use crate::child::Pinner;
use crate::files::TestFile;
use crate::hard::rounds;
use crate::pin::{must_allow, must_allow_soon, must_refuse, pin, register};
use crate::{Test, guard};

pub(crate) const TESTS: &[Test] = &[
    ("smoke_guard", smoke_guard),
    ("c01_truncate", c01_truncate),
    ("c01_random_pins", c01_random_pins),
    ("c02_punch", c02_punch),
    ("c02_madv_remove", c02_madv_remove),
    ("c02_shift_neighbours", c02_shift_neighbours),
    ("c02_io_uring", c02_io_uring),
    ("c09_release", c09_release),
    ("c10_kill", c10_kill),
    ("c10_kill_others", c10_kill_others),
    ("c11_on_demand", c11_on_demand),
    ("c14_other_files", c14_other_files),
    ("rdma_pins", rdma_pins),
];

/// The file systems of the first form, small pages and large folios.
const KINDS: [FsKind; 4] = [FsKind::Tmpfs, FsKind::TmpfsHuge, FsKind::Ext4, FsKind::Xfs];
const MIB: u64 = 1 << 20;
const PAGE: u64 = 4096;

/// Starts and proves itself. On every row.
fn smoke_guard() -> Result<()> {
    guard::off()?;
    let said = guard::must(&["guard", "start"])?;
    ensure!(
        said.contains("C01") && said.contains("proved"),
        "start said {said}"
    );
    ensure!(
        guard::status()?["running"] == true,
        "not running after start"
    );
    Ok(())
}

fn c01_truncate() -> Result<()> {
    guard::on()?;
    for kind in KINDS {
        truncate_one(kind).with_context(|| kind.name())?;
    }
    Ok(())
}

/// Pinned: [2, 4) MiB of 8, in units that no folio crosses.
fn truncate_one(kind: FsKind) -> Result<()> {
    let f = TestFile::new(kind, 8 * MIB)?;
    let mut pinned = pin(&f, 2 * MIB, 2 * 1024 * 1024)?;
    for size in [0, 1, 2 * MIB - 1, 2 * MIB, 3 * MIB + 1, 4 * MIB - 1] {
        must_refuse(&format!("truncate to {size}"), truncate(&f.path, size))?;
        must_refuse(&format!("ftruncate to {size}"), ftruncate(&f.file, size))?;
    }
    must_refuse("O_TRUNC", open_truncate(&f.path))?;
    f.check_all().context("after the refused acts")?;
    if let Some(seen) = pinned.read_as_device()? {
        f.check(512, &seen).context("what the device reads")?;
    }
    must_allow("the same size", ftruncate(&f.file, 8 * MIB))?;
    must_allow("growing", ftruncate(&f.file, 16 * MIB))?;
    must_allow("cutting behind the range", ftruncate(&f.file, 4 * MIB))?;
    must_refuse(
        "cutting into it after that",
        ftruncate(&f.file, 4 * MIB - PAGE),
    )?;
    f.check_all()?;
    drop(pinned);
    must_allow_soon("truncate to 0", || truncate(&f.path, 0))
}

/// A small generator: the tests need variety, not quality, and the same rounds every time.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn c01_random_pins() -> Result<()> {
    guard::on()?;
    let mut dice = Dice(7);
    for kind in KINDS {
        let rounds = if kind.is_memory() { 40 } else { 16 };
        for round in 0..rounds {
            random_pin(kind, &mut dice)
                .with_context(|| format!("{} round {round}", kind.name()))?;
        }
    }
    Ok(())
}

/// A random range pinned, a random size asked for. In small pages the answer is exact; a large folio is
/// protected as a whole.
fn random_pin(kind: FsKind, dice: &mut Dice) -> Result<()> {
    const PAGES: u64 = 1024;
    let f = TestFile::new(kind, PAGES * PAGE)?;
    let first = dice.below(PAGES);
    let count = 1 + dice.below((PAGES - first).min(64));
    let _pinned = pin(&f, first * PAGE, usize::try_from(count * PAGE)?)?;
    let size = dice.below(PAGES * PAGE);
    let touches = size / PAGE < first + count;
    let outcome = ftruncate(&f.file, size);
    let what = format!("pinned pages {first}+{count}, truncate to {size}");
    if touches {
        must_refuse(&what, outcome)?;
        f.check_all()
    } else if kind == FsKind::Tmpfs {
        must_allow(&what, outcome)
    } else {
        Ok(())
    }
}

fn fallocate(f: &TestFile, flags: FallocateFlags, offset: u64, len: u64) -> Outcome {
    rustix::fs::fallocate(&f.file, flags, offset, len)
}

fn c02_punch() -> Result<()> {
    guard::on()?;
    for kind in KINDS {
        punch_one(kind).with_context(|| kind.name())?;
    }
    ensure!(
        guard::count("unnoted")? == 0,
        "a note was missed in a quiet guest"
    );
    Ok(())
}

fn punch_one(kind: FsKind) -> Result<()> {
    let f = TestFile::new(kind, 8 * MIB)?;
    let pinned = pin(&f, 2 * MIB, 2 * 1024 * 1024)?;
    for (offset, len) in [
        (2 * MIB, 2 * MIB),
        (4 * MIB - 1, 1),
        (0, 8 * MIB),
        (2 * MIB - 1, 2),
        (3 * MIB, PAGE),
    ] {
        must_refuse(
            &format!("punch {offset}+{len}"),
            punch(&f.file, offset, len),
        )?;
    }
    if !kind.is_memory() {
        let zero = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        must_refuse("zero", fallocate(&f, zero, 2 * MIB, PAGE))?;
        must_refuse(
            "collapse before",
            fallocate(&f, FallocateFlags::COLLAPSE_RANGE, 0, MIB),
        )?;
        must_refuse(
            "insert before",
            fallocate(&f, FallocateFlags::INSERT_RANGE, 0, MIB),
        )?;
        must_allow("zero behind", fallocate(&f, zero, 6 * MIB, PAGE))?;
    }
    must_allow(
        "allocate",
        fallocate(&f, FallocateFlags::KEEP_SIZE, 0, 9 * MIB),
    )?;
    f.check(0, &read(&f, 0, 4 * MIB)?)
        .context("after the refused acts")?;
    must_allow("punch before", punch(&f.file, 0, 2 * MIB))?;
    must_allow("punch behind", punch(&f.file, 4 * MIB, 2 * MIB))?;
    must_allow(
        "a buffered write into the range",
        write_in_place(&f, 3 * MIB),
    )?;
    f.check(512, &read(&f, 2 * MIB, 2 * MIB)?)?;
    drop(pinned);
    must_allow_soon("punch", || punch(&f.file, 2 * MIB, 2 * MIB))
}

fn read(f: &TestFile, offset: u64, len: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(len)?];
    f.file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

/// Write the bytes that are there already.
fn write_in_place(f: &TestFile, offset: u64) -> Outcome {
    let mut page = [0; 4096];
    f.file
        .read_exact_at(&mut page, offset)
        .map_err(|_| rustix::io::Errno::IO)?;
    rustix::io::pwrite(&f.file, &page, offset).map(drop)
}

/// `madvise(MADV_REMOVE)` is a punch that never sees a descriptor.
fn c02_madv_remove() -> Result<()> {
    guard::on()?;
    let f = TestFile::new(FsKind::Tmpfs, MIB)?;
    let pinned = pin(&f, 64 * PAGE, 16 * 4096)?;
    let remove = |page: u64| {
        let mapping = longpin_tests::mapping::Mapping::shared(&f.file, page * PAGE, 4096, true)?;
        mapping.remove()
    };
    must_refuse("MADV_REMOVE in the range", remove(70))?;
    f.check_all()?;
    must_allow("MADV_REMOVE before it", remove(3))?;
    drop(pinned);
    must_allow_soon("MADV_REMOVE", || remove(70))
}

/// xfs begins a block before the offset when it moves what follows: the page before goes, too.
fn c02_shift_neighbours() -> Result<()> {
    guard::on()?;
    for kind in [FsKind::Ext4, FsKind::Xfs] {
        let f = TestFile::new(kind, MIB)?;
        let _pinned = pin(&f, 99 * PAGE, 4096)?;
        for (flags, name) in [
            (FallocateFlags::INSERT_RANGE, "insert"),
            (FallocateFlags::COLLAPSE_RANGE, "collapse"),
        ] {
            let what = format!("{}: {name} right behind a pinned page", kind.name());
            must_refuse(&what, fallocate(&f, flags, 100 * PAGE, PAGE))?;
        }
        f.check_all()?;
    }
    Ok(())
}

/// The same act by way of a ring: no system call's number tells what it is.
fn c02_io_uring() -> Result<()> {
    guard::on()?;
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let mode = i32::try_from(flags.bits())?;
    for kind in KINDS {
        let f = TestFile::new(kind, 8 * MIB)?;
        let _pinned = pin(&f, 2 * MIB, 2 * 1024 * 1024)?;
        let punch = |offset, len| longpin_linux::fallocate_by_ring(&f.file, mode, offset, len);
        must_refuse(
            &format!("{}: in the range", kind.name()),
            punch(3 * MIB, PAGE)?,
        )?;
        must_allow(
            &format!("{}: behind it", kind.name()),
            punch(4 * MIB, 2 * MIB)?,
        )?;
        f.check(0, &read(&f, 0, 4 * MIB)?)?;
    }
    ensure!(
        guard::count("unnoted")? == 0,
        "a note was missed in a quiet guest"
    );
    Ok(())
}

fn c09_release() -> Result<()> {
    guard::on()?;
    let f = TestFile::new(FsKind::Tmpfs, MIB)?;
    // The same page by two owners: the hold stands until the last lets go.
    let one = Pinner::pin(&f.path, 0, 8192)?;
    let two = Pinner::pin(&f.path, 4096, 8192)?;
    let holds = guard::holds_on(&f.path)?;
    let mut pids: Vec<_> = holds
        .iter()
        .filter_map(|hold| hold["pid"].as_u64())
        .collect();
    pids.sort_unstable();
    let mut expected = [u64::from(one.pid()), u64::from(two.pid())];
    expected.sort_unstable();
    ensure!(
        pids == expected,
        "ls names {pids:?}, the owners are {expected:?}"
    );
    must_refuse("both alive", truncate(&f.path, 0))?;
    one.kill()?;
    must_refuse("one killed", truncate(&f.path, 4096))?;
    must_allow_soon("the first one's page", || punch(&f.file, 0, 4096))?;
    two.kill()?;
    must_allow_soon("both killed", || truncate(&f.path, 0))?;
    ensure!(
        guard::holds_on(&f.path)?.is_empty(),
        "ls still lists the file"
    );
    Ok(())
}

/// kill -9 of a start at any moment leaves no guard or a whole one; holds need no longpin process.
fn c10_kill() -> Result<()> {
    guard::off()?;
    let f = TestFile::new(FsKind::Tmpfs, MIB)?;
    for round in 0..rounds(3, 12) {
        let mut start = std::process::Command::new("longpin")
            .args(["guard", "start"])
            .spawn()?;
        std::thread::sleep(std::time::Duration::from_millis(300 + 1_800 * round));
        start.kill()?;
        start.wait()?;
        let running = guard::longpin(&["guard", "status"])?.status.success();
        let pinned = pin(&f, 0, 4096)?;
        if running {
            must_refuse("a whole guard", ftruncate(&f.file, 0))?;
        } else {
            must_allow("no guard", ftruncate(&f.file, 0))?;
        }
        drop(pinned);
        must_allow_soon("growing again", || ftruncate(&f.file, MIB))?;
        guard::off()?;
    }
    guard::must(&["guard", "start"])?;
    let _pinned = pin(&f, 0, 4096)?;
    must_refuse("after all that", ftruncate(&f.file, 0))
}

/// Commands that ask, sweep, reload or stop, killed at any moment: a held file stays held, unless the guard was
/// stopped whole.
fn c10_kill_others() -> Result<()> {
    guard::on()?;
    let f = TestFile::new(FsKind::Tmpfs, MIB)?;
    let _pinned = pin(&f, 0, 4096)?;
    for (arguments, stops) in [
        (&["guard", "sweep"][..], false),
        (&["guard", "reload"], false),
        (&["ls"], false),
        (&["watch"], false),
        (&["guard", "stop", "--force"], true),
    ] {
        let delays: &[u64] = if stops { &[400] } else { &[100, 900] };
        for &delay in delays {
            let mut command = std::process::Command::new("longpin")
                .args(arguments)
                .stdout(std::process::Stdio::null())
                .spawn()?;
            std::thread::sleep(std::time::Duration::from_millis(delay));
            command.kill()?;
            command.wait()?;
            let running = guard::longpin(&["guard", "status"])?.status.success();
            ensure!(running || stops, "{arguments:?} ended the guard");
            if running {
                must_refuse(&format!("{arguments:?} killed"), ftruncate(&f.file, 0))?;
            }
            guard::on()?;
        }
    }
    must_refuse("after all that", ftruncate(&f.file, 0))
}

fn c11_on_demand() -> Result<()> {
    if cfg!(not(feature = "rdma")) || !on_demand_supported()? {
        return on_demand_is_refused();
    }
    guard::on()?;
    for kind in KINDS {
        let f = TestFile::new(kind, 4 * MIB)?;
        let region = register(&f, 0, 4 * 1024 * 1024, true)?;
        ensure!(
            guard::holds_on(&f.path)?.is_empty(),
            "{}: an on-demand region in ls",
            kind.name()
        );
        must_allow("punch", punch(&f.file, 0, MIB))?;
        must_allow("truncate", truncate(&f.path, 0))?;
        drop(region);
    }
    Ok(())
}

/// Where the device cannot fault, nobody gets such a region.
fn on_demand_is_refused() -> Result<()> {
    let f = TestFile::new(FsKind::Ext4, MIB)?;
    ensure!(
        register(&f, 0, 4096, true).is_err(),
        "registered on demand by a device that has no such paging"
    );
    crate::report::skip("rxe0 has no on-demand paging")
}

#[cfg(feature = "rdma")]
fn on_demand_supported() -> Result<bool> {
    Ok(longpin_tests::rdma::Device::open("rxe0")?.odp_supported()?)
}

#[cfg(not(feature = "rdma"))]
fn on_demand_supported() -> Result<bool> {
    Ok(false)
}

fn c14_other_files() -> Result<()> {
    guard::on()?;
    guard::must(&["guard", "sweep"])?;
    let all_walked = guard::status()?["hints"] != "complete";
    for kind in KINDS {
        let held = TestFile::new(kind, MIB)?;
        let other = TestFile::new(kind, MIB)?;
        let _pinned = pin(&held, 0, 1024 * 1024)?;
        let refused = guard::count("refused")?;
        let walks = guard::count("walks")?;
        must_allow("punch of another file", punch(&other.file, 0, 4096))?;
        must_allow("truncate of another file", truncate(&other.path, 100))?;
        must_allow("growing it", truncate(&other.path, MIB))?;
        must_allow("O_TRUNC of another file", open_truncate(&other.path))?;
        ensure!(
            guard::count("refused")? == refused,
            "{}: something was refused",
            kind.name()
        );
        // Where every pin is known, files that nobody pinned are not even walked.
        let walked = guard::count("walks")? - walks;
        ensure!(all_walked || walked == 0, "{}: {walked} walks", kind.name());
        held.check_all()?;
    }
    Ok(())
}

/// The administrator's question: who pinned this file, and which part?
fn rdma_pins() -> Result<()> {
    guard::on()?;
    for kind in KINDS {
        let f = TestFile::new(kind, 8 * MIB)?;
        let pinned = pin(&f, 2 * MIB, 4 * 1024 * 1024)?;
        let holds = guard::holds_on(&f.path)?;
        let [hold] = holds.as_slice() else {
            anyhow::bail!("{}: {holds:?}", kind.name())
        };
        let told = (
            hold["start"].as_u64(),
            hold["end"].as_u64(),
            hold["pages"].as_u64(),
        );
        ensure!(
            told == (Some(2 * MIB), Some(6 * MIB), Some(1024)),
            "{}: {hold}",
            kind.name()
        );
        ensure!(
            hold["pid"] == std::process::id(),
            "{}: pid in {hold}",
            kind.name()
        );
        ensure!(
            hold["consumer"] == pinned.consumer(),
            "{}: consumer in {hold}",
            kind.name()
        );
    }
    Ok(())
}
