//! C09 and C13 for calls that sleep: a pin call half way, an operation between its check and its deed.
#![allow(unsafe_code, reason = "write(2) from memory that is not there yet")]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Barrier;
use std::thread::{Scope, ScopedJoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use longpin_linux::{FixedBuffer, PinnedMemory, RegisterError};
use longpin_tests::PATIENCE;
use longpin_tests::act::{Outcome, ftruncate, punch};
use longpin_tests::mapping::Mapping;
use longpin_tests::scratch::FsKind;
use rustix::io::Errno;

use super::uffd::Watched;
use super::{KernelLog, PAGE, rounds};
use crate::files::TestFile;
use crate::guard;
use crate::pin::{must_allow, must_allow_soon, must_refuse};
use crate::report::{skip, skip_part};

const PAGES: u64 = 8;
/// The page on which a pin call sleeps.
const HOLE: u64 = 4;
/// A page that it has not come to by then.
const LATER: u64 = 6;
const LEN: usize = 32_768;

type Pinning<'scope> = ScopedJoinHandle<'scope, Result<PinnedMemory, RegisterError>>;

/// A file with a hole, and a watched mapping of it.
fn holed() -> Result<(TestFile, Watched)> {
    let f = TestFile::new(FsKind::Tmpfs, PAGES * PAGE)?;
    must_allow("the hole", punch(&f.file, HOLE * PAGE, PAGE))?;
    let watched = Watched::new(Mapping::shared(&f.file, 0, LEN, true)?)?;
    Ok((f, watched))
}

/// A thread that pins the mapping, and now sleeps in it; or what kept the kernel from sleeping there.
fn fall_asleep<'scope>(
    scope: &'scope Scope<'scope, '_>,
    watched: &Watched,
) -> Result<Result<Pinning<'scope>, RegisterError>> {
    let (address, len) = (watched.mapping().addr(), watched.mapping().len());
    let pinning = scope.spawn(move || FixedBuffer::register_memory(address, len));
    if watched.wait(|| pinning.is_finished())? {
        return Ok(Ok(pinning));
    }
    match end(pinning)? {
        Ok(_) => bail!("the pin did not meet the hole"),
        Err(err) => Ok(Err(err)),
    }
}

fn end<T>(thread: ScopedJoinHandle<'_, T>) -> Result<T> {
    thread
        .join()
        .map_err(|_| anyhow::anyhow!("a thread panicked"))
}

/// Before 6.10 io_uring pins with the lock of the mappings in hand, under which nobody may sleep on a hole.
fn cannot_sleep(err: &RegisterError, f: &TestFile) -> Result<()> {
    ensure!(
        matches!(err, RegisterError::NotPinnable(why) if why.raw_os_error() == Some(libc::EFAULT)),
        "register: {err:?}"
    );
    must_allow_soon("nothing stays pinned", || ftruncate(&f.file, 0))
}

const NO_WAIT: &str = "io_uring does not wait for a missing page (EFAULT)";

/// A pin call that sleeps half way has pinned the pages before the hole: they are held from then on. Meanwhile
/// a probe comes and goes on the pin function, and one of the guard's own programs leaves it, which makes the
/// kernel skip the program at the exit of the sleeping call: held nevertheless, also after a sweep.
///
/// Fails when `hints_complete` does not ask the balance of entries and exits, and when a sweep acknowledges the
/// lost exit without having looked at the pages.
pub(super) fn c13_sleeping_pin() -> Result<()> {
    guard::fresh()?;
    let log = KernelLog::mark()?;
    let slept = std::thread::scope(sleep_half_way);
    // It has lost a program.
    guard::off()?;
    slept?;
    log.must_be_clean()
}

fn sleep_half_way<'scope>(scope: &'scope Scope<'scope, '_>) -> Result<()> {
    let (f, watched) = holed()?;
    let pinning = match fall_asleep(scope, &watched)? {
        Ok(pinning) => pinning,
        Err(err) => {
            cannot_sleep(&err, &f)?;
            return skip(NO_WAIT);
        }
    };
    let tried = try_while_asleep(&f);
    // What was punched meanwhile is a hole like the first: the call would sleep there next.
    let filled = watched
        .fill(LATER * PAGE)
        .and_then(|()| watched.fill(HOLE * PAGE));
    tried?;
    filled?;
    let mut pin = end(pinning)??;
    must_refuse("its exit was not seen", ftruncate(&f.file, 0))?;
    must_refuse("the last page", punch(&f.file, 7 * PAGE, PAGE))?;
    same_bytes(&mut pin, &f).context("held")?;
    guard::must(&["guard", "sweep"])?;
    must_refuse("after a sweep", ftruncate(&f.file, 0))?;
    drop(pin);
    must_allow_soon("released", || ftruncate(&f.file, 0))
}

fn try_while_asleep(f: &TestFile) -> Result<()> {
    must_refuse("half way", ftruncate(&f.file, 0))?;
    must_refuse("a page before the hole", punch(&f.file, 0, PAGE))?;
    must_allow(
        "a page that nobody has yet",
        punch(&f.file, LATER * PAGE, PAGE),
    )?;
    probe_comes_and_goes().context("a probe")?;
    must_refuse("with a probe that came and went", ftruncate(&f.file, 0))?;
    for name in ["pin_user_pages_fast_entry", "pin_user_pages_entry"] {
        std::fs::remove_file(format!("/sys/fs/bpf/longpin/link_{name}"))?;
    }
    sleep(Duration::from_secs(1));
    must_refuse("with one program less", ftruncate(&f.file, 0))
}

fn probe_comes_and_goes() -> Result<()> {
    let tracing = std::path::Path::new("/sys/kernel/tracing");
    if !tracing.join("kprobe_events").exists() {
        let mount = std::process::Command::new("mount")
            .args(["-t", "tracefs", "none", "/sys/kernel/tracing"])
            .status()?;
        ensure!(mount.success(), "no tracefs");
    }
    let write = |file: &str, words: &str| {
        let file = tracing.join(file);
        let mut file = File::options().append(true).open(file)?;
        std::io::Write::write_all(&mut file, words.as_bytes())
    };
    write("kprobe_events", "p:longpin_test pin_user_pages_fast\n")?;
    write("events/kprobes/longpin_test/enable", "1")?;
    sleep(Duration::from_millis(200));
    write("events/kprobes/longpin_test/enable", "0")?;
    Ok(write("kprobe_events", "-:longpin_test\n")?)
}

/// Does the device see the beginning of the file?
fn is_same(pin: &mut PinnedMemory, f: &TestFile) -> Result<bool> {
    let seen = pin.read_as_device()?;
    let mut found = vec![0; seen.len()];
    f.file.read_exact_at(&mut found, 0)?;
    Ok(seen == found)
}

fn same_bytes(pin: &mut PinnedMemory, f: &TestFile) -> Result<()> {
    ensure!(is_same(pin, f)?, "the device sees other bytes");
    Ok(())
}

/// Held or reported: device and file have the same bytes, or an event says that they do not. True: lost.
fn held_or_reported(pin: &mut PinnedMemory, f: &TestFile) -> Result<bool> {
    if is_same(pin, f)? {
        must_refuse("the device has the file's pages", punch(&f.file, 0, PAGE))?;
        return Ok(false);
    }
    let events = guard::events_on(&f.path)?;
    ensure!(
        events.iter().any(|event| event["event"] == "broken"),
        "lost in silence: the device has other bytes than the file, and the events are {events:?}"
    );
    Ok(true)
}

/// A punch asks before there is a pin, and waits for the inode's lock behind a write that sleeps; then come the
/// pin, and the end of the write. The guard cannot undo the answer: it must report the loss, also where the
/// punch takes the pages while the pin call is still under way. After that, chance in small.
///
/// Fails when `page_removed` is not attached, when it asks only for files that are known to be held (the
/// call under way), and when losses are kept but not asked for at the exit of the pin call.
pub(super) fn c13_race() -> Result<()> {
    guard::on()?;
    let log = KernelLog::mark()?;
    for pin_sleeps in [false, true] {
        let lost = std::thread::scope(|scope| late_punch(scope, pin_sleeps));
        let how = if pin_sleeps { "during" } else { "after" };
        match lost.with_context(|| format!("{how} the pin call"))? {
            true => println!("a late punch {how} the pin call: lost, and reported"),
            false => println!("a late punch {how} the pin call: held, or skipped"),
        }
    }
    let times = rounds(20, 2_000);
    let mut lost = 0;
    for round in 0..times {
        lost += u32::from(race().with_context(|| format!("round {round}"))?);
    }
    println!("{lost} of {times} races lost, all reported");
    log.must_be_clean()
}

fn late_punch<'scope>(scope: &'scope Scope<'scope, '_>, pin_sleeps: bool) -> Result<bool> {
    let (f, watched) = holed()?;
    let unready = Watched::new(Mapping::anonymous(4096)?)?;
    let (writing, punching) = punch_behind_write(scope, &f, &unready)?;
    let end_of_punch = || {
        unready.fill(0)?;
        end(writing)??;
        must_allow("the punch asked before the pin", end(punching)?)
    };
    let mut pin = if pin_sleeps {
        let pinning = match fall_asleep(scope, &watched)? {
            Ok(pinning) => pinning,
            Err(err) => {
                end_of_punch()?;
                cannot_sleep(&err, &f)?;
                skip_part("during", NO_WAIT);
                return Ok(false);
            }
        };
        end_of_punch()?;
        watched.fill(HOLE * PAGE)?;
        end(pinning)??
    } else {
        watched.fill(HOLE * PAGE)?;
        let pin = FixedBuffer::register_memory(watched.mapping().addr(), LEN)?;
        end_of_punch()?;
        pin
    };
    let lost = held_or_reported(&mut pin, &f)?;
    must_refuse("what is left", punch(&f.file, 7 * PAGE, PAGE))?;
    drop(pin);
    must_allow_soon("released", || ftruncate(&f.file, 0))?;
    Ok(lost)
}

type Acting<'scope, T> = ScopedJoinHandle<'scope, T>;

/// A write that sleeps with the inode's lock, and a punch that has asked and waits for that lock.
fn punch_behind_write<'scope>(
    scope: &'scope Scope<'scope, '_>,
    f: &TestFile,
    unready: &Watched,
) -> Result<(Acting<'scope, Result<()>>, Acting<'scope, Outcome>)> {
    let (file, source) = (f.file.try_clone()?, unready.mapping().addr());
    let writing = scope.spawn(move || write_from(&file, source));
    ensure!(
        unready.wait(|| writing.is_finished())?,
        "the write did not begin"
    );
    let file = f.file.try_clone()?;
    let (tell, told) = std::sync::mpsc::channel();
    let punching = scope.spawn(move || {
        let _ = tell.send(rustix::thread::gettid());
        punch(&file, 0, 2 * PAGE)
    });
    let task = format!("/proc/self/task/{}", told.recv()?);
    let begin = Instant::now();
    while !waits_in_fallocate(&task)? {
        ensure!(!punching.is_finished(), "the punch did not wait");
        ensure!(begin.elapsed() < PATIENCE, "the punch waits for no lock");
        sleep(Duration::from_millis(20));
    }
    Ok((writing, punching))
}

/// Asleep inside a fallocate, and not to be woken by a signal: for the inode's lock. A stack shows no functions of the
/// scheduler and its locks on most kernels.
fn waits_in_fallocate(task: &str) -> Result<bool> {
    let stat = std::fs::read_to_string(format!("{task}/stat"))?;
    let sleeps = stat
        .rsplit_once(") ")
        .is_some_and(|(_, rest)| rest.starts_with('D'));
    let stack = std::fs::read_to_string(format!("{task}/stack"))?;
    Ok(sleeps && stack.contains("vfs_fallocate"))
}

/// One page at the end of the file, from memory that may not be there yet: sleeps with the inode's lock.
fn write_from(file: &File, source: usize) -> Result<()> {
    let from = source as *const libc::c_void;
    let at = libc::off_t::try_from(PAGES * PAGE)?;
    // SAFETY: the kernel reads one page of a mapping that outlives the thread.
    let written = unsafe { libc::pwrite(file.as_raw_fd(), from, 4096, at) };
    ensure!(
        written == 4096,
        "write: {}",
        std::io::Error::last_os_error()
    );
    Ok(())
}

/// A pin against a punch, behind a write that keeps the inode's lock busy.
fn race() -> Result<bool> {
    let f = TestFile::new(FsKind::Tmpfs, PAGES * PAGE)?;
    let mapping = Mapping::shared(&f.file, 0, LEN, true)?;
    let (address, len) = (mapping.addr(), mapping.len());
    let start = Barrier::new(3);
    let (mut pin, punched) = std::thread::scope(|scope| {
        let punching = scope.spawn(|| {
            start.wait();
            punch(&f.file, 0, PAGES * PAGE)
        });
        scope.spawn(|| {
            start.wait();
            let bytes = vec![1; 1 << 18];
            let _ = f.file.write_all_at(&bytes, PAGES * PAGE);
        });
        start.wait();
        let pin = FixedBuffer::register_memory(address, len)?;
        anyhow::Ok((pin, end(punching)?))
    })?;
    let allowed: [Outcome; 2] = [Ok(()), Err(Errno::TXTBSY)];
    ensure!(allowed.contains(&punched), "punch: {punched:?}");
    let lost = held_or_reported(&mut pin, &f)?;
    must_refuse("whatever came before", ftruncate(&f.file, 0)).or_else(|err| {
        // All its pages are another's.
        if lost { Ok(()) } else { Err(err) }
    })?;
    Ok(lost)
}
