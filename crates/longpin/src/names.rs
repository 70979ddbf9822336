//! The path of a file, for people. What the kernel remembers of its names is checked before it is told: somebody may have
//! renamed the file, put another one in its place, or mounted something over it.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use longpin_bpf::shared::{FileId, Sight};
use longpin_linux::btrfs;
use longpin_linux::identity::identify;
use longpin_linux::mounts::{self, Mount};
use rustix::fs::OFlags;

/// Where a file is seen from here. One that is deleted is told by the name that it had.
pub(crate) fn find_path(file: &FileId, sight: &Sight, mounts: &[Mount]) -> Option<String> {
    let is_told = |(mount, path): &(&Mount, String)| {
        sight.links == 0 || leads_to(path, file.ino, mount, mounts)
    };
    let mut paths = mounts::paths_on(mounts, file.device(), &sight.names);
    paths.find(is_told).map(|(_, path)| path)
}

/// The same, or its device and inode number where no path leads to it.
pub(crate) fn name_file(file: &FileId, sight: &Sight, mounts: &[Mount]) -> String {
    find_path(file, sight, mounts).unwrap_or_else(|| match sight.names.as_slice() {
        [name] if name.starts_with("memfd:") => format!("/{name}"),
        _ => {
            let (major, minor) = file.device();
            format!("inode {} on {major}:{minor}", file.ino)
        }
    })
}

/// Does it lead to this inode, through this mount?
fn leads_to(path: &str, ino: u64, mount: &Mount, mounts: &[Mount]) -> bool {
    // Its bytes are not known any more.
    if path.contains(char::REPLACEMENT_CHARACTER) {
        return true;
    }
    identify(Path::new(path), mounts).is_ok_and(|it| it.ino == ino && it.mount.id == mount.id)
}

/// Do these names lead to the file of an explicit hold, as far as anybody can tell? On btrfs subvolumes number their files
/// each for itself, and its number is in the place of the generation.
pub(crate) fn leads_to_lent(file: &FileId, names: &[String], mounts: &[Mount]) -> bool {
    let mut paths = mounts::paths_on(mounts, file.device(), names);
    paths.any(|(mount, path)| {
        leads_to(&path, file.ino, mount, mounts)
            && (file.generation == 0 || is_in_subvolume(Path::new(&path), file.generation))
    })
}

fn is_in_subvolume(path: &Path, number: u32) -> bool {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let opened = File::options().read(true).custom_flags(flags).open(path);
    let found = opened.ok().and_then(|file| btrfs::subvolume(&file).ok());
    found == Some(number.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn sight(names: &[&str], links: u32) -> Sight {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        let mut sight = Sight::unseen(names);
        sight.links = links;
        sight
    }

    #[test]
    fn a_path_that_leads_elsewhere_is_not_told() {
        let mounts = mounts::read_mounts().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "x").unwrap();
        let found = identify(&path, &mounts).unwrap();
        let (major, minor) = found.mount.device;
        let id = |ino| FileId {
            inode: 1,
            ino,
            dev: major << 20 | minor,
            generation: 0,
        };
        let own = std::fs::metadata(&path).unwrap().ino();
        let below = path.strip_prefix(&found.mount.point).unwrap();
        let inside = Path::new(&found.mount.root).join(below);
        let names: Vec<&str> = inside
            .iter()
            .skip(1)
            .map(|name| name.to_str().unwrap())
            .collect();
        let told = path.to_string_lossy().into_owned();
        assert_eq!(name_file(&id(own), &sight(&names, 1), &mounts), told);
        let other = name_file(&id(own + 1), &sight(&names, 1), &mounts);
        assert_eq!(other, format!("inode {} on {major}:{minor}", own + 1));
        assert_eq!(name_file(&id(own + 1), &sight(&names, 0), &mounts), told);
        let memfd = sight(&["memfd:a"], 1);
        assert_eq!(name_file(&id(own + 1), &memfd, &[]), "/memfd:a");
    }
}
