//! The first 8 KiB of files that a swap header stands in for, kept until they are put back.
//!
//! One record for each hold, in [`DIR`], which outlives a crash of the machine: a file that comes back with a swap
//! header at its head must not have lost what was there. A record is the 8 KiB themselves, then lines of text, so that
//! `head -c 8192 RECORD | dd of=FILE conv=notrunc` puts them back without longpin.
//!
//! A record is also the token of its hold: who asked, and what it started, have it open and locked.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// Where the records are.
pub const DIR: &str = "/var/lib/longpin/heads";
/// Bytes of a file that a hold of this kind gives up: the header, and the one page that swap may use.
pub const HEAD: usize = 8192;
/// Numbers of these holds begin here: the guard counts its own from 1.
const FIRST_ID: u64 = 1_000_000_000;
/// The extension of a record that is not whole yet.
const NEW: &str = "new";

/// Whether a hold of this number is, or was, one by swap header.
#[must_use]
pub const fn is_number(id: u64) -> bool {
    id >= FIRST_ID
}

/// The first line behind the 8 KiB.
const TITLE: &[u8] = b"longpin head 1";

/// One hold by swap header.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// The header's, which tells whose file this is when its name or device number has changed.
    pub uuid: [u8; 16],
    /// The file's name when it was held.
    pub path: PathBuf,
    /// `st_dev` and `st_ino`.
    pub inode: (u64, u64),
    /// Who asked.
    pub pid: u32,
    /// Its name.
    pub command: String,
    /// When, since the epoch.
    pub since: Duration,
    /// It was asked to stand until it is released.
    pub persists: bool,
    /// The file's own first 8 KiB.
    pub head: Vec<u8>,
}

impl Record {
    /// The hold's number, made of the UUID: a number that was released does not come back for another hold.
    #[must_use]
    pub fn id(&self) -> u64 {
        id_of(&self.uuid)
    }

    fn to_bytes(&self) -> Vec<u8> {
        let uuid: String = self.uuid.iter().map(|byte| format!("{byte:02x}")).collect();
        let (device, ino) = self.inode;
        let command = self.command.replace('\n', " ");
        let lines = format!(
            "\nuuid {uuid}\ndevice {device}\ninode {ino}\npid {}\nsince {}\npersists {}\ncommand {command}\npath ",
            self.pid,
            self.since.as_secs(),
            self.persists
        );
        let path = self.path.as_os_str().as_bytes();
        [&self.head, TITLE, lines.as_bytes(), path].concat()
    }

    /// `None`: that is no record, or not a whole one.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (head, text) = bytes.split_at_checked(HEAD)?;
        let mut rest = text.strip_prefix(TITLE)?.strip_prefix(b"\n")?;
        let mut value = |name: &str| -> Option<String> {
            let end = rest.iter().position(|&byte| byte == b'\n')?;
            let line = std::str::from_utf8(&rest[..end]).ok()?;
            rest = &rest[end + 1..];
            let value = line.strip_prefix(name)?.strip_prefix(' ')?;
            Some(value.to_owned())
        };
        Some(Self {
            uuid: parse_uuid(&value("uuid")?)?,
            inode: (
                value("device")?.parse().ok()?,
                value("inode")?.parse().ok()?,
            ),
            pid: value("pid")?.parse().ok()?,
            since: Duration::from_secs(value("since")?.parse().ok()?),
            persists: value("persists")?.parse().ok()?,
            command: value("command")?,
            // A name may have lines: it is the last.
            path: OsString::from_vec(rest.strip_prefix(b"path ")?.to_vec()).into(),
            head: head.to_vec(),
        })
    }
}

pub(super) fn id_of(uuid: &[u8; 16]) -> u64 {
    let [a, b, c, d, ..] = *uuid;
    FIRST_ID + u64::from(u32::from_ne_bytes([a, b, c, d])) % FIRST_ID
}

fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let mut uuid = [0; 16];
    for (at, byte) in uuid.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(uuid)
}

/// Now, since the epoch.
pub(super) fn now() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default()
}

/// The records.
#[derive(Debug, Clone)]
pub struct Heads(PathBuf);

impl Default for Heads {
    fn default() -> Self {
        Self(DIR.into())
    }
}

impl Heads {
    /// In another directory.
    #[must_use]
    pub fn at(dir: &Path) -> Self {
        Self(dir.to_owned())
    }

    /// Where the record of this number is.
    #[must_use]
    pub fn path(&self, id: u64) -> PathBuf {
        self.0.join(id.to_string())
    }

    /// All records; none where nobody may read them, or where there never was one.
    ///
    /// # Errors
    ///
    /// The directory, or a record in it, cannot be read.
    pub fn read_all(&self) -> io::Result<Vec<Record>> {
        let found = self.read_each()?.into_iter();
        let mut records: Vec<_> = found.filter_map(|(_, record)| record).collect();
        records.sort_by_key(Record::id);
        Ok(records)
    }

    /// Files there that are no records, or not whole: a file's first 8 KiB may be in one.
    ///
    /// # Errors
    ///
    /// As [`Self::read_all`].
    pub fn damaged(&self) -> io::Result<Vec<PathBuf>> {
        let found = self.read_each()?.into_iter();
        let damaged = found.filter(|(_, record)| record.is_none());
        Ok(damaged.map(|(path, _)| path).collect())
    }

    fn read_each(&self) -> io::Result<Vec<(PathBuf, Option<Record>)>> {
        let entries = match std::fs::read_dir(&self.0) {
            Err(err) if is_nothing(&err) => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry?.path();
            // What is not published yet has an extension.
            if path.extension().is_some() {
                continue;
            }
            match std::fs::read(&path) {
                // It ended meanwhile.
                Err(err) if err.kind() == ErrorKind::NotFound => {}
                bytes => {
                    let record = Record::parse(&bytes?);
                    found.push((path, record));
                }
            }
        }
        Ok(found)
    }

    /// The record of this number.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is none.
    pub fn find(&self, id: u64) -> io::Result<Option<Record>> {
        match std::fs::read(self.path(id)) {
            Err(err) if err.kind() == ErrorKind::NotFound => Ok(None),
            bytes => match Record::parse(&bytes?) {
                Some(record) => Ok(Some(record)),
                None => Err(ErrorKind::InvalidData.into()),
            },
        }
    }

    /// Whether somebody has the record's token.
    ///
    /// # Errors
    ///
    /// The record cannot be opened.
    pub fn has_holder(&self, id: u64) -> io::Result<bool> {
        let file = match File::open(self.path(id)) {
            Err(err) if err.kind() == ErrorKind::NotFound => return Ok(false),
            file => file?,
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(false),
            Err(Errno::WOULDBLOCK) => Ok(true),
            Err(err) => Err(err.into()),
        }
    }

    /// `flock(2)` on the directory: one acquisition or end at a time.
    pub(super) fn lock(&self) -> io::Result<File> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)?;
        let dir = File::open(&self.0)?;
        flock(&dir, FlockOperation::LockExclusive)?;
        Ok(dir)
    }

    /// On the disk before it returns: the token, open and locked.
    pub(super) fn save(&self, record: &Record, dir: &File) -> io::Result<File> {
        self.remove_unpublished()?;
        let path = self.path(record.id());
        let new = path.with_extension(NEW);
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(&record.to_bytes())?;
        file.sync_all()?;
        // For reading only: processes inherit it.
        let token = File::open(&new)?;
        flock(&token, FlockOperation::NonBlockingLockExclusive)?;
        std::fs::rename(&new, &path)?;
        dir.sync_all()?;
        Ok(token)
    }

    /// What killed ones left: their files are as they were.
    fn remove_unpublished(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.0)? {
            let path = entry?.path();
            if path.extension().is_some_and(|found| found == NEW) {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    pub(super) fn remove(&self, id: u64) -> io::Result<()> {
        match std::fs::remove_file(self.path(id)) {
            Err(err) if err.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}

/// Who may not look, and who finds no directory, knows of no record.
fn is_nothing(err: &io::Error) -> bool {
    matches!(
        err.kind(),
        ErrorKind::NotFound | ErrorKind::PermissionDenied
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            uuid: *b"0123456789abcdef",
            path: "/a b/new\nline".into(),
            inode: (2049, 12),
            pid: 7,
            command: "longpin".into(),
            since: Duration::from_secs(1_700_000_000),
            persists: true,
            head: (0..HEAD).map(|at| at.to_le_bytes()[0]).collect(),
        }
    }

    #[test]
    fn a_record_reads_as_it_was_written() {
        let record = record();
        let bytes = record.to_bytes();
        assert_eq!(bytes[..HEAD], record.head);
        assert_eq!(Record::parse(&bytes), Some(record));
        for cut in [0, HEAD, HEAD + 20, HEAD + 60] {
            assert_eq!(Record::parse(&bytes[..cut]), None);
        }
    }

    #[test]
    fn numbers_are_not_those_of_the_guard() {
        let id = record().id();
        assert!(is_number(id) && id < 2 * FIRST_ID);
        assert!(!is_number(FIRST_ID - 1));
    }

    #[test]
    fn what_was_kept_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let heads = Heads::at(&dir.path().join("heads"));
        assert_eq!(heads.read_all().unwrap(), []);
        let record = record();
        let lock = heads.lock().unwrap();
        let unpublished = heads.path(1).with_extension(NEW);
        std::fs::write(&unpublished, "half").unwrap();
        assert_eq!(heads.read_all().unwrap(), []);
        let token = heads.save(&record, &lock).unwrap();
        assert!(!unpublished.exists());
        assert_eq!(heads.find(record.id()).unwrap(), Some(record.clone()));
        std::fs::write(heads.path(7), "half").unwrap();
        assert_eq!(heads.read_all().unwrap(), vec![record.clone()]);
        assert_eq!(heads.damaged().unwrap(), [heads.path(7)]);
        assert!(heads.has_holder(record.id()).unwrap());
        drop(token);
        assert!(!heads.has_holder(record.id()).unwrap());
        heads.remove(record.id()).unwrap();
        assert_eq!(heads.find(record.id()).unwrap(), None);
        assert!(!heads.has_holder(record.id()).unwrap());
    }
}
