//! How large the folios of a file are, as the kernel shows it to root.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};
use longpin_tests::PAGE;
use longpin_tests::mapping::Mapping;

/// So many pages of a file are looked at.
const SAMPLE: u64 = 4096;
/// Bits of `/proc/kpageflags`.
const TAIL: u64 = 1 << 16;
/// Bits of `/proc/self/pagemap` that are a page frame number.
const FRAME: u64 = (1 << 55) - 1;

/// Pages in a folio, on average, of a file that is all in memory.
pub(crate) fn mean_pages(file: &File, size: u64) -> Result<u64> {
    let pages = SAMPLE.min(size / PAGE as u64).max(1);
    let mapping = Mapping::shared(file, 0, usize::try_from(pages)? * PAGE, true)?;
    mapping.touch();
    let pagemap = File::open("/proc/self/pagemap")?;
    let flags = File::open("/proc/kpageflags").context("/proc/kpageflags")?;
    let first = mapping.addr() as u64 / PAGE as u64;
    let mut folios = 0;
    for page in first..first + pages {
        let frame = word(&pagemap, page)? & FRAME;
        folios += u64::from(word(&flags, frame)? & TAIL == 0);
    }
    Ok(pages / folios.max(1))
}

fn word(file: &File, at: u64) -> Result<u64> {
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, at * 8)?;
    Ok(u64::from_ne_bytes(bytes))
}
