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

/// How the name of the package with the image begins.
const IMAGE: &str = "linux-image-";

/// A kernel in the cache, ready to boot.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// The row it belongs to.
    pub(crate) row: Row,
    /// What `uname -r` says in the guest.
    pub(crate) release: String,
    /// Debian's version of the package, without what it was built for: `6.1.176-1`.
    pub(crate) version: String,
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
    env::remove_dir(&work)?;
    let fetched = fetch_into(&work, row, before.as_ref());
    env::remove_dir(&work)?;
    fetched.map_err(|error| explain(error, row, &dir))?;
    prune(&dir, before.as_ref())?;
    cached(row)?.context("the fetched kernel is not in the cache: try again")
}

/// The error with what to do about it.
fn explain(error: anyhow::Error, row: &Row, dir: &Path) -> anyhow::Error {
    let remedy = env::if_full(&error, dir).unwrap_or_else(|| {
        "check the network, `apt-get update`, and the row in KERNELS".to_owned()
    });
    let (name, suite) = (&row.name, &row.suite);
    error.context(format!(
        "cannot fetch kernel {name} from suite {suite}: {remedy}"
    ))
}

/// The row's kernel, if the cache has one.
pub(crate) fn cached(row: &Row) -> Result<Option<Kernel>> {
    let dir = row_dir(row)?;
    let Ok(release) = std::fs::read_to_string(dir.join("current")) else {
        return Ok(None);
    };
    // Of the suite and flavour that the row had before.
    if std::fs::read_to_string(dir.join("from")).is_ok_and(|from| from != source(row)) {
        return Ok(None);
    }
    let root = dir.join(&release);
    let archives = std::fs::read_to_string(root.join("packages")).unwrap_or_default();
    Ok(find_image(&root, &release).map(|image| Kernel {
        row: row.clone(),
        version: package_version(&archives, IMAGE).unwrap_or_else(|| release.clone()),
        release,
        image,
    }))
}

impl Kernel {
    /// Whether a guest of one would be a guest of the other: built from the same source, in the same flavour, and told
    /// the same.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let told = |kernel: &Self| (kernel.row.flavour.clone(), kernel.row.words.clone());
        self.version == other.version && told(self) == told(other)
    }

    /// Its version and its name, for people.
    pub(crate) fn in_words(&self) -> String {
        format!("Linux {} ({})", self.version, self.release)
    }
}

/// From the name of the archive that begins like this, PACKAGE_VERSION_ARCH.deb; a backport's is that of what was brought
/// back.
pub(crate) fn package_version(archives: &str, begin: &str) -> Option<String> {
    let archive = archives.lines().find(|name| name.starts_with(begin))?;
    let version = archive.split('_').nth(1)?;
    let version = version.split("~bpo").next()?;
    Some(version.to_owned())
}

/// What the row says of where its kernel is from.
fn source(row: &Row) -> String {
    format!("{} {}\n", row.suite, row.flavour)
}

fn row_dir(row: &Row) -> Result<PathBuf> {
    let dir = env::cache_dir()?.join("kernels").join(&row.name);
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

fn fetch_into(work: &Path, row: &Row, before: Option<&Kernel>) -> Result<()> {
    let (name, suite) = (&row.name, &row.suite);
    let step = ui::Step::begin(&format!("kernel {name}: reading the lists of {suite}"));
    let apt = Apt::open(work, &[&**suite])?;
    let packages = apt.kernel_packages(&row.metapackage())?;
    if packages.is_empty() {
        bail!("{} of {suite} names no kernel package", row.metapackage());
    }
    let archives = apt.archive_names(&packages)?.join("\n");
    let dir = row_dir(row)?;
    let recorded = before.map(|kernel| dir.join(&kernel.release).join("packages"));
    if recorded.is_some_and(|path| std::fs::read_to_string(path).is_ok_and(|was| was == archives)) {
        return Ok(std::fs::write(dir.join("from"), source(row))?);
    }
    drop(step);
    let step = ui::Step::begin(&format!("kernel {name}: fetching {}", packages.join(", ")));
    let debs = apt.download(&packages)?;
    drop(step);
    let _step = ui::Step::begin(&format!("kernel {name}: unpacking"));
    let root = work.join("root");
    let release = unpack(&debs, &root)?;
    std::fs::write(root.join("packages"), archives)?;
    install(&dir, &root, &release)?;
    Ok(std::fs::write(dir.join("from"), source(row))?)
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
    env::remove_dir(&dir.join(release))?;
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
            env::remove_dir(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backport_has_the_version_of_what_was_brought_back() {
        let of =
            |name: &str| package_version(&format!("linux-modules-x_1_amd64.deb\n{name}\n"), IMAGE);
        let bookworm = of("linux-image-6.1.0-50-amd64_6.1.176-1_amd64.deb");
        assert_eq!(bookworm.as_deref(), Some("6.1.176-1"));
        let backport = of("linux-image-7.3.4+deb13-amd64_7.3.4-1~bpo13+1_amd64.deb");
        assert_eq!(
            backport,
            of("linux-image-7.3.4+deb14-amd64_7.3.4-1_amd64.deb")
        );
        assert_eq!(of("other"), None);
    }

    #[test]
    fn rows_of_one_kernel_are_told_apart_by_flavour_and_words() {
        let kernel = |line: &str| Kernel {
            row: crate::rows::parse(line).unwrap().remove(0),
            release: String::new(),
            version: "7.3.4-1".to_owned(),
            image: PathBuf::new(),
        };
        let one = kernel("latest sid amd64 full whole -");
        assert!(one.is_same(&kernel("backports trixie-backports amd64 full whole -")));
        assert!(!one.is_same(&kernel("other sid amd64 full whole lsm=bpf")));
        assert!(!one.is_same(&kernel("other sid rt-amd64 full whole -")));
    }
}
