//! Writing zeroes where nothing was written, as fast as the kernel lets us, and nowhere else.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use longpin_linux::file::{self, Lease};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::PrepareError;

/// What direct I/O is aligned to: no device has larger blocks.
const ALIGN: u64 = 4096;
/// Bytes of one write.
const CHUNK: u64 = 4 << 20;
/// Bytes of one `fallocate`: a moment's work, so that the progress bar moves.
const RUN: u64 = 64 << 20;
/// `FALLOC_FL_WRITE_ZEROES`, Linux 6.17.
const WRITE_ZEROES: FallocateFlags = FallocateFlags::from_bits_retain(0x80);

/// How zeroes get to the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// The device writes them by itself: `FALLOC_FL_WRITE_ZEROES`.
    WriteZeroes,
    /// Large direct writes.
    Direct,
    /// Through the page cache: the file has no direct I/O.
    Cached,
}

impl Method {
    /// In words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WriteZeroes => "by the device",
            Self::Direct => "by direct writes",
            Self::Cached => "through the page cache",
        }
    }
}

/// Writes zeroes into one file, and counts them.
pub(super) struct Zeroer<'a> {
    file: &'a File,
    lease: &'a Lease<'a>,
    method: Method,
    /// Zeroes, and room to align them.
    zeroes: Vec<u8>,
    done: u64,
    all: u64,
    progress: &'a mut dyn FnMut(u64, u64),
}

impl<'a> Zeroer<'a> {
    pub(super) fn new(
        file: &'a File,
        lease: &'a Lease<'a>,
        all: u64,
        progress: &'a mut dyn FnMut(u64, u64),
    ) -> Self {
        Self {
            file,
            lease,
            method: Method::WriteZeroes,
            zeroes: resident_zeroes(),
            done: 0,
            all,
            progress,
        }
    }

    /// Bytes so far, and how.
    pub(super) fn finish(self) -> (u64, Method) {
        (self.done, self.method)
    }

    /// Zeroes from here to there. Bytes that do not fill a block go through the page cache.
    pub(super) fn fill(&mut self, range: Range<u64>) -> Result<(), PrepareError> {
        let first = range.start.next_multiple_of(ALIGN).min(range.end);
        let last = (range.end / ALIGN * ALIGN).max(first);
        self.fill_part(range.start..first, Method::Cached)?;
        let mut at = first;
        while at < last {
            let end = last.min(at + self.step());
            self.fill_block(at..end)?;
            at = end;
        }
        self.fill_part(last..range.end, Method::Cached)
    }

    /// The same for a moment's work while somebody waits for the lease to go. The kernel lets them wait for
    /// `fs.lease-break-time`, 45 seconds.
    pub(super) fn fill_with_waiter(&mut self, range: Range<u64>) -> Result<(), PrepareError> {
        let written = self.write(range.clone(), Method::Cached);
        written.map_err(|errno| self.failed(&range, errno.into()))
    }

    const fn step(&self) -> u64 {
        match self.method {
            Method::WriteZeroes => RUN,
            Method::Direct | Method::Cached => CHUNK,
        }
    }

    /// Whole blocks; the first refusal of a better method makes all that follows take the next one.
    fn fill_block(&mut self, range: Range<u64>) -> Result<(), PrepareError> {
        loop {
            match self.try_block(range.clone()) {
                Ok(()) => return Ok(()),
                Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOTTY)
                    if self.method == Method::WriteZeroes =>
                {
                    self.method = Method::Direct;
                }
                Err(Errno::INVAL | Errno::OPNOTSUPP) if self.method == Method::Direct => {
                    self.method = Method::Cached;
                }
                Err(errno) => return Err(self.failed(&range, errno.into())),
            }
        }
    }

    fn try_block(&mut self, range: Range<u64>) -> Result<(), Errno> {
        self.check_lease()?;
        let len = range.end - range.start;
        match self.method {
            Method::WriteZeroes => {
                rustix::fs::fallocate(self.file, WRITE_ZEROES, range.start, len)?;
                self.count(len);
                Ok(())
            }
            method => self.write(range, method),
        }
    }

    fn fill_part(&mut self, range: Range<u64>, method: Method) -> Result<(), PrepareError> {
        if range.is_empty() {
            return Ok(());
        }
        let written = self
            .check_lease()
            .and_then(|()| self.write(range.clone(), method));
        written.map_err(|errno| self.failed(&range, errno.into()))
    }

    fn write(&mut self, range: Range<u64>, method: Method) -> Result<(), Errno> {
        let errno = |err: io::Error| Errno::from_io_error(&err).unwrap_or(Errno::IO);
        file::set_direct(self.file, method == Method::Direct).map_err(errno)?;
        let mut at = range.start;
        let outcome = loop {
            if at >= range.end {
                break Ok(());
            }
            let zeroes = aligned(&self.zeroes, (range.end - at).min(CHUNK));
            match self.file.write_at(zeroes, at) {
                Ok(0) => break Err(Errno::IO),
                Ok(written) => {
                    at += written as u64;
                    self.count(written as u64);
                }
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => break Err(errno(err)),
            }
        };
        file::set_direct(self.file, false).map_err(errno)?;
        outcome
    }

    fn count(&mut self, bytes: u64) {
        self.done += bytes;
        (self.progress)(self.done, self.all.max(self.done));
    }

    /// Somebody who opens the file might write to it: then nothing more is written here.
    fn check_lease(&self) -> Result<(), Errno> {
        match self.lease.is_whole() {
            Ok(true) => Ok(()),
            Ok(false) => Err(Errno::BUSY),
            Err(err) => Err(Errno::from_io_error(&err).unwrap_or(Errno::IO)),
        }
    }

    fn failed(&self, range: &Range<u64>, source: io::Error) -> PrepareError {
        if Errno::from_io_error(&source) == Some(Errno::BUSY) {
            return PrepareError::Opened { at: range.start };
        }
        PrepareError::Step {
            what: "write zeroes",
            at: range.start,
            len: range.end - range.start,
            source,
        }
    }
}

/// Zeroes in pages that are there. btrfs of Linux 6.1 leaves the first blocks of a direct write unwritten when its
/// buffer has to be faulted in meanwhile, and fresh zeroes have no pages yet.
fn resident_zeroes() -> Vec<u8> {
    let mut zeroes = vec![1; usize::try_from(CHUNK + ALIGN).unwrap_or(0)];
    // Or the compiler asks for fresh zeroes after all.
    std::hint::black_box(&mut zeroes).fill(0);
    zeroes
}

/// `len` zeroes whose address direct I/O takes.
fn aligned(zeroes: &[u8], len: u64) -> &[u8] {
    let skip = zeroes
        .as_ptr()
        .align_offset(usize::try_from(ALIGN).unwrap_or(1));
    let len = usize::try_from(len).unwrap_or(0);
    zeroes.get(skip..skip + len).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroes_go_where_they_are_asked_for_and_nowhere_else() {
        let named = tempfile::NamedTempFile::new().unwrap();
        let file = named.as_file();
        let len = 3 * ALIGN + 100;
        file.write_all_at(&vec![7; usize::try_from(len).unwrap()], 0)
            .unwrap();
        let Ok(Some(lease)) = Lease::take(file) else {
            return println!("not tried: no leases here");
        };
        let mut told = Vec::new();
        let mut progress = |done, all| told.push((done, all));
        let range = 10..3 * ALIGN + 50;
        let mut zeroer = Zeroer::new(file, &lease, range.end - 10, &mut progress);
        zeroer.fill(range.clone()).unwrap();
        let (done, _) = zeroer.finish();
        assert_eq!(done, range.end - range.start);
        assert_eq!(told.last(), Some(&(done, done)));
        let mut found = vec![1; usize::try_from(len).unwrap()];
        file.read_exact_at(&mut found, 0).unwrap();
        for (at, byte) in (0_u64..).zip(found) {
            assert_eq!(byte == 0, range.contains(&at), "offset {at}");
        }
    }

    #[test]
    fn who_opens_the_file_stops_it() {
        let named = tempfile::NamedTempFile::new().unwrap();
        let Ok(Some(lease)) = Lease::take(named.as_file()) else {
            return println!("not tried: no leases here");
        };
        let found = file::Found::at(named.path()).unwrap();
        let opening = found.open(rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NONBLOCK);
        assert!(opening.is_err());
        let mut nobody = |_, _| {};
        let mut zeroer = Zeroer::new(named.as_file(), &lease, 0, &mut nobody);
        let stopped = zeroer.fill(0..ALIGN);
        assert!(
            matches!(stopped, Err(PrepareError::Opened { at: 0 })),
            "{stopped:?}"
        );
        assert_eq!(named.as_file().metadata().unwrap().len(), 0);
    }
}
