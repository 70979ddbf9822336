//! `lseek(SEEK_DATA, SEEK_HOLE)`: where a file has something, so that what is not there costs nothing.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// Runs of data, in the order of the file. Its own descriptor: the caller's position stays.
#[derive(Debug)]
pub struct Data {
    file: File,
    next: u64,
    end: u64,
}

impl Data {
    /// Of this range.
    ///
    /// # Errors
    ///
    /// The file cannot be opened once more.
    pub fn of(file: &File, range: &Range<u64>) -> io::Result<Self> {
        let own = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        Ok(Self {
            file: File::open(own)?,
            next: range.start,
            end: range.end,
        })
    }

    fn look(&self) -> io::Result<Option<Range<u64>>> {
        let start = match seek(&self.file, SeekFrom::Data(self.next)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(None),
            Err(err) => return Err(err.into()),
        };
        let end = seek(&self.file, SeekFrom::Hole(start))?;
        Ok(Some(start..end.min(self.end)).filter(|run| !run.is_empty()))
    }
}

impl Iterator for Data {
    type Item = io::Result<Range<u64>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.end {
            return None;
        }
        let found = self.look();
        self.next = match &found {
            Ok(Some(run)) => run.end,
            _ => self.end,
        };
        found.transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Seek;
    use std::os::unix::fs::FileExt;

    #[test]
    fn a_hole_of_any_size_is_one_step() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut file = file.as_file();
        file.set_len(1 << 40).unwrap();
        file.write_all_at(&[1; 8192], 1 << 30).unwrap();
        let found: Result<Vec<_>, _> = Data::of(file, &(0..1 << 40)).unwrap().collect();
        let bytes: u64 = found.unwrap().iter().map(|run| run.end - run.start).sum();
        assert!((8192..1 << 20).contains(&bytes), "{bytes}");
        assert_eq!(file.stream_position().unwrap(), 0);
        assert_eq!(Data::of(file, &(0..4096)).unwrap().count(), 0);
    }
}
