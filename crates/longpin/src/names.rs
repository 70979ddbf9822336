//! The path of a file, for people. What the kernel remembers of its names is checked before it is told: somebody may have
//! renamed the file, put another one in its place, or mounted something over it.

use std::fs::File;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

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
pub(crate) fn leads_to_explicit(file: &FileId, names: &[String], mounts: &[Mount]) -> bool {
    let mut paths = mounts::paths_on(mounts, file.device(), names);
    paths.any(|(mount, path)| {
        leads_to(&path, file.ino, mount, mounts)
            && (file.generation == 0 || is_in_subvolume(Path::new(&path), file.generation))
    })
}

/// The file behind an overlay's, by the options of its mount: told only where the first layer that has something of this
/// name has a file of this number and size.
pub(crate) fn find_in_layers(path: &Path) -> Option<PathBuf> {
    let mounts = mounts::read_mounts().ok()?;
    let found = identify(path, &mounts).ok()?;
    let whole = path.canonicalize().ok()?;
    let below = whole.strip_prefix(&found.mount.point).ok()?;
    let inside = Path::new(&found.mount.root).join(below);
    let inside = inside.strip_prefix("/").ok()?;
    let own = whole.metadata().ok()?;
    let mut there = layers(&found.mount).filter_map(|layer| {
        let candidate = Path::new(layer).join(inside);
        let data = candidate.symlink_metadata().ok()?;
        Some((candidate, data))
    });
    let (candidate, data) = there.next()?;
    let is_it = data.is_file() && (data.ino(), data.len()) == (own.ino(), own.len());
    is_it.then_some(candidate)
}

/// The directories of an overlay's layers, from above. Of one that is not told as an absolute path nothing is known, so
/// none below it is told either.
fn layers(mount: &Mount) -> impl Iterator<Item = &str> {
    let of = |name: &'static str| {
        let options = mount.options.split(',');
        options.filter_map(move |option| option.strip_prefix(name))
    };
    let lower = of("lowerdir=")
        .flat_map(|list| list.split(':'))
        .chain(of("lowerdir+="));
    let is_whole = |dir: &&str| dir.starts_with('/') && !dir.contains('\\');
    of("upperdir=").chain(lower).take_while(is_whole)
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

    fn sight(names: &[&str], links: u32) -> Sight {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        let mut sight = Sight::unseen(names);
        sight.links = links;
        sight
    }

    #[test]
    fn layers_are_told_down_to_the_first_unknown_one() {
        let overlay = |options: &str| Mount {
            id: 1,
            device: (0, 1),
            root: "/".into(),
            point: "/m".into(),
            kind: "overlay".into(),
            options: options.into(),
        };
        let told = |options| {
            layers(&overlay(options))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            told("rw,lowerdir=/a:/b,upperdir=/u,workdir=/w"),
            ["/u", "/a", "/b"]
        );
        assert_eq!(told("ro,lowerdir+=/a,lowerdir+=/b"), ["/a", "/b"]);
        assert_eq!(told("ro,lowerdir=/a:b:/c"), ["/a"]);
        assert_eq!(told("rw,lowerdir=/a,upperdir=u"), [""; 0]);
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
