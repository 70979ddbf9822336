//! Places and tools: the workspace, the target directory, the cache, and child processes that find `/usr/sbin`.

use anyhow::{Context, Result, bail};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Root of the workspace this binary was built from.
pub(crate) fn workspace() -> Result<PathBuf> {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    let root = manifest.parent().map(Path::to_path_buf);
    root.filter(|root| root.join("KERNELS").is_file())
        .with_context(|| {
            format!(
                "{} is not inside the workspace: run `cargo xtask` from a checkout",
                manifest.display()
            )
        })
}

/// Cargo's target directory, absolute.
pub(crate) fn target_dir() -> Result<PathBuf> {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => Ok(std::path::absolute(PathBuf::from(dir))?),
        None => Ok(workspace()?.join("target")),
    }
}

/// Where kernels and virtme-ng are kept: `$LONGPIN_CACHE`, else `longpin` in the user's cache directory.
pub(crate) fn cache_dir() -> Result<PathBuf> {
    let dir = if let Some(dir) = set("LONGPIN_CACHE") {
        PathBuf::from(dir)
    } else if let Some(dir) = set("XDG_CACHE_HOME") {
        PathBuf::from(dir).join("longpin")
    } else if let Some(home) = set("HOME") {
        PathBuf::from(home).join(".cache/longpin")
    } else {
        bail!("no cache directory: set LONGPIN_CACHE to a directory with 1 GB to spare");
    };
    std::fs::create_dir_all(&dir).with_context(|| {
        format!(
            "cannot create {}: set LONGPIN_CACHE to a writable directory",
            dir.display()
        )
    })?;
    Ok(dir.canonicalize()?)
}

/// A variable that is not empty.
pub(crate) fn set(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// PATH with the administrators' tools: a user's PATH often lacks `/usr/sbin`, where depmod and mkfs are.
pub(crate) fn search_path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    path
}

/// A command, looked up in [`search_path`].
pub(crate) fn tool(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(name);
    command.env("PATH", search_path());
    command
}

/// Runs a command to its end with its output shown; an unsuccessful end is an error that names it.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command
        .status()
        .with_context(|| format!("cannot run {name}: run `cargo xtask setup`"))?;
    if !status.success() {
        bail!("{name} failed ({status})");
    }
    Ok(())
}

/// Runs a command to its end and returns its standard output; its standard error becomes part of the error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("cannot run {name}: run `cargo xtask setup`"))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        bail!("{name} failed ({}): {}", output.status, reason.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Removes a directory and what is in it, if it is there.
pub(crate) fn remove_dir(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// What to do, if it went wrong because the disk of this directory of the cache is full.
pub(crate) fn if_full(error: &anyhow::Error, dir: &Path) -> Option<String> {
    let said = format!("{error:#}");
    let full = ["No space left", "enough free space", "os error 28"];
    full.iter().any(|words| said.contains(words)).then(|| {
        format!(
            "the disk of {} is full: make 1 GB of room, or set LONGPIN_CACHE to another",
            dir.display()
        )
    })
}
