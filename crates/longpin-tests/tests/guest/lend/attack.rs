//! What reading the module suggests to somebody who means harm: children, mappings, threads at once, descriptors that run out,
//! 32-bit programs. Nothing is freed under a device, no lend stays for ever, and none gives more than was asked for.

use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use longpin_tests::PAGE;
use longpin_tests::act::{Outcome, outcome_name};
use longpin_tests::lend::tricks::{self, Sleeper};
use longpin_tests::lend::{self, Lend, Wish, abi, flag};
use longpin_tests::mapping::Mapping;
use longpin_tests::scratch::FsKind;
use longpin_tests::vfio::Device;
use rustix::io::{Errno, dup};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::ground::{Field, LEN, REGISTRABLE, must_have_no_lend};
use super::vfio::{Assigned, must_read};
use crate::child;

fn must(what: &str, answer: Outcome, wanted: Errno) -> Result<()> {
    ensure!(
        answer == Err(wanted),
        "{what}: {}, not {}",
        outcome_name(answer),
        outcome_name(Err(wanted))
    );
    Ok(())
}

/// A mapping of the dma-buf is of these pages, for this access, and of no others.
pub(super) fn on_mappings() -> Result<()> {
    let field = Field::guarded(FsKind::Xfs)?;
    let held = field.held("mapped")?;
    let device = Device::open()?;
    let group = device.group();
    let reading = held.lend(0, &[group.as_fd()])?;
    let mapping = reading.map(false)?;
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    must("mmap, writable", reading.map(true).map(drop), Errno::ACCESS)?;
    must(
        "mprotect, writable",
        tricks::protect(&mapping, prot),
        Errno::ACCESS,
    )?;
    held.must_be("the mapping", 0, &mapping.copy_out(0..LEN))?;
    drop((mapping, reading));

    let part = held.ask(4 * PAGE as u64, 8 * PAGE, abi::WRITE, &[group.as_fd()])??;
    let mapping = part.map(true)?;
    held.must_be("a part", 4, &mapping.copy_out(0..8 * PAGE))?;
    let behind = Mapping::shared(&part, 0, 9 * PAGE, true).map(drop);
    must("mmap, behind the end", behind, Errno::INVAL)?;
    let private = Mapping::private(&part, 0, PAGE).map(drop);
    must("mmap, private", private, Errno::INVAL)?;
    let exec = libc::PROT_READ | libc::PROT_EXEC;
    must(
        "mprotect, executable",
        tricks::protect(&mapping, exec),
        Errno::ACCESS,
    )?;
    must("mremap, larger", tricks::grow(&mapping), Errno::FAULT)?;
    let remapped = tricks::remap_first(&mapping, 0);
    ensure!(remapped.is_err(), "remap_file_pages: done");
    let removed = tricks::advise(&mapping, libc::MADV_REMOVE);
    ensure!(removed.is_err(), "MADV_REMOVE: done");
    // A mapping with a hole is two; each keeps the lend.
    mapping.leave_hole(PAGE..2 * PAGE)?;
    drop(part);
    drop(device);
    held.must_stay_refused("two pieces of a mapping are left")?;
    held.must_be("a piece", 6, &mapping.copy_out(2 * PAGE..8 * PAGE))?;
    drop(mapping);
    held.must_be_free("unmapped")
}

/// A child has the mapping of its parent, who is done with all of it: what it maps is the file's.
pub(super) fn child_keeps_mapping() -> Result<()> {
    let field = Field::guarded(FsKind::Xfs)?;
    let mut held = field.held("inherited")?;
    let assigned = Assigned::new(&held)?;
    let child = Sleeper::start()?;
    must_read(&assigned.pin, &held)?;
    drop(assigned);
    held.close_file();
    held.close_token();
    held.must_stay_refused("a child has the mapping")?;
    drop(child);
    held.must_be_free("the child is gone")
}

/// LEND that cannot give a descriptor leaves nothing behind, though its group is open.
pub(super) fn without_descriptors() -> Result<()> {
    let field = Field::guarded(FsKind::Xfs)?;
    let held = field.held("crowded")?;
    let device = Device::open()?;
    let before = getrlimit(Resource::Nofile);
    // Room for the module's device, which is opened for the request; none for a dma-buf.
    let next = u64::try_from(dup(held.file()?)?.as_raw_fd())?;
    let few = Rlimit {
        current: Some(next + 1),
        maximum: before.maximum,
    };
    setrlimit(Resource::Nofile, few)?;
    let answer = held.ask(0, LEN, abi::WRITE, &[device.group().as_fd()]);
    setrlimit(Resource::Nofile, before)?;
    must("LEND without a descriptor", answer?.map(drop), Errno::MFILE)?;
    must_have_no_lend()?;
    drop(device);
    held.must_be_free("not lent")
}

/// A file of the kernel's own may keep descriptors, and with them the lend that keeps it.
pub(super) fn tokens() -> Result<()> {
    let field = Field::guarded(FsKind::Xfs)?;
    let held = field.held("lent")?;
    let flagged = field.create("flagged")?;
    let flagged = flag::Flag::set(&flagged)?;
    let first = held.lend(abi::WRITE, &[])?;
    for (what, token) in [("a flag", flagged.as_fd()), ("a dma-buf", first.as_fd())] {
        let answer = Lend::ask(&Wish {
            file: held.file()?.as_fd(),
            token,
            offset: 0,
            len: LEN,
            flags: abi::WRITE,
            groups: &[],
        });
        must(what, answer.map(drop), Errno::INVAL)?;
    }
    drop((first, flagged));
    held.must_be_free("closed")
}

/// The first lend of door 3 tests the probe; another one of the same pages, at the same moment, does not spoil that.
pub(super) fn at_once() -> Result<()> {
    let field = Field::guarded(FsKind::Xfs)?;
    let held = field.held("raced")?;
    for _ in 0..3 {
        let wish = Wish {
            file: held.file()?.as_fd(),
            token: held.token()?,
            offset: 0,
            len: 64 * PAGE,
            flags: REGISTRABLE,
            groups: &[],
        };
        let start = Barrier::new(3);
        let lend = || {
            start.wait();
            Lend::ask(&wish)
        };
        let lent: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..3).map(|_| scope.spawn(lend)).collect();
            threads
                .into_iter()
                .map(std::thread::ScopedJoinHandle::join)
                .collect()
        });
        for answer in &lent {
            ensure!(matches!(answer, Ok(Ok(_))), "LEND at once: {answer:?}");
        }
        drop(lent);
        must_have_no_lend()?;
    }
    let can = lend::info().context("INFO")?.can;
    ensure!(can & abi::CAN_REGISTER != 0, "door 3 is shut for good");
    held.must_be_free("raced")
}

/// A 32-bit program has the same structures.
pub(super) fn of_32_bits() -> Result<()> {
    let field = Field::guarded(FsKind::Xfs)?;
    let held = field.held("narrow")?;
    let fd = |fd: &dyn AsRawFd| u32::try_from(fd.as_raw_fd());
    let (file, token) = (fd(held.file()?)?, fd(&held.token()?)?);
    let len = u32::try_from(LEN)?;
    let lent = flag::lend_32(&[48, abi::WRITE, file, token, 0, 0, len, 0, 0, 0, 0, 0])?;
    let rows = lend::list()?;
    ensure!(rows.len() == 1 && rows[0].length == LEN as u64, "{rows:?}");
    must(
        "LIST",
        flag::ask_32(flag::LIST, &[32, 88, 0, 0, 0, 0, 1, 0])?.map(drop),
        Errno::FAULT,
    )?;
    let until = flag::ask_32(flag::UNTIL, &[16, fd(&lent)?, file, 0])?.map(drop);
    must("UNTIL", until, Errno::NODEV)?;
    let info = flag::ask_32(flag::INFO, &[16, 0, 0, 0])?;
    ensure!(info == Ok(0), "INFO: {info:?}");
    drop(lent);
    held.must_be_free("closed")
}

/// kill -9 while it lends, at any moment of it: nothing stays, and the test of door 3's probe that is cut short is no failed one.
pub(super) fn killed_while_lending() -> Result<()> {
    let field = Field::guarded(FsKind::Xfs)?;
    let held = field.held("cut")?;
    let name = format!(
        "/proc/{}/fd/{}",
        std::process::id(),
        held.token()?.as_raw_fd()
    );
    for round in 0..60 {
        let mut child = Command::new(std::env::current_exe()?)
            .args([child::WORD, "lend", "ring"])
            .arg(&held.path)
            .env("LONGPIN_EXTENTS", &name)
            .stdout(Stdio::null())
            .spawn()?;
        std::thread::sleep(Duration::from_millis(round * 7));
        child.kill()?;
        child.wait()?;
    }
    must_have_no_lend()?;
    let can = lend::info().context("INFO")?.can;
    ensure!(can & abi::CAN_REGISTER != 0, "door 3 is shut for good");
    held.must_be_free("cut short")
}
