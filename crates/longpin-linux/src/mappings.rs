//! Processes, by name.

use std::path::Path;

use crate::tasks;

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its name, or what is known of it.
    pub command: String,
}

/// The name of a process; empty when it has gone.
#[must_use]
pub fn name_process(pid: u32) -> Process {
    let path = format!("/proc/{pid}/comm");
    let command = tasks::read_text(Path::new(&path)).unwrap_or_default();
    Process {
        pid,
        command: command.trim_end().to_owned(),
    }
}
