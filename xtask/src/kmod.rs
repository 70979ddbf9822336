//! `cargo xtask kmod`: the kernel module of `kmod/`, built for rows of `KERNELS`, each with the compiler and the headers
//! of the row's own suite.
//!
//! A row's module lies in `target/kmod/ROW`, beside the sources that it was made of: while those, the kernel and the
//! build tree stay as they are, nothing is built again.

mod dkms;
mod tree;

use crate::kernels::{self, Kernel};
use crate::rows::{self, Row};
use crate::{env, ui};
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use tree::Tree;

/// The module's file, for modprobe and for people.
const MODULE: &str = "longpin-lend.ko";

/// For which rows, and how.
#[derive(Debug, Args)]
pub(crate) struct KmodArgs {
    /// Row of KERNELS; may be given several times. Without it: all
    #[arg(long = "row", value_name = "ROW")]
    rows: Vec<String>,
    /// Also build it as DKMS does on a user's machine, by kmod/dkms.conf
    #[arg(long)]
    dkms: bool,
}

impl KmodArgs {
    pub(crate) fn run(&self) -> Result<u8> {
        let rows = rows::select(&self.rows)?;
        let mut failed = 0;
        for (row, built) in rows.iter().zip(build_all(&rows, self.dkms)) {
            match built {
                Ok(path) => println!("{:<9} {}", row.name, path.display()),
                Err(error) => {
                    ui::say(&format!("error: {}: {error:#}", row.name));
                    failed = 1;
                }
            }
        }
        Ok(failed)
    }
}

/// Side by side, as most of it is waiting for the network and for disks; in the order of the rows.
fn build_all(rows: &[Row], dkms: bool) -> Vec<Result<PathBuf>> {
    let answers: Mutex<Vec<_>> = Mutex::new(rows.iter().map(|_| None).collect());
    std::thread::scope(|scope| {
        for (number, row) in rows.iter().enumerate() {
            let answers = &answers;
            scope.spawn(move || {
                let built = kernels::ensure(row).and_then(|kernel| {
                    let module = ensure(&kernel)?;
                    if dkms {
                        dkms::build(&kernel)?;
                    }
                    Ok(module)
                });
                answers.lock().unwrap_or_else(PoisonError::into_inner)[number] = Some(built);
            });
        }
    });
    let answers = answers.into_inner().unwrap_or_else(PoisonError::into_inner);
    let missing = || Err(anyhow!("its thread died: see above, and try again"));
    answers
        .into_iter()
        .map(|built| built.unwrap_or_else(missing))
        .collect()
}

/// The kernel's module; built first unless it is there and nothing has changed.
pub(crate) fn ensure(kernel: &Kernel) -> Result<PathBuf> {
    let dir = row_dir(&kernel.row)?;
    std::fs::create_dir_all(&dir).with_context(|| full(&dir))?;
    let lock = File::create(dir.join("build.lock"))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    let tree = Tree::ensure(kernel)?;
    let wanted = ingredients(kernel, &tree)?;
    let (module, told) = (dir.join(MODULE), dir.join("made-of"));
    if module.is_file() && std::fs::read(&told).is_ok_and(|was| was == wanted) {
        return Ok(module);
    }
    env::remove_dir(&dir.join("build"))?;
    let _ = std::fs::remove_file(&told);
    ui::say(&format!("kmod {}: building", kernel.row.name));
    let built = make(kernel, &tree, &dir.join("build"))?;
    // Renamed into its place, as a guest may have the old one open.
    let fresh = dir.join("fresh.ko");
    std::fs::copy(built, &fresh).with_context(|| full(&dir))?;
    std::fs::rename(fresh, &module)?;
    std::fs::write(told, wanted).with_context(|| full(&dir))?;
    Ok(module)
}

/// The kernel's module, if one was built for exactly this kernel; for guests that need none.
pub(crate) fn find(kernel: &Kernel) -> Result<Option<PathBuf>> {
    let dir = row_dir(&kernel.row)?;
    let told = std::fs::read(dir.join("made-of")).unwrap_or_default();
    let module = dir.join(MODULE);
    if !module.is_file() || !told.starts_with(head(kernel).as_bytes()) {
        return Ok(None);
    }
    if !told.ends_with(&contents()?) {
        let name = &kernel.row.name;
        ui::say(&format!(
            "kmod {name}: older than its sources: `cargo xtask kmod --row {name}` builds it"
        ));
    }
    Ok(Some(module))
}

/// For the rows whose tests load it: what went wrong, in lines.
pub(crate) fn prepare(rows: &[Row]) -> Vec<String> {
    let built = rows.iter().zip(build_all(rows, false));
    let failed = built.filter_map(|(row, built)| Some((row, built.err()?)));
    failed
        .map(|(row, error)| format!("{}: {error:#}", row.name))
        .collect()
}

fn row_dir(row: &Row) -> Result<PathBuf> {
    Ok(env::target_dir()?.join("kmod").join(&row.name))
}

/// All that the module is made of, byte by byte: kernel, build tree, sources.
fn ingredients(kernel: &Kernel, tree: &Tree) -> Result<Vec<u8>> {
    let mut all = head(kernel).into_bytes();
    all.extend(tree.packages.as_bytes());
    all.extend(contents()?);
    Ok(all)
}

/// The sources, one after the other.
fn contents() -> Result<Vec<u8>> {
    let mut all = Vec::new();
    for source in sources()? {
        let name = source.file_name().unwrap_or_default().to_string_lossy();
        all.extend(format!("\n== {name}\n").into_bytes());
        all.extend(std::fs::read(&source)?);
    }
    Ok(all)
}

fn head(kernel: &Kernel) -> String {
    format!("{} {}\n", kernel.release, kernel.version)
}

/// What the kernel's build system reads: C, headers, its own files, and DKMS's.
fn sources() -> Result<Vec<PathBuf>> {
    let dir = env::workspace()?.join("kmod");
    let entries = std::fs::read_dir(&dir)
        .with_context(|| format!("no sources in {}: check the tree out again", dir.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let end = path.extension().unwrap_or_default();
        if end == "c" || end == "h" || ["Kbuild", "Makefile", "dkms.conf"].contains(&&*name) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Copies of the sources, into an empty directory.
fn lay_out(to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).with_context(|| full(to))?;
    for source in sources()? {
        let name = source.file_name().context("a source without a name")?;
        std::fs::copy(&source, to.join(name)).with_context(|| full(to))?;
    }
    Ok(())
}

/// Builds in `dir` with all warnings, each of which is an error, and with sparse where the headers can call it.
fn make(kernel: &Kernel, tree: &Tree, dir: &Path) -> Result<PathBuf> {
    lay_out(dir)?;
    let headers = tree.headers(kernel);
    let mut words = vec!["make", "-C", &*headers, "M=/src", "W=1"];
    if tree.has_sparse(kernel) {
        words.push("C=2");
    } else {
        let name = &kernel.row.name;
        ui::say(&format!(
            "kmod {name}: not checked by sparse: its headers lack what calls it"
        ));
    }
    words.push("modules");
    let log = tree.enter(dir, &words)?;
    std::fs::write(dir.join("log"), &log)?;
    let warnings: Vec<_> = log.lines().filter(|line| is_warning(line)).collect();
    if !warnings.is_empty() {
        bail!(
            "{} warnings:\n{}\nmend them in kmod/: each is an error; all that was said is in {}",
            warnings.len(),
            warnings.join("\n"),
            dir.join("log").display()
        );
    }
    let built = std::fs::read_dir(dir)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|end| end == "ko"));
    built.with_context(|| {
        format!(
            "no module was built: look at kmod/Kbuild and {}",
            dir.join("log").display()
        )
    })
}

/// A compiler's, sparse's or modpost's word on the module's own sources.
fn is_warning(line: &str) -> bool {
    ["warning:", "error:", "WARNING:"]
        .iter()
        .any(|word| line.contains(word))
}

fn full(dir: &Path) -> String {
    format!(
        "cannot write below {}: make room on its disk, or look at its permissions",
        dir.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dkms_builds_the_version_that_cargo_builds() {
        let conf = std::fs::read_to_string(env::workspace().unwrap().join("kmod/dkms.conf"));
        let wanted = format!("PACKAGE_VERSION=\"{}\"", env!("CARGO_PKG_VERSION"));
        assert!(conf.unwrap().lines().any(|line| line == wanted));
    }

    #[test]
    fn what_the_tools_say_is_told_from_what_kbuild_says() {
        assert!(is_warning("/src/a.c:3:5: warning: unused variable 'x'"));
        assert!(is_warning(
            "WARNING: modpost: missing MODULE_DESCRIPTION() in /src/a.o"
        ));
        assert!(!is_warning("  CC [M]  /src/a.o"));
        assert!(!is_warning(
            "Skipping BTF generation for /src/a.ko due to unavailability of vmlinux"
        ));
    }
}
