//! The `edu` device at work: it copies memory into its own, and back, by DMA (docs/specs/edu.rst of QEMU).
#![allow(unsafe_code, reason = "ioctl(2) of VFIO")]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Access, Device, VfioPin, argsz, request};
use crate::act::{errno_name, last_errno};
use crate::mapping::Mapping;
use crate::{PAGE, PATIENCE};

/// `VFIO_PCI_BAR0_REGION_INDEX` and `VFIO_PCI_CONFIG_REGION_INDEX`.
const BAR0: u32 = 0;
const CONFIG: u32 = 7;

/// `PCI_COMMAND`: answer at the BAR, and do DMA.
const PCI_COMMAND: u64 = 4;
const MEMORY_AND_MASTER: u16 = 2 | 4;

/// Registers of the device.
const SOURCE: u64 = 0x80;
const DESTINATION: u64 = 0x88;
const COUNT: u64 = 0x90;
const COMMAND: u64 = 0x98;
const RUN: u32 = 1;
const TO_MEMORY: u32 = 2;

/// The device's own memory, 4 KiB; older ones do not fill it to the end.
const BUFFER: u32 = 0x4_0000;

/// `struct vfio_region_info`.
#[repr(C)]
#[derive(Default)]
struct RegionInfo {
    argsz: u32,
    flags: u32,
    index: u32,
    cap_offset: u32,
    size: u64,
    offset: u64,
}

impl VfioPin {
    /// The most that the device copies in one go: half a page.
    pub const MAX_READ: usize = PAGE / 2;
}

/// Lets the device answer and do DMA.
pub(super) fn enable(device: &File) -> Result<()> {
    let command = region(device, CONFIG)? + PCI_COMMAND;
    device
        .write_all_at(&MEMORY_AND_MASTER.to_le_bytes(), command)
        .context("cannot enable the device")
}

/// Copies memory into the device, and from there into a page of this process.
pub(super) fn read(device: &Device, iova: u64, len: usize) -> Result<Vec<u8>> {
    let page = Mapping::anonymous(PAGE)?;
    let sink = device.map(&page, Access::ReadWrite)?;
    let sink_iova = sink.iova.context("just mapped")?;
    let count = u32::try_from(len)?;
    let registers = Registers::of(&device.assigned.device)?;
    registers.copy(u32::try_from(iova)?, BUFFER, count, RUN)?;
    registers.copy(BUFFER, u32::try_from(sink_iova)?, count, RUN | TO_MEMORY)?;
    sink.unmap()?;
    Ok(page.copy_out(0..len))
}

/// Copies a page of this process into the device, and from there into memory.
pub(super) fn write(device: &Device, iova: u64, bytes: &[u8]) -> Result<()> {
    let page = Mapping::anonymous(PAGE)?;
    page.copy_in(0, bytes);
    let source = device.map(&page, Access::ReadWrite)?;
    let source_iova = source.iova.context("just mapped")?;
    let count = u32::try_from(bytes.len())?;
    let registers = Registers::of(&device.assigned.device)?;
    registers.copy(u32::try_from(source_iova)?, BUFFER, count, RUN)?;
    registers.copy(BUFFER, u32::try_from(iova)?, count, RUN | TO_MEMORY)?;
    Ok(source.unmap()?)
}

/// Where in the device's file a region begins.
fn region(device: &File, index: u32) -> Result<u64> {
    let mut info = RegionInfo {
        argsz: argsz::<RegionInfo>(),
        index,
        ..RegionInfo::default()
    };
    let fd = device.as_raw_fd();
    // SAFETY: the kernel reads and fills one `vfio_region_info`, which lives across the call.
    let answer = unsafe { libc::ioctl(fd, request::DEVICE_GET_REGION_INFO, &raw mut info) };
    ensure!(
        answer == 0,
        "VFIO_DEVICE_GET_REGION_INFO {index}: {}",
        errno_name(last_errno())
    );
    ensure!(info.size > 0, "the device has no region {index}");
    Ok(info.offset)
}

struct Registers<'a> {
    device: &'a File,
    base: u64,
}

impl<'a> Registers<'a> {
    fn of(device: &'a File) -> Result<Self> {
        Ok(Self {
            device,
            base: region(device, BAR0)?,
        })
    }

    /// Starts a copy, and waits for its end.
    fn copy(&self, from: u32, to: u32, count: u32, command: u32) -> Result<()> {
        let begin = Instant::now();
        for (register, value) in [
            (SOURCE, from),
            (DESTINATION, to),
            (COUNT, count),
            (COMMAND, command),
        ] {
            let place = self.base + register;
            self.device.write_all_at(&value.to_le_bytes(), place)?;
        }
        while self.command()? & RUN != 0 {
            ensure!(
                begin.elapsed() < PATIENCE,
                "the device has not copied in {PATIENCE:?}"
            );
            sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn command(&self) -> Result<u32> {
        let mut word = [0; 4];
        self.device.read_exact_at(&mut word, self.base + COMMAND)?;
        Ok(u32::from_le_bytes(word))
    }
}
