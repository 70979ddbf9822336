//! The server: offers a file, and is connected to. It moves no byte.

use std::fs::File;

use anyhow::{Context, Result};
use longpin_rdma::{Access, MemoryRegion, ProtectionDomain, RegisterError, RegisterOptions, Wish};
use longpin_tests::PAGE;
use longpin_tests::peer;
use longpin_tests::rdma::{Device, Endpoint, QueuePair};

use super::words::{Offer, Reply, Request, Window};

/// `hosts-server DEVICE`
pub(crate) fn serve(arguments: &[String]) -> Result<()> {
    let device = arguments.first().context("hosts-server DEVICE")?;
    let theirs = Device::open(device)?.protection_domain()?;
    let mut server = Server {
        domain: theirs.for_longpin()?,
        theirs,
        region: None,
        connection: None,
    };
    peer::serve(|request| {
        server
            .answer(request)
            .unwrap_or_else(|err| Reply::Failed(format!("{err:#}")))
    })
}

struct Server {
    theirs: longpin_tests::rdma::ProtectionDomain,
    domain: ProtectionDomain,
    region: Option<MemoryRegion>,
    /// Never used here, but the connection lasts as long as it exists.
    connection: Option<QueuePair>,
}

impl Server {
    fn answer(&mut self, request: Request) -> Result<Reply> {
        Ok(match request {
            Request::Offer(offer) => self.offer(&offer)?,
            Request::Connect(peer) => Reply::Connected(self.connect(&peer)?),
            Request::Withdraw => {
                self.connection = None;
                let ended = self.region.take().map(MemoryRegion::deregister);
                ended.transpose()?;
                Reply::Withdrawn
            }
        })
    }

    fn offer(&mut self, offer: &Offer) -> Result<Reply> {
        let file = File::options().read(true).write(true).open(&offer.path)?;
        let len = file.metadata()?.len();
        let options = RegisterOptions {
            wish: if offer.pinned {
                Wish::Pin
            } else {
                Wish::OnDemand
            },
            require_hold: offer.held,
            ..RegisterOptions::default()
        };
        let access = if offer.writes {
            Access::READ_WRITE
        } else {
            Access::READ
        };
        let made = MemoryRegion::register_with(&self.domain, &file, 0..len, access, &options);
        let region = match (made.as_ref().err().and_then(RegisterError::rule), made) {
            (Some(rule), _) => return Ok(Reply::Refused(rule.as_str().to_owned())),
            (None, made) => made?,
        };
        let window = Window {
            address: region.address(),
            rkey: region.rkey(),
            pages: len / PAGE as u64,
        };
        self.region = Some(region);
        Ok(Reply::Offered(window))
    }

    fn connect(&mut self, peer: &Endpoint) -> Result<Endpoint> {
        // Whatever the old one still had to do is done or dropped when it has gone.
        self.connection = None;
        let mut connection = QueuePair::new(&self.theirs)?;
        connection.connect(peer)?;
        let endpoint = connection.endpoint();
        self.connection = Some(connection);
        Ok(endpoint)
    }
}
