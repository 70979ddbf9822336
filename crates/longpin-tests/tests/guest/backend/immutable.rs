//! The immutable attribute, on each file system.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use longpin_tests::act::{ftruncate, open_truncate, punch, truncate};
use longpin_tests::mapping::Mapping;
use longpin_tests::pattern::Pattern;
use longpin_tests::scratch::{FsKind, Scratch};
use rustix::fs::{IFlags, ioctl_ficlone, ioctl_getflags, ioctl_setflags};
use rustix::io::Errno;

use super::{LEN, expect, io, make, refuse};
use crate::guard;

/// What the attribute refuses, and what it does not: descriptors and mappings that are older than it go on writing where
/// the file system does not look, and no attribute keeps blocks from being shared.
pub(super) fn immutable() -> Result<()> {
    for kind in [FsKind::Ext4, FsKind::Xfs, FsKind::Btrfs, FsKind::F2fs] {
        let scratch = Scratch::new(kind, 320 << 20)?;
        let path = make(&scratch, "file", Pattern::new(37))?;
        immutable_on(&scratch, &path).with_context(|| kind.name())?;
        scratch.close()?;
    }
    Ok(())
}

fn immutable_on(scratch: &Scratch, path: &Path) -> Result<()> {
    let text = path.to_string_lossy();
    let old = File::options().read(true).write(true).open(path)?;
    let mapped = Mapping::shared(&old, 0, LEN, true)?;
    // So prepare makes no immutable file that somebody can write to.
    refuse(
        &["prepare", "--immutable", &text],
        1,
        &["somebody has the file open"],
    )?;
    ioctl_setflags(&old, ioctl_getflags(&old)? | IFlags::IMMUTABLE)?;
    new_descriptors(scratch, path)?;
    let denied = Err(Errno::PERM);
    let looks = matches!(scratch.kind(), FsKind::Ext4 | FsKind::F2fs);
    let older = if looks { denied } else { Ok(()) };
    expect(
        "an older descriptor's punch",
        punch(&old, 65536, 4096),
        denied,
    )?;
    expect(
        "an older descriptor's write",
        io(old.write_all_at(b"x", 0)),
        older,
    )?;
    expect(
        "an older descriptor's ftruncate",
        ftruncate(&old, LEN as u64 / 2),
        older,
    )?;
    let store = mapped.advise(0..4096, rustix::mm::Advice::LinuxPopulateWrite);
    let older = if looks { Err(Errno::FAULT) } else { Ok(()) };
    expect("an older mapping's store", store, older)?;
    drop((old, mapped));
    let said = guard::must(&["prepare", "--mutable", &text])?;
    ensure!(said.contains("mutable again"), "{said}");
    expect("truncate afterwards", truncate(path, LEN as u64), Ok(()))?;
    let said = guard::must(&["prepare", "--mutable", &text])?;
    ensure!(said.contains("was not immutable"), "{said}");
    Ok(())
}

fn new_descriptors(scratch: &Scratch, path: &Path) -> Result<()> {
    let denied = Err(Errno::PERM);
    let open = File::options().write(true).open(path);
    expect("open for writing", io(open), denied)?;
    expect("truncate", truncate(path, 4096), denied)?;
    expect("O_TRUNC", open_truncate(path), denied)?;
    expect("unlink", io(fs::remove_file(path)), denied)?;
    let away = path.with_extension("away");
    expect("rename", io(fs::rename(path, &away)), denied)?;
    expect("a hard link", io(fs::hard_link(path, &away)), denied)?;
    if scratch.kind() == FsKind::Xfs {
        let clone = ioctl_ficlone(File::create_new(&away)?, File::open(path)?);
        expect("a clone of it", clone, Ok(()))?;
    }
    Ok(())
}
