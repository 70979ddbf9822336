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
    let built = release.join("liblongpin_c.so").exists();
    ensure!(built, "not built: cargo build --release -p longpin-c");
    let program = "/tmp/lend";
    let compiled = Command::new("cc")
        .args(["-D_GNU_SOURCE", "-o", program, "-I"])
        .arg(root.join("include"))
        .arg(root.join("tests/lend.c"))
        .arg("-L")
        .arg(release)
        .arg("-llongpin_c")
        .status()
        .context("no cc")?;
    ensure!(compiled.success(), "cc: {compiled}");
    let f = TestFile::new(FsKind::Ext4, 1 << 20)?;
    let output = Command::new(program)
        .arg("lend")
        .arg(&f.path)
        .env("LD_LIBRARY_PATH", release)
        .output()?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {words}", output.status);
    ensure!(guard::holds_on(&f.path)?.is_empty(), "a hold is left");
    Ok(())
}
