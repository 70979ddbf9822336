//! A log on persistent memory that others read by RDMA: `log DEVICE FILE`. Each line of standard input is a record, stored
//! where the device and the file have it both: no copy, no write(2).
//!
//! Nothing is pinned: the device faults pages in. The file is held as an active swap file is, so that nobody takes it away
//! under the device, or writes into the log. Make it with `longpin prepare FILE --size 1M`, on a file system mounted with
//! `dax=always`.

use std::fs::File;

use anyhow::{Context as _, ensure};
use longpin_rdma::{Access, Context, Level, MemoryRegion, RegisterOptions, Wish};

/// The others read; this process is who writes, so the mapping has to be a writable one.
const ACCESS: Access = Access {
    local_write: true,
    ..Access::READ
};

const HELD: RegisterOptions = RegisterOptions {
    wish: Wish::OnDemand,
    level: Level::Swapfile,
    // The stores that follow need no fsync(2) to be found again.
    map_sync: true,
    require_hold: true,
    trial: None,
};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: log DEVICE FILE";
    let device = arguments.next().context(usage)?;
    let path = arguments.next().context(usage)?;
    let file = File::options().read(true).write(true).open(&path);
    let file = file.context(path)?;
    let len = file.metadata()?.len();

    let domain = Context::open(&device)?.protection_domain()?;
    let region = MemoryRegion::register_with(&domain, &file, 0..len, ACCESS, &HELD)?;
    println!(
        "address {:#x} rkey {} length {len}: {}",
        region.address(),
        region.rkey(),
        region.kind().text()
    );
    let memory = region.memory();
    let all = memory.copy_out(0..region.len()).unwrap_or_default();
    let mut end = all.iter().position(|&byte| byte == 0).unwrap_or(all.len());
    for line in std::io::stdin().lines() {
        let record = line? + "\n";
        let stored = memory.copy_in(end, record.as_bytes());
        ensure!(stored.is_some() && end + record.len() <= all.len(), "full");
        end += record.len();
        println!("{end}");
    }
    Ok(region.deregister()?)
}
