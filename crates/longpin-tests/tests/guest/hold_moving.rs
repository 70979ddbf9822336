//! Explicit holds on file systems that move data: btrfs, whose subvolumes number their files anew, and f2fs.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use longpin_tests::act::{Outcome, truncate};
use longpin_tests::scratch::{FsKind, Scratch};
use rustix::io::Errno;

use crate::blocks::{sh, status};
use crate::hold::Holder;
use crate::pin::{must_allow, must_allow_soon};
use crate::{Test, guard};

pub(crate) const TESTS: &[Test] = &[("hold_btrfs", btrfs), ("hold_f2fs", f2fs)];

fn write(path: &Path) -> Outcome {
    let file = File::options().write(true).open(path);
    let written = file.and_then(|file| file.write_all_at(b"w", 0));
    written.map_err(|err| Errno::from_io_error(&err).unwrap_or(Errno::IO))
}

fn must_refuse(what: &str, outcome: Outcome) -> Result<()> {
    ensure!(outcome == Err(Errno::TXTBSY), "{what}: {outcome:?}");
    Ok(())
}

/// A hold of this file is refused for this reason.
fn must_be_unfit(file: &Path, reason: &[&str]) -> Result<()> {
    let (code, words) = status(&["hold", &file.to_string_lossy(), "--", "true"])?;
    let named = reason.iter().all(|word| words.contains(word));
    ensure!(code == 1 && named, "{reason:?} expected: {code}: {words}");
    must_allow("a write after a refusal", write(file))
}

fn must_hold(file: &Path) -> Result<()> {
    let (code, words) = status(&["hold", &file.to_string_lossy(), "--", "true"])?;
    ensure!(code == 0, "{code}: {words}");
    Ok(())
}

/// C14: files of the same number in two subvolumes are two files. C12: what moves data is refused by name.
fn btrfs() -> Result<()> {
    guard::on()?;
    let scratch = Scratch::new(FsKind::Btrfs, 320 << 20)?;
    let (one, two) = (namesake(&scratch, "one")?, namesake(&scratch, "two")?);
    let numbers = [&one, &two].map(|file| fs::metadata(file).map(|data| data.ino()));
    let [first, second] = numbers;
    ensure!(first? == second?, "they have different numbers");
    let held = Holder::start(&[], &one)?;
    must_refuse("a write", write(&one))?;
    must_allow("a write to its namesake", write(&two))?;
    let other = Holder::start(&[], &two)?;
    must_refuse("a write to the other", write(&two))?;
    ensure!(held.end()? == 7);
    must_allow_soon("a write after the end", || write(&one))?;
    must_refuse("a write to the other, still held", write(&two))?;
    ensure!(other.end()? == 7);
    persists(&one, &two)?;
    movers(&scratch, &one)?;
    scratch.close()
}

/// The first file of a new subvolume.
fn namesake(scratch: &Scratch, subvolume: &str) -> Result<PathBuf> {
    let file = scratch.dir().join(subvolume).join("file");
    sh(
        "btrfs subvolume create $D; longpin prepare $F --size 1M",
        &file,
    )?;
    Ok(file)
}

/// The inode leaves memory, and comes back at another address.
fn persists(held: &Path, free: &Path) -> Result<()> {
    guard::must(&["hold", "--persist", &held.to_string_lossy(), "--", "true"])?;
    fs::write("/proc/sys/vm/drop_caches", "2")?;
    must_refuse("truncate", truncate(held, 4096))?;
    must_allow("a write to its namesake", write(free))?;
    let rows = guard::holds_on(held)?;
    let id = rows.first().context("no hold")?["id"].to_string();
    guard::must(&["release", &id])?;
    must_allow("a write after the release", write(held))
}

fn movers(scratch: &Scratch, file: &Path) -> Result<()> {
    let dir = scratch.dir().to_string_lossy().into_owned();
    let reclaim = |percent: u32| {
        let script = format!(
            "I=$(findmnt -no UUID {dir}); echo {percent} \
             >/sys/fs/btrfs/$I/allocation/data/bg_reclaim_threshold"
        );
        sh(&script, file).map(drop)
    };
    reclaim(30)?;
    must_be_unfit(file, &["moves-data", "bg_reclaim_threshold is 30"])?;
    reclaim(0)?;
    sh(&format!("mount -o remount,autodefrag {dir}"), file)?;
    must_be_unfit(file, &["moves-data", "autodefrag"])?;
    sh(&format!("mount -o remount,noautodefrag {dir}"), file)?;
    must_hold(file)?;
    // A balance that is paused goes on with the next mount.
    let pause = "btrfs balance start --background --full-balance $D >/dev/null; \
                 btrfs balance pause $D || true";
    sh(pause, file)?;
    let paused = sh("btrfs balance status $D || true", file)?;
    if paused.contains("paused") {
        must_be_unfit(file, &["file-system-busy", "balance"])?;
        sh("btrfs balance cancel $D", file)?;
    } else {
        println!("the balance was over before it could be paused");
    }
    // To relocate metadata btrfs takes snapshots of its own: what is older is written to a new place.
    sh("longpin check --for blocks $F || longpin prepare $F", file)?;
    must_hold(file)
}

/// C12: a file that the collector may move is refused; one in its place is held.
fn f2fs() -> Result<()> {
    guard::on()?;
    let scratch = Scratch::new(FsKind::F2fs, 128 << 20)?;
    let loose = scratch.dir().join("loose");
    fs::write(&loose, [b'x'; 1 << 16])?;
    must_be_unfit(&loose, &["not-pinned"])?;
    let file = scratch.dir().join("file");
    sh("longpin prepare $F --size 3M", &file)?;
    let held = Holder::start(&[], &file)?;
    must_refuse("a write", write(&file))?;
    // Older tools cannot unset it; whether it is to be set or not, the hold does not look.
    let pin = "f2fs_io pinfile set $F";
    let asked = sh(pin, &file);
    let refused = asked.as_ref().err().map(ToString::to_string);
    ensure!(
        refused.is_some_and(|words| words.contains("Text file busy")),
        "SET_PIN_FILE: {asked:?}"
    );
    ensure!(held.end()? == 7);
    must_allow_soon("a write after the end", || write(&file))?;
    sh(pin, &file)?;
    scratch.close()
}
