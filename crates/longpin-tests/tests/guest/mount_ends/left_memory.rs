//! Held files that nobody uses: they leave memory, and the hold stays.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use longpin_tests::scratch::{FsKind, Scratch};
use rustix::mount::unmount;
use serde_json::Value;

use super::broken::{explicit, must_be_broken, persist};
use super::{PLAIN, must_be_busy};
use crate::blocks::sh;
use crate::guard;

const LEN: usize = 1 << 20;

/// Files that nobody uses leave memory, and others take their place there.
fn leave_memory(dir: &Path) -> Result<()> {
    let drop = "sync; echo 3 > /proc/sys/vm/drop_caches; sleep 1";
    sh(drop, &dir.join("file"))?;
    for i in 0..400 {
        fs::write(dir.join(format!("other-{i}")), b"")?;
    }
    Ok(())
}

/// Open files whose inodes lie around that of the next file, so that the memory that it leaves stays inodes' memory.
fn neighbours(dir: &Path, when: &str) -> Result<Vec<File>> {
    let open = |i| File::create(dir.join(format!("{when}-{i}")));
    Ok((0..32).map(open).collect::<Result<_, _>>()?)
}

/// C08: what is refused because of the file names it, wherever its inode was.
pub(super) fn is_named() -> Result<()> {
    guard::on()?;
    ensure!(explicit()?.is_empty(), "{:?}", explicit()?);
    let scratch = Scratch::new(FsKind::Ext4, 64 << 20)?;
    let path = scratch.dir().join("file");
    let before = neighbours(scratch.dir(), "before")?;
    fs::write(&path, [1; LEN])?;
    let after = neighbours(scratch.dir(), "after")?;
    let id = persist(&path)?;
    leave_memory(scratch.dir())?;
    drop((before, after));
    must_be_busy("umount", unmount(scratch.dir(), PLAIN))?;
    let last = guard::must(&["watch", "--last", "--json"])?;
    let event = last.lines().rev().find(|line| line.contains("\"refused\""));
    let event: Value = serde_json::from_str(event.context("nothing was refused")?)?;
    guard::must(&["release", &id.to_string()])?;
    ensure!(event["hold"] == id, "of another hold: {event}");
    let named = event["path"].as_str().map(Path::new);
    ensure!(named == Some(&path), "another file: {event}");
    scratch.close()
}

/// C13: a subvolume of btrfs is deleted, with a held file in it, in memory or not; of others nothing goes.
pub(super) fn subvolume_goes() -> Result<()> {
    guard::on()?;
    ensure!(explicit()?.is_empty(), "{:?}", explicit()?);
    let scratch = Scratch::new(FsKind::Btrfs, 256 << 20)?;
    let before = guard::count("broken-holds")?;
    for in_memory in [true, false] {
        let path = scratch.dir().join("sub/file");
        sh(
            "btrfs -q subvolume create $D; head -c 4096 /dev/zero > $F; sync",
            &path,
        )?;
        let id = persist(&path)?;
        if !in_memory {
            leave_memory(scratch.dir())?;
        }
        sh("cd /; btrfs -q subvolume delete $D", &path)?;
        must_be_broken(id, "file gone").with_context(|| format!("in memory: {in_memory}"))?;
    }
    ensure!(guard::count("broken-holds")? == before + 2);
    scratch.close()
}
