//! `longpin swapon`, `swapoff`, and swap files in `longpin ls`.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use longpin_linux::swap::read_swap_files;
use longpin_tests::pattern::Pattern;
use longpin_tests::scratch::{FsKind, Scratch};

use crate::blocks::{sh, status};
use crate::{Test, guard};

pub(crate) const TESTS: &[Test] = &[
    (
        "swapon_prepares_and_activates",
        swapon_prepares_and_activates,
    ),
    ("swapon_explains", swapon_explains),
];

const DISKS: [FsKind; 4] = [FsKind::Ext4, FsKind::Xfs, FsKind::Btrfs, FsKind::F2fs];

fn is_active(file: &Path) -> Result<bool> {
    Ok(read_swap_files()?.iter().any(|swap| swap.path == file))
}

/// On each file system: made, activated, listed (with and without guard), ended.
fn swapon_prepares_and_activates() -> Result<()> {
    guard::off()?;
    for kind in DISKS {
        let scratch = Scratch::new(kind, 320 << 20)?;
        let file = scratch.dir().join("swap");
        let path = file.to_string_lossy();
        guard::must(&[
            "swapon",
            "--prepare",
            "--size",
            "16M",
            "-L",
            "longpin",
            &path,
        ])?;
        ensure!(is_active(&file)?, "{kind}: not active");
        ensure!(
            sh("swaplabel $F", &file)?.contains("longpin"),
            "{kind}: no label"
        );
        listed(&file, kind == FsKind::F2fs)?;
        let busy = status(&["swapon", &path])?;
        ensure!(busy.0 == 1 && busy.1.contains("active-swap"), "{busy:?}");
        guard::must(&["swapoff", &path])?;
        ensure!(!is_active(&file)?, "{kind}: still active");
        let uuid = sh("swaplabel $F", &file)?;
        let again = guard::must(&["swapon", &path])?;
        ensure!(again.contains("header kept"), "{kind}: {again}");
        ensure!(sh("swaplabel $F", &file)? == uuid, "another header");
        guard::must(&["swapoff", &path])?;
        scratch.close()?;
    }
    Ok(())
}

/// In `ls`, with and without guard.
fn listed(file: &Path, with_guard: bool) -> Result<()> {
    let one = |when: &str| -> Result<()> {
        let holds = guard::holds_on(file)?;
        let [hold] = &holds[..] else {
            anyhow::bail!("{when}: {holds:?}")
        };
        ensure!(
            hold["kind"] == "swap" && hold["level"] == "swapfile",
            "{hold}"
        );
        ensure!(hold["start"] == 0 && hold["end"] == 16 << 20, "{hold}");
        let why = guard::must(&["why", &file.to_string_lossy()])?;
        ensure!(why.contains("active swap file"), "{when}: {why}");
        Ok(())
    };
    one("no guard")?;
    let table = guard::must(&["ls", "-n", "-o", "kind,level,path,start,end"])?;
    let expected = format!("swap swapfile {} 0 16M\n", file.display());
    ensure!(table == expected, "{table}");
    if with_guard {
        guard::on()?;
        one("a guard")?;
    }
    Ok(())
}

/// Every refusal says why, and what would cure it; the file is as it was.
fn swapon_explains() -> Result<()> {
    let scratch = Scratch::new(FsKind::Ext4, 128 << 20)?;
    keeps_data(&scratch)?;
    let hole = scratch.dir().join("hole");
    let path = hole.to_string_lossy();
    sh("truncate -s 4M $F", &hole)?;
    let first = "hole: 1, 4194304 bytes, the first at 0";
    refuse(
        &["swapon", &path],
        &[first, "hint: longpin swapon --prepare"],
    )?;
    ensure!(
        fs::read(&hole)? == vec![0; 4 << 20],
        "a header in a refused file"
    );
    guard::must(&["swapon", "--prepare", &path])?;
    guard::must(&["swapoff", &path])?;
    refuse(&["swapoff", &path], &["not active"])?;
    refuse(
        &["swapon", &scratch.dir().to_string_lossy()],
        &["a directory"],
    )?;
    scratch.close()
}

fn keeps_data(scratch: &Scratch) -> Result<()> {
    let data = scratch.file("data", 1 << 20, Pattern::new(5))?;
    let path = data.to_string_lossy();
    let before = fs::read(&data)?;
    let words = ["it would be lost", "hint: longpin swapon --force"];
    refuse(&["swapon", &path], &words)?;
    refuse(&["swapon", "--prepare", &path], &words)?;
    ensure!(
        fs::read(&data)? == before,
        "a refused swapon changed the file"
    );
    guard::must(&["swapon", "--force", &path])?;
    guard::must(&["swapoff", &path]).map(drop)
}

fn refuse(arguments: &[&str], words: &[&str]) -> Result<()> {
    let (code, said) = status(arguments)?;
    ensure!(code == 1, "{arguments:?}: {code}: {said}");
    for word in words {
        ensure!(said.contains(word), "{arguments:?}: no {word:?} in {said}");
    }
    Ok(())
}
