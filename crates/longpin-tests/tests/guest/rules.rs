//! The administrator's rules in force: who may hold, who may not pin, who is never refused.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use longpin_tests::act::{ftruncate, punch};
use longpin_tests::mapping::Mapping;
use longpin_tests::scratch::{FsKind, Scratch};
use rustix::io::Errno;

use crate::blocks::sh;
use crate::child::Pinner;
use crate::files::TestFile;
use crate::hold::Holder;
use crate::pin::{must_allow, must_allow_soon, must_refuse, pin};
use crate::{Test, guard};

pub(crate) const TESTS: &[Test] = &[
    ("rules_paths", rules_paths),
    ("rules_deny_and_allow", rules_deny_and_allow),
    ("rules_consumers", rules_consumers),
    ("rules_cgroups", rules_cgroups),
    ("rules_exempt", rules_exempt),
    ("rules_exempt_once", exempt_once),
    ("rules_exempt_beside", exempt_beside),
    ("rules_longterm", rules_longterm),
    ("rules_level", rules_level),
    ("rules_wrong", rules_wrong),
    ("rules_reload_without_a_gap", rules_reload_without_a_gap),
];

const CONFIG: &str = "/etc/longpin/longpin.conf";
const LEN: u64 = 65_536;

/// The rules in force; none again on drop.
pub(crate) struct Rules;

impl Rules {
    pub(crate) fn set(text: &str) -> Result<Self> {
        guard::on()?;
        fs::create_dir_all("/etc/longpin")?;
        fs::write(CONFIG, text)?;
        let rules = Self;
        guard::must(&["guard", "reload"]).with_context(|| text.to_owned())?;
        Ok(rules)
    }
}

impl Drop for Rules {
    fn drop(&mut self) {
        // The next test's own assertions tell if this went wrong.
        let _ = fs::remove_file(CONFIG);
        let _ = guard::longpin(&["guard", "reload"]);
    }
}

fn is_held(f: &TestFile) -> Result<bool> {
    Ok(!guard::holds_on(&f.path)?.is_empty())
}

/// `ignore` and `enforce` by file and by directory; other files are not concerned.
fn rules_paths() -> Result<()> {
    let ignored = TestFile::new(FsKind::Tmpfs, LEN)?;
    let other = TestFile::new(FsKind::Tmpfs, LEN)?;
    let rules = Rules::set(&format!("ignore path={}\n", ignored.path.display()))?;
    let _pins = (pin(&ignored, 0, 4096)?, pin(&other, 0, 4096)?);
    ensure!(!is_held(&ignored)?, "ignored, and held");
    must_allow("ignored", ftruncate(&ignored.file, 4096))?;
    must_refuse("the other", ftruncate(&other.file, 0))?;
    drop(rules);
    let f = TestFile::new(FsKind::Tmpfs, LEN)?;
    let dir = f.path.parent().context("no directory")?.display();
    let _rules = Rules::set(&format!("enforce path={dir}\n"))?;
    let _reader = Pinner::pin_as("1000", &f.path, 0, 4096)?;
    must_refuse("a reader's pin below the directory", ftruncate(&f.file, 0))
}

fn rules_deny_and_allow() -> Result<()> {
    let allowed = TestFile::new(FsKind::Tmpfs, LEN)?;
    let denied = TestFile::new(FsKind::Tmpfs, LEN)?;
    let dir = denied.path.parent().context("no directory")?.display();
    let text = format!("allow path={}\ndeny path={dir}\n", allowed.path.display());
    let _rules = Rules::set(&text)?;
    ensure!(
        Pinner::pin(&denied.path, 0, 4096).is_err(),
        "a denied pin came back"
    );
    let _pinner = Pinner::pin(&allowed.path, 0, 4096).context("allowed before")?;
    must_refuse("allowed, so held", ftruncate(&allowed.file, 0))
}

/// A consumer is told by its code in the kernel.
fn rules_consumers() -> Result<()> {
    let ring = TestFile::new(FsKind::Tmpfs, LEN)?;
    let _rules = Rules::set("ignore consumer=io_uring\n")?;
    let _pin = pin(&ring, 0, 4096)?;
    ensure!(!is_held(&ring)?, "io_uring is ignored, and held");
    if cfg!(feature = "rdma") {
        let region = TestFile::new(FsKind::Ext4, LEN)?;
        let _pin = pin(&region, 0, 4096)?;
        must_refuse("rdma", ftruncate(&region.file, 0))?;
    }
    Ok(())
}

fn rules_cgroups() -> Result<()> {
    let group = "/sys/fs/cgroup/longpin-test";
    fs::create_dir_all(group)?;
    let _rules = Rules::set("ignore cgroup=/longpin-test\n")?;
    let f = TestFile::new(FsKind::Tmpfs, LEN)?;
    let pid = std::process::id().to_string();
    fs::write(format!("{group}/cgroup.procs"), &pid)?;
    let inside = pin(&f, 0, 4096);
    fs::write("/sys/fs/cgroup/cgroup.procs", &pid)?;
    let inside = inside?;
    ensure!(!is_held(&f)?, "pinned inside the group, and held");
    drop(inside);
    let _outside = pin(&f, 0, 4096)?;
    must_refuse("pinned outside", ftruncate(&f.file, 0))
}

/// Whose operations are never refused; what they do is recorded.
fn rules_exempt() -> Result<()> {
    let f = TestFile::new(FsKind::Tmpfs, LEN)?;
    std::os::unix::fs::chown(&f.path, Some(1000), Some(1000))?;
    let _rules = Rules::set("exempt uid=1000\n")?;
    let _pin = pin(&f, 0, 4096)?;
    must_refuse("root", ftruncate(&f.file, 0))?;
    let status = Command::new("setpriv")
        .args(["--reuid", "1000", "--clear-groups", "truncate", "-s", "0"])
        .arg(&f.path)
        .status()?;
    ensure!(status.success(), "the exempt user was refused");
    let events = guard::events_on(&f.path)?;
    ensure!(
        events.iter().any(|event| event["event"] == "exempted"),
        "events: {events:?}"
    );
    Ok(())
}

/// An act that two levels ask about is one act: counted once, recorded once.
fn exempt_once() -> Result<()> {
    let f = TestFile::new(FsKind::Ext4, 1 << 20)?;
    let held = Holder::start(&[], &f.path)?;
    let _rules = Rules::set("exempt uid=0\n")?;
    let counted = || -> Result<(u64, usize)> {
        let events = guard::events_on(&f.path)?;
        let exempted = events.iter().filter(|event| event["event"] == "exempted");
        let count = guard::status()?["exempted"].as_u64();
        Ok((count.context("no count")?, exempted.count()))
    };
    for act in [
        "printf x | dd of=F bs=1 conv=notrunc status=none",
        "xfs_io -d -c 'pwrite -q 0 4096' F",
        "xfs_io -c 'fpunch 8192 4096' F",
        "xfs_io -d -c 'fpunch 16384 4096' F",
        "xfs_io -c 'truncate 524288' F",
        "xfs_io -c 'mmap -rw 0 4096' F",
        "mv F F.away; mv F.away F",
    ] {
        let (count, events) = counted()?;
        let line = act.replace('F', &f.path.to_string_lossy());
        let done = Command::new("sh").args(["-c", &line]).status()?;
        ensure!(done.success(), "{act}: {done}");
        let times = if act.starts_with("mv") { 2 } else { 1 };
        let (more, told) = (counted()?.0 - count, counted()?.1 - events);
        ensure!(
            (more, told) == (times, usize::try_from(times)?),
            "{act}: counted {more} times, told {told} times"
        );
    }
    held.end().map(drop)
}

/// Made fit, and held until it is released by the number that this answers.
fn hold_persistently(file: &Path) -> Result<String> {
    sh(
        "longpin prepare $F --size 1M; longpin hold --persist $F -- true",
        file,
    )?;
    let held = guard::holds_on(file)?;
    Ok(held.first().context("no hold")?["id"].to_string())
}

fn exempt_of(files: &[PathBuf]) -> Result<Rules> {
    let line = |file: &PathBuf| format!("exempt uid=0 path={}\n", file.display());
    Rules::set(&files.iter().map(line).collect::<String>())
}

/// Who may do anything to some held files may not take the file system from another one.
///
/// Fails when `find` takes the first one for all.
fn exempt_beside() -> Result<()> {
    guard::on()?;
    let scratch = Scratch::new(FsKind::Btrfs, 320 << 20)?;
    let files: Vec<_> = (0..4).map(|i| scratch.dir().join(i.to_string())).collect();
    let ids = files.iter().map(|file| hold_persistently(file));
    let ids = ids.collect::<Result<Vec<_>>>()?;
    let acts = [
        "btrfs filesystem resize -64M $D",
        "mount -o remount,ro $D && mount -o remount,rw $D",
        "btrfs subvolume snapshot $D $D/snapshot",
    ];
    // Whichever the search meets first.
    for (i, own) in files.iter().enumerate() {
        let _rules = exempt_of(&[&files[..i], &files[i + 1..]].concat())?;
        for act in acts {
            ensure!(sh(act, own).is_err(), "{act} went through, {i} is held");
        }
    }
    let _rules = exempt_of(&files)?;
    for act in acts {
        let before = guard::status()?["exempted"].as_u64();
        sh(act, &files[0])?;
        let after = guard::status()?["exempted"].as_u64();
        ensure!(after > before, "{act} was not recorded");
    }
    for id in &ids {
        guard::must(&["release", id])?;
    }
    scratch.close()
}

/// Pins that do not say that they are long-term, of a consumer that a rule says it of: here those of
/// process_vm_readv, which are gone by the time it returns.
fn rules_longterm() -> Result<()> {
    let f = TestFile::new(FsKind::Tmpfs, LEN)?;
    let mapping = Mapping::shared(&f.file, 0, 4096, true)?;
    mapping.touch();
    let held = || -> Result<usize> {
        let events = guard::events_on(&f.path)?;
        Ok(events.iter().filter(|e| e["event"] == "held").count())
    };
    let read = || longpin_tests::act::read_foreign(std::process::id(), &mapping);
    guard::on()?;
    must_allow("read", read())?;
    ensure!(held()? == 0, "a short pin is a hold");
    let rules = Rules::set("longterm consumer=process_vm_rw_core\n")?;
    must_allow("read", read())?;
    ensure!(held()? == 1, "no hold by the rule");
    drop(rules);
    must_allow("read", read())?;
    ensure!(held()? == 1, "a hold without the rule");
    must_allow("truncate", ftruncate(&f.file, 0))
}

/// `swapfile` by file: its pins forbid writes, too. The level goes with the rule, but not from a file that is pinned.
fn rules_level() -> Result<()> {
    let f = TestFile::new(FsKind::Tmpfs, LEN)?;
    let other = TestFile::new(FsKind::Tmpfs, LEN)?;
    let write = |f: &TestFile| match f.file.write_at(b"x", LEN - 1) {
        Ok(_) => Ok(()),
        Err(err) => Err(Errno::from_io_error(&err).unwrap_or(Errno::IO)),
    };
    let rules = Rules::set(&format!("swapfile path={}\n", f.path.display()))?;
    let pins = (pin(&f, 0, 4096)?, pin(&other, 0, 4096)?);
    must_refuse("a write", write(&f))?;
    must_allow("a write at level layout", write(&other))?;
    drop(rules);
    must_refuse("a write without the rule", write(&f))?;
    ensure!(guard::status()?["strict"] == true, "the level was detached");
    drop(pins);
    must_allow_soon("a write without the pin", || write(&f))?;
    guard::must(&["guard", "reload"])?;
    ensure!(guard::status()?["strict"] == false, "the level stayed");
    let _pin = pin(&f, 0, 4096)?;
    must_allow("a write to a file pinned now", write(&f))?;
    must_refuse("truncate", ftruncate(&f.file, 0))
}

/// Wrong rules change nothing, and a guard does not start with them.
fn rules_wrong() -> Result<()> {
    let f = TestFile::new(FsKind::Tmpfs, LEN)?;
    let _rules = Rules::set(&format!("ignore path={}\n", f.path.display()))?;
    fs::write(CONFIG, "ignroe uid=0\n")?;
    let said = guard::longpin(&["guard", "reload"])?;
    let words = String::from_utf8_lossy(&said.stderr).into_owned();
    ensure!(!said.status.success(), "a wrong rule was taken");
    ensure!(
        words.contains("ignore"),
        "no word of what was meant: {words}"
    );
    let _pin = pin(&f, 0, 4096)?;
    ensure!(!is_held(&f)?, "the old rule is gone");
    guard::off()?;
    let said = guard::longpin(&["guard", "start"])?;
    ensure!(!said.status.success(), "started with a wrong rule");
    for left in ["/sys/fs/bpf/longpin", "/sys/fs/bpf/longpin-scratch"] {
        ensure!(!Path::new(left).exists(), "{left} is left");
    }
    fs::remove_file(CONFIG)?;
    guard::on()
}

/// While rules are replaced, what is held stays held.
fn rules_reload_without_a_gap() -> Result<()> {
    let f = TestFile::new(FsKind::Tmpfs, LEN)?;
    let _rules = Rules::set("")?;
    let _pin = pin(&f, 0, 4096)?;
    let done = AtomicBool::new(false);
    let allowed = std::thread::scope(|scope| {
        let trying = scope.spawn(|| {
            let mut tries = 0_u32;
            while !done.load(Ordering::Relaxed) {
                if ftruncate(&f.file, 0).is_ok() || punch(&f.file, 0, 4096).is_ok() {
                    return Err(tries);
                }
                tries += 1;
            }
            Ok(tries)
        });
        for round in 0..8 {
            let uid = 2000 + round;
            let text = format!("exempt uid={uid}\nignore path=/dev uid={uid}\n");
            let reloaded = fs::write(CONFIG, text)
                .map_err(anyhow::Error::from)
                .and_then(|()| guard::must(&["guard", "reload"]));
            if let Err(err) = reloaded {
                done.store(true, Ordering::Relaxed);
                return Err(err);
            }
        }
        done.store(true, Ordering::Relaxed);
        trying
            .join()
            .map_err(|_| anyhow::anyhow!("the thread panicked"))
    })?;
    let tries = allowed.map_err(|tries| anyhow::anyhow!("allowed after {tries} refusals"))?;
    ensure!(tries > 100, "only {tries} tries");
    f.check_all()
}
