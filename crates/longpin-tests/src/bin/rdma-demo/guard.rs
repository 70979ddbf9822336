//! The guard, through the commands that a person would use.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail};

use crate::show;

/// Where the guard keeps its programs and maps while it runs.
const PINNED: &str = "/sys/fs/bpf/longpin";

/// Where the `longpin` command is, if it is on PATH.
pub(crate) fn command() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|dir| dir.join("longpin"))
        .find(|file| file.is_file())
}

/// Whether a guard runs already: then the half without it cannot be shown.
pub(crate) fn is_running() -> bool {
    Path::new(PINNED).exists()
}

/// A running guard, stopped with this value.
pub(crate) struct Guard {
    command: PathBuf,
    running: bool,
}

impl Guard {
    pub(crate) fn start(command: PathBuf) -> Result<Self> {
        let mut guard = Self {
            command,
            running: false,
        };
        guard.run(&["guard", "start"])?;
        guard.running = true;
        Ok(guard)
    }

    /// Shows the table of holds.
    pub(crate) fn list(&self) -> Result<()> {
        self.run(&["ls"])
    }

    pub(crate) fn stop(mut self) -> Result<()> {
        self.running = false;
        self.run(&["guard", "stop"])
    }

    fn run(&self, arguments: &[&str]) -> Result<()> {
        let line = format!("longpin {}", arguments.join(" "));
        show::step(&format!("$ {line}"))?;
        let output = self.output(arguments)?;
        for text in [&output.stdout, &output.stderr] {
            String::from_utf8_lossy(text).lines().for_each(show::detail);
        }
        if !output.status.success() {
            bail!("{line} failed: {}", output.status);
        }
        Ok(())
    }

    fn output(&self, arguments: &[&str]) -> Result<Output> {
        Command::new(&self.command)
            .args(arguments)
            .output()
            .with_context(|| format!("cannot run {}", self.command.display()))
    }
}

impl Drop for Guard {
    /// The way out when something failed. A guard that does not stop is told about: it outlives this process.
    fn drop(&mut self) {
        if self.running {
            match self.output(&["guard", "stop", "--force"]) {
                Ok(output) if output.status.success() => {}
                _ => show::line("the guard is still running: stop it with `longpin guard stop`"),
            }
        }
    }
}
