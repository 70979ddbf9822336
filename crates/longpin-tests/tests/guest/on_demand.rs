//! C11: on-demand regions, which hold nothing: they are listed, and what is taken back from them is told. Beside them a
//! pin of the same file, which is refused: both of the two ways side by side. By soft-RoCE, where it faults (7.2).

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use longpin_tests::act::{Outcome, punch, truncate};
use longpin_tests::mapping::Mapping;
use longpin_tests::rdma::{Access, Device, ProtectionDomain, Region, loopback};
use longpin_tests::scratch::FsKind;
use rustix::io::Errno;
use serde_json::Value;

use crate::child::Pinner;
use crate::files::TestFile;
use crate::guard;
use crate::pin::{must_allow, must_refuse};
use crate::plan::NO_PAGING;
use crate::report::skip;
use crate::watch::Watcher;

const MIB: u64 = 1 << 20;
const LEN: u64 = 4 * MIB;
/// The region: `len` bytes of a mapping that begins elsewhere.
const MAPPED: u64 = MIB;
const INSIDE: std::ops::Range<usize> = 65_536..1 << 20;
const START: u64 = MAPPED + INSIDE.start as u64;
const END: u64 = MAPPED + INSIDE.end as u64;

/// A device that faults; skips where this kernel has none. There the programs must be loaded all the same.
fn domain() -> Result<ProtectionDomain> {
    let device = Device::open("rxe0")?;
    if device.odp_supported()? {
        return Ok(device.protection_domain()?);
    }
    guard::on()?;
    for program in ["list_regions", "__mmu_notifier_invalidate_range_start_exit"] {
        let link = Path::new("/sys/fs/bpf/longpin").join(format!("link_{program}"));
        ensure!(link.exists(), "{program} is not loaded");
    }
    let listed = guard::longpin(&["ls", "--all"])?;
    let remark = String::from_utf8_lossy(&listed.stderr).into_owned();
    ensure!(!remark.contains("on-demand"), "{remark}");
    skip(NO_PAGING)
}

fn register(domain: &ProtectionDomain, file: &File) -> Result<(Mapping, Region)> {
    let len = usize::try_from(2 * MIB)?;
    let mapping = Mapping::shared(file, MAPPED, len, false)?;
    let region = Region::register(domain, &mapping, INSIDE, Access::READ.on_demand())?;
    Ok((mapping, region))
}

/// The on-demand regions of a file in `ls --all`.
fn rows(path: &Path) -> Result<Vec<Value>> {
    let mut rows = guard::pins_on(path)?;
    rows.retain(|row| row["kind"] == "on-demand");
    Ok(rows)
}

/// The only one, and what it must say.
fn row(path: &Path, pid: u32) -> Result<Value> {
    let found = rows(path)?;
    let [row] = &found[..] else {
        anyhow::bail!("not one region: {found:?}")
    };
    ensure!(
        row["start"] == START && row["end"] == END && row["pid"] == pid,
        "{row}"
    );
    ensure!(
        row["consumer"] == "rdma"
            && row["kernel-function"] == "rxe_ib_invalidate_range"
            && row["level"] == "none"
            && row["enforced"] == false
            && row["pages"] == 0
            && row["uid"] == 0,
        "{row}"
    );
    let command = std::fs::read_to_string(format!("/proc/{pid}/comm"))?;
    ensure!(row["command"] == *command.trim_end(), "{row}");
    Ok(row.clone())
}

/// What was taken back of a file's region, as `watch --last` keeps it.
fn teardowns(path: &Path) -> Result<Vec<Value>> {
    let mut events = guard::events_on(path)?;
    events.retain(|event| event["event"] == "torn-down");
    Ok(events)
}

/// Rows come with the registration and go with it; nothing is held.
pub(crate) fn c11_rows() -> Result<()> {
    let domain = domain()?;
    guard::on()?;
    for kind in [FsKind::Ext4, FsKind::Xfs, FsKind::Tmpfs] {
        let file = TestFile::new(kind, LEN)?;
        file.file.sync_all()?;
        ensure!(rows(&file.path)?.is_empty(), "a row without a region");
        let (mapping, region) = register(&domain, &file.file)?;
        let row = row(&file.path, std::process::id()).context(kind.name())?;
        ensure!(row["since"].is_string(), "{row}");
        ensure!(guard::holds_on(&file.path)?.is_empty(), "ls without --all");
        let why = guard::must(&["why", &file.path.to_string_lossy()])?;
        ensure!(why.contains("used on demand: 1088K..2M"), "{why}");
        region.deregister()?;
        ensure!(rows(&file.path)?.is_empty(), "{}: it stays", kind.name());
        drop(mapping);
    }
    // Nor is a region of memory without a file told.
    let memory = Mapping::anonymous(INSIDE.len())?;
    let access = Access::READ.on_demand();
    let region = Region::register(&domain, &memory, 0..INSIDE.len(), access)?;
    let table = guard::must(&["ls", "--all"])?;
    ensure!(!table.contains("on-demand"), "{table}");
    Ok(region.deregister()?)
}

/// One that is older than the guard is found as the others are.
pub(crate) fn c11_older_region() -> Result<()> {
    let domain = domain()?;
    guard::off()?;
    let file = TestFile::new(FsKind::Xfs, LEN)?;
    file.file.sync_all()?;
    let (_mapping, region) = register(&domain, &file.file)?;
    guard::on()?;
    let known = row(&file.path, std::process::id())?;
    ensure!(known["since"].is_null(), "nobody saw it begin: {known}");
    must_allow("punch", punch(&file.file, START, 4096))?;
    let told = teardowns(&file.path)?;
    let told = told.first().context("not told")?;
    ensure!(
        told["region"]["pid"] == std::process::id() && told["start"] == START,
        "{told}"
    );
    Ok(region.deregister()?)
}

fn must_be(
    event: &Value,
    range: (u64, u64),
    pid: u32,
    operation: &str,
    notice: &str,
) -> Result<()> {
    let region = &event["region"];
    ensure!(
        event["start"] == range.0
            && event["end"] == range.1
            && event["pid"] == pid
            && event["operation"] == operation
            && region["notice"] == notice
            && region["pid"] == std::process::id(),
        "not {operation} of {range:?} by {pid}: {event}"
    );
    Ok(())
}

/// By a process of its own: its id, and whether it was done.
fn punch_elsewhere(path: &Path, offset: u64, len: u64) -> Result<(u32, bool)> {
    let mut child = Command::new("fallocate")
        .args(["-p", "-o", &offset.to_string(), "-l", &len.to_string()])
        .arg(path)
        .spawn()?;
    Ok((child.id(), child.wait()?.success()))
}

/// A punch by another process: refused where the file is pinned, done and told where the hardware faults; the other end
/// then sees the hole.
pub(crate) fn c11_beside_a_pin() -> Result<()> {
    let domain = domain()?;
    guard::on()?;
    let mut ends = loopback(&domain)?;
    let file = TestFile::new(FsKind::Ext4, LEN)?;
    file.file.sync_all()?;
    let (_mapping, region) = register(&domain, &file.file)?;
    let pinned = Mapping::shared(&file.file, 3 * MIB, 65_536, false)?;
    let pinned = Region::register(&domain, &pinned, 0..65_536, Access::READ)?;
    let mut kinds: Vec<Value> = guard::pins_on(&file.path)?;
    kinds.iter_mut().for_each(|row| *row = row["kind"].take());
    ensure!(kinds == ["pin", "on-demand"], "{kinds:?}");
    let seen = ends.0.read(region.addr(), region.rkey(), region.len())?;
    file.check(START / 4096, &seen)?;
    let watcher = Watcher::start()?;
    let (pid, done) = punch_elsewhere(&file.path, START + 8192, 16_384)?;
    ensure!(done, "the punch of the region was refused");
    let torn = watcher.next(|event| event["event"] == "torn-down")?;
    let range = (START + 8192, START + 24_576);
    let operation = "fallocate KEEP_SIZE|PUNCH_HOLE";
    must_be(&torn, range, pid, operation, "clear")?;
    ensure!(
        torn["path"] == *file.path.to_string_lossy() && torn["command"] == "fallocate",
        "{torn}"
    );
    let (pid, done) = punch_elsewhere(&file.path, 3 * MIB, 4096)?;
    ensure!(!done, "the punch of the pin was done");
    let path = file.path.to_string_lossy();
    let refused = watcher.next(|event| event["event"] == "refused" && event["path"] == *path)?;
    ensure!(refused["pid"] == pid, "{refused}");
    sees_the_hole(&mut ends.0, &region, &file)?;
    must_keep_the_line(&path)?;
    must_refuse("truncate", truncate(&file.path, START))?;
    pinned.deregister()?;
    Ok(region.deregister()?)
}

fn must_keep_the_line(path: &str) -> Result<()> {
    let last = guard::must(&["watch", "--last"])?;
    // A folio that the hole cuts is taken back as a whole: there may be more.
    let words = format!("{path} 1096K..1112K by fallocate[");
    let line = last.lines().find(|line| line.contains(&words));
    let line = line.with_context(|| format!("no {words} in: {last}"))?;
    ensure!(
        line.contains(" torn-down ") && line.contains("(clear): on-demand region of"),
        "{line}"
    );
    Ok(())
}

fn sees_the_hole(
    end: &mut longpin_tests::rdma::QueuePair,
    region: &Region,
    file: &TestFile,
) -> Result<()> {
    let seen = end.read(region.addr(), region.rkey(), region.len())?;
    file.check(START / 4096, &seen[..8192])?;
    ensure!(
        seen[8192..24_576].iter().all(|&byte| byte == 0),
        "no hole is seen"
    );
    file.check(START / 4096 + 6, &seen[24_576..])
}

/// The other ways: a truncate, a new mapping over it, the kernel's write-back. And a flood of them, of which some are
/// counted.
pub(crate) fn c11_causes() -> Result<()> {
    let domain = domain()?;
    guard::on()?;
    let own = std::process::id();
    let file = TestFile::new(FsKind::Ext4, LEN)?;
    file.file.sync_all()?;
    let (mapping, region) = register(&domain, &file.file)?;
    mapping.touch();
    // Of a file that had the inode before.
    let mut known = teardowns(&file.path)?.len();
    let mut next = |what: &str| {
        let told = teardowns(&file.path)?;
        let event = told.get(known).cloned();
        known = told.len();
        event.with_context(|| format!("{what}: not told"))
    };
    file.file.write_all_at(b"new", START)?;
    file.file.sync_all()?;
    let event = next("fsync")?;
    // As wide as the folio.
    let range = (START, event["end"].as_u64().unwrap_or(0));
    must_be(&event, range, own, "write-back in fsync", "protection-page")?;
    let other = TestFile::new(FsKind::Tmpfs, 4096)?;
    mapping.replace(INSIDE.start + 8192, &other.file, 0, 4096)?;
    let range = (START + 8192, START + 12_288);
    must_be(&next("mmap")?, range, own, "mmap", "unmap")?;
    let page = INSIDE.start + 16_384;
    mapping.leave_hole(page..page + 4096)?;
    let range = (START + 16_384, START + 20_480);
    must_be(&next("munmap")?, range, own, "munmap", "unmap")?;
    must_allow("truncate", truncate(&file.path, START + 65_536))?;
    let event = next("truncate")?;
    must_be(&event, (START + 65_536, END), own, "truncate", "clear")?;
    // Both mappings are told, each in its place.
    let beside = rows(&other.path)?;
    ensure!(
        beside.len() == 1 && beside[0]["start"] == 0 && beside[0]["end"] == 4096,
        "{beside:?}"
    );
    let left = rows(&file.path)?.len();
    ensure!(left == 3, "{left} parts between two gaps");
    flood(&file)?;
    Ok(region.deregister()?)
}

fn flood(file: &TestFile) -> Result<()> {
    const PUNCHES: u64 = 200;
    let before = rows(&file.path)?[0]["torn-down"].as_u64();
    let told = teardowns(&file.path)?.len();
    for _ in 0..PUNCHES {
        must_allow("punch", punch(&file.file, START, 4096))?;
    }
    std::thread::sleep(Duration::from_millis(1100));
    must_allow("punch", punch(&file.file, START, 4096))?;
    let told = teardowns(&file.path)?.split_off(told);
    let untold = |event: &Value| event["region"]["untold"].as_u64().unwrap_or(0);
    let untold: u64 = told.iter().map(untold).sum();
    ensure!(untold > 0, "every one of {} is told", told.len());
    let after = rows(&file.path)?[0]["torn-down"].as_u64();
    let sum = before.map(|n| n + untold + told.len() as u64);
    ensure!(
        after == sum && after > Some(PUNCHES),
        "{before:?} and then {after:?}: {untold} untold, {} told",
        told.len()
    );
    Ok(())
}

/// Who is killed leaves no row, and its end is no teardown.
pub(crate) fn c11_killed() -> Result<()> {
    domain()?;
    guard::on()?;
    let file = TestFile::new(FsKind::Tmpfs, LEN)?;
    let child = Pinner::start(&["on-demand", &file.path.to_string_lossy()])?;
    row(&file.path, child.pid())?;
    let pid = child.pid();
    child.kill()?;
    let left = rows(&file.path)?;
    ensure!(left.is_empty(), "{pid} is dead: {left:?}");
    let told = teardowns(&file.path)?;
    ensure!(told.is_empty(), "{told:?}");
    let gone: Outcome = truncate(&file.path, 0);
    ensure!(gone != Err(Errno::TXTBSY), "held by a dead process");
    Ok(())
}

/// `on-demand PATH`: register, say so, keep it until standard input ends.
pub(crate) fn register_and_wait(arguments: &[String]) -> Result<()> {
    let [path] = arguments else {
        anyhow::bail!("on-demand PATH")
    };
    let file = File::options().read(true).write(true).open(path)?;
    let domain = Device::open("rxe0")?.protection_domain()?;
    let _registered = register(&domain, &file)?;
    println!("pinned");
    std::io::stdout().flush()?;
    std::io::stdin().lines().for_each(drop);
    Ok(())
}
