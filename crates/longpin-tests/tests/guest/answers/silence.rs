//! Nothing heard is not "no".

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use longpin_tests::scratch::{FsKind, Scratch};
use rustix::mount::{MountFlags, mount};

use crate::blocks::{sh, status};
use crate::files::TestFile;
use crate::guard;

/// A hardened service sees processes in /proc, and nothing else.
pub(super) fn subset_pid() -> Result<()> {
    let scratch = Scratch::new(FsKind::Ext4, 64 << 20)?;
    let file = scratch.dir().join("file");
    sh(
        "dd if=/dev/zero of=$F bs=1M count=2 conv=fsync status=none",
        &file,
    )?;
    let blind = |command: &str| {
        let script = format!(
            "unshare --mount sh -c 'mount -t proc -o subset=pid proc /proc && longpin {command} 2>&1; echo status $?'"
        );
        sh(&script, &file)
    };
    let said = blind("doctor")?;
    for line in ["kernel.ftrace_enabled", "kernel.io_uring_disabled"] {
        let found = said.lines().find(|found| found.contains(line));
        let unknown =
            found.is_some_and(|found| found.contains("unknown") && !found.contains("no such"));
        ensure!(unknown, "{line}: {found:?} in {said}");
    }
    for purpose in ["blocks", "swap"] {
        let said = blind(&format!("check --for {purpose} $F"))?;
        ensure!(said.contains("status 2"), "{purpose}: {said}");
    }
    let said = blind("check --device io_uring $F")?;
    ensure!(said.contains("status 2"), "{said}");
    scratch.close()
}

/// What a mount hides of a process may be an operation on the file: no hold, but the way to one.
pub(super) fn covered_process() -> Result<()> {
    guard::on()?;
    let file = TestFile::new(FsKind::Ext4, 1 << 20)?;
    let mut hidden = Command::new("sleep").arg("1000").spawn()?;
    let place = format!("/proc/{}/task", hidden.id());
    let tried = (|| {
        mount("none", &place, "tmpfs", MountFlags::empty(), c"")?;
        let path = file.path.to_string_lossy();
        let (code, words) = status(&["hold", "-n", "-l", "layout", &path, "--", "true"])?;
        let named = words.contains(&place) && words.contains("(sleep)");
        ensure!(code == 2 && named, "{code}: {words}");
        let hint = words.lines().find_map(|line| line.strip_prefix("hint: "));
        sh(hint.context(words.clone())?, &file.path)?;
        let (code, words) = status(&["hold", "-n", "-l", "layout", &path, "--", "true"])?;
        ensure!(code == 0, "{code}: {words}");
        Ok(())
    })();
    hidden.kill()?;
    hidden.wait()?;
    tried
}

/// A scrub keeps the chunk that it reads from being swapped to, now and then: swapon waits, or says so.
pub(super) fn swapon_meets_scrub() -> Result<()> {
    let scratch = Scratch::new(FsKind::Btrfs, 1 << 30)?;
    let file = scratch.dir().join("file");
    let fill = "touch $F; chattr +C $F; dd if=/dev/zero of=$F bs=1M count=16 conv=notrunc,fsync status=none; \
        dd if=/dev/urandom of=$D/rest bs=1M count=400 status=none; sync; chmod 600 $F";
    sh(fill, &file)?;
    let path = file.to_string_lossy();
    let begin = Instant::now();
    for round in 0..20 {
        sh("btrfs scrub start $D >/dev/null 2>&1 || :", &file)?;
        let (code, words) = status(&["swapon", &path])?;
        let said = words.contains("scrub");
        ensure!(code == 0 || said, "round {round}: {code}: {words}");
        if code == 0 {
            let (code, words) = status(&["swapoff", &path])?;
            ensure!(code == 0, "{words}");
        }
    }
    println!("  20 rounds in {:?}", begin.elapsed());
    sh("btrfs scrub cancel $D >/dev/null 2>&1 || :", &file)?;
    scratch.close()
}
