//! Which page frames a file has now: the only sure sign that a page is still the file's.

use std::fs::File;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};

use crate::PAGE;
use crate::mapping::Mapping;

/// Bit 63 of an entry of `/proc/PID/pagemap`: the page is in memory.
const PRESENT: u64 = 1 << 63;
/// Its lower bits: the number of the page frame. Zero without CAP_SYS_ADMIN.
const FRAME: u64 = (1 << 55) - 1;

/// The page frame of each page of a range of a file; `None` where the file has no page any more (`SIGBUS` for whoever
/// would touch it).
///
/// Reads pages in that are not there: a page that left the file is seen as another frame, or none. It looks through a
/// mapping of its own, which is gone when it returns.
pub fn frames(file: &impl AsFd, range: &Range<u64>) -> Result<Vec<Option<u64>>> {
    let len = usize::try_from(range.end - range.start)?;
    let mapping = Mapping::shared(file, range.start, len, false).context("cannot map the file")?;
    let all = mapping.populate(0..len).is_ok();
    let mut present = vec![true; len / PAGE];
    if !all {
        for (page, present) in present.iter_mut().enumerate() {
            *present = mapping.populate(page * PAGE..(page + 1) * PAGE).is_ok();
        }
    }
    let entries = read_pagemap(mapping.addr(), len / PAGE)?;
    let found = entries.into_iter().zip(present);
    found
        .map(|(entry, present)| {
            if !present || entry & PRESENT == 0 {
                return Ok(None);
            }
            ensure!(entry & FRAME != 0, "page frame numbers are for root");
            Ok(Some(entry & FRAME))
        })
        .collect()
}

/// Whether a page frame is a part of something larger (`/proc/kpageflags`, COMPOUND_HEAD and COMPOUND_TAIL).
pub fn is_in_large_folio(frame: u64) -> Result<bool> {
    let flags = File::open("/proc/kpageflags").context("cannot open the flags of page frames")?;
    let mut word = [0; 8];
    flags.read_exact_at(&mut word, frame * 8)?;
    Ok(u64::from_le_bytes(word) & (3 << 15) != 0)
}

fn read_pagemap(addr: usize, pages: usize) -> Result<Vec<u64>> {
    let pagemap = File::open("/proc/self/pagemap").context("cannot open the pagemap")?;
    let mut bytes = vec![0; pages * 8];
    let at = u64::try_from(addr / PAGE * 8)?;
    pagemap
        .read_exact_at(&mut bytes, at)
        .context("cannot read the pagemap")?;
    let words = bytes.chunks_exact(8).map(|word| {
        let word = word.try_into().unwrap_or_default();
        u64::from_le_bytes(word)
    });
    Ok(words.collect())
}
