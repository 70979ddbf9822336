//! Offers a file to be read by RDMA: `weights DEVICE FILE`. Prints what the other end needs, and keeps it until standard
//! input ends.

use std::fs::File;

use anyhow::Context as _;
use longpin_rdma::{Access, Context, Kind, MemoryRegion};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: weights DEVICE FILE";
    let device = arguments.next().context(usage)?;
    let path = arguments.next().context(usage)?;
    // For writing, too: before Linux 6.2 a pin needs that even for a device that only reads.
    let file = File::options().read(true).write(true).open(&path);
    let file = file.or_else(|_| File::open(&path)).context(path)?;
    let len = file.metadata()?.len();

    let domain = Context::open(&device)?.protection_domain()?;
    let region = MemoryRegion::register(&domain, &file, 0..len, Access::READ)?;
    if let Kind::OnDemand = region.kind() {
        // Not needed; the first reader waits less.
        let _ = region.prefetch(0..region.len(), false);
    }
    println!(
        "address {:#x} rkey {:#x} length {}: {}",
        region.address(),
        region.rkey(),
        region.len(),
        region.kind().text()
    );
    std::io::stdin().lines().for_each(drop);
    Ok(region.deregister()?)
}
