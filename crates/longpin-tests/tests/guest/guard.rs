//! The `longpin` command, as a user runs it.

use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

static STARTS: AtomicU32 = AtomicU32::new(0);

/// How often a guard was to be started so far: each costs seconds.
pub(crate) fn starts() -> u32 {
    STARTS.load(Ordering::Relaxed)
}

/// Run `longpin` with these arguments.
pub(crate) fn longpin(arguments: &[&str]) -> Result<Output> {
    if arguments.starts_with(&["guard", "start"]) {
        STARTS.fetch_add(1, Ordering::Relaxed);
    }
    Command::new("longpin")
        .args(arguments)
        .output()
        .context("longpin is not on PATH")
}

/// Run it, and it must succeed: what it printed.
pub(crate) fn must(arguments: &[&str]) -> Result<String> {
    let output = longpin(arguments)?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "longpin {arguments:?}: {}: {stderr}",
        output.status
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The guard runs from here on.
pub(crate) fn on() -> Result<()> {
    if longpin(&["guard", "status"])?.status.success() {
        return Ok(());
    }
    must(&["guard", "start"]).map(drop)
}

/// It runs and knows every pin: a new one, where sweeps do not bring that about.
pub(crate) fn fresh() -> Result<()> {
    on()?;
    if sweep_until_known().is_ok() {
        return Ok(());
    }
    off()?;
    on()
}

/// A sweep that meets a task which seems to be inside a pin call acknowledges too little, which is safe, and says so.
pub(crate) fn sweep_until_known() -> Result<()> {
    for _ in 0..10 {
        must(&["guard", "sweep"])?;
        if must_know_all().is_ok() {
            return Ok(());
        }
    }
    must_know_all()
}

/// The guard does not run from here on, and has left nothing.
pub(crate) fn off() -> Result<()> {
    if longpin(&["guard", "status"])?.status.code() == Some(1) {
        return Ok(());
    }
    must(&["guard", "stop", "--force"])?;
    let left = std::path::Path::new("/sys/fs/bpf/longpin").exists();
    ensure!(!left, "left pinned after stop");
    Ok(())
}

/// `kernel.ftrace_enabled`; false where the kernel refuses that (7.3).
pub(crate) fn switch_tracing(on: bool) -> Result<bool> {
    let value = if on { "1" } else { "0" };
    match std::fs::write("/proc/sys/kernel/ftrace_enabled", value) {
        Err(err) if err.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(false),
        done => done.map(|()| true).context("kernel.ftrace_enabled"),
    }
}

pub(crate) fn status() -> Result<Value> {
    Ok(serde_json::from_str(&must(&[
        "guard", "status", "--json",
    ])?)?)
}

/// After a sweep every pin must be known, except where the kernel has a pin function that nobody can watch.
pub(crate) fn must_know_all() -> Result<()> {
    let status = status()?;
    let known = status["hints"] == "complete" || status["hints"] == "impossible";
    ensure!(known, "hints are missing: {status}");
    Ok(())
}

/// A number from the status.
pub(crate) fn count(name: &str) -> Result<u64> {
    status()?[name]
        .as_u64()
        .with_context(|| format!("no {name} in the status"))
}

/// The pins of a file, holds or not, as `ls --all --json` tells them.
pub(crate) fn pins_on(path: &std::path::Path) -> Result<Vec<Value>> {
    read_list(&["ls", "--all", "--json"], path)
}

/// The kept events that name a file, oldest first.
pub(crate) fn events_on(path: &std::path::Path) -> Result<Vec<Value>> {
    let path = path.to_string_lossy();
    let mut events = Vec::new();
    for line in must(&["watch", "--last", "--json"])?.lines() {
        let event: Value = serde_json::from_str(line)?;
        if event["path"] == *path {
            events.push(event);
        }
    }
    Ok(events)
}

/// The holds on a file, as `ls --json` tells them.
pub(crate) fn holds_on(path: &std::path::Path) -> Result<Vec<Value>> {
    read_list(&["ls", "--json"], path)
}

/// The holds on all files.
pub(crate) fn all_holds() -> Result<Vec<Value>> {
    list(&["ls", "--json"])
}

fn read_list(arguments: &[&str], path: &std::path::Path) -> Result<Vec<Value>> {
    let path = path.to_string_lossy();
    let mut holds = list(arguments)?;
    holds.retain(|hold| hold["path"] == *path);
    Ok(holds)
}

fn list(arguments: &[&str]) -> Result<Vec<Value>> {
    let mut answer: Value = serde_json::from_str(&must(arguments)?)?;
    ensure!(answer["version"] == 1, "ls --json has no version: {answer}");
    match answer["holds"].take() {
        Value::Array(holds) => Ok(holds),
        other => anyhow::bail!("holds are {other}"),
    }
}
