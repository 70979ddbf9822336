//! The commands of file systems and drivers (`ioctl(2)`) that take pages or blocks from a file: one table.
//!
//! From it come the switch of the guard's programs (`bpf/commands.gen.h` of longpin-bpf), what a hold waits for that had
//! begun before it ([`crate::flight`]), and the list in docs/commands.md; tests compare the numbers by which they try the
//! commands with it. To refuse another command is a row here.

use Answer::{Again, Invalid, NotPermitted, NotSupported, TextBusy};
use Layout::{File, FileSystem, Flags, Key, Scrub};
use Owner::{Any, Btrfs, Driver, Ext4, F2fs, Xfs};
use Scope::{OneFile, OneSubvolume, WholeFileSystem};

/// Who knows a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Several file systems.
    Any,
    /// btrfs.
    Btrfs,
    /// ext4.
    Ext4,
    /// f2fs.
    F2fs,
    /// xfs.
    Xfs,
    /// A driver, by the major number of its device.
    Driver(u32),
}

impl Owner {
    /// `s_magic` of its file systems; 0: several have it, or it is a driver's.
    #[must_use]
    pub const fn magic(self) -> u32 {
        match self {
            Any | Driver(_) => 0,
            Btrfs => 0x9123_683e,
            Ext4 => 0xef53,
            F2fs => 0xf2f5_2010,
            Xfs => 0x5846_5342,
        }
    }

    /// As people call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Any => "several",
            Btrfs => "btrfs",
            Ext4 => "ext4",
            F2fs => "f2fs",
            Xfs => "xfs",
            Driver(7) => "loop",
            Driver(9) => "md",
            Driver(_) => "udmabuf",
        }
    }
}

/// What a command takes from the page cache: it is refused of a pinned file, and of one that is held at any level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Nothing.
    No,
    /// Pages of the file that it is asked of.
    File,
    /// It names another file in user memory, which may change until it is read: judged for all of the file system.
    FileSystem,
    /// It sets flags, of which some drop the page cache.
    Flags,
    /// It drops the pages of all files under a key.
    Key,
    /// It drops the pages of the file that it repairs, which may be named by number.
    Scrub,
}

/// On what a command is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The file that it is asked of.
    OneFile,
    /// A subvolume of btrfs.
    OneSubvolume,
    /// The file system.
    WholeFileSystem,
}

/// What an active swap file answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// EAGAIN.
    Again,
    /// EINVAL.
    Invalid,
    /// EPERM.
    NotPermitted,
    /// EOPNOTSUPP.
    NotSupported,
    /// ETXTBSY.
    TextBusy,
}

impl Answer {
    /// Its name in errno(3).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Again => "EAGAIN",
            Invalid => "EINVAL",
            NotPermitted => "EPERM",
            NotSupported => "EOPNOTSUPP",
            TextBusy => "ETXTBSY",
        }
    }
}

/// A command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Command {
    /// Its name in the kernel's headers.
    pub name: &'static str,
    /// Its type and number (`type << 8 | number`). The size is left out, as 32-bit programs have others; drivers are asked
    /// by the whole number.
    pub number: u32,
    /// Who knows it.
    pub owner: Owner,
    /// What is refused at level layout, and of every held pin.
    pub layout: Layout,
    /// What is refused at level swapfile, and how.
    pub swapfile: Option<(Scope, Answer)>,
    /// It moves blocks, in a kernel function that serves harmless commands as well.
    pub moves: bool,
}

const fn command(name: &'static str, kind: u8, number: u8, owner: Owner) -> Command {
    Command {
        name,
        number: (kind as u32) << 8 | number as u32,
        owner,
        layout: Layout::No,
        swapfile: None,
        moves: false,
    }
}

const fn btrfs(name: &'static str, number: u8) -> Command {
    command(name, 0x94, number, Btrfs)
}

const fn f2fs(name: &'static str, number: u8) -> Command {
    command(name, 0xf5, number, F2fs)
}

const fn driver(name: &'static str, number: u32, major: u32) -> Command {
    Command {
        number,
        ..command(name, 0, 0, Driver(major))
    }
}

impl Command {
    const fn layout(self, layout: Layout) -> Self {
        Self { layout, ..self }
    }

    const fn swapfile(self, scope: Scope, answer: Answer) -> Self {
        Self {
            swapfile: Some((scope, answer)),
            ..self
        }
    }

    const fn moves(self) -> Self {
        Self {
            moves: true,
            ..self
        }
    }
}

const LOOP: u32 = 7;
const MD: u32 = 9;
const MISC: u32 = 10;

/// All of them.
///
/// What f2fs itself answers of a file that it keeps in its place, it answers here of a file that is only pinned by a device,
/// too; collecting garbage leaves files in their place where they are. Encoded writes of btrfs are refused as writes.
#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    command("FS_IOC_SETFLAGS", b'f', 2, Any).layout(Flags),
    command("FS_IOC_FSSETXATTR", b'X', 32, Any).layout(Flags),
    command("FS_IOC_REMOVE_ENCRYPTION_KEY", b'f', 24, Any).layout(Key),
    command("FS_IOC_REMOVE_ENCRYPTION_KEY_ALL_USERS", b'f', 25, Any).layout(Key),
    command("FS_IOC_ENABLE_VERITY", b'f', 133, Any).swapfile(OneFile, TextBusy).moves(),
    command("EXT4_IOC_MOVE_EXT", b'f', 15, Ext4).layout(FileSystem).swapfile(WholeFileSystem, TextBusy),
    command("EXT4_IOC_SWAP_BOOT", b'f', 17, Ext4).layout(File).swapfile(OneFile, Invalid),
    command("XFS_IOC_SWAPEXT", b'X', 109, Xfs).layout(FileSystem).swapfile(WholeFileSystem, Invalid),
    // It drops a file's pages before it looks at its block map.
    command("XFS_IOC_SCRUB_METADATA", b'X', 60, Xfs).layout(Scrub),
    command("XFS_IOC_SCRUBV_METADATA", b'X', 64, Xfs).layout(Scrub),
    // What was written since goes away at the abort.
    f2fs("F2FS_IOC_START_ATOMIC_WRITE", 1).layout(File).swapfile(OneFile, Invalid).moves(),
    f2fs("F2FS_IOC_START_ATOMIC_REPLACE", 25).layout(File).swapfile(OneFile, Invalid).moves(),
    f2fs("F2FS_IOC_ABORT_ATOMIC_WRITE", 5).layout(File).swapfile(OneFile, TextBusy).moves(),
    // Of what began before the hold.
    f2fs("F2FS_IOC_COMMIT_ATOMIC_WRITE", 2).swapfile(OneFile, TextBusy).moves(),
    f2fs("F2FS_IOC_DEFRAGMENT", 8).swapfile(OneFile, Invalid).moves(),
    f2fs("F2FS_IOC_SEC_TRIM_FILE", 20).layout(File).swapfile(OneFile, TextBusy).moves(),
    // On or off: that is said in user memory.
    f2fs("F2FS_IOC_SET_PIN_FILE", 13).swapfile(OneFile, TextBusy).moves(),
    f2fs("F2FS_IOC_MOVE_RANGE", 9).layout(FileSystem).swapfile(WholeFileSystem, NotSupported).moves(),
    f2fs("F2FS_IOC_GARBAGE_COLLECT_RANGE", 11).swapfile(WholeFileSystem, Again).moves(),
    f2fs("F2FS_IOC_FLUSH_DEVICE", 10).swapfile(WholeFileSystem, TextBusy).moves(),
    f2fs("F2FS_IOC_RESIZE_FS", 16).swapfile(WholeFileSystem, TextBusy).moves(),
    btrfs("BTRFS_IOC_DEFRAG", 2).swapfile(OneFile, TextBusy).moves(),
    btrfs("BTRFS_IOC_DEFRAG_RANGE", 16).swapfile(OneFile, TextBusy).moves(),
    btrfs("BTRFS_IOC_SNAP_CREATE", 1).swapfile(OneSubvolume, TextBusy).moves(),
    btrfs("BTRFS_IOC_SNAP_CREATE_V2", 23).swapfile(OneSubvolume, TextBusy).moves(),
    btrfs("BTRFS_IOC_SNAP_DESTROY", 15).swapfile(WholeFileSystem, NotPermitted).moves(),
    btrfs("BTRFS_IOC_SNAP_DESTROY_V2", 63).swapfile(WholeFileSystem, NotPermitted).moves(),
    btrfs("BTRFS_IOC_RESIZE", 3).swapfile(WholeFileSystem, TextBusy).moves(),
    btrfs("BTRFS_IOC_RM_DEV", 11).swapfile(WholeFileSystem, TextBusy).moves(),
    btrfs("BTRFS_IOC_RM_DEV_V2", 58).swapfile(WholeFileSystem, TextBusy).moves(),
    btrfs("BTRFS_IOC_DEV_REPLACE", 53).swapfile(WholeFileSystem, TextBusy).moves(),
    btrfs("BTRFS_IOC_BALANCE", 12).swapfile(WholeFileSystem, TextBusy).moves(),
    btrfs("BTRFS_IOC_BALANCE_V2", 32).swapfile(WholeFileSystem, TextBusy).moves(),
    btrfs("BTRFS_IOC_ENCODED_WRITE", 64).moves(),
    // A writable loop device, a bitmap of md, memory of udmabuf: of the file that a descriptor names.
    driver("LOOP_SET_FD", 0x4c00, LOOP).swapfile(OneFile, TextBusy),
    driver("LOOP_CHANGE_FD", 0x4c06, LOOP).swapfile(OneFile, TextBusy),
    driver("LOOP_CONFIGURE", 0x4c0a, LOOP).swapfile(OneFile, TextBusy),
    driver("SET_BITMAP_FILE", 0x4004_092b, MD).swapfile(OneFile, TextBusy),
    driver("UDMABUF_CREATE", 0x4018_7542, MISC).swapfile(OneFile, TextBusy),
    driver("UDMABUF_CREATE_LIST", 0x4008_7543, MISC).swapfile(OneFile, TextBusy),
];

/// Whether a command that is under way may move blocks of a file.
#[must_use]
pub fn may_move(number: u64) -> bool {
    let is_it = |row: &&Command| u64::from(row.number) == number & 0xffff;
    COMMANDS.iter().find(is_it).is_some_and(|row| row.moves)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_is_there_twice() {
        let mut numbers: Vec<u32> = COMMANDS.iter().map(|row| row.number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), COMMANDS.len());
    }

    #[test]
    fn commands_that_move_blocks_are_told_from_others() {
        // BTRFS_IOC_BALANCE_V2, F2FS_IOC_SET_PIN_FILE; BTRFS_IOC_SCRUB, FICLONE.
        assert!(may_move(0xc400_9420) && may_move(0x4004_f50d));
        assert!(!may_move(0xc400_941b) && !may_move(0x4004_9409));
        // FS_IOC_ENABLE_VERITY; FS_IOC_GETFLAGS.
        assert!(may_move(0x4080_6685) && !may_move(0x8008_6601));
    }
}
