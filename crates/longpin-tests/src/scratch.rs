//! A file system of one's own, made for one test and gone with it. Root only.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::pattern::Pattern;

/// The file systems that a scratch can be made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FsKind {
    /// tmpfs in small pages.
    Tmpfs,
    /// tmpfs mounted with `huge=always`: pages of 2 MiB where a file has room for them.
    TmpfsHuge,
    /// ext4 on a loop device.
    Ext4,
    /// xfs on a loop device.
    Xfs,
    /// btrfs on a loop device.
    Btrfs,
    /// f2fs on a loop device.
    F2fs,
}

impl FsKind {
    /// Every kind, in the order of the tables.
    pub const ALL: [Self; 6] = [
        Self::Tmpfs,
        Self::TmpfsHuge,
        Self::Ext4,
        Self::Xfs,
        Self::Btrfs,
        Self::F2fs,
    ];

    /// The name for people: the kernel's, with the option that makes the difference.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tmpfs => "tmpfs",
            Self::TmpfsHuge => "tmpfs huge=always",
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::F2fs => "f2fs",
        }
    }

    /// Whether the pages are the file system's own memory, without blocks behind them: the kernel lets a device pin
    /// these for writing, and refuses that for pages which have to be written back.
    pub const fn is_memory(self) -> bool {
        matches!(self, Self::Tmpfs | Self::TmpfsHuge)
    }

    /// The command that makes it on a block device or image, without its last argument.
    fn maker(self) -> Option<&'static [&'static str]> {
        match self {
            Self::Tmpfs | Self::TmpfsHuge => None,
            Self::Ext4 => Some(&["mkfs.ext4", "-q", "-F", "-E", "nodiscard"]),
            Self::Xfs => Some(&["mkfs.xfs", "-q", "-f", "-K"]),
            Self::Btrfs => Some(&["mkfs.btrfs", "-q", "-f", "-K"]),
            Self::F2fs => Some(&["mkfs.f2fs", "-q", "-f", "-t", "0"]),
        }
    }

    /// The smallest device that its maker accepts, with room to work in.
    const fn least_size(self) -> u64 {
        match self {
            Self::Tmpfs | Self::TmpfsHuge => 0,
            Self::Ext4 => 64 << 20,
            Self::Xfs => 320 << 20,
            Self::Btrfs => 256 << 20,
            Self::F2fs => 128 << 20,
        }
    }
}

impl fmt::Display for FsKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A mounted file system under `/run/longpin-test-XXXXXX`, unmounted and removed with this value.
#[derive(Debug)]
pub struct Scratch {
    kind: FsKind,
    root: PathBuf,
    dir: PathBuf,
    /// Mount points, in the order in which they were mounted.
    mounted: Vec<PathBuf>,
}

impl Scratch {
    /// Makes and mounts a file system of at least `size` bytes.
    ///
    /// One on a block device lies in a sparse file on a tmpfs of its own, behind a loop device that goes with the mount.
    pub fn new(kind: FsKind, size: u64) -> Result<Self> {
        let root = tempfile::Builder::new()
            .prefix("longpin-test-")
            .permissions(Permissions::from_mode(0o755))
            .tempdir_in("/run")
            .context("cannot make a directory under /run")?
            .keep();
        let mut scratch = Self {
            kind,
            dir: root.join("mnt"),
            root,
            mounted: Vec::new(),
        };
        scratch
            .fill(size.max(kind.least_size()))
            .with_context(|| format!("cannot make {kind} to test on"))?;
        Ok(scratch)
    }

    fn fill(&mut self, size: u64) -> Result<()> {
        fs::create_dir(&self.dir)?;
        let Some(maker) = self.kind.maker() else {
            let huge = if self.kind == FsKind::TmpfsHuge {
                ",huge=always"
            } else {
                ""
            };
            return self.mount_tmpfs(self.dir.clone(), &format!("size={size},mode=755{huge}"));
        };
        let store = self.root.join("store");
        fs::create_dir(&store)?;
        self.mount_tmpfs(store.clone(), &format!("size={}", size + (16 << 20)))?;
        let image = store.join("image");
        File::create(&image)?.set_len(size)?;
        load_module("loop");
        load_module(self.kind.name());
        run(Command::new(maker[0]).args(&maker[1..]).arg(&image))?;
        let mut mount = Command::new("mount");
        mount
            .args(["-t", self.kind.name(), "-o", "loop"])
            .args([&image, &self.dir]);
        run(&mut mount)?;
        self.mounted.push(self.dir.clone());
        Ok(())
    }

    fn mount_tmpfs(&mut self, at: PathBuf, options: &str) -> Result<()> {
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", options, "longpin-test"])
            .arg(&at);
        run(&mut mount)?;
        self.mounted.push(at);
        Ok(())
    }

    /// What it is made of.
    pub const fn kind(&self) -> FsKind {
        self.kind
    }

    /// The directory where it is mounted.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes a file of `len` bytes of this pattern, and sees to it that its blocks exist (`fsync`).
    pub fn file(&self, name: impl AsRef<OsStr>, len: usize, pattern: Pattern) -> Result<PathBuf> {
        let path = self.dir.join(name.as_ref());
        write_pattern(&path, len, pattern)?;
        Ok(path)
    }

    /// Unmounts and removes everything; says what did not go.
    pub fn close(mut self) -> Result<()> {
        self.dismantle()
    }

    fn dismantle(&mut self) -> Result<()> {
        while let Some(point) = self.mounted.pop() {
            unmount(&point)?;
        }
        for dir in [&self.dir, &self.root.join("store"), &self.root] {
            match fs::remove_dir(dir) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove {}", dir.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Drop for Scratch {
    /// The emergency path: a test that cares calls [`Scratch::close`].
    fn drop(&mut self) {
        if let Err(error) = self.dismantle() {
            // The standard error may be closed, and a destructor has nobody else to tell.
            let _ = writeln!(std::io::stderr(), "scratch {}: {error:#}", self.kind);
        }
    }
}

/// Overwrites the first `len` bytes of a file with a pattern, growing it if need be, never shrinking it; then `fsync`.
pub fn write_pattern(path: &Path, len: usize, pattern: Pattern) -> Result<()> {
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        file.write_all(&pattern.bytes(len))?;
        file.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Unmounts, and waits a little for whoever is just letting go; what is still busy then is detached lazily, and is an error.
fn unmount(point: &Path) -> Result<()> {
    for _ in 0..20 {
        let quiet = Command::new("umount")
            .arg(point)
            .stderr(Stdio::null())
            .status()?;
        if quiet.success() {
            return Ok(());
        }
        sleep(Duration::from_millis(100));
    }
    run(Command::new("umount").arg("--lazy").arg(point))?;
    bail!("{} stayed busy: detached lazily", point.display())
}

/// A file system that is built in has no module, so a failure says nothing: the mount will.
fn load_module(name: &str) {
    let mut modprobe = Command::new("modprobe");
    let _ = modprobe
        .args(["--quiet", name])
        .stderr(Stdio::null())
        .status();
}

/// Runs a command; its failure is an error with its words.
fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        bail!("{program} failed ({}): {}", output.status, words.trim());
    }
    Ok(())
}
