//! Build trees: what a row's suite builds modules with, unpacked below the cache and entered by chroot. Nothing is
//! installed on the machine.
//!
//! As with kernels, a tree gets its name only when it is complete.

use crate::apt::Apt;
use crate::kernels::{self, Kernel};
use crate::{env, ui};
use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// What kbuild and DKMS call, and no package names as it is essential in Debian; sparse and DKMS themselves.
const TOOLS: [&str; 13] = [
    "make",
    "dash",
    "bash",
    "coreutils",
    "sed",
    "grep",
    "findutils",
    "mawk",
    "tar",
    "gzip",
    "xz-utils",
    "sparse",
    "dkms",
];

/// Enters the tree (the first argument) with the source directory (the second) at /src, and runs the rest there. All of it
/// in a mount namespace of its own, so nothing is left mounted. DKMS writes to /var.
const ENTER: &str = r#"
root=$1 src=$2; shift 2
mount --bind "$src" "$root/src"
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/tmp"
mount -t tmpfs tmpfs "$root/var"
mkdir -p "$root/var/tmp" "$root/var/lib/dkms"
exec chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp LC_ALL=C "$@"
"#;

/// A complete build tree.
pub(crate) struct Tree {
    root: PathBuf,
    /// The archives that it was unpacked from.
    pub(crate) packages: String,
}

impl Tree {
    /// The kernel's tree from the cache; fetched first if there is none. Does not touch the network otherwise.
    pub(crate) fn ensure(kernel: &Kernel) -> Result<Self> {
        let dir = env::cache_dir()?.join("trees").join(&kernel.row.name);
        std::fs::create_dir_all(&dir)?;
        let lock = File::create(dir.join("fetch.lock"))?;
        flock(&lock, FlockOperation::LockExclusive)?;
        if let Some(tree) = cached(&dir, kernel) {
            return Ok(tree);
        }
        // The lock is ours: what is there is a killed fetch's, or was for another kernel.
        let work = dir.join("fetch.tmp");
        env::remove_dir(&work)?;
        let fetched = fetch(&work, kernel).and_then(|()| install(&dir, &work, kernel));
        env::remove_dir(&work)?;
        fetched.map_err(|error| explain(&error, kernel, &dir))?;
        cached(&dir, kernel).context("the fetched tree is not in the cache: try again")
    }

    /// Where in the tree the kernel's headers are.
    pub(crate) fn headers(&self, kernel: &Kernel) -> String {
        format!("/usr/src/linux-headers-{}", kernel.release)
    }

    /// Since 7.2 Debian's headers lack the script by which kbuild calls sparse.
    pub(crate) fn has_sparse(&self, kernel: &Kernel) -> bool {
        let headers = self.root.join(&self.headers(kernel)[1..]);
        let calls = std::fs::read_to_string(headers.join("Makefile")).unwrap_or_default();
        let common = calls
            .split_whitespace()
            .find(|word| word.starts_with("/usr/src/") && word.ends_with("-common/Makefile"));
        let makefile = common.map(|path| self.root.join(&path[1..]));
        let Some(dir) = makefile.as_deref().and_then(Path::parent) else {
            return false;
        };
        let text = std::fs::read_to_string(dir.join("Makefile")).unwrap_or_default();
        !text.contains("checker-valid.sh") || dir.join("scripts/checker-valid.sh").is_file()
    }

    /// Runs a command in the tree, with `dir` as its /src: all that it wrote, or an error with its end.
    pub(crate) fn enter(&self, dir: &Path, words: &[&str]) -> Result<String> {
        let mut command = env::tool("unshare");
        command.arg("--mount");
        if !rustix::process::geteuid().is_root() {
            command.arg("--map-root-user");
        }
        // One stream, so that the order of what compilers and make say is kept.
        command.args(["sh", "-ec", &format!("exec 2>&1\n{ENTER}"), "enter"]);
        command.arg(&self.root).arg(dir).args(words);
        let output = command
            .stdin(std::process::Stdio::null())
            .output()
            .context("cannot run unshare: run `cargo xtask setup`")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(text);
        }
        let said = [text, String::from_utf8_lossy(&output.stderr).into_owned()].concat();
        let remedy = match () {
            () if is_forbidden(&said) => {
                "modules are built in a chroot: run it as root, or let users have namespaces (sysctl \
                 kernel.unprivileged_userns_clone=1)"
                    .to_owned()
            }
            () if said.contains("No space left") => {
                format!("make room on the disk of {}", dir.display())
            }
            () => format!(
                "mend it in kmod/; if the build tree is broken, remove {} and try again",
                self.root.display()
            ),
        };
        let (words, what) = (words.join(" "), tail(&said));
        bail!(
            "`{words}` failed in the build tree ({}):\n{what}\n{remedy}",
            output.status
        )
    }
}

/// The command never began.
fn is_forbidden(said: &str) -> bool {
    let not_permitted =
        said.contains("Operation not permitted") || said.contains("ermission denied");
    let by = ["unshare:", "mount:", "chroot:"];
    not_permitted && by.iter().any(|tool| said.contains(tool))
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

fn cached(dir: &Path, kernel: &Kernel) -> Option<Tree> {
    let root = dir.join(&kernel.release);
    let packages = std::fs::read_to_string(root.join("packages")).ok()?;
    let same = version_of_headers(&packages, kernel) == Some(kernel.version.clone());
    same.then_some(Tree { root, packages })
}

fn fetch(work: &Path, kernel: &Kernel) -> Result<()> {
    let row = &kernel.row;
    ui::say(&format!("kmod {}: fetching the build tree", row.name));
    let apt = Apt::open(work, &suites(&row.suite))?;
    let headers = format!("linux-headers-{}", kernel.release);
    let wanted: Vec<_> = std::iter::once(&*headers).chain(TOOLS).collect();
    let archives =
        apt.needed(&wanted)
            .map_err(|error| match error.to_string().contains(&headers) {
                true => anyhow!(renew(kernel, "has no headers for it")),
                false => error,
            })?;
    let packages = archives.join("\n");
    let version = version_of_headers(&packages, kernel).unwrap_or_default();
    ensure!(
        version == kernel.version,
        renew(kernel, &format!("has the headers of {version}"))
    );
    let names: Vec<_> = archives.iter().filter_map(|name| package(name)).collect();
    let debs = apt.download(&names)?;
    let root = work.join("root");
    for deb in debs {
        env::output(env::tool("dpkg-deb").arg("-x").arg(deb).arg(&root))?;
    }
    complete(&root)?;
    Ok(std::fs::write(root.join("packages"), packages)?)
}

/// What the packages' own scripts would do.
fn complete(root: &Path) -> Result<()> {
    for dir in ["src", "proc", "dev", "tmp", "var"] {
        std::fs::create_dir_all(root.join(dir))?;
    }
    for (name, program) in [("sh", "dash"), ("awk", "mawk")] {
        for dir in ["bin", "usr/bin"].map(|dir| root.join(dir)) {
            if dir.join(program).exists() && !dir.join(name).exists() {
                symlink(program, dir.join(name))?;
            }
        }
    }
    Ok(())
}

/// The tree gets its name; the others go.
fn install(dir: &Path, work: &Path, kernel: &Kernel) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() && path != work {
            env::remove_dir(&path)?;
        }
    }
    Ok(std::fs::rename(
        work.join("root"),
        dir.join(&kernel.release),
    )?)
}

/// A backport's compiler is that of the suite it was made for.
fn suites(suite: &str) -> Vec<&str> {
    let base = suite.strip_suffix("-backports");
    std::iter::once(suite).chain(base).collect()
}

/// The package in an archive's name, PACKAGE_VERSION_ARCH.deb.
fn package(archive: &str) -> Option<String> {
    Some(archive.split_once('_')?.0.to_owned())
}

fn version_of_headers(packages: &str, kernel: &Kernel) -> Option<String> {
    kernels::package_version(packages, &format!("linux-headers-{}_", kernel.release))
}

/// How the remedy ends where the archive has moved on.
const RENEWED: &str = "fetches what the archive has now";

fn renew(kernel: &Kernel, what: &str) -> String {
    let (row, seen) = (&kernel.row, kernel.in_words());
    format!(
        "the row boots {seen}, and {} {what}\n`cargo xtask kernels {} --update` {RENEWED}",
        row.suite, row.name
    )
}

/// The error, and in the last line what to do about it.
fn explain(error: &anyhow::Error, kernel: &Kernel, dir: &Path) -> anyhow::Error {
    let name = &kernel.row.name;
    let said = format!("cannot fetch the build tree of {name}: {error:#}");
    if said.ends_with(RENEWED) {
        return anyhow!(said);
    }
    let remedy = env::if_full(error, dir).unwrap_or_else(|| {
        "check the network, `apt-get update`, and the row in KERNELS".to_owned()
    });
    anyhow!("{said}\n{remedy}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backport_is_built_with_the_compiler_of_its_base() {
        assert_eq!(suites("trixie-backports"), ["trixie-backports", "trixie"]);
        assert_eq!(suites("sid"), ["sid"]);
    }

    #[test]
    fn the_headers_must_be_those_of_the_kernel() {
        let kernel = Kernel {
            row: crate::rows::parse("6.1 bookworm amd64 full whole -")
                .unwrap()
                .remove(0),
            release: "6.1.0-50-amd64".to_owned(),
            version: "6.1.176-1".to_owned(),
            image: PathBuf::new(),
        };
        let of = |names: &str| version_of_headers(names, &kernel);
        let common = "linux-headers-6.1.0-50-common_6.1.170-1_all.deb";
        let own = "linux-headers-6.1.0-50-amd64_6.1.176-1_amd64.deb";
        assert_eq!(
            of(&format!("{common}\n{own}")).as_deref(),
            Some("6.1.176-1")
        );
        assert_eq!(of(common), None);
        let said = renew(&kernel, "has no headers for it");
        assert!(
            said.contains("`cargo xtask kernels 6.1 --update`"),
            "{said}"
        );
    }

    #[test]
    fn who_may_not_enter_is_told_what_to_do() {
        assert!(is_forbidden(
            "unshare: unshare failed: Operation not permitted"
        ));
        assert!(is_forbidden("mount: /x: permission denied."));
        assert!(!is_forbidden("/src/a.c:1: error: expected identifier"));
    }
}
