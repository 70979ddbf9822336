//! Door 2: VFIO type1 takes the pages by a mapping of the dma-buf, and keeps them without a reference. QEMU's edu behind an
//! emulated IOMMU reads and writes them.

use std::os::fd::AsFd;

use anyhow::{Context, Result, bail, ensure};
use longpin_tests::PAGE;
use longpin_tests::act::truncate;
use longpin_tests::lend::{self, Lend, abi};
use longpin_tests::mapping::Mapping;
use longpin_tests::pattern::Pattern;
use longpin_tests::scratch::FsKind;
use longpin_tests::vfio::{Access, Device, VfioPin};
use rustix::io::Errno;

use super::force::Waiter;
use super::ground::{Field, Held, LEN, ORDERS, Part};
use crate::guard;
use crate::pin::must_refuse;

/// Where edu reads, and where it writes: both ends, and a place in the middle.
const PAGES: [usize; 3] = [0, LEN / PAGE / 2 + 1, LEN / PAGE - 1];

/// A file that is lent, mapped and given to the device.
pub(super) struct Assigned {
    pub(super) pin: VfioPin,
    pub(super) mapping: Mapping,
    pub(super) lend: Lend,
    pub(super) device: Device,
}

impl Assigned {
    pub(super) fn new(held: &Held) -> Result<Self> {
        let device = Device::open()?;
        let lend = held.lend(abi::WRITE, &[device.group().as_fd()])?;
        let mapping = lend.map(true).context("mmap of the dma-buf")?;
        let pin = device.map(&mapping, Access::ReadWrite)?;
        Ok(Self {
            pin,
            mapping,
            lend,
            device,
        })
    }
}

/// The device reads the file, and the file has what the device writes.
pub(super) fn traffic(pin: &VfioPin, held: &mut Held, seed: u64) -> Result<()> {
    must_read(pin, held)?;
    for page in PAGES {
        let bytes = Pattern::new(seed).page(page as u64);
        let bytes = &bytes[..VfioPin::MAX_READ];
        pin.write_as_device(page * PAGE, bytes)?;
        held.note(page, bytes);
    }
    must_read(pin, held)?;
    held.check()
}

pub(super) fn must_read(pin: &VfioPin, held: &Held) -> Result<()> {
    for page in PAGES {
        let seen = pin.read_as_device(page * PAGE, VfioPin::MAX_READ)?;
        held.must_be("the device reads", page, &seen)?;
    }
    Ok(())
}

pub(super) fn main() -> Result<()> {
    Field::on_each(main_on)
}

fn main_on(kind: FsKind) -> Result<()> {
    let field = Field::guarded(kind)?;
    let mut held = field.held("lent")?;
    let Assigned {
        pin,
        mapping,
        lend,
        device,
    } = Assigned::new(&held)?;
    // Not by the file's own mapping.
    let own = Mapping::shared(held.file()?, 0, LEN, true)?;
    match device.map(&own, Access::ReadWrite) {
        Err(err) if err.errno == Errno::OPNOTSUPP => {}
        other => bail!("VFIO took the file's own mapping: {other:?}"),
    }
    drop(own);
    traffic(&pin, &mut held, 2)?;
    must_be_listed(&held)?;
    held.must_be_refused("lent")?;
    held.close_file();
    held.close_token();
    held.must_be_refused("lent, the owner's token closed")?;
    must_read(&pin, &held)?;
    pin.unmap()?;
    drop(mapping);
    held.must_stay_refused("unmapped, the dma-buf open")?;
    drop(lend);
    // Whether or not it has anything mapped: that is for the group's end.
    held.must_stay_refused("only the group open")?;
    drop(device);
    held.must_be_free("the group closed")
}

/// One row, which says who and what.
fn must_be_listed(held: &Held) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let data = held.file()?.metadata()?;
    let rows = lend::list().context("LIST")?;
    let [row] = rows.as_slice() else {
        bail!("not one lend: {rows:?}")
    };
    let found = (row.dev, row.inode, row.offset, row.length);
    let wanted = (data.dev(), data.ino(), 0, LEN as u64);
    ensure!(found == wanted, "{found:?}, not {wanted:?}");
    let flags = abi::WRITE | abi::ROW_OPEN;
    ensure!(row.flags & flags == flags, "flags {:#x}", row.flags);
    let who = u32::try_from(row.pid)?;
    ensure!(who == std::process::id(), "lent by {who}");
    ensure!(row.groups == 1 && row.mappings >= 1, "{row:?}");
    Ok(())
}

/// A lend that nobody waits for may not be mapped, and the group may be named afterwards.
pub(super) fn group_named_late() -> Result<()> {
    let field = Field::guarded(FsKind::Ext4)?;
    let mut held = field.held("late")?;
    let lend = held.lend(abi::WRITE, &[])?;
    let early = lend.map(true).err();
    ensure!(
        early == Some(Errno::NXIO),
        "mmap without a group: {early:?}"
    );
    let device = Device::open()?;
    lend.until(&device.group())?;
    lend.until(&device.group()).context("named twice")?;
    let mapping = lend.map(true).context("mmap of the dma-buf")?;
    let pin = device.map(&mapping, Access::ReadWrite)?;
    traffic(&pin, &mut held, 3)?;
    drop((pin, mapping, lend, device));
    held.must_be_free("late")
}

/// Whatever goes first, the device keeps the file's pages, and nobody else gets them.
fn orders_on(kind: FsKind) -> Result<()> {
    let field = Field::guarded(kind)?;
    for order in ORDERS {
        order_on(&field, order).with_context(|| format!("{kind}, {order:?}"))?;
    }
    Ok(())
}

fn order_on(field: &Field, order: [Part; 3]) -> Result<()> {
    let mut held = field.held("order")?;
    let Assigned {
        pin,
        mapping,
        lend,
        device,
    } = Assigned::new(&held)?;
    held.close_file();
    let mut lend = Some(lend);
    for part in order {
        match part {
            Part::Token => held.close_token(),
            Part::Memory => mapping.leave_file()?,
            Part::Buffer => lend = None,
        }
        must_refuse(&format!("{part:?}"), truncate(&held.path, 4096))?;
        must_read(&pin, &held).with_context(|| format!("{part:?}"))?;
    }
    drop(lend);
    held.must_stay_refused("VFIO alone has it")?;
    traffic(&pin, &mut held, 4)?;
    drop((pin, mapping, device));
    held.must_be_free("order")
}

pub(super) fn orders_xfs() -> Result<()> {
    orders_on(FsKind::Xfs)
}

pub(super) fn orders_ext4() -> Result<()> {
    orders_on(FsKind::Ext4)
}

/// Others take every block that they can get while VFIO alone has the pages: the device reads the file, not theirs.
pub(super) fn full_disk() -> Result<()> {
    Field::on_each(full_disk_on)
}

fn full_disk_on(kind: FsKind) -> Result<()> {
    let field = Field::guarded(kind)?;
    let mut held = field.held("full")?;
    field.leave_room(8 << 20)?;
    let Assigned {
        pin,
        mapping,
        lend,
        device,
    } = Assigned::new(&held)?;
    held.close_file();
    held.close_token();
    mapping.leave_file()?;
    drop(lend);
    held.must_stay_refused("VFIO alone has it")?;
    field.fill()?;
    must_read(&pin, &held)?;
    traffic(&pin, &mut held, 5)?;
    drop((pin, mapping, device));
    held.must_be_free("full")
}

/// The guard goes by force while the file is lent: the file system waits, and the bytes stay.
pub(super) fn force() -> Result<()> {
    Field::on_each(force_on)
}

fn force_on(kind: FsKind) -> Result<()> {
    let field = Field::guarded(kind)?;
    let mut held = field.held("forced")?;
    field.leave_room(8 << 20)?;
    let assigned = Assigned::new(&held)?;
    let pin = &assigned.pin;
    guard::off()?;
    let path = held.path.to_string_lossy().into_owned();
    for command in [
        vec!["truncate", "-s", "4096", &path],
        vec!["fallocate", "-p", "-o", "0", "-l", "8192", &path],
        vec!["fallocate", "-c", "-o", "0", "-l", "65536", &path],
    ] {
        Waiter::start(&command)?.must_wait_and_end()?;
        must_read(pin, &held).with_context(|| command.join(" "))?;
    }
    traffic(pin, &mut held, 6)?;
    // Its name goes; its blocks do not.
    std::fs::remove_file(&held.path)?;
    field.fill()?;
    must_read(pin, &held).context("after an unlink, and a full disk")?;
    drop(assigned);
    held.close_file();
    held.close_token();
    super::ground::must_have_no_lend()
}
