//! Where operations are tried: one file system for all operations, with every feature that it can have.

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::btrfs;
use super::devices::LoopDevice;
use crate::PAGE;
use crate::pattern::Pattern;
use crate::scratch::{FsKind, Scratch};

/// What f2fs gives out to files that stay in their place, without `-s` of mkfs.
pub(super) const F2FS_SECTION: usize = 2 << 20;

/// Where a victim lives: a column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// A memfd, which is a file of the kernel's own tmpfs.
    Memfd,
    /// tmpfs in small pages.
    Tmpfs,
    /// hugetlbfs in pages of 2 MiB.
    Hugetlbfs,
    /// ext4.
    Ext4,
    /// xfs.
    Xfs,
    /// btrfs.
    Btrfs,
    /// f2fs.
    F2fs,
}

impl Home {
    /// Every home, in the order of the tables.
    pub const ALL: &'static [Self] = &[
        Self::Memfd,
        Self::Tmpfs,
        Self::Hugetlbfs,
        Self::Ext4,
        Self::Xfs,
        Self::Btrfs,
        Self::F2fs,
    ];
    /// Those whose files have a name.
    pub(super) const NAMED: &'static [Self] = Self::ALL.split_at(1).1;
    /// Those whose pages have blocks behind them.
    pub(super) const DISK: &'static [Self] = Self::ALL.split_at(3).1;

    /// The name for people.
    pub const fn name(self) -> &'static str {
        match self.kind() {
            None => "memfd",
            Some(kind) => kind.name(),
        }
    }

    /// The scratch file system that it is; a memfd needs none.
    pub const fn kind(self) -> Option<FsKind> {
        Some(match self {
            Self::Memfd => return None,
            Self::Tmpfs => FsKind::Tmpfs,
            Self::Hugetlbfs => FsKind::Hugetlbfs,
            Self::Ext4 => FsKind::Ext4,
            Self::Xfs => FsKind::Xfs,
            Self::Btrfs => FsKind::Btrfs,
            Self::F2fs => FsKind::F2fs,
        })
    }

    /// Whether the pages are all there is of a file.
    pub const fn is_memory(self) -> bool {
        matches!(self, Self::Memfd | Self::Tmpfs | Self::Hugetlbfs)
    }

    /// The unit in which it keeps files.
    const fn unit(self) -> usize {
        match self {
            Self::Hugetlbfs => 2 << 20,
            _ => PAGE,
        }
    }
}

impl fmt::Display for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A file system to try operations on, and the contents of its files.
#[derive(Debug)]
pub struct Ground {
    home: Home,
    scratch: Option<Scratch>,
    contents: Vec<u8>,
    other: Vec<u8>,
    lent: bool,
    /// Devices that could not be taken out of the file system.
    kept: RefCell<Vec<LoopDevice>>,
}

/// `mkswap`'s header (linux/swap.h, `union swap_header`): version 1, of which the first page alone is used. The kernel
/// protects all of the file, and nothing is ever swapped to the rest.
fn write_swap_header(contents: &mut [u8]) {
    let mut put = |at: usize, bytes: &[u8]| contents[at..at + bytes.len()].copy_from_slice(bytes);
    let (version, last_page, bad_pages) = (1_u32, 1_u32, 0_u32);
    put(1024, &version.to_ne_bytes());
    put(1028, &last_page.to_ne_bytes());
    put(1032, &bad_pages.to_ne_bytes());
    put(PAGE - 10, b"SWAPSPACE2");
}

/// Huge pages for the files of hugetlbfs. Memory is fragmented soon, so ask before anything else is done.
pub fn reserve_huge_pages() -> Result<()> {
    const WANTED: u32 = 24;
    let pool = "/proc/sys/vm/nr_hugepages";
    for _ in 0..5 {
        std::fs::write(pool, WANTED.to_string()).context("cannot get huge pages")?;
        let got: u32 = std::fs::read_to_string(pool)?.trim().parse()?;
        if got >= WANTED {
            return Ok(());
        }
        std::fs::write("/proc/sys/vm/drop_caches", "3")?;
        std::fs::write("/proc/sys/vm/compact_memory", "1")?;
    }
    anyhow::bail!("memory is too fragmented for {WANTED} huge pages")
}

impl Ground {
    /// Makes it.
    pub fn new(home: Home) -> Result<Self> {
        if home == Home::Hugetlbfs {
            reserve_huge_pages()?;
        }
        let scratch = match home.kind() {
            None => None,
            // btrfs does not shrink to less than 256 MiB.
            Some(kind) => Some(Scratch::full(kind, 320 << 20)?),
        };
        Ok(Self::on(home, scratch))
    }

    fn on(home: Home, scratch: Option<Scratch>) -> Self {
        let len = Self::len_of(home);
        Self {
            home,
            scratch,
            contents: Pattern::new(1).bytes(len),
            other: Pattern::new(2).bytes(len),
            lent: false,
            kept: RefCell::default(),
        }
    }

    /// Makes one whose files can be swapped to, and lent by their blocks: with a header, in place, on f2fs in whole
    /// sections.
    pub fn lent(home: Home) -> Result<Self> {
        let len = match home {
            Home::F2fs => F2FS_SECTION,
            _ => Self::len_of(home),
        };
        Self::lent_of(home, len)
    }

    /// The same with files of this size.
    pub fn lent_of(home: Home, len: usize) -> Result<Self> {
        Ok(Self::new(home)?.into_lent(len))
    }

    /// The same on this block device.
    pub fn lent_on(home: Home, device: &Path, len: usize) -> Result<Self> {
        let kind = home.kind().context("no blocks")?;
        let scratch = Some(Scratch::full_on(kind, device)?);
        Ok(Self::on(home, scratch).into_lent(len))
    }

    /// The same on persistent memory, mounted with `dax=always`.
    pub fn lent_on_dax(home: Home, device: &Path) -> Result<Self> {
        let kind = home.kind().context("no blocks")?;
        let scratch = Some(Scratch::dax_on(kind, device)?);
        Ok(Self::on(home, scratch).into_lent(Self::len_of(home)))
    }

    fn into_lent(mut self, len: usize) -> Self {
        self.lent = true;
        self.contents = Pattern::new(1).bytes(len);
        self.other = Pattern::new(2).bytes(len);
        write_swap_header(&mut self.contents);
        self
    }

    /// Whether it was made by [`Self::lent`].
    pub(super) const fn is_lent(&self) -> bool {
        self.lent
    }

    const fn len_of(home: Home) -> usize {
        match home {
            Home::Hugetlbfs => 4 * home.unit(),
            _ => 32 * PAGE,
        }
    }

    /// The file system.
    pub const fn home(&self) -> Home {
        self.home
    }

    /// What a victim holds.
    pub fn contents(&self) -> &[u8] {
        &self.contents
    }

    /// What other files hold: as much, and every page different.
    pub(super) fn other_contents(&self) -> &[u8] {
        &self.other
    }

    /// The bytes of a victim that are pinned: its second and third quarter.
    pub(super) fn pinned(&self) -> std::ops::Range<u64> {
        let quarter = self.contents.len() as u64 / 4;
        quarter..3 * quarter
    }

    /// The unit in which files are kept, in bytes.
    pub(super) const fn unit(&self) -> u64 {
        self.home.unit() as u64
    }

    fn scratch(&self) -> Result<&Scratch> {
        self.scratch
            .as_ref()
            .with_context(|| format!("{} is not mounted anywhere", self.home))
    }

    /// Where it is mounted.
    pub(super) fn dir(&self) -> Result<&Path> {
        Ok(self.scratch()?.dir())
    }

    /// Where it is mounted, for those who look on.
    pub fn mounted_at(&self) -> Result<&Path> {
        self.dir()
    }

    /// The image that is mounted there.
    pub(super) fn image(&self) -> Result<&Path> {
        Ok(self.scratch()?.image())
    }

    /// A directory elsewhere.
    pub(super) fn store(&self) -> Result<PathBuf> {
        Ok(self.scratch()?.store())
    }

    /// Mounts it again, if an operation unmounted it, and takes out devices that an operation had to leave.
    pub fn mend(&self) -> Result<()> {
        let Some(scratch) = &self.scratch else {
            return Ok(());
        };
        scratch.mount_again()?;
        for device in self.kept.take() {
            btrfs::give_back(scratch.dir(), &device)?;
        }
        Ok(())
    }

    /// Whether what lies on other devices must come back to the first one: [`Self::mend`] needs room for it.
    pub fn needs_room(&self) -> bool {
        !self.kept.borrow().is_empty()
    }

    /// Keeps a device that is in use by the file system until it can be taken out: [`Self::mend`].
    pub(super) fn keep(&self, device: LoopDevice) {
        self.kept.borrow_mut().push(device);
    }

    /// Unmounts it, has its blocks checked, and removes it: what the checker said, if it found something wrong.
    pub fn check(self) -> Result<Option<String>> {
        self.mend()?;
        self.scratch.context("no blocks")?.check()
    }

    /// Unmounts and removes it; says what did not go.
    pub fn close(self) -> Result<()> {
        self.scratch.map_or(Ok(()), Scratch::close)
    }
}
