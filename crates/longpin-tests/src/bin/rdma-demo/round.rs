//! One row of the table: one file system, with or without the guard.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use longpin_tests::pattern::Pattern;
use longpin_tests::rdma::Device;
use longpin_tests::scratch::{FsKind, Scratch, write_pattern};

use crate::client::Client;
use crate::command::{self, Answer};
use crate::compare::{Seen, checksum};
use crate::guard::Guard;
use crate::protocol::{Registration, Window};
use crate::remote::Remote;
use crate::server::NAME;
use crate::show;

/// Length of the file.
const LEN: usize = 4 << 20;
/// What is left of it after the truncate.
const SHORT: usize = 4096;
/// The hole: offset and length, in whole huge pages. A large folio that a hole only cuts stays the file's, zeroed in
/// part, and then the device reads what the file holds.
const HOLE: (usize, usize) = (2 << 20, 2 << 20);

/// Seen with soft-RoCE on Linux 7.2: it forgets the offset inside the page when it copies to or from such a region.
const ODD_PACKETS: &str = "\
the device reads wrong bytes from an on-demand region of an untouched file
hint: soft-RoCE does, in packets that do not start at a page: give its network device room for packets of a page, \
`ip link set dummy0 mtu 9000`, and make the RDMA device anew";

/// What one round found.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) kind: FsKind,
    pub(crate) guarded: bool,
    pub(crate) truncate: Answer,
    pub(crate) after_truncate: Seen,
    pub(crate) punch: Answer,
    pub(crate) after_punch: Seen,
    /// The truncate once nothing is registered.
    pub(crate) released: Answer,
    pub(crate) paging: Paging,
}

/// What came of the registration on demand.
#[derive(Debug)]
pub(crate) enum Paging {
    /// The device has no on-demand paging.
    Unsupported,
    Tried {
        truncate: Answer,
        /// What the client got from the whole region while the file was short.
        short: Short,
        /// What it got when the file had been written anew.
        renewed: Seen,
    },
}

/// What a client gets that reads behind the end of the file.
#[derive(Debug)]
pub(crate) enum Short {
    /// A completion with an error.
    Told,
    /// Data: none of it may be old.
    Read(Seen),
}

/// Plays one round, with a server and a file of its own.
pub(crate) fn play(
    scratch: &Scratch,
    device: (&str, &Device),
    guard: Option<&Guard>,
) -> Result<Row> {
    let kind = scratch.kind();
    let state = if guard.is_some() {
        "guard on"
    } else {
        "no guard"
    };
    show::heading(&format!("{kind}, {state}"))?;
    let mut remote = Remote::start(device.0)?;
    let client = Client::connect(device.1, &mut remote)?;
    let mut round = Round {
        path: scratch.dir().join("weights.bin"),
        writable: kind.is_memory(),
        before: Vec::new(),
        seed: 0,
        client,
        remote,
    };
    let row = round.row(kind, device.1.odp_supported()?, guard)?;
    fs::remove_file(&round.path).context("cannot remove the file")?;
    Ok(row)
}

struct Round {
    path: PathBuf,
    writable: bool,
    /// The file's contents at the last registration.
    before: Vec<u8>,
    seed: u64,
    client: Client,
    remote: Remote,
}

impl Round {
    fn row(&mut self, kind: FsKind, pages_on_demand: bool, guard: Option<&Guard>) -> Result<Row> {
        let mut window = self.offer(false)?;
        if let Some(guard) = guard {
            guard.list()?;
        }
        let truncate = command::truncate(&self.path, SHORT)?;
        if truncate == Answer::Done {
            self.rewrite()?;
        }
        let after_truncate = self.look(window)?;
        if truncate == Answer::Done {
            // The region is of no use any more: the hole needs one that is whole.
            self.remote.deregister()?;
            window = self.offer(false)?;
        }
        let punch = command::punch(&self.path, HOLE.0, HOLE.1)?;
        let after_punch = self.look(window)?;
        show::step(&format!("{NAME} deregisters the file"))?;
        self.remote.deregister()?;
        let released = command::truncate(&self.path, SHORT)?;
        let paging = if pages_on_demand {
            self.page()?
        } else {
            Paging::Unsupported
        };
        Ok(Row {
            kind,
            guarded: guard.is_some(),
            truncate,
            after_truncate,
            punch,
            after_punch,
            released,
            paging,
        })
    }

    /// The same truncate with a region that the device faults in.
    fn page(&mut self) -> Result<Paging> {
        let window = self.offer(true)?;
        let truncate = command::truncate(&self.path, SHORT)?;
        let short = match self.client.read(window) {
            Ok(data) => {
                let seen = Seen::compare(&data, &self.contents()?, &self.before);
                show::step(&format!("the client reads all of the region: {seen}"))?;
                Short::Read(seen)
            }
            Err(error) => {
                show::step(&format!("the client reads all of the region: {error}"))?;
                self.client.reconnect(&mut self.remote)?;
                Short::Told
            }
        };
        self.rewrite()?;
        let renewed = self.look(window)?;
        self.remote.deregister()?;
        Ok(Paging::Tried {
            truncate,
            short,
            renewed,
        })
    }

    /// A fresh file, registered by the server, and read once by the client.
    fn offer(&mut self, on_demand: bool) -> Result<Window> {
        self.write()?;
        self.before = self.contents()?;
        let how = if on_demand {
            "on demand: no pin"
        } else {
            "pinned"
        };
        let pid = self.remote.pid();
        let size = LEN >> 20;
        show::step(&format!(
            "{NAME} (pid {pid}) registers weights.bin, {size} MiB, {how}"
        ))?;
        let window = self.remote.register(Registration {
            path: self.path.clone(),
            writable: self.writable,
            on_demand,
        })?;
        let seen = self.look(window)?;
        ensure!(seen.is_the_file() || !on_demand, ODD_PACKETS);
        ensure!(seen.is_the_file(), "RDMA READ of an untouched file: {seen}");
        Ok(window)
    }

    fn rewrite(&mut self) -> Result<()> {
        show::step("somebody writes new weights into the file")?;
        self.write()
    }

    fn write(&mut self) -> Result<()> {
        self.seed += 1;
        write_pattern(&self.path, LEN, Pattern::new(self.seed))
    }

    /// The client reads, and what it reads is compared with the file.
    fn look(&mut self, window: Window) -> Result<Seen> {
        let read = self.client.read(window)?;
        let now = self.contents()?;
        let seen = Seen::compare(&read, &now, &self.before);
        let (theirs, ours) = (checksum(&now), checksum(&read));
        show::step(&format!(
            "the client reads by RDMA: sha256 {ours}, the file is {theirs}: {seen}"
        ))?;
        Ok(seen)
    }

    fn contents(&self) -> Result<Vec<u8>> {
        fs::read(&self.path).with_context(|| format!("cannot read {}", self.path.display()))
    }
}
