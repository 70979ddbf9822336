//! `trusted.longpin.zeroing`: a range that a killed prepare may have left as it was on the device.
//!
//! f2fs writes to a pinned file only before its end, so that has to move first: until the zeroes are there,
//! the file shows what the blocks held before. The attribute is set before the end moves, and removed
//! afterwards.

use std::fs::File;
use std::io;
use std::ops::Range;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

const NAME: &str = "trusted.longpin.zeroing";

/// `fsetxattr(2)`: these bytes are about to be zeroed. CAP_SYS_ADMIN.
///
/// # Errors
///
/// What the kernel says.
pub fn set_zeroing(file: &File, range: &Range<u64>) -> io::Result<()> {
    let text = format!("{}..{}", range.start, range.end);
    rustix::fs::fsetxattr(file, NAME, text.as_bytes(), XattrFlags::empty())?;
    Ok(())
}

/// `fgetxattr(2)`: bytes that were to be zeroed when somebody was killed; `None` when there are none, or this
/// process may not see that.
///
/// # Errors
///
/// What the kernel says; the attribute is not as it should be.
pub fn zeroing(file: &File) -> io::Result<Option<Range<u64>>> {
    let mut text = [0_u8; 64];
    match rustix::fs::fgetxattr(file, NAME, &mut text[..]) {
        Ok(len) => {
            let range = text.get(..len).and_then(parse);
            let wrong = || io::Error::other(format!("the attribute {NAME} cannot be read"));
            range.ok_or_else(wrong).map(Some)
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(err) => Err(err.into()),
    }
}

fn parse(text: &[u8]) -> Option<Range<u64>> {
    let (start, end) = std::str::from_utf8(text).ok()?.split_once("..")?;
    Some(start.parse().ok()?..end.parse().ok()?)
}

/// `fremovexattr(2)`: they are zeroes now.
///
/// # Errors
///
/// What the kernel says.
pub fn end_zeroing(file: &File) -> io::Result<()> {
    match rustix::fs::fremovexattr(file, NAME) {
        Ok(()) | Err(Errno::NODATA) => Ok(()),
        Err(err) => Err(err.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_survives() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(zeroing(&file).unwrap(), None);
        let range = 4096..1 << 40;
        if let Err(err) = set_zeroing(&file, &range) {
            return println!("not tried: {err}");
        }
        assert_eq!(zeroing(&file).unwrap(), Some(range));
        end_zeroing(&file).unwrap();
        end_zeroing(&file).unwrap();
        assert_eq!(zeroing(&file).unwrap(), None);
        assert_eq!(parse(b"1..x"), None);
    }
}
