//! What the administrator is told: rules as this host understands them, and what it can enforce. Each
//! number is compared with what the kernel itself says by another way.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use longpin_tests::scratch::{FsKind, Scratch};
use rustix::fs::{FlockOperation, flock};
use serde_json::Value;

use crate::child::Pinner;
use crate::files::TestFile;
use crate::{Test, guard};

pub(crate) const TESTS: &[Test] = &[
    ("config_file_numbers", config_file_numbers),
    ("config_subvolumes", config_subvolumes),
    ("config_overlay", config_overlay),
    ("config_mounts_below", config_mounts_below),
    ("config_cgroup_numbers", config_cgroup_numbers),
    ("config_consumers", config_consumers),
    ("config_exit_status", config_exit_status),
    ("doctor_good_host", doctor_good_host),
    ("doctor_what_is_missing", doctor_what_is_missing),
];

const DRAFT: &str = "/tmp/longpin-draft.conf";

/// Run check-config on these rules.
fn check(rules: &str) -> Result<Output> {
    std::fs::write(DRAFT, rules)?;
    guard::longpin(&["guard", "check-config", DRAFT])
}

/// The rules must be right: what was printed, and what was warned of.
fn must_understand(rules: &str) -> Result<(String, String)> {
    let output = check(rules)?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        output.status.success(),
        "{rules}: {}: {stderr}",
        output.status
    );
    Ok((String::from_utf8_lossy(&output.stdout).into_owned(), stderr))
}

/// They must be refused with this status, in these words.
fn must_reject(rules: &str, code: i32, words: &[&str]) -> Result<()> {
    let output = check(rules)?;
    let said = String::from_utf8_lossy(&output.stderr);
    let status = output.status;
    ensure!(status.code() == Some(code), "{rules}: {status}: {said}");
    for word in words {
        ensure!(said.contains(word), "{rules}: no {word:?} in: {said}");
    }
    Ok(())
}

/// The number behind a word of the answer, as in `(inode 12 on 8:1)`.
fn number_after<'a>(text: &'a str, word: &str) -> Result<&'a str> {
    let (_, rest) = text
        .split_once(word)
        .with_context(|| format!("no {word:?} in: {text}"))?;
    rest.split([',', ')']).next().context("nothing behind it")
}

/// `inode INO on MAJOR:MINOR`, as /proc/locks prints a lock: from the inode and its super block.
fn as_the_kernel_says(file: &File) -> Result<String> {
    flock(file, FlockOperation::LockExclusive)?;
    let locks = std::fs::read_to_string("/proc/locks")?;
    let pid = std::process::id().to_string();
    let ours = locks
        .lines()
        .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let ours: Vec<_> = ours
        .filter(|words| words.get(1) == Some(&"FLOCK") && words.get(4) == Some(&pid.as_str()))
        .collect();
    let [words] = ours.as_slice() else {
        anyhow::bail!("not one lock of ours in {locks}")
    };
    let parts: Vec<&str> = words.get(5).context("no file")?.split(':').collect();
    let [major, minor, ino] = parts.as_slice() else {
        anyhow::bail!("{parts:?}")
    };
    let hex = |text| u32::from_str_radix(text, 16);
    flock(file, FlockOperation::Unlock)?;
    Ok(format!("{ino} on {}:{}", hex(major)?, hex(minor)?))
}

/// The file's numbers in the rule are those of its inode.
fn must_name(path: &Path) -> Result<String> {
    let (said, warned) = must_understand(&format!("enforce path={}", path.display()))?;
    let expected = as_the_kernel_says(&File::open(path)?)?;
    let found = number_after(&said, "(inode ")?;
    ensure!(
        found == expected,
        "{}: {found}, the kernel says {expected}",
        path.display()
    );
    Ok(warned)
}

fn config_file_numbers() -> Result<()> {
    for kind in FsKind::ALL {
        let f = TestFile::new(kind, 4096)?;
        let warned = must_name(&f.path)?;
        must_name(f.path.parent().context("no directory")?)?;
        let is_btrfs = kind == FsKind::Btrfs;
        ensure!(
            warned.contains("other subvolumes") == is_btrfs,
            "{kind}: {warned}"
        );
    }
    Ok(())
}

/// st_dev differs from one subvolume to the next; the super block is the same.
fn config_subvolumes() -> Result<()> {
    let scratch = Scratch::new(FsKind::Btrfs, 0)?;
    let inner = scratch.dir().join("inner");
    let made = Command::new("btrfs")
        .args(["subvolume", "create"])
        .arg(&inner)
        .output()?;
    ensure!(made.status.success(), "btrfs: {}", made.status);
    std::fs::write(inner.join("file"), "x")?;
    must_name(&inner.join("file"))?;
    scratch.close()
}

fn config_overlay() -> Result<()> {
    let script = "set -e; mount -t tmpfs none /mnt; cd /mnt; mkdir lower upper work merged; touch lower/f; \
                  mount -t overlay overlay -o lowerdir=/mnt/lower,upperdir=/mnt/upper,workdir=/mnt/work merged; \
                  echo 'deny path=/mnt/merged/f' > /mnt/rules; longpin guard check-config /mnt/rules";
    let output = apart(script)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1), "{}: {said}", output.status);
    for word in ["/mnt/rules:1: error:", "overlayfs", "upperdir=/mnt/upper"] {
        ensure!(said.contains(word), "no {word:?} in: {said}");
    }
    Ok(())
}

/// A shell line in a mount namespace of its own.
fn apart(line: &str) -> Result<Output> {
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--propagation", "private", "sh", "-c", line]);
    unshare.output().context("no unshare")
}

fn config_mounts_below() -> Result<()> {
    let script = "set -e; mount -t tmpfs none /mnt; mkdir /mnt/a /mnt/a/b; mount -t tmpfs none /mnt/a/b; \
                  echo 'deny path=/mnt/a' > /mnt/rules; longpin guard check-config /mnt/rules";
    let output = apart(script)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {said}", output.status);
    ensure!(
        said.contains("warning:") && said.contains("/mnt/a/b"),
        "{said}"
    );
    Ok(())
}

/// A group's number is the one that the guard sees in the tasks of the group.
fn config_cgroup_numbers() -> Result<()> {
    guard::on()?;
    let mount = cgroup_mount()?;
    let group = Path::new(&mount).join("longpin-test/inner");
    std::fs::create_dir_all(&group)?;
    let procs =
        |dir: &Path| std::fs::write(dir.join("cgroup.procs"), std::process::id().to_string());
    let f = TestFile::new(FsKind::Tmpfs, 4096)?;
    procs(&group)?;
    let pinned = Pinner::pin(&f.path, 0, 4096);
    procs(Path::new(&mount))?;
    let holds = guard::holds_on(&f.path)?;
    drop(pinned?);
    // `ls` finds the name by the number that the program saw.
    let seen = holds.first().map(|hold| &hold["cgroup"]);
    ensure!(
        seen.is_some_and(|seen| seen == "/longpin-test/inner"),
        "the guard saw {seen:?}"
    );
    let (said, _) = must_understand("deny cgroup=longpin-test/inner")?;
    let found = number_after(&said, "in cgroup /longpin-test/inner (id ")?;
    let number = std::fs::metadata(&group)?.ino().to_string();
    ensure!(
        found == number,
        "{found}, the directory's number is {number}"
    );
    ensure!(number_after(&said, "level ")? == "2", "{said}");
    let (said, _) = must_understand("deny cgroup=/")?;
    ensure!(said.contains("(id 1, level 0)"), "{said}");
    std::fs::remove_dir(&group)?;
    std::fs::remove_dir(group.parent().context("no parent")?)?;
    let (said, warned) = must_understand("deny cgroup=longpin-test/inner")?;
    ensure!(
        said.contains("(no effect now)") && warned.contains("there is no cgroup"),
        "{said}{warned}"
    );
    Ok(())
}

/// Where cgroup2 is mounted; where it is not, it is mounted.
fn cgroup_mount() -> Result<String> {
    let mounts = longpin_linux::mounts::read_mounts()?;
    if let Some(point) = longpin_linux::cgroups::cgroup_mount(&mounts) {
        return Ok(point.display().to_string());
    }
    let point = "/run/longpin-cgroup";
    std::fs::create_dir_all(point)?;
    let mounted = Command::new("mount")
        .args(["-t", "cgroup2", "none", point])
        .status()?;
    ensure!(mounted.success(), "cannot mount cgroup2: {mounted}");
    Ok(point.to_owned())
}

/// The devices of this guest pin from code that a rule knows.
fn config_consumers() -> Result<()> {
    let (said, warned) = must_understand("longterm consumer=rdma\nlongterm consumer=io_uring")?;
    ensure!(
        warned.is_empty() && said.contains("2 rules;"),
        "{said}{warned}"
    );
    let (said, warned) = must_understand("deny consumer=rdma_rxe\nignore consumer=vfs_fallocate")?;
    ensure!(
        warned.is_empty() && said.contains("2 rules;"),
        "{said}{warned}"
    );
    let (said, warned) = must_understand("deny consumer=no_such_module")?;
    ensure!(said.contains("(no effect now)"), "{said}");
    ensure!(
        warned.contains("no loaded module and no kernel function"),
        "{warned}"
    );
    Ok(())
}

fn config_exit_status() -> Result<()> {
    must_reject(
        "enfroce\ndeny path=x",
        1,
        &[":1:1: error: unknown action", ":2:6: error:"],
    )?;
    must_reject("deny path=/no/such/file", 1, &[":1: error: nothing is at"])?;
    must_reject("deny uid=no-such-user", 1, &["id -u no-such-user"])?;
    let output = guard::longpin(&["guard", "check-config", "/no/such.conf"])?;
    ensure!(
        output.status.code() == Some(2),
        "missing: {}",
        output.status
    );
    std::fs::write(DRAFT, "deny consumer=io_uring")?;
    let nobody = [
        "--reuid",
        "65534",
        "--clear-groups",
        "longpin",
        "guard",
        "check-config",
        DRAFT,
    ];
    let output = Command::new("setpriv").args(nobody).output()?;
    ensure!(
        output.status.code() == Some(2),
        "without privilege: {}",
        output.status
    );
    let line = "mount -t tmpfs none /etc && mkdir /etc/longpin && touch /etc/longpin/longpin.conf && \
                longpin guard check-config && chmod 666 /etc/longpin/longpin.conf && longpin guard check-config";
    let output = apart(line)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(1) && said.contains("mode 0666"),
        "{}: {said}",
        output.status
    );
    Ok(())
}

fn doctor(arguments: &[&str]) -> Result<(Option<i32>, Value)> {
    let output = guard::longpin(&[&["doctor", "--json"], arguments].concat())?;
    Ok((
        output.status.code(),
        serde_json::from_slice(&output.stdout)?,
    ))
}

/// The claims with this verdict.
fn claims<'a>(report: &'a Value, verdict: &str) -> Vec<&'a str> {
    let claims = report["claims"].as_array().map_or(&[][..], Vec::as_slice);
    let claims = claims.iter().filter(|claim| claim["verdict"] == verdict);
    claims.filter_map(|claim| claim["id"].as_str()).collect()
}

/// What a start proves, the doctor must have promised.
fn doctor_good_host() -> Result<()> {
    guard::off()?;
    let (code, report) = doctor(&[])?;
    ensure!(report["guard"] == "not-running", "{report}");
    guard::must(&["guard", "start"])?;
    ensure!(
        doctor(&[])?.1["guard"] == "running",
        "the guard is not seen"
    );
    // Where VFIO's pin function cannot be watched, its pins cannot be forbidden.
    let unwatched = guard::status()?["hints"] == "impossible";
    let (expected, partial): (i32, &[&str]) = if unwatched { (1, &["C15"]) } else { (0, &[]) };
    ensure!(code == Some(expected), "{code:?}: {report}");
    ensure!(claims(&report, "partial") == partial, "{report}");
    ensure!(
        claims(&report, "yes").len() + partial.len() == 13,
        "{report}"
    );
    let enforced = guard::status()?["enforces"].clone();
    for claim in enforced.as_array().context("no claims")? {
        let id = claim.as_str().context("no id")?;
        ensure!(
            claims(&report, "yes").contains(&id) || partial.contains(&id),
            "{id}: {report}"
        );
    }
    Ok(())
}

/// What is missing is named with the line that mends it, and a start indeed fails.
fn doctor_what_is_missing() -> Result<()> {
    guard::off()?;
    for (spoil, words) in [
        ("umount /sys/fs/bpf", "mount -t bpf bpf /sys/fs/bpf"),
        (
            "mount -t tmpfs none /sys/kernel/btf",
            "CONFIG_DEBUG_INFO_BTF",
        ),
        (
            "echo lockdown,yama > /tmp/lsm && mount --bind /tmp/lsm /sys/kernel/security/lsm",
            "lsm=lockdown,yama,bpf",
        ),
    ] {
        let line = format!(
            "{spoil} && {{ longpin doctor; code=$?; longpin guard start 2>/dev/null && exit 9; exit $code; }}"
        );
        let output = apart(&line)?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.code() == Some(1),
            "{spoil}: {}: {said}",
            output.status
        );
        ensure!(
            said.contains("MISSING") && said.contains("enforce nothing"),
            "{spoil}: {said}"
        );
        ensure!(said.contains(words), "{spoil}: no {words:?} in: {said}");
    }
    let output = apart("umount /sys/kernel/security && longpin doctor")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.code() == Some(2),
        "no securityfs: {}: {said}",
        output.status
    );
    ensure!(said.contains("cannot tell"), "{said}");
    Ok(())
}
