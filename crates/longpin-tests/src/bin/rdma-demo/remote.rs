//! The demo's end of its server: starts it, asks it, and ends it.

use std::env;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, bail};
use longpin_tests::peer::Peer;
use longpin_tests::rdma::Endpoint;

use crate::options::SERVER;
use crate::protocol::{Registration, Reply, Request, Window};
use crate::server::NAME;

/// The running server, ended with this value.
pub(crate) struct Remote(Peer);

impl Remote {
    pub(crate) fn start(device: &str) -> Result<Self> {
        let program = env::current_exe().context("cannot find the demo's own program")?;
        let mut command = Command::new(program);
        command.arg0(NAME).args([SERVER, device]);
        Ok(Self(Peer::start(NAME, &mut command)?))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.pid()
    }

    pub(crate) fn register(&mut self, registration: Registration) -> Result<Window> {
        match self.0.ask(&Request::Register(registration))? {
            Reply::Registered(window) => Ok(window),
            other => unexpected(&other),
        }
    }

    pub(crate) fn connect(&mut self, peer: Endpoint) -> Result<Endpoint> {
        match self.0.ask(&Request::Connect(peer))? {
            Reply::Connected(endpoint) => Ok(endpoint),
            other => unexpected(&other),
        }
    }

    pub(crate) fn deregister(&mut self) -> Result<()> {
        match self.0.ask(&Request::Deregister)? {
            Reply::Deregistered => Ok(()),
            other => unexpected(&other),
        }
    }
}

fn unexpected<T>(reply: &Reply) -> Result<T> {
    match reply {
        Reply::Failed(reason) => bail!("{NAME}: {reason}"),
        other => bail!("{NAME} gave an answer to another question: {other:?}"),
    }
}
