//! Files of `/proc` and `/sys`, of which "not there", "not to be read" and "empty" are three things.
//!
//! A file that is missing says that this kernel has no such thing only where its whole tree is there: `/proc` may be
//! mounted with `subset=pid`, which shows processes and nothing else, and `/sys` need not be mounted at all.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

/// By these a tree is known to be whole: each kernel has them.
const WITNESSES: [(&str, &str); 2] = [("/proc", "/proc/version"), ("/sys", "/sys/kernel")];

/// The bytes of such a file; `None` where this kernel has none of this name.
///
/// # Errors
///
/// It is there and cannot be read, or is empty; or nobody knows whether it is there.
pub fn read(path: impl AsRef<Path>) -> io::Result<Option<Vec<u8>>> {
    let path = path.as_ref();
    match fs::read(path) {
        Ok(bytes) if bytes.is_empty() => Err(io::Error::other("it is empty")),
        Ok(bytes) => Ok(Some(bytes)),
        Err(err) if err.kind() == ErrorKind::NotFound => is_absent(path).map(|()| None),
        Err(err) => Err(err),
    }
}

/// The same as text; bytes that are none are replaced.
///
/// # Errors
///
/// As [`read`].
pub fn read_text(path: impl AsRef<Path>) -> io::Result<Option<String>> {
    let bytes = read(path)?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// The text of a file that every kernel has.
///
/// # Errors
///
/// As [`read`], and where it is not there.
pub fn must_read(path: impl AsRef<Path>) -> io::Result<String> {
    read_text(path)?.ok_or_else(|| ErrorKind::NotFound.into())
}

/// Nothing is there: because this kernel has no such thing, or because the tree is not shown here?
///
/// # Errors
///
/// The tree is not shown, or not whole.
pub fn is_absent(path: &Path) -> io::Result<()> {
    let tree = WITNESSES.iter().find(|(root, _)| path.starts_with(root));
    let hidden = tree.filter(|(_, witness)| !Path::new(witness).exists());
    hidden.map_or(Ok(()), |(root, _)| {
        Err(io::Error::other(format!(
            "{root} does not show all of it here (not mounted, or subset=pid)"
        )))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn not_there_not_readable_and_empty_are_three_things() {
        assert!(read("/proc/version").unwrap().is_some());
        assert_eq!(read("/proc/sys/kernel/no-such-switch").unwrap(), None);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("setting");
        assert_eq!(read(&file).unwrap(), None);
        fs::write(&file, "").unwrap();
        read(&file).unwrap_err();
        read(dir.path()).unwrap_err();
        fs::write(&file, "7").unwrap();
        assert_eq!(read_text(&file).unwrap().as_deref(), Some("7"));
        assert_eq!(must_read(&file).unwrap(), "7");
        must_read(dir.path().join("none")).unwrap_err();
    }
}
