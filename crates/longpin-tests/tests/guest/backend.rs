//! Holds without BPF: `longpin hold --backend swap-header`, and the immutable attribute.

mod areas;
mod immutable;
mod killed;

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use longpin_linux::swap::read_swap_files;
use longpin_tests::PATIENCE;
use longpin_tests::act::{Outcome, ftruncate, open_truncate, outcome_name, punch, truncate};
use longpin_tests::mapping::Mapping;
use longpin_tests::pattern::Pattern;
use longpin_tests::scratch::{FsKind, Scratch};
use rustix::fs::{FallocateFlags, fallocate, ioctl_ficlone};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount_remount, unmount};
use serde_json::Value;

use crate::blocks::{device_bytes, same, sh, status};
use crate::{Test, guard};

pub(crate) const TESTS: &[Test] = &[
    ("backend_ext4", || third_party(FsKind::Ext4)),
    ("backend_killed", killed),
    ("backend_refuses", refuses),
    ("backend_without_bpf", without_bpf),
];

pub(crate) const LONG_TESTS: &[Test] = &[
    ("backend_xfs", || third_party(FsKind::Xfs)),
    ("backend_btrfs", || third_party(FsKind::Btrfs)),
    ("backend_f2fs", || third_party(FsKind::F2fs)),
    ("backend_ended_by_others", ended_by_others),
    ("backend_killed_anywhere", killed::killed_anywhere),
    ("backend_slot_is_used", areas::slot_is_used),
    ("backend_slot_elsewhere", areas::slot_elsewhere),
    ("backend_no_more_areas", areas::no_more_areas),
    ("backend_immutable", immutable::immutable),
];

/// What f2fs pins at once.
const LEN: usize = 2 << 20;
/// What a hold takes of it.
const HEAD: usize = 8192;
const RECORDS: &str = "/var/lib/longpin/heads";

/// In blocks of a page.
fn scratch_of(kind: FsKind) -> Result<Scratch> {
    match kind {
        FsKind::Ext4 => Scratch::full(kind, 64 << 20),
        _ => Scratch::new(kind, 320 << 20),
    }
}

/// A file that can be lent, every byte of it known; nobody has it open.
fn make(scratch: &Scratch, name: &str, pattern: Pattern) -> Result<PathBuf> {
    let path = scratch.dir().join(name);
    guard::must(&["prepare", "--size", "2M", &path.to_string_lossy()])?;
    longpin_tests::scratch::write_pattern(&path, LEN, pattern)?;
    Ok(path)
}

/// `longpin hold --backend swap-header FILE -- CMD`, whose CMD waits.
struct Held {
    longpin: Child,
    // Closing it ends CMD.
    stdin: Option<ChildStdin>,
    extents: Value,
}

impl Held {
    fn start(path: &Path) -> Result<Self> {
        let mut longpin = Command::new("longpin")
            .args(["hold", "--backend", "swap-header", "--overwrite-head", "-n"])
            .arg(path)
            .args(["--", "sh", "-c"])
            .arg("cat \"$LONGPIN_EXTENTS\"; cat >/dev/null; exit 7")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = longpin.stdin.take();
        let stdout = longpin.stdout.take().context("no stdout")?;
        let mut said = String::new();
        BufReader::new(stdout).read_line(&mut said)?;
        let extents = serde_json::from_str(&said).with_context(|| format!("CMD said {said:?}"))?;
        Ok(Self {
            longpin,
            stdin,
            extents,
        })
    }

    /// Ends CMD: the exit status of `longpin`.
    fn end(mut self) -> Result<i32> {
        drop(self.stdin.take());
        self.longpin.wait()?.code().context("killed")
    }

    fn kill(&mut self) -> Result<()> {
        self.longpin.kill()?;
        self.longpin.wait()?;
        Ok(())
    }
}

fn is_active(path: &Path) -> Result<bool> {
    Ok(read_swap_files()?.iter().any(|swap| swap.path == path))
}

/// Nothing is swapped to, and no head is kept.
fn nothing_is_left(path: &Path) -> Result<()> {
    ensure!(!is_active(path)?, "{} is active", path.display());
    let left = records()?;
    ensure!(left.is_empty(), "records are left: {left:?}");
    Ok(())
}

/// Numbers of the records that are whole.
fn records() -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(RECORDS)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        found.extend((!name.contains('.')).then_some(name));
    }
    Ok(found)
}

fn io<T>(result: std::io::Result<T>) -> Outcome {
    let errno = |err| Errno::from_io_error(&err).unwrap_or(Errno::IO);
    result.map(drop).map_err(errno)
}

fn expect(what: &str, outcome: Outcome, wanted: Outcome) -> Result<()> {
    ensure!(
        outcome == wanted,
        "{what} answered {}, not {}",
        outcome_name(outcome),
        outcome_name(wanted)
    );
    Ok(())
}

/// C01, C02, C03, C06, C07, C08, C16: the kernel's own answers.
fn try_all(scratch: &Scratch, path: &Path) -> Result<()> {
    let busy = Err(Errno::TXTBSY);
    let file = File::options().read(true).write(true).open(path)?;
    expect("truncate", truncate(path, 4096), busy)?;
    expect("ftruncate", ftruncate(&file, LEN as u64), busy)?;
    expect("O_TRUNC", open_truncate(path), busy)?;
    expect("punch", punch(&file, 65536, 65536), busy)?;
    for mode in [FallocateFlags::empty(), FallocateFlags::KEEP_SIZE] {
        expect("fallocate", fallocate(&file, mode, 0, LEN as u64), busy)?;
    }
    expect("write", io(file.write_all_at(b"x", 65536)), busy)?;
    let mapped = Mapping::shared(&file, 0, 4096, true);
    expect("a writable mapping", mapped.map(drop), busy)?;
    let mapped = Mapping::shared(&file, 0, 4096, false);
    expect("a read-only mapping", mapped.map(drop), Ok(()))?;
    let other = File::create_new(path.with_extension("other"))?;
    let copy = |from: &File, to: &File| {
        rustix::fs::copy_file_range(from, Some(&mut 0), to, Some(&mut 0), 4096).map(drop)
    };
    expect("copy into", copy(&other, &file), busy)?;
    expect("copy from", copy(&file, &other), busy)?;
    if scratch.kind() == FsKind::Xfs {
        expect("clone from", ioctl_ficlone(&other, &file), busy)?;
        expect("clone into", ioctl_ficlone(&file, &other), busy)?;
    }
    names(path)
}

fn names(path: &Path) -> Result<()> {
    let denied = Err(Errno::PERM);
    let other = path.with_extension("other");
    expect("unlink", io(fs::remove_file(path)), denied)?;
    expect(
        "rename away",
        io(fs::rename(path, path.with_extension("away"))),
        denied,
    )?;
    expect("rename over", io(fs::rename(&other, path)), denied)?;
    expect("removing another file", io(fs::remove_file(&other)), Ok(()))
}

/// The device writes all blocks that the holder was told of, while everything else is tried: afterwards the file has its
/// own head, and behind it what the device wrote.
fn third_party(kind: FsKind) -> Result<()> {
    let scratch = scratch_of(kind)?;
    let (own, lent) = (Pattern::new(31), Pattern::new(32));
    let path = make(&scratch, "lent", own)?;
    let held = Held::start(&path)?;
    ensure!(is_active(&path)?, "it is no swap file");
    listed(&path, true)?;
    ensure!(
        held.extents["backend"] == "swap-header" && held.extents["given-up"] == HEAD,
        "{}",
        held.extents
    );
    try_all(&scratch, &path)?;
    let bytes = lent.bytes(LEN);
    let written = write_blocks(&held.extents, &bytes)?;
    ensure!(written == LEN - HEAD, "{written} bytes were lent");
    ensure!(held.end()? == 7, "CMD's status was lost");
    nothing_is_left(&path)?;
    let mut expected = own.bytes(LEN);
    expected[HEAD..].copy_from_slice(&bytes[HEAD..]);
    same("the file", &fs::read(&path)?, &expected)?;
    same("the device", &device_bytes(&path)?, &expected)?;
    let file = File::options().write(true).open(&path)?;
    expect("a write afterwards", io(file.write_all_at(b"x", 0)), Ok(()))?;
    expect("truncate afterwards", truncate(&path, 4096), Ok(()))?;
    drop(file);
    match kind {
        FsKind::Ext4 | FsKind::Xfs => {
            let damage = scratch.check()?;
            ensure!(damage.is_none(), "damaged: {damage:?}");
            Ok(())
        }
        _ => scratch.close(),
    }
}

/// On the device, past every cache: how many.
fn write_blocks(extents: &Value, bytes: &[u8]) -> Result<usize> {
    let number = |value: &Value| -> Result<u64> { value.as_u64().context("no number") };
    let name = extents["devices"][0]["path"]
        .as_str()
        .context("no device")?;
    let device = File::options()
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(name)?;
    let mut room = vec![0; LEN + 4096];
    let skip = room.as_ptr().align_offset(4096);
    let aligned = &mut room[skip..skip + LEN];
    aligned.copy_from_slice(bytes);
    let mut written = 0;
    for extent in extents["extents"].as_array().context("no extents")? {
        let first = usize::try_from(number(&extent["logical"])?)?;
        let len = usize::try_from(number(&extent["length"])?)?;
        let piece = aligned.get(first..first + len).context("behind the end")?;
        device.write_all_at(piece, number(&extent["physical"])?)?;
        written += len;
    }
    Ok(written)
}

/// One row of `ls`, with a number for `release`.
fn listed(path: &Path, enforced: bool) -> Result<String> {
    let rows = guard::holds_on(path)?;
    let [row] = &rows[..] else {
        anyhow::bail!("{rows:?}")
    };
    ensure!(
        row["kind"] == "swap" && row["backend"] == "swap-header" && row["enforced"] == enforced,
        "{row}"
    );
    let level = if enforced { "swapfile" } else { "none" };
    ensure!(row["level"] == level && row["given-up"] == HEAD, "{row}");
    ensure!(row["start"] == 0 && row["end"] == LEN, "{row}");
    let why = guard::must(&["why", &path.to_string_lossy()])?;
    let words = if enforced {
        "held by a swap header"
    } else {
        "not held any more"
    };
    ensure!(why.contains(words), "{why}");
    Ok(row["id"].to_string())
}

/// C10, fail closed: whoever is killed, the file stays held, and has its bytes back when it is released.
fn killed() -> Result<()> {
    let scratch = scratch_of(FsKind::Ext4)?;
    let own = Pattern::new(33);
    let path = make(&scratch, "held", own)?;
    let text = path.to_string_lossy();
    let mut held = Held::start(&path)?;
    held.kill()?;
    expect("truncate", truncate(&path, 4096), Err(Errno::TXTBSY))?;
    // C08, with nobody left who has the file open for writing.
    let read_only = mount_remount(scratch.dir(), MountFlags::RDONLY, "");
    expect("remount read-only", read_only, Err(Errno::BUSY))?;
    let detached = unmount(scratch.dir(), UnmountFlags::empty());
    expect("umount", detached, Err(Errno::BUSY))?;
    let id = listed(&path, true)?;
    // CMD lives.
    refuse(
        &["release", &id],
        1,
        &["stands until its holder", "--force"],
    )?;
    refuse(&["swapoff", &text], 1, &["stands until its holder"])?;
    ensure!(is_active(&path)?, "a refused release ended it");
    drop(held.stdin.take());
    until_released(&id)?;
    is_whole("after a kill", &path, own)?;
    refuse(&["release", &id], 1, &["there is no hold"])?;
    // Told to end, it ends CMD and the hold.
    let held = Held::start(&path)?;
    sh(&format!("kill -TERM {}", held.longpin.id()), &path)?;
    ensure!(held.end()? == 128 + 15, "CMD was not told");
    is_whole("after SIGTERM", &path, own)?;
    scratch.close()
}

fn is_whole(when: &str, path: &Path, own: Pattern) -> Result<()> {
    nothing_is_left(path)?;
    same(when, &fs::read(path)?, &own.bytes(LEN))
}

/// CMD needs a moment to end.
fn until_released(id: &str) -> Result<()> {
    let begin = Instant::now();
    while status(&["release", id])?.0 != 0 {
        ensure!(begin.elapsed() < PATIENCE, "{id} stands");
    }
    Ok(())
}

/// swapoff(8), or a crash: the file is not held, and its head is not lost.
fn ended_by_others() -> Result<()> {
    let scratch = scratch_of(FsKind::Ext4)?;
    let own = Pattern::new(38);
    let path = make(&scratch, "held", own)?;
    let text = path.to_string_lossy();
    let mut hold = vec!["hold", "--backend", "swap-header", "--overwrite-head"];
    hold.extend(["--persist", &text]);
    guard::must(&hold)?;
    expect("truncate", truncate(&path, 4096), Err(Errno::TXTBSY))?;
    guard::must(&["swapoff", &text])?;
    is_whole("after longpin swapoff", &path, own)?;
    guard::must(&hold)?;
    sh("swapoff $F", &path)?;
    let id = listed(&path, false)?;
    guard::must(&["release", &id])?;
    is_whole("after swapoff(8)", &path, own)?;
    guard::must(&hold)?;
    sh("swapoff $F", &path)?;
    // Another hold puts right what is left of this one.
    let held = Held::start(&path)?;
    sh("swapoff $F", &path)?;
    let code = held.end()?;
    ensure!(
        code == 8,
        "a hold that was ended by others ended with {code}"
    );
    is_whole("after two holds", &path, own)?;
    scratch.close()
}

fn refuse(arguments: &[&str], code: i32, words: &[&str]) -> Result<()> {
    let (found, said) = status(arguments)?;
    ensure!(found == code, "{arguments:?}: {found}: {said}");
    for word in words {
        ensure!(said.contains(word), "{arguments:?}: no {word:?} in {said}");
    }
    Ok(())
}

/// C12: every refusal says why, and leaves file and system as they were.
fn refuses() -> Result<()> {
    let scratch = scratch_of(FsKind::Ext4)?;
    let own = Pattern::new(34);
    let path = make(&scratch, "data", own)?;
    let text = path.to_string_lossy();
    let mut hold = vec![
        "hold",
        "--backend",
        "swap-header",
        "-n",
        &text,
        "--",
        "true",
    ];
    refuse(
        &hold,
        1,
        &[
            "has data in its first 8192 bytes",
            "hint: add --overwrite-head",
        ],
    )?;
    hold.insert(1, "--overwrite-head");
    let open = File::open(&path)?;
    refuse(&hold, 1, &["somebody has", "fuser -v"])?;
    drop(open);
    hold.splice(1..1, ["--level", "layout"]);
    refuse(&hold, 1, &["at level swapfile only"])?;
    hold.splice(1..3, ["--range", "0+4K"]);
    refuse(&hold, 1, &["takes no --range"])?;
    sh("fallocate -p -o 64K -l 4K $F", &path)?;
    hold.splice(1..3, ["-E", "9"]);
    refuse(
        &hold,
        9,
        &[
            "hole: 1, 4096 bytes, the first at 65536",
            "hint: longpin prepare",
        ],
    )?;
    let mut expected = own.bytes(LEN);
    expected[65536..65536 + 4096].fill(0);
    same("a refused file", &fs::read(&path)?, &expected)?;
    ensure!(!is_active(&path)?, "a refused file is held");
    scratch.close()
}

/// Where the list of security modules lacks bpf, the error names the command that does, and doctor the backends.
fn without_bpf() -> Result<()> {
    guard::off()?;
    let scratch = scratch_of(FsKind::Ext4)?;
    let path = &make(&scratch, "file", Pattern::new(40))?;
    let script = "echo lockdown,yama > /tmp/lsm; exec unshare --mount --propagation private sh -c '
        mount --bind /tmp/lsm /sys/kernel/security/lsm; longpin hold \"$F\" -- sleep \"a b\" 2>&1 || true
        longpin doctor --json || true'";
    let said = sh(script, path)?;
    let command = format!(
        "hint: longpin hold --backend swap-header {} -- sleep 'a b'",
        path.display()
    );
    ensure!(said.contains(&command), "no {command:?} in {said}");
    let doctor = said.lines().last().unwrap_or_default();
    let doctor: Value = serde_json::from_str(doctor).with_context(|| said.clone())?;
    let found = doctor["backends"].as_array().context("no backends")?;
    let found: Vec<_> = found
        .iter()
        .map(|one| (one["name"].as_str(), one["verdict"].as_str()))
        .collect();
    let expected = [("bpf", "no"), ("swap-header", "yes"), ("immutable", "yes")];
    let expected = expected.map(|(name, verdict)| (Some(name), Some(verdict)));
    ensure!(found == expected, "{found:?}");
    scratch.close()
}
