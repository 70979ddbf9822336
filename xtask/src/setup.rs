//! `cargo xtask setup`: everything a fresh Debian machine lacks, and nothing when it lacks nothing.

use crate::{env, ui};
use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What the workspace needs, by what it is needed for.
const PACKAGES: &[&[&str]] = &[
    // building: the BPF programs, libbpf, the RDMA crate
    &["clang", "clang-format", "libelf-dev", "zlib1g-dev"],
    &[
        "pkg-config",
        "make",
        "gcc",
        "libc6-dev",
        "cmake",
        "libclang-dev",
    ],
    // booting: the machine, its modules, virtme-ng and what it calls
    &[
        "qemu-system-x86",
        "kmod",
        "busybox-static",
        "file",
        "python3-venv",
        "util-linux",
    ],
    // in the guest: soft-RoCE, NVDIMM, file systems, load
    &[
        "rdma-core",
        "ibverbs-utils",
        "ibverbs-providers",
        "perftest",
        "iproute2",
        "bpftool",
    ],
    &[
        "ndctl",
        "xfsprogs",
        "e2fsprogs",
        "btrfs-progs",
        "f2fs-tools",
        "fio",
    ],
];

/// Pinned, so that a new release cannot change how the guest boots under a test.
const VIRTME_NG: &str = "1.42";

/// Installs what is missing.
pub(crate) fn run() -> Result<()> {
    let missing = missing_packages()?;
    if !missing.is_empty() {
        ui::say(&format!("installing {}", missing.join(" ")));
        apt_get(&["-q", "update"])?;
        let mut install = vec!["-q", "-y", "--no-install-recommends", "install"];
        install.extend(missing);
        apt_get(&install)?;
    }
    install_vng()?;
    Ok(())
}

/// The words that start virtme-ng; an error with the remedy if it is not installed. Its parts call each other by name,
/// so its directory must be on PATH.
pub(crate) fn vng() -> Result<Vec<OsString>> {
    let venv = venv_dir()?;
    if !complete_mark(&venv).is_file() {
        bail!("virtme-ng is not installed: run `cargo xtask setup`");
    }
    let mut path = OsString::from("PATH=");
    path.push(venv.join("bin"));
    path.push(":");
    path.push(env::search_path());
    Ok(vec!["env".into(), path, "vng".into()])
}

/// Runs apt-get as root, through sudo if need be.
pub(crate) fn apt_get(args: &[&str]) -> Result<()> {
    let settings = ["DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8"];
    let mut command = if rustix::process::geteuid().is_root() {
        env::tool("env")
    } else {
        let mut sudo = env::tool("sudo");
        sudo.arg("env");
        sudo
    };
    // dpkg waits for another apt that holds its lock: a fresh machine may be updating itself.
    command
        .args(settings)
        .args(["apt-get", "-o", "DPkg::Lock::Timeout=300"]);
    let status = command
        .args(args)
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status();
    let status = status.context("cannot run apt-get: is sudo installed?")?;
    if !status.success() {
        bail!(
            "apt-get {} failed ({status}): see its output above",
            args.join(" ")
        );
    }
    Ok(())
}

fn missing_packages() -> Result<Vec<&'static str>> {
    let wanted: Vec<&str> = PACKAGES.concat();
    let mut query = Command::new("dpkg-query");
    query
        .args(["-W", "-f", "${Package} ${db:Status-Status}\n"])
        .args(&wanted);
    // It fails when a package is unknown, which is an answer and not an error.
    let answer = query.output().with_context(|| {
        format!(
            "this is no Debian: install the like of {}",
            wanted.join(" ")
        )
    })?;
    let text = String::from_utf8_lossy(&answer.stdout);
    let installed: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_suffix(" installed"))
        .collect();
    Ok(wanted
        .into_iter()
        .filter(|package| !installed.contains(package))
        .collect())
}

fn install_vng() -> Result<()> {
    let venv = venv_dir()?;
    if complete_mark(&venv).is_file() {
        return Ok(());
    }
    let _step = ui::Step::begin(&format!("installing virtme-ng {VIRTME_NG}"));
    // --clear: whatever a killed setup left is thrown away.
    env::output(
        Command::new("/usr/bin/python3")
            .args(["-m", "venv", "--clear"])
            .arg(&venv),
    )?;
    let mut pip = Command::new(venv.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check"]);
    env::output(pip.arg(format!("virtme-ng=={VIRTME_NG}")))
        .context("cannot install virtme-ng: check that pip reaches its package index")?;
    std::fs::write(complete_mark(&venv), "")?;
    Ok(())
}

fn venv_dir() -> Result<PathBuf> {
    Ok(env::cache_dir()?.join(format!("virtme-ng-{VIRTME_NG}")))
}

fn complete_mark(venv: &Path) -> PathBuf {
    venv.join("complete")
}
