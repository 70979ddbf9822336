//! Whether what the device reads is the file.

use std::fmt;

use longpin_tests::PAGE;
use sha2::{Digest, Sha256};

/// A comparison, page by page, of what the client read with what the file holds now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Pages that the client read.
    pub(crate) pages: usize,
    /// Those that hold what the file held before, and not what it holds now.
    pub(crate) stale: usize,
    /// Those that are all zeroes, where the file is not: a truncate zeroes the rest of a large folio that it cuts.
    pub(crate) zeroed: usize,
    /// Those that hold anything else.
    pub(crate) foreign: usize,
}

impl Seen {
    /// Compares what was read with the file now, and with what it was before. Behind the end of the file nothing is its.
    pub(crate) fn compare(read: &[u8], now: &[u8], before: &[u8]) -> Self {
        let mut seen = Self {
            pages: read.len().div_ceil(PAGE),
            stale: 0,
            zeroed: 0,
            foreign: 0,
        };
        for (index, page) in read.chunks(PAGE).enumerate() {
            let holds = |file: &[u8]| file.chunks(PAGE).nth(index) == Some(page);
            match () {
                () if holds(now) => {}
                () if holds(before) => seen.stale += 1,
                () if page.iter().all(|byte| *byte == 0) => seen.zeroed += 1,
                () => seen.foreign += 1,
            }
        }
        seen
    }

    /// Whether all of it is the file.
    pub(crate) const fn is_the_file(self) -> bool {
        self.lost() == 0
    }

    /// The pages that are not the file's.
    pub(crate) const fn lost(self) -> usize {
        self.stale + self.zeroed + self.foreign
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_the_file() {
            return write!(f, "all {} pages are the file's", self.pages);
        }
        write!(
            f,
            "{} of {} pages are not the file's",
            self.lost(),
            self.pages
        )?;
        let kinds = [
            (self.stale, "from before"),
            (self.zeroed, "zeroed"),
            (self.foreign, "of neither"),
        ];
        let there = kinds.iter().filter(|(count, _)| *count > 0);
        let words: Vec<_> = there
            .map(|(count, kind)| format!("{count} {kind}"))
            .collect();
        write!(f, " ({})", words.join(", "))
    }
}

/// The first twelve digits of a SHA-256, enough to tell two contents apart by eye.
pub(crate) fn checksum(data: &[u8]) -> String {
    let digest = Sha256::digest(data);
    digest
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_the_pages_apart() {
        let page = |byte| vec![byte; PAGE];
        let (now, before) = ([page(1), page(2)].concat(), vec![3; 4 * PAGE]);
        let read = [page(1), page(3), page(0), page(9)].concat();
        let seen = Seen::compare(&read, &now, &before);
        assert_eq!((seen.stale, seen.zeroed, seen.foreign), (1, 1, 1));
        assert_eq!(
            seen.to_string(),
            "3 of 4 pages are not the file's (1 from before, 1 zeroed, 1 of neither)"
        );
        assert!(!seen.is_the_file());
        assert!(Seen::compare(&now, &now, &before).is_the_file());
    }

    #[test]
    fn the_checksum_is_sha256() {
        assert_eq!(checksum(b"abc"), "ba7816bf8f01");
    }
}
