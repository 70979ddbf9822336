//! Loop devices: which of them may write to a file.
#![allow(unsafe_code, reason = "LOOP_GET_STATUS64 takes raw memory")]

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use rustix::io::Errno;

const LOOP_GET_STATUS64: libc::c_ulong = 0x4c05;
const LO_FLAGS_READ_ONLY: u32 = 1;

/// `struct loop_info64` of linux/loop.h.
#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    names: [u8; 160],
    init: [u64; 2],
}

const _: () = assert!(size_of::<Info>() == 232);

/// Loop devices over the file that are not read-only. `device` and `ino` are those of `stat(2)`.
///
/// # Errors
///
/// `/sys/block` cannot be read; a device that is in use cannot be asked.
pub fn find_writable(device: u64, ino: u64) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/block")? {
        let entry = entry?;
        // Only while it has a file.
        if !entry.path().join("loop/backing_file").try_exists()? {
            continue;
        }
        let path = PathBuf::from("/dev").join(entry.file_name());
        let Some(info) = ask(&File::open(&path)?)? else {
            continue;
        };
        let writable = info.flags & LO_FLAGS_READ_ONLY == 0;
        if writable && (info.device, info.inode) == (device, ino) {
            found.push(path);
        }
    }
    Ok(found)
}

/// `None`: it has no file any more.
fn ask(device: &File) -> io::Result<Option<Info>> {
    let mut info = Info {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: 0,
        names: [0; 160],
        init: [0; 2],
    };
    let pointer = std::ptr::from_mut(&mut info);
    // SAFETY: the kernel writes one `struct loop_info64`.
    let answer = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64, pointer) };
    if answer == 0 {
        return Ok(Some(info));
    }
    let err = io::Error::last_os_error();
    match Errno::from_io_error(&err) {
        Some(Errno::NXIO) => Ok(None),
        _ => Err(err),
    }
}
