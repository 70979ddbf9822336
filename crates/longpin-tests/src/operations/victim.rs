//! The file that an operation is tried on, and the files beside it.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use rustix::fs::{MemfdFlags, OFlags};
use rustix::io::Errno;

use super::ground::F2FS_SECTION;
use super::requests::{COMPRESS_FILE, SET_PIN_FILE};
use super::{Ground, Home, Shape, blocks, btrfs, keys};
use crate::PAGE;
use crate::mapping::Mapping;

pub(super) static NEXT: AtomicU32 = AtomicU32::new(0);

/// What kind of file a victim is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Build {
    /// Any file.
    Plain,
    /// Eight pages, all of them pinned.
    Short,
    /// Written in place, without checksums: `FS_NOCOW_FL`.
    InPlace,
    /// Compressed by the file system: `FS_COMPR_FL`.
    Compressed,
    /// Kept in its place on f2fs: `F2FS_IOC_SET_PIN_FILE`.
    PlacePinned,
    /// With blocks that another file has, too.
    Shared,
    /// In a btrfs subvolume of its own.
    Subvolume,
    /// On a file system that is mounted in another mount namespace only.
    Elsewhere,
    /// Its data goes to the journal: `FS_JOURNAL_DATA_FL`.
    Journalled,
    /// Its pages come from readahead of a read that keeps none: `RWF_DONTCACHE`.
    Uncached,
    /// In a directory whose files the file system encrypts.
    Encrypted,
    /// Its last pages are pinned, which are like this.
    End(Shape),
}

/// A file of known contents, to be pinned and operated on; removed on drop.
#[derive(Debug)]
pub struct Victim<'a> {
    pub(super) ground: &'a Ground,
    /// The file under its name, or under `/proc/self/fd`.
    pub(super) path: PathBuf,
    /// `None` while only the pin may hold the file.
    pub(super) file: Option<File>,
    /// The bytes that are to be pinned.
    pub pinned: Range<u64>,
    /// The process that holds the mount namespace of a victim elsewhere.
    pub(super) namespace: Option<Namespace>,
}

impl<'a> Victim<'a> {
    /// Makes and fills it.
    pub fn new(ground: &'a Ground, build: Build) -> Result<Self> {
        if ground.home() == Home::Memfd {
            return Self::memfd(ground);
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let namespace = match build {
            Build::Elsewhere => Some(Namespace::with_only(ground.dir()?)?),
            _ => None,
        };
        let mut dir = ground.dir()?.to_owned();
        if let Some(namespace) = &namespace {
            dir = namespace.seen_from_here(&dir);
        }
        if build == Build::Encrypted {
            dir = keys::encrypted_dir(&dir, "encrypted")?;
        }
        if build == Build::Subvolume {
            dir = btrfs::create_subvolume(&dir, &format!("subvolume-{number}"))?;
        }
        let path = dir.join(format!("victim-{number}"));
        Self::made(ground, path, build, namespace)
    }

    /// A file of this name, filled.
    pub(super) fn made(
        ground: &'a Ground,
        path: PathBuf,
        build: Build,
        namespace: Option<Namespace>,
    ) -> Result<Self> {
        let mut victim = Self {
            ground,
            file: Some(create(&path)?),
            path,
            pinned: ground.pinned(),
            namespace,
        };
        victim
            .prepare(build)
            .with_context(|| format!("cannot make a victim ({build:?})"))?;
        Ok(victim)
    }

    fn memfd(ground: &'a Ground) -> Result<Self> {
        let file = File::from(rustix::fs::memfd_create("victim", MemfdFlags::CLOEXEC)?);
        write_all(ground, &file, ground.contents())?;
        Ok(Self {
            ground,
            path: through_descriptor(&file),
            file: Some(file),
            pinned: ground.pinned(),
            namespace: None,
        })
    }

    fn prepare(&mut self, build: Build) -> Result<()> {
        let mut contents = self.ground.contents();
        let file = self.file()?;
        let zeroes;
        match build {
            Build::InPlace => blocks::add_flags(file, blocks::NOCOW)?,
            Build::Journalled => blocks::add_flags(file, blocks::JOURNAL_DATA)?,
            Build::Compressed => {
                zeroes = vec![0; contents.len()];
                contents = &zeroes;
                blocks::add_flags(file, blocks::COMPRESSED)?;
            }
            Build::PlacePinned => {
                SET_PIN_FILE.ask(file, &mut 1)?;
                let whole = contents.len().next_multiple_of(F2FS_SECTION) as u64;
                rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, whole)?;
            }
            Build::Short => contents = &contents[..8 * PAGE],
            Build::End(shape) => {
                shape.make(file, contents)?;
                self.pinned = shape.pinned();
                return Ok(());
            }
            Build::Plain
            | Build::Shared
            | Build::Subvolume
            | Build::Elsewhere
            | Build::Encrypted
            | Build::Uncached => {}
        }
        write_all(self.ground, file, contents)?;
        match build {
            Build::Compressed => drop(COMPRESS_FILE.ask(file, 0)?),
            Build::Shared => {
                let other = create(&self.path.with_extension("shared"))?;
                rustix::fs::ioctl_ficlone(&other, file)?;
            }
            Build::Short => self.pinned = 0..contents.len() as u64,
            Build::Uncached => read_ahead_uncached(file, self.pinned.start)?,
            _ => {}
        }
        Ok(())
    }

    /// The open file.
    pub fn file(&self) -> Result<&File> {
        self.file.as_ref().context("the victim is closed")
    }

    /// Closes it, so that only the pin holds it.
    pub fn close(&mut self) {
        self.file = None;
    }

    /// Opens it by its name, if it is closed; `false` when it has no name any more.
    pub fn reopen(&mut self) -> Result<bool> {
        if self.file.is_some() {
            return Ok(true);
        }
        match File::open(&self.path) {
            Ok(file) => self.file = Some(file),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error).context("cannot open the victim again"),
        }
        Ok(true)
    }

    /// Opens it once more, with these flags of open(2).
    pub(super) fn open(&self, write: bool, flags: OFlags) -> std::io::Result<File> {
        let flags = i32::try_from(flags.bits()).map_err(std::io::Error::other)?;
        OpenOptions::new()
            .read(true)
            .write(write)
            .custom_flags(flags)
            .open(match &self.file {
                Some(file) => through_descriptor(file),
                None => self.path.clone(),
            })
    }

    /// Where it is once its file system is mounted here.
    pub(super) fn move_here(&mut self) -> Result<()> {
        let name = self.path.file_name().context("the victim has no name")?;
        self.path = self.ground.dir()?.join(name);
        Ok(())
    }

    /// Length of the pinned range.
    pub(super) fn pinned_len(&self) -> u64 {
        self.pinned.end - self.pinned.start
    }

    /// The unit of one page that lies before the pinned range.
    pub(super) fn page_before(&self) -> (u64, u64) {
        let unit = self.ground.unit();
        (self.pinned.start - unit, unit)
    }

    /// Another file of the same size on the same file system; `same`: with the same contents.
    pub(super) fn donor(&self, same: bool) -> Result<Donor> {
        let contents = if same {
            self.ground.contents()
        } else {
            self.ground.other_contents()
        };
        if self.ground.home() == Home::Memfd {
            let file = File::from(rustix::fs::memfd_create("donor", MemfdFlags::CLOEXEC)?);
            write_all(self.ground, &file, contents)?;
            let path = through_descriptor(&file);
            return Ok(Donor {
                file,
                path,
                named: false,
            });
        }
        let path = self.path.with_extension("donor");
        let file = create(&path)?;
        if self.ground.is_lent() && self.ground.home() == Home::Btrfs {
            // Files with checksums and files without share nothing.
            blocks::add_flags(&file, blocks::NOCOW)?;
        }
        let donor = Donor {
            file,
            path,
            named: true,
        };
        write_all(self.ground, &donor.file, contents)?;
        Ok(donor)
    }

    /// The pinned range as it is on the device, by a direct read; `None` where there is no device, or it cannot be asked.
    pub fn on_disk(&self) -> Result<Option<Vec<u8>>> {
        if self.ground.home().is_memory() {
            return Ok(None);
        }
        let mut buffer = Aligned::of(usize::try_from(self.pinned_len())?, 0);
        let file = self.open(false, OFlags::DIRECT);
        match file.and_then(|file| read_up_to(&file, self.pinned.start, buffer.bytes())) {
            Ok(count) => Ok(Some(buffer.bytes()[..count].to_vec())),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::INVAL | Errno::OPNOTSUPP) => Ok(None),
                _ => Err(error).context("cannot read the disk"),
            },
        }
    }

    /// The pinned range as a reader of the file finds it; shorter when the file is.
    pub fn read_back(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.pinned_len())?];
        let count = read_up_to(self.file()?, self.pinned.start, &mut bytes)?;
        bytes.truncate(count);
        Ok(bytes)
    }
}

/// One page before the pinned range is read; the kernel reads on, and would keep nothing of that, either.
fn read_ahead_uncached(file: &File, end: u64) -> Result<()> {
    rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed)?;
    let mut page = [0; PAGE];
    match read_uncached(file, &mut page, end - PAGE as u64) {
        // What the kernel does not know, the operation says.
        Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
        Err(errno) => Err(errno).context("cannot read without the cache"),
    }
}

/// `preadv2(2)` with RWF_DONTCACHE (since Linux 6.14).
pub(super) fn read_uncached(file: &File, room: &mut [u8], offset: u64) -> Result<(), Errno> {
    let flags = rustix::io::ReadWriteFlags::from_bits_retain(0x80);
    let mut room = [std::io::IoSliceMut::new(room)];
    rustix::io::preadv2(file, &mut room, offset, flags).map(drop)
}

/// Reads until the end of the file, or of the room.
fn read_up_to(file: &File, offset: u64, room: &mut [u8]) -> std::io::Result<usize> {
    let mut done = 0;
    while done < room.len() {
        match file.read_at(&mut room[done..], offset + done as u64)? {
            0 => break,
            count => done += count,
        }
    }
    Ok(done)
}

impl Drop for Victim<'_> {
    fn drop(&mut self) {
        // What an operation removed itself is gone; the rest goes with the file system.
        let _ = fs::remove_file(&self.path);
    }
}

/// Bytes that begin where a page does, as direct I/O wants them.
pub(super) struct Aligned {
    room: Vec<u8>,
    len: usize,
}

impl Aligned {
    /// So many bytes of this value.
    pub(super) fn of(len: usize, value: u8) -> Self {
        let room = vec![value; len + PAGE];
        Self { room, len }
    }

    pub(super) fn bytes(&mut self) -> &mut [u8] {
        let start = self.room.as_ptr().align_offset(PAGE);
        &mut self.room[start..start + self.len]
    }
}

/// A file beside the victim; removed on drop.
#[derive(Debug)]
pub struct Donor {
    pub(super) file: File,
    pub(super) path: PathBuf,
    named: bool,
}

impl Drop for Donor {
    fn drop(&mut self) {
        if self.named {
            // It may have been renamed.
            let _ = fs::remove_file(&self.path);
        }
    }
}

pub(super) fn create(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .with_context(|| format!("cannot create {}", path.display()))
}

fn through_descriptor(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Writes in three pieces, so that no folio reaches across the ends of the pinned range.
fn write_all(ground: &Ground, file: &File, contents: &[u8]) -> Result<()> {
    if ground.home() == Home::Hugetlbfs {
        file.set_len(contents.len() as u64)?;
        Mapping::shared(file, 0, contents.len(), true)?.copy_in(0, contents);
        return Ok(());
    }
    let pinned = ground.pinned();
    let ends = [pinned.start, pinned.end, contents.len() as u64];
    let mut at = 0;
    for end in ends {
        let end = usize::try_from(end)?.min(contents.len());
        file.write_all_at(&contents[at..end], at as u64)?;
        at = end;
    }
    file.sync_all().context("fsync")
}

/// A process in a mount namespace of its own; killed on drop.
#[derive(Debug)]
pub(super) struct Namespace {
    process: Child,
}

impl Namespace {
    /// Moves a mount there: it is no longer mounted here.
    fn with_only(dir: &Path) -> Result<Self> {
        let process = Command::new("unshare")
            .args(["--mount", "--propagation", "private"])
            .args(["sh", "-c", "echo ready; exec sleep 1000"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run unshare")?;
        let mut namespace = Self { process };
        let mut line = [0; 6];
        let output = namespace.process.stdout.as_mut().context("no pipe")?;
        output.read_exact(&mut line).context("no mount namespace")?;
        ensure!(&line == b"ready\n", "no mount namespace");
        rustix::mount::unmount(dir, rustix::mount::UnmountFlags::empty())
            .context("cannot unmount it here")?;
        Ok(namespace)
    }

    fn seen_from_here(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.process.id()));
        root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Ends its only process, and so the namespace.
    pub(super) fn end(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Ended already, or nothing more can be done.
        let _ = self.end();
    }
}
