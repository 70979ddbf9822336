//! File systems by what they promise of their files' blocks.

/// What kind of file system a file lies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Family {
    /// ext2, ext3, ext4: one block device, FIEMAP gives its addresses.
    Ext,
    /// xfs: the same, and maybe a real-time device.
    Xfs,
    /// btrfs: FIEMAP gives logical addresses.
    Btrfs,
    /// f2fs: moves blocks of files that are not pinned.
    F2fs,
    /// vfat, exfat: one block device; the kernel may give no map.
    Fat,
    /// Memory without blocks: tmpfs, ramfs, hugetlbfs.
    Memory,
    /// Moves data by itself.
    Mover,
    /// Others may change the file without this kernel: network and FUSE.
    Remote,
    /// overlayfs: the file is another file system's.
    Overlay,
    /// Anything else: nothing is known of it.
    Unknown,
}

/// A file system's name and family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileSystem {
    /// The kernel's name, or its magic number's meaning.
    pub name: &'static str,
    /// Its family.
    pub family: Family,
    /// `statfs`'s `f_type`.
    pub magic: u64,
}

/// `*_SUPER_MAGIC`.
const KNOWN: [(u64, &str, Family); 28] = [
    (0xef53, "ext4", Family::Ext),
    (0x5846_5342, "xfs", Family::Xfs),
    (0x9123_683e, "btrfs", Family::Btrfs),
    (0xf2f5_2010, "f2fs", Family::F2fs),
    (0x4d44, "vfat", Family::Fat),
    (0x2011_bab0, "exfat", Family::Fat),
    (0x0102_1994, "tmpfs", Family::Memory),
    (0x8584_58f6, "ramfs", Family::Memory),
    (0x9584_58f6, "hugetlbfs", Family::Memory),
    (0xca45_1a4e, "bcachefs", Family::Mover),
    (0x794c_7630, "overlay", Family::Overlay),
    (0x6573_5546, "fuse", Family::Remote),
    (0x6969, "nfs", Family::Remote),
    (0xff53_4d42, "cifs", Family::Remote),
    (0xfe53_4d42, "smb3", Family::Remote),
    (0x517b, "smbfs", Family::Remote),
    (0x00c3_6400, "ceph", Family::Remote),
    (0x0102_1997, "9p", Family::Remote),
    (0x5346_414f, "afs", Family::Remote),
    (0x6b41_4653, "afs", Family::Remote),
    (0x7375_7245, "coda", Family::Remote),
    (0x0bd0_0bd0, "lustre", Family::Remote),
    (0x0116_1970, "gfs2", Family::Remote),
    (0x7461_636f, "ocfs2", Family::Remote),
    (0x786f_4256, "vboxsf", Family::Remote),
    (0x2030_528a, "orangefs", Family::Remote),
    (0x4750_4653, "gpfs", Family::Remote),
    (0xf15f, "ecryptfs", Family::Overlay),
];

impl FileSystem {
    /// By the magic number that `statfs(2)` tells.
    #[must_use]
    pub fn of_magic(magic: u64) -> Self {
        let known = KNOWN.iter().find(|(number, ..)| *number == magic);
        let (name, family) = known.map_or(("unknown", Family::Unknown), |&(_, name, family)| {
            (name, family)
        });
        Self {
            name,
            family,
            magic,
        }
    }
}

impl std::fmt::Display for FileSystem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.family {
            Family::Unknown => write!(f, "a file system with magic {:#x}", self.magic),
            _ => f.write_str(self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_not_guessed() {
        assert_eq!(FileSystem::of_magic(0xef53).family, Family::Ext);
        let other = FileSystem::of_magic(0x1234);
        assert_eq!(other.family, Family::Unknown);
        assert_eq!(other.to_string(), "a file system with magic 0x1234");
    }
}
