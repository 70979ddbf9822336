//! Door 3: registrations of a lent range pass, and of nothing else. Soft-RoCE reads and writes it.

use std::fs::File;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use longpin_tests::PAGE;
use longpin_tests::act::{errno_name, truncate};
use longpin_tests::lend::{Lend, abi};
use longpin_tests::mapping::Mapping;
use longpin_tests::operations::clone_range;
use longpin_tests::pattern::Pattern;
use longpin_tests::rdma::{Access, Device, ProtectionDomain, QueuePair, Region, loopback};
use longpin_tests::scratch::FsKind;
use rustix::io::Errno;

use super::force::Waiter;
use super::ground::{Field, Held, LEN, ORDERS, Part, REGISTRABLE, waits_unmapped};
use crate::pin::must_refuse;
use crate::{child, guard, report};

/// A connection to itself.
pub(super) struct Net {
    pub(super) domain: ProtectionDomain,
    ends: (QueuePair, QueuePair),
}

impl Net {
    pub(super) fn new() -> Result<Self> {
        let domain = Device::open("rxe0")?.protection_domain()?;
        let ends = loopback(&domain)?;
        Ok(Self { domain, ends })
    }

    pub(super) fn register(&self, mapping: &Mapping) -> Result<Region> {
        let all = 0..mapping.len();
        Ok(Region::register(
            &self.domain,
            mapping,
            all,
            Access::READ_WRITE,
        )?)
    }

    /// The other end reads all of it: the file.
    pub(super) fn must_read(&mut self, region: &Region, held: &Held) -> Result<()> {
        let seen = self
            .ends
            .0
            .read(region.addr(), region.rkey(), region.len())?;
        held.must_be("the other end reads", 0, &seen)
    }

    /// And what it writes is in the file.
    fn traffic(&mut self, region: &Region, held: &mut Held, seed: u64) -> Result<()> {
        self.must_read(region, held)?;
        for page in [1, LEN / PAGE - 1] {
            let bytes = Pattern::new(seed).page(page as u64);
            let to = region.addr() + (page * PAGE) as u64;
            self.ends.0.write(to, region.rkey(), &bytes)?;
            held.note(page, &bytes);
        }
        // It has arrived when a later read is answered.
        self.ends.0.read(region.addr(), region.rkey(), PAGE)?;
        held.check()
    }

    /// The kernel refuses, as without the module.
    fn must_not_register(&self, what: &str, mapping: &Mapping, len: usize) -> Result<()> {
        self.must_not_register_for(Access::READ_WRITE, what, mapping, len)
    }

    fn must_not_register_for(
        &self,
        access: Access,
        what: &str,
        mapping: &Mapping,
        len: usize,
    ) -> Result<()> {
        let answer = Region::register(&self.domain, mapping, 0..len, access);
        let errno = answer.map(drop).err().map(|err| err.errno);
        ensure!(
            errno == Some(Errno::OPNOTSUPP),
            "{what}: {}",
            errno.map_or_else(|| "registered".to_owned(), errno_name)
        );
        Ok(())
    }
}

pub(super) fn main() -> Result<()> {
    Field::on_each(main_on)
}

fn main_on(kind: FsKind) -> Result<()> {
    let field = Field::guarded(kind)?;
    let mut net = Net::new()?;
    let mut held = field.held("lent")?;
    let mapping = Mapping::shared(held.file()?, 0, LEN, true)?;
    net.must_not_register("held alone", &mapping, LEN)?;
    let other_door = held.lend(abi::WRITE, &[])?;
    net.must_not_register("lent, but not for this", &mapping, LEN)?;
    drop(other_door);
    let lend = held.lend(REGISTRABLE, &[])?;
    let region = Region::register(&net.domain, &mapping, 0..LEN, Access::READ)?;
    net.must_read(&region, &held)?;
    region.deregister()?;
    let region = net.register(&mapping)?;
    net.traffic(&region, &mut held, 2)?;
    held.must_be_refused("registered")?;
    net.must_read(&region, &held)?;
    // The region is an orphan: nothing else of the owner is left.
    held.close_file();
    held.close_token();
    mapping.leave_file()?;
    drop(lend);
    held.must_stay_refused("only the region left")?;
    held.must_be_refused("only the region left")?;
    net.traffic(&region, &mut held, 3)?;
    region.deregister()?;
    held.must_be_free("deregistered")
}

/// The owner lets go in one order after the other.
pub(super) fn orders() -> Result<()> {
    for kind in Field::KINDS {
        let field = Field::guarded(kind)?;
        let mut net = Net::new()?;
        for order in ORDERS {
            order_on(&field, &mut net, order).with_context(|| format!("{kind}, {order:?}"))?;
        }
    }
    Ok(())
}

fn order_on(field: &Field, net: &mut Net, order: [Part; 3]) -> Result<()> {
    let mut held = field.held("order")?;
    let mapping = Mapping::shared(held.file()?, 0, LEN, true)?;
    let mut lend = Some(held.lend(REGISTRABLE, &[])?);
    let region = net.register(&mapping)?;
    held.close_file();
    for part in order {
        match part {
            Part::Token => held.close_token(),
            Part::Memory => mapping.leave_file()?,
            Part::Buffer => lend = None,
        }
        must_refuse(&format!("{part:?}"), truncate(&held.path, 4096))?;
    }
    drop(lend);
    held.must_stay_refused("only the region left")?;
    net.must_read(&region, &held)?;
    region.deregister()?;
    held.must_be_free("order")
}

/// Who did not lend it, and what is not lent, is refused as ever.
pub(super) fn others() -> Result<()> {
    let field = Field::guarded(FsKind::Xfs)?;
    let net = Net::new()?;
    let mut held = field.held("lent")?;
    let mapping = Mapping::shared(held.file()?, 0, LEN, true)?;
    let piece = 16 * PAGE;
    let part = held.ask(piece as u64, piece, REGISTRABLE, &[])?;
    let part = part.map_err(|errno| anyhow::anyhow!("LEND: {}", errno_name(errno)))?;
    net.must_not_register("more than is lent", &mapping, 2 * piece)?;
    net.must_not_register("beside what is lent", &mapping, piece)?;
    let inside = Region::register(
        &net.domain,
        &mapping,
        piece + 123..piece + 5123,
        Access::READ,
    );
    inside.context("bytes of what is lent")?.deregister()?;
    drop(part);
    let read_only = held.lend(abi::REGISTER, &[])?;
    net.must_not_register("for writing what is lent for reading", &mapping, LEN)?;
    drop(read_only);
    let lend = held.lend(REGISTRABLE, &[])?;
    let mixed = Mapping::anonymous(LEN)?;
    mixed.replace(0, held.file()?, 0, piece)?;
    net.must_not_register("lent pages beside anonymous ones", &mixed, piece + PAGE)?;
    let unlent = field.file("unlent")?;
    let unlent = File::options().read(true).write(true).open(unlent)?;
    mixed.replace(0, &unlent, 0, piece)?;
    net.must_not_register("a file that is not lent", &mixed, piece)?;
    // From 6.2 to 6.14 a pin that only reads shared pages does not come back: docs/findings.md.
    let shared = field.create("shared")?;
    clone_range(&unlent, &shared, 0, LEN as u64).context("clone")?;
    let only_read = Mapping::shared(&shared, 0, LEN, false)?;
    net.must_not_register_for(Access::READ, "shared blocks", &only_read, LEN)?;
    drop((mixed, unlent, only_read));
    another_process(&held)?;
    held.close_file();
    drop((mapping, lend));
    held.must_be_free("others")
}

/// It inherits the token, so it may map the file; it has lent nothing.
fn another_process(held: &Held) -> Result<()> {
    let output = Command::new(std::env::current_exe()?)
        .args([child::WORD, "lend", "other"])
        .arg(&held.path)
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "another process: {said}");
    Ok(())
}

/// What that process does.
pub(super) fn register_as_other(file: &File) -> Result<()> {
    let mapping = Mapping::shared(file, 0, LEN, true).context("it may not map the file")?;
    Net::new()?.must_not_register("another process", &mapping, LEN)
}

/// Registered, with the file mapped.
fn registered(field: &Field, net: &Net) -> Result<(Held, Mapping, Lend, Region)> {
    let held = field.held("forced")?;
    let mapping = Mapping::shared(held.file()?, 0, LEN, true)?;
    let lend = held.lend(REGISTRABLE, &[])?;
    let region = net.register(&mapping)?;
    Ok((held, mapping, lend, region))
}

/// The guard goes by force: while the program maps the file, the file system waits.
pub(super) fn force() -> Result<()> {
    for kind in Field::KINDS {
        let field = Field::guarded(kind)?;
        let mut net = Net::new()?;
        let (held, mapping, lend, region) = registered(&field, &net)?;
        guard::off()?;
        let path = held.path.to_string_lossy().into_owned();
        Waiter::start(&["truncate", "-s", "4096", &path])?.must_wait_and_end()?;
        let punch = ["fallocate", "-p", "-o", "0", "-l", "8192", &path];
        Waiter::start(&punch)?.must_wait_and_end()?;
        net.must_read(&region, &held)?;
        held.check()?;
        region.deregister()?;
        drop((mapping, lend));
        held.must_be_free("deregistered")?;
    }
    Ok(())
}

/// The guard goes by force when only the region is left: the file system waits since 6.15. Before, nobody waits whom no
/// mapping tells of the device.
pub(super) fn force_orphan() -> Result<()> {
    let field = Field::guarded(FsKind::Xfs)?;
    let mut net = Net::new()?;
    let (mut held, mapping, lend, region) = registered(&field, &net)?;
    held.close_file();
    mapping.leave_file()?;
    drop(lend);
    guard::off()?;
    held.close_token();
    let path = held.path.to_string_lossy().into_owned();
    let truncate = Waiter::start(&["truncate", "-s", "4096", &path])?;
    if !waits_unmapped()? {
        truncate.must_go_through()?;
        region.deregister()?;
        held.must_be_free("deregistered")?;
        return report::skip("the file system waits only while somebody maps the file");
    }
    truncate.must_wait_and_end()?;
    net.must_read(&region, &held)?;
    region.deregister()?;
    held.must_be_free("deregistered")
}
