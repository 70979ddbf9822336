//! C09 and C13 for files that end before their pins do.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use longpin_linux::{FixedBuffer, PinnedMemory};
use longpin_tests::PATIENCE;
use longpin_tests::act::ftruncate;
use longpin_tests::mapping::Mapping;
use longpin_tests::scratch::FsKind;
use rustix::fs::MemfdFlags;
use serde_json::Value;

use super::actor::Actor;
use super::{KernelLog, rounds};
use crate::child::Pinner;
use crate::files::TestFile;
use crate::guard;
use crate::pin::{must_allow, must_allow_soon, must_refuse, pin};

const LEN: usize = 16_384;
/// Rounds between two looks at the events.
const LOOK: u64 = 50;

/// Pins without file or mapping: nothing but the device knows the pages.
#[expect(dead_code, reason = "held for their pins")]
pub(super) enum Orphan {
    Ring(PinnedMemory),
    #[cfg(feature = "rdma")]
    Region(longpin_tests::rdma::Region),
}

pub(super) fn by_ring(file: &File) -> Result<Orphan> {
    let mapping = Mapping::shared(file, 0, LEN, true)?;
    let pin = FixedBuffer::register_memory(mapping.addr(), LEN)?;
    Ok(Orphan::Ring(pin))
}

/// The region keeps its mapping: memory of another file takes the place of this one's.
#[cfg(feature = "rdma")]
pub(super) fn by_region(file: &File) -> Result<Orphan> {
    use longpin_tests::rdma::{Access, Device, Region};

    let domain = Device::open("rxe0")?.protection_domain()?;
    let other = File::from(rustix::fs::memfd_create("other", MemfdFlags::CLOEXEC)?);
    other.set_len(LEN as u64)?;
    // Before 6.2 the RDMA core pins for writing, whatever was asked.
    for writable in [false, true] {
        let mapping = Mapping::shared(file, 0, LEN, writable)?;
        mapping.touch();
        match Region::register(&domain, &mapping, 0..LEN, Access::READ) {
            Err(err) if err.errno == rustix::io::Errno::FAULT && !writable => {}
            region => {
                let region = region?;
                mapping.replace(0, &other, 0, LEN)?;
                return Ok(Orphan::Region(region));
            }
        }
    }
    anyhow::bail!("no region")
}

#[cfg(not(feature = "rdma"))]
pub(super) fn by_region(file: &File) -> Result<Orphan> {
    by_ring(file)
}

/// What the guard tells from here on. It keeps 1,024 events, so a test that makes many must look now and then.
struct Told {
    next: u64,
    held: HashSet<u64>,
    broken: HashSet<u64>,
}

impl Told {
    fn mark() -> Result<Self> {
        let last = read_events()?.last().and_then(|e| e["number"].as_u64());
        Ok(Self {
            next: last.map_or(0, |n| n + 1),
            held: HashSet::new(),
            broken: HashSet::new(),
        })
    }

    /// Notes what has been told since the last look.
    fn look(&mut self) -> Result<()> {
        for event in read_events()? {
            // What has no number says how many were written over while they were read: the numbers tell, too.
            let Some(number) = event["number"].as_u64().filter(|n| *n >= self.next) else {
                continue;
            };
            let missed = number - self.next;
            ensure!(missed == 0, "{missed} events were overwritten");
            self.next = number + 1;
            let holds = match event["event"].as_str() {
                Some("held") => &mut self.held,
                Some("broken") => &mut self.broken,
                _ => continue,
            };
            holds.extend(event["hold"].as_u64());
        }
        Ok(())
    }

    /// The holds that have ended since.
    fn ended(&self) -> Result<Vec<u64>> {
        let events = read_events()?.into_iter();
        let ended = events.filter(|event| {
            event["event"] == "ended" && event["number"].as_u64() >= Some(self.next)
        });
        Ok(ended.filter_map(|event| event["hold"].as_u64()).collect())
    }

    /// Each hold that began has been reported broken; how many there are. Some files end a moment late.
    fn all_are_broken(mut self) -> Result<usize> {
        let begin = Instant::now();
        loop {
            self.look()?;
            if self.held.is_subset(&self.broken) {
                return Ok(self.held.len());
            }
            let silent: Vec<_> = self.held.difference(&self.broken).collect();
            ensure!(
                begin.elapsed() < PATIENCE,
                "lost in silence: holds {silent:?} of {}",
                self.held.len()
            );
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}

fn read_events() -> Result<Vec<Value>> {
    let text = guard::must(&["watch", "--last", "--json"])?;
    text.lines().map(|l| Ok(serde_json::from_str(l)?)).collect()
}

/// Files that end while a device still has their pages: closed memfds, unlinked files, a mount namespace that
/// ends, a file system detached from its last but one mount, owners killed. Each loss is reported; new files
/// with the old inode numbers are as free as any.
///
/// Fails when `page_removed` is not attached or asks nothing (silence), when nothing asks about the end of a
/// mount (`sb_umount`), and when a file is known by its inode's address alone and outlives its inode
/// (`same_file` answers true and `drop_suspect` does nothing: a reader's pin of the new file becomes a hold).
pub(super) fn c09_file_dies_first() -> Result<()> {
    guard::fresh()?;
    let log = KernelLog::mark()?;
    let broken = guard::count("broken-pages")?;
    memfds_die().context("memfd")?;
    unlinked_files_die(FsKind::Tmpfs, by_ring).context("unlinked, io_uring")?;
    unlinked_files_die(FsKind::Ext4, by_region).context("unlinked, RDMA")?;
    namespace_ends().context("mount namespace")?;
    last_mount_stays().context("lazy umount")?;
    owners_are_killed().context("kill -9")?;
    let now = guard::count("broken-pages")?;
    ensure!(now > broken, "broken pages: {now} after {broken}");
    log.must_be_clean()
}

fn memfds_die() -> Result<()> {
    let mut told = Told::mark()?;
    let times = rounds(10, 100);
    let mut pins = Vec::new();
    for round in 0..times {
        if round % LOOK == 0 {
            told.look()?;
        }
        let file = File::from(rustix::fs::memfd_create("dies", MemfdFlags::CLOEXEC)?);
        file.set_len(LEN as u64)?;
        pins.push(by_ring(&file)?);
        must_refuse("a live memfd", ftruncate(&file, 0))?;
        drop(file);
        let fresh = File::from(rustix::fs::memfd_create("new", MemfdFlags::CLOEXEC)?);
        fresh.set_len(LEN as u64)?;
        must_allow("a new memfd", ftruncate(&fresh, 0))?;
    }
    let held = told.all_are_broken()?;
    ensure!(held as u64 == times, "{held} of {times} holds");
    Ok(())
}

/// The same name and, where the file system gives them out again, the same inode numbers.
fn unlinked_files_die(kind: FsKind, pin: fn(&File) -> Result<Orphan>) -> Result<()> {
    let mut told = Told::mark()?;
    let times = rounds(20, 200);
    let mut last = None;
    let (mut reused, mut pins) = (0_u64, Vec::new());
    for round in 0..times {
        if round % LOOK == 0 {
            told.look()?;
        }
        let f = TestFile::new(kind, LEN as u64)?;
        let ino = f.file.metadata()?.ino();
        reused += u64::from(last == Some(ino));
        last = Some(ino);
        must_allow("growing", ftruncate(&f.file, 2 * LEN as u64))?;
        must_allow("a new file", ftruncate(&f.file, LEN as u64))?;
        if round % 10 == 9 {
            is_free(&f).context("a new file with an old number")?;
        }
        pins.push(pin(&f.file)?);
        must_refuse("a live file", ftruncate(&f.file, 0))?;
        if round % 3 == 0 {
            pins.clear();
            pins.push(pin(&f.file)?);
        }
    }
    let held = told.all_are_broken()?;
    println!(
        "{}: {held} holds broken, {reused} inode numbers reused",
        kind.name()
    );
    ensure!(held as u64 >= times, "{held} of {times} holds");
    ensure!(kind.is_memory() || reused > 0, "no number came again");
    Ok(())
}

/// A reader's pin of this file is no hold, whatever an earlier file was.
fn is_free(f: &TestFile) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&f.path, std::fs::Permissions::from_mode(0o644))?;
    if f.kind.is_memory() {
        let _reader = Pinner::pin_as("1000", &f.path, 0, 4096)?;
        let pins = guard::pins_on(&f.path)?;
        ensure!(
            pins.len() == 1 && pins[0]["enforced"] == false,
            "pins: {pins:?}"
        );
    }
    must_allow("the same size", ftruncate(&f.file, LEN as u64))?;
    ensure!(guard::holds_on(&f.path)?.is_empty(), "held");
    Ok(())
}

/// A file system whose only mount is in a namespace: its end asks nobody.
fn namespace_ends() -> Result<()> {
    let told = Told::mark()?;
    let line = "mount -t tmpfs none /mnt && echo ready && exec sleep 1000";
    let mut space = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", line])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut said = String::new();
    let stdout = space.stdout.take().context("no output")?;
    BufReader::new(stdout).read_line(&mut said)?;
    ensure!(said.trim() == "ready", "the namespace said {said:?}");
    let path = format!("/proc/{}/root/mnt/file", space.id());
    let file = File::create_new(&path)
        .map(drop)
        .and_then(|()| File::options().read(true).write(true).open(&path))?;
    (&file).write_all(&[1; LEN])?;
    let _pin = by_ring(&file)?;
    must_refuse("a live file", ftruncate(&file, 0))?;
    drop(file);
    space.kill()?;
    space.wait()?;
    let held = told.all_are_broken()?;
    ensure!(held == 1, "{held} holds");
    Ok(())
}

fn run(program: &str, arguments: &[&str]) -> Result<bool> {
    let status = Command::new(program)
        .args(arguments)
        .stderr(Stdio::null())
        .status()?;
    Ok(status.success())
}

fn must_run(program: &str, arguments: &[&str]) -> Result<()> {
    ensure!(run(program, arguments)?, "{program} {arguments:?} failed");
    Ok(())
}

/// A file in a new tmpfs at this place, pinned by nothing but a ring.
fn pinned_in_tmpfs(place: &str) -> Result<Orphan> {
    std::fs::create_dir_all(place)?;
    must_run("mount", &["-t", "tmpfs", "none", place])?;
    let path = format!("{place}/file");
    std::fs::write(&path, [1; LEN])?;
    by_ring(&File::options().read(true).write(true).open(&path)?)
}

/// Two mounts of one file system: either may go, the last may not, not even lazily, until the pin has gone.
fn last_mount_stays() -> Result<()> {
    let (first, second) = ("/run/longpin-first", "/run/longpin-second");
    let pin = pinned_in_tmpfs(first)?;
    std::fs::create_dir_all(second)?;
    must_run("mount", &["--bind", first, second])?;
    must_run("umount", &["-l", first]).context("not the last")?;
    for flags in [&["-l", second][..], &[second]] {
        ensure!(!run("umount", flags)?, "the last mount went: {flags:?}");
    }
    let path = Path::new(second).join("file");
    must_refuse(
        "through the other mount",
        longpin_tests::act::truncate(&path, 0),
    )?;
    drop(pin);
    must_allow_soon("released", || longpin_tests::act::truncate(&path, 0))?;
    must_run("umount", &["-l", second]).context("nobody pins")
}

/// The lazy end of a parent mount takes the mounts below with it, and asks about the parent only: refused, or
/// reported as broken, never silence.
pub(super) fn c13_lazy_umount_of_parent() -> Result<()> {
    guard::on()?;
    let told = Told::mark()?;
    let parent = "/run/longpin-parent";
    std::fs::create_dir_all(parent)?;
    must_run("mount", &["-t", "tmpfs", "none", parent])?;
    let pin = pinned_in_tmpfs("/run/longpin-parent/child")?;
    if run("umount", &["-l", parent])? {
        let held = told.all_are_broken()?;
        ensure!(held == 1, "{held} holds");
        return Ok(());
    }
    println!("the umount of the parent is refused");
    drop(pin);
    let path = Path::new("/run/longpin-parent/child/file");
    must_allow_soon("released", || longpin_tests::act::truncate(path, 0))?;
    must_run("umount", &["-R", parent])
}

/// Every page of a hold has left its file: the row stays, as broken, until the pins have gone.
pub(super) fn c13_broken_stays() -> Result<()> {
    guard::on()?;
    for kind in [FsKind::Tmpfs, FsKind::Ext4] {
        let f = TestFile::new(kind, LEN as u64)?;
        let told = Told::mark()?;
        let pinned = pin(&f, 0, LEN)?;
        // The loop driver punches its file, and asks nobody.
        discard(&f.path)?;
        for _ in 0..2 {
            must_be_broken(&guard::holds_on(&f.path)?)?;
        }
        let why = guard::must(&["why", &f.path.to_string_lossy()])?;
        ensure!(!why.contains("nobody"), "{kind}: {why}");
        let ended = told.ended()?;
        ensure!(ended.is_empty(), "{kind}: ended before its pins: {ended:?}");
        // What a new pin finds is the file's, and held; the old one's pages are not.
        let second = pin(&f, 0, LEN)?;
        must_refuse("a page that is the file's", ftruncate(&f.file, 0))?;
        drop((second, pinned));
        must_allow_soon("without pins", || ftruncate(&f.file, 0))?;
        let rows = guard::holds_on(&f.path)?;
        ensure!(rows.is_empty(), "{kind}: without pins: {rows:?}");
    }
    a_part_of_a_folio()?;
    its_file_has_gone()
}

/// A large folio goes as a whole: what was not pinned of it is none of the row's pages.
fn a_part_of_a_folio() -> Result<()> {
    let f = TestFile::new(FsKind::Xfs, 1 << 20)?;
    let pinned = pin(&f, 0, LEN)?;
    discard(&f.path)?;
    must_be_broken(&guard::holds_on(&f.path)?)?;
    drop(pinned);
    must_allow_soon("without pins", || ftruncate(&f.file, 0))
}

/// The same of a file that is no more: nothing but the row's name is left of it.
fn its_file_has_gone() -> Result<()> {
    let f = TestFile::new(FsKind::Tmpfs, LEN as u64)?;
    let (name, orphan) = (
        f.path.file_name().context("no name")?.to_owned(),
        by_ring(&f.file)?,
    );
    drop(f);
    let name = format!("{} (gone)", name.to_string_lossy());
    let rows = || -> Result<Vec<Value>> {
        let mut rows = guard::all_holds()?;
        rows.retain(|row| row["path"] == name);
        Ok(rows)
    };
    must_be_broken(&rows()?)?;
    drop(orphan);
    let begin = Instant::now();
    while !rows()?.is_empty() {
        ensure!(begin.elapsed() < Duration::from_secs(20), "it does not end");
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

fn must_be_broken(rows: &[Value]) -> Result<()> {
    let is_ours = |row: &Value| {
        row["kind"] == "broken"
            && row["pages"] == LEN / 4096
            && row["pid"] == std::process::id()
            && row["broken-pages"].as_u64() > Some(0)
    };
    let is_one = rows.len() == 1 && rows.iter().all(is_ours);
    ensure!(is_one, "not one broken row: {rows:?}");
    Ok(())
}

/// `blkdiscard` of a loop device over all of the file.
fn discard(path: &Path) -> Result<()> {
    let path = path.to_string_lossy();
    let made = Command::new("losetup")
        .args(["--find", "--show", &path])
        .output()?;
    ensure!(made.status.success(), "losetup: {made:?}");
    let device = String::from_utf8(made.stdout)?;
    let discarded = run("blkdiscard", &[device.trim()])?;
    must_run("losetup", &["--detach", device.trim()])?;
    ensure!(discarded, "blkdiscard");
    Ok(())
}

/// The only one who knows a deleted file is killed: whatever ends first, nothing is left of the hold.
fn owners_are_killed() -> Result<()> {
    for kind in [FsKind::Tmpfs, FsKind::Ext4] {
        for _ in 0..rounds(3, 30) {
            let f = TestFile::new(kind, LEN as u64)?;
            let mut owner = Actor::start(0)?;
            let path = f.path.display().to_string();
            owner.ask(&if kind.is_memory() {
                format!("pin 1 {path} 0 {LEN}")
            } else {
                format!("region {path}")
            })?;
            must_refuse("a live file", ftruncate(&f.file, 0))?;
            drop(f);
            owner.kill()?;
            let fresh = TestFile::new(kind, LEN as u64)?;
            must_allow("a new file", ftruncate(&fresh.file, 0))?;
        }
    }
    let holds = guard::all_holds()?;
    ensure!(
        holds.iter().all(|hold| hold["deleted"] == false),
        "holds: {holds:?}"
    );
    Ok(())
}
