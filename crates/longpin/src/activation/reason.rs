//! Why a file is refused: a name, a count, the first offset, and the command that cures it.

use std::path::Path;

use super::hint;
use crate::filesystem::Family;

/// A reason, by the name that the command line and JSON use. New ones come last: C knows them by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Name {
    /// A directory, device, FIFO or socket.
    NotRegular,
    /// The file system moves data by itself.
    MovesData,
    /// Others may change the file without this kernel.
    NotLocal,
    /// overlayfs: the blocks are another file's.
    Overlay,
    /// The file system has no blocks.
    NoBlocks,
    /// No directory names the file.
    Deleted,
    /// The mount or the file system is read-only.
    ReadOnly,
    /// The range ends behind the end of the file.
    BeyondEnd,
    /// The range's end is no number of 64 bits.
    Overflow,
    /// The range does not begin and end where pages do.
    NotOnPages,
    /// There is nothing in the range.
    Empty,
    /// Too small for swap.
    TooSmall,
    /// Active swap already.
    ActiveSwap,
    /// Nobody may open it for writing (chattr +i).
    Immutable,
    /// It can only be appended to (chattr +a).
    AppendOnly,
    /// Sealed by fs-verity.
    Verity,
    /// Encrypted by its file system.
    Encrypted,
    /// Compressed by its file system.
    Compressed,
    /// DAX: there is no page cache to swap through.
    Dax,
    /// Each write goes to another place.
    CopyOnWrite,
    /// f2fs may move it: not pinned.
    NotPinned,
    /// The file system's mode has no fixed places.
    LogStructured,
    /// Its data goes through the journal, which may write it again later.
    Journalled,
    /// The file system moves chunks right now.
    FileSystemBusy,
    /// A killed prepare left blocks as they were on the device (f2fs).
    Interrupted,
    /// Ranges without blocks.
    Hole,
    /// Blocks that nobody has written: they hold what was there before.
    Unwritten,
    /// Data without blocks.
    Delalloc,
    /// Blocks that other files use, too.
    Shared,
    /// Blocks as old as a snapshot, also of one that is gone (btrfs).
    Snapshotted,
    /// Data among metadata.
    Inline,
    /// Data that must be decoded.
    Encoded,
    /// Blocks at other than block boundaries.
    Unaligned,
    /// Data at a place that the file system does not tell.
    UnknownLocation,
    /// Data on a second device.
    ForeignDevice,
    /// Data that lies there more than once, or in stripes.
    Profile,
    /// The file changed while it was looked at.
    Changed,
}

impl Name {
    /// All of them.
    pub const ALL: [Self; 37] = {
        use Name::*;
        [
            NotRegular,
            MovesData,
            NotLocal,
            Overlay,
            NoBlocks,
            Deleted,
            ReadOnly,
            BeyondEnd,
            Overflow,
            NotOnPages,
            Empty,
            TooSmall,
            ActiveSwap,
            Immutable,
            AppendOnly,
            Verity,
            Encrypted,
            Compressed,
            Dax,
            CopyOnWrite,
            NotPinned,
            LogStructured,
            Journalled,
            FileSystemBusy,
            Interrupted,
            Hole,
            Unwritten,
            Delalloc,
            Shared,
            Snapshotted,
            Inline,
            Encoded,
            Unaligned,
            UnknownLocation,
            ForeignDevice,
            Profile,
            Changed,
        ]
    };

    /// Its number in C (`enum longpin_reason_name`): its place in [`Self::ALL`], counted from 1.
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32 + 1
    }

    /// The name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotRegular => "not-regular",
            Self::MovesData => "moves-data",
            Self::NotLocal => "not-local",
            Self::Overlay => "overlay",
            Self::NoBlocks => "no-blocks",
            Self::Deleted => "deleted",
            Self::ReadOnly => "read-only",
            Self::BeyondEnd => "beyond-end",
            Self::Overflow => "overflow",
            Self::NotOnPages => "not-on-pages",
            Self::Empty => "empty",
            Self::TooSmall => "too-small",
            Self::ActiveSwap => "active-swap",
            Self::Immutable => "immutable",
            Self::AppendOnly => "append-only",
            Self::Verity => "verity",
            Self::Encrypted => "encrypted",
            Self::Compressed => "compressed",
            Self::Dax => "dax",
            Self::CopyOnWrite => "copy-on-write",
            Self::NotPinned => "not-pinned",
            Self::LogStructured => "log-structured",
            Self::Journalled => "journalled",
            Self::FileSystemBusy => "file-system-busy",
            Self::Interrupted => "interrupted",
            Self::Hole => "hole",
            Self::Unwritten => "unwritten",
            Self::Delalloc => "delalloc",
            Self::Shared => "shared",
            Self::Snapshotted => "snapshotted",
            Self::Inline => "inline",
            Self::Encoded => "encoded",
            Self::Unaligned => "unaligned",
            Self::UnknownLocation => "unknown-location",
            Self::ForeignDevice => "foreign-device",
            Self::Profile => "profile",
            Self::Changed => "changed",
        }
    }

    /// What it means, in words.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::NotRegular => "only regular files can be held",
            Self::MovesData => "this file system moves data by itself, at any time",
            Self::NotLocal => "others can change the file without asking this kernel",
            Self::Overlay => {
                "overlayfs shows another file system's file, and may replace it by a copy"
            }
            Self::NoBlocks => "this file system has no blocks on a device",
            Self::Deleted => "the file has no name: it goes with its last descriptor",
            Self::ReadOnly => "the mount or the file system is read-only",
            Self::BeyondEnd => "the range ends behind the end of the file",
            Self::Overflow => "OFF+LEN is larger than any file",
            Self::NotOnPages => "the range does not begin and end at page boundaries",
            Self::Empty => "there is nothing in the range",
            Self::TooSmall => "swap needs two whole pages at least, the first one for its header",
            Self::ActiveSwap => "the kernel swaps to this file",
            Self::Immutable => "nobody may open it for writing",
            Self::AppendOnly => "it can only be appended to",
            Self::Verity => "it is sealed by fs-verity",
            Self::Encrypted => "what lies on the device is encrypted",
            Self::Compressed => "what lies on the device may be compressed",
            Self::Dax => "a DAX file has no page cache, which swap needs",
            Self::CopyOnWrite => "each write goes to a new place, and has a checksum elsewhere",
            Self::NotPinned => "f2fs's garbage collection may move it",
            Self::LogStructured => "f2fs in mode=lfs writes nothing in place",
            Self::Journalled => "its data goes through the journal, which may write it again later",
            Self::FileSystemBusy => "the file system moves blocks right now",
            Self::Interrupted => "a prepare was killed; its last bytes may be somebody's old data",
            Self::Changed => "the file changed while it was looked at",
            extents => extents.meaning_in_extents(),
        }
    }

    const fn meaning_in_extents(self) -> &'static str {
        match self {
            Self::Hole => "ranges without blocks",
            Self::Unwritten => "blocks never written: a device would read what was there before",
            Self::Delalloc => "data that has no blocks yet",
            Self::Shared => "blocks that others use, too (reflink, snapshot, seed device)",
            Self::Snapshotted => {
                "blocks older than a snapshot, maybe one that is gone, or than a balance: btrfs writes them to a new place"
            }
            Self::Inline => "data that lies among metadata",
            Self::Encoded => "data that is compressed or encrypted on the device",
            Self::Unaligned => "data that does not begin and end at block boundaries",
            Self::UnknownLocation => "data at a place that the file system does not tell",
            Self::ForeignDevice => "data on another device than the first of it",
            Self::Profile => "data that lies there more than once, or in stripes (btrfs profile)",
            _ => "",
        }
    }
}

/// A reason, as it was met.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reason {
    /// Which.
    pub name: Name,
    /// How often: extents or holes; 1 for what is true of the whole file.
    pub count: u64,
    /// Bytes of the file; 0 for what is true of the whole file.
    pub bytes: u64,
    /// Offset of the first; `None` for what is true of the whole file.
    pub first: Option<u64>,
    /// What is to be said besides: a name, a number.
    pub detail: Option<String>,
}

impl Reason {
    /// True of the whole file.
    #[must_use]
    pub const fn whole(name: Name) -> Self {
        Self {
            name,
            count: 1,
            bytes: 0,
            first: None,
            detail: None,
        }
    }

    /// The same, with a word more.
    #[must_use]
    pub fn with(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// The command that cures it on this family of file systems, if one does.
    #[must_use]
    pub fn hint(&self, path: &Path, family: Family) -> Option<String> {
        hint::of(self, path, family)
    }

    /// One line for people.
    #[must_use]
    pub fn text(&self) -> String {
        let name = self.name.as_str();
        let mut line = match self.first {
            Some(first) => format!(
                "{name}: {}, {} bytes, the first at {first}: {}",
                self.count,
                self.bytes,
                self.name.meaning()
            ),
            None => format!("{name}: {}", self.name.meaning()),
        };
        if let Some(detail) = &self.detail {
            line += &format!(" ({detail})");
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_in_order() {
        let numbers: Vec<_> = Name::ALL.map(Name::number).into();
        assert_eq!(numbers, (1..=Name::Changed.number()).collect::<Vec<_>>());
    }

    #[test]
    fn a_line_says_where_and_how_much() {
        let reason = Reason {
            count: 3,
            bytes: 12288,
            first: Some(4096),
            ..Reason::whole(Name::Hole)
        };
        assert_eq!(
            reason.text(),
            "hole: 3, 12288 bytes, the first at 4096: ranges without blocks"
        );
    }
}
