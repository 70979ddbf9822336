//! The kernel knows which device a file system lies on, and which file is held; a name may lead elsewhere by now.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use longpin_tests::act::truncate;
use longpin_tests::pattern::Pattern;
use longpin_tests::scratch::{FsKind, Scratch};
use serde_json::Value;

use crate::blocks::{extents, sh};
use crate::files::TestFile;
use crate::guard;
use crate::pin::{must_refuse, pin};

const LEN: usize = 1 << 20;

/// btrfs, mounted by a device file of one's own, which is then another disk's, and then gone.
pub(super) fn of_devices() -> Result<()> {
    let scratch = Scratch::new(FsKind::Tmpfs, 1 << 30)?;
    let mount = scratch.dir().join("mnt");
    fs::create_dir(&mount)?;
    let file = mount.join("file");
    let make =
        "truncate -s 256M $D/../one; cp $D/../one $D/../two; mkfs.btrfs -q -f $D/../one >/dev/null
        a=$(losetup -f --show $D/../one); b=$(losetup -f --show $D/../two); cp -a $a $D/../node
        mount -i -t btrfs $D/../node $D; echo $a > $D/../a; echo $b > $D/../b
        touch $F; chattr +C $F; dd if=/dev/zero of=$F bs=1M count=1 conv=notrunc,fsync status=none
        stat -c '%Hr:%Lr' $a";
    let number = sh(make, &file)?;
    let look = || -> Result<()> {
        let map = extents(&file)?;
        ensure!(
            map["devices"][0]["number"] == number.trim(),
            "not {number}: {map}"
        );
        Ok(())
    };
    let tried = look().and_then(|()| {
        sh("rm $D/../node; cp -a $(cat $D/../b) $D/../node", &file)?;
        look()?;
        sh("rm $D/../node", &file)?;
        look()
    });
    sh("umount $D; losetup -d $(cat $D/../a) $(cat $D/../b)", &file)?;
    tried?;
    scratch.close()
}

/// The rows of a file by its number: its path may not be known.
fn rows_of(held: &Value) -> Result<Vec<Value>> {
    let mut rows = guard::all_holds()?;
    rows.retain(|row| row["id"] == held["id"]);
    Ok(rows)
}

fn hold(path: &Path, level: &str) -> Result<Value> {
    let text = path.to_string_lossy();
    guard::must(&["hold", "--persist", "--level", level, &text])?;
    let rows = guard::holds_on(path)?;
    ensure!(rows.len() == 1, "{rows:?}");
    rows.into_iter().next().context("no hold")
}

fn forget_inodes() -> Result<()> {
    rustix::fs::sync();
    Ok(fs::write("/proc/sys/vm/drop_caches", "2")?)
}

/// What `why` says of a file: how many holds.
fn holds_by_why(path: &Path) -> Result<usize> {
    let text = guard::must(&["why", "--json", &path.to_string_lossy()])?;
    let answer: Value = serde_json::from_str(&text)?;
    let holds = answer["holds"].as_array().context("no holds")?;
    Ok(holds.len())
}

fn release(held: &Value) -> Result<()> {
    guard::must(&["release", &held["id"].to_string()]).map(drop)
}

/// C12: a hold is found by its file, wherever that is in memory; no path is told that leads to another one.
pub(super) fn of_held_files() -> Result<()> {
    guard::on()?;
    left_memory().context("left memory")?;
    replaced().context("replaced")?;
    of_subvolumes().context("subvolumes")?;
    covered().context("covered")
}

/// Another file has the same name where the names of the held one, as far as they are kept, lead to.
fn left_memory() -> Result<()> {
    let scratch = Scratch::new(FsKind::Ext4, 64 << 20)?;
    let decoy = scratch.file("lent", LEN, Pattern::new(1))?;
    fs::create_dir(scratch.dir().join("dir"))?;
    let path = scratch.file("dir/lent", LEN, Pattern::new(2))?;
    let held = hold(&path, "swapfile")?;
    must_refuse("truncate", truncate(&path, 4096))?;
    forget_inodes()?;
    let rows = rows_of(&held)?;
    let told = rows.first().context("not listed")?;
    ensure!(told["path"] != *decoy.to_string_lossy(), "{told}");
    let is_named = told["path"] == *path.to_string_lossy() || told["was"] == "lent";
    ensure!(is_named, "{told}");
    ensure!(holds_by_why(&path)? == 1, "why knows nothing of it");
    ensure!(holds_by_why(&decoy)? == 0, "why of another file");
    let words = guard::must(&["why", &path.to_string_lossy()])?;
    ensure!(!words.contains("nobody"), "{words}");
    // What happened before is about a file that is still there, and a hold of no size.
    let untrue = ["(gone)", "18014398509481980K"];
    ensure!(!untrue.iter().any(|it| words.contains(it)), "{words}");
    ensure!(
        words.contains("refused") && words.contains("0..EOF"),
        "{words}"
    );
    must_refuse("truncate", truncate(&path, 4096))?;
    // It was met again: there it has names.
    let rows = guard::holds_on(&path)?;
    ensure!(rows.len() == 1, "met again: {rows:?}");
    release(&held)?;
    scratch.close()
}

/// A held file of level layout is renamed, and another one gets its name.
fn replaced() -> Result<()> {
    let scratch = Scratch::new(FsKind::Ext4, 64 << 20)?;
    let path = scratch.file("held", LEN, Pattern::new(1))?;
    let held = hold(&path, "layout")?;
    let moved = path.with_file_name("moved");
    fs::rename(&path, &moved)?;
    scratch.file("held", LEN, Pattern::new(2))?;
    for forgotten in [false, true] {
        if forgotten {
            forget_inodes()?;
        }
        let rows = rows_of(&held)?;
        let told = rows.first().context("not listed")?;
        ensure!(told["path"] != *path.to_string_lossy(), "{told}");
        ensure!(holds_by_why(&moved)? == 1, "why knows nothing of it");
        ensure!(holds_by_why(&path)? == 0, "why of another file");
    }
    release(&held)?;
    scratch.close()
}

/// Two subvolumes number their files alike.
fn of_subvolumes() -> Result<()> {
    let scratch = Scratch::new(FsKind::Btrfs, 256 << 20)?;
    let made = "btrfs -q subvolume create $D/a; btrfs -q subvolume create $D/b";
    sh(made, &scratch.dir().join("none"))?;
    let path = scratch.file("a/file", LEN, Pattern::new(1))?;
    let other = scratch.file("b/file", LEN, Pattern::new(2))?;
    let number = |path: &Path| -> Result<u64> {
        use std::os::unix::fs::MetadataExt;
        Ok(fs::metadata(path)?.ino())
    };
    ensure!(number(&path)? == number(&other)?, "other numbers");
    let held = hold(&path, "layout")?;
    forget_inodes()?;
    ensure!(holds_by_why(&path)? == 1, "why knows nothing of it");
    ensure!(holds_by_why(&other)? == 0, "why of another file");
    release(&held)?;
    scratch.close()
}

/// Something is mounted over the file's directory, with a file of the same name.
fn covered() -> Result<()> {
    let f = TestFile::new(FsKind::Tmpfs, 1 << 20)?;
    let _pinned = pin(&f, 0, 4096)?;
    let dir = f.path.parent().context("no directory")?;
    sh("mount -t tmpfs none $D; echo > $F", &f.path)?;
    let looked = guard::holds_on(&f.path);
    sh("umount $D", &f.path)?;
    let rows = looked?;
    ensure!(rows.is_empty(), "{}: {rows:?}", dir.display());
    ensure!(guard::holds_on(&f.path)?.len() == 1, "uncovered");
    Ok(())
}
