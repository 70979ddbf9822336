//! A process that is asked: one line of JSON for each request, one for each reply, on its standard input and output.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::PATIENCE;

/// The running process, ended with this value.
#[derive(Debug)]
pub struct Peer {
    name: String,
    child: Child,
    /// `None` while it is being ended: it ends when its input does.
    requests: Option<ChildStdin>,
    replies: Receiver<String>,
}

impl Peer {
    /// Starts it; the name is for errors.
    pub fn start(name: &str, command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let requests = child.stdin.take();
        let replies = child.stdout.take().context("no pipe")?;
        Ok(Self {
            name: name.to_owned(),
            child,
            requests,
            replies: lines(replies),
        })
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Tells it something, and waits for what it says next.
    pub fn ask<Q: Serialize, A: DeserializeOwned>(&mut self, request: &Q) -> Result<A> {
        self.tell(request)?;
        match self.hear(PATIENCE)? {
            Some(reply) => Ok(reply),
            None => bail!("{} did not answer within {PATIENCE:?}", self.name),
        }
    }

    /// Tells it something.
    pub fn tell<Q: Serialize>(&mut self, request: &Q) -> Result<()> {
        let line = serde_json::to_string(request)?;
        let sent = self.requests.as_mut().map(|pipe| writeln!(pipe, "{line}"));
        match sent {
            Some(Ok(())) => Ok(()),
            _ => self.has_ended(),
        }
    }

    /// What it says next; `None`: nothing in that time.
    pub fn hear<A: DeserializeOwned>(&mut self, limit: Duration) -> Result<Option<A>> {
        match self.replies.recv_timeout(limit) {
            Ok(line) => Ok(Some(serde_json::from_str(&line).with_context(|| {
                format!("{} said something else: {line}", self.name)
            })?)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => self.has_ended(),
        }
    }

    fn has_ended<T>(&mut self) -> Result<T> {
        let status = self.end()?;
        bail!("{} has ended: {status}", self.name)
    }

    /// Lets it end by itself, and kills it if it does not.
    fn end(&mut self) -> Result<ExitStatus> {
        drop(self.requests.take());
        let deadline = Instant::now() + Duration::from_secs(3);
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(20));
        }
        self.child.kill()?;
        Ok(self.child.wait()?)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // What it has goes with the process, whatever the answer.
        let _ = self.end();
    }
}

/// The other end: answers each request until there are no more.
pub fn serve<Q: DeserializeOwned, A: Serialize>(mut answer: impl FnMut(Q) -> A) -> Result<()> {
    for line in std::io::stdin().lock().lines() {
        say(&answer(serde_json::from_str(&line?)?))?;
    }
    Ok(())
}

/// Says something, asked or not.
pub fn say<A: Serialize>(reply: &A) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(reply)?)?;
    Ok(out.flush()?)
}

/// The lines of a pipe, as a channel: a channel can be waited for with a limit.
fn lines(pipe: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}
