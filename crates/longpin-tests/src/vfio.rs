//! VFIO type1: a PCI device given to this process, and file pages pinned for its DMA.
//!
//! The device is QEMU's `edu`, behind an emulated IOMMU: `cargo xtask vm` plugs both in. Nothing is loaded or bound
//! before the first [`Device::open`], and the last owner of a device gives it back.
//!
//! Container and group, not iommufd: none of Debian's kernels has iommufd.
#![allow(unsafe_code, reason = "ioctl(2) of VFIO")]

mod dma;
mod driver;

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use rustix::io::Errno;

use crate::act::{errno_name, last_errno};
use crate::mapping::Mapping;
use driver::Binding;

/// The requests of linux/vfio.h: `_IO(';', 100 + n)`.
mod request {
    pub(super) const GET_API_VERSION: libc::Ioctl = 0x3b64;
    pub(super) const CHECK_EXTENSION: libc::Ioctl = 0x3b65;
    pub(super) const SET_IOMMU: libc::Ioctl = 0x3b66;
    pub(super) const GROUP_GET_STATUS: libc::Ioctl = 0x3b67;
    pub(super) const GROUP_SET_CONTAINER: libc::Ioctl = 0x3b68;
    pub(super) const GROUP_GET_DEVICE_FD: libc::Ioctl = 0x3b6a;
    pub(super) const DEVICE_GET_REGION_INFO: libc::Ioctl = 0x3b6c;
    pub(super) const IOMMU_MAP_DMA: libc::Ioctl = 0x3b71;
    pub(super) const IOMMU_UNMAP_DMA: libc::Ioctl = 0x3b72;
}

const TYPE1V2_IOMMU: libc::c_ulong = 3;
const GROUP_FLAGS_VIABLE: u32 = 1;
const MAP_READ: u32 = 1;
const MAP_WRITE: u32 = 2;

/// Addresses for the device are given out from here on, in steps of what a large folio may need. The device can
/// address 28 bits.
const FIRST_IOVA: u64 = 2 << 20;
const IOVA_STEP: u64 = 2 << 20;
const IOVA_END: u64 = 1 << 28;

/// `struct vfio_group_status`.
#[repr(C)]
struct GroupStatus {
    argsz: u32,
    flags: u32,
}

/// `struct vfio_iommu_type1_dma_map`.
#[repr(C)]
struct DmaMap {
    argsz: u32,
    flags: u32,
    vaddr: u64,
    iova: u64,
    size: u64,
}

/// `struct vfio_iommu_type1_dma_unmap`.
#[repr(C)]
struct DmaUnmap {
    argsz: u32,
    flags: u32,
    iova: u64,
    size: u64,
}

/// The `argsz` that begins each of VFIO's structures: its size, as a `u32`.
const fn argsz<T>() -> u32 {
    assert!(size_of::<T>() < 4096);
    #[expect(clippy::cast_possible_truncation, reason = "below 4096, as asserted")]
    let size = size_of::<T>() as u32;
    size
}

/// What the device may do with the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// `VFIO_DMA_MAP_FLAG_READ`: the pin is for reading only.
    Read,
    /// And `VFIO_DMA_MAP_FLAG_WRITE`: the pin is for writing (`FOLL_WRITE`).
    ReadWrite,
}

/// `VFIO_IOMMU_MAP_DMA` failed.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("cannot map {len} bytes for the device at {iova:#x}, {access:?}: {}", errno_name(*errno))]
pub struct MapError {
    /// What the kernel answered.
    pub errno: Errno,
    /// What was asked for.
    pub access: Access,
    /// Address for the device.
    pub iova: u64,
    /// Bytes asked for.
    pub len: usize,
}

/// `VFIO_IOMMU_UNMAP_DMA` failed. The memory may still be pinned, so it stays mapped until the process ends.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("cannot unmap {len} bytes at {iova:#x} from the device: {}", errno_name(*errno))]
pub struct UnmapError {
    /// What the kernel answered.
    pub errno: Errno,
    /// Address for the device.
    pub iova: u64,
    /// Bytes that were mapped there.
    pub len: usize,
}

/// The `edu` device, in a container of its own. One at a time: a group opens once.
#[derive(Debug, Clone)]
pub struct Device {
    assigned: Rc<Assigned>,
}

/// In the order in which they must close: the kernel gives a device back to its driver when nobody has it open.
#[derive(Debug)]
struct Assigned {
    device: File,
    group: File,
    container: File,
    next_iova: Cell<u64>,
    _binding: Binding,
}

impl Device {
    /// Binds the device to `vfio-pci`, opens its group, and gives that a container with a type1v2 IOMMU.
    pub fn open() -> Result<Self> {
        let binding = Binding::bind(&driver::find_edu()?)?;
        let container = open(Path::new("/dev/vfio/vfio"))?;
        check_container(&container)?;
        let group = open(&Path::new("/dev/vfio").join(binding.group()?))?;
        join_container(&group, &container)?;
        let device = device_of(&group, binding.address())?;
        dma::enable(&device)?;
        Ok(Self {
            assigned: Rc::new(Assigned {
                device,
                group,
                container,
                next_iova: Cell::new(FIRST_IOVA),
                _binding: binding,
            }),
        })
    }

    /// The group, as long as which is open the device may reach what is mapped for it.
    pub fn group(&self) -> &File {
        &self.assigned.group
    }

    /// `VFIO_IOMMU_MAP_DMA` of a whole mapping: its pages are pinned (`FOLL_LONGTERM`) until the pin goes.
    pub fn map(&self, mapping: &Mapping, access: Access) -> Result<VfioPin, MapError> {
        let len = mapping.len();
        let iova = self.assigned.next_iova.get();
        let failed = |errno| MapError {
            errno,
            access,
            iova,
            len,
        };
        let after = after(iova, len);
        if after > IOVA_END {
            return Err(failed(Errno::NOSPC));
        }
        let asked = DmaMap {
            argsz: argsz::<DmaMap>(),
            flags: match access {
                Access::Read => MAP_READ,
                Access::ReadWrite => MAP_READ | MAP_WRITE,
            },
            vaddr: mapping.addr() as u64,
            iova,
            size: len as u64,
        };
        let container = self.assigned.container.as_raw_fd();
        // SAFETY: the kernel reads one `vfio_iommu_type1_dma_map`. The memory that it hands to the device is mapped, the pin
        // keeps it so, and no reference to it exists.
        let answer = unsafe { libc::ioctl(container, request::IOMMU_MAP_DMA, &raw const asked) };
        if answer != 0 {
            return Err(failed(last_errno()));
        }
        self.assigned.next_iova.set(after);
        Ok(VfioPin {
            device: self.clone(),
            iova: Some(iova),
            mapping: mapping.clone(),
        })
    }
}

/// Memory that the device may reach, pinned; unpinned when it is dropped.
#[derive(Debug)]
#[must_use = "dropping it unpins"]
pub struct VfioPin {
    device: Device,
    /// `None` once unmapped.
    iova: Option<u64>,
    mapping: Mapping,
}

impl VfioPin {
    /// Pins `[offset, offset + len)` of a file, mapped shared and writable, for a device that may read and write.
    pub fn map(file: &impl AsFd, offset: u64, len: usize) -> Result<Self> {
        let mapping = Mapping::shared(file, offset, len, true).context("cannot map the file")?;
        Ok(Device::open()?.map(&mapping, Access::ReadWrite)?)
    }

    /// What the device reads `at` bytes behind the beginning, by DMA: `len` bytes, up to [`VfioPin::MAX_READ`].
    pub fn read_as_device(&self, at: usize, len: usize) -> Result<Vec<u8>> {
        let iova = self.iova.context("the pin has gone")?;
        ensure!(
            len <= Self::MAX_READ && at + len <= self.mapping.len(),
            "{len} bytes at {at} of {}, at most {} in one go",
            self.mapping.len(),
            Self::MAX_READ
        );
        dma::read(&self.device, iova + at as u64, len)
    }

    /// The device writes these bytes `at` bytes behind the beginning, by DMA; up to [`VfioPin::MAX_READ`].
    pub fn write_as_device(&self, at: usize, bytes: &[u8]) -> Result<()> {
        let iova = self.iova.context("the pin has gone")?;
        ensure!(
            bytes.len() <= Self::MAX_READ && at + bytes.len() <= self.mapping.len(),
            "{} bytes at {at} of {}, at most {} in one go",
            bytes.len(),
            self.mapping.len(),
            Self::MAX_READ
        );
        dma::write(&self.device, iova + at as u64, bytes)
    }

    /// `VFIO_IOMMU_UNMAP_DMA`: the pages are unpinned before this returns.
    pub fn unmap(mut self) -> Result<(), UnmapError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), UnmapError> {
        let Some(iova) = self.iova.take() else {
            return Ok(());
        };
        let len = self.mapping.len();
        let mut asked = DmaUnmap {
            argsz: argsz::<DmaUnmap>(),
            flags: 0,
            iova,
            size: len as u64,
        };
        let container = self.device.assigned.container.as_raw_fd();
        // SAFETY: the kernel reads and writes one `vfio_iommu_type1_dma_unmap`, which lives across the call.
        let answer = unsafe { libc::ioctl(container, request::IOMMU_UNMAP_DMA, &raw mut asked) };
        if answer == 0 && asked.size == len as u64 {
            let next = &self.device.assigned.next_iova;
            if next.get() == after(iova, len) {
                next.set(iova);
            }
            return Ok(());
        }
        let errno = if answer == 0 { Errno::IO } else { last_errno() };
        // The device may still write there: leak one owner, so that the memory is never given to anybody else.
        std::mem::forget(self.mapping.clone());
        Err(UnmapError { errno, iova, len })
    }
}

impl Drop for VfioPin {
    /// The emergency path: [`VfioPin::unmap`] says whether it worked.
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// Where the next one goes.
const fn after(iova: u64, len: usize) -> u64 {
    (iova + len as u64).next_multiple_of(IOVA_STEP)
}

fn open(path: &Path) -> Result<File> {
    let opened = File::options().read(true).write(true).open(path);
    opened.with_context(|| format!("cannot open {}", path.display()))
}

fn check_container(container: &File) -> Result<()> {
    let version =
        with_number(container, request::GET_API_VERSION, 0).context("VFIO_GET_API_VERSION")?;
    ensure!(version == 0, "VFIO's version is {version}, not 0");
    let type1 = with_number(container, request::CHECK_EXTENSION, TYPE1V2_IOMMU)
        .context("VFIO_CHECK_EXTENSION")?;
    ensure!(type1 == 1, "VFIO has no type1v2 IOMMU here");
    Ok(())
}

fn join_container(group: &File, container: &File) -> Result<()> {
    let mut status = GroupStatus {
        argsz: argsz::<GroupStatus>(),
        flags: 0,
    };
    let fd = group.as_raw_fd();
    // SAFETY: the kernel fills one `vfio_group_status`, which lives across the call.
    let answer = unsafe { libc::ioctl(fd, request::GROUP_GET_STATUS, &raw mut status) };
    ensure!(
        answer == 0,
        "VFIO_GROUP_GET_STATUS: {}",
        errno_name(last_errno())
    );
    ensure!(
        status.flags & GROUP_FLAGS_VIABLE != 0,
        "a device of the group has another driver"
    );
    let container_fd = container.as_raw_fd();
    // SAFETY: the kernel reads one descriptor, which lives across the call.
    let answer = unsafe { libc::ioctl(fd, request::GROUP_SET_CONTAINER, &raw const container_fd) };
    ensure!(
        answer == 0,
        "VFIO_GROUP_SET_CONTAINER: {}",
        errno_name(last_errno())
    );
    with_number(container, request::SET_IOMMU, TYPE1V2_IOMMU).context("VFIO_SET_IOMMU")?;
    Ok(())
}

fn device_of(group: &File, address: &str) -> Result<File> {
    use std::os::fd::FromRawFd;

    let name = std::ffi::CString::new(address)?;
    let fd = group.as_raw_fd();
    // SAFETY: the kernel reads a NUL-terminated string that lives across the call.
    let answer = unsafe { libc::ioctl(fd, request::GROUP_GET_DEVICE_FD, name.as_ptr()) };
    ensure!(
        answer >= 0,
        "VFIO_GROUP_GET_DEVICE_FD of {address}: {}",
        errno_name(last_errno())
    );
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { File::from_raw_fd(answer) })
}

/// A request whose argument is a number, and no address.
fn with_number(file: &File, request: libc::Ioctl, number: libc::c_ulong) -> io::Result<i32> {
    debug_assert!(
        [
            request::GET_API_VERSION,
            request::CHECK_EXTENSION,
            request::SET_IOMMU
        ]
        .contains(&request)
    );
    // SAFETY: these requests take a number and touch no memory of ours.
    match unsafe { libc::ioctl(file.as_raw_fd(), request, number) } {
        answer if answer < 0 => Err(io::Error::last_os_error()),
        answer => Ok(answer),
    }
}
