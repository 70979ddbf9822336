//! vivid, the kernel's virtual camera (V4L2): it imports DMA buffers and writes frames into them through a mapping of its
//! own in the kernel (`vmap`).
#![allow(unsafe_code, reason = "ioctl(2) of V4L2")]

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::io::Errno;

use crate::act::last_errno;

/// The requests of linux/videodev2.h, for x86-64.
mod request {
    pub(super) const QUERYCAP: libc::Ioctl = 0x8068_5600;
    pub(super) const S_FMT: libc::Ioctl = 0xc0d0_5605;
    pub(super) const REQBUFS: libc::Ioctl = 0xc014_5608;
    pub(super) const QBUF: libc::Ioctl = 0xc058_560f;
    pub(super) const DQBUF: libc::Ioctl = 0xc058_5611;
    pub(super) const STREAMON: libc::Ioctl = 0x4004_5612;
    pub(super) const STREAMOFF: libc::Ioctl = 0x4004_5613;
}

/// `V4L2_BUF_TYPE_VIDEO_CAPTURE`, which is also its capability.
const CAPTURE: u32 = 1;
/// `V4L2_MEMORY_DMABUF`.
const DMABUF: u32 = 4;
/// `V4L2_PIX_FMT_YUYV`: two bytes a pixel.
const YUYV: u32 = u32::from_le_bytes(*b"YUYV");
/// `V4L2_FIELD_NONE`.
const WHOLE_FRAMES: u32 = 1;

/// `struct v4l2_capability`.
#[repr(C)]
#[derive(Default)]
struct Capability {
    driver: [u8; 16],
    card: [[u8; 16]; 2],
    bus: [[u8; 16]; 2],
    version: u32,
    capabilities: u32,
    device: u32,
    reserved: [u32; 3],
}

/// `struct v4l2_format` with `struct v4l2_pix_format`.
#[repr(C)]
struct Format {
    kind: u64,
    width: u32,
    height: u32,
    pixels: u32,
    field: u32,
    line: u32,
    image: u32,
    rest: [u32; 44],
}

/// `struct v4l2_requestbuffers`.
#[repr(C)]
struct Request {
    count: u32,
    kind: u32,
    memory: u32,
    rest: [u32; 2],
}

/// `struct v4l2_buffer`.
#[repr(C)]
#[derive(Default)]
struct Buffer {
    index: u32,
    kind: u32,
    used: u32,
    flags: u32,
    field: u32,
    timestamp: [u64; 2],
    timecode: [u32; 4],
    sequence: u32,
    memory: u32,
    dmabuf: u64,
    length: u32,
    rest: [u32; 2],
}

const _: () = assert!(size_of::<Capability>() as u64 == (request::QUERYCAP >> 16) & 0x3fff);
const _: () = assert!(size_of::<Format>() as u64 == (request::S_FMT >> 16) & 0x3fff);
const _: () = assert!(size_of::<Request>() as u64 == (request::REQBUFS >> 16) & 0x3fff);
const _: () = assert!(size_of::<Buffer>() as u64 == (request::QBUF >> 16) & 0x3fff);

/// The camera, for frames of 640 by 480 pixels; closed on drop, and with it all that it has imported.
#[derive(Debug)]
pub struct Camera {
    device: File,
    frame: usize,
}

impl Camera {
    /// Loads vivid, opens its camera, and sets the format of frames.
    ///
    /// # Errors
    ///
    /// There is none, or it does not do that.
    pub fn open() -> Result<Self> {
        let loaded = Command::new("modprobe")
            .args(["vivid", "n_devs=1"])
            .output();
        let loaded = loaded.context("cannot run modprobe")?;
        let said = String::from_utf8_lossy(&loaded.stderr);
        ensure!(loaded.status.success(), "modprobe vivid: {}", said.trim());
        let device = find()?;
        let mut format = Format {
            kind: CAPTURE.into(),
            width: 640,
            height: 480,
            pixels: YUYV,
            field: WHOLE_FRAMES,
            line: 0,
            image: 0,
            rest: [0; 44],
        };
        ask(&device, request::S_FMT, &mut format).context("VIDIOC_S_FMT")?;
        let frame = usize::try_from(format.image)?;
        ensure!(frame == 2 * 640 * 480, "frames of {frame} bytes");
        Ok(Self { device, frame })
    }

    /// Bytes of a frame.
    pub const fn frame(&self) -> usize {
        self.frame
    }

    /// `VIDIOC_REQBUFS`, V4L2_MEMORY_DMABUF: a place for so many buffers.
    ///
    /// # Errors
    ///
    /// What the kernel answered.
    pub fn make_room(&self, count: u32) -> Result<()> {
        let mut asked = Request {
            count,
            kind: CAPTURE,
            memory: DMABUF,
            rest: [0; 2],
        };
        ask(&self.device, request::REQBUFS, &mut asked).context("VIDIOC_REQBUFS")?;
        ensure!(asked.count == count, "room for {} buffers", asked.count);
        Ok(())
    }

    /// `VIDIOC_QBUF`: the next frame may go into this DMA buffer, of `len` bytes.
    ///
    /// # Errors
    ///
    /// What the kernel answered.
    pub fn queue(&self, index: u32, buffer: &impl AsFd, len: usize) -> Result<(), Errno> {
        let fd = u32::try_from(buffer.as_fd().as_raw_fd()).map_err(|_| Errno::BADF)?;
        let mut asked = Buffer {
            index,
            kind: CAPTURE,
            memory: DMABUF,
            dmabuf: fd.into(),
            length: u32::try_from(len).map_err(|_| Errno::INVAL)?,
            ..Buffer::default()
        };
        ask(&self.device, request::QBUF, &mut asked)
    }

    /// `VIDIOC_STREAMON`.
    ///
    /// # Errors
    ///
    /// What the kernel answered.
    pub fn start(&self) -> Result<(), Errno> {
        ask(&self.device, request::STREAMON, &mut CAPTURE.clone())
    }

    /// `VIDIOC_STREAMOFF`: it writes no more.
    ///
    /// # Errors
    ///
    /// What the kernel answered.
    pub fn stop(&self) -> Result<(), Errno> {
        ask(&self.device, request::STREAMOFF, &mut CAPTURE.clone())
    }

    /// `VIDIOC_DQBUF`: waits for a frame, and says into which buffer it went.
    ///
    /// # Errors
    ///
    /// What the kernel answered.
    pub fn next_frame(&self) -> Result<u32, Errno> {
        let mut told = Buffer {
            kind: CAPTURE,
            memory: DMABUF,
            ..Buffer::default()
        };
        ask(&self.device, request::DQBUF, &mut told)?;
        Ok(told.index)
    }
}

/// The device file that takes pictures; vivid makes others, too.
fn find() -> Result<File> {
    for number in 0..16 {
        let path = format!("/dev/video{number}");
        let Ok(device) = File::options().read(true).write(true).open(path) else {
            continue;
        };
        let mut told = Capability::default();
        let asked = ask(&device, request::QUERYCAP, &mut told);
        if asked.is_ok() && told.driver.starts_with(b"vivid\0") && told.device & CAPTURE != 0 {
            return Ok(device);
        }
    }
    anyhow::bail!("vivid has made no camera")
}

fn ask<T>(device: &File, request: libc::Ioctl, structure: &mut T) -> Result<(), Errno> {
    // SAFETY: each request reads and writes one structure of the size that its number names (asserted above), and no memory
    // besides; STREAMON and STREAMOFF read one number.
    match unsafe { libc::ioctl(device.as_raw_fd(), request, &raw mut *structure) } {
        answer if answer < 0 => Err(last_errno()),
        _ => Ok(()),
    }
}
