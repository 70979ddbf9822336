//! `/dev/longpin-lend`: pages of a held DAX file, lent to devices that cannot take page faults (kmod/longpin_lend.h).
//!
//! The requests as they are, so that tests can ask for what no library would.
#![allow(
    unsafe_code,
    reason = "ioctl(2) of the module, the descriptors that it returns, and what else is tried on its mappings"
)]

pub mod abi;
pub mod flag;
pub mod tricks;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::io::Errno;

use crate::PATIENCE;
use crate::act::last_errno;
use crate::mapping::Mapping;
use abi::{Info, Row, request};

/// The module's device.
pub const DEVICE: &str = "/dev/longpin-lend";

/// Loads the module that was built for this kernel, with all of its doors, unless it is there.
///
/// # Errors
///
/// There is none, or the kernel does not take it.
pub fn load() -> Result<()> {
    load_with(&["door3=1"])
}

/// The same with other parameters.
///
/// # Errors
///
/// As [`load`].
pub fn load_with(parameters: &[&str]) -> Result<()> {
    if Path::new(DEVICE).exists() {
        return Ok(());
    }
    let module = std::env::var("LONGPIN_KMOD")
        .context("LONGPIN_KMOD names no module: `cargo xtask kmod` builds it")?;
    insmod(&[&["insmod", &*module], parameters].concat())
}

/// Takes it out: whether it went. It does not while anything is lent.
///
/// # Errors
///
/// rmmod cannot be run.
pub fn unload() -> Result<bool> {
    let output = Command::new("rmmod").arg("longpin_lend").output();
    Ok(output.context("cannot run rmmod")?.status.success())
}

/// Does this, after which nothing is lent any more, and takes the module out as soon as it goes: whether it went.
///
/// # Errors
///
/// As [`unload`].
pub fn unload_soon(end: impl FnOnce()) -> Result<bool> {
    end();
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        if unload()? {
            return Ok(true);
        }
        sleep(Duration::from_millis(50));
    }
    Ok(false)
}

fn insmod(words: &[&str]) -> Result<()> {
    let output = Command::new(words[0]).args(&words[1..]).output();
    let output = output.context("cannot run insmod")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {}", words.join(" "), said.trim());
    }
    Ok(())
}

/// What to lend, how, and until when.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// The file, open for reading and writing.
    pub file: BorrowedFd<'a>,
    /// The token of its hold.
    pub token: BorrowedFd<'a>,
    /// Where, in bytes.
    pub offset: u64,
    /// How much, in bytes.
    pub len: usize,
    /// `LONGPIN_LEND_*`.
    pub flags: u32,
    /// VFIO groups.
    pub groups: &'a [BorrowedFd<'a>],
}

/// A lend's dma-buf.
#[derive(Debug)]
#[must_use = "dropping it closes the dma-buf"]
pub struct Lend {
    buffer: OwnedFd,
    len: usize,
}

impl Lend {
    /// `ioctl(LONGPIN_IOC_LEND)`.
    ///
    /// # Errors
    ///
    /// What the module answered.
    pub fn ask(wish: &Wish<'_>) -> Result<Self, Errno> {
        let groups: Vec<i32> = wish.groups.iter().map(AsRawFd::as_raw_fd).collect();
        let asked = abi::Lend {
            size: abi::size_of_u32::<abi::Lend>(),
            flags: wish.flags,
            file: wish.file.as_raw_fd(),
            token: wish.token.as_raw_fd(),
            offset: wish.offset,
            length: wish.len as u64,
            groups: groups.as_ptr() as u64,
            group_count: u32::try_from(groups.len()).map_err(|_| Errno::INVAL)?,
            zero: 0,
        };
        // SAFETY: the module reads one `longpin_lend` and the groups that it points to; both live across the call.
        let answer = unsafe { libc::ioctl(device()?.as_raw_fd(), request::LEND, &raw const asked) };
        Ok(Self {
            buffer: owned(answer)?,
            len: wish.len,
        })
    }

    /// `ioctl(LONGPIN_IOC_UNTIL)`: and until this group is closed.
    ///
    /// # Errors
    ///
    /// What the module answered.
    pub fn until(&self, group: &impl AsFd) -> Result<(), Errno> {
        let asked = abi::Until {
            size: abi::size_of_u32::<abi::Until>(),
            dmabuf: self.buffer.as_raw_fd(),
            group: group.as_fd().as_raw_fd(),
            zero: 0,
        };
        // SAFETY: the module reads one `longpin_lend_until`, which lives across the call.
        let answer =
            unsafe { libc::ioctl(device()?.as_raw_fd(), request::UNTIL, &raw const asked) };
        checked(answer).map(drop)
    }

    /// `ioctl(LONGPIN_IOC_REVOKE)`.
    ///
    /// # Errors
    ///
    /// What the module answered.
    pub fn revoke(&self) -> Result<(), Errno> {
        let asked = abi::Revoke {
            size: abi::size_of_u32::<abi::Revoke>(),
            dmabuf: self.buffer.as_raw_fd(),
        };
        // SAFETY: the module reads one `longpin_lend_revoke`, which lives across the call.
        let answer =
            unsafe { libc::ioctl(device()?.as_raw_fd(), request::REVOKE, &raw const asked) };
        checked(answer).map(drop)
    }

    /// `mmap(MAP_SHARED)` of the whole dma-buf: door 2.
    ///
    /// # Errors
    ///
    /// What the kernel answered.
    pub fn map(&self, writable: bool) -> Result<Mapping, Errno> {
        Mapping::shared(&self.buffer, 0, self.len, writable)
    }
}

impl AsFd for Lend {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.buffer.as_fd()
    }
}

/// `ioctl(LONGPIN_IOC_LIST)`: all lends and flags, few at a time, as many calls as it takes.
///
/// # Errors
///
/// What the module answered.
pub fn list() -> Result<Vec<Row>, Errno> {
    const ROOM: usize = 16;
    let mut all: Vec<Row> = Vec::new();
    loop {
        let mut rows = vec![Row::default(); ROOM];
        let asked = abi::List {
            size: abi::size_of_u32::<abi::List>(),
            row_size: abi::size_of_u32::<Row>(),
            after: all.last().map_or(0, |row| row.id),
            rows: rows.as_mut_ptr() as u64,
            room: 16,
            zero: 0,
        };
        // SAFETY: the module reads one `longpin_lend_list` and writes at most `room` rows; both live across the call.
        let answer = unsafe { libc::ioctl(device()?.as_raw_fd(), request::LIST, &raw const asked) };
        let count = usize::try_from(checked(answer)?).map_err(|_| Errno::IO)?;
        all.extend(rows.into_iter().take(count));
        if count < ROOM {
            return Ok(all);
        }
    }
}

/// `ioctl(LONGPIN_IOC_INFO)`: what the module can on this kernel.
///
/// # Errors
///
/// What the module answered.
pub fn info() -> Result<Info, Errno> {
    let mut info = Info {
        size: abi::size_of_u32::<Info>(),
        ..Info::default()
    };
    // SAFETY: the module writes one `longpin_lend_info`, which lives across the call.
    let answer = unsafe { libc::ioctl(device()?.as_raw_fd(), request::INFO, &raw mut info) };
    checked(answer).map(|_| info)
}

fn device() -> Result<File, Errno> {
    let opened = File::options().read(true).write(true).open(DEVICE);
    opened.map_err(|err: io::Error| Errno::from_io_error(&err).unwrap_or(Errno::IO))
}

fn checked(answer: libc::c_int) -> Result<libc::c_int, Errno> {
    if answer < 0 {
        return Err(last_errno());
    }
    Ok(answer)
}

fn owned(answer: libc::c_int) -> Result<OwnedFd, Errno> {
    let fd = checked(answer)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
