//! Level swapfile for a registration, under a guard of level layout: a hold is taken first, or nothing is registered.

use std::os::unix::fs::FileExt;

use anyhow::{Result, ensure};
use longpin::fixed_buffer::FixedBuffer;
use longpin::plan::{Level, Wish};
use longpin::registration::{ProtectionState, RegisterOptions};
use longpin_tests::act::{Outcome, ftruncate};
use longpin_tests::scratch::FsKind;
use rustix::io::Errno;
use serde_json::Value;

use crate::files::TestFile;
use crate::guard;
use crate::pin::{must_allow, must_refuse};

const LEN: u64 = 1 << 20;

const STRICT: RegisterOptions = RegisterOptions {
    wish: Wish::Pin,
    level: Level::Swapfile,
    map_sync: false,
    require_hold: true,
    trial: None,
};

fn write(file: &TestFile) -> Outcome {
    let bytes = file.pattern.page(0);
    let written = file.file.write_all_at(&bytes, 0);
    written.map_err(|err| Errno::from_io_error(&err).unwrap_or(Errno::IO))
}

/// `ls` shows the pin and the hold that was taken for it.
fn must_be_listed(file: &TestFile) -> Result<()> {
    let rows = guard::holds_on(&file.path)?;
    let of = |kind: &str| rows.iter().filter(|row| row["kind"] == kind).count();
    let strict = |row: &Value| row["kind"] == "explicit" && row["level"] == "swapfile";
    let listed = of("explicit") == 1 && of("pin") == 1 && rows.iter().any(strict);
    ensure!(listed, "listed: {rows:?}");
    Ok(())
}

pub(crate) fn plan_level_ring() -> Result<()> {
    guard::on()?;
    let file = TestFile::new(FsKind::Tmpfs, LEN)?;
    let mut buffer = FixedBuffer::register_with(&file.file, 0..LEN, &STRICT)?;
    let found = buffer.hold().state()?;
    ensure!(matches!(found, ProtectionState::Held { .. }), "{found:?}");
    must_be_listed(&file)?;
    must_refuse("write", write(&file))?;
    must_refuse("ftruncate", ftruncate(&file.file, LEN))?;
    let other = TestFile::new(FsKind::Ext4, 8192)?;
    buffer.read_from(0..4096, &other.file, 4096)?;
    let seen = buffer.memory().copy_out(0..4096).unwrap_or_default();
    other.check(1, &seen)?;
    buffer.unregister()?;
    must_allow("write afterwards", write(&file))?;
    ensure!(guard::status()?["strict"] == false, "its programs are left");
    Ok(())
}

#[cfg(feature = "rdma")]
pub(crate) use with_rdma::{plan_level_pin, plan_level_refused};

#[cfg(feature = "rdma")]
mod with_rdma {
    use anyhow::{Context as _, bail};
    use longpin_rdma::{Access, Context, MemoryRegion, RegisterError};
    use longpin_tests::act::punch;

    use super::super::ground::Left;
    use super::super::region::{Net, protection};
    use super::*;

    pub(crate) fn plan_level_pin() -> Result<()> {
        guard::on()?;
        let mut net = Net::new()?;
        for kind in [FsKind::Ext4, FsKind::Xfs, FsKind::Tmpfs] {
            let file = TestFile::new(kind, LEN)?;
            let (domain, range) = (&net.domain, 0..LEN);
            let access = Access::READ;
            let made = MemoryRegion::register_with(domain, &file.file, range, access, &STRICT);
            let region = made.context(kind.name())?;
            let found = protection(&region)?;
            ensure!(matches!(found, ProtectionState::Held { .. }), "{found:?}");
            must_be_listed(&file)?;
            must_refuse("write", write(&file))?;
            must_refuse("ftruncate", ftruncate(&file.file, LEN))?;
            let seen = net.ends.0.read(region.address(), region.rkey(), 65536)?;
            file.check(0, &seen)?;
            region.deregister()?;
            must_allow("write afterwards", write(&file))?;
            ensure!(guard::status()?["strict"] == false, "its programs are left");
        }
        Ok(())
    }

    /// Nothing is registered, mapped or held.
    pub(crate) fn plan_level_refused() -> Result<()> {
        guard::on()?;
        let domain = Context::open("rxe0")?.protection_domain()?;
        longpin_rdma::kernel_rules(&domain)?;
        let register = |file: &TestFile| {
            let (file, access) = (&file.file, Access::READ);
            MemoryRegion::register_with(&domain, file, 0..LEN, access, &STRICT)
        };
        let copied = TestFile::new(FsKind::Btrfs, LEN)?;
        let holed = TestFile::new(FsKind::Ext4, LEN)?;
        punch(&holed.file, 4096, 4096)?;
        let left = Left::count()?;
        for (file, words) in [
            (&copied, ["copy-on-write", "level-layout"]),
            (&holed, ["file-unfit", "hole"]),
        ] {
            let Err(err) = register(file) else {
                bail!("{words:?}: registered")
            };
            let said = err.to_string();
            let all = words.iter().all(|word| said.contains(word));
            ensure!(all, "no {words:?} in: {said}");
        }
        let held = TestFile::new(FsKind::Ext4, LEN)?;
        let holder = crate::hold::Holder::start(&[], &held.path)?;
        match register(&held) {
            Err(RegisterError::Level(why)) => {
                let said = why.to_string();
                ensure!(said.contains("held already"), "{said}");
            }
            other => bail!("held by somebody else: {other:?}"),
        }
        holder.end()?;
        must_allow("write afterwards", write(&held))?;
        drop(held);
        left.must_be_all()
    }
}
