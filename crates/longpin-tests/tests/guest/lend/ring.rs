//! Door 3 for io_uring: fixed buffers of a lent range. Linux 6.1 has a rule of its own against all files but those in memory.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Result, ensure};
use longpin_linux::FixedBuffer;
use longpin_linux::fixed_buffer::{PinnedMemory, RegisterError};
use longpin_tests::PAGE;
use longpin_tests::mapping::Mapping;
use longpin_tests::pattern::Pattern;
use longpin_tests::scratch::FsKind;
use rustix::fs::MemfdFlags;

use super::ground::{Field, Held, LEN, REGISTRABLE};
use crate::report;

/// Why there is nothing to see on 6.1; that it refuses was asserted.
pub(super) const OWN_RULE: &str = "io_uring takes no buffer of a DAX file, lent or not";

pub(super) fn main() -> Result<()> {
    Field::on_each(main_on)?;
    if has_own_rule()? {
        return report::skip(OWN_RULE);
    }
    Ok(())
}

/// 6.1 looks at the file before it pins, and takes no memory of one on a disk: not even a private copy of this program.
pub(super) fn has_own_rule() -> Result<bool> {
    let program = File::open(std::env::current_exe()?)?;
    let copy = Mapping::private(&program, 0, PAGE)?;
    match FixedBuffer::register_memory(copy.addr(), copy.len()) {
        Err(RegisterError::NotPinnable(err)) if err.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            Ok(true)
        }
        other => Ok(other.map(|_| false)?),
    }
}

fn main_on(kind: FsKind) -> Result<()> {
    let field = Field::guarded(kind)?;
    let mut held = field.held("lent")?;
    let mapping = Mapping::shared(held.file()?, 0, LEN, true)?;
    must_not_register("held alone", &mapping)?;
    let lend = held.lend(REGISTRABLE, &[])?;
    if has_own_rule()? {
        must_not_register("lent, by io_uring's own rule", &mapping)?;
        held.close_file();
        drop((mapping, lend));
        return held.must_be_free("refused");
    }
    let mut ring = register(&mapping)?;
    traffic(&mut ring, &mut held, 2)?;
    held.must_be_refused("registered")?;
    held.close_file();
    held.close_token();
    mapping.leave_file()?;
    drop(lend);
    held.must_stay_refused("only the ring left")?;
    held.must_be_refused("only the ring left")?;
    traffic(&mut ring, &mut held, 3)?;
    ring.unregister()?;
    held.must_be_free("unregistered")
}

pub(super) fn register(mapping: &Mapping) -> Result<PinnedMemory> {
    Ok(FixedBuffer::register_memory(mapping.addr(), mapping.len())?)
}

fn must_not_register(what: &str, mapping: &Mapping) -> Result<()> {
    match FixedBuffer::register_memory(mapping.addr(), mapping.len()) {
        Err(RegisterError::NotPinnable(err)) => {
            let errno = err.raw_os_error();
            ensure!(errno == Some(libc::EOPNOTSUPP), "{what}: {err}");
            Ok(())
        }
        other => anyhow::bail!("{what}: {other:?}"),
    }
}

/// All of it goes out of the file; and a page goes into it.
pub(super) fn traffic(ring: &mut PinnedMemory, held: &mut Held, seed: u64) -> Result<()> {
    must_read(ring, held)?;
    let page = LEN / PAGE - 1;
    let bytes = Pattern::new(seed).page(page as u64);
    let source = File::from(rustix::fs::memfd_create("source", MemfdFlags::CLOEXEC)?);
    source.write_all_at(&bytes, 0)?;
    ring.read_from(page * PAGE..LEN, &source, 0)?;
    held.note(page, &bytes);
    must_read(ring, held)?;
    held.check()
}

pub(super) fn must_read(ring: &mut PinnedMemory, held: &Held) -> Result<()> {
    let seen = ring.read_as_device()?;
    held.must_be("the ring reads", 0, &seen)
}
