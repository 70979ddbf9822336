//! The demo's end of its server: starts it, asks it, and ends it.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use longpin_tests::rdma::Endpoint;

use crate::options::SERVER;
use crate::protocol::{Registration, Reply, Request, Window};
use crate::server::NAME;

/// How long a reply may take; a registration of some MiB takes far less, even in a slow guest.
const PATIENCE: Duration = Duration::from_secs(30);

/// The running server, ended with this value.
pub(crate) struct Remote {
    child: Child,
    /// `None` while it is being ended: the server ends when its input does.
    requests: Option<ChildStdin>,
    replies: Receiver<String>,
}

impl Remote {
    pub(crate) fn start(device: &str) -> Result<Self> {
        let program = env::current_exe().context("cannot find the demo's own program")?;
        let mut child = Command::new(program)
            .arg0(NAME)
            .args([SERVER, device])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {NAME}"))?;
        let requests = child.stdin.take();
        let replies = child
            .stdout
            .take()
            .map(lines)
            .context("no pipe to the server")?;
        Ok(Self {
            child,
            requests,
            replies,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn register(&mut self, registration: Registration) -> Result<Window> {
        match self.ask(&Request::Register(registration))? {
            Reply::Registered(window) => Ok(window),
            other => unexpected(&other),
        }
    }

    pub(crate) fn connect(&mut self, peer: Endpoint) -> Result<Endpoint> {
        match self.ask(&Request::Connect(peer))? {
            Reply::Connected(endpoint) => Ok(endpoint),
            other => unexpected(&other),
        }
    }

    pub(crate) fn deregister(&mut self) -> Result<()> {
        match self.ask(&Request::Deregister)? {
            Reply::Deregistered => Ok(()),
            other => unexpected(&other),
        }
    }

    fn ask(&mut self, request: &Request) -> Result<Reply> {
        let line = serde_json::to_string(request)?;
        let sent = self.requests.as_mut().map(|pipe| writeln!(pipe, "{line}"));
        let reply = match sent {
            Some(Ok(())) => self.replies.recv_timeout(PATIENCE),
            _ => Err(RecvTimeoutError::Disconnected),
        };
        match reply {
            Ok(reply) => Ok(serde_json::from_str(&reply)?),
            Err(RecvTimeoutError::Timeout) => bail!("{NAME} did not answer within {PATIENCE:?}"),
            Err(RecvTimeoutError::Disconnected) => bail!("{NAME} has ended: {}", self.end()?),
        }
    }

    /// Lets the server end by itself, and kills it if it does not.
    fn end(&mut self) -> Result<std::process::ExitStatus> {
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

impl Drop for Remote {
    fn drop(&mut self) {
        // Its regions go with the process, whatever the answer.
        let _ = self.end();
    }
}

fn unexpected<T>(reply: &Reply) -> Result<T> {
    match reply {
        Reply::Failed(reason) => bail!("{NAME}: {reason}"),
        other => bail!("{NAME} gave an answer to another question: {other:?}"),
    }
}

/// The lines of the server, as a channel: a channel can be waited for with a limit.
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
