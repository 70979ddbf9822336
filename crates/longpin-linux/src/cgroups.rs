//! cgroup v2: which number the kernel's programs know a group by.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::mounts::{self, Mount};
use crate::pseudo;

/// Inode number of the root group of the hierarchy.
const ROOT_ID: u64 = 1;

/// A group of the cgroup v2 hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cgroup {
    /// Its id (`bpf_get_current_cgroup_id`): the inode number of its directory.
    pub id: u64,
    /// Its depth; the root has 0 (`bpf_get_current_ancestor_cgroup_id`).
    pub level: u32,
}

/// Why a group could not be found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CgroupError {
    /// No cgroup2 file system is mounted.
    #[error("no cgroup2 file system is mounted")]
    NotMounted,
    /// The mount shows a part of the hierarchy only: the depth of a group cannot be told from it.
    #[error("{} is not the root of the cgroup hierarchy (a container?)", point.display())]
    NotRoot {
        /// Where it is mounted.
        point: PathBuf,
    },
    /// The group's directory cannot be looked at.
    #[error("cannot look at {}", path.display())]
    Look {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Where the cgroup2 file system is mounted.
#[must_use]
pub fn cgroup_mount(mounts: &[Mount]) -> Option<&Path> {
    let found = mounts.iter().find(|mount| mount.kind == "cgroup2");
    found.map(|mount| Path::new(mount.point.as_str()))
}

/// The group of this path below the mount; `None` when there is none.
///
/// # Errors
///
/// [`CgroupError`].
pub fn find_cgroup(mounts: &[Mount], group: &str) -> Result<Option<Cgroup>, CgroupError> {
    let point = cgroup_mount(mounts).ok_or(CgroupError::NotMounted)?;
    if inode(point)? != Some(ROOT_ID) {
        return Err(CgroupError::NotRoot {
            point: point.to_owned(),
        });
    }
    let names: Vec<&str> = group.split('/').filter(|name| !name.is_empty()).collect();
    let path = names
        .iter()
        .fold(point.to_owned(), |path, name| path.join(name));
    // The hierarchy is far less deep than that.
    let level = u32::try_from(names.len()).unwrap_or(u32::MAX);
    Ok(inode(&path)?.map(|id| Cgroup { id, level }))
}

/// The least `memory.max` of this process's group and those above it, as far as they can be seen; `None`: no limit.
///
/// # Errors
///
/// A file of the group that is there cannot be read.
pub fn memory_limit() -> io::Result<Option<u64>> {
    let groups = pseudo::read_text("/proc/self/cgroup")?.unwrap_or_default();
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"));
    let mounts = mounts::read_mounts()?;
    let (Some(own), Some(point)) = (own, cgroup_mount(&mounts)) else {
        return Ok(None);
    };
    let mut least = None;
    let mut group = Some(Path::new(own));
    while let Some(below) = group {
        let text = pseudo::read_text(point.join(below).join("memory.max"))?;
        let limit = text.and_then(|text| text.trim().parse::<u64>().ok());
        least = least.into_iter().chain(limit).min();
        group = below.parent();
    }
    Ok(least)
}

fn inode(path: &Path) -> Result<Option<u64>, CgroupError> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Ok(Some(found.ino())),
        Ok(_) => Ok(None),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(CgroupError::Look {
            path: path.to_owned(),
            source,
        }),
    }
}

/// The cgroup v2 path of a process below the root; `None` when it has gone, or there is no hierarchy.
#[must_use]
pub fn of_process(pid: u32) -> Option<String> {
    let text = crate::tasks::read_text(Path::new(&format!("/proc/{pid}/cgroup"))).ok()?;
    let group = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(group.to_owned())
}

/// All cgroups that can be seen from here: id (the directory's inode number) to path below the root,
/// which is `/`. Empty where no hierarchy is mounted; what vanishes meanwhile is left out.
#[must_use]
pub fn read_paths(mounts: &[Mount]) -> HashMap<u64, String> {
    let mut paths = HashMap::new();
    if let Some(point) = cgroup_mount(mounts) {
        collect(point, "", &mut paths);
    }
    paths
}

fn collect(dir: &Path, name: &str, paths: &mut HashMap<u64, String>) {
    let Ok(metadata) = fs::metadata(dir) else {
        return;
    };
    let path = if name.is_empty() { "/" } else { name };
    paths.insert(metadata.ino(), path.to_owned());
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let below = format!("{name}/{}", entry.file_name().to_string_lossy());
            collect(&entry.path(), &below, paths);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mounts::read_mounts;

    #[test]
    fn without_a_mount_there_is_no_answer() {
        let found = find_cgroup(&[], "a");
        assert!(matches!(found, Err(CgroupError::NotMounted)), "{found:?}");
    }

    #[test]
    fn the_root_is_number_one_at_depth_zero() {
        let mounts = read_mounts().unwrap();
        match find_cgroup(&mounts, "/") {
            Ok(found) => assert_eq!(found, Some(Cgroup { id: 1, level: 0 })),
            // A container, or a host without cgroup v2.
            Err(CgroupError::NotMounted | CgroupError::NotRoot { .. }) => return,
            Err(err) => panic!("{err}"),
        }
        assert_eq!(find_cgroup(&mounts, "no/such/group").unwrap(), None);
    }

    #[test]
    fn paths_are_below_the_root() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("system.slice/a.service")).unwrap();
        fs::write(dir.path().join("cgroup.procs"), "").unwrap();
        let mut paths = HashMap::new();
        collect(dir.path(), "", &mut paths);
        let mut found: Vec<_> = paths.into_values().collect();
        found.sort();
        assert_eq!(found, ["/", "/system.slice", "/system.slice/a.service"]);
    }
}
