//! The file itself: whether it is there, whether it may be believed, and all steps at once.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Config, ConfigErrors, Problem, Resolved, parse, resolve};

/// No configuration is that long.
const MAX_LEN: u64 = 1 << 20;

/// Why a configuration could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// Somebody other than root may have written it.
    #[error("{} is not believed: {why}", path.display())]
    Untrusted {
        /// The file.
        path: PathBuf,
        /// Who could have written it.
        why: String,
    },
    /// It says something wrong, or something that this host does not know.
    #[error("{} is wrong:\n{errors}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        errors: ConfigErrors,
    },
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Source {
    /// The text; `None` when there is no file, which means no rules.
    pub text: Option<String>,
    /// Why nobody should believe it: others than root could have written it.
    pub distrust: Option<String>,
}

/// What a file that is not there means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// An error: somebody named it.
    Error,
    /// No rules.
    NoRules,
}

/// Read the text of a configuration.
///
/// # Errors
///
/// [`LoadError::Unreadable`]; [`LoadError::Wrong`] for bytes that are no text.
pub fn read_source(path: &Path, missing: Missing) -> Result<Source, LoadError> {
    let unreadable = |source| LoadError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let file = match File::open(path) {
        Err(err) if missing == Missing::NoRules && err.kind() == ErrorKind::NotFound => {
            return Ok(Source {
                text: None,
                distrust: None,
            });
        }
        file => file.map_err(unreadable)?,
    };
    let about = file.metadata().map_err(unreadable)?;
    let mut bytes = Vec::new();
    let limited = file.take(MAX_LEN + 1).read_to_end(&mut bytes);
    let len = limited.map_err(unreadable)?;
    if len as u64 > MAX_LEN {
        let what = format!("longer than {MAX_LEN} bytes");
        return Err(unreadable(std::io::Error::new(
            ErrorKind::FileTooLarge,
            what,
        )));
    }
    let text = String::from_utf8(bytes).map_err(|err| LoadError::Wrong {
        path: path.to_owned(),
        errors: no_text(err.as_bytes(), err.utf8_error().valid_up_to()),
    })?;
    Ok(Source {
        text: Some(text),
        distrust: distrust(about.uid(), about.mode()),
    })
}

fn no_text(bytes: &[u8], at: usize) -> ConfigErrors {
    let before = bytes.get(..at).unwrap_or_default();
    let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
    let problem = Problem::error(line, "a byte that is no UTF-8");
    ConfigErrors::of(problem.try_this("name a directory above, if it is part of a path"))
}

/// A rule can kill processes: who writes the file has root's power.
fn distrust(uid: u32, mode: u32) -> Option<String> {
    if uid != 0 {
        return Some(format!("it belongs to user {uid}, not to root"));
    }
    let others = mode & 0o022;
    (others != 0).then(|| format!("its mode {:04o} lets others write it", mode & 0o7777))
}

/// Read, parse and resolve: what a starting guard takes.
///
/// # Errors
///
/// [`LoadError`]. A file that others than root could have written is not used.
pub fn load(path: &Path, missing: Missing) -> Result<Resolved, LoadError> {
    let source = read_source(path, missing)?;
    if let Some(why) = source.distrust {
        let path = path.to_owned();
        return Err(LoadError::Untrusted { path, why });
    }
    let config = source.text.as_deref().map_or(Ok(Config::default()), parse);
    let resolved = config.and_then(|config| resolve(&config));
    resolved.map_err(|errors| LoadError::Wrong {
        path: path.to_owned(),
        errors,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    #[test]
    fn no_file_means_no_rules_only_where_none_was_asked_for() {
        let nothing = Path::new("/no/such/longpin.conf");
        assert_eq!(read_source(nothing, Missing::NoRules).unwrap().text, None);
        let asked = read_source(nothing, Missing::Error);
        assert!(
            matches!(asked, Err(LoadError::Unreadable { .. })),
            "{asked:?}"
        );
        assert_eq!(load(nothing, Missing::NoRules).unwrap().rules, []);
    }

    #[test]
    fn bytes_that_are_no_text_are_told_by_line() {
        let file = write(b"enforce\n# \xff\n");
        let said = read_source(file.path(), Missing::Error)
            .unwrap_err()
            .to_string();
        assert!(
            said.contains("line 2: error: a byte that is no UTF-8"),
            "{said}"
        );
    }

    #[test]
    fn a_file_without_end_is_not_read() {
        let said = read_source(Path::new("/dev/zero"), Missing::Error);
        assert!(matches!(said, Err(LoadError::Unreadable { .. })));
        assert!(matches!(
            read_source(Path::new("/"), Missing::Error),
            Err(LoadError::Unreadable { .. })
        ));
    }

    #[test]
    fn only_what_root_alone_may_write_is_believed() {
        assert_eq!(distrust(0, 0o100_644), None);
        assert!(distrust(1000, 0o100_600).unwrap().contains("1000"));
        assert!(distrust(0, 0o100_664).unwrap().contains("0664"));
        assert!(distrust(0, 0o100_646).is_some());
    }
}
