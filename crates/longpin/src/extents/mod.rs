//! The block map of a file: which bytes lie where on which block device.
//!
//! | file system | addresses | device |
//! |---|---|---|
//! | ext4 | FIEMAP's, as they are | the super block's |
//! | xfs | FIEMAP's | the super block's, or the real-time device of a real-time file |
//! | f2fs | FIEMAP's, with one device | the super block's |
//! | btrfs | FIEMAP's through the chunk tree, profile single only | sysfs's, by their own numbers |
//! | vfat, exfat | FIEMAP's, where the kernel gives it | the super block's |
//!
//! What has no such place is named ([`Unlocated`]), never guessed. The map is streamed: memory does not
//! grow with the number of extents.

mod stream;

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::ops::Range;
use std::path::PathBuf;

use longpin_linux::btrfs::{self, BtrfsError, Chunks};
pub use longpin_linux::fiemap::ExtentFlags;
use longpin_linux::fiemap::{Fiemap, FiemapError};
use longpin_linux::file::{self, Status};
use longpin_linux::{f2fs, mounts, xfs};

use crate::filesystem::{Family, FileSystem};
use stream::{Joined, PieceIter, Pieces, cut};

/// Major and minor number of a block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockDevice(pub u32, pub u32);

impl BlockDevice {
    /// Its device file.
    #[must_use]
    pub fn path(self) -> PathBuf {
        file::block_device_path((self.0, self.1))
    }
}

impl std::fmt::Display for BlockDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.0, self.1)
    }
}

/// A run of a file's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Extent {
    /// Offset in the file, in bytes.
    pub logical: u64,
    /// Bytes.
    pub length: u64,
    /// What the file system says of it, as FIEMAP has it.
    pub flags: ExtentFlags,
    /// Where it lies.
    pub place: Place,
}

/// Where an extent lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// On a block device.
    On {
        /// Which.
        device: BlockDevice,
        /// Offset on it, in bytes.
        physical: u64,
    },
    /// At no place that a device could be told.
    Nowhere(Unlocated),
}

/// Why an extent has no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unlocated {
    /// Its bytes lie among metadata.
    Inline,
    /// What lies on the device is not the bytes, but a code for them.
    Encoded,
    /// It has no blocks yet.
    Delalloc,
    /// The file system does not tell.
    Unknown,
    /// It lies on the device several times, or in stripes: btrfs's name for that.
    Profile(&'static str),
    /// btrfs has no chunk for its address.
    NoChunk,
}

impl Unlocated {
    /// In words.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Inline => "lies among metadata (inline)",
            Self::Encoded => "is compressed or encrypted on the device",
            Self::Delalloc => "has no blocks yet",
            Self::Unknown => "has no place that the file system tells",
            Self::Profile(_) => "lies on the device more than once, or in stripes",
            Self::NoChunk => "has an address that btrfs's chunk tree does not know",
        }
    }
}

/// Why a file has no block map.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// No file system whose addresses this version understands.
    #[error("{fs} gives no block map that longpin understands")]
    FileSystem {
        /// Which.
        fs: FileSystem,
    },
    /// f2fs over several devices: its addresses are none of a device.
    #[error("this f2fs spans several devices; its addresses cannot be translated")]
    ManyDevices,
    /// A real-time file, and no mount names the real-time device.
    #[error("the file lies on xfs's real-time device, which no mount's options name")]
    NoRealtimeDevice,
    /// A question to the system.
    #[error("cannot tell {what}")]
    Ask {
        /// Which.
        what: String,
        /// The answer.
        #[source]
        source: io::Error,
    },
    /// FIEMAP.
    #[error(transparent)]
    Fiemap(#[from] FiemapError),
    /// The chunk tree.
    #[error(transparent)]
    Btrfs(#[from] BtrfsError),
    /// An extent has no place; only where a map of places was asked for.
    #[error("{length} bytes at offset {at}: the extent {}", why.text())]
    Unlocated {
        /// Offset in the file.
        at: u64,
        /// Bytes.
        length: u64,
        /// Why.
        why: Unlocated,
    },
    /// The blocks hold something else than the file's bytes; only where a map of places was asked for.
    #[error("the blocks hold something else than the file's bytes: {what}")]
    OtherBytes {
        /// Why.
        what: &'static str,
    },
    /// The file was changed while its map was read.
    #[error("the file changes while its map is read")]
    Changed,
}

/// How addresses become places.
#[derive(Debug)]
enum Scheme {
    Linear(BlockDevice),
    Btrfs {
        chunks: Chunks,
        devices: HashMap<u64, BlockDevice>,
        /// Those that btrfs only reads.
        seeds: BTreeSet<u64>,
    },
}

/// Write back what of a file is only in memory, so that its map is that of its data. On btrfs all of the file
/// system: before Linux 6.8 neither fsync(2) nor `FIEMAP_FLAG_SYNC` waits until the map knows of a write.
///
/// # Errors
///
/// What the kernel says.
pub fn settle(file: &File) -> io::Result<()> {
    let system = rustix::fs::fstatfs(file)?;
    let magic = u64::from_ne_bytes(system.f_type.to_ne_bytes()) & 0xffff_ffff;
    match FileSystem::of_magic(magic).family {
        Family::Btrfs => Ok(rustix::fs::syncfs(file)?),
        Family::Ext | Family::Xfs | Family::F2fs | Family::Fat => file.sync_data(),
        // No map; not all of them can be synced.
        _ => Ok(()),
    }
}

/// A file's block map, to be read as often as wanted.
#[derive(Debug)]
pub struct BlockMap<'file> {
    file: &'file File,
    scheme: Scheme,
}

impl<'file> BlockMap<'file> {
    /// Finds out how the file's addresses are meant. f2fs and btrfs need privilege: CAP_SYS_ADMIN, and
    /// f2fs a readable block device.
    ///
    /// # Errors
    ///
    /// [`MapError`].
    pub fn open(file: &'file File, status: &Status) -> Result<Self, MapError> {
        let fs = FileSystem::of_magic(status.magic);
        let own = BlockDevice(status.device.0, status.device.1);
        let scheme = match fs.family {
            Family::Ext | Family::Fat => Scheme::Linear(own),
            Family::Xfs if is_realtime(file)? => Scheme::Linear(realtime_device(file, status)?),
            Family::Xfs => Scheme::Linear(own),
            Family::F2fs if layout_of(own)?.many_devices => return Err(MapError::ManyDevices),
            Family::F2fs => Scheme::Linear(own),
            Family::Btrfs => open_btrfs(file)?,
            _ => return Err(MapError::FileSystem { fs }),
        };
        Ok(Self { file, scheme })
    }

    /// The extents that touch this range of bytes, cut to it, in the order of the file; holes have none.
    /// Extents that go on in the file and on the device are one: where the kernel cuts them depends on what it
    /// happens to have cached.
    pub fn extents(
        &self,
        range: &Range<u64>,
    ) -> impl Iterator<Item = Result<Extent, MapError>> + use<'_> {
        let range = range.clone();
        let raw = Fiemap::new(self.file, range.start, range.end);
        Joined::new(raw.flat_map(move |found| {
            let pieces = match found {
                Ok(extent) => cut(extent, &range),
                Err(err) => return Pieces::Failed(Some(err.into())),
            };
            pieces.map_or(Pieces::Failed(None), |extent| {
                Pieces::Of(PieceIter::new(&self.scheme, extent))
            })
        }))
    }

    /// The same; an extent without a place is an error.
    pub fn located(
        &self,
        range: &Range<u64>,
    ) -> impl Iterator<Item = Result<Extent, MapError>> + use<'_> {
        self.extents(range).map(|found| match found {
            Ok(extent) => match extent.place {
                Place::On { .. } => Ok(extent),
                Place::Nowhere(why) => Err(MapError::Unlocated {
                    at: extent.logical,
                    length: extent.length,
                    why,
                }),
            },
            failed => failed,
        })
    }

    /// A number that is another one when the map is another one.
    ///
    /// # Errors
    ///
    /// [`MapError`].
    pub fn digest(&self, range: &Range<u64>) -> Result<u64, MapError> {
        let mut hasher = DefaultHasher::new();
        for extent in self.extents(range) {
            extent?.hash(&mut hasher);
        }
        Ok(hasher.finish())
    }
}

fn ask(what: impl Into<String>) -> impl FnOnce(io::Error) -> MapError {
    let what = what.into();
    move |source| MapError::Ask { what, source }
}

fn is_realtime(file: &File) -> Result<bool, MapError> {
    file::is_realtime(file).map_err(ask("whether the file is a real-time file"))
}

/// xfs's mount option `rtdev=` of the file's super block.
fn realtime_device(file: &File, status: &Status) -> Result<BlockDevice, MapError> {
    let mounts = mounts::read_mounts().map_err(ask("the mounts"))?;
    let options = mounts
        .iter()
        .filter(|mount| mount.device == status.device)
        .flat_map(|mount| mount.options.split(','));
    let path = options.filter_map(|option| option.strip_prefix("rtdev="));
    let path = path.map(PathBuf::from).next();
    let path = path.ok_or(MapError::NoRealtimeDevice)?;
    let found = device_of(&path)?;
    let what = || {
        ask(format!(
            "which device the real-time device {} was",
            path.display()
        ))
    };
    let other = || io::Error::other(format!("{found} is another one"));
    match xfs::lies_on(file, (found.0, found.1)).map_err(what())? {
        true => Ok(found),
        false => Err(what()(other())),
    }
}

fn device_of(path: &std::path::Path) -> Result<BlockDevice, MapError> {
    let number = file::device_number(path);
    let what = format!("the number of the device {}", path.display());
    number
        .map(|(major, minor)| BlockDevice(major, minor))
        .map_err(ask(what))
}

/// Bytes of f2fs's sections, which it allocates for a pinned file as wholes.
pub(crate) fn section_of(device: BlockDevice) -> Result<u64, MapError> {
    Ok(layout_of(device)?.section)
}

/// What f2fs says of itself on its device.
pub(crate) fn layout_of(device: BlockDevice) -> Result<f2fs::Layout, MapError> {
    let path = device.path();
    let opened = File::open(&path).and_then(|device| f2fs::read_layout(&device));
    opened.map_err(ask(format!("f2fs's layout from {}", path.display())))
}

fn open_btrfs(file: &File) -> Result<Scheme, MapError> {
    let chunks = Chunks::read(file)?;
    let devices = btrfs::devices(file)?.into_iter();
    let devices = devices.map(|(number, (major, minor))| (number, BlockDevice(major, minor)));
    let devices = devices.collect();
    let seeds = btrfs::read_only_devices(file)?;
    Ok(Scheme::Btrfs {
        chunks,
        devices,
        seeds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_this_host_has_every_byte_in_one_place() {
        use std::os::unix::fs::FileExt;
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[7; 100_000], 0).unwrap();
        let status = file::status(&file).unwrap();
        let map = match BlockMap::open(&file, &status) {
            Ok(map) => map,
            Err(err) => return println!("not tried: {err}"),
        };
        let found: Result<Vec<_>, _> = map.located(&(0..status.size)).collect();
        let found = found.unwrap();
        let lengths: u64 = found.iter().map(|extent| extent.length).sum();
        assert_eq!(lengths, 100_000);
        let digest = map.digest(&(0..status.size)).unwrap();
        file.write_all_at(&[7; 4096], 1 << 20).unwrap();
        assert_eq!(map.digest(&(0..status.size)).unwrap(), digest);
        assert_ne!(map.digest(&(0..2 << 20)).unwrap(), digest);
    }
}
