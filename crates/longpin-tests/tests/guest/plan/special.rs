//! Memory that is not everywhere: DAX files, and secret ones.

use std::fs::File;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use longpin_tests::scratch::unmount;

use crate::report;

/// A shell line that must succeed.
pub(crate) fn sh(line: &str) -> Result<String> {
    let output = Command::new("sh").args(["-c", line]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{line}: {}: {said}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A file system on persistent memory, mounted with `dax=always`; unmounted on drop.
pub(crate) struct DaxMount(PathBuf);

impl DaxMount {
    pub(crate) fn make(maker: &str) -> Result<Self> {
        let device = std::env::var("LONGPIN_FSDAX").context("no fsdax device")?;
        let point = PathBuf::from("/run/longpin-plan-dax");
        std::fs::create_dir_all(&point)?;
        let at = point.display();
        sh(&format!(
            "{maker} {device} && mount -o dax=always {device} {at}"
        ))?;
        Ok(Self(point))
    }

    /// Unmounted and mounted again.
    pub(crate) fn remount(&self) -> Result<()> {
        unmount(&self.0)?;
        self.mount_again()
    }

    /// After an unmount.
    pub(crate) fn mount_again(&self) -> Result<()> {
        let (at, device) = (self.0.display(), std::env::var("LONGPIN_FSDAX")?);
        sh(&format!("mount -o dax=always {device} {at}")).map(drop)
    }

    /// The file system stops at once, and writes nothing of its journal any more: what a crash leaves.
    pub(crate) fn crash(&self) -> Result<()> {
        sh(&format!("xfs_io -x -c shutdown {}", self.0.display())).map(drop)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for DaxMount {
    fn drop(&mut self) {
        // The kernel lets go of files some time after their last close; what stays busy is this test's fault, not the next one's.
        if let Err(error) = unmount(&self.0) {
            report::leaves(format!("{error:#}"));
        }
    }
}

/// `memfd_secret(2)`; `None` where the kernel has it switched off.
#[expect(unsafe_code, reason = "a system call that no crate has")]
pub(crate) fn secret(len: u64) -> Result<Option<File>> {
    // SAFETY: a number and flags.
    let made = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    let Some(fd) = i32::try_from(made).ok().filter(|fd| *fd >= 0) else {
        return Ok(None);
    };
    // SAFETY: the descriptor is new, and ours.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    file.set_len(len)?;
    Ok(Some(file))
}
