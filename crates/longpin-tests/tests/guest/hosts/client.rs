//! The client: reads and writes what the server offers, one-sided, at random places, and tells what it found when.

use std::io::BufRead;
use std::ops::Range;
use std::sync::mpsc::{self, Receiver, TryRecvError};

use anyhow::{Context, Result, bail};
use longpin_tests::PAGE;
use longpin_tests::history::{Found, Span, now};
use longpin_tests::pattern::Pattern;
use longpin_tests::peer::say;
use longpin_tests::rdma::{CompletionError, Device, ProtectionDomain, QueuePair};

use super::words::{Did, Order, Said, Traffic, Transfer};
use crate::claims::Dice;

/// The pages of the longest transfer.
const LONGEST: u64 = 8;
/// One of so many transfers writes.
const WRITES: u64 = 3;

/// `hosts-client DEVICE`
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let device = arguments.first().context("hosts-client DEVICE")?;
    let domain = Device::open(device)?.protection_domain()?;
    let orders = orders();
    while let Ok(order) = orders.recv() {
        let Order::Begin(traffic) = order else {
            bail!("nothing was begun: {order:?}")
        };
        let mut client = Client {
            connection: connect(&domain, &orders, &mut false)?,
            stopped: false,
            domain: &domain,
            orders: &orders,
            traffic,
            dice: Dice(traffic.generation),
        };
        client.transfer_until_told()?;
        drop(client);
        say(&Said::Stopped)?;
    }
    Ok(())
}

/// The lines of standard input, while the device is waited for.
fn orders() -> Receiver<Order> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let Ok(order) = serde_json::from_str(&line) else {
                return;
            };
            if sender.send(order).is_err() {
                return;
            }
        }
    });
    receiver
}

/// The order to stop may be on its way when it asks: `stopped`.
fn connect(
    domain: &ProtectionDomain,
    orders: &Receiver<Order>,
    stopped: &mut bool,
) -> Result<QueuePair> {
    let mut ours = QueuePair::new(domain)?;
    say(&Said::Connect(ours.endpoint()))?;
    loop {
        match orders.recv()? {
            Order::Connected(theirs) => break ours.connect(&theirs)?,
            Order::Stop => *stopped = true,
            other => bail!("not connected: {other:?}"),
        }
    }
    Ok(ours)
}

struct Client<'a> {
    connection: QueuePair,
    /// It was told to stop while it was connected anew.
    stopped: bool,
    domain: &'a ProtectionDomain,
    orders: &'a Receiver<Order>,
    traffic: Traffic,
    dice: Dice,
}

impl Client<'_> {
    fn transfer_until_told(&mut self) -> Result<()> {
        loop {
            let transfer = self.transfer()?;
            say(&Said::Did(transfer))?;
            if self.stopped {
                return Ok(());
            }
            match self.orders.try_recv() {
                Err(TryRecvError::Empty) => {}
                Ok(Order::Stop) => return Ok(()),
                other => bail!("not stopped: {other:?}"),
            }
        }
    }

    fn transfer(&mut self) -> Result<Transfer> {
        let len = 1 + self.dice.below(LONGEST);
        let first = self.dice.below(self.traffic.window.pages - len + 1);
        let pages = first..first + len;
        let writes = self.traffic.writes && self.dice.below(WRITES) == 0;
        let generation = writes.then_some(self.traffic.generation);
        let bytes = generation.map(|seed| contents(seed, pages.clone()));
        let (span, moved) = Span::of(|| self.move_bytes(&pages, bytes.as_deref()));
        let did = match moved {
            Ok(bytes) => self.read_or_wrote(&pages, &bytes),
            Err(error) => self.recover(&error, generation)?,
        };
        if writes {
            self.traffic.generation += 1;
        }
        Ok(Transfer { span, pages, did })
    }

    fn read_or_wrote(&self, pages: &Range<u64>, bytes: &[u8]) -> Did {
        if bytes.is_empty() {
            return Did::Wrote(self.traffic.generation);
        }
        let found = pages.clone().zip(bytes.chunks(PAGE));
        Did::Read(
            found
                .map(|(index, page)| Found::read(index, page))
                .collect(),
        )
    }

    /// RDMA READ of these pages, or RDMA WRITE of these bytes.
    fn move_bytes(
        &mut self,
        pages: &Range<u64>,
        bytes: Option<&[u8]>,
    ) -> Result<Vec<u8>, CompletionError> {
        let window = self.traffic.window;
        let address = window.address + pages.start * PAGE as u64;
        match bytes {
            Some(bytes) => {
                let written = self.connection.write(address, window.rkey, bytes);
                written.map(|()| Vec::new())
            }
            None => {
                let len = pages.clone().count() * PAGE;
                self.connection.read(address, window.rkey, len)
            }
        }
    }

    /// The connection broke: another one.
    fn recover(&mut self, error: &CompletionError, wrote: Option<u64>) -> Result<Did> {
        self.connection = connect(self.domain, self.orders, &mut self.stopped)?;
        Ok(Did::Failed {
            wrote,
            settled: now(),
            refused: error.is_remote_refusal(),
            error: error.to_string(),
        })
    }
}

fn contents(seed: u64, pages: Range<u64>) -> Vec<u8> {
    let pattern = Pattern::new(seed);
    pages.flat_map(|index| pattern.page(index)).collect()
}
