//! Siblings of what the field showed: the same kinds of faults, met by trying.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use longpin_linux::swap::{swap_off, swap_on};
use longpin_tests::scratch::{FsKind, Scratch};

use super::in_place::{prepared, refused, stays};
use crate::blocks::{check, sh, status};
use crate::guard;

const PLAIN: &str = "touch $F; chattr +C $F; chmod 600 $F; \
    dd if=/dev/urandom of=$F bs=1M count=2 conv=notrunc,fsync status=none; mkswap -q $F; sync";

/// Check and the kernel are of one mind.
fn swaps(what: &str, file: &Path, expected: bool) -> Result<()> {
    let (verdict, names) = check(file, "swap")?;
    let kernel = swap_on(file);
    if kernel.is_ok() {
        swap_off(file)?;
    }
    ensure!(kernel.is_ok() == expected, "{what}: swapon(2): {kernel:?}");
    ensure!(
        (verdict == "yes") == expected,
        "{what}: {verdict} {names:?}, swapon(2): {kernel:?}"
    );
    Ok(())
}

/// What the hint says is done: then check says yes.
fn cures(what: &str, file: &Path, reason: &str) -> Result<()> {
    let (code, words) = status(&["check", "--for", "blocks", &file.to_string_lossy()])?;
    ensure!(
        code == 1 && words.contains(reason),
        "{what}: {code}: {words}"
    );
    let hint = words.lines().find_map(|line| line.strip_prefix("hint: "));
    let hint = hint.with_context(|| format!("{what}: no hint: {words}"))?;
    sh(hint, file).with_context(|| format!("{what}: {hint}"))?;
    let (verdict, names) = check(file, "blocks")?;
    ensure!(verdict == "yes", "{what}: {hint}: {verdict} {names:?}");
    println!("  {what}: cured");
    Ok(())
}

/// A file system that has grown from a seed device writes what changes to another one, and FIEMAP does not say so.
pub(super) fn seed() -> Result<()> {
    guard::on()?;
    let scratch = Scratch::new(FsKind::Btrfs, 256 << 20)?;
    let file = scratch.dir().join("file");
    sh(PLAIN, &file)?;
    swaps("btrfs", &file, true)?;
    let grow = "i=$D/../store/image; umount $D; btrfstune -f -S 1 $i >/dev/null; mount -o loop,ro $i $D; truncate -s 256M $D/../store/other
        d=$(losetup -f --show $D/../store/other); echo $d > $D/../store/name
        btrfs device add -K -f $d $D >/dev/null; mount -o remount,rw $D";
    sh(grow, &file)?;
    swaps("btrfs, of a seed", &file, false)?;
    refused("btrfs, of a seed", &file, "shared")?;
    prepared(&file)?;
    swaps("btrfs, of a seed, prepared", &file, true)?;
    stays("btrfs, of a seed, prepared", &file)?;
    sh(
        "d=$(cat $D/../store/name); umount $D; losetup -d $d; mount -o loop $D/../store/image $D",
        &file,
    )?;
    scratch.close()
}

/// A read-only subvolume on a mount that may be written to; a directory whose files are compressed.
pub(super) fn btrfs() -> Result<()> {
    let scratch = Scratch::new(FsKind::Btrfs, 256 << 20)?;
    let file = scratch.dir().join("sub/dir/file");
    let dir = "btrfs -q subvolume create $D/..; mkdir $D";
    sh(&dir.replace("$D/..", "${D%/*}"), &file)?;
    sh(PLAIN, &file)?;
    sh("btrfs property set -ts ${D%/*} ro true", &file)?;
    swaps("btrfs, read-only subvolume", &file, false)?;
    cures("btrfs, read-only subvolume", &file, "read-only")?;
    swaps("btrfs, subvolume", &file, true)?;
    let new = file.with_file_name("new");
    sh(
        "chattr +c $D; longpin prepare --size 1M $F; chattr -c $D",
        &new,
    )?;
    sh("rm $F; chattr +m $D; longpin prepare --size 1M $F", &new)?;
    scratch.close()
}

/// The path in /proc/swaps leads to another file by now.
pub(super) fn overmounted() -> Result<()> {
    let scratch = Scratch::new(FsKind::Ext4, 64 << 20)?;
    let file = scratch.dir().join("file");
    let make = PLAIN.replace("chattr +C $F;", "");
    sh(&make, &file)?;
    swap_on(&file)?;
    let tried = sh(
        "truncate -s 64M $D/../store/other; mkfs.ext4 -q -F $D/../store/other; mount -o loop $D/../store/other $D",
        &file,
    )
    .and_then(|_| sh(make.trim_end_matches("mkswap -q $F; sync"), &file))
    .and_then(|_| check(&file, "blocks"));
    sh("umount $D", &file)?;
    let below = check(&file, "blocks");
    swap_off(&file)?;
    let (verdict, names) = tried?;
    ensure!(verdict == "yes", "{verdict} {names:?}");
    let (verdict, names) = below?;
    ensure!(names == ["active-swap"], "{verdict} {names:?}");
    scratch.close()
}

/// ext4 without extents has no fallocate(2).
pub(super) fn without_extents() -> Result<()> {
    let scratch = Scratch::new(FsKind::Ext4, 64 << 20)?;
    let file = scratch.dir().join("file");
    let make =
        "i=$D/../store/image; umount $D; mkfs.ext4 -q -F -O ^extent,^64bit $i; mount -o loop $i $D
        dd if=/dev/urandom of=$F bs=1M count=2 conv=fsync status=none; truncate -s 5000000 $F
        dd if=/dev/urandom of=$F bs=4k count=1 seek=700 conv=notrunc,fsync status=none";
    sh(make, &file)?;
    let before = std::fs::read(&file)?;
    cures("ext4 without extents", &file, "hole")?;
    ensure!(std::fs::read(&file)? == before, "prepare changed the file");
    sh(
        "longpin prepare --size 3M $D/new; longpin prepare --size 7M $F",
        &file,
    )?;
    scratch.close()
}
