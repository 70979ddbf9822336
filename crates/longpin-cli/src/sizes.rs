//! Sizes and ranges on the command line.

/// A range as it was asked for; its end may be no number of 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    /// First byte.
    pub(crate) offset: u64,
    /// Bytes.
    pub(crate) len: u64,
}

/// `4096`, `4K`, `2M`, `1G`, `1T`: powers of 1024.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.char_indices().next_back() {
        Some((at, 'K' | 'k')) => (&text[..at], 10),
        Some((at, 'M' | 'm')) => (&text[..at], 20),
        Some((at, 'G' | 'g')) => (&text[..at], 30),
        Some((at, 'T' | 't')) => (&text[..at], 40),
        _ => (text, 0),
    };
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = plain.then(|| digits.parse::<u64>().ok()).flatten();
    let bytes = number.and_then(|number| number.checked_mul(1 << shift));
    bytes.ok_or_else(|| "a number of bytes, or with K, M, G or T behind it".to_owned())
}

/// `OFF+LEN`.
pub(crate) fn parse_range(text: &str) -> Result<Range, String> {
    let (offset, len) = text.split_once('+').ok_or("OFF+LEN, for example 1M+64K")?;
    Ok(Range {
        offset: parse_size(offset)?,
        len: parse_size(len)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("4K"), Ok(4096));
        assert_eq!(parse_size("3g"), Ok(3 << 30));
        for wrong in [
            "",
            "K",
            "-1",
            "+1",
            "1.5M",
            "0x10",
            "20000000000G",
            "99999999999999999999",
        ] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_range_is_two_sizes() {
        let range = |offset, len| Ok(Range { offset, len });
        assert_eq!(parse_range("0+4K"), range(0, 4096));
        // It is the file's business that this is too far.
        assert_eq!(parse_range("18446744073709551615+2"), range(u64::MAX, 2));
        assert!(parse_range("4096").is_err());
        assert!(parse_range("+5").is_err());
    }
}
