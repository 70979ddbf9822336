//! The guard, through the commands that a person would use.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Where the guard keeps its programs and maps while it runs.
pub(crate) const PINNED: &str = "/sys/fs/bpf/longpin";

/// A running guard; stopped with this value.
#[derive(Debug)]
pub(crate) struct Guard(());

impl Guard {
    pub(crate) fn start() -> Result<Self> {
        if Path::new(PINNED).exists() {
            bail!("a guard is running already: `longpin guard stop` first");
        }
        run(&["guard", "start"])?;
        Ok(Self(()))
    }

    /// Ends it, whatever is held.
    pub(crate) fn stop(self) -> Result<()> {
        std::mem::forget(self);
        run(&["guard", "stop", "--force"])
    }
}

impl Drop for Guard {
    /// The way out when something failed; the failure itself is what is told.
    fn drop(&mut self) {
        let _ = run(&["guard", "stop", "--force"]);
    }
}

fn run(arguments: &[&str]) -> Result<()> {
    let output = Command::new("longpin")
        .args(arguments)
        .output()
        .context("cannot run longpin")?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        bail!("longpin {}: {}", arguments.join(" "), words.trim());
    }
    Ok(())
}
