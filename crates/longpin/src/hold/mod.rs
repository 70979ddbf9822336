//! Holds that somebody asks for: the guarantee of an active swap file, for a file that is lent.
//!
//! [`Hold::on`] or [`Hold::of_file`] begins a request, and [`Request::acquire`] makes the hold. Whatever the [`Backend`], a
//! refusal leaves file and system as they were.
//!
//! | | backend BPF | backend swap header |
//! |---|---|---|
//! | who refuses | BPF programs; the host's list of security modules must have bpf | the kernel, which swaps to the file |
//! | levels, ranges | both levels; a range at level layout | level swapfile, the whole file |
//! | gives up | nothing | the file's first 8 KiB, until the end |
//! | ends | with the last descriptor of its token | when it is released |
//! | dropped, or its process killed | ends, unless others have the token | stands; `longpin release` ends it |
//!
//! Processes that have a BPF hold's token are the holder: they may map the file shared and writable.
//!
//! | | another layout hold | another swapfile hold |
//! |---|---|---|
//! | level layout | shares | is refused, or waits |
//! | level swapfile | is refused, or waits | is refused, or waits |

mod bpf;
pub mod heads;
mod others;
mod refusal;
mod release;
pub mod swap_header;
mod wait;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use longpin_linux::file::{self, Found};
use longpin_linux::swap::{self, Probed};
use rustix::io::{FdFlags, fcntl_setfd};

pub use longpin_bpf::shared::Level;
pub use refusal::{Refusal, RefusalKind};
pub use release::{ReleaseError, ReleaseReport};
pub use swap_header::SwapHeader;
pub use wait::Wait;

pub(crate) use bpf::policy_of;

use crate::Enforcement;
use crate::activation::{self, ByteRange, CheckReport, Policy};
use crate::guard::Host;
use heads::{Heads, Record};

/// Between two tries while another hold excludes this one.
const PATIENCE: Duration = Duration::from_millis(50);

/// Who refuses while a file is held.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Backend {
    /// BPF LSM programs.
    #[default]
    Bpf,
    /// The kernel itself, which swaps to one page of the file.
    SwapHeader(SwapHeader),
}

/// What is asked for. It may name a file, or borrow an open one.
#[derive(Debug, Clone)]
#[must_use = "nothing is held until it is acquired"]
pub struct Request<'file> {
    /// For messages, too.
    path: PathBuf,
    file: Option<BorrowedFd<'file>>,
    backend: Backend,
    range: Option<ByteRange>,
    level: Level,
    persist: bool,
    wait: Wait,
}

impl<'file> Request<'file> {
    /// Who is to refuse; the BPF programs, if nothing is said.
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self
    }

    /// Only these bytes: level layout holds them, level swapfile checks them and holds the whole file.
    pub const fn range(mut self, range: Option<ByteRange>) -> Self {
        self.range = range;
        self
    }

    /// What is refused.
    pub const fn level(mut self, level: Level) -> Self {
        self.level = level;
        self
    }

    /// The hold does not end with its token or with [`Hold::release`], but when it is released by its number.
    pub const fn persist(mut self, persist: bool) -> Self {
        self.persist = persist;
        self
    }

    /// How long to wait for another hold to end.
    pub const fn wait(mut self, wait: Wait) -> Self {
        self.wait = wait;
        self
    }

    /// Check the file and hold it. From its return on, the file is held.
    ///
    /// # Errors
    ///
    /// [`Refusal`]: file and system are as they were.
    pub fn acquire(self, host: &Host) -> Result<Hold, Refusal> {
        match self.backend.clone() {
            Backend::Bpf => bpf::acquire(self, host),
            Backend::SwapHeader(options) => swap_header::acquire(&self, &options),
        }
    }

    const fn new(path: PathBuf, file: Option<BorrowedFd<'file>>) -> Self {
        Self {
            path,
            file,
            backend: Backend::Bpf,
            range: None,
            level: Level::Swapfile,
            persist: false,
            wait: Wait::No,
        }
    }

    fn find(&self) -> Result<Found, Refusal> {
        let found = match self.file {
            Some(file) => Found::at(&path_of(file)),
            None => Found::at(&self.path),
        };
        found.map_err(self.not_opened())
    }

    fn not_opened(&self) -> impl Fn(io::Error) -> Refusal + Copy + '_ {
        |source| Refusal::Open {
            path: self.path.clone(),
            source,
        }
    }
}

/// A hold that stands until it is released, or dropped: see [`Backend`].
#[derive(Debug)]
#[must_use = "dropping it ends the hold, or loses it"]
pub struct Hold {
    path: PathBuf,
    file: File,
    token: File,
    report: CheckReport,
    enforcement: Enforcement,
    kept: Kept,
}

/// What ends a hold.
#[derive(Debug)]
enum Kept {
    Bpf { host: Host },
    SwapHeader { heads: Heads, record: Record },
}

impl Hold {
    /// A request for a hold on the file of this name: the whole of it, level swapfile, without waiting.
    pub fn on(path: impl AsRef<Path>) -> Request<'static> {
        Request::new(path.as_ref().to_owned(), None)
    }

    /// The same for an open file; it is opened anew, for reading and writing. Backend swap header refuses a file that
    /// somebody has open, this process as well as any other; a descriptor of `O_PATH` does not count.
    pub fn of_file(file: &impl AsFd) -> Request<'_> {
        let file = file.as_fd();
        Request::new(name_of(file), Some(file))
    }

    /// How much of the level the running kernel enforces.
    pub const fn enforcement(&self) -> &Enforcement {
        &self.enforcement
    }

    /// The check that the file passed.
    #[must_use]
    pub const fn report(&self) -> &CheckReport {
        &self.report
    }

    /// The file, open for reading and writing. By backend swap header the kernel refuses its writes, too.
    #[must_use]
    pub const fn file(&self) -> &File {
        &self.file
    }

    /// The token, which can be inherited. Of a BPF hold: an empty file in memory that may be written.
    #[must_use]
    pub const fn token(&self) -> &File {
        &self.token
    }

    /// By backend swap header: its number, for `longpin release`. The guard gives numbers to BPF holds, and lists them.
    #[must_use]
    pub fn id(&self) -> Option<u64> {
        match &self.kept {
            Kept::Bpf { .. } => None,
            Kept::SwapHeader { record, .. } => Some(record.id()),
        }
    }

    /// At level layout: why the next write of somebody moves blocks of the file, of which then the pages are held and
    /// nothing else; `None`: it stays where it is.
    #[must_use]
    pub fn moving_blocks(&self) -> Option<String> {
        let looks = self.report.policy == Policy::Pages && !self.report.fs_is_memory();
        looks
            .then(|| activation::moving_blocks(&self.file))
            .flatten()
    }

    /// Whether the blocks of the file were judged: then they have extents.
    #[must_use]
    pub const fn has_blocks(&self) -> bool {
        matches!(self.report.policy, Policy::Blocks | Policy::Dax)
    }

    /// By backend swap header: the file's permissions, if others than the owner may read it. Then they may read the page
    /// of memory that comes to lie in it.
    ///
    /// # Errors
    ///
    /// What `fstat(2)` says.
    pub fn readable_by_others(&self) -> io::Result<Option<u32>> {
        if let Kept::Bpf { .. } = self.kept {
            return Ok(None);
        }
        let mode = file::status(&self.file)?.mode;
        Ok((mode & 0o044 != 0).then_some(mode))
    }

    /// Children inherit the token, as they do that of a BPF hold anyway. By backend swap header: as long as one of them
    /// lives, only force ends the hold if this process has died.
    ///
    /// # Errors
    ///
    /// What `fcntl(2)` says.
    pub fn let_children_keep_it(&self) -> io::Result<()> {
        Ok(fcntl_setfd(&self.token, FdFlags::empty())?)
    }

    /// End it, and what only it needed in the kernel; one that was asked to persist stands. A BPF hold stands while others
    /// have its token. By backend swap header: `swapoff(2)`, then the file's first 8 KiB are put back.
    ///
    /// # Errors
    ///
    /// [`ReleaseError`]; of backend swap header, [`swap_header::release`] does what is left to do.
    pub fn release(self) -> Result<ReleaseReport, ReleaseError> {
        match self.kept {
            Kept::SwapHeader { heads, record } if !record.persists => {
                swap_header::finish(&heads, &record, &self.path, &self.file)
            }
            Kept::SwapHeader { .. } => Ok(ReleaseReport::of(self.path)),
            Kept::Bpf { host } => {
                drop((self.file, self.token));
                bpf::tidy(&host)?;
                Ok(ReleaseReport::of(self.path))
            }
        }
    }
}

impl AsFd for Hold {
    /// The token.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.token.as_fd()
    }
}

fn path_of(file: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// A name that leads to this file, for messages and commands.
fn name_of(file: BorrowedFd<'_>) -> PathBuf {
    let path = path_of(file);
    let own = std::fs::metadata(&path);
    let leads_to_it = |name: &PathBuf| match (std::fs::metadata(name), &own) {
        (Ok(it), Ok(own)) => (it.dev(), it.ino()) == (own.dev(), own.ino()),
        _ => false,
    };
    let name = std::fs::read_link(&path).ok();
    name.filter(leads_to_it).unwrap_or(path)
}

/// Attached is not enforced, and neither is active: try it.
fn prove(file: &File, path: &Path) -> Result<(), Refusal> {
    let answer = match swap::probe(file) {
        Probed::Refused => return Ok(()),
        Probed::Free => "EFBIG, as for a free file",
        Probed::Unknown => "neither ETXTBSY nor EFBIG",
    };
    let path = path.to_owned();
    Err(Refusal::Unproved { path, answer })
}

fn ask(what: &'static str) -> impl FnOnce(io::Error) -> Refusal {
    move |source| Refusal::Ask { what, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_file_is_named_as_long_as_a_name_leads_to_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let named = Hold::of_file(file.as_file());
        assert_eq!(named.path, file.path());
        assert!(named.find().is_ok());
        let open = file.reopen().unwrap();
        drop(file);
        let unnamed = Hold::of_file(&open);
        assert_eq!(unnamed.path, path_of(open.as_fd()));
        assert!(unnamed.find().is_ok());
    }
}
