//! `cargo xtask kernels`: the kernels of `KERNELS`, fetched from the Debian archive into the cache.
//!
//! A row's directory in the cache has one folder per kernel version and a file `current` that names one of them. A
//! folder gets its name only when it is complete, so a fetch may be killed at any moment.

use crate::apt::Apt;
use crate::rows::Row;
use crate::{env, ui};
use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::path::{Path, PathBuf};

/// A kernel in the cache, ready to boot.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// The row it belongs to.
    pub(crate) row: Row,
    /// What `uname -r` says in the guest.
    pub(crate) release: String,
    /// The image; its modules are found from its place.
    pub(crate) image: PathBuf,
}

/// The row's kernel from the cache; fetched first if there is none. Does not touch the network otherwise.
pub(crate) fn ensure(row: &Row) -> Result<Kernel> {
    match cached(row)? {
        Some(kernel) => Ok(kernel),
        None => fetch(row),
    }
}

/// The row's newest kernel: asks the archive, downloads only what is newer than the cache.
pub(crate) fn fetch(row: &Row) -> Result<Kernel> {
    let dir = row_dir(row)?;
    let lock = File::create(dir.join("fetch.lock"))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    let before = cached(row)?;
    // The lock is ours: another fetch's folder can only be what a killed one left.
    let work = dir.join("fetch.tmp");
    remove(&work)?;
    let fetched = fetch_into(&work, row, before.as_ref());
    remove(&work)?;
    fetched.with_context(|| {
        format!(
            "cannot fetch kernel {} from suite {}: check the network and `apt-get update`",
            row.name, row.suite
        )
    })?;
    prune(&dir, before.as_ref())?;
    cached(row)?.context("the fetched kernel is not in the cache: try again")
}

/// The row's kernel, if the cache has one.
pub(crate) fn cached(row: &Row) -> Result<Option<Kernel>> {
    let dir = row_dir(row)?;
    let Ok(release) = std::fs::read_to_string(dir.join("current")) else {
        return Ok(None);
    };
    let root = dir.join(&release);
    Ok(find_image(&root, &release).map(|image| Kernel {
        row: row.clone(),
        release,
        image,
    }))
}

fn row_dir(row: &Row) -> Result<PathBuf> {
    let dir = env::cache_dir()?.join("kernels").join(&row.name);
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

fn fetch_into(work: &Path, row: &Row, before: Option<&Kernel>) -> Result<()> {
    let (name, suite) = (&row.name, &row.suite);
    let step = ui::Step::begin(&format!("kernel {name}: reading the lists of {suite}"));
    let apt = Apt::open(work, suite)?;
    let packages = apt.kernel_packages()?;
    if packages.is_empty() {
        bail!("linux-image-amd64 of {suite} names no kernel package");
    }
    let archives = apt.archive_names(&packages)?.join("\n");
    let dir = row_dir(row)?;
    let recorded = before.map(|kernel| dir.join(&kernel.release).join("packages"));
    if recorded.is_some_and(|path| std::fs::read_to_string(path).is_ok_and(|was| was == archives)) {
        return Ok(());
    }
    drop(step);
    let step = ui::Step::begin(&format!("kernel {name}: fetching {}", packages.join(", ")));
    let debs = apt.download(&packages)?;
    drop(step);
    let _step = ui::Step::begin(&format!("kernel {name}: unpacking"));
    let root = work.join("root");
    let release = unpack(&debs, &root)?;
    std::fs::write(root.join("packages"), archives)?;
    install(&dir, &root, &release)
}

/// Unpacks the archives and makes the modules loadable. Returns the kernel's release.
fn unpack(debs: &[PathBuf], root: &Path) -> Result<String> {
    for deb in debs {
        env::output(env::tool("dpkg").arg("-x").arg(deb).arg(root))?;
    }
    if !root.join("lib").exists() {
        // Newer packages know only /usr/lib; depmod looks in /lib.
        std::os::unix::fs::symlink("usr/lib", root.join("lib"))?;
    }
    let modules = std::fs::read_dir(root.join("lib/modules"))?;
    let releases = modules
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<Vec<_>>>()?;
    let [release] = &releases[..] else {
        bail!("expected the modules of one kernel, found {releases:?}");
    };
    env::output(env::tool("depmod").arg("-b").arg(root).arg(release))?;
    if find_image(root, release).is_none() {
        bail!("the packages contain no kernel image of {release}");
    }
    Ok(release.clone())
}

fn install(dir: &Path, root: &Path, release: &str) -> Result<()> {
    remove(&dir.join(release))?;
    std::fs::rename(root, dir.join(release))?;
    let mark = dir.join("current.tmp");
    std::fs::write(&mark, release)?;
    std::fs::rename(mark, dir.join("current"))?;
    Ok(())
}

/// Older packages have the image in /boot, newer ones beside the modules.
fn find_image(root: &Path, release: &str) -> Option<PathBuf> {
    let places = [
        format!("usr/lib/modules/{release}/vmlinuz"),
        format!("boot/vmlinuz-{release}"),
    ];
    let mut images = places.iter().map(|place| root.join(place));
    images.find(|image| image.is_file())
}

/// Removes old versions, but not the one from before: a guest may still run from it.
fn prune(dir: &Path, before: Option<&Kernel>) -> Result<()> {
    let current = std::fs::read_to_string(dir.join("current"))?;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let kept = *name == *current || before.is_some_and(|kernel| *name == *kernel.release);
        if entry.file_type()?.is_dir() && !kept {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
