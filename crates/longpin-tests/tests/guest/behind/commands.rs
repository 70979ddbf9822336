//! Commands by ioctl that name another file, or reach one.
#![allow(unsafe_code, reason = "ioctl(2) of a loop device")]

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use longpin_tests::act::Outcome;
use longpin_tests::mapping::Mapping;
use longpin_tests::scratch::FsKind;

use super::{LEN, Overlay, io};
use crate::blocks::sh;
use crate::files::TestFile;
use crate::guard;
use crate::hold::Holder;
use crate::pin::{must_allow, must_refuse, pin};

/// `chattr FLAGS FILE`: whether it went through.
fn chattr(flags: &str, path: &Path) -> Result<bool> {
    let script = format!("chattr {flags} $F 2>&1 && echo done || true");
    let words = sh(&script, path)?;
    ensure!(
        words.ends_with("done\n") || words.contains("Text file busy"),
        "chattr {flags}: {words}"
    );
    Ok(words.ends_with("done\n"))
}

/// C05, C14: flags by way of the overlay are judged as they are without it.
pub(super) fn commands() -> Result<()> {
    guard::fresh()?;
    let mut file = TestFile::new(FsKind::Ext4, LEN)?;
    let overlay = Overlay::over(&mut file, "upper")?;
    let pinned = pin(&file, 0, 65_536)?;
    for path in [&file.path, &overlay.merged] {
        for flags in ["+A", "-A", "+d", "-d"] {
            ensure!(chattr(flags, path)?, "{}: {flags}", path.display());
        }
        ensure!(!chattr("+j", path)?, "{}: +j", path.display());
    }
    drop(pinned);
    let held = Holder::start(&[], &file.path)?;
    for path in [&file.path, &overlay.merged] {
        ensure!(
            chattr("+A", path)? && chattr("-A", path)?,
            "{}",
            path.display()
        );
        ensure!(!chattr("+j", path)?, "{}: +j", path.display());
    }
    ensure!(held.end()? == 7);
    file.check_all()?;
    commands_on_lower()
}

/// What overlayfs does to its copy of a lower file is none of that file's business.
fn commands_on_lower() -> Result<()> {
    let mut file = TestFile::new(FsKind::Ext4, LEN)?;
    let overlay = Overlay::over(&mut file, "lower")?;
    let held = Holder::start(&[], &file.path)?;
    for flags in ["+A", "+d"] {
        ensure!(chattr(flags, &overlay.merged)?, "a lower file: {flags}");
    }
    must_allow("unlink", io(fs::remove_file(&overlay.merged)))?;
    ensure!(held.end()? == 7);
    file.check_all()
}

const LOOP_CONFIGURE: libc::c_ulong = 0x4c0a;
const LOOP_CLR_FD: libc::c_ulong = 0x4c01;

/// LOOP_CONFIGURE whose structure lies on a page that nobody has looked at yet.
fn configure(device: &File, file: &File, config: &Path) -> Result<Outcome> {
    let mut bytes = vec![0; 4096];
    bytes[..4].copy_from_slice(&file.as_raw_fd().to_ne_bytes());
    fs::write(config, &bytes)?;
    let mapping = Mapping::shared(&File::open(config)?, 0, 4096, false)?;
    // SAFETY: the kernel reads one `struct loop_config`, which is shorter than the mapping.
    let answer = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, mapping.addr()) };
    if answer == 0 {
        // SAFETY: the command takes no argument.
        unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CLR_FD, 0) };
        return Ok(Ok(()));
    }
    Ok(io(Err(std::io::Error::last_os_error())))
}

/// What nobody can read may name a held file when the driver reads it: refused, and counted as any refusal.
fn unreadable(device: &File) -> Result<()> {
    let refused = || -> Result<u64> { guard::status()?["refused"].as_u64().context("no count") };
    let before = refused()?;
    // SAFETY: the kernel reads nothing there: the page is nobody's.
    let answer = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, 8) };
    ensure!(answer == -1, "configured by nothing");
    let answer = io(Err(std::io::Error::last_os_error()));
    must_refuse("an address that cannot be read", answer)?;
    let more = refused()? - before;
    ensure!(more == 1, "counted {more} times");
    Ok(())
}

/// C14, C06: while any file is held, other files get a loop device however they are named to the driver.
pub(super) fn loop_device_unread() -> Result<()> {
    guard::on()?;
    let file = TestFile::new(FsKind::Ext4, LEN)?;
    let other = TestFile::new(FsKind::Ext4, LEN)?;
    let held = Holder::start(&[], &file.path)?;
    let free = sh("losetup -f", &file.path)?;
    let device = File::options().read(true).write(true).open(free.trim())?;
    let config = other.path.with_extension("config");
    let tried = (|| {
        must_allow("another file", configure(&device, &other.file, &config)?)?;
        must_refuse("the held file", configure(&device, &file.file, &config)?)?;
        unreadable(&device)
    })();
    fs::remove_file(&config)?;
    ensure!(held.end()? == 7);
    tried
}
