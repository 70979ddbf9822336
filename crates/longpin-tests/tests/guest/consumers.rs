//! Who pins, other than io_uring and RDMA: VFIO and udmabuf. (iommufd is in none of Debian's kernels.)

use std::ops::Range;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};
use longpin_tests::act::{Outcome, ftruncate, outcome_name, punch};
use longpin_tests::mapping::Mapping;
use longpin_tests::scratch::FsKind;
use longpin_tests::udmabuf::{self, Udmabuf};
use longpin_tests::vfio::{Access, Device, VfioPin};
use rustix::fs::MemfdFlags;
use rustix::io::Errno;

use crate::files::TestFile;
use crate::pin::{must_allow, must_allow_soon, must_refuse};
use crate::{Test, guard};

pub(crate) const TESTS: &[Test] = &[
    ("pins_vfio", pins_vfio),
    ("pins_vfio_disk", pins_vfio_disk),
    ("pins_vfio_private", pins_vfio_private),
    ("pins_udmabuf", pins_udmabuf),
];

const MIB: u64 = 1 << 20;
const PAGE: u64 = 4096;
const HUGE: u64 = 2 * MIB;
const LEN: u64 = 6 * MIB;

/// In small pages: more than VFIO pins with one call (512 pages), and no boundary of anything.
const SMALL: Range<u64> = 300 * PAGE..900 * PAGE;
/// In units that no folio crosses.
const LARGE: Range<u64> = 2 * MIB..4 * MIB;

/// A range that is pinned.
struct Held<'a> {
    file: &'a TestFile,
    range: Range<u64>,
    /// Size of the pages: truncates of hugetlbfs ask for whole ones.
    unit: u64,
    consumer: &'static str,
}

impl Held<'_> {
    fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// New sizes that cut pages of the range off.
    fn cuts(&self) -> [u64; 4] {
        let Range { start, end } = self.range;
        [0, start - self.unit, start, end - self.unit]
    }

    /// Holes that take pages of the range: offset and length.
    fn holes(&self) -> [(u64, u64); 4] {
        let Range { start, end } = self.range;
        [
            (start, self.len()),
            (0, LEN),
            (start - self.unit, 2 * self.unit),
            (end - self.unit, self.unit),
        ]
    }

    fn must_refuse_cuts(&self) -> Result<()> {
        for size in self.cuts() {
            must_refuse(
                &format!("truncate to {size}"),
                ftruncate(&self.file.file, size),
            )?;
        }
        Ok(())
    }

    fn must_refuse_holes(&self) -> Result<()> {
        for (offset, len) in self.holes() {
            must_refuse(
                &format!("punch {offset}+{len}"),
                punch(&self.file.file, offset, len),
            )?;
        }
        self.file.check_all().context("after the refused acts")
    }

    /// `ls` shows the range, and us.
    fn must_be_listed(&self) -> Result<()> {
        let holds = guard::holds_on(&self.file.path)?;
        let [hold] = holds.as_slice() else {
            anyhow::bail!("not one hold: {holds:?}")
        };
        let told = ["start", "end", "pages"].map(|name| hold[name].as_u64());
        let expected = [self.range.start, self.range.end, self.len() / PAGE];
        ensure!(
            told == expected.map(Some),
            "not start, end and pages {expected:?}: {hold}"
        );
        ensure!(
            hold["pid"] == std::process::id() && hold["consumer"] == self.consumer,
            "not process {} by {}: {hold}",
            std::process::id(),
            self.consumer
        );
        Ok(())
    }

    fn must_allow_punch_around(&self) -> Result<()> {
        let Range { start, end } = self.range;
        must_allow("punch before", punch(&self.file.file, 0, start))?;
        must_allow("punch behind", punch(&self.file.file, end, LEN - end))
    }

    /// Truncates and punches are refused in the range and nowhere else, and `ls` knows why.
    fn must_stand(&self) -> Result<()> {
        self.must_refuse_cuts()?;
        self.must_refuse_holes()?;
        self.must_allow_punch_around()?;
        must_allow(
            "truncate behind",
            ftruncate(&self.file.file, self.range.end),
        )?;
        self.must_be_listed()
    }

    /// After the release.
    fn must_have_ended(&self) -> Result<()> {
        let (file, start) = (&self.file.file, self.range.start);
        must_allow_soon("punch", || punch(file, start, self.len()))?;
        must_allow("truncate", ftruncate(file, 0))?;
        must_not_be_listed(self.file)
    }
}

fn must_not_be_listed(file: &TestFile) -> Result<()> {
    let holds = guard::holds_on(&file.path)?;
    ensure!(holds.is_empty(), "ls lists {holds:?}");
    Ok(())
}

fn held_by_vfio(file: &TestFile, range: Range<u64>, unit: u64) -> Held<'_> {
    Held {
        file,
        range,
        unit,
        consumer: "vfio",
    }
}

/// By DMA the device reads the file's bytes, at both ends of the pin.
fn device_must_read(pin: &VfioPin, held: &Held<'_>) -> Result<()> {
    let last = held.len() - PAGE;
    for at in [0, last] {
        let seen = pin.read_as_device(usize::try_from(at)?, VfioPin::MAX_READ)?;
        held.file
            .check((held.range.start + at) / PAGE, &seen)
            .context("what the device reads")?;
    }
    Ok(())
}

fn vfio_must_hold(pin: VfioPin, held: &Held<'_>) -> Result<()> {
    held.must_stand()?;
    device_must_read(&pin, held)?;
    pin.unmap()?;
    held.must_have_ended()
}

fn map(device: &Device, held: &Held<'_>, access: Access) -> Result<VfioPin> {
    let len = usize::try_from(held.len())?;
    let writable = access == Access::ReadWrite;
    let mapping = Mapping::shared(&held.file.file, held.range.start, len, writable)?;
    Ok(device.map(&mapping, access)?)
}

/// Memory file systems, for a device that reads and writes.
fn pins_vfio() -> Result<()> {
    guard::on()?;
    let file = TestFile::new(FsKind::Tmpfs, LEN)?;
    let held = held_by_vfio(&file, SMALL, PAGE);
    let pin = VfioPin::map(&file.file, SMALL.start, usize::try_from(held.len())?)?;
    vfio_must_hold(pin, &held).context("tmpfs")?;

    let device = Device::open()?;
    let on_device = |held: &Held<'_>| vfio_must_hold(map(&device, held, Access::ReadWrite)?, held);
    let file = TestFile::new(FsKind::TmpfsHuge, LEN)?;
    on_device(&held_by_vfio(&file, LARGE, PAGE)).context("tmpfs huge=always")?;
    let file = TestFile::memfd(MemfdFlags::empty(), LEN)?;
    on_device(&held_by_vfio(&file, SMALL, PAGE)).context("memfd")?;
    with_huge_pages(|| {
        let file = TestFile::memfd(MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB, LEN)?;
        on_device(&held_by_vfio(&file, LARGE, HUGE)).context("hugetlbfs")
    })
}

pub(crate) fn with_huge_pages(test: impl FnOnce() -> Result<()>) -> Result<()> {
    let pages = "/proc/sys/vm/nr_hugepages";
    std::fs::write(pages, "8")?;
    let tested = test();
    std::fs::write(pages, "0")?;
    tested
}

/// Files with blocks: for a device that only reads; for one that writes where the kernel does not yet refuse that (6.1).
fn pins_vfio_disk() -> Result<()> {
    guard::on()?;
    let device = Device::open()?;
    for kind in [FsKind::Ext4, FsKind::Xfs] {
        let file = TestFile::new(kind, LEN)?;
        let held = held_by_vfio(&file, LARGE, PAGE);
        vfio_must_hold(map(&device, &held, Access::Read)?, &held).with_context(|| kind.name())?;
        writable_disk(&device, kind).with_context(|| format!("{}, writable", kind.name()))?;
    }
    Ok(())
}

fn writable_disk(device: &Device, kind: FsKind) -> Result<()> {
    let file = TestFile::new(kind, LEN)?;
    let held = held_by_vfio(&file, LARGE, PAGE);
    let len = usize::try_from(held.len())?;
    let mapping = Mapping::shared(&file.file, LARGE.start, len, true)?;
    match device.map(&mapping, Access::ReadWrite) {
        Err(err) if err.errno == Errno::FAULT => held.must_have_ended(),
        pinned => vfio_must_hold(pinned?, &held),
    }
}

/// A private mapping that was written is no file's memory. One that was not is, where a pin for reading does not make
/// the copy (before 6.2): the device tells, by whether it sees what is written into the file.
fn pins_vfio_private() -> Result<()> {
    guard::on()?;
    let device = Device::open()?;
    for kind in [FsKind::Tmpfs, FsKind::Ext4] {
        private_written(&device, kind).with_context(|| format!("{}, written", kind.name()))?;
        private_clean(&device, kind).with_context(|| format!("{}, clean", kind.name()))?;
    }
    Ok(())
}

fn private_written(device: &Device, kind: FsKind) -> Result<()> {
    let file = TestFile::new(kind, LEN)?;
    let len = usize::try_from(LARGE.end - LARGE.start)?;
    let mapping = Mapping::private(&file.file, LARGE.start, len)?;
    let copy = vec![0xa5; len];
    mapping.copy_in(0, &copy);
    let pin = device.map(&mapping, Access::ReadWrite)?;
    must_be_free(&file)?;
    let seen = pin.read_as_device(0, VfioPin::MAX_READ)?;
    ensure!(
        seen == copy[..seen.len()],
        "the device reads something else"
    );
    Ok(pin.unmap()?)
}

fn must_be_free(file: &TestFile) -> Result<()> {
    must_not_be_listed(file)?;
    must_allow("punch", punch(&file.file, 0, LEN))?;
    must_allow("truncate", ftruncate(&file.file, 0))
}

fn private_clean(device: &Device, kind: FsKind) -> Result<()> {
    let file = TestFile::new(kind, LEN)?;
    // Not a whole folio of 2 MiB: on 7.2 such a pin never returns (the kernel maps it whole, splits it, maps it whole…).
    let held = held_by_vfio(&file, SMALL, PAGE);
    let mapping = Mapping::private(&file.file, SMALL.start, usize::try_from(held.len())?)?;
    let pin = device.map(&mapping, Access::Read)?;
    let mut page = [0; 4096];
    file.file.read_exact_at(&mut page, SMALL.start)?;
    file.file.write_all_at(&[0x5a; 4096], SMALL.start)?;
    let seen = pin.read_as_device(0, VfioPin::MAX_READ)?;
    file.file.write_all_at(&page, SMALL.start)?;
    let is_the_files = seen == [0x5a; VfioPin::MAX_READ];
    println!(
        "{}: a clean private mapping pins {}",
        kind.name(),
        if is_the_files {
            "the file's pages"
        } else {
            "copies"
        }
    );
    if is_the_files {
        return vfio_must_hold(pin, &held);
    }
    file.check(SMALL.start / PAGE, &seen)?;
    must_be_free(&file)?;
    Ok(pin.unmap()?)
}

fn pins_udmabuf() -> Result<()> {
    if !udmabuf::supported()? {
        return crate::report::skip("no udmabuf");
    }
    guard::on()?;
    let file = TestFile::memfd(MemfdFlags::empty(), LEN)?;
    udmabuf_must_hold(&file, SMALL, PAGE).context("memfd")?;
    with_huge_pages(|| {
        let file = TestFile::memfd(MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB, LEN)?;
        udmabuf_must_hold(&file, LARGE, HUGE).context("hugetlbfs")
    })
}

/// The seal that udmabuf wants already forbids every truncate, and no hole punch. The guard is asked before the seal.
fn udmabuf_must_hold(file: &TestFile, range: Range<u64>, unit: u64) -> Result<()> {
    let held = Held {
        file,
        range: range.clone(),
        unit,
        consumer: "udmabuf",
    };
    let buffer = Udmabuf::create(&file.file, range.start, usize::try_from(held.len())?)?;
    held.must_refuse_cuts()?;
    held.must_refuse_holes()?;
    must_be_sealed("truncate behind", ftruncate(&file.file, range.end))?;
    held.must_allow_punch_around()?;
    held.must_be_listed()?;
    file.check(range.start / PAGE, &buffer.read_as_device()?)
        .context("what the device reads")?;
    drop(buffer);
    must_allow_soon("punch", || punch(&file.file, range.start, held.len()))?;
    must_be_sealed("truncate", ftruncate(&file.file, 0))?;
    must_not_be_listed(file)
}

fn must_be_sealed(what: &str, outcome: Outcome) -> Result<()> {
    ensure!(
        outcome == Err(Errno::PERM),
        "{what}: {}, not EPERM",
        outcome_name(outcome)
    );
    Ok(())
}
