//! The file that operations are tried on: an ordinary one, an active swap file, or one that is held.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use longpin_linux::fiemap::{ExtentFlags, Fiemap, RawExtent};
use longpin_linux::swap::{swap_off, swap_on};
use longpin_tests::act::{ftruncate, truncate};
use longpin_tests::lend::flag::Flag;
use longpin_tests::operations::{Ground, Victim};
use rustix::fs::Advice;
use serde_json::Value;

use crate::blocks;
use crate::pin::{Pinned, must_allow_soon, register_file};

/// A column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ordinary,
    Swap,
    /// By `longpin hold`.
    Held,
    /// By a pin, under a guard of level swapfile.
    Pinned,
    /// By `S_SWAPFILE` alone, which the kernel module has set.
    Flagged,
    /// By `longpin hold`, whose command has lent its pages.
    Lent,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ordinary => "ordinary file",
            Self::Swap => "active swap file",
            Self::Held => "held file",
            Self::Pinned => "pinned file",
            Self::Flagged => "flagged file",
            Self::Lent => "lent file",
        }
    }
}

/// What keeps others from the file.
enum Keeper {
    Nobody,
    Kernel,
    Command(Child),
    Lender(Child),
    Device(Box<Pinned>),
    Module(Flag),
}

/// What an operation must not change.
#[derive(Debug, PartialEq)]
struct State {
    inode: (u64, u64),
    len: u64,
    map: Vec<RawExtent>,
    bytes: Vec<u8>,
}

impl State {
    fn read(path: &Path) -> Result<Self> {
        let file = File::open(path)?;
        let data = file.metadata()?;
        let map: Result<Vec<_>, _> = Fiemap::new(&file, 0, data.len()).collect();
        // As it is on the disk: the map was read after everything was written.
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?;
        let mut bytes = vec![0; usize::try_from(data.len())?];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(Self {
            inode: (data.dev(), data.ino()),
            len: data.len(),
            map: map?.iter().map(|extent| cut(extent, data.len())).collect(),
            bytes,
        })
    }

    fn difference(&self, after: &Self) -> Option<&'static str> {
        if self.inode != after.inode {
            Some("another file")
        } else if self.bytes != after.bytes && self.len == after.len {
            Some("bytes changed")
        } else if self.len != after.len {
            Some("size changed")
        } else {
            (self.map != after.map).then_some("blocks moved")
        }
    }
}

/// Without what is behind the end, which xfs gives and takes as it likes; and without ext4's word that a file has no
/// extents.
fn cut(extent: &RawExtent, len: u64) -> RawExtent {
    RawExtent {
        length: extent.length.min(len.saturating_sub(extent.logical)),
        flags: ExtentFlags(extent.flags.0 & !ExtentFlags::MERGED.0),
        ..*extent
    }
}

/// A file in one of these states; [`Subject::end`] it.
pub(crate) struct Subject<'a> {
    pub(crate) victim: Victim<'a>,
    ground: &'a Ground,
    keeper: Keeper,
    before: State,
    /// Where its blocks are on the device.
    place: Option<Value>,
}

/// Why there is no subject: `longpin hold` refused, in these words.
pub(crate) struct Refused(pub(crate) String);

impl<'a> Subject<'a> {
    /// Puts a file into that state.
    pub(crate) fn new(
        ground: &'a Ground,
        victim: Victim<'a>,
        kind: Kind,
    ) -> Result<Result<Self, Refused>> {
        let path = victim.path();
        let keeper = match kind {
            Kind::Ordinary => Keeper::Nobody,
            Kind::Swap => {
                swap_on(path).context("swapon")?;
                Keeper::Kernel
            }
            Kind::Held | Kind::Lent => match hold(path, kind)? {
                Ok(child) if kind == Kind::Lent => Keeper::Lender(child),
                Ok(child) => Keeper::Command(child),
                Err(words) => {
                    victim.remove_all()?;
                    return Ok(Err(Refused(words)));
                }
            },
            Kind::Pinned => {
                let len = usize::try_from(victim.pinned.end - victim.pinned.start)?;
                // Before 6.2 RDMA pins for writing whatever was asked.
                let file = File::options().read(true).write(true).open(path)?;
                let pin = register_file(&file, victim.pinned.start, len, false)?;
                Keeper::Device(Box::new(pin))
            }
            Kind::Flagged => {
                let file = File::options().read(true).write(true).open(path)?;
                Keeper::Module(Flag::set(&file).context("FLAG")?)
            }
        };
        let place = match kind {
            Kind::Ordinary => None,
            _ => Some(blocks::extents(path)?),
        };
        let before = State::read(path).context("look at it before")?;
        Ok(Ok(Self {
            victim,
            ground,
            keeper,
            before,
            place,
        }))
    }

    /// What has changed since it is in its state.
    pub(super) fn change(&self) -> Option<&'static str> {
        match State::read(self.victim.path()) {
            Ok(after) => self.before.difference(&after),
            Err(_) => Some("gone"),
        }
    }

    /// The device has the bytes, where they were.
    pub(super) fn check_device(&self) -> Result<()> {
        let Some(place) = &self.place else {
            return Ok(());
        };
        let path = self.victim.path();
        let now = blocks::extents(path)?;
        ensure!(
            now["extents"] == place["extents"],
            "the blocks moved: {place} became {now}"
        );
        blocks::same(
            "the device",
            &blocks::device_bytes(path)?,
            &self.before.bytes,
        )
    }

    /// Takes it out of its state.
    fn release(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.keeper, Keeper::Nobody) {
            Keeper::Nobody => Ok(()),
            Keeper::Kernel => swap_off(&self.any_path()).context("swapoff"),
            Keeper::Command(child) => release(child),
            Keeper::Module(flag) => {
                drop(flag);
                self.must_allow_truncate()
            }
            Keeper::Lender(child) => {
                release(child)?;
                // A lend outlives who lent by a moment.
                let path = self.any_path();
                let size = std::fs::metadata(&path)?.len();
                must_allow_soon("truncate to its size", || truncate(&path, size))
            }
            Keeper::Device(pin) => {
                drop(pin);
                self.must_allow_truncate()
            }
        }
    }

    /// Soon: neither ends at once.
    fn must_allow_truncate(&self) -> Result<()> {
        let file = File::options().write(true).open(self.any_path())?;
        let size = file.metadata()?.len();
        must_allow_soon("truncate to its size", || ftruncate(&file, size))
    }

    /// Takes it out of its state, and leaves it where it is.
    pub(crate) fn leave(mut self) -> Result<()> {
        self.release()?;
        self.victim.leave();
        Ok(())
    }

    /// Takes it out of its state, and removes it.
    pub(super) fn end(mut self) -> Result<()> {
        self.release()?;
        self.victim.close();
        self.ground.mend()?;
        self.victim.remove_all()
    }

    /// Its descriptor, while it has one: its name may lead elsewhere.
    fn any_path(&self) -> PathBuf {
        match self.victim.file() {
            Ok(file) => PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())),
            Err(_) => self.victim.path().to_owned(),
        }
    }
}

/// `longpin hold FILE -- CMD`, where CMD says that it runs, and ends with its standard input. Or what longpin said.
fn hold(path: &Path, kind: Kind) -> Result<Result<Child, String>> {
    let mut command = Command::new("longpin");
    command.arg("hold").arg(path).arg("--");
    if kind == Kind::Lent {
        let this = std::env::current_exe()?;
        command
            .arg(this)
            .args([crate::child::WORD, "lend", "keep"])
            .arg(path);
    } else {
        command.args(["sh", "-c", "echo held; exec cat >/dev/null"]);
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("longpin is not on PATH")?;
    let stdout = child.stdout.take().context("no stdout")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    if line.trim() == "held" {
        return Ok(Ok(child));
    }
    let output = child.wait_with_output()?;
    let words = String::from_utf8_lossy(&output.stderr);
    Ok(Err(format!("{}: {line} {}", output.status, words.trim())))
}

fn release(mut child: Child) -> Result<()> {
    drop(child.stdin.take());
    let output = child.wait_with_output()?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "longpin hold: {}: {words}",
        output.status
    );
    Ok(())
}
