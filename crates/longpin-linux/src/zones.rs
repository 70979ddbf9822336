//! Where in physical memory pages lie: `/proc/zoneinfo` and `/proc/self/pagemap`.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use rustix::param::page_size;
use rustix::thread::CapabilitySet;

use crate::memory::DeviceMemory;
use crate::pseudo;

/// Bit 63 of a pagemap entry: the page is in memory.
const PRESENT: u64 = 1 << 63;
/// The bits of a pagemap entry that are the frame's number.
const FRAME: u64 = (1 << 55) - 1;

/// The zones in which nothing may be pinned for long.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Zones {
    movable: Vec<Range<u64>>,
    movable_pages: u64,
}

/// Read `/proc/zoneinfo`.
///
/// # Errors
///
/// The file cannot be read.
pub fn read() -> io::Result<Zones> {
    let text = pseudo::must_read("/proc/zoneinfo")?;
    parse(&text).ok_or_else(|| io::Error::other("/proc/zoneinfo names no zone"))
}

fn parse(text: &str) -> Option<Zones> {
    let mut zones = Zones::default();
    let (mut is_movable, mut spanned, mut count) = (false, 0, 0);
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = words.get(1).and_then(|word| word.parse::<u64>().ok());
        match (words.first(), number) {
            (Some(&"Node"), _) => {
                is_movable = words.last() == Some(&"Movable");
                count += 1;
            }
            (Some(&"spanned"), Some(pages)) => spanned = pages,
            (Some(&"present"), Some(pages)) if is_movable => zones.movable_pages += pages,
            (Some(&"start_pfn:"), Some(first)) if is_movable => {
                zones.movable.push(first..first + spanned);
            }
            _ => {}
        }
    }
    (count > 0).then_some(zones)
}

/// `CmaTotal` and `CmaFree` of `/proc/meminfo`, the larger one, in bytes: memory that was made CMA otherwise (kexec
/// handover's) is in the second only. 0 on a kernel without CMA.
///
/// # Errors
///
/// The file cannot be read, or tells nothing.
pub fn cma_bytes() -> io::Result<u64> {
    let text = pseudo::must_read("/proc/meminfo")?;
    kilobytes(&text, "MemTotal:").ok_or_else(|| io::Error::other("/proc/meminfo tells nothing"))?;
    let known = ["CmaTotal:", "CmaFree:"].map(|name| kilobytes(&text, name).unwrap_or(0));
    Ok(known[0].max(known[1]).saturating_mul(1024))
}

fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Whether `/proc/self/pagemap` tells this process the numbers of frames.
///
/// # Errors
///
/// The kernel does not tell the capabilities.
pub fn may_see_frames() -> io::Result<bool> {
    let held = rustix::thread::capabilities(None)?.effective;
    Ok(held.contains(CapabilitySet::SYS_ADMIN))
}

impl Zones {
    /// Memory in ZONE_MOVABLE.
    #[must_use]
    pub fn movable_bytes(&self) -> u64 {
        self.movable_pages * page_size() as u64
    }

    /// How many pages of these runs lie in ZONE_MOVABLE. They are mapped for it; a page that goes meanwhile is not
    /// counted.
    ///
    /// # Errors
    ///
    /// `/proc/self/pagemap` cannot be read.
    pub fn count_movable(&self, memory: &DeviceMemory, runs: &[Range<usize>]) -> io::Result<u64> {
        let pagemap = File::open("/proc/self/pagemap")?;
        let mut count = 0;
        for run in runs {
            // Truncated meanwhile: then the pages are not present below.
            let _ = memory.populate(run.start * page_size()..run.end * page_size());
            let mut entries = vec![0; run.len() * 8];
            let first = memory.address() / page_size() + run.start;
            pagemap.read_exact_at(&mut entries, first as u64 * 8)?;
            let words = entries
                .chunks_exact(8)
                .filter_map(|word| word.try_into().ok());
            let is_there = |word: &[u8; 8]| self.is_movable(u64::from_ne_bytes(*word));
            count += words.filter(is_there).count() as u64;
        }
        Ok(count)
    }

    fn is_movable(&self, entry: u64) -> bool {
        let frame = entry & FRAME;
        entry & PRESENT != 0 && self.movable.iter().any(|zone| zone.contains(&frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_movable_zone_counts() {
        let text = "Node 0, zone   Normal\n  pages free 1\n        spanned  1024\n        present  1000\n  \
                    start_pfn:           4096\nNode 0, zone  Movable\n        spanned  512\n        present  \
                    500\n  start_pfn:           8192\n";
        let zones = parse(text).unwrap();
        assert_eq!(parse(""), None);
        let text = "CmaTotal:              0 kB\nCmaFree:         9300000 kB\n";
        assert_eq!(kilobytes(text, "CmaFree:"), Some(9_300_000));
        assert_eq!(kilobytes(text, "MemTotal:"), None);
        assert_eq!(zones.movable_bytes(), 500 * 4096);
        assert!(zones.is_movable(PRESENT | 8192));
        assert!(zones.is_movable(PRESENT | 8703));
        assert!(!zones.is_movable(PRESENT | 8704));
        assert!(!zones.is_movable(PRESENT | 4096));
        assert!(!zones.is_movable(8192), "not in memory");
    }
}
