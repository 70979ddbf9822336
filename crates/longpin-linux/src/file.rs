//! What a file is: kind, file system, attributes. Asked of an open descriptor, so that no name can be
//! exchanged in between.
#![allow(
    unsafe_code,
    reason = "FS_IOC_FSGETXATTR, FS_IOC_GETVERSION, leases take raw memory"
)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, IFlags, Mode, OFlags, StatVfsMountFlags, StatxFlags};
use rustix::io::Errno;

/// `_IOR('X', 31, struct fsxattr)`.
const FS_IOC_FSGETXATTR: libc::c_ulong = 0x801c_581f;
/// `_IOR('v', 1, long)`.
const FS_IOC_GETVERSION: libc::c_ulong = 0x8008_7601;
/// `FS_XFLAG_REALTIME`.
const XFLAG_REALTIME: u32 = 1;
/// `F_SETSIG`, which the libc crate lacks.
const F_SETSIG: libc::c_int = 10;

/// A kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A block device.
    BlockDevice,
    /// A character device.
    CharacterDevice,
    /// A FIFO.
    Fifo,
    /// A socket.
    Socket,
    /// Anything else.
    Other,
}

impl Kind {
    /// In words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Regular => "a regular file",
            Self::Directory => "a directory",
            Self::BlockDevice => "a block device",
            Self::CharacterDevice => "a character device",
            Self::Fifo => "a FIFO",
            Self::Socket => "a socket",
            Self::Other => "no regular file",
        }
    }
}

/// A file found by name and not opened: nothing happens to a device or FIFO.
#[derive(Debug)]
pub struct Found(OwnedFd);

impl Found {
    /// `open(path, O_PATH)`, symbolic links followed.
    ///
    /// # Errors
    ///
    /// What `open(2)` says.
    pub fn at(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(path, flags, Mode::empty())?))
    }

    /// What it is.
    ///
    /// # Errors
    ///
    /// What `fstat(2)` says.
    pub fn kind(&self) -> io::Result<Kind> {
        let mode = rustix::fs::fstat(&self.0)?.st_mode;
        Ok(kind_of(mode))
    }

    /// Is that the same inode?
    ///
    /// # Errors
    ///
    /// What `fstat(2)` says.
    pub fn is_same(&self, other: &Self) -> io::Result<bool> {
        let (own, that) = (rustix::fs::fstat(&self.0)?, rustix::fs::fstat(&other.0)?);
        Ok((own.st_dev, own.st_ino) == (that.st_dev, that.st_ino))
    }

    /// Open it: this very file, whatever the name leads to now.
    ///
    /// # Errors
    ///
    /// What `open(2)` says.
    pub fn open(&self, flags: OFlags) -> io::Result<File> {
        let path = format!("/proc/self/fd/{}", self.0.as_raw_fd());
        let opened = rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())?;
        Ok(File::from(opened))
    }
}

impl AsFd for Found {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

const fn kind_of(mode: u32) -> Kind {
    match FileType::from_raw_mode(mode) {
        FileType::RegularFile => Kind::Regular,
        FileType::Directory => Kind::Directory,
        FileType::BlockDevice => Kind::BlockDevice,
        FileType::CharacterDevice => Kind::CharacterDevice,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        _ => Kind::Other,
    }
}

/// `statx(2)` and `fstatfs(2)` of an open file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// What it is.
    pub kind: Kind,
    /// Bytes.
    pub size: u64,
    /// Names.
    pub links: u32,
    /// Inode number.
    pub ino: u64,
    /// `st_dev`: on file systems with one block device, that device.
    pub device: (u32, u32),
    /// `STATX_ATTR_*`.
    pub attributes: Attributes,
    /// `statfs`'s `f_type`.
    pub magic: u64,
    /// `statfs`'s `f_bsize`: on most file systems, bytes of a block.
    pub block_size: u64,
    /// The mount or its file system is read-only.
    pub read_only: bool,
    /// Permissions.
    pub mode: u32,
    /// What changes when the file does.
    pub version: Version,
}

/// `STATX_ATTR_*`: each is no when the file system does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes {
    /// The data is compressed.
    pub compressed: bool,
    /// Nobody may change it.
    pub immutable: bool,
    /// Only appending is possible.
    pub append: bool,
    /// The file system encrypts it.
    pub encrypted: bool,
    /// Sealed by fs-verity.
    pub verity: bool,
    /// Reads and writes go to the device without page cache.
    pub dax: bool,
}

/// What is different when a file has changed in between. Not the number of its blocks: it includes reserved ones
/// and the file system's own, and the map says where the data lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    size: u64,
    ctime: (i64, u32),
    mtime: (i64, u32),
    /// `FS_IOC_GETVERSION`; 0 where there is none.
    generation: u64,
}

/// `statx(fd)`, `fstatfs(fd)`, `ioctl(FS_IOC_GETVERSION)`. Linux 4.11.
///
/// # Errors
///
/// What the kernel says.
pub fn status(file: &File) -> io::Result<Status> {
    use rustix::fs::StatxAttributes as Stx;
    let wanted = StatxFlags::BASIC_STATS;
    let found = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, wanted)?;
    let system = rustix::fs::fstatfs(file)?;
    let mount = rustix::fs::fstatvfs(file)?;
    let time = |t: rustix::fs::StatxTimestamp| (t.tv_sec, t.tv_nsec);
    let has = |flag: Stx| found.stx_attributes.contains(flag);
    Ok(Status {
        kind: kind_of(found.stx_mode.into()),
        size: found.stx_size,
        links: found.stx_nlink,
        ino: found.stx_ino,
        device: (found.stx_dev_major, found.stx_dev_minor),
        attributes: Attributes {
            compressed: has(Stx::COMPRESSED),
            immutable: has(Stx::IMMUTABLE),
            append: has(Stx::APPEND),
            encrypted: has(Stx::ENCRYPTED),
            verity: has(Stx::VERITY),
            dax: has(Stx::DAX),
        },
        // Magic numbers have 32 bits.
        magic: u64::from_ne_bytes(system.f_type.to_ne_bytes()) & 0xffff_ffff,
        block_size: u64::try_from(system.f_bsize).unwrap_or(0),
        read_only: mount.f_flag.contains(StatVfsMountFlags::RDONLY),
        mode: u32::from(found.stx_mode) & 0o7777,
        version: Version {
            size: found.stx_size,
            ctime: time(found.stx_ctime),
            mtime: time(found.stx_mtime),
            generation: generation(file),
        },
    })
}

/// Blocks that file systems keep for root are this process's, too. True where nobody knows.
#[must_use]
pub fn may_use_reserve() -> bool {
    let held = rustix::thread::capabilities(None);
    let reserve = rustix::thread::CapabilitySet::SYS_RESOURCE;
    !held.is_ok_and(|sets| !sets.effective.contains(reserve))
}

/// faccessat(2) answers EROFS: the mount, the file system, or what btrfs calls a read-only subvolume.
#[must_use]
pub fn is_read_only(file: &File) -> bool {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK) == Err(Errno::ROFS)
}

fn generation(file: &File) -> u64 {
    let mut found: libc::c_ulong = 0;
    let pointer = std::ptr::from_mut(&mut found);
    // SAFETY: the kernel writes a long at most.
    let answer = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_GETVERSION, pointer) };
    if answer == 0 { found } else { 0 }
}

/// `ioctl(FS_IOC_GETFLAGS)`, the flags of chattr(1); `None` where the file system has none.
///
/// # Errors
///
/// What the kernel says.
pub fn flags(file: &File) -> io::Result<Option<IFlags>> {
    match rustix::fs::ioctl_getflags(file) {
        Ok(flags) => Ok(Some(flags)),
        Err(Errno::NOTTY | Errno::OPNOTSUPP) => Ok(None),
        Err(err) => Err(err.into()),
    }
}

/// `ioctl(FS_IOC_SETFLAGS)`.
///
/// # Errors
///
/// What the kernel says.
pub fn set_flags(file: &File, flags: IFlags) -> io::Result<()> {
    Ok(rustix::fs::ioctl_setflags(file, flags)?)
}

/// `ioctl(FS_IOC_FSGETXATTR)`: do the file's blocks lie on xfs's real-time device?
///
/// # Errors
///
/// What the kernel says.
pub fn is_realtime(file: &File) -> io::Result<bool> {
    let mut found = [0_u32; 7];
    let pointer = found.as_mut_ptr();
    // SAFETY: 28 bytes, as the request's number says.
    let answer = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FSGETXATTR, pointer) };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(found[0] & XFLAG_REALTIME != 0)
}

/// The device file of a block device, by way of sysfs; `/dev/block/M:N` where sysfs does not know it.
#[must_use]
pub fn block_device_path(device: (u32, u32)) -> PathBuf {
    let (major, minor) = device;
    let event = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/uevent"));
    let event = event.unwrap_or_default();
    let name = event.lines().find_map(|line| line.strip_prefix("DEVNAME="));
    name.map_or_else(
        || format!("/dev/block/{major}:{minor}").into(),
        |name| Path::new("/dev").join(name),
    )
}

/// The major and minor number of a device file.
///
/// # Errors
///
/// What `stat(2)` says.
pub fn device_number(path: &Path) -> io::Result<(u32, u32)> {
    let number = rustix::fs::stat(path)?.st_rdev;
    Ok((rustix::fs::major(number), rustix::fs::minor(number)))
}

/// A lease on a file that nobody else has open: whoever opens it meanwhile waits until it is given back
/// (`/proc/sys/fs/lease-break-time` at most). Given back on drop.
#[derive(Debug)]
pub struct Lease<'file>(&'file File);

impl<'file> Lease<'file> {
    /// `fcntl(F_SETLEASE, F_WRLCK)`; `None` when somebody else has the file open. This process must have no
    /// other descriptor of it. Owner of the file, or CAP_LEASE.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn take(file: &'file File) -> io::Result<Option<Self>> {
        // The default signal of a broken lease would kill this process; this one is ignored unless it is
        // asked for. Whether the lease is whole is asked before each step instead.
        fcntl(file, F_SETSIG, libc::SIGURG)?;
        match fcntl(file, libc::F_SETLEASE, libc::F_WRLCK) {
            Ok(_) => Ok(Some(Self(file))),
            Err(err) if Errno::from_io_error(&err) == Some(Errno::AGAIN) => Ok(None),
            Err(err) => Err(err),
        }
    }

    /// Nobody waits to open the file.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn is_whole(&self) -> io::Result<bool> {
        Ok(fcntl(self.0, libc::F_GETLEASE, 0)? == libc::F_WRLCK)
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        // A lease that was broken by force is gone already.
        let _ = fcntl(self.0, libc::F_SETLEASE, libc::F_UNLCK);
    }
}

fn fcntl(file: &File, command: libc::c_int, argument: libc::c_int) -> io::Result<libc::c_int> {
    // SAFETY: none of these commands takes a pointer.
    let answer = unsafe { libc::fcntl(file.as_raw_fd(), command, argument) };
    if answer < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(answer)
    }
}

/// `fcntl(F_SETFL)`: direct I/O on or off, on this open file.
///
/// # Errors
///
/// `EINVAL` where the file system has none.
pub fn set_direct(file: &impl AsFd, on: bool) -> io::Result<()> {
    let mut flags = rustix::fs::fcntl_getfl(file)?;
    flags.set(OFlags::DIRECT, on);
    Ok(rustix::fs::fcntl_setfl(file, flags)?)
}

/// `pwrite(2)` of nothing through an O_DIRECT descriptor: whether somebody refuses writes to the file, as a swap file and
/// a held one do (`ETXTBSY`). Nothing is written. No on a file system without direct I/O.
///
/// # Errors
///
/// What the kernel says besides.
pub fn is_write_refused(file: &File) -> io::Result<bool> {
    use std::os::unix::fs::FileExt;
    let has_direct = set_direct(file, true).is_ok();
    let asked = file.write_at(&[], 0);
    if has_direct {
        set_direct(file, false)?;
    }
    match asked.map_err(|err| (Errno::from_io_error(&err), err)) {
        Ok(_) => Ok(false),
        Err((Some(Errno::TXTBSY), _)) => Ok(true),
        Err((_, err)) => Err(err),
    }
}

/// `fallocate(2)` of a range that ends behind the largest offset: whether all that changes the file's blocks is refused, as of a swap file
/// and of one that is held as if it were (`ETXTBSY`, not `EFBIG`). Nothing changes. The descriptor must be writable.
///
/// # Errors
///
/// What the kernel says besides.
pub fn is_kept(file: &File) -> io::Result<bool> {
    let last = u64::MAX >> 1;
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), last, 4096) {
        Err(Errno::TXTBSY) => Ok(true),
        Ok(()) | Err(Errno::FBIG | Errno::OPNOTSUPP | Errno::PERM) => Ok(false),
        Err(err) => Err(err.into()),
    }
}

/// `getrlimit(RLIMIT_FSIZE)`: bytes that a file which this process writes may have; `None`: as many as it likes.
#[must_use]
pub fn size_limit() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Fsize).current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_without_opening() {
        let kind = |path: &str| Found::at(Path::new(path)).unwrap().kind().unwrap();
        assert_eq!(kind("/"), Kind::Directory);
        assert_eq!(kind("/dev/null"), Kind::CharacterDevice);
        assert_eq!(kind("/proc/self/exe"), Kind::Regular);
    }

    #[test]
    fn a_change_makes_another_version() {
        use std::os::unix::fs::FileExt;
        let file = tempfile::tempfile().unwrap();
        let before = status(&file).unwrap();
        assert_eq!(before.version, status(&file).unwrap().version);
        file.write_all_at(b"x", 0).unwrap();
        let after = status(&file).unwrap();
        assert_ne!(before.version, after.version);
        assert_eq!((after.kind, after.size, after.links), (Kind::Regular, 1, 0));
    }

    #[test]
    fn a_lease_needs_a_file_of_ones_own() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let lease = match Lease::take(file.as_file()) {
            Ok(lease) => lease.unwrap(),
            Err(err) => return println!("not tried: no leases here: {err}"),
        };
        assert!(lease.is_whole().unwrap());
        let other = Found::at(file.path()).unwrap();
        let asked = other.open(OFlags::RDONLY | OFlags::NONBLOCK);
        assert_eq!(asked.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(!lease.is_whole().unwrap());
        drop(lease);
        let opened = other.open(OFlags::RDONLY).unwrap();
        assert!(Lease::take(file.as_file()).unwrap().is_none());
        drop(opened);
    }
}
