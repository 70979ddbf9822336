//! Who else has the file: a hold is granted only where nobody can write to it, and nothing is published before.
#![allow(
    unsafe_code,
    reason = "acct(2), and a main thread that ends before others"
)]

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use longpin_linux::FixedBuffer;
use longpin_tests::act::{ftruncate, swap};
use longpin_tests::mapping::Mapping;
use longpin_tests::scratch::FsKind;
use rustix::io::Errno;

use crate::blocks::{check, sh, status};
use crate::child::{Pinner, WORD};
use crate::files::TestFile;
use crate::hold::Holder;
use crate::pin::{must_allow, must_allow_soon, must_refuse};
use crate::{Test, guard};

pub(crate) const TESTS: &[Test] = &[
    ("c13_main_thread_has_ended", main_thread_has_ended),
    ("c13_other_pid_namespace", other_pid_namespace),
    ("c06_kernel_writers", kernel_writers),
    ("c10_killed_while_it_waits", killed_while_it_waits),
    ("c12_holes_in_memory", holes_in_memory),
    ("c12_covered_swap_file", covered_swap_file),
    ("c14_strange_names", strange_names),
];

pub(crate) const LONG_TESTS: &[Test] = &[
    ("c09_programs_switched_off", programs_switched_off),
    ("c10_killed_at_each_step", killed_at_each_step),
    ("c12_two_bpf_file_systems", two_bpf_file_systems),
    ("c13_device_still_writes", device_still_writes),
];

const LEN: u64 = 1 << 20;

/// `longpin hold FILE -- true`, without waiting for other holds: its status and words.
fn hold(path: &Path) -> Result<(i32, String)> {
    status(&["hold", "-n", &path.to_string_lossy(), "--", "true"])
}

fn must_be_refused(path: &Path, code: i32, word: &str) -> Result<()> {
    let (found, words) = hold(path)?;
    ensure!(
        found == code && words.contains(word),
        "{code} and {word:?} expected: {found}: {words}"
    );
    Ok(())
}

fn must_be_held(path: &Path) -> Result<()> {
    let (code, words) = hold(path)?;
    ensure!(code == 0, "{code}: {words}");
    Ok(())
}

/// `leaderless PATH`: a thread maps the file shared and writable and stays, the main thread ends.
pub(crate) fn map_and_end_main(arguments: &[String]) -> Result<()> {
    let [path] = arguments else {
        bail!("leaderless PATH")
    };
    let path = path.clone();
    let mapped = std::thread::spawn(move || -> Result<()> {
        let file = File::options().read(true).write(true).open(path)?;
        let mapping = Mapping::shared(&file, 0, 4096, true)?;
        std::thread::sleep(Duration::from_millis(300));
        println!("pinned");
        std::io::stdout().flush()?;
        std::io::stdin().lines().for_each(drop);
        mapping.copy_in(0, b"T");
        Ok(())
    });
    // SAFETY: exit(2) of this thread alone; nothing on its stack is used by the other one.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    drop(mapped);
    Ok(())
}

/// C13, C06: /proc shows no mappings of a process whose main thread has ended; the inode does.
fn main_thread_has_ended() -> Result<()> {
    guard::on()?;
    let file = TestFile::new(FsKind::Ext4, LEN)?;
    let child = Pinner::start(&["leaderless", &file.path.to_string_lossy()])?;
    let maps = fs::read(format!("/proc/{}/maps", child.pid())).unwrap_or_default();
    ensure!(maps.is_empty(), "its main thread lives");
    must_be_refused(&file.path, 1, &format!("[{}]", child.pid()))?;
    child.kill()?;
    must_be_held(&file.path)?;
    file.check_all()
}

/// C13: asked for where the processes of others are not seen.
fn other_pid_namespace() -> Result<()> {
    guard::on()?;
    let file = TestFile::new(FsKind::Xfs, LEN)?;
    let mapping = Mapping::shared(&file.file, 0, 4096, true)?;
    let ask = || {
        let output = Command::new("unshare")
            .args(["--pid", "--fork", "--mount-proc", "longpin", "hold", "-n"])
            .arg(&file.path)
            .args(["--", "true"])
            .output()?;
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        anyhow::Ok((output.status.code().context("killed")?, words))
    };
    let (code, words) = ask()?;
    let own = format!("[{}]", std::process::id());
    ensure!(code == 1 && words.contains(&own), "{code}: {words}");
    drop(mapping);
    let (code, words) = ask()?;
    ensure!(
        code == 2 && words.contains("cannot tell"),
        "{code}: {words}"
    );
    must_be_held(&file.path)
}

/// acct(2): the kernel appends to the file when a process ends. `None`: no longer.
fn account(path: Option<&Path>) -> Result<(), Errno> {
    let path = path.and_then(|path| CString::new(path.as_os_str().as_bytes()).ok());
    let pointer = path.as_ref().map_or(std::ptr::null(), |path| path.as_ptr());
    // SAFETY: null, or a C string that outlives the call.
    match unsafe { libc::acct(pointer) } {
        0 => Ok(()),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}

/// C06: the kernel itself writes to a file, and no hook is asked. Beside a swap file, which stays as it is.
fn kernel_writers() -> Result<()> {
    guard::on()?;
    let file = TestFile::new(FsKind::Ext4, LEN)?;
    if account(Some(&file.path)) == Err(Errno::NOSYS) {
        println!("not run: this kernel has no acct(2)");
        return Ok(());
    }
    let refused = must_be_refused(&file.path, 1, "inside the kernel");
    let ended = account(None);
    refused?;
    must_allow("no accounting", ended)?;
    let free = TestFile::new(FsKind::Ext4, LEN)?;
    let held = Holder::start(&[], &free.path)?;
    must_refuse("acct of a held file", account(Some(&free.path)))?;
    // Who opens it for reading, or writes to another, is not asked.
    File::open(&free.path)?;
    File::options().append(true).open(&free.path)?;
    must_allow("acct of another", account(Some(&file.path)))?;
    must_allow("no accounting", account(None))?;
    ensure!(held.end()? == 7);
    free.check_all()?;
    accounting_leaves_a_swap_file()
}

fn accounting_leaves_a_swap_file() -> Result<()> {
    let file = TestFile::new(FsKind::Ext4, LEN)?;
    sh("mkswap -q $F", &file.path)?;
    let name = CString::new(file.path.as_os_str().as_bytes())?;
    must_allow("swapon", swap(&name, true))?;
    let answer = account(Some(&file.path));
    Command::new("true").status()?;
    let len = file.file.metadata().map(|data| data.len());
    let ended = account(None);
    must_allow("swapoff", swap(&name, false))?;
    must_allow("no accounting", ended)?;
    println!("acct of a swap file: {answer:?}");
    ensure!(len? == LEN, "the swap file grew");
    Ok(())
}

/// C10, C12, C13: a fixed buffer of nobody who could be seen, and a hold that waits for its end is killed.
fn killed_while_it_waits() -> Result<()> {
    guard::on()?;
    let file = TestFile::new(FsKind::Tmpfs, LEN)?;
    let buffer = FixedBuffer::register(&file.file, 0, 65_536)?;
    buffer.leave_file()?;
    let own = format!("[{}]", std::process::id());
    let mut waiting = persisting(&file.path)?;
    std::thread::sleep(Duration::from_secs(4));
    ensure!(waiting.try_wait()?.is_none(), "it does not wait");
    waiting.kill()?;
    waiting.wait()?;
    must_be_nobodys(&file)?;
    // Who waits as long as it waits is refused with the owner.
    must_be_refused(&file.path, 1, &own)?;
    must_be_nobodys(&file)?;
    drop(buffer);
    must_be_held(&file.path)?;
    killed_when_armed()
}

/// The same when the hold stands already, and waits for a splice that had asked before.
fn killed_when_armed() -> Result<()> {
    let file = TestFile::new(FsKind::Ext4, LEN)?;
    let (reader, writer) = rustix::pipe::pipe()?;
    let target = file.file.try_clone()?;
    let splicing = std::thread::spawn(move || {
        let none = rustix::pipe::SpliceFlags::empty();
        rustix::pipe::splice(&reader, None, &target, Some(&mut 0), 4096, none)
    });
    std::thread::sleep(Duration::from_millis(500));
    let mut waiting = persisting(&file.path)?;
    let begin = Instant::now();
    while ftruncate(&file.file, LEN) != Err(Errno::TXTBSY) {
        ensure!(begin.elapsed() < Duration::from_secs(30), "it is not armed");
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut rows = guard::holds_on(&file.path)?;
    rows.retain(|row| row["kind"] == "explicit");
    ensure!(waiting.try_wait()?.is_none(), "it does not wait");
    waiting.kill()?;
    waiting.wait()?;
    ensure!(rows.is_empty(), "listed before it was judged: {rows:?}");
    must_be_nobodys(&file)?;
    drop(writer);
    let spliced = splicing.join().map_err(|_| anyhow::anyhow!("panicked"))?;
    ensure!(spliced == Ok(0), "{spliced:?}");
    must_be_held(&file.path)
}

/// `longpin hold --persist FILE`.
fn persisting(path: &Path) -> Result<Child> {
    let mut longpin = Command::new("longpin");
    longpin
        .args(["hold", "--persist"])
        .arg(path)
        .args(["--", "true"]);
    longpin.stdout(Stdio::null()).stderr(Stdio::null());
    Ok(longpin.spawn()?)
}

/// No hold that was asked for is listed, and everybody may write.
fn must_be_nobodys(file: &TestFile) -> Result<()> {
    let mut rows = guard::holds_on(&file.path)?;
    rows.retain(|row| row["kind"] == "explicit");
    ensure!(rows.is_empty(), "it is listed: {rows:?}");
    let mut byte = [0];
    file.file.read_exact_at(&mut byte, LEN - 1)?;
    must_allow_soon("a write", || {
        let written = file.file.write_all_at(&byte, LEN - 1);
        written.map_err(|err| Errno::from_io_error(&err).unwrap_or(Errno::IO))
    })
}

/// C10, C12: killed after ever longer times, until one is through: either it stands and persists, or nothing of it is
/// left.
fn killed_at_each_step() -> Result<()> {
    guard::on()?;
    let file = TestFile::new(FsKind::Ext4, LEN)?;
    let mut delay = Duration::from_millis(5);
    loop {
        let mut longpin = persisting(&file.path)?;
        std::thread::sleep(delay);
        let through = longpin.try_wait()?.is_some();
        longpin.kill()?;
        longpin.wait()?;
        let rows = guard::holds_on(&file.path)?;
        let stands = rows.iter().any(|row| row["kind"] == "explicit");
        if stands {
            must_refuse("truncate", ftruncate(&file.file, LEN))?;
            let id = rows[0]["id"].to_string();
            guard::must(&["release", &id])?;
        }
        must_be_nobodys(&file)?;
        file.check_all()?;
        if through {
            ensure!(stands, "it ended, and holds nothing");
            return Ok(());
        }
        delay = delay * 5 / 4 + Duration::from_millis(10);
    }
}

/// C12: userfaultfd(2) fills holes of files in memory; they are refused, and the hint cures.
fn holes_in_memory() -> Result<()> {
    guard::on()?;
    let file = TestFile::new(FsKind::Tmpfs, LEN)?;
    must_allow(
        "the hole",
        longpin_tests::act::punch(&file.file, 8192, 4096),
    )?;
    let before = fs::read(&file.path)?;
    let (code, words) = hold(&file.path)?;
    ensure!(code == 1 && words.contains("hole"), "{code}: {words}");
    let hint = words.lines().find_map(|line| line.strip_prefix("hint: "));
    sh(&format!("{} 2>&1", hint.context("no hint")?), &file.path)?;
    ensure!(fs::read(&file.path)? == before, "the hint changed the file");
    must_be_held(&file.path)
}

/// C12, C16: a swap file whose path leads elsewhere by now.
fn covered_swap_file() -> Result<()> {
    guard::on()?;
    let file = TestFile::new(FsKind::Ext4, LEN)?;
    let script = "mkdir -p /run/covered; mount --bind $D /run/covered; mkswap -q $F
        swapon /run/covered/$(basename $F); mount -t tmpfs none /run/covered";
    sh(script, &file.path)?;
    let tried = (|| {
        for purpose in ["blocks", "swap"] {
            let (verdict, reasons) = check(&file.path, purpose)?;
            let named = reasons.iter().any(|name| name == "active-swap");
            ensure!(
                verdict == "refused" && named,
                "{purpose}: {verdict} {reasons:?}"
            );
        }
        must_be_refused(&file.path, 1, "swap")
    })();
    let name = CString::new(file.path.as_os_str().as_bytes())?;
    let ended = swap(&name, false);
    sh("umount /run/covered; umount /run/covered", &file.path)?;
    tried?;
    must_allow("swapoff", ended)?;
    // A held file is no swap file, though both refuse the same.
    let held = Holder::start(&[], &file.path)?;
    let (_, reasons) = check(&file.path, "blocks")?;
    ensure!(
        !reasons.iter().any(|name| name == "active-swap"),
        "{reasons:?}"
    );
    ensure!(held.end()? == 7);
    Ok(())
}

/// C14, C12: somebody else's names are no reason to refuse.
fn strange_names() -> Result<()> {
    guard::on()?;
    let file = TestFile::new(FsKind::Ext4, LEN)?;
    let dir = file.path.parent().context("no directory")?;
    let strange = dir.join(OsStr::from_bytes(b"x\xff"));
    fs::copy("/usr/bin/sleep", &strange)?;
    let mut sleeper = Command::new(&strange).arg("1000").spawn()?;
    let tried = must_be_held(&file.path);
    sleeper.kill()?;
    sleeper.wait()?;
    fs::remove_file(&strange)?;
    tried
}

/// C09, C13: what is attached is not called. It is told, and what was missed meanwhile is known to be missed.
fn programs_switched_off() -> Result<()> {
    guard::fresh()?;
    let file = TestFile::new(FsKind::Tmpfs, LEN)?;
    if !guard::switch_tracing(false)? {
        guard::sweep_until_known()?;
        return crate::report::skip("the kernel does not switch its tracing functions off");
    }
    let told = (|| {
        let (code, words) = status(&["guard", "status"])?;
        ensure!(
            code == 1 && words.contains("ftrace_enabled"),
            "{code}: {words}"
        );
        let (code, words) = status(&["ls"])?;
        ensure!(
            code == 1 && words.contains("ftrace_enabled"),
            "ls: {code}: {words}"
        );
        must_be_refused(&file.path, 1, "ftrace_enabled")?;
        Ok(FixedBuffer::register(&file.file, 0, 65_536)?)
    })();
    guard::switch_tracing(true)?;
    let buffer = told?;
    let state = guard::status()?;
    ensure!(state["hints"] != "complete", "{state}");
    must_refuse("truncate", ftruncate(&file.file, 0))?;
    guard::must(&["guard", "sweep"])?;
    ensure!(
        guard::holds_on(&file.path)?.len() == 1,
        "the sweep missed it"
    );
    drop(buffer);
    probes_switched_off()
}

/// Before 6.4 one pin function is watched by probes, which have a switch of their own.
fn probes_switched_off() -> Result<()> {
    let probed = Path::new("/sys/fs/bpf/longpin/link_remote_probe_entry").exists();
    if !probed {
        println!("not run: no function is probed on this kernel");
        return Ok(());
    }
    guard::sweep_until_known()?;
    sh(
        "mount -t debugfs none /sys/kernel/debug 2>/dev/null || true; echo 0 >/sys/kernel/debug/kprobes/enabled",
        Path::new("/run/x"),
    )?;
    let during = guard::status()?;
    fs::write("/sys/kernel/debug/kprobes/enabled", "1")?;
    let after = guard::status()?;
    ensure!(during["hints"] != "complete", "{during}");
    ensure!(after["hints"] != "complete", "{after}");
    guard::sweep_until_known()
}

/// C12: another longpin, with a BPF file system of its own, has the file.
fn two_bpf_file_systems() -> Result<()> {
    guard::on()?;
    for (first, second) in [
        ("swapfile", "swapfile"),
        ("layout", "swapfile"),
        ("swapfile", "layout"),
    ] {
        let file = TestFile::new(FsKind::Ext4, LEN)?;
        let held = Holder::start(&["--level", first], &file.path)?;
        let script = format!(
            "unshare -m sh -c 'mount -t bpf none /sys/fs/bpf; longpin hold -n --level {second} $F -- true 2>&1 || echo code $?'"
        );
        let words = sh(&script, &file.path)?;
        ensure!(
            words.contains("held already") && words.contains("code 1"),
            "{second}: {words}"
        );
        ensure!(held.end()? == 7);
        let words = sh(&script, &file.path)?;
        ensure!(!words.contains("code"), "{second}: {words}");
    }
    Ok(())
}

/// `slow-read DEVICE PATH`: a direct read of a slow device into a mapping of the file, which is unmapped meanwhile.
pub(crate) fn slow_read(arguments: &[String]) -> Result<()> {
    let [device, path] = arguments else {
        bail!("slow-read DEVICE PATH")
    };
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECT;
    let device = rustix::fs::open(device.as_str(), flags, rustix::fs::Mode::empty())?;
    let file = File::options().read(true).write(true).open(path)?;
    let mapping = Mapping::shared(&file, 0, 4096, true)?;
    drop(file);
    let address = mapping.addr();
    let reading = std::thread::spawn(move || {
        use std::os::fd::AsRawFd;
        // SAFETY: the kernel writes to memory that no reference describes, or answers EFAULT.
        let got = unsafe { libc::read(device.as_raw_fd(), address as *mut libc::c_void, 4096) };
        println!("read {got}");
    });
    std::thread::sleep(Duration::from_secs(1));
    drop(mapping);
    println!("pinned");
    std::io::stdout().flush()?;
    reading.join().map_err(|_| anyhow::anyhow!("panicked"))
}

/// C13: an operation that nobody is seen in, and that writes to the file later.
fn device_still_writes() -> Result<()> {
    guard::on()?;
    let file = TestFile::new(FsKind::Ext4, LEN)?;
    // udev would read the slow device to see what is on it.
    let script =
        "modprobe dm-delay; truncate -s 8M /run/slow.img; L=$(losetup -f --show /run/slow.img)
        udevadm settle; udevadm control --stop-exec-queue; export DM_DISABLE_UDEV=1
        dmsetup create slow --table \"0 16384 delay $L 0 20000\"; echo $L";
    let device = sh(script, &file.path)?;
    let begin = Instant::now();
    let mut child = Command::new(std::env::current_exe()?)
        .args([WORD, "slow-read", "/dev/mapper/slow"])
        .arg(&file.path)
        .stdout(Stdio::null())
        .spawn()?;
    std::thread::sleep(Duration::from_secs(5));
    let answer = status(&[
        "hold",
        "-w",
        "60",
        &file.path.to_string_lossy(),
        "--",
        "true",
    ])?;
    let waited = begin.elapsed();
    let has_read = child.wait()?.success();
    let script = format!(
        "DM_DISABLE_UDEV=1 dmsetup remove --retry slow; losetup -d {}; udevadm control --start-exec-queue",
        device.trim()
    );
    sh(&script, &file.path)?;
    ensure!(has_read, "nothing was read");
    ensure!(answer.0 == 0, "{answer:?}");
    if !fs::read_to_string("/proc/kallsyms")?.contains(" iov_iter_extract_pages") {
        return crate::report::skip("direct I/O takes references, which are no pins");
    }
    ensure!(
        waited > Duration::from_secs(19),
        "it was granted after {waited:?}"
    );
    Ok(())
}
