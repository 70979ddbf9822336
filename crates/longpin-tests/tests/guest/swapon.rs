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
        listed(&file)?;
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

fn listed(file: &Path) -> Result<()> {
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
        Ok(())
    };
    one("no guard")?;
    let table = guard::must(&["ls", "-n", "-o", "kind,level,path,start,end"])?;
    let expected = format!("swap swapfile {} 0 16M\n", file.display());
    ensure!(table == expected, "{table}");
    guard::on()?;
    one("a guard")?;
    guard::off()
}

/// Every refusal says why, and what would cure it; the file is as it was.
fn swapon_explains() -> Result<()> {
    let scratch = Scratch::new(FsKind::Ext4, 128 << 20)?;
    let data = scratch.file("data", 1 << 20, Pattern::new(5))?;
    let path = data.to_string_lossy();
    let before = fs::read(&data)?;
    let refused = status(&["swapon", &path])?;
    ensure!(
        refused.0 == 1 && refused.1.contains("it would be lost"),
        "{refused:?}"
    );
    ensure!(
        refused.1.contains("hint: longpin swapon --force"),
        "{refused:?}"
    );
    let refused = status(&["swapon", "--prepare", &path])?;
    ensure!(
        refused.0 == 1 && refused.1.contains("it would be lost"),
        "{refused:?}"
    );
    ensure!(
        fs::read(&data)? == before,
        "a refused swapon changed the file"
    );
    guard::must(&["swapon", "--force", &path])?;
    guard::must(&["swapoff", &path])?;

    let hole = scratch.dir().join("hole");
    sh("truncate -s 4M $F", &hole)?;
    let refused = status(&["swapon", &hole.to_string_lossy()])?;
    let named = refused.1.contains("hole: 1, 4194304 bytes, the first at 0");
    let cured = refused.1.contains("hint: longpin swapon --prepare");
    ensure!(refused.0 == 1 && named && cured, "{refused:?}");
    ensure!(
        fs::read(&hole)? == vec![0; 4 << 20],
        "a header in a refused file"
    );
    guard::must(&["swapon", "--prepare", &hole.to_string_lossy()])?;
    guard::must(&["swapoff", &hole.to_string_lossy()])?;
    let refused = status(&["swapoff", &hole.to_string_lossy()])?;
    ensure!(
        refused.0 == 1 && refused.1.contains("not active"),
        "{refused:?}"
    );
    let refused = status(&["swapon", &scratch.dir().to_string_lossy()])?;
    ensure!(
        refused.0 == 1 && refused.1.contains("a directory"),
        "{refused:?}"
    );
    scratch.close()
}
