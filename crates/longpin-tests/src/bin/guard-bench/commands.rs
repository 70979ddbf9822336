//! The commands that are compared.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// A command on a file.
pub(crate) fn words(command: &[&str], path: &Path) -> Vec<String> {
    let command = command.iter().map(|&word| word.to_owned());
    command
        .chain([path.to_string_lossy().into_owned()])
        .collect()
}

/// Where the file's blocks are, by e2fsprogs.
pub(crate) fn filefrag(path: &Path) -> Vec<String> {
    words(&["filefrag", "-v"], path)
}

/// The same by longpin.
pub(crate) fn extents_of(path: &Path) -> Vec<String> {
    words(&["longpin", "extents"], path)
}

/// A new file of zeroes, direct to the disk.
pub(crate) fn dd(path: &Path, size: u64) -> Vec<String> {
    let (of, count) = (format!("of={}", path.display()), size >> 22);
    let line = format!("dd if=/dev/zero bs=4M count={count} oflag=direct conv=fsync status=none");
    let mut words: Vec<_> = line.split(' ').map(str::to_owned).collect();
    words.push(of);
    words
}

/// The same by longpin.
pub(crate) fn prepare(path: &Path, size: u64) -> Vec<String> {
    words(&["longpin", "prepare", "--size", &size.to_string()], path)
}

/// If it is there.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => Err(err.into()),
        _ => Ok(()),
    }
}

/// Must succeed; what it prints goes nowhere.
pub(crate) fn command(words: &[String]) -> Result<()> {
    let (program, arguments) = words.split_first().context("no command")?;
    let status = Command::new(program)
        .args(arguments)
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("no {program}"))?;
    ensure!(status.success(), "{words:?}: {status}");
    Ok(())
}
