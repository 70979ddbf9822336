//! The server: the process that maps the file and registers it with the device. It does as it is told on its standard
//! input, and ends when that ends.

use std::fs::OpenOptions;

use anyhow::{Context, Result, bail};
use longpin_tests::mapping::Mapping;
use longpin_tests::peer;
use longpin_tests::rdma::{Access, Device, Endpoint, ProtectionDomain, QueuePair, Region};

use crate::protocol::{Registration, Reply, Request, Window};

/// The name in `ps` and `longpin ls`; the kernel keeps fifteen bytes.
pub(crate) const NAME: &str = "weights-server";
const C_NAME: &std::ffi::CStr = c"weights-server";

pub(crate) fn serve(device: &str) -> Result<()> {
    rustix::thread::set_name(C_NAME).context("cannot take the server's name")?;
    let mut server = Server {
        domain: Device::open(device)?.protection_domain()?,
        region: None,
        connection: None,
    };
    peer::serve(|request| {
        server
            .answer(request)
            .unwrap_or_else(|error| Reply::Failed(format!("{error:#}")))
    })
}

struct Server {
    domain: ProtectionDomain,
    region: Option<Region>,
    /// Never used again, but the connection lasts as long as it exists.
    connection: Option<QueuePair>,
}

impl Server {
    fn answer(&mut self, request: Request) -> Result<Reply> {
        Ok(match request {
            Request::Register(registration) => Reply::Registered(self.register(&registration)?),
            Request::Connect(peer) => Reply::Connected(self.connect(&peer)?),
            Request::Deregister => {
                self.deregister()?;
                Reply::Deregistered
            }
        })
    }

    fn register(&mut self, registration: &Registration) -> Result<Window> {
        let Registration {
            path,
            writable,
            on_demand,
        } = registration;
        let file = OpenOptions::new().read(true).write(*writable).open(path)?;
        let len = usize::try_from(file.metadata()?.len())?;
        let mapping = Mapping::shared(&file, 0, len, *writable)?;
        mapping.touch();
        let pinned = if *writable {
            Access::READ_WRITE
        } else {
            Access::READ
        };
        let access = if *on_demand {
            pinned.on_demand()
        } else {
            pinned
        };
        let region = Region::register(&self.domain, &mapping, 0..len, access)?;
        let window = Window {
            addr: region.addr(),
            rkey: region.rkey(),
            len,
        };
        self.region = Some(region);
        Ok(window)
    }

    fn connect(&mut self, peer: &Endpoint) -> Result<Endpoint> {
        let mut connection = QueuePair::new(&self.domain)?;
        connection.connect(peer)?;
        let endpoint = connection.endpoint();
        self.connection = Some(connection);
        Ok(endpoint)
    }

    fn deregister(&mut self) -> Result<()> {
        match self.region.take() {
            Some(region) => Ok(region.deregister()?),
            None => bail!("nothing is registered"),
        }
    }
}
