//! Nothing heard is not "no".

use std::time::Instant;

use anyhow::{Result, ensure};
use longpin_tests::scratch::{FsKind, Scratch};

use crate::blocks::{sh, status};

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
