//! Who waits in the file system for a device: a command that is left waiting, and ended by a signal.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use longpin_tests::PATIENCE;
use rustix::process::{Pid, Signal, kill_process};

/// So long nobody waits for anything else, even in a guest that is emulated.
const WAITS: Duration = Duration::from_secs(3);

/// A command that is to wait; killed on drop.
pub(super) struct Waiter {
    child: Child,
    words: String,
}

impl Waiter {
    pub(super) fn start(command: &[&str]) -> Result<Self> {
        let child = Command::new(command[0])
            .args(&command[1..])
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot run {}", command[0]))?;
        Ok(Self {
            child,
            words: command.join(" "),
        })
    }

    /// It waits, in a way that a signal ends.
    pub(super) fn must_wait_and_end(mut self) -> Result<()> {
        std::thread::sleep(WAITS);
        let words = &self.words;
        let ended = self.child.try_wait()?;
        ensure!(ended.is_none(), "{words} did not wait: {ended:?}");
        let state = state_of(self.child.id())?;
        ensure!(state == 'S', "{words} waits in state {state}");
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::INT)?;
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                let by = status.signal();
                ensure!(by == Some(libc::SIGINT), "{words} ended with {status}");
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        anyhow::bail!("{words}: no signal ends it")
    }

    /// It does not: this kernel lets it through.
    pub(super) fn must_go_through(mut self) -> Result<()> {
        let status = self.child.wait()?;
        ensure!(status.success(), "{}: {status}", self.words);
        Ok(())
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        // Ended already, or nothing more can be done.
        let _ = self.child.kill();
        let _ = self.child.try_wait();
    }
}

/// `S` for a sleep that signals end, `D` for one that they do not.
fn state_of(pid: u32) -> Result<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let behind = stat.rsplit_once(") ").context("no state")?.1;
    behind.chars().next().context("no state")
}
