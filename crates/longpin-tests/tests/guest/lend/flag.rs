//! The flag: `S_SWAPFILE` for as long as a descriptor is there. That it refuses what it refuses of a swap file is the parity
//! tests' ([`crate::parity`]); here are its life, who gets it, and what it is beside a lend.

use std::fs::{self, File};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use longpin_tests::PATIENCE;
use longpin_tests::act::{outcome_name, punch, truncate};
use longpin_tests::lend::flag::Flag;
use longpin_tests::lend::{self, abi};
use longpin_tests::mapping::Mapping;
use longpin_tests::pattern::Pattern;
use longpin_tests::scratch::{FsKind, Scratch, write_pattern};
use rustix::io::{Errno, dup};

use super::force::Waiter;
use super::ground::{Field, LEN, must_have_no_lend, waits_unmapped};
use crate::guard;
use crate::pin::must_allow_soon;

pub(super) fn life() -> Result<()> {
    guard::off()?;
    lend::load()?;
    for kind in [FsKind::Ext4, FsKind::Xfs] {
        life_on(kind).with_context(|| kind.name())?;
    }
    for kind in [FsKind::Btrfs, FsKind::F2fs, FsKind::Tmpfs] {
        let scratch = Scratch::new(kind, 512 << 20)?;
        let file = File::create(scratch.dir().join("other"))?;
        let answer = Flag::set(&file).map(drop);
        ensure!(
            answer == Err(Errno::OPNOTSUPP),
            "{}: {}",
            kind.name(),
            outcome_name(answer)
        );
    }
    Ok(())
}

fn life_on(kind: FsKind) -> Result<()> {
    let scratch = Scratch::new(kind, 512 << 20)?;
    let path = scratch.dir().join("flagged");
    write_pattern(&path, LEN, Pattern::new(1))?;
    let file = File::options().read(true).write(true).open(&path)?;
    let refused = |answer: Result<Flag, Errno>| answer.map(drop);
    let read_only = refused(Flag::set(&File::open(&path)?));
    ensure!(read_only == Err(Errno::ACCESS), "read only: {read_only:?}");
    let directory = refused(Flag::set(&File::open(scratch.dir())?));
    ensure!(directory == Err(Errno::INVAL), "directory: {directory:?}");

    let flag = Flag::set(&file)?;
    let second = refused(Flag::set(&file));
    ensure!(second == Err(Errno::BUSY), "a second flag: {second:?}");
    let rows = lend::list()?;
    ensure!(
        rows.len() == 1
            && rows[0].flags == abi::ROW_FLAG
            && rows[0].pid.unsigned_abs() == std::process::id(),
        "LIST: {rows:?}"
    );
    ensure!(
        !lend::unload()?,
        "the module went while a file has its flag"
    );
    // It lasts as long as a copy of the descriptor, whoever has it.
    let mut keeper = Command::new("cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::from(dup(&flag)?))
        .spawn()?;
    drop(flag);
    must_be_busy(&path, "a child has the descriptor")?;
    keeper.kill()?;
    keeper.wait()?;
    must_allow_soon("the child is gone", || truncate(&path, 4096))?;
    must_have_no_lend()?;
    // And once more, for it was cleared as a whole.
    drop(Flag::set(&file)?);
    must_allow_soon("closed at once", || punch(&file, 0, 4096))
}

fn must_be_busy(path: &std::path::Path, when: &str) -> Result<()> {
    let answer = truncate(path, 4096);
    ensure!(
        answer == Err(Errno::TXTBSY),
        "{when}: truncate answered {}",
        outcome_name(answer)
    );
    let unlink = fs::remove_file(path).map_err(|err| err.raw_os_error());
    ensure!(
        unlink == Err(Some(libc::EPERM)),
        "{when}: unlink {unlink:?}"
    );
    Ok(())
}

/// The guard goes while a file is lent: the flag still refuses, or the file system waits for the pins before it looks.
pub(super) fn beside_a_lend() -> Result<()> {
    Field::on_each(beside_a_lend_on)
}

fn beside_a_lend_on(kind: FsKind) -> Result<()> {
    let field = Field::guarded(kind)?;
    let held = field.held("flagged")?;
    let lent = held.lend(abi::WRITE, &[])?;
    let flag = Flag::set(held.file()?).context("FLAG")?;
    // The kernel makes no writable mapping of a swap file, the module's own neither: the lend comes first.
    let late = held.ask(0, LEN, abi::WRITE, &[])?.map(drop);
    ensure!(late == Err(Errno::TXTBSY), "lent second: {late:?}");
    let reading = held.ask(0, LEN, 0, &[])?.map(drop);
    ensure!(reading.is_ok(), "lent second, for reading: {reading:?}");

    guard::must(&["guard", "stop", "--force"])?;
    let file = File::options().read(true).write(true).open(&held.path)?;
    let punched = punch(&file, 0, 8192);
    ensure!(punched == Err(Errno::TXTBSY), "punch: {punched:?}");
    let mapped = Mapping::shared(&file, 0, LEN, true).map(drop);
    ensure!(mapped == Err(Errno::TXTBSY), "mmap: {mapped:?}");
    let path = held.path.to_str().context("path")?;
    if kind == FsKind::Xfs && waits_unmapped()? {
        // xfs waits for the pins before it looks at the flag.
        Waiter::start(&["truncate", "-s", "4096", path])?.must_wait_and_end()?;
        let clone = format!("{path}.clone");
        Waiter::start(&["cp", "--reflink=always", path, &clone])?.must_wait_and_end()?;
    } else {
        must_be_busy(&held.path, "no guard")?;
    }
    held.check()?;
    // Before 6.15 the file system would not wait for the lend without the flag.
    drop(lent);
    let begin = std::time::Instant::now();
    while lend::list()?
        .iter()
        .any(|row| row.flags & abi::ROW_FLAG == 0)
    {
        ensure!(begin.elapsed() < PATIENCE, "the lend does not end");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    drop(flag);
    held.must_be_free("flag and lend are closed")
}
