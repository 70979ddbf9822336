//! The client: reads the server's memory over RDMA.

use anyhow::Result;
use longpin_tests::rdma::{CompletionError, Device, ProtectionDomain, QueuePair};

use crate::protocol::Window;
use crate::remote::Remote;

pub(crate) struct Client {
    domain: ProtectionDomain,
    connection: QueuePair,
}

impl Client {
    pub(crate) fn connect(device: &Device, remote: &mut Remote) -> Result<Self> {
        let domain = device.protection_domain()?;
        let connection = connection(&domain, remote)?;
        Ok(Self { domain, connection })
    }

    /// A failed transfer ends a connection; this makes another.
    pub(crate) fn reconnect(&mut self, remote: &mut Remote) -> Result<()> {
        self.connection = connection(&self.domain, remote)?;
        Ok(())
    }

    pub(crate) fn read(&mut self, window: Window) -> Result<Vec<u8>, CompletionError> {
        self.connection.read(window.addr, window.rkey, window.len)
    }
}

fn connection(domain: &ProtectionDomain, remote: &mut Remote) -> Result<QueuePair> {
    let mut ours = QueuePair::new(domain)?;
    let theirs = remote.connect(ours.endpoint())?;
    ours.connect(&theirs)?;
    Ok(ours)
}
