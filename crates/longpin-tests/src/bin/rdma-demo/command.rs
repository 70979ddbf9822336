//! The commands that an administrator would type, and what they answered.

use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::show;

/// What a command came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    /// The reason, in the words of the C library: `Text file busy`.
    Refused(String),
}

impl Answer {
    /// The guard's answer: what a swap file answers.
    pub(crate) fn is_busy(&self) -> bool {
        matches!(self, Self::Refused(reason) if reason == "Text file busy")
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Refused(reason) => f.write_str(reason),
        }
    }
}

/// `truncate -s LEN FILE`.
pub(crate) fn truncate(path: &Path, len: usize) -> Result<Answer> {
    type_in("truncate", &["-s", &len.to_string()], path)
}

/// `fallocate --punch-hole --offset OFFSET --length LEN FILE`.
pub(crate) fn punch(path: &Path, offset: usize, len: usize) -> Result<Answer> {
    let (offset, len) = (offset.to_string(), len.to_string());
    type_in(
        "fallocate",
        &["--punch-hole", "--offset", &offset, "--length", &len],
        path,
    )
}

/// Runs a command on the file, and shows it and its answer as a terminal would.
fn type_in(program: &str, arguments: &[&str], path: &Path) -> Result<Answer> {
    show::step(&format!(
        "$ {program} {} {}",
        arguments.join(" "),
        path.display()
    ))?;
    let output = Command::new(program)
        .args(arguments)
        .arg(path)
        .env("LC_ALL", "C")
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() {
        show::detail("(done)");
        return Ok(Answer::Done);
    }
    show::detail(&words);
    let reason = words.rsplit(": ").next().unwrap_or("failed without a word");
    Ok(Answer::Refused(reason.to_owned()))
}
