//! A file system that ends under a hold all the same: told as broken, and nothing of it stays.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use longpin_tests::PATIENCE;
use longpin_tests::act::truncate;
use longpin_tests::scratch::load_module;
use rustix::mount::{MountFlags, mount, unmount};
use serde_json::Value;

use super::{Elsewhere, PLAIN, Places};
use crate::guard;
use crate::hold::Holder;
use crate::pin::must_allow;

const LEN: usize = 1 << 20;

pub(super) fn broken_holds() -> Result<()> {
    guard::on()?;
    // An earlier test's holds have ended.
    ensure!(explicit()?.is_empty(), "{:?}", explicit()?);
    let before = guard::count("broken-holds")?;
    on_a_device().context("ext4")?;
    with_its_token().context("tmpfs, and a holder that lives")?;
    ensure!(guard::count("broken-holds")? == before + 2);
    Ok(())
}

/// The holds that somebody asked for.
pub(super) fn explicit() -> Result<Vec<Value>> {
    let mut all = guard::all_holds()?;
    all.retain(|row| row["kind"] == "explicit");
    Ok(all)
}

/// A persisting hold at level layout: its number.
pub(super) fn persist(path: &Path) -> Result<u64> {
    let path = path.to_string_lossy();
    guard::must(&["hold", "-l", "layout", "--persist", &path, "--", "true"])?;
    let all = explicit()?;
    ensure!(all.len() == 1, "{all:?}");
    all[0]["id"].as_u64().context("no number")
}

/// The event that says so, when it has come: the end of a namespace has nobody who waits for it.
pub(super) fn must_be_broken(id: u64, operation: &str) -> Result<()> {
    let begin = Instant::now();
    loop {
        let last = guard::must(&["watch", "--last", "--json"])?;
        let events = last.lines().map(serde_json::from_str::<Value>);
        let mut of_hold = events.filter_map(Result::ok).filter(|e| e["hold"] == id);
        if let Some(event) = of_hold.find(|event| event["event"] == "broken") {
            let told = event["operation"].as_str().unwrap_or_default();
            ensure!(told.starts_with(operation), "{event}");
            let left = explicit()?;
            ensure!(left.is_empty(), "still listed: {left:?}");
            return Ok(());
        }
        if begin.elapsed() > PATIENCE {
            bail!("hold {id} was not told as broken: {last}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Whatever has the number and the device of the held file next is nobody's.
fn must_be_free(places: &Places, kind: &str, source: &str, held: (u64, u64)) -> Result<()> {
    for i in 0..64 {
        let dir = places.make(&format!("next{i}"))?;
        mount(source, &dir, kind, MountFlags::empty(), c"")?;
        let file = dir.join("file");
        fs::write(&file, [1; LEN])?;
        let found = fs::metadata(&file)?;
        if found.dev() == held.0 {
            ensure!(found.ino() == held.1, "{} is not {}", found.ino(), held.1);
            must_allow("truncate of the next file", truncate(&file, 0))?;
            return Ok(unmount(&dir, PLAIN)?);
        }
    }
    bail!("device {} did not come again", held.0)
}

fn numbers(path: &Path) -> Result<(u64, u64)> {
    let found = fs::metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// A loop device with a new ext4.
struct Disk(String);

impl Disk {
    fn new(image: &Path) -> Result<Self> {
        load_module("loop");
        load_module("ext4");
        File::create(image)?.set_len(64 << 20)?;
        let shown = Command::new("losetup")
            .args(["-f", "--show"])
            .arg(image)
            .output()?;
        ensure!(shown.status.success(), "losetup");
        let disk = Self(String::from_utf8(shown.stdout)?.trim().to_owned());
        disk.format()?;
        Ok(disk)
    }

    /// Busy while the kernel lets go of what was mounted.
    fn format(&self) -> Result<()> {
        let begin = Instant::now();
        loop {
            let mut mkfs = Command::new("mkfs.ext4");
            let made = mkfs
                .args(["-q", "-F", "-E", "nodiscard", &self.0])
                .stderr(Stdio::null());
            if made.status()?.success() {
                return Ok(());
            }
            ensure!(begin.elapsed() < PATIENCE, "mkfs.ext4 on {}", self.0);
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Best effort: the guest ends soon.
        let _ = Command::new("losetup").args(["-d", &self.0]).status();
    }
}

fn on_a_device() -> Result<()> {
    let places = Places::new()?;
    let (store, place) = (places.mounted("store")?, places.make("place")?);
    let disk = Disk::new(&store.join("image"))?;
    let line = format!("mount -t ext4 {} {}", disk.0, place.display());
    let elsewhere = Elsewhere::start(&line)?;
    let path = elsewhere.path(&place)?.join("file");
    fs::write(&path, [1; LEN])?;
    let (numbers, id) = (numbers(&path)?, persist(&path)?);
    drop(elsewhere);
    must_be_broken(id, "file system ended")?;
    disk.format()?;
    must_be_free(&places, "ext4", &disk.0, numbers)
}

/// `longpin` is killed, and CMD lives on with the token, which holds nothing any more.
fn with_its_token() -> Result<()> {
    let places = Places::new()?;
    let place = places.make("place")?;
    let elsewhere = Elsewhere::mount(&place)?;
    let path: PathBuf = elsewhere.path(&place)?.join("file");
    fs::write(&path, [1; LEN])?;
    let numbers = numbers(&path)?;
    let holder = Holder::start(&["-l", "layout"], &path)?;
    let id = explicit()?[0]["id"].as_u64().context("no number")?;
    let cmd = holder.abandon()?;
    ensure!(explicit()?.len() == 1, "it ended with longpin");
    drop(elsewhere);
    must_be_broken(id, "file system ended")?;
    must_be_free(&places, "tmpfs", "none", numbers)?;
    // Ends with its token, whose number is nobody's.
    drop(cmd);
    ensure!(explicit()?.is_empty());
    Ok(())
}
