//! A file system of one's own, made for one test and gone with it. Root only.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use rustix::fs::FallocateFlags;

use crate::pattern::Pattern;
use crate::{PAGE, PATIENCE};

/// The file systems that a scratch can be made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FsKind {
    /// tmpfs in small pages.
    Tmpfs,
    /// tmpfs mounted with `huge=always`: pages of 2 MiB where a file has room for them.
    TmpfsHuge,
    /// hugetlbfs in pages of 2 MiB, which nobody can write(2) to.
    Hugetlbfs,
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
    /// Every kind whose files can be written, in the order of the tables.
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
            Self::Hugetlbfs => "hugetlbfs",
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::F2fs => "f2fs",
        }
    }

    /// Whether the pages are the file system's own memory, without blocks behind them: the kernel lets a device pin
    /// these for writing, and refuses that for pages which have to be written back.
    pub const fn is_memory(self) -> bool {
        matches!(self, Self::Tmpfs | Self::TmpfsHuge | Self::Hugetlbfs)
    }

    /// The command that makes it on a block device or image, without its last argument; `None` for memory.
    pub fn maker(self) -> Option<&'static [&'static str]> {
        match self {
            Self::Tmpfs | Self::TmpfsHuge | Self::Hugetlbfs => None,
            Self::Ext4 => Some(&["mkfs.ext4", "-q", "-F", "-E", "nodiscard"]),
            Self::Xfs => Some(&["mkfs.xfs", "-q", "-f", "-K"]),
            Self::Btrfs => Some(&["mkfs.btrfs", "-q", "-f", "-K"]),
            Self::F2fs => Some(&["mkfs.f2fs", "-q", "-f", "-t", "0"]),
        }
    }

    /// What its maker is told besides where every feature that takes pages away is wanted.
    fn features(self) -> &'static [&'static str] {
        match self {
            Self::Ext4 => &["-b", "4096", "-O", "verity,encrypt"],
            Self::F2fs => &["-O", "extra_attr,inode_checksum,compression,verity,encrypt"],
            _ => &[],
        }
    }

    /// The mount options: `full` with those features.
    const fn options(self, full: bool) -> &'static str {
        match self {
            Self::Tmpfs => "mode=755",
            Self::TmpfsHuge => "mode=755,huge=always",
            Self::Hugetlbfs => "mode=755,pagesize=2M",
            Self::F2fs if full => "compress_mode=user",
            _ => "rw",
        }
    }

    /// The smallest device that its maker accepts, with room to work in.
    pub const fn least_size(self) -> u64 {
        match self {
            Self::Tmpfs | Self::TmpfsHuge | Self::Hugetlbfs => 0,
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
    /// Whether it has all features, see [`Scratch::full`].
    full: bool,
    size: u64,
    root: PathBuf,
    dir: PathBuf,
    /// What it is made on, on file systems that have blocks: a file, or a block device; others take it for a name.
    image: PathBuf,
    /// Mount points, in the order in which they were mounted.
    mounted: Vec<PathBuf>,
}

impl Scratch {
    /// Makes and mounts a file system of at least `size` bytes.
    ///
    /// One on a block device lies in a sparse file on a tmpfs of its own, behind a loop device that goes with the mount.
    pub fn new(kind: FsKind, size: u64) -> Result<Self> {
        Self::make(kind, size, false, None)
    }

    /// The same with every feature by which a file can lose its pages, as far as the kernel has it: fs-verity, compression
    /// (when asked), xfs's exchange of ranges.
    pub fn full(kind: FsKind, size: u64) -> Result<Self> {
        Self::make(kind, size, true, None)
    }

    /// The same on this block device, whatever is there.
    pub fn full_on(kind: FsKind, device: &Path) -> Result<Self> {
        Self::make(kind, 0, true, Some(device))
    }

    /// On persistent memory, whatever is there, and mounted with `dax=always`.
    pub fn dax_on(kind: FsKind, device: &Path) -> Result<Self> {
        Self::make(kind, 0, false, Some(device))
    }

    fn make(kind: FsKind, size: u64, full: bool, device: Option<&Path>) -> Result<Self> {
        let root = tempfile::Builder::new()
            .prefix("longpin-test-")
            .permissions(Permissions::from_mode(0o755))
            .tempdir_in("/run")
            .context("cannot make a directory under /run")?
            .keep();
        let mut scratch = Self {
            kind,
            full,
            size: size.max(kind.least_size()),
            dir: root.join("mnt"),
            image: device.map_or_else(|| root.join("store/image"), Path::to_owned),
            root,
            mounted: Vec::new(),
        };
        scratch
            .fill()
            .with_context(|| format!("cannot make {kind} to test on"))?;
        Ok(scratch)
    }

    fn fill(&mut self) -> Result<()> {
        fs::create_dir(&self.dir)?;
        let Some(maker) = self.kind.maker() else {
            self.mount()?;
            self.mounted.push(self.dir.clone());
            return Ok(());
        };
        let store = self.root.join("store");
        fs::create_dir(&store)?;
        // Room for a second device of the same size.
        let options = format!("size={},mode=755", 2 * self.size + (16 << 20));
        mount("tmpfs", &options, Path::new("longpin-test"), &store)?;
        self.mounted.push(store);
        if self.is_loop() {
            File::create(&self.image)?.set_len(self.size)?;
        }
        load_module("loop");
        load_module(self.kind.name());
        let features: &[&str] = match self.kind {
            kind if self.full => kind.features(),
            // Of a small device it would make blocks of 1 KiB, for which there is no DAX.
            FsKind::Ext4 if !self.is_loop() => &["-b", "4096", "-O", "encrypt"],
            _ => &[],
        };
        run(Command::new(maker[0])
            .args(&maker[1..])
            .args(features)
            .arg(&self.image))?;
        self.mount_first()?;
        self.mounted.push(self.dir.clone());
        Ok(())
    }

    /// With the features for which only the kernel can be asked, else without.
    fn mount_first(&self) -> Result<()> {
        if self.full && self.kind == FsKind::Xfs {
            let had = exchange_range(&self.image, true)?;
            if self.mount().is_ok() {
                return Ok(());
            }
            exchange_range(&self.image, had)?;
        }
        self.mount()
    }

    fn mount(&self) -> Result<()> {
        let own = self.kind.options(self.full);
        let (kind, options) = match self.kind {
            FsKind::Tmpfs | FsKind::TmpfsHuge => ("tmpfs", format!("size={},{own}", self.size)),
            FsKind::Hugetlbfs => (self.kind.name(), own.to_owned()),
            other if self.is_loop() => (other.name(), format!("loop,{own}")),
            // A block device that is not full is persistent memory.
            other if !self.full => (other.name(), format!("dax=always,{own}")),
            other => (other.name(), own.to_owned()),
        };
        mount(kind, &options, &self.image, &self.dir)
    }

    /// Whether a loop device stands between it and its image.
    fn is_loop(&self) -> bool {
        self.image.starts_with(&self.root)
    }

    /// What it is made on, on file systems that have blocks: a file, or a block device; others take it for a name.
    pub fn image(&self) -> &Path {
        &self.image
    }

    /// A directory of its own, beside the mount point, with room for a second device on file systems that have blocks.
    pub fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    /// Mounts it again, if it is not mounted: on block devices the same file system, elsewhere an empty one.
    pub fn mount_again(&self) -> Result<()> {
        let device = |path: &Path| fs::metadata(path).map(|data| data.dev());
        if device(&self.dir)? != device(&self.root)? {
            return Ok(());
        }
        if self.kind.maker().is_some() {
            wait_for_release(&self.image)?;
        }
        self.mount()
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

    /// Unmounts it, has its checker look at it, and removes it: what the checker said, if it found something wrong.
    pub fn check(mut self) -> Result<Option<String>> {
        unmount(&self.dir)?;
        self.mounted.pop();
        wait_for_release(&self.image)?;
        if self.full && self.kind == FsKind::Xfs {
            // The checker may be older than the feature, of which a log that is empty keeps nothing.
            exchange_range(&self.image, false)?;
        }
        let damage = check_image(self.kind, &self.image)?;
        self.dismantle()?;
        Ok(damage)
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

/// A file of so many extents: every other page has a block, in which nothing was written.
pub fn write_striped(path: &Path, extents: u64) -> Result<()> {
    let file = File::create_new(path)?;
    for extent in 0..extents {
        let at = extent * 2 * PAGE as u64;
        rustix::fs::fallocate(&file, FallocateFlags::empty(), at, PAGE as u64)
            .with_context(|| format!("extent {extent} of {}", path.display()))?;
    }
    Ok(file.sync_all()?)
}

/// Unmounts, and waits for whoever is just letting go; what is still busy then is detached lazily, and is an error.
pub fn unmount(point: &Path) -> Result<()> {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE / 3 {
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

fn mount(kind: &str, options: &str, what: &Path, at: &Path) -> Result<()> {
    let mut mount = Command::new("mount");
    run(mount.args(["-t", kind, "-o", options]).arg(what).arg(at)).map(drop)
}

/// Waits until no loop device uses the image: the kernel ends a mount some time after the call that asked for it.
fn wait_for_release(image: &Path) -> Result<()> {
    let in_use = || -> Result<bool> {
        for device in fs::read_dir("/sys/block")? {
            let backing = device?.path().join("loop/backing_file");
            let backing = fs::read_to_string(backing).unwrap_or_default();
            if Path::new(backing.trim_end()) == image {
                return Ok(true);
            }
        }
        Ok(false)
    };
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        if !in_use()? {
            return Ok(());
        }
        sleep(Duration::from_millis(20));
    }
    bail!("{} is still mounted somewhere", image.display())
}

/// Has its checker look at a file system that is not mounted: what it said, if it found something wrong, or a journal that
/// was left.
pub fn check_image(kind: FsKind, image: &Path) -> Result<Option<String>> {
    let command: &[&str] = match kind {
        FsKind::Ext4 => &["e2fsck", "-f", "-n"],
        FsKind::Xfs => &["xfs_repair", "-n"],
        FsKind::Btrfs => &["btrfs", "check", "--readonly"],
        FsKind::F2fs => &["fsck.f2fs", "-f", "--dry-run"],
        other => bail!("no checker for {other}"),
    };
    let mut checker = Command::new(command[0]);
    let output = checker.args(&command[1..]).arg(image).output();
    let output = output.with_context(|| format!("cannot run {}", command[0]))?;
    let words = [output.stdout, output.stderr].concat();
    let words = String::from_utf8_lossy(&words).into_owned();
    // They pass over a journal, and say so.
    let told = ["recover", "ALERT", "[Fail]"];
    let clean = output.status.success() && !told.iter().any(|word| words.contains(word));
    Ok((!clean).then_some(words))
}

/// Sets or clears `XFS_SB_FEAT_INCOMPAT_EXCHRANGE` in the image of an xfs, which `mkfs.xfs` before 6.10 does not know: whether
/// it was set.
fn exchange_range(image: &Path, on: bool) -> Result<bool> {
    const EXCHRANGE: u32 = 1 << 6;
    let mut read = Command::new("xfs_db");
    read.args(["-r", "-c", "sb 0", "-c", "print features_incompat"]);
    let printed = run(read.arg(image))?;
    let number = printed.trim().rsplit("0x").next().unwrap_or_default();
    let bits = u32::from_str_radix(number, 16)
        .with_context(|| format!("xfs_db printed {:?}", printed.trim()))?;
    let wanted = if on {
        bits | EXCHRANGE
    } else {
        bits & !EXCHRANGE
    };
    let mut write = Command::new("xfs_db");
    write.args(["-x", "-c", "sb 0", "-c"]);
    write.arg(format!("write -d features_incompat {wanted}"));
    run(write.arg(image))?;
    Ok(bits & EXCHRANGE != 0)
}

/// Loads a module. A file system that is built in has none, so a failure says nothing: the mount will.
pub fn load_module(name: &str) {
    let mut modprobe = Command::new("modprobe");
    let _ = modprobe
        .args(["--quiet", name])
        .stderr(Stdio::null())
        .status();
}

/// Runs a command: what it printed. Its failure is an error with its words.
fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        bail!("{program} failed ({}): {}", output.status, words.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
