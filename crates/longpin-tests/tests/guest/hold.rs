//! Explicit holds, and level swapfile: what an active swap file answers.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use longpin_linux::FixedBuffer;
use longpin_tests::PAGE;
use longpin_tests::act::{Outcome, ftruncate, open_truncate, outcome_name, punch, swap, truncate};
use longpin_tests::mapping::Mapping;
use longpin_tests::pattern::Pattern;
use longpin_tests::scratch::{FsKind, Scratch};
use rustix::fs::{FallocateFlags, fallocate, ioctl_ficlone};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount_remount, unmount};

use crate::blocks::{extents, status};
use crate::files::TestFile;
use crate::pin::{must_allow, must_allow_soon};
use crate::{Test, guard};

pub(crate) const TESTS: &[Test] = &[
    ("hold_ext4", || operations(FsKind::Ext4)),
    ("hold_under_guard", under_guard),
    ("hold_persists", persists),
    ("hold_refused", refused),
    ("hold_holder", holder),
    ("hold_excludes", excludes),
    ("hold_layout", layout),
    ("hold_kernel_writers", kernel_writers),
    ("c12_number_again", number_again),
];

pub(crate) const LONG_TESTS: &[Test] = &[
    ("hold_xfs", || operations(FsKind::Xfs)),
    ("hold_tmpfs", || operations(FsKind::Tmpfs)),
    ("hold_pins", pins),
];

const LEN: u64 = 1 << 20;

/// `longpin hold FILE -- CMD`, whose CMD waits.
pub(crate) struct Holder {
    longpin: Child,
    // Closing it ends CMD.
    stdin: Option<ChildStdin>,
    _said: String,
}

impl Holder {
    /// Says `LONGPIN_EXTENTS` when the hold stands; ends with status 7.
    pub(crate) fn start(arguments: &[&str], file: &Path) -> Result<Self> {
        let script = "echo \"ready $LONGPIN_EXTENTS $$\"; cat >/dev/null; exit 7";
        Self::run(arguments, file, &["sh", "-c", script])
    }

    fn run(arguments: &[&str], file: &Path, command: &[&str]) -> Result<Self> {
        let mut longpin = Command::new("longpin")
            .arg("hold")
            .args(arguments)
            .arg(file)
            .arg("--")
            .args(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = longpin.stdin.take();
        let stdout = longpin.stdout.take().context("no stdout")?;
        let mut said = String::new();
        BufReader::new(stdout).read_line(&mut said)?;
        ensure!(said.starts_with("ready"), "the holder said {said:?}");
        Ok(Self {
            longpin,
            stdin,
            _said: said,
        })
    }

    /// `longpin` is killed; CMD ends when the answer is dropped.
    pub(crate) fn abandon(mut self) -> Result<Option<ChildStdin>> {
        self.longpin.kill()?;
        self.longpin.wait()?;
        Ok(self.stdin.take())
    }

    /// Ends CMD: the exit status of `longpin`.
    pub(crate) fn end(mut self) -> Result<i32> {
        drop(self.stdin.take());
        self.longpin.wait()?.code().context("killed")
    }
}

fn expect(what: &str, outcome: Outcome, wanted: Errno) -> Result<()> {
    ensure!(
        outcome == Err(wanted),
        "{what} answered {}, not {wanted:?}",
        outcome_name(outcome)
    );
    Ok(())
}

fn io(result: std::io::Result<()>) -> Outcome {
    result.map_err(|err| Errno::from_io_error(&err).unwrap_or(Errno::IO))
}

/// C01, C02, C03, C04, C06, C07, C08, C16: each operation, through descriptors from before and after.
fn operations(kind: FsKind) -> Result<()> {
    guard::off()?;
    let file = TestFile::new(kind, LEN)?;
    fs::set_permissions(&file.path, fs::Permissions::from_mode(0o755))?;
    let reader = File::open(&file.path)?;
    let old = Mapping::shared(&file.file, 0, 4096, false)?;
    let held = Holder::start(&[], &file.path)?;
    let path = file.path.to_string_lossy();
    let row = guard::holds_on(&file.path)?;
    ensure!(row.len() == 1 && row[0]["kind"] == "explicit", "{row:?}");
    ensure!(row[0]["level"] == "swapfile", "{row:?}");
    sizes_and_writes(&file)?;
    copies(&file)?;
    mappings(&file, &old)?;
    names(&file)?;
    let exec = Command::new(&file.path).status();
    let errno = exec.err().and_then(|err| Errno::from_io_error(&err));
    ensure!(errno == Some(Errno::TXTBSY), "execve answered {errno:?}");
    // Reads go on, and nothing has changed.
    let mut bytes = vec![0; usize::try_from(LEN)?];
    reader.read_exact_at(&mut bytes, 0)?;
    file.check(0, &bytes)?;
    let (code, words) = status(&["hold", "-n", "-E", "9", &path, "--", "true"])?;
    ensure!(
        code == 9 && words.contains("held already"),
        "{code}: {words}"
    );
    ensure!(held.end()? == 7, "CMD's status was lost");
    must_allow("a write afterwards", io(file.file.write_all_at(b"x", 0)))?;
    must_allow("truncate afterwards", truncate(&file.path, 4096))?;
    let (code, words) = status(&["guard", "status"])?;
    ensure!(code == 1, "something was left: {words}");
    Ok(())
}

fn sizes_and_writes(file: &TestFile) -> Result<()> {
    let busy = Errno::TXTBSY;
    expect("truncate", truncate(&file.path, 4096), busy)?;
    expect("ftruncate to its size", ftruncate(&file.file, LEN), busy)?;
    expect("O_TRUNC", open_truncate(&file.path), busy)?;
    expect("a write", io(file.file.write_all_at(b"x", 4096)), busy)?;
    let mut append = File::options().append(true).open(&file.path)?;
    expect("an append", io(append.write_all(b"x")), busy)?;
    let modes = [
        FallocateFlags::empty(),
        FallocateFlags::KEEP_SIZE,
        FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
    ];
    for mode in modes {
        let what = format!("fallocate {mode:?}");
        expect(&what, fallocate(&file.file, mode, 0, LEN), busy)?;
    }
    if !file.kind.is_memory() {
        let direct = File::options()
            .write(true)
            .custom_flags(i32::try_from(rustix::fs::OFlags::DIRECT.bits())?)
            .open(&file.path)?;
        let room = vec![0; 2 * PAGE];
        let start = room.as_ptr().align_offset(PAGE);
        let page = &room[start..start + PAGE];
        expect("a direct write", io(direct.write_all_at(page, 0)), busy)?;
    }
    must_allow("growing", ftruncate(&file.file, LEN + 4096))?;
    Ok(())
}

fn copies(file: &TestFile) -> Result<()> {
    let other = TestFile::new(file.kind, LEN)?;
    let busy = Errno::TXTBSY;
    let copy = |from: &File, to: &File| {
        rustix::fs::copy_file_range(from, Some(&mut 0), to, Some(&mut 0), 4096).map(drop)
    };
    expect("copy into", copy(&other.file, &file.file), busy)?;
    expect("copy from", copy(&file.file, &other.file), busy)?;
    if file.kind == FsKind::Xfs {
        expect("clone into", ioctl_ficlone(&file.file, &other.file), busy)?;
        expect("clone from", ioctl_ficlone(&other.file, &file.file), busy)?;
    }
    other.check_all()
}

fn mappings(file: &TestFile, old: &Mapping) -> Result<()> {
    let shared = Mapping::shared(&file.file, 0, 4096, true);
    ensure!(
        shared.is_err_and(|err| err == Errno::TXTBSY),
        "it was mapped"
    );
    // 6.1 asks first whether the mapping may be written; the holder tries through one that may.
    let removed = old.remove();
    ensure!(
        matches!(removed, Err(Errno::TXTBSY | Errno::ACCESS)),
        "MADV_REMOVE answered {}",
        outcome_name(removed)
    );
    Mapping::private(&file.file, 0, 4096).context("a private mapping")?;
    Mapping::shared(&file.file, 0, 4096, false).context("a read-only mapping")?;
    Ok(())
}

fn names(file: &TestFile) -> Result<()> {
    let aside = file.path.with_extension("aside");
    let other = file.path.with_extension("other");
    fs::write(&other, "other")?;
    let denied = Errno::PERM;
    expect("unlink", io(fs::remove_file(&file.path)), denied)?;
    expect("rename away", io(fs::rename(&file.path, &aside)), denied)?;
    expect("rename over", io(fs::rename(&other, &file.path)), denied)?;
    fs::hard_link(&file.path, &aside).context("a hard link")?;
    expect("unlink of the link", io(fs::remove_file(&aside)), denied)?;
    fs::remove_file(&other)?;
    Ok(())
}

/// C12: what is refused leaves everything as it was.
fn refused() -> Result<()> {
    guard::on()?;
    let file = TestFile::new(FsKind::Ext4, LEN)?;
    let path = file.path.to_string_lossy();
    let mapped = Mapping::shared(&file.file, 0, 4096, true)?;
    let (code, words) = status(&["hold", &path, "--", "true"])?;
    let own = format!("[{}]", std::process::id());
    ensure!(code == 1 && words.contains(&own), "{code}: {words}");
    drop(mapped);
    let hole = TestFile::new(FsKind::Ext4, LEN)?;
    punch(&hole.file, 4096, 4096)?;
    let text = hole.path.to_string_lossy();
    let (code, words) = status(&["hold", "-E", "3", &text, "--", "true"])?;
    ensure!(code == 3 && words.contains("hole"), "{code}: {words}");
    must_allow("a write", io(hole.file.write_all_at(b"x", 0)))?;
    must_be_detached()?;
    let (code, _) = status(&["hold", &path, "--", "/no/such/command"])?;
    ensure!(code == 127, "{code}");
    file.check_all()
}

/// C06, C10: the holder maps and stores; `longpin` may be killed, the hold ends with what it started.
fn holder() -> Result<()> {
    guard::on()?;
    let file = TestFile::new(FsKind::Ext4, LEN)?;
    let this = std::env::current_exe()?;
    let path = file.path.to_string_lossy();
    let command = [&*this.to_string_lossy(), crate::child::WORD, "map", &*path].map(str::to_owned);
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let mut held = Holder::run(&[], &file.path, &command)?;
    let mut byte = [0];
    file.file.read_exact_at(&mut byte, 0)?;
    ensure!(byte == *b"H", "the holder's store is not there: {byte:?}");
    held.longpin.kill()?;
    held.longpin.wait()?;
    expect(
        "a write",
        io(file.file.write_all_at(b"x", 0)),
        Errno::TXTBSY,
    )?;
    drop(held.stdin.take());
    must_allow_soon("a write after the end", || {
        io(file.file.write_all_at(b"x", 0))
    })?;
    // The next command removes what was left.
    let (code, words) = status(&["hold", &path, "--", "true"])?;
    ensure!(code == 0, "{code}: {words}");
    must_be_detached()
}

/// The programs of the level have gone with the last hold.
fn must_be_detached() -> Result<()> {
    ensure!(guard::status()?["strict"] == false, "the level is left");
    Ok(())
}

/// `map PATH`: map shared and writable, store an H, say so, stay until standard input ends.
pub(crate) fn map_and_store(arguments: &[String]) -> Result<()> {
    let [path] = arguments else { bail!("map PATH") };
    let file = File::options().read(true).write(true).open(path)?;
    let mapping = Mapping::shared(&file, 0, 4096, true).context("the holder may not map")?;
    mapping.copy_in(0, b"H");
    expect("the holder's MADV_REMOVE", mapping.remove(), Errno::TXTBSY)?;
    println!("ready");
    std::io::stdout().flush()?;
    std::io::stdin().lines().for_each(drop);
    Ok(())
}

/// Layout holds share; a swapfile hold shares with nobody, and is waited for.
fn excludes() -> Result<()> {
    guard::on()?;
    let file = TestFile::new(FsKind::Ext4, LEN)?;
    let path = file.path.to_string_lossy();
    let one = Holder::start(&["--level", "layout", "--range", "0+4096"], &file.path)?;
    let two = Holder::start(&["--level", "layout", "--range", "64K+4K"], &file.path)?;
    ensure!(status(&["hold", "-n", &path, "--", "true"])?.0 == 1);
    ensure!(status(&["hold", "-w", "1", &path, "--", "true"])?.0 == 1);
    one.end()?;
    ensure!(status(&["hold", "-n", &path, "--", "true"])?.0 == 1);
    two.end()?;
    ensure!(status(&["hold", "-n", &path, "--", "true"])?.0 == 0);
    Ok(())
}

/// Level layout: the range is the truth, without a pinned page; writes go on.
fn layout() -> Result<()> {
    guard::on()?;
    let file = TestFile::new(FsKind::Xfs, LEN)?;
    let held = Holder::start(&["-l", "layout", "--range", "64K+64K"], &file.path)?;
    expect("truncate", ftruncate(&file.file, 65_536), Errno::TXTBSY)?;
    must_allow("truncate behind", ftruncate(&file.file, LEN - 4096))?;
    expect("punch", punch(&file.file, 65_536, 4096), Errno::TXTBSY)?;
    must_allow("punch before", punch(&file.file, 0, 65_536))?;
    must_allow("a write", io(file.file.write_all_at(b"x", 65_536)))?;
    held.end()?;
    must_allow("truncate afterwards", ftruncate(&file.file, 0))
}

/// `--persist` stands until `release`, though nobody has the file open; its extents are those of the file.
fn persists() -> Result<()> {
    guard::on()?;
    let scratch = Scratch::new(FsKind::Ext4, 64 << 20)?;
    let path = scratch.file("lent", usize::try_from(LEN)?, Pattern::new(7))?;
    let map = extents(&path)?;
    let text = path.to_string_lossy();
    let script = "cat $LONGPIN_EXTENTS";
    let printed = guard::must(&["hold", "--persist", &text, "--", "sh", "-c", script])?;
    let told: serde_json::Value = serde_json::from_str(&printed)?;
    ensure!(told["extents"] == map["extents"], "{told}");
    // The inode leaves memory, and comes back at another address.
    fs::write("/proc/sys/vm/drop_caches", "2")?;
    expect("truncate", truncate(&path, 4096), Errno::TXTBSY)?;
    expect("O_TRUNC", open_truncate(&path), Errno::TXTBSY)?;
    let read_only = || mount_remount(scratch.dir(), MountFlags::RDONLY, "");
    expect("remount read-only", read_only(), Errno::BUSY)?;
    let detached = unmount(scratch.dir(), UnmountFlags::empty());
    expect("umount", detached, Errno::BUSY)?;
    let rows = guard::holds_on(&path)?;
    let id = rows.first().context("no hold")?["id"].to_string();
    guard::must(&["release", &id])?;
    must_allow("a write afterwards", open_truncate(&path))?;
    must_allow("remount afterwards", read_only())?;
    scratch.close().context("umount afterwards")
}

/// A new file with this inode number.
fn with_number(kind: FsKind, number: u64) -> Result<TestFile> {
    let mut others = Vec::new();
    for _ in 0..64 {
        let file = TestFile::new(kind, LEN)?;
        if file.file.metadata()?.ino() == number {
            return Ok(file);
        }
        others.push(file);
    }
    bail!("number {number} did not come again")
}

/// A file that is held persistently at level layout is unlinked and goes: that is told as broken, and the next file with
/// its inode number is nobody's.
///
/// Fails when a hold outlives its file (`end_holds_of` is not called).
fn number_again() -> Result<()> {
    guard::on()?;
    let old = TestFile::new(FsKind::Ext4, LEN)?;
    let path = old.path.to_string_lossy().into_owned();
    let number = old.file.metadata()?.ino();
    guard::must(&["hold", "-l", "layout", "--persist", &path, "--", "true"])?;
    let hold = guard::holds_on(&old.path)?[0]["id"].clone();
    expect("truncate", ftruncate(&old.file, 4096), Errno::TXTBSY)?;
    fs::remove_file(&old.path)?;
    expect("still open", ftruncate(&old.file, 4096), Errno::TXTBSY)?;
    drop(old);
    let fresh = with_number(FsKind::Ext4, number)?;
    must_allow("truncate of a new file", ftruncate(&fresh.file, 4096))?;
    let all = guard::all_holds()?;
    ensure!(all.iter().all(|row| row["kind"] != "explicit"), "{all:?}");
    let last = guard::must(&["watch", "--last", "--json"])?;
    let events = last.lines().map(serde_json::from_str::<serde_json::Value>);
    let of_hold = events
        .filter_map(Result::ok)
        .filter(|event| event["hold"] == hold);
    let kinds: Vec<_> = of_hold.map(|event| event["event"].clone()).collect();
    ensure!(
        kinds.last().is_some_and(|kind| kind == "broken"),
        "{kinds:?}"
    );
    Ok(())
}

/// C16, C12: who writes to a file from inside the kernel, asking nobody: swapping, and the loop driver.
fn kernel_writers() -> Result<()> {
    guard::on()?;
    let file = TestFile::new(FsKind::Ext4, LEN)?;
    let path = file.path.to_string_lossy();
    run("mkswap", &["-q", &path])?;
    let held = Holder::start(&[], &file.path)?;
    let name = CString::new(&*path)?;
    expect("swapon", swap(&name, true), Errno::BUSY)?;
    let attached = run("losetup", &["-f", "--show", &path]);
    ensure!(
        attached.is_err(),
        "a loop device writes to it: {attached:?}"
    );
    let reader = run("losetup", &["-r", "-f", "--show", &path])?;
    held.end()?;
    // One that only reads is nobody's concern.
    ensure!(status(&["hold", &path, "--", "true"])?.0 == 0);
    run("losetup", &["-d", &reader])?;
    let writer = run("losetup", &["-f", "--show", &path])?;
    let (code, words) = status(&["hold", &path, "--", "true"])?;
    ensure!(code == 1 && words.contains(&writer), "{code}: {words}");
    run("losetup", &["-d", &writer])?;
    must_allow("swapon afterwards", swap(&name, true))?;
    must_allow("swapoff", swap(&name, false))
}

/// A command that must succeed: what it printed.
fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output()?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program}: {words}");
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// With a guard running: the programs of the level come and go with the hold.
fn under_guard() -> Result<()> {
    guard::on()?;
    let file = TestFile::new(FsKind::Xfs, LEN)?;
    must_be_detached()?;
    let held = Holder::start(&[], &file.path)?;
    ensure!(guard::status()?["strict"] == true);
    expect(
        "a write",
        io(file.file.write_all_at(b"x", 0)),
        Errno::TXTBSY,
    )?;
    expect("unlink", io(fs::remove_file(&file.path)), Errno::PERM)?;
    held.end()?;
    must_be_detached()?;
    must_allow("a write afterwards", io(file.file.write_all_at(b"x", 0)))
}

/// `guard start --level swapfile`: a pin gets the whole guarantee, as long as it lasts.
fn pins() -> Result<()> {
    guard::off()?;
    guard::must(&["guard", "start", "--level", "swapfile"])?;
    let tried = pin_one();
    guard::off()?;
    tried
}

fn pin_one() -> Result<()> {
    let file = TestFile::new(FsKind::Tmpfs, LEN)?;
    let free = TestFile::new(FsKind::Tmpfs, LEN)?;
    let buffer = FixedBuffer::register(&file.file, 0, 4096)?;
    let rows = guard::holds_on(&file.path)?;
    ensure!(
        rows.len() == 1 && rows[0]["level"] == "swapfile",
        "{rows:?}"
    );
    let far = LEN - 4096;
    expect(
        "a write",
        io(file.file.write_all_at(b"x", far)),
        Errno::TXTBSY,
    )?;
    expect("truncate", ftruncate(&file.file, far), Errno::TXTBSY)?;
    expect("punch", punch(&file.file, far, 4096), Errno::TXTBSY)?;
    expect("unlink", io(fs::remove_file(&file.path)), Errno::PERM)?;
    let shared = Mapping::shared(&file.file, 0, 4096, true);
    ensure!(
        shared.is_err_and(|err| err == Errno::TXTBSY),
        "it was mapped"
    );
    must_allow("a write to another", io(free.file.write_all_at(b"x", 0)))?;
    drop(buffer);
    must_allow_soon("a write afterwards", || {
        io(file.file.write_all_at(b"x", far))
    })?;
    must_allow("unlink afterwards", io(fs::remove_file(&file.path)))
}
