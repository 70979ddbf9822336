//! The simplest data that is worth compressing.

use anyhow::{Result, ensure};

/// The modulus of the Adler-32 checksum.
const ADLER: usize = 65521;

/// The longest match that deflate knows.
const MATCH: usize = 258;

/// `len` times the same ASCII character, as a zlib stream (RFC 1950): one literal, and matches of distance one, in fixed
/// Huffman codes (RFC 1951, 3.2.6).
pub(super) fn zlib_of(character: u8, len: usize) -> Result<Vec<u8>> {
    ensure!(character.is_ascii(), "has a code of nine bits");
    let last = len.saturating_sub(1) % MATCH;
    ensure!((3..=10).contains(&last), "needs a match with extra bits");
    // The last block, of type 01 from its lower bit on.
    let mut bits = vec![true, true, false];
    push(&mut bits, 0x30 + usize::from(character), 8);
    for _ in 0..(len - 1) / MATCH {
        push(&mut bits, 0b1100_0101, 8);
        push(&mut bits, 0, 5);
    }
    push(&mut bits, last - 2, 7);
    push(&mut bits, 0, 5);
    // The end of the block.
    push(&mut bits, 0, 7);
    let mut stream = vec![0x78, 0x01];
    stream.extend(bits.chunks(8).map(byte));
    let sum = (1 + len * usize::from(character)) % ADLER;
    let sums = (len + usize::from(character) * (len * (len + 1) / 2)) % ADLER;
    let checksum = u32::try_from(sums << 16 | sum)?;
    stream.extend(checksum.to_be_bytes());
    Ok(stream)
}

/// Codes begin with their highest bit.
fn push(bits: &mut Vec<bool>, code: usize, len: usize) {
    bits.extend((0..len).rev().map(|bit| code >> bit & 1 == 1));
}

/// Bytes begin with their lowest bit.
fn byte(bits: &[bool]) -> u8 {
    let bits = bits.iter().zip(0u8..);
    bits.fold(0, |byte, (bit, at)| byte | u8::from(*bit) << at)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    /// zlib makes eight characters of this.
    #[test]
    fn is_what_zlib_reads() {
        let stream = zlib_of(b'e', 8).unwrap();
        assert_eq!(stream, *b"\x78\x01\x4b\x85\x02\x00\x0e\x3c\x03\x29");
    }

    #[test]
    fn checks_its_length() {
        assert!(zlib_of(b'e', 64 << 10).is_ok());
        assert!(zlib_of(b'e', 100).is_err());
    }
}
