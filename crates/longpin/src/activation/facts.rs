//! What is true of a file and its file system, before the extents are looked at.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use longpin_linux::f2fs::Layout;
use longpin_linux::file::{self, Status};
use longpin_linux::mounts::{self, Mount};
use longpin_linux::{attribute, btrfs, ext4, f2fs, identity, pseudo, swap, xfs};
use rustix::fs::IFlags;

use crate::extents::{BlockDevice, layout_of};
use crate::filesystem::{Family, FileSystem};

/// A question about a file that was not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Swap needs the answer, too.
    pub swap: bool,
    /// Which, and why there is none.
    pub what: String,
}

/// Facts of one file, for the judgement.
#[derive(Debug, Clone)]
#[non_exhaustive]
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
    /// The block device of a file system that is mounted read-only takes no writes either.
    pub device_read_only: bool,
    /// Its subvolume is read-only (btrfs).
    pub read_only_subvolume: bool,
    /// A scrub reads the file system now (btrfs).
    pub scrubbed: bool,
    /// Every write of the file goes to a new place, whatever its flags say (xfs on zoned devices).
    pub zoned: bool,
    /// What could not be found out; a yes would be a guess.
    pub gaps: Vec<Gap>,
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
        let mut status = file::status(file)?;
        let fs = FileSystem::of_magic(status.magic);
        let read_only_subvolume =
            fs.family == Family::Btrfs && !status.read_only && file::is_read_only(file);
        status.read_only |= read_only_subvolume;
        let flags = file::flags(file)?;
        let mount = super_block(file, &status)?;
        let has = |option: &str| mount.as_ref().is_some_and(|mount| mount.has(option));
        let mut facts = Self {
            memfd: fs.family == Family::Memory && is_memfd(file),
            active_swap: is_active_swap(file)?,
            busy: None,
            mover: None,
            sections: None,
            log_structured: fs.family == Family::F2fs && has("mode=lfs"),
            zeroing: match fs.family {
                Family::F2fs => attribute::zeroing(file)?,
                _ => None,
            },
            journalled: false,
            read_only_subvolume,
            device_read_only: status.read_only && is_read_only(status.device),
            scrubbed: false,
            zoned: false,
            gaps: Vec::new(),
            flags,
            fs,
            status,
        };
        match fs.family {
            Family::Btrfs => facts.ask_btrfs(file, mount.as_ref()),
            Family::Ext => facts.ask_ext4(mount.as_ref()),
            Family::F2fs => facts.ask_f2fs(mount.as_ref()),
            Family::Xfs => facts.ask_xfs(file),
            _ => {}
        }
        Ok(facts)
    }

    fn ask_btrfs(&mut self, file: &File, mount: Option<&Mount>) {
        let busy = btrfs::exclusive_operation(file);
        self.busy = self
            .known(true, "whether btrfs moves chunks", busy)
            .flatten();
        if mount.is_some_and(|mount| mount.has("autodefrag")) {
            self.mover = Some("mount option autodefrag".to_owned());
        } else {
            let mover = btrfs::background_mover(file);
            self.mover = self
                .known(false, "what moves btrfs's data", mover)
                .flatten();
        }
        // Where it may not be asked, the trees may not be read either.
        let scrubbed = btrfs::is_scrubbed(file);
        let scrubbed = self.known(false, "whether a scrub is under way", scrubbed);
        self.scrubbed = scrubbed.unwrap_or(false);
        self.need_mount(mount);
    }

    /// ext2's own driver, and ext4 of a device that it does not know by a name, tell by the mount's type and options.
    fn ask_ext4(&mut self, mount: Option<&Mount>) {
        let of_all = ext4::journals_data(self.status.device);
        let of_all = self.known(false, "whether ext4 journals data", of_all);
        let by_mount = mount.filter(|mount| mount.has("data=journal") || mount.kind == "ext2");
        let by_mount = by_mount.map(|mount| mount.kind != "ext2");
        let by_file = self.has(IFlags::JOURNALING).then_some(true);
        let told = by_file.or(of_all.flatten()).or(by_mount);
        match told {
            Some(journalled) => {
                self.journalled = journalled;
                self.gaps.clear();
            }
            None if self.gaps.is_empty() => self.gaps.push(Gap {
                swap: false,
                what: "whether ext4 journals data: /proc/fs/ext4 does not name its device".into(),
            }),
            None => {}
        }
    }

    fn ask_f2fs(&mut self, mount: Option<&Mount>) {
        let (major, minor) = self.status.device;
        // Without it there is no map, which is said there.
        self.sections = layout_of(BlockDevice(major, minor)).ok();
        self.need_mount(mount);
    }

    fn ask_xfs(&mut self, file: &File) {
        let geometry = xfs::geometry(file);
        let geometry = self.known(false, "what kind of xfs it is", geometry);
        let realtime = file::is_realtime(file);
        let realtime = self.known(false, "whether it is a real-time file", realtime);
        self.zoned = realtime.unwrap_or(false) && geometry.is_some_and(|found| found.zoned);
    }

    fn need_mount(&mut self, mount: Option<&Mount>) {
        if mount.is_none() {
            let what = "the mount options: the mount is not seen".into();
            self.gaps.push(Gap { swap: false, what });
        }
    }

    /// What was answered; an error is a gap.
    fn known<T, E: std::error::Error>(
        &mut self,
        swap: bool,
        what: &str,
        answer: Result<T, E>,
    ) -> Option<T> {
        let answer = answer.map_err(|err| Gap {
            swap,
            what: format!("{what}: {}", super::with_causes(&err)),
        });
        answer.map_err(|gap| self.gaps.push(gap)).ok()
    }

    /// Each change of this file is written to a new place.
    #[must_use]
    pub fn copies_on_write(&self) -> bool {
        self.zoned || self.fs.family == Family::Btrfs && !self.has(IFlags::NOCOW)
    }

    /// What keeps a yes from being one, for swap or for blocks.
    #[must_use]
    pub(crate) fn gap(&self, swap: bool) -> Option<&str> {
        let mut gaps = self.gaps.iter();
        gaps.find(|gap| gap.swap || !swap)
            .map(|gap| gap.what.as_str())
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

/// A mount of the file's super block; `None`: none is seen. On btrfs a file has the device number of its
/// subvolume: there its mount is asked for.
fn super_block(file: &File, status: &Status) -> io::Result<Option<Mount>> {
    let mounts = mounts::read_mounts()?;
    let own = mounts.iter().find(|mount| mount.device == status.device);
    Ok(own.cloned().or_else(|| {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let found = identity::identify(Path::new(&path), &mounts);
        found.ok().map(|found| found.mount)
    }))
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
    if files.is_empty() {
        return Ok(false);
    }
    // A path may lead elsewhere by now: to this file, or to another one.
    let named = files.iter().any(is_own);
    Ok(swap::is_swapped_to(file)?.unwrap_or(named))
}

/// `ro` in sysfs, which only chooses a hint.
fn is_read_only((major, minor): (u32, u32)) -> bool {
    let text = pseudo::read_text(format!("/sys/dev/block/{major}:{minor}/ro"));
    text.ok().flatten().is_some_and(|text| text.trim() == "1")
}
