//! C12, level swapfile: whatever the file's history, what the holder stores stays where the map says, or there is no hold.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use longpin_tests::scratch::{FsKind, Scratch};

use crate::blocks::{check, sh, status};
use crate::guard;

const WRITTEN: &str = "dd if=/dev/urandom of=$F bs=1M count=2 conv=notrunc,fsync status=none";

/// Stores of the holder, through its mapping: in the first and last page, and where a copy was once.
const STORE: &str = "xfs_io -c 'mmap -rw 0 2m' -c 'mwrite -S 7 1048576 1' -c 'mwrite -S 7 1200000 1' \
    -c 'mwrite -S 7 100 1' -c 'mwrite -S 7 2097151 1' -c 'msync -s 0 2m' -c munmap $F; sync";

fn map(file: &Path) -> Result<String> {
    sh("xfs_io -r -c fiemap $F | tail -n +2", file)
}

/// Held, stored to, and where it was.
pub(super) fn stays(what: &str, file: &Path) -> Result<()> {
    let (verdict, names) = check(file, "blocks")?;
    ensure!(verdict == "yes", "{what}: {verdict} {names:?}");
    let before = map(file)?;
    let path = file.to_string_lossy();
    let holder = ["--", "sh", "-c", "F=$0; eval \"$1\"", &*path, STORE];
    let (code, words) = status(&[&["hold", &*path][..], &holder].concat())?;
    ensure!(code == 0, "{what}: {code}: {words}");
    let after = map(file)?;
    ensure!(before == after, "{what}: moved\n{before}{after}");
    println!("  {what}: stays");
    Ok(())
}

/// Refused by this name, by check and by hold alike.
pub(super) fn refused(what: &str, file: &Path, reason: &str) -> Result<()> {
    let (verdict, names) = check(file, "blocks")?;
    let named = names.iter().any(|name| name == reason);
    ensure!(verdict == "refused" && named, "{what}: {verdict} {names:?}");
    let path = file.to_string_lossy();
    let (code, words) = status(&["hold", &path, "--", "true"])?;
    ensure!(
        code == 1 && words.contains(reason),
        "{what}: {code}: {words}"
    );
    println!("  {what}: {reason}");
    Ok(())
}

pub(super) fn prepared(file: &Path) -> Result<()> {
    let before = fs::read(file)?;
    guard::must(&["prepare", &file.to_string_lossy()])?;
    ensure!(fs::read(file)? == before, "prepare changed the file");
    Ok(())
}

pub(super) fn xfs() -> Result<()> {
    guard::on()?;
    let scratch = Scratch::new(FsKind::Xfs, 320 << 20)?;
    let file = scratch.dir().join("file");
    let once_shared =
        "cp --reflink=always $F $F.2; xfs_io -c 'pwrite -q 1m 4k' -c fsync $F; rm $F.2; sync";
    sh(&format!("{WRITTEN}; {once_shared}"), &file)?;
    // Others keep what they have: data, size, map, times.
    let other = scratch.dir().join("other");
    sh(
        "xfs_io -f -c 'pwrite -q 0 64k' -c 'falloc -k 64k 1m' -c fsync $F",
        &other,
    )?;
    let of_other = || {
        sh(
            "stat -c '%s %b %x %y %z' $F; xfs_io -r -c fiemap $F",
            &other,
        )
    };
    let times = || sh("stat -c '%s %x %y %z' $F", &file);
    let before = (of_other()?, times()?);
    guard::must(&["hold", &file.to_string_lossy(), "--", "true"])?;
    ensure!(before == (of_other()?, times()?), "the hold changed files");
    stays("xfs, once shared", &file)?;
    sh(once_shared, &file)?;
    stays("xfs, once more", &file)?;
    sh("cp --reflink=always $F $F.2; sync", &file)?;
    refused("xfs, shared", &file, "shared")?;
    stays_prepared("xfs, hold --prepare", &file)?;
    scratch.close()
}

/// What is not fit is made so first.
fn stays_prepared(what: &str, file: &Path) -> Result<()> {
    let path = file.to_string_lossy();
    guard::must(&["hold", "--prepare", &path, "--", "true"])?;
    stays(what, file)
}

pub(super) fn ext4() -> Result<()> {
    guard::on()?;
    let scratch = Scratch::new(FsKind::Ext4, 64 << 20)?;
    let file = scratch.dir().join("file");
    sh(WRITTEN, &file)?;
    stays("ext4", &file)?;
    sh("chattr +j $F", &file)?;
    refused("ext4, chattr +j", &file, "journalled")?;
    sh(
        "chattr -j $F; umount $D; tune2fs -o journal_data $D/../store/image >/dev/null; mount -o loop $D/../store/image $D",
        &file,
    )?;
    refused("ext4, by its super block", &file, "journalled")?;
    let (code, words) = status(&["extents", &file.to_string_lossy()])?;
    ensure!(code == 1 && words.contains("journal"), "{code}: {words}");
    scratch.close()
}

pub(super) fn btrfs() -> Result<()> {
    guard::on()?;
    let scratch = Scratch::new(FsKind::Btrfs, 256 << 20)?;
    let file = scratch.dir().join("sub/file");
    let make = format!("btrfs -q subvolume create $D; touch $F; chattr +C $F; {WRITTEN}; sync");
    sh(&make, &file)?;
    stays("btrfs", &file)?;
    let snapshot = "btrfs -q subvolume snapshot $D $D/../was; sync";
    let forgotten =
        "btrfs -q subvolume delete $D/../was; btrfs subvolume sync $D/.. >/dev/null; sync";
    sh(snapshot, &file)?;
    refused("btrfs, snapshot", &file, "shared")?;
    sh(forgotten, &file)?;
    refused("btrfs, snapshot that is gone", &file, "snapshotted")?;
    let (verdict, names) = check(&file, "swap")?;
    ensure!(verdict == "yes", "for swap: {verdict} {names:?}");
    prepared(&file)?;
    stays("btrfs, prepared", &file)?;
    sh(
        "touch $D/copy; chattr +C $D/copy; cp --reflink=always $F $D/copy; sync",
        &file,
    )?;
    refused("btrfs, shared", &file, "shared")?;
    sh(snapshot, &file)?;
    prepared(&file)?;
    stays("btrfs, prepared beside snapshot and copy", &file)?;
    scratch.close()
}

pub(super) fn f2fs() -> Result<()> {
    guard::on()?;
    let scratch = Scratch::new(FsKind::F2fs, 128 << 20)?;
    let file = scratch.dir().join("file");
    guard::must(&["prepare", "--size", "2M", &file.to_string_lossy()])?;
    sh(WRITTEN, &file)?;
    stays("f2fs", &file)?;
    scratch.close()
}

/// Pages stay; of a file that is copied on write, the blocks do not.
pub(super) fn layout() -> Result<()> {
    guard::on()?;
    for (kind, word) in [
        (FsKind::Btrfs, "copy-on-write"),
        (FsKind::Xfs, "shared"),
        (FsKind::Ext4, ""),
    ] {
        let scratch = Scratch::new(kind, kind.least_size())?;
        let file = scratch.dir().join("file");
        sh(WRITTEN, &file)?;
        if kind == FsKind::Xfs {
            sh("cp --reflink=always $F $F.2; sync", &file)?;
        }
        let path = file.to_string_lossy();
        let (code, words) = status(&["hold", "--level", "layout", &path, "--", "true"])?;
        let said = words.contains("writes move its blocks");
        ensure!(
            code == 0 && said != word.is_empty(),
            "{kind}: {code}: {words}"
        );
        ensure!(words.contains(word), "{kind}: {words}");
        let (code, words) = status(&["extents", &path]).context("extents")?;
        ensure!(
            code == 0 && words.contains("nobody is known to hold it"),
            "{kind}: {words}"
        );
        scratch.close()?;
    }
    Ok(())
}
