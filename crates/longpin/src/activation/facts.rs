//! What is true of a file and its file system, before the extents are looked at.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use longpin_linux::f2fs::Layout;
use longpin_linux::file::{self, Status};
use longpin_linux::{attribute, btrfs, f2fs, identity, mounts, swap};
use rustix::fs::IFlags;

use crate::extents::{Device, layout_of};
use crate::filesystem::{Family, FileSystem};

/// Facts of one file, for the judgement.
#[derive(Debug, Clone)]
pub struct Facts {
    /// `statx(2)` and `fstatfs(2)`.
    pub status: Status,
    /// Its file system.
    pub fs: FileSystem,
    /// A memfd: it never had a name.
    pub memfd: bool,
    /// The kernel swaps to it.
    pub active_swap: bool,
    /// chattr(1)'s flags; `None` where there are none.
    pub flags: Option<IFlags>,
    /// What moves the file system's blocks right now (btrfs).
    pub busy: Option<String>,
    /// What makes the file system move data by itself, sooner or later (btrfs).
    pub mover: Option<String>,
    /// Of f2fs, as far as it can be read.
    pub sections: Option<Layout>,
    /// f2fs mounted with `mode=lfs`.
    pub log_structured: bool,
    /// Data goes through the journal (ext4).
    pub journalled: bool,
    /// What a killed prepare did not get to zero (f2fs).
    pub zeroing: Option<Range<u64>>,
}

impl Facts {
    /// Ask the system.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn read(file: &File) -> io::Result<Self> {
        let status = file::status(file)?;
        let fs = FileSystem::of_magic(status.magic);
        let flags = file::flags(file)?;
        let options = super_options(file, &status)?;
        let has = |option: &str| options.iter().flatten().any(|have| have == option);
        let by_file = flags.is_some_and(|flags| flags.contains(IFlags::JOURNALING));
        Ok(Self {
            memfd: fs.family == Family::Memory && is_memfd(file),
            active_swap: is_active_swap(file)?,
            busy: busy(file, fs.family),
            mover: match fs.family {
                Family::Btrfs => mover(file, options.is_some(), has("autodefrag")),
                _ => None,
            },
            sections: match fs.family {
                Family::F2fs => sections(&status),
                _ => None,
            },
            log_structured: fs.family == Family::F2fs && has("mode=lfs"),
            zeroing: match fs.family {
                Family::F2fs => attribute::zeroing(file)?,
                _ => None,
            },
            journalled: fs.family == Family::Ext && (by_file || has("data=journal")),
            flags,
            fs,
            status,
        })
    }

    /// btrfs writes each change of this file to a new place.
    #[must_use]
    pub fn copies_on_write(&self) -> bool {
        self.fs.family == Family::Btrfs && !self.has(IFlags::NOCOW)
    }

    /// f2fs may move this file.
    #[must_use]
    pub fn is_unpinned(&self) -> bool {
        self.fs.family == Family::F2fs && !self.flags.is_some_and(f2fs::is_pinned)
    }

    fn has(&self, flag: IFlags) -> bool {
        self.flags.is_some_and(|flags| flags.contains(flag))
    }
}

/// Options of the file's super block; `None`: its mount is not seen. On btrfs a file has the device number of its
/// subvolume: there its mount is asked for.
fn super_options(file: &File, status: &Status) -> io::Result<Option<Vec<String>>> {
    let mounts = mounts::read_mounts()?;
    let own = mounts.iter().find(|mount| mount.device == status.device);
    let own = own.cloned().or_else(|| {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let found = identity::identify(Path::new(&path), &mounts);
        found.ok().map(|found| found.mount)
    });
    Ok(own.map(|mount| mount.options.split(',').map(str::to_owned).collect()))
}

/// Its only name is the one that the kernel made up.
fn is_memfd(file: &File) -> bool {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
    link.is_ok_and(|name| name.to_string_lossy().starts_with("/memfd:"))
}

fn is_active_swap(file: &File) -> io::Result<bool> {
    let own = file.metadata()?;
    let is_own = |found: &swap::SwapFile| {
        let data = std::fs::metadata(&found.path);
        data.is_ok_and(|data| (data.dev(), data.ino()) == (own.dev(), own.ino()))
    };
    let files = swap::read_swap_files()?;
    if files.is_empty() || files.iter().any(is_own) {
        return Ok(!files.is_empty());
    }
    // Its path may lead elsewhere by now, or there may be another one.
    Ok(swap::is_swapped_to(file)?.unwrap_or(false))
}

/// Where btrfs does not say, activation will.
fn busy(file: &File, family: Family) -> Option<String> {
    match family {
        Family::Btrfs => btrfs::exclusive_operation(file).ok().flatten(),
        _ => None,
    }
}

/// What is not known counts.
fn mover(file: &File, has_mount: bool, defragments: bool) -> Option<String> {
    if !has_mount {
        return Some("cannot tell the mount options: the mount is not seen".to_owned());
    }
    if defragments {
        return Some("mount option autodefrag".to_owned());
    }
    let asked = btrfs::exclusive_operation(file).and_then(|_| btrfs::background_mover(file));
    asked.unwrap_or_else(|err| Some(format!("cannot tell: {err}")))
}

fn sections(status: &Status) -> Option<Layout> {
    let (major, minor) = status.device;
    layout_of(Device(major, minor)).ok()
}
