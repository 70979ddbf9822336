//! Contents of which every byte is known: a wrong page tells whose it is.

use std::fmt;

use crate::PAGE;

/// The contents of a file: every page starts with the seed and its own index, and goes on with words made of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pattern {
    /// What distinguishes this content from that of another file, or of the same file earlier.
    pub seed: u64,
}

/// The first page that does not hold what it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// Index of the page in the file.
    pub page: u64,
    /// Number of wrong bytes in this page.
    pub wrong_bytes: usize,
    /// Seed and index that the page claims; `None` when it is all zeroes.
    pub found: Option<(u64, u64)>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            page, wrong_bytes, ..
        } = self;
        write!(f, "page {page} has {wrong_bytes} wrong bytes and ")?;
        match self.found {
            None => write!(f, "is all zeroes"),
            Some((seed, index)) => write!(f, "claims to be page {index} of seed {seed:#x}"),
        }
    }
}

impl std::error::Error for Mismatch {}

impl Pattern {
    /// The pattern with this seed.
    pub const fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The contents of one page.
    pub fn page(self, index: u64) -> [u8; PAGE] {
        let mut page = [0; PAGE];
        for (at, word) in (0u64..).zip(page.chunks_exact_mut(8)) {
            let value = match at {
                0 => self.seed,
                1 => index,
                _ => scramble(scramble(self.seed ^ (index << 9)) ^ at),
            };
            word.copy_from_slice(&value.to_le_bytes());
        }
        page
    }

    /// The contents of the first `len` bytes of the file.
    pub fn bytes(self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len.next_multiple_of(PAGE));
        for index in 0..len.div_ceil(PAGE) {
            bytes.extend_from_slice(&self.page(index as u64));
        }
        bytes.truncate(len);
        bytes
    }

    /// Whether `data`, found at page `first_page` of the file, is what the file holds there.
    pub fn check(self, first_page: u64, data: &[u8]) -> Result<(), Mismatch> {
        for (page, found) in (first_page..).zip(data.chunks(PAGE)) {
            let expected = self.page(page);
            if found != &expected[..found.len()] {
                let wrong = found.iter().zip(&expected).filter(|(a, b)| a != b);
                return Err(Mismatch {
                    page,
                    wrong_bytes: wrong.count(),
                    found: claim(found),
                });
            }
        }
        Ok(())
    }
}

/// Seed and index in the head of a page.
fn claim(page: &[u8]) -> Option<(u64, u64)> {
    if page.iter().all(|byte| *byte == 0) {
        return None;
    }
    let word = |at: usize| {
        let bytes = page.get(at..at + 8).and_then(|b| b.try_into().ok());
        bytes.map_or(0, u64::from_le_bytes)
    };
    Some((word(0), word(8)))
}

/// The finalizer of splitmix64: every bit of the input reaches every bit of the result.
fn scramble(mut value: u64) -> u64 {
    value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognises_its_own_bytes() {
        let pattern = Pattern::new(7);
        let bytes = pattern.bytes(3 * PAGE + 10);
        assert_eq!(bytes.len(), 3 * PAGE + 10);
        assert_eq!(pattern.check(0, &bytes), Ok(()));
        assert_eq!(pattern.check(2, &bytes[2 * PAGE..]), Ok(()));
    }

    #[test]
    fn tells_whose_a_wrong_page_is() {
        let pattern = Pattern::new(7);
        let mut bytes = pattern.bytes(3 * PAGE);
        bytes[PAGE..2 * PAGE].copy_from_slice(&Pattern::new(8).page(5));
        let wrong = pattern.check(0, &bytes).err();
        assert_eq!(
            wrong.as_ref().map(|w| (w.page, w.found)),
            Some((1, Some((8, 5))))
        );
        bytes[PAGE..2 * PAGE].fill(0);
        let wrong = pattern.check(0, &bytes).err();
        assert_eq!(wrong.map(|w| (w.page, w.found)), Some((1, None)));
    }

    #[test]
    fn one_flipped_bit_is_seen() {
        let pattern = Pattern::new(7);
        let mut bytes = pattern.bytes(2 * PAGE);
        bytes[PAGE + 4000] ^= 1;
        let wrong = pattern.check(0, &bytes).err();
        assert_eq!(wrong.map(|w| (w.page, w.wrong_bytes)), Some((1, 1)));
    }
}
