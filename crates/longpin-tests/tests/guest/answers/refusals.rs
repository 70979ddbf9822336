//! A refusal leaves the file as it was; what would stop half way is refused before it begins.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use longpin_tests::scratch::{FsKind, Scratch};

use crate::blocks::{check, sh, status};
use crate::{guard, pin};

/// Size, blocks, contents; nothing where there is no file.
fn state(file: &Path) -> Result<Option<String>> {
    if !file.exists() {
        return Ok(None);
    }
    let script =
        "stat -c '%s %b %a' $F; xfs_io -r -c fiemap $F; cksum <$F; lsattr $F 2>/dev/null || :";
    sh(script, file).map(Some)
}

fn refuse(file: &Path, script: &str, word: &str) -> Result<()> {
    let before = state(file)?;
    let said = sh(
        &format!("({script}) 2>&1 && echo status 0 || echo status $?"),
        file,
    )?;
    ensure!(said.contains(word), "no {word:?} in {said}");
    ensure!(
        said.contains("status 1") || said.contains("status 8"),
        "{said}"
    );
    let after = state(file)?;
    ensure!(before == after, "{script} left {after:?}, not {before:?}");
    Ok(())
}

pub(super) fn leave_nothing() -> Result<()> {
    let btrfs = Scratch::new(FsKind::Btrfs, 256 << 20)?;
    let file = btrfs.dir().join("small");
    // Either it is made fit, or nothing is left.
    let (code, words) = status(&["prepare", "--size", "1000", &file.to_string_lossy()])?;
    match code {
        0 => ensure!(
            check(&file, "blocks")?.0 == "yes" && fs::metadata(&file)?.len() == 1000,
            "{words}"
        ),
        _ => ensure!(!file.exists(), "{code}: {words}"),
    }
    btrfs.close()?;
    for kind in [FsKind::Ext4, FsKind::Xfs] {
        let scratch = Scratch::new(kind, kind.least_size())?;
        let file = scratch.dir().join("file");
        refuse(
            &file,
            "ulimit -f 2048; longpin prepare --size 8M $F",
            "RLIMIT_FSIZE",
        )?;
        sh(
            "dd if=/dev/urandom of=$F bs=1M count=2 status=none; truncate -s 3M $F; sync",
            &file,
        )?;
        refuse(
            &file,
            "ulimit -f 2048; longpin prepare --size 8M $F",
            "RLIMIT_FSIZE",
        )?;
        refuse(&file, "longpin prepare --size 4G $F", "allocate")?;
        scratch.close()?;
    }
    as_a_user()
}

/// Blocks that are kept for root, and a quota that is met half way.
fn as_a_user() -> Result<()> {
    const USER: &str = "setpriv --reuid 1000 --regid 1000 --clear-groups";
    let sparse = format!(
        "chmod 777 $D; {USER} sh -c 'truncate -s SIZE $F; dd if=/dev/urandom of=$F bs=1M count=1 seek=6 conv=notrunc,fsync status=none'; sync"
    );
    let prepare = format!("{USER} longpin prepare $F");
    let ext4 = Scratch::new(FsKind::Ext4, 64 << 20)?;
    let file = ext4.dir().join("file");
    sh(
        "tune2fs -m 40 $(findmnt -nvfo SOURCE -T $D) >/dev/null",
        &file,
    )?;
    sh(&sparse.replace("SIZE", "45M"), &file)?;
    refuse(&file, &prepare, "No space left")?;
    ext4.close()?;
    let xfs = Scratch::new(FsKind::Xfs, FsKind::Xfs.least_size())?;
    let file = xfs.dir().join("file");
    sh(
        "umount $D; mount -o loop,uquota $D/../store/image $D",
        &file,
    )?;
    sh("xfs_quota -x -c 'limit -u bhard=10m 1000' $D", &file)?;
    sh(&sparse.replace("SIZE", "13M"), &file)?;
    refuse(&file, &prepare, "quota")?;
    xfs.close()
}

/// Pinned by a device, or held on request: refused with the name of who has it, before anything is done.
pub(super) fn of_a_held_file() -> Result<()> {
    guard::on()?;
    let scratch = Scratch::new(FsKind::Ext4, 64 << 20)?;
    let path = scratch.dir().join("file");
    sh(
        "dd if=/dev/urandom of=$F bs=1M count=1 status=none; fallocate -l 2M $F; sync",
        &path,
    )?;
    let opened = File::options().read(true).write(true).open(&path)?;
    let pinned = pin::register_file(&opened, 0, 1 << 20, false)?;
    drop(opened);
    // Its mapping is the first reason.
    refuse(&path, "longpin prepare $F", "somebody has the file open")?;
    drop(pinned);
    let file = path.to_string_lossy();
    guard::must(&["hold", "--persist", "--level", "layout", &file])?;
    let prepared = status(&["prepare", &file])?;
    let rows = guard::holds_on(&path)?;
    let id = rows.first().and_then(|row| row["id"].as_u64());
    guard::must(&["release", &id.context("no hold")?.to_string()])?;
    ensure!(
        prepared.0 == 1 && prepared.1.contains("the file is held"),
        "{prepared:?}"
    );
    guard::must(&["prepare", &file])?;
    scratch.close()
}
