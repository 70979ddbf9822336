//! Ends that lie far off: deep below what is unmounted, behind many others at one place, or below an overlay.

use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use longpin_tests::scratch::load_module;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};

use super::{Elsewhere, Losses, PLAIN, Places, io, must_be_busy, must_go_soon, pinned};
use crate::guard;

/// Mounts on top of each other, and file systems at one place: more than any table that the guard once had.
const DEEP: usize = 17;
const MANY: usize = 5;

pub(super) fn far_ends() -> Result<()> {
    guard::on()?;
    let losses = Losses::mark()?;
    try_all(&[
        ("beside a deep chain", &beside_a_deep_chain),
        ("two deep mounts", &two_deep_mounts),
        ("below many", &below_many),
        ("many at one place", &many_at_one_place),
        ("below a place that goes", &below_a_place),
    ])?;
    losses.none()
}

/// All of them, whatever one says: each is a way of its own.
fn try_all(ways: &[(&str, &dyn Fn() -> Result<()>)]) -> Result<()> {
    let tried = ways.iter().filter_map(|(name, way)| {
        let failed = way().err()?;
        Some(format!("{name}: {failed:#}"))
    });
    let failed: Vec<_> = tried.collect();
    ensure!(failed.is_empty(), "{}", failed.join("; "));
    Ok(())
}

fn mount_tmpfs(dir: &Path) -> Result<()> {
    fs::create_dir(dir)?;
    Ok(mount("none", dir, "tmpfs", MountFlags::empty(), c"")?)
}

/// Each mounted on the one before: the last one.
fn chain(top: &Path, len: usize) -> Result<PathBuf> {
    let mut dir = top.to_owned();
    for _ in 0..len {
        dir.push("n");
        mount_tmpfs(&dir)?;
    }
    Ok(dir)
}

/// It answers EBUSY until nothing is pinned.
fn lazily(parent: &Path, file: &Path) -> Result<()> {
    let pin = pinned(file)?;
    must_be_busy("lazy umount", unmount(parent, UnmountFlags::DETACH))?;
    drop(pin);
    must_go_soon("unpinned", || unmount(parent, UnmountFlags::DETACH))
}

fn beside_a_deep_chain() -> Result<()> {
    let places = Places::new()?;
    let parent = places.mounted("parent")?;
    chain(&parent, DEEP)?;
    let beside = parent.join("beside");
    mount_tmpfs(&beside)?;
    lazily(&parent, &beside.join("file"))
}

/// The file system is mounted twice, and both go.
fn two_deep_mounts() -> Result<()> {
    let places = Places::new()?;
    let parent = places.mounted("parent")?;
    let bottom = chain(&parent, DEEP)?;
    let (one, two) = (bottom.join("one"), bottom.join("two"));
    mount_tmpfs(&one)?;
    fs::create_dir(&two)?;
    mount_bind(&one, &two)?;
    lazily(&parent, &one.join("file"))
}

/// More mounts below than the guard judges file systems: then it says no while anything is held, and only then.
fn below_many() -> Result<()> {
    let places = Places::new()?;
    let parent = places.mounted("parent")?;
    for i in 0..2 * DEEP {
        mount_tmpfs(&parent.join(i.to_string()))?;
    }
    let last = parent.join("last");
    mount_tmpfs(&last)?;
    lazily(&parent, &last.join("file"))?;
    // The same file system many times is one.
    let (parent, held) = (places.mounted("other")?, places.mounted("held")?);
    let pin = pinned(&held.join("file"))?;
    for i in 0..2 * DEEP {
        let dir = parent.join(i.to_string());
        fs::create_dir(&dir)?;
        mount_bind(&held, &dir)?;
    }
    unmount(&parent, UnmountFlags::DETACH).context("mounts of what stays mounted")?;
    drop(pin);
    must_go_soon("unpinned", || unmount(&held, PLAIN))
}

/// The same under a guard that only records: what it would refuse, because it cannot know, goes through and is recorded.
pub(crate) fn audited() -> Result<()> {
    let before = guard::count("would-refuse")?;
    let places = Places::new()?;
    let (parent, held) = (places.mounted("parent")?, places.mounted("held")?);
    for i in 0..2 * DEEP {
        mount_tmpfs(&parent.join(i.to_string()))?;
    }
    let pin = pinned(&held.join("file"))?;
    unmount(&parent, UnmountFlags::DETACH).context("audited, and refused")?;
    let recorded = guard::count("would-refuse")? - before;
    ensure!(recorded == 1, "recorded {recorded} times");
    drop(pin);
    must_go_soon("the other one", || unmount(&held, PLAIN))
}

/// Of each namespace's file system at one place, the one that was mounted first.
fn many_at_one_place() -> Result<()> {
    let places = Places::new()?;
    let place = places.make("place")?;
    let all: Result<Vec<_>> = (0..MANY).map(|_| Elsewhere::mount(&place)).collect();
    let all = all?;
    for elsewhere in [&all[0], &all[MANY - 1]] {
        let pin = pinned(&elsewhere.path(&place)?.join("file"))?;
        must_be_busy("rmdir", io(fs::remove_dir(&place)))?;
        drop(pin);
    }
    must_go_soon("rmdir, unpinned", || io(fs::remove_dir(&place)))
}

/// What is mounted below a place goes with it.
fn below_a_place() -> Result<()> {
    let places = Places::new()?;
    let place = places.make("place")?;
    let at = place.display();
    let line = format!("mount -t tmpfs none {at} && mkdir {at}/n && mount -t tmpfs none {at}/n");
    let elsewhere = Elsewhere::start(&line)?;
    let pin = pinned(&elsewhere.path(&place)?.join("n/file"))?;
    must_be_busy("rmdir", io(fs::remove_dir(&place)))?;
    drop(pin);
    must_go_soon("rmdir, unpinned", || io(fs::remove_dir(&place)))
}

/// One that only reads, of these layers.
fn overlay_of(places: &Places, name: &str, lower: &[&Path]) -> Result<PathBuf> {
    let merged = places.make(name)?;
    let lower: Vec<_> = lower.iter().map(|dir| dir.to_string_lossy()).collect();
    let options = CString::new(format!("lowerdir={}", lower.join(":")))?;
    mount("none", &merged, "overlay", MountFlags::RDONLY, &*options)?;
    Ok(merged)
}

/// The file system of a layer that nothing keeps but the overlay, with a file that was pinned before that came to be.
fn kept_by(overlay: &Path, layer: &Path) -> Result<()> {
    // A copy of all mounts: where the file can be pinned when the first mount has gone.
    let elsewhere = Elsewhere::start("true")?;
    unmount(layer, PLAIN).context("the layer's own mount")?;
    let pin = pinned(&elsewhere.path(layer)?.join("file"))?;
    drop(elsewhere);
    must_be_busy("the overlay", unmount(overlay, PLAIN))?;
    must_be_busy("lazily", unmount(overlay, UnmountFlags::DETACH))?;
    drop(pin);
    must_go_soon("the overlay, unpinned", || unmount(overlay, PLAIN))
}

pub(super) fn many_layers() -> Result<()> {
    load_module("overlay");
    guard::on()?;
    guard::must(&["guard", "sweep"])?;
    let losses = Losses::mark()?;
    let places = Places::new()?;
    let names = ["a", "b", "c", "d", "e", "f"];
    let dirs: Result<Vec<_>> = names.iter().map(|name| places.mounted(name)).collect();
    let dirs = dirs?;
    let lower: Vec<&Path> = dirs.iter().map(PathBuf::as_path).collect();
    let merged = overlay_of(&places, "merged", &lower)?;
    // An overlay as a layer.
    let inner = overlay_of(&places, "inner", &lower[..5])?;
    let outer = overlay_of(&places, "outer", &[&inner, lower[0]])?;
    unmount(&inner, PLAIN).context("the inner overlay's own mount")?;
    try_all(&[
        ("the last of six layers", &|| kept_by(&merged, lower[5])),
        ("the last layer of a layer", &|| kept_by(&outer, lower[4])),
    ])?;
    losses.none()
}
