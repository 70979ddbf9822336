//! The root of the cgroup v2 hierarchy, mounted or not.

use std::fs::File;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

/// Inode number of the root group.
const ROOT_ID: u64 = 1;

/// `fsopen(2)` of cgroup2, and a mount that has no place; `None`: no such file system, or only a part of it is to be
/// had from this cgroup namespace.
pub(crate) fn open_root() -> Option<File> {
    let context = fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC).ok()?;
    fsconfig_create(&context).ok()?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    let mount = fsmount(&context, flags, MountAttrFlags::empty()).ok()?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = File::from(openat(&mount, ".", flags, Mode::empty()).ok()?);
    let data = root.metadata().ok()?;
    (data.ino() == ROOT_ID).then_some(root)
}
