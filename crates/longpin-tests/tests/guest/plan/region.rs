//! Regions that follow the plan, with real bytes.

use std::fs::File;

use anyhow::{Context, Result, ensure};
use longpin_rdma::{
    Access, Kind, Level, MemoryRegion, PrefetchError, ProtectionDomain, ProtectionState,
    RegisterError, RegisterOptions, Wish,
};
use longpin_tests::act::{ftruncate, punch, truncate};
use longpin_tests::rdma::{Device, QueuePair, loopback};
use longpin_tests::scratch::FsKind;

use crate::files::TestFile;
use crate::guard;
use crate::pin::{must_allow, must_allow_soon, must_refuse};

const MIB: u64 = 1 << 20;
/// Not from the beginning, and to the end of the file, which is no page's.
const LEN: u64 = 2 * MIB + 100;
const START: u64 = MIB;

const PIN: RegisterOptions = RegisterOptions {
    wish: Wish::Pin,
    level: Level::Layout,
    map_sync: false,
    require_hold: true,
    trial: None,
};

/// A device, and a connection to itself.
pub(super) struct Net {
    pub(super) domain: ProtectionDomain,
    pub(super) ends: (QueuePair, QueuePair),
}

impl Net {
    pub(super) fn new() -> Result<Self> {
        let theirs = Device::open("rxe0")?.protection_domain()?;
        Ok(Self {
            domain: theirs.for_longpin()?,
            ends: loopback(&theirs)?,
        })
    }

    /// The other end reads all of the region: the file's bytes.
    fn must_read(&mut self, region: &MemoryRegion, file: &TestFile) -> Result<()> {
        let seen = self
            .ends
            .0
            .read(region.address(), region.rkey(), region.len())?;
        file.check(START / 4096, &seen)
    }
}

pub(super) fn protection(region: &MemoryRegion) -> Result<ProtectionState> {
    let hold = region.kind().hold().context("nobody holds it")?;
    Ok(hold.state()?)
}

/// Held as long as the region, and no longer.
pub(crate) fn plan_region_pinned() -> Result<()> {
    guard::on()?;
    let mut net = Net::new()?;
    for kind in [FsKind::Tmpfs, FsKind::Ext4, FsKind::Xfs] {
        let file = TestFile::new(kind, LEN)?;
        let (domain, range) = (&net.domain, START..LEN);
        let region = MemoryRegion::register_with(domain, &file.file, range, Access::READ, &PIN)?;
        let found = protection(&region)?;
        ensure!(
            matches!(found, ProtectionState::Held { .. }),
            "{}: {found:?}",
            kind.name()
        );
        net.must_read(&region, &file)?;
        must_refuse("truncate", ftruncate(&file.file, START))?;
        must_refuse("punch", punch(&file.file, START, 4096))?;
        net.must_read(&region, &file)?;
        region.deregister()?;
        must_allow_soon("truncate", || ftruncate(&file.file, START))?;
    }
    writes_arrive(&mut net)
}

/// What the other end writes is in the file.
fn writes_arrive(net: &mut Net) -> Result<()> {
    let file = TestFile::new(FsKind::Tmpfs, LEN)?;
    let (domain, range) = (&net.domain, START..2 * MIB);
    let access = Access::READ_WRITE;
    let region = MemoryRegion::register_with(domain, &file.file, range, access, &PIN)?;
    let bytes = vec![0x5a; 8192];
    net.ends
        .0
        .write(region.address() + 4096, region.rkey(), &bytes)?;
    region.deregister()?;
    let mut found = vec![0; bytes.len()];
    std::os::unix::fs::FileExt::read_exact_at(&file.file, &mut found, START + 4096)?;
    ensure!(
        found == bytes,
        "the file has other bytes than the other end wrote"
    );
    Ok(())
}

/// Mapping, file and domain may go first; the region works on, and ends.
pub(crate) fn plan_region_drop_order() -> Result<()> {
    guard::on()?;
    let theirs = Device::open("rxe0")?.protection_domain()?;
    let mut ends = loopback(&theirs)?;
    let file = TestFile::new(FsKind::Ext4, LEN)?;
    let domain = theirs.for_longpin()?;
    let region = {
        let opened = File::options().read(true).write(true).open(&file.path)?;
        MemoryRegion::register_with(&domain, &opened, START..LEN, Access::READ, &PIN)?
    };
    let memory = region.memory().clone();
    drop((domain, theirs));
    let seen = ends.0.read(region.address(), region.rkey(), region.len())?;
    file.check(START / 4096, &seen)?;
    must_refuse("truncate", truncate(&file.path, 0))?;
    // In another thread, and without a word.
    std::thread::spawn(move || drop(region))
        .join()
        .map_err(|_| anyhow::anyhow!("the drop panicked"))?;
    must_allow_soon("truncate", || truncate(&file.path, LEN - 200))?;
    let seen = memory.copy_out(0..4096);
    file.check(START / 4096, &seen.unwrap_or_default())
}

/// On demand: the file stays free, and the other end sees what the file has become.
pub(crate) fn plan_region_on_demand() -> Result<()> {
    let mut net = Net::new()?;
    let on_demand = RegisterOptions {
        wish: Wish::OnDemand,
        ..RegisterOptions::default()
    };
    let file = TestFile::new(FsKind::Ext4, LEN)?;
    let (domain, range) = (&net.domain, START..LEN);
    let made = MemoryRegion::register_with(domain, &file.file, range, Access::READ, &on_demand);
    if !net.domain.capabilities()?.on_demand {
        let err = made.err();
        let rule = err.as_ref().and_then(RegisterError::rule);
        let rule = rule.map(longpin_rdma::Rule::as_str);
        ensure!(rule == Some("device-cannot-fault"), "{err:?}");
        return crate::report::skip(super::NO_PAGING);
    }
    guard::on()?;
    let region = made?;
    ensure!(
        matches!(region.kind(), Kind::OnDemand),
        "{:?}",
        region.kind()
    );
    match region.prefetch(0..region.len(), false) {
        Err(PrefetchError::Unsupported) => {
            println!("rxe0 takes no advice for a region that it only reads");
        }
        other => other?,
    }
    ensure!(
        region.prefetch(0..region.len() + 1, false).is_err(),
        "too long"
    );
    net.must_read(&region, &file)?;
    must_allow("punch", punch(&file.file, START, 8192))?;
    let seen = net.ends.0.read(region.address(), region.rkey(), 12288)?;
    ensure!(
        seen[..8192].iter().all(|&byte| byte == 0),
        "no hole is seen"
    );
    file.check(START / 4096 + 2, &seen[8192..])?;
    must_allow("truncate", truncate(&file.path, START))?;
    let gone = net.ends.0.read(region.address(), region.rkey(), 4096);
    let refused = gone.err().is_some_and(|err| err.is_remote_refusal());
    ensure!(refused, "the other end reads behind the end of the file");
    region.deregister()?;
    Ok(())
}

/// Without a guard: a pin that says that nobody protects it, or none where a hold is required.
pub(crate) fn plan_unheld() -> Result<()> {
    guard::off()?;
    let net = Net::new()?;
    let file = TestFile::new(FsKind::Ext4, LEN)?;
    let range = START..LEN;
    let only_pin = RegisterOptions {
        require_hold: false,
        ..PIN
    };
    let (domain, access) = (&net.domain, Access::READ);
    let register =
        |options| MemoryRegion::register_with(domain, &file.file, range.clone(), access, options);
    let region = register(&only_pin)?;
    let found = protection(&region)?;
    ensure!(
        matches!(&found, ProtectionState::None { why } if why.contains("not running")),
        "{found:?}"
    );
    region.deregister()?;
    match register(&PIN) {
        Err(RegisterError::NotHeld { .. }) => {}
        other => anyhow::bail!("a hold was required: {other:?}"),
    }
    must_allow("truncate", ftruncate(&file.file, 0))
}
