//! The cgroup v2 hierarchy: which path an id stands for.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Where the hierarchy is mounted.
const ROOT: &str = "/sys/fs/cgroup";

/// All cgroups that can be seen from here: id (the directory's inode number) to path below the root,
/// which is `/`. Empty where no hierarchy is mounted; what vanishes meanwhile is left out.
#[must_use]
pub fn read_paths() -> HashMap<u64, String> {
    let mut paths = HashMap::new();
    collect(Path::new(ROOT), "", &mut paths);
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
