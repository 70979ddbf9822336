//! C13 when the memory itself fails under a pin.
#![allow(unsafe_code, reason = "madvise(2) that breaks memory")]

use anyhow::{Result, ensure};
use longpin_tests::act::{Outcome, punch};
use longpin_tests::mapping::Mapping;
use longpin_tests::scratch::FsKind;
use rustix::io::Errno;

use super::PAGE;
use super::dies::{by_region, by_ring};
use crate::files::TestFile;
use crate::guard;

const LEN: usize = 16_384;

/// A page frame that breaks leaves its file, on file systems with blocks, or stays and gives errors (tmpfs). It
/// stays held, or its loss is reported.
///
/// Fails when `page_removed` is not attached.
pub(super) fn c13_memory_failure() -> Result<()> {
    guard::on()?;
    for kind in [FsKind::Tmpfs, FsKind::Ext4] {
        let pin = if kind.is_memory() { by_ring } else { by_region };
        let f = TestFile::new(kind, LEN as u64)?;
        f.file.sync_all()?;
        let _pin = pin(&f.file)?;
        let mapping = Mapping::shared(&f.file, 0, LEN, true)?;
        mapping.touch();
        let broken = break_first_page(&mapping);
        ensure!(
            [Ok(()), Err(Errno::BUSY)].contains(&broken),
            "{}: MADV_HWPOISON: {broken:?}",
            kind.name()
        );
        drop(mapping);
        if punch(&f.file, 0, PAGE) == Err(Errno::TXTBSY) {
            println!("{}: the page stays the file's ({broken:?})", kind.name());
            continue;
        }
        let events = guard::events_on(&f.path)?;
        ensure!(
            events.iter().any(|event| event["event"] == "broken"),
            "{}: lost in silence: {events:?}",
            kind.name()
        );
        println!("{}: lost, and reported", kind.name());
    }
    Ok(())
}

/// The frame behind the first page of the mapping is out of order from here on.
fn break_first_page(mapping: &Mapping) -> Outcome {
    let address = mapping.addr() as *mut libc::c_void;
    // SAFETY: nobody touches the page afterwards; its frame is not used again.
    let answer = unsafe { libc::madvise(address, 4096, libc::MADV_HWPOISON) };
    if answer == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    Err(Errno::from_io_error(&error).unwrap_or(Errno::IO))
}
