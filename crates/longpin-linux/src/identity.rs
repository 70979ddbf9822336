//! `statx(2)`: which inode of which super block a path names.
//!
//! The kernel's programs see a super block's own device number (`s_dev`). `st_dev` is another one on
//! btrfs, which gives each subvolume a number of its own; the mount table has the right one.

use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, StatxFlags, statx};
use rustix::io::Errno;

use crate::mounts::Mount;

/// A file as the kernel's programs see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Inode number.
    pub ino: u64,
    /// What it is.
    pub kind: FileKind,
    /// The mount through which the path leads; its `device` is the super block's.
    pub mount: Mount,
}

/// Kinds of files, as far as rules care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A device, socket or pipe.
    Other,
}

/// Why a path could not be identified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// ENOENT, ENOTDIR: nothing has this name.
    #[error("there is no such file")]
    Missing,
    /// EACCES: a directory on the way may not be searched.
    #[error("a directory on the way may not be searched")]
    Denied,
    /// The mount is not in the table: the path leads out of this process's mount namespace or root.
    #[error("its mount, number {mount}, is not in /proc/self/mountinfo")]
    NoMount {
        /// The mount's number.
        mount: u64,
    },
    /// Any other answer.
    #[error("statx: {0}")]
    Other(Errno),
}

/// `statx(path, STATX_TYPE | STATX_INO | STATX_MNT_ID)`, symbolic links followed. Linux 5.8.
///
/// # Errors
///
/// [`IdentityError`].
pub fn identify(path: &Path, mounts: &[Mount]) -> Result<Identity, IdentityError> {
    let wanted = StatxFlags::TYPE | StatxFlags::INO | StatxFlags::MNT_ID;
    let found = statx(CWD, path, AtFlags::empty(), wanted).map_err(|errno| match errno {
        Errno::NOENT | Errno::NOTDIR => IdentityError::Missing,
        Errno::ACCESS => IdentityError::Denied,
        other => IdentityError::Other(other),
    })?;
    let number = found.stx_mnt_id;
    let mount = mounts.iter().find(|mount| mount.id == number);
    Ok(Identity {
        ino: found.stx_ino,
        kind: kind_of(found.stx_mode),
        mount: mount
            .ok_or(IdentityError::NoMount { mount: number })?
            .clone(),
    })
}

fn kind_of(mode: u16) -> FileKind {
    match FileType::from_raw_mode(mode.into()) {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Directory,
        _ => FileKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mounts::read_mounts;
    use std::os::unix::fs::MetadataExt;

    fn look(path: &str) -> Result<Identity, IdentityError> {
        identify(Path::new(path), &read_mounts().unwrap())
    }

    #[test]
    fn a_file_is_its_inode_and_its_mount() {
        let found = look("/proc/self/mountinfo").unwrap();
        assert_eq!(
            (found.kind, found.mount.kind.as_str()),
            (FileKind::File, "proc")
        );
        let root = look("/").unwrap();
        let expected = std::fs::metadata("/").unwrap();
        assert_eq!((root.kind, root.ino), (FileKind::Directory, expected.ino()));
        assert_eq!(look("/dev/null").unwrap().kind, FileKind::Other);
    }

    #[test]
    fn what_is_not_there_is_missing() {
        assert_eq!(look("/no/such/file"), Err(IdentityError::Missing));
        assert_eq!(look("/dev/null/below"), Err(IdentityError::Missing));
        let nowhere = identify(Path::new("/"), &[]);
        assert!(
            matches!(nowhere, Err(IdentityError::NoMount { .. })),
            "{nowhere:?}"
        );
    }
}
