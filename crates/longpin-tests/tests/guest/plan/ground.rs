//! What the tests of the plan stand on: huge pages, a DAX file system, a count of what could be left behind.

use std::fs::File;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Runs with huge pages, and gives them back.
pub(crate) fn with_huge_pages<T>(test: impl FnOnce() -> Result<T>) -> Result<T> {
    let pages = "/proc/sys/vm/nr_hugepages";
    std::fs::write("/proc/sys/vm/compact_memory", "1")?;
    std::fs::write(pages, "16")?;
    let tested = test();
    std::fs::write(pages, "0")?;
    tested
}

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
    /// `None` in a guest without such memory.
    pub(crate) fn make(maker: &str) -> Result<Option<Self>> {
        let Ok(device) = std::env::var("LONGPIN_FSDAX") else {
            return Ok(None);
        };
        let point = PathBuf::from("/run/longpin-plan-dax");
        std::fs::create_dir_all(&point)?;
        let at = point.display();
        sh(&format!(
            "{maker} {device} && mount -o dax=always {device} {at}"
        ))?;
        Ok(Some(Self(point)))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for DaxMount {
    fn drop(&mut self) {
        // The guest ends with it; a test that cares sees the next mount fail.
        let _ = sh(&format!("umount {}", self.0.display()));
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

/// What a failed registration could leave behind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Left {
    mappings: usize,
    descriptors: usize,
    pinned: u64,
}

impl Left {
    pub(crate) fn count() -> Result<Self> {
        let maps = std::fs::read_to_string("/proc/self/maps")?;
        let ours = ["/mnt/file-", "memfd:", "longpin-plan"];
        let is_ours = |line: &&str| ours.iter().any(|name| line.contains(name));
        Ok(Self {
            mappings: maps.lines().filter(is_ours).count(),
            descriptors: std::fs::read_dir("/proc/self/fd")?.count(),
            pinned: longpin_linux::memory::pinned_bytes()?,
        })
    }

    /// The same as now.
    pub(crate) fn must_be_all(&self) -> Result<()> {
        let now = Self::count().context("counting")?;
        ensure!(*self == now, "left behind: {self:?} became {now:?}");
        Ok(())
    }
}
