//! Programs that others wrote, as a user runs them.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// A program that is killed if whoever started it ends before it.
#[derive(Debug)]
pub struct Program(Option<Child>);

impl Program {
    /// Starts it: program and arguments, with one blank between each.
    pub fn start(line: &str) -> Result<Self> {
        let mut words = line.split(' ');
        let program = words.next().context("no program")?;
        let child = Command::new(program)
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        Ok(Self(Some(child.with_context(|| line.to_owned())?)))
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.0.as_ref().map_or(0, Child::id)
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> Result<bool> {
        let child = self.0.as_mut().context("ended")?;
        Ok(child.try_wait()?.is_some())
    }

    /// Waits until somebody listens on a TCP port, or the program has ended. Without a limit: where a machine's time flies
    /// while it reads a program from the host, no limit is long enough.
    pub fn await_listener(&mut self, port: u16) -> Result<()> {
        while !is_listening(port)? {
            if self.has_ended()? {
                bail!("it has ended: {:?}", self.end()?);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Waits for its end: what it printed.
    pub fn end(&mut self) -> Result<Output> {
        let child = self.0.take().context("ended")?;
        Ok(child.wait_with_output()?)
    }

    /// It ends well: what it printed.
    pub fn must_end(mut self) -> Result<String> {
        let Output {
            status,
            stdout,
            stderr,
        } = self.end()?;
        let said = String::from_utf8_lossy(&stdout).into_owned();
        let complained = String::from_utf8_lossy(&stderr);
        ensure!(status.success(), "{status}: {said} {complained}");
        Ok(said)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            // Already dead is fine.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn is_listening(port: u16) -> Result<bool> {
    let wanted = format!(":{port:04X}");
    let listens = |line: &str| {
        let words: Vec<_> = line.split_whitespace().take(4).collect();
        matches!(words[..], [_, local, _, "0A"] if local.ends_with(&wanted))
    };
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        if std::fs::read_to_string(table)?.lines().any(listens) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The index of the RoCE v2 address of a device.
pub fn gid(device: &str) -> Result<String> {
    let dir = Path::new("/sys/class/infiniband")
        .join(device)
        .join("ports/1");
    for index in 0..16 {
        let read = |of: &str| std::fs::read_to_string(dir.join(format!("{of}/{index}")));
        let kind = read("gid_attrs/types").unwrap_or_default();
        if kind.starts_with("RoCE v2") && read("gids")?.contains(":ffff:") {
            return Ok(index.to_string());
        }
    }
    bail!("{device} has no RoCE v2 address")
}
