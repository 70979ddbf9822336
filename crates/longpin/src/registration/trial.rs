//! A pin can hang: pages that the kernel has to move first, and cannot, are tried again for ever. So it is tried first by
//! a process that can be killed; what it got is given back when it ends, however it ends.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::plan::Access;

/// Registers and lets go, in another process: `longpin try-pin`.
#[derive(Debug, Clone)]
pub struct Trial {
    /// The `longpin` command.
    pub program: PathBuf,
    /// How long it may take.
    pub deadline: Duration,
}

/// How a trial ended otherwise than well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrialError {
    /// The process could not be started or watched.
    #[error("cannot run {}", program.display())]
    Run {
        /// The command.
        program: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The pin did not come back, and was killed.
    #[error("the pin had not returned after {after:?}, and was killed")]
    TimedOut {
        /// The deadline.
        after: Duration,
    },
    /// It came back with an error.
    #[error("{said}")]
    Refused {
        /// What it said.
        said: String,
    },
}

impl Trial {
    /// With the command on PATH.
    #[must_use]
    pub fn within(deadline: Duration) -> Self {
        Self {
            program: "longpin".into(),
            deadline,
        }
    }

    /// Run it, with the file as the process's standard input.
    ///
    /// # Errors
    ///
    /// [`TrialError`]. Whatever it is, nothing stays registered.
    pub fn run(
        &self,
        file: &File,
        device: &str,
        range: &Range<u64>,
        access: Access,
    ) -> Result<(), TrialError> {
        let failed = |source| TrialError::Run {
            program: self.program.clone(),
            source,
        };
        let words = format!("{}+{}", range.start, range.end - range.start);
        let access = if access.writes() {
            "read-write"
        } else {
            "read"
        };
        let file = file.try_clone().map_err(failed)?;
        let mut child = Command::new(&self.program)
            .args(["try-pin", "--device", device, "--range", &words])
            .args(["--access", access])
            .stdin(file)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let ended = wait(&mut child, self.deadline).map_err(failed)?;
        let Some(status) = ended else {
            return Err(TrialError::TimedOut {
                after: self.deadline,
            });
        };
        match status.success() {
            true => Ok(()),
            false => Err(refused(&mut child, status)),
        }
    }
}

fn refused(child: &mut Child, status: ExitStatus) -> TrialError {
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        // What could not be read is not told.
        let _ = stderr.read_to_string(&mut said);
    }
    let said = match (said.trim(), status.signal()) {
        ("", Some(9)) => {
            "killed: there is not enough memory for it (dmesg says whose limit)".to_owned()
        }
        ("", _) => status.to_string(),
        (said, _) => said.to_owned(),
    };
    TrialError::Refused { said }
}

/// Waits for the end; at the deadline the process is killed, and there is no status.
fn wait(child: &mut Child, deadline: Duration) -> io::Result<Option<ExitStatus>> {
    let begin = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if begin.elapsed() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str) -> Result<(), TrialError> {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&program, mode).unwrap();
        let trial = Trial {
            program,
            deadline: Duration::from_millis(500),
        };
        let file = File::open("/dev/null").unwrap();
        trial.run(&file, "rxe0", &(0..4096), Access::READ)
    }

    #[test]
    fn a_trial_ends_in_time() {
        run("[ \"$*\" = 'try-pin --device rxe0 --range 0+4096 --access read' ]").unwrap();
        let refused = run("echo no >&2; exit 1").unwrap_err();
        assert_eq!(refused.to_string(), "no");
        let killed = run("kill -9 $$").unwrap_err().to_string();
        assert!(killed.contains("killed"), "{killed}");
        let late = run("exec sleep 60").unwrap_err();
        assert!(matches!(late, TrialError::TimedOut { .. }), "{late}");
    }
}
