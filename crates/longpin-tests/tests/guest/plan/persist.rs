//! Two guests, one after the other, with the same persistent memory (`cargo xtask reboot`): the first one is killed.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use longpin_rdma::RegisterOptions;
use longpin_tests::PAGE;
use longpin_tests::pattern::Pattern;
use serde::{Deserialize, Serialize};

use super::dax_ground::{DaxFile, FREE, HELD, LEN, MAKERS, mount};
use super::region::Net;
use super::special::{DaxMount, sh};
use crate::guard;

/// The shell's nothing: what is there is mounted.
const NO_MAKER: &str = ":";

/// What a file must hold: the pattern of this seed.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    seed: u64,
    /// It was mapped with MAP_SYNC, or its blocks were written before: it must be found. Others must be lost.
    must: bool,
}

fn arguments(of: &[String]) -> Result<(usize, &Path)> {
    let [kind, told] = of else {
        anyhow::bail!("ext4|xfs PATH")
    };
    let at = MAKERS
        .iter()
        .position(|maker| maker.contains(kind.as_str()));
    Ok((at.context("ext4 or xfs")?, Path::new(told)))
}

/// `persist-write KIND TOLD`: the client writes files, and what it wrote is told; then it waits for the end of the machine.
pub(crate) fn write(of: &[String]) -> Result<()> {
    let (at, to) = arguments(of)?;
    guard::on()?;
    let mut net = Net::new()?;
    let dax = mount(MAKERS[at])?;
    let sync = |options| RegisterOptions {
        map_sync: true,
        ..options
    };
    let mut regions = Vec::new();
    let mut told = BTreeMap::new();
    let given = DaxFile::unwritten;
    let written = DaxFile::new;
    // What only MAP_SYNC keeps, and what nothing does, come last: soon the kernel would write their blocks down by itself.
    let files = [
        ("held", written(&dax, "held")?, sync(HELD), true),
        ("written", written(&dax, "written")?, FREE, true),
        ("plain", given(&dax, "plain")?, FREE, false),
        ("synchronous", given(&dax, "synchronous")?, sync(FREE), true),
    ];
    for (seed, (name, file, options, must)) in (100_u64..).zip(files) {
        let region = file.register(&net, &options).context(name)?;
        write_all(&mut net, region.address(), region.rkey(), seed).context(name)?;
        told.insert(name, Told { seed, must });
        regions.push((region, file));
    }
    let part = to.with_extension("part");
    std::fs::write(&part, serde_json::to_string(&told)?)?;
    std::fs::rename(part, to)?;
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Every page, not in order; and read back, so that the device has it.
fn write_all(net: &mut Net, address: u64, rkey: u32, seed: u64) -> Result<()> {
    let (pattern, pages) = (Pattern::new(seed), (LEN / PAGE) as u64);
    for number in 0..pages {
        // Odd, so that every page has its turn.
        let page = number * 77 % pages;
        let to = address + page * PAGE as u64;
        net.ends.0.write(to, rkey, &pattern.page(page))?;
    }
    let seen = net.ends.0.read(address, rkey, LEN)?;
    pattern.check(0, &seen).context("read back")
}

/// `persist-read KIND TOLD`: all of it is there, and the file system is whole.
pub(crate) fn read(of: &[String]) -> Result<()> {
    let (at, from) = arguments(of)?;
    let text = std::fs::read_to_string(from)?;
    let told: BTreeMap<String, Told> = serde_json::from_str(&text)?;
    ensure!(!told.is_empty(), "nothing was told");
    let dax = mount(NO_MAKER)?;
    for (name, told) in &told {
        let bytes = std::fs::read(dax.path().join(name)).with_context(|| name.clone())?;
        ensure!(bytes.len() == LEN, "{name} has {} bytes", bytes.len());
        let pattern = Pattern::new(told.seed);
        let pages = (0..).zip(bytes.chunks(PAGE));
        let lost = pages.filter(|(page, found)| pattern.check(*page, found).is_err());
        let lost = lost.count();
        println!("{name}: {lost} of {} pages lost", LEN / PAGE);
        ensure!(lost == 0 || !told.must, "{name}: {lost} pages were lost");
        ensure!(
            lost > 0 || told.must,
            "{name}: nothing was lost: that was no crash"
        );
    }
    check(dax, at)
}

/// By the file system's own checker.
fn check(dax: DaxMount, at: usize) -> Result<()> {
    drop(dax);
    let device = std::env::var("LONGPIN_FSDAX")?;
    let checker = ["e2fsck -fn", "xfs_repair -n"][at];
    sh(&format!("{checker} {device}")).map(drop)
}
