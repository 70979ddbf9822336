//! What goes wrong before anything is attached: a clear error with its remedy, and nothing left behind.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use longpin_tests::pattern::Pattern;
use longpin_tests::scratch::{FsKind, Scratch};

use crate::{Test, guard};

pub(crate) const TESTS: &[Test] = &[
    ("bad_no_privilege", bad_no_privilege),
    ("bad_no_bpf_lsm", bad_no_bpf_lsm),
    ("bad_no_btf", bad_no_btf),
    ("bad_no_bpf_fs", bad_no_bpf_fs),
    ("bad_started_twice", bad_started_twice),
    ("bad_umount_of_the_guard", bad_umount_of_the_guard),
    ("bad_other_version", bad_other_version),
    ("bad_interrupted_start", bad_interrupted_start),
    ("bad_usage", bad_usage),
    ("bad_hold", bad_hold),
    ("bad_stop_with_holds", bad_stop_with_holds),
];

const GUARD_DIR: &str = "/sys/fs/bpf/longpin";

/// Run a shell line in a mount namespace of its own, and expect its failure to say these words.
fn must_fail(line: &str, code: i32, words: &[&str]) -> Result<()> {
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", line])
        .output()
        .context("no unshare")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(code),
        "{line}: {} {said}",
        output.status
    );
    for word in words {
        ensure!(said.contains(word), "{line}: no {word:?} in: {said}");
    }
    Ok(())
}

/// The same, and no guard may be left.
fn must_not_start(line: &str, words: &[&str]) -> Result<()> {
    guard::off()?;
    must_fail(line, 8, words)?;
    ensure!(!Path::new(GUARD_DIR).exists(), "{line}: a guard is left");
    ensure!(
        !Path::new("/sys/fs/bpf/longpin-scratch").exists(),
        "{line}: half a guard is left"
    );
    Ok(())
}

fn bad_no_privilege() -> Result<()> {
    let line = "setpriv --reuid 65534 --clear-groups \"$(command -v longpin)\" guard start";
    must_not_start(
        line,
        &["no privilege", "CAP_SYS_ADMIN", "hint: run it as root"],
    )
}

fn bad_no_bpf_lsm() -> Result<()> {
    let line = "echo lockdown,capability,yama > /tmp/lsm && \
                mount --bind /tmp/lsm /sys/kernel/security/lsm && longpin guard start";
    must_not_start(
        line,
        &["`bpf` is not among", "lsm=lockdown,capability,yama,bpf"],
    )
}

fn bad_no_btf() -> Result<()> {
    let line = "mount -t tmpfs none /sys/kernel/btf && longpin guard start";
    must_not_start(line, &["no BTF", "CONFIG_DEBUG_INFO_BTF"])
}

fn bad_no_bpf_fs() -> Result<()> {
    must_not_start(
        "umount /sys/fs/bpf && longpin guard start",
        &["no BPF file system", "hint: mount -t bpf bpf /sys/fs/bpf"],
    )
}

fn bad_started_twice() -> Result<()> {
    guard::on()?;
    must_fail(
        "longpin guard start",
        1,
        &["already running", "hint: longpin guard status"],
    )?;
    ensure!(
        guard::status()?["running"] == true,
        "the second start ended the first"
    );
    Ok(())
}

/// All that is pinned would go with the file system: without a word, if it were not refused.
fn bad_umount_of_the_guard() -> Result<()> {
    guard::on()?;
    for command in ["umount /sys/fs/bpf", "umount -l /sys/fs/bpf"] {
        let done = Command::new("sh").args(["-c", command]).output()?;
        let text = String::from_utf8_lossy(&done.stderr);
        ensure!(text.contains("busy"), "{command}: {done:?}");
        ensure!(
            guard::status()?["running"] == true,
            "{command}: the guard ended"
        );
    }
    Ok(())
}

/// A state of another layout: told before anything of it is believed.
fn bad_other_version() -> Result<()> {
    guard::off()?;
    std::fs::create_dir(GUARD_DIR)?;
    let made = Command::new("bpftool")
        .args([
            "map",
            "create",
            "/sys/fs/bpf/longpin/map_state",
            "type",
            "array",
            "key",
            "4",
        ])
        .args([
            "value", "8192", "entries", "1", "name", "other", "flags", "1024",
        ])
        .status()
        .context("no bpftool")?;
    ensure!(made.success(), "bpftool: {made}");
    for line in [
        "longpin guard start",
        "longpin guard stop",
        "longpin ls",
        "longpin guard status",
    ] {
        must_fail(
            line,
            8,
            &["another longpin version", "hint:", "guard stop --force"],
        )?;
    }
    guard::must(&["guard", "stop", "--force"])?;
    guard::must(&["guard", "start"]).map(drop)
}

/// The rest of a killed start refuses nobody and does not stand in the way.
fn bad_interrupted_start() -> Result<()> {
    guard::off()?;
    std::fs::create_dir("/sys/fs/bpf/longpin-scratch")?;
    std::fs::create_dir(GUARD_DIR)?;
    guard::must(&["guard", "start"])?;
    ensure!(
        !Path::new("/sys/fs/bpf/longpin-scratch").exists(),
        "the rest is still there"
    );
    Ok(())
}

fn bad_usage() -> Result<()> {
    for arguments in [&["guard", "begin"][..], &["ls", "--colour"], &[]] {
        let output = guard::longpin(arguments)?;
        ensure!(
            output.status.code() == Some(16),
            "longpin {arguments:?}: {}",
            output.status
        );
        ensure!(
            !output.stderr.is_empty(),
            "longpin {arguments:?} says nothing"
        );
    }
    Ok(())
}

fn bad_stop_with_holds() -> Result<()> {
    guard::on()?;
    let f = crate::files::TestFile::new(FsKind::Tmpfs, 65_536)?;
    let _pinned = crate::pin::pin(&f, 0, 4096)?;
    must_fail(
        "longpin guard stop",
        1,
        &["1 live hold would end", "--force"],
    )?;
    crate::pin::must_refuse("still held", longpin_tests::act::ftruncate(&f.file, 0))?;
    guard::must(&["guard", "stop", "--force"])?;
    crate::pin::must_allow("no guard", longpin_tests::act::ftruncate(&f.file, 0))
}

/// What cannot be held, and why: CMD does not run, and nothing is left.
fn bad_hold() -> Result<()> {
    guard::on()?;
    let scratch = Scratch::new(FsKind::Ext4, 64 << 20)?;
    scratch.file("f", 1 << 20, Pattern::new(1))?;
    let prepare = "[ -d d ] || { mkdir d l u w m; mkfifo p; : >e; echo bytes >l/f; }; \
                   mount -t overlay -o lowerdir=l,upperdir=u,workdir=w none m";
    let tried: [(&str, &str, &str); 14] = [
        ("", "d", "a directory"),
        ("", "p", "a FIFO"),
        ("", "/dev/null", "a character device"),
        ("", "none", "No such file"),
        ("", "e", "there is nothing in the range"),
        ("", "m/f", "overlayfs shows another file system's file"),
        (
            "rm e; exec 5<u; exec 5<>e; rm e;",
            "/proc/self/fd/5",
            "has no name",
        ),
        ("", "--range 1M+4K f", "ends behind the end of the file"),
        (
            "",
            "--range 18446744073709551615+2 f",
            "larger than any file",
        ),
        ("", "--range 0+0 f", "there is nothing in the range"),
        ("", "--range 100+100 f", "block boundaries"),
        ("", "/proc/version", "not known to longpin"),
        ("mount -o bind,ro . d; cd d;", "f", "Read-only file system"),
        (
            "setpriv --reuid 65534 --clear-groups",
            "f",
            "CAP_LINUX_IMMUTABLE",
        ),
    ];
    for (before, arguments, words) in tried {
        let line = format!(
            "set -e; cd {}; {prepare}; {before} \
             \"$(command -v longpin)\" hold -n -E 77 {arguments} -- touch ran",
            scratch.dir().display()
        );
        must_fail(&line, 77, &[words])?;
        ensure!(!scratch.dir().join("ran").exists(), "{line}: CMD ran");
    }
    ensure!(guard::all_holds()?.is_empty(), "a hold is left");
    ensure!(guard::status()?["strict"] == false, "the level is left");
    scratch.close()
}
