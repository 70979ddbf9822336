//! The C library: a program in C holds a file.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use longpin_tests::scratch::FsKind;

use crate::files::TestFile;
use crate::{Test, guard};

pub(crate) const TESTS: &[Test] = &[("c_program_holds", c_program_holds)];

fn c_program_holds() -> Result<()> {
    guard::on()?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../longpin-c");
    let this = std::env::current_exe()?;
    let release = this.parent().and_then(Path::parent).context("no parent")?;
    let library = release.join("liblongpin_c.so");
    let built = library.exists();
    ensure!(built, "not built: cargo build --release -p longpin-c");
    let dir = tempfile::tempdir()?;
    let compiled = Command::new("sh")
        .arg(root.join("tests/build.sh"))
        .arg(&library)
        .arg(dir.path())
        .output()
        .context("no sh")?;
    let words = String::from_utf8_lossy(&compiled.stderr);
    ensure!(compiled.status.success(), "not compiled: {words}");
    let f = TestFile::new(FsKind::Ext4, 65_536)?;
    let output = Command::new(dir.path().join("hold"))
        .arg("hold")
        .arg(&f.path)
        .env("LD_LIBRARY_PATH", dir.path().join("lib"))
        .output()?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {words}", output.status);
    ensure!(guard::holds_on(&f.path)?.is_empty(), "a hold is left");
    Ok(())
}
