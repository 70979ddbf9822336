//! The header and the library, used by a program in C. What takes the kernel's help is tried in the guest.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where cargo has put the library: beside this test, or in the directory above.
fn library() -> io::Result<PathBuf> {
    let this = std::env::current_exe()?;
    let mut dirs = this.ancestors().skip(1).take(2);
    let found = dirs.find(|dir| dir.join("liblongpin_c.so").exists());
    found
        .map(Path::to_owned)
        .ok_or_else(|| io::ErrorKind::NotFound.into())
}

#[test]
fn a_program_in_c_asks_as_the_header_says() -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = tempfile::tempdir()?;
    let prefix = dir.path().join("prefix");
    let compiled = Command::new("sh")
        .arg(root.join("tests/build.sh"))
        .arg(library()?.join("liblongpin_c.so"))
        .arg(&prefix)
        .status()?;
    assert!(compiled.success());
    let file = dir.path().join("file");
    std::fs::write(&file, vec![1; 65_536])?;
    let output = Command::new(prefix.join("hold"))
        .arg("check")
        .arg(&file)
        .env("LD_LIBRARY_PATH", prefix.join("lib"))
        .output()?;
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}");
    Ok(())
}
