//! Files on persistent memory (DAX): pins are refused, on demand works, and held on demand nobody takes the file away.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use longpin_linux::memory::{DeviceMemory, Sharing};
use longpin_linux::verbs::Region;
use longpin_rdma::{
    Access, Kind, MemoryRegion, ProtectionState, RegisterError, RegisterOptions, Wish,
};
use longpin_tests::act::{Outcome, ftruncate, open_truncate, outcome_name, punch, truncate};
use longpin_tests::frames::frames;
use longpin_tests::{PAGE, pattern::Pattern};
use rustix::fs::{FallocateFlags, fallocate, ioctl_ficlone};
use rustix::io::Errno;

use super::dax_ground::{Closed, DaxFile, FREE, HELD, Invalidations, LEN, MAKERS, mount};
use super::region::{Net, protection};
use super::special::DaxMount;
use crate::child::Pinner;
use crate::guard;
use crate::pin::{must_allow, must_allow_soon};
use crate::report::skip;

/// The refusal of this rule, which names what else there is.
fn must_refuse(made: Result<MemoryRegion, RegisterError>, rule: &str, other: &str) -> Result<()> {
    let Err(err) = made else {
        bail!("registered, and not refused by {rule}")
    };
    let found = err.rule().map(longpin_rdma::Rule::as_str);
    ensure!(found == Some(rule), "{rule} expected: {err}");
    ensure!(err.to_string().contains(other), "no {other:?}: {err}");
    Ok(())
}

/// Skips where the device does not fault: then that is what both plans must say, and nothing stays held.
fn must_fault(net: &Net, file: &DaxFile) -> Result<()> {
    if net.domain.capabilities()?.on_demand {
        return Ok(());
    }
    let device = "device-cannot-fault";
    must_refuse(file.register(net, &HELD), device, "cannot fault")?;
    must_refuse(file.register(net, &FREE), device, "cannot fault")?;
    let any = RegisterOptions {
        wish: Wish::Any,
        ..HELD
    };
    must_refuse(file.register(net, &any), "dax-longterm", "faulting-device")?;
    must_allow("a write after the refusal", write(&file.file, 0))?;
    skip(super::NO_PAGING)
}

fn write(file: &File, at: u64) -> Outcome {
    let bytes = Pattern::new(7).bytes(PAGE);
    let written = file.write_all_at(&bytes, at);
    written.map_err(|err| Errno::from_io_error(&err).unwrap_or(Errno::IO))
}

/// A long-term pin is refused by plan and kernel, with what else there is; of a DAX device it works.
pub(crate) fn plan_dax_longterm() -> Result<()> {
    let mut net = Net::new()?;
    for maker in MAKERS {
        let dax = mount(maker)?;
        let file = DaxFile::new(&dax, "pinned")?;
        let pin = RegisterOptions {
            wish: Wish::Pin,
            ..FREE
        };
        must_refuse(file.register(&net, &pin), "dax-longterm", "dax-device")?;
        let memory = DeviceMemory::of_file(&file.file, 0, LEN, true, Sharing::Shared)?;
        let (domain, access) = (&net.domain, Access::READ_WRITE);
        let answer = Region::register(domain, &Arc::new(memory), LEN, access, false).err();
        ensure!(answer == Some(Errno::OPNOTSUPP), "answered {answer:?}");
    }
    on_a_device(&mut net)
}

/// devdax: no file system, nothing to lose.
fn on_a_device(net: &mut Net) -> Result<()> {
    const LEN: usize = 2 << 20;
    let path = std::env::var("LONGPIN_DEVDAX")?;
    let device = File::options().read(true).write(true).open(&path)?;
    let pin = RegisterOptions {
        wish: Wish::Pin,
        require_hold: true,
        ..FREE
    };
    let (domain, access) = (&net.domain, Access::READ_WRITE);
    let register = |len| MemoryRegion::register_with(domain, &device, 0..len, access, &pin);
    must_refuse(register(4096), "file-unfit", "not-on-pages")?;
    let region = register(LEN as u64).context(path)?;
    let found = protection(&region)?;
    ensure!(found == ProtectionState::Needless, "{found:?}");
    let bytes = Pattern::new(11).bytes(LEN);
    let address = region.address();
    net.ends.0.write(address, region.rkey(), &bytes)?;
    let other = DeviceMemory::of_file(&device, 0, LEN, false, Sharing::Shared)?;
    ensure!(other.copy_out(0..LEN) == Some(bytes.clone()), "other bytes");
    let seen = net.ends.0.read(address, region.rkey(), LEN)?;
    ensure!(seen == bytes, "the other end reads other bytes");
    Ok(region.deregister()?)
}

/// Whatever is tried beside the traffic is refused, nothing is taken back from the device, and the bytes stay: after a
/// mount, and after a crash without an fsync.
pub(crate) fn plan_dax_held() -> Result<()> {
    guard::on()?;
    for maker in MAKERS {
        held_on(maker).context(maker)?;
    }
    Ok(())
}

fn held_on(maker: &str) -> Result<()> {
    let mut net = Net::new()?;
    let dax = mount(maker)?;
    let mut file = DaxFile::new(&dax, "log")?;
    must_fault(&net, &file)?;
    let told = Invalidations::watch()?;
    let region = file.register(&net, &HELD)?;
    let found = protection(&region)?;
    ensure!(matches!(found, ProtectionState::Held { .. }), "{found:?}");
    match region.kind() {
        Kind::HeldOnDemand { prefetched, .. } => ensure!(*prefetched, "not brought in"),
        other => bail!("{other:?}"),
    }
    let before = (told.count()?, frames(&file.file, &(0..LEN as u64))?);
    try_everything(&mut file, &mut net, &region)?;
    let after = (told.count()?, frames(&file.file, &(0..LEN as u64))?);
    let times = after.0 - before.0;
    ensure!(times == 0, "taken back from the device: {times} times");
    ensure!(before.1 == after.1, "the file has other frames");
    // The kernel writes back by its own will, too: then the device's mapping is made anew, and goes on.
    file.file.sync_all()?;
    println!("an fsync: {} times taken back", told.count()? - after.0);
    file.round(&mut net, &region, 200)?;
    region.deregister()?;
    must_allow("ftruncate afterwards", ftruncate(&file.file, LEN as u64))?;
    file.check()?;
    let closed = file.close();
    dax.remount()?;
    let file = closed.check().context("after a remount")?;
    survives_a_crash(&mut net, &dax, file, &HELD)
}

/// What the other end writes is found by the file system that went down without its journal.
fn survives_a_crash(
    net: &mut Net,
    dax: &DaxMount,
    mut file: DaxFile,
    options: &RegisterOptions,
) -> Result<()> {
    let region = file.register(net, options)?;
    for mark in 0..40 {
        file.round(net, &region, mark)?;
    }
    dax.crash()?;
    region.deregister()?;
    let closed = file.close();
    dax.remount()?;
    closed.check().context("after a crash").map(drop)
}

/// Each with traffic before and after.
fn try_everything(file: &mut DaxFile, net: &mut Net, region: &MemoryRegion) -> Result<()> {
    let other = file.path.with_extension("other");
    std::fs::write(&other, vec![1; LEN])?;
    let is_xfs = longpin_linux::file::status(&file.file)?.magic == 0x5846_5342;
    for (mark, (what, act, wanted)) in (0_u8..).zip(ACTS) {
        if what.starts_with("clone") && !is_xfs {
            continue;
        }
        let outcome = act(file, &other);
        ensure!(
            outcome == Err(*wanted),
            "{what}: {}, not {wanted:?}",
            outcome_name(outcome)
        );
        file.round(net, region, mark).context(*what)?;
    }
    // Not by the holder: a command that it starts is somebody else.
    let mapped = Command::new(std::env::current_exe()?)
        .args([crate::child::WORD, "map"])
        .arg(&file.path)
        .output()?;
    let said = String::from_utf8_lossy(&mapped.stdout).into_owned();
    ensure!(said.contains("may not map"), "a stranger's mapping: {said}");
    file.round(net, region, 100)
}

type Act = fn(&DaxFile, &std::path::Path) -> Outcome;

const ACTS: &[(&str, Act, Errno)] = &[
    ("truncate", |f, _| truncate(&f.path, 4096), Errno::TXTBSY),
    (
        "ftruncate to its size",
        |f, _| ftruncate(&f.file, LEN as u64),
        Errno::TXTBSY,
    ),
    ("O_TRUNC", |f, _| open_truncate(&f.path), Errno::TXTBSY),
    ("punch", |f, _| punch(&f.file, 4096, 8192), Errno::TXTBSY),
    (
        "zero range",
        |f, _| fallocate(&f.file, FallocateFlags::ZERO_RANGE, 0, 4096),
        Errno::TXTBSY,
    ),
    (
        "collapse range",
        |f, _| fallocate(&f.file, FallocateFlags::COLLAPSE_RANGE, 4096, 4096),
        Errno::TXTBSY,
    ),
    (
        "fallocate",
        |f, _| fallocate(&f.file, FallocateFlags::empty(), 0, 4096),
        Errno::TXTBSY,
    ),
    ("write", |f, _| write(&f.file, 4096), Errno::TXTBSY),
    ("append", |f, _| opened_write(f, 0, true), Errno::TXTBSY),
    ("direct write", |f, _| direct_write(f), Errno::TXTBSY),
    ("copy into", |f, other| copy(other, &f.path), Errno::TXTBSY),
    ("copy from", |f, other| copy(&f.path, other), Errno::TXTBSY),
    ("clone into", |f, o| clone(o, &f.path), Errno::TXTBSY),
    ("clone from", |f, o| clone(&f.path, o), Errno::TXTBSY),
    (
        "unlink",
        |f, _| io(std::fs::remove_file(&f.path)),
        Errno::PERM,
    ),
    (
        "rename over",
        |f, o| io(std::fs::rename(o, &f.path)),
        Errno::PERM,
    ),
];

fn io(result: std::io::Result<()>) -> Outcome {
    result.map_err(|err| Errno::from_io_error(&err).unwrap_or(Errno::IO))
}

fn opened_write(file: &DaxFile, flags: i32, append: bool) -> Outcome {
    let mut options = File::options();
    options.write(true).append(append).custom_flags(flags);
    let opened = options.open(&file.path);
    io(opened.and_then(|mut file| file.write_all(b"x")))
}

fn direct_write(file: &DaxFile) -> Outcome {
    let direct = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).unwrap_or(0);
    opened_write(file, direct, false)
}

fn both(from: &std::path::Path, to: &std::path::Path) -> Result<(File, File), Errno> {
    let open = |path, write| File::options().read(true).write(write).open(path);
    let failed = |err: std::io::Error| Errno::from_io_error(&err).unwrap_or(Errno::IO);
    Ok((
        open(from, false).map_err(failed)?,
        open(to, true).map_err(failed)?,
    ))
}

fn copy(from: &std::path::Path, to: &std::path::Path) -> Outcome {
    let (from, to) = both(from, to)?;
    rustix::fs::copy_file_range(&from, Some(&mut 0), &to, Some(&mut 0), 4096).map(drop)
}

fn clone(from: &std::path::Path, to: &std::path::Path) -> Outcome {
    let (from, to) = both(from, to)?;
    ioctl_ficlone(&to, &from)
}

/// The hold is the last to go: when a truncate goes through, the device is no longer there to be asked.
pub(crate) fn plan_dax_held_until_end() -> Result<()> {
    guard::on()?;
    let dax = mount(MAKERS[0])?;
    for orderly in [true, false, true, false] {
        let mut net = Net::new()?;
        let file = DaxFile::new(&dax, "ends")?;
        must_fault(&net, &file)?;
        let region = file.register(&net, &HELD)?;
        let (address, rkey) = (region.address(), region.rkey());
        let path = file.path.clone();
        drop(file);
        let refused = truncate(&path, 4096) == Err(Errno::TXTBSY);
        ensure!(refused, "truncated while the region lives");
        net.ends.0.read(address, rkey, PAGE)?;
        let ended = std::thread::spawn(move || match orderly {
            true => region.deregister(),
            false => {
                drop(region);
                Ok(())
            }
        });
        must_allow_soon("truncate", || truncate(&path, 4096))?;
        let late = net.ends.0.read(address, rkey, PAGE);
        let gone = late.err().is_some_and(|err| err.is_remote_refusal());
        ensure!(gone, "the file was free, and the region was not gone");
        let ended = ended.join().map_err(|_| anyhow::anyhow!("it panicked"))?;
        ended?;
    }
    Ok(())
}

/// A process that is killed leaves the bytes that its device wrote, and nothing held.
pub(crate) fn plan_dax_killed() -> Result<()> {
    guard::on()?;
    let dax = mount(MAKERS[1])?;
    let file = DaxFile::new(&dax, "killed")?;
    must_fault(&Net::new()?, &file)?;
    let path = file.path.clone();
    drop(file);
    let child = Pinner::start(&["dax", &path.to_string_lossy()])?;
    let refused = truncate(&path, 4096) == Err(Errno::TXTBSY);
    ensure!(refused, "truncated while the region lives");
    child.kill()?;
    let len = LEN as u64;
    must_allow_soon("ftruncate", || truncate(&path, len))?;
    dax.remount()?;
    let pages = vec![vec![0x77; PAGE]; LEN / PAGE];
    Closed::of(path, pages).check().map(drop)
}

/// `dax PATH`: register held, have the other end write every page, say so, wait.
pub(crate) fn dax_and_wait(arguments: &[String]) -> Result<()> {
    let [path] = arguments else { bail!("dax PATH") };
    let file = File::options().read(true).write(true).open(path)?;
    let mut net = Net::new()?;
    let range = 0..LEN as u64;
    let access = Access::READ_WRITE;
    let region = MemoryRegion::register_with(&net.domain, &file, range, access, &HELD)?;
    let bytes = vec![0x77; LEN];
    net.ends.0.write(region.address(), region.rkey(), &bytes)?;
    println!("pinned");
    std::io::stdout().flush()?;
    std::io::stdin().lines().for_each(drop);
    Ok(region.deregister()?)
}

/// Not held: what the other end writes stays, with MAP_SYNC through a crash; the file stays free.
pub(crate) fn plan_dax_on_demand() -> Result<()> {
    guard::on()?;
    for maker in MAKERS {
        let mut net = Net::new()?;
        let dax = mount(maker)?;
        let mut file = DaxFile::new(&dax, "free")?;
        must_fault(&net, &file)?;
        let region = file.register(&net, &FREE)?;
        ensure!(matches!(region.kind(), Kind::OnDemand));
        file.round(&mut net, &region, 9)?;
        region.deregister()?;
        let closed = file.close();
        dax.remount()?;
        let file = closed.check().context("after a remount")?;
        stays_free(&mut net, &file)?;
        drop(file);
        synchronous(&dax).context("MAP_SYNC")?;
    }
    Ok(())
}

/// A punch and a truncate go through, and the device's mapping is taken back for them.
fn stays_free(net: &mut Net, file: &DaxFile) -> Result<()> {
    let told = Invalidations::watch()?;
    let region = file.register(net, &FREE)?;
    region.prefetch(0..LEN, true)?;
    let before = told.count()?;
    must_allow("punch", punch(&file.file, 0, 8192))?;
    ensure!(told.count()? > before, "nothing was taken back");
    let seen = net.ends.0.read(region.address(), region.rkey(), 12288)?;
    let hole = seen[..8192].iter().all(|&byte| byte == 0);
    ensure!(hole, "no hole is seen");
    must_allow("truncate", truncate(&file.path, 4096))?;
    let behind = region.address() + 8192;
    let gone = net.ends.0.read(behind, region.rkey(), PAGE);
    let refused = gone.err().is_some_and(|err| err.is_remote_refusal());
    ensure!(refused, "the other end reads behind the end of the file");
    Ok(region.deregister()?)
}

/// Blocks that nobody had written: with MAP_SYNC, what the device writes there is found after a crash.
fn synchronous(dax: &DaxMount) -> Result<()> {
    let file = DaxFile::unwritten(dax, "sync")?;
    let sync = RegisterOptions {
        map_sync: true,
        ..FREE
    };
    survives_a_crash(&mut Net::new()?, dax, file, &sync)
}
