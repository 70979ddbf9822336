//! Drivers that work on the file behind their device's back: loop.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::io::Errno;

use super::requests::{
    DISCARD, LOOP_CLEAR_FD, LOOP_CONFIGURE, LOOP_GET_FREE, LoopConfig, Request, ZERO_OUT,
};
use super::{Home, Operation, Victim};
use crate::act::Outcome;

/// `LO_FLAGS_DIRECT_IO`.
const DIRECT_IO: u32 = 16;

pub(super) const OPERATIONS: &[Operation] = &[
    Operation::new("discard on a loop device over it", "C02", Home::ALL, |v| {
        punch(v, &DISCARD)
    }),
    Operation::new("zero out on a loop device over it", "C02", Home::ALL, |v| {
        punch(v, &ZERO_OUT)
    }),
    Operation::new("write to a loop device over it", "C06", Home::ALL, |v| {
        write(v, false)
    }),
    Operation::new(
        "write to a direct loop device over it",
        "C06",
        Home::ALL,
        |v| write(v, true),
    ),
];

/// A loop device over a file; detached on drop, or when its last user lets go.
#[derive(Debug)]
pub(super) struct LoopDevice {
    path: PathBuf,
    device: File,
}

impl LoopDevice {
    /// `direct`: past the page cache of the file, where its file system can. Or why the kernel does not attach one.
    pub(super) fn over(file: &File, direct: bool) -> Result<Result<Self, Errno>> {
        let control = File::open("/dev/loop-control").context("no loop devices")?;
        let mut config = LoopConfig {
            fd: file.as_raw_fd(),
            block_size: 0,
            before: [0; 13],
            flags: if direct { DIRECT_IO } else { 0 },
            rest: [0; 30],
        };
        // Between the two calls somebody else may take the device.
        for _ in 0..20 {
            let number = LOOP_GET_FREE.ask(&control, 0)?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = File::options().read(true).write(true).open(&path)?;
            match LOOP_CONFIGURE.ask(&device, &mut config) {
                Err(Errno::BUSY) => {}
                Err(errno) => return Ok(Err(errno)),
                Ok(()) => return Ok(Ok(Self { path, device })),
            }
        }
        bail!("no loop device stays free")
    }

    /// `/dev/loopN`.
    pub(super) fn name(&self) -> Result<&str> {
        self.path.to_str().context("a strange name")
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        // A device that is in use goes when its last user does.
        let _ = LOOP_CLEAR_FD.ask(&self.device, 0);
    }
}

/// The loop device over this file.
pub(super) fn backed_by(image: &Path) -> Result<String> {
    for entry in fs::read_dir("/sys/block")? {
        let entry = entry?;
        let backing = fs::read_to_string(entry.path().join("loop/backing_file"));
        if Path::new(backing.unwrap_or_default().trim_end()) == image {
            return Ok(format!("/dev/{}", entry.file_name().to_string_lossy()));
        }
    }
    bail!("no loop device over {}", image.display())
}

fn punch(victim: &Victim<'_>, request: &Request<[u64; 2]>) -> Result<Outcome> {
    let device = match LoopDevice::over(victim.file()?, false)? {
        Ok(device) => device,
        Err(errno) => return Ok(Err(errno)),
    };
    let mut range = [victim.pinned.start, victim.pinned_len()];
    Ok(request.ask(&device.device, &mut range))
}

/// Buffered in the page cache of the device, and from there by the driver.
fn write(victim: &Victim<'_>, direct: bool) -> Result<Outcome> {
    let device = match LoopDevice::over(victim.file()?, direct)? {
        Ok(device) => device,
        Err(errno) => return Ok(Err(errno)),
    };
    let bytes = vec![b'l'; usize::try_from(victim.pinned_len())?];
    let written = device.device.write_all_at(&bytes, victim.pinned.start);
    let written = written.and_then(|()| device.device.sync_all());
    Ok(written.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO)))
}
