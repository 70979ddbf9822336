//! Two hosts: a server offers files, a client reads and writes them by RDMA READ and WRITE, while on the server everything is
//! done to them that can be. Every byte is accounted for, see [`longpin_tests::history`].

mod account;
mod client;
mod net;
mod round;
mod server;
mod words;

use anyhow::{Result, bail, ensure};
use longpin_tests::PAGE;
use longpin_tests::peer::Peer;
use longpin_tests::rdma::Endpoint;
use longpin_tests::scratch::FsKind;

use crate::claims::Dice;
use crate::{Test, guard};
use account::Account;
use net::{DEVICES, Net};
use round::{Mode, Round, TAIL};
use words::{Reply, Request};

pub(crate) use client::run as act_as_client;
pub(crate) use server::serve as act_as_server;

/// Before the first guard.
pub(crate) const WITHOUT_GUARD: &[Test] = &[("hosts_without_guard", without_guard)];

/// Under guard.
pub(crate) const TESTS: &[Test] = &[("hosts_held", held), ("hosts_on_demand", on_demand)];

/// Under guard, and slow.
pub(crate) const LONG_TESTS: &[Test] = &[("hosts_storm", storm)];

const KINDS: [FsKind; 3] = [FsKind::Tmpfs, FsKind::Ext4, FsKind::Xfs];

/// The two programs.
struct Hosts {
    server: Peer,
    client: Peer,
}

impl Hosts {
    fn new() -> Result<Self> {
        let net = Net::get()?;
        println!("{}", net.in_words());
        let start = |name: &str, at: usize| {
            let mut command = net.program(at == 1)?;
            command.args([crate::child::WORD, name, DEVICES[at]]);
            Peer::start(name, &mut command)
        };
        Ok(Self {
            server: start("hosts-server", 0)?,
            client: start("hosts-client", 1)?,
        })
    }

    /// The client is connected to a new queue pair of the server.
    fn connect(&mut self, endpoint: Endpoint) -> Result<()> {
        match self.server.ask(&Request::Connect(endpoint))? {
            Reply::Connected(theirs) => self.client.tell(&words::Order::Connected(theirs)),
            other => bail!("not connected: {other:?}"),
        }
    }
}

/// A round of everything.
fn play(hosts: &mut Hosts, kind: FsKind, mode: Mode) -> Result<Result<Account, String>> {
    round(hosts, kind, mode, |round| match mode {
        Mode::Unheld => round.cut_and_grow(TAIL),
        _ => round.play(),
    })
}

/// The bytes must have gone over the wire.
fn round(
    hosts: &mut Hosts,
    kind: FsKind,
    mode: Mode,
    play: impl FnOnce(&mut Round<'_>) -> Result<()>,
) -> Result<Result<Account, String>> {
    let before = Net::moved()?;
    let mut round = match Round::begin(hosts, kind, mode)? {
        Ok(round) => round,
        Err(rule) => return Ok(Err(rule)),
    };
    play(&mut round)?;
    let account = round.end()?;
    println!("{kind}, {mode:?}: {account}");
    let after = Net::moved()?;
    let moved = [account.read, account.wrote].map(|pages| pages * PAGE as u64);
    for way in 0..2 {
        let seen = after[way] - before[way];
        ensure!(
            seen >= moved[way],
            "{seen} bytes on the wire of {}",
            moved[way]
        );
    }
    Ok(Ok(account))
}

fn must_be_right(account: &Account) -> Result<()> {
    ensure!(account.is_right(), "{account}");
    ensure!(account.read > 0, "nothing was read");
    Ok(())
}

/// Pinned and held: what would take pages away is refused, and no transfer fails.
fn held() -> Result<()> {
    guard::on()?;
    let mut hosts = Hosts::new()?;
    for kind in KINDS {
        let account = play(&mut hosts, kind, Mode::Held)?.map_err(anyhow::Error::msg)?;
        must_be_right(&account)?;
        ensure!(account.failed == 0 && account.refused == 3, "{account}");
        ensure!(
            account.wrote > 0 || !kind.is_memory(),
            "nothing was written"
        );
    }
    Ok(())
}

/// On demand: everything is allowed, the device sees it at once, and who reaches behind the end is told.
fn on_demand() -> Result<()> {
    guard::on()?;
    let mut hosts = Hosts::new()?;
    let faults = longpin_rdma::Context::open(DEVICES[0])?
        .capabilities()?
        .on_demand;
    for kind in KINDS {
        let account = match play(&mut hosts, kind, Mode::OnDemand)? {
            Ok(account) => account,
            Err(rule) => {
                ensure!(!faults && rule == "device-cannot-fault", "{rule}");
                return crate::report::skip(crate::plan::NO_PAGING);
            }
        };
        ensure!(faults, "on demand on a device that cannot fault");
        must_be_right(&account)?;
        ensure!(account.failed > 0, "nobody was told: {account}");
        ensure!(account.wrote > 0, "nothing was written");
    }
    Ok(())
}

/// Operations by chance, over any pages.
fn storm() -> Result<()> {
    guard::on()?;
    let mut hosts = Hosts::new()?;
    let mut dice = Dice(11);
    for kind in KINDS {
        for mode in [Mode::Held, Mode::OnDemand] {
            match round(&mut hosts, kind, mode, |it| it.storm(&mut dice, 60))? {
                Ok(account) => must_be_right(&account)?,
                Err(rule) => {
                    ensure!(rule == "device-cannot-fault", "{rule}");
                    crate::report::skip_part("on-demand", crate::plan::NO_PAGING);
                }
            }
        }
    }
    Ok(())
}

/// The same eyes without the guard: a cut file's pages are still read, and what is written there is lost.
fn without_guard() -> Result<()> {
    guard::off()?;
    let mut hosts = Hosts::new()?;
    for kind in KINDS {
        let account = play(&mut hosts, kind, Mode::Unheld)?.map_err(anyhow::Error::msg)?;
        let (stale, lost) = (account.stale("the client"), account.stale("the file"));
        ensure!(stale > 0, "no stale byte was seen: {account}");
        ensure!(
            lost > 0 || !kind.is_memory(),
            "no lost write was seen: {account}"
        );
    }
    Ok(())
}
