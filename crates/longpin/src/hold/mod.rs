//! Holds that somebody asks for: the guarantee of an active swap file, for a file that is lent.
//!
//! [`Hold::on`] begins a request. The order is that of [`Request::acquire`]: the hold is armed first, in the
//! kernel; then what had begun before is waited for, what is only in memory is written, and the file is
//! judged. A refusal takes back what was armed.
//!
//! The hold ends with the last descriptor of its token, [`Hold::as_fd`], whoever is killed. Processes that have one
//! are the holder: they may map the file shared and writable.
//!
//! | | another layout hold | another swapfile hold |
//! |---|---|---|
//! | level layout | shares | is refused, or waits |
//! | level swapfile | is refused, or waits | is refused, or waits |

pub mod heads;
mod others;
mod refusal;
pub mod swap_header;
mod wait;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use longpin_bpf::explicit::{Entered, HoldRequest};
use longpin_bpf::pinned::Pinned;
use longpin_bpf::shared::FileId;
use longpin_bpf::{Mode, STRICT_HOLDS};
use longpin_linux::file::Found;
use longpin_linux::swap::{self, Probed};
use longpin_linux::{btrfs, probe};
use rustix::fs::{MemfdFlags, OFlags, memfd_create};

pub use longpin_bpf::shared::Level;
use others::Tried;
pub use refusal::Refusal;
pub use wait::Wait;

use crate::Enforcement;
use crate::activation::{self, ByteRange, CheckReport, CheckVerdict, Facts, Policy};
use crate::extents::{BlockMap, MapError, settle};
use crate::filesystem::Family;
use crate::guard::{self, GuardError, Host, Running};

/// Bytes of a page.
const PAGE: u64 = 4096;
/// Between two tries while another hold excludes this one.
const PATIENCE: Duration = Duration::from_millis(50);

/// What is asked for.
#[derive(Debug, Clone)]
#[must_use = "nothing is held until it is acquired"]
pub struct Request {
    path: PathBuf,
    range: Option<ByteRange>,
    level: Level,
    persist: bool,
    wait: Wait,
}

/// A hold that stands until it is dropped, unless others have its token.
#[derive(Debug)]
#[must_use = "dropping it ends the hold"]
pub struct Hold {
    file: File,
    token: File,
    report: CheckReport,
    enforcement: Enforcement,
    host: Host,
}

impl Hold {
    /// A request for a hold on this file: the whole of it, level swapfile, without waiting.
    pub fn on(path: &Path) -> Request {
        Request {
            path: path.to_owned(),
            range: None,
            level: Level::Swapfile,
            persist: false,
            wait: Wait::No,
        }
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

    /// The file, open for reading and writing.
    #[must_use]
    pub const fn file(&self) -> &File {
        &self.file
    }

    /// The token: an empty file in memory that may be written, and inherited.
    #[must_use]
    pub const fn token(&self) -> &File {
        &self.token
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

    /// End it, and what only it needed in the kernel. It stands while others have the token.
    ///
    /// # Errors
    ///
    /// [`GuardError`].
    pub fn release(self) -> Result<(), GuardError> {
        let host = self.host.clone();
        drop(self);
        tidy(&host)
    }
}

impl AsFd for Hold {
    /// The token.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.token.as_fd()
    }
}

/// Remove from the kernel what explicit holds needed and need no longer.
fn tidy(host: &Host) -> Result<(), GuardError> {
    match Running::open(host) {
        Ok(running) => guard::settle_holds(&running),
        Err(GuardError::NotRunning) => Ok(()),
        Err(err) => Err(err),
    }
}

/// A request whose file was opened and found possible.
struct Candidate {
    request: Request,
    file: File,
    token: File,
    policy: Policy,
}

impl Request {
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

    /// The hold does not end with its token, but when it is released.
    pub const fn persist(mut self, persist: bool) -> Self {
        self.persist = persist;
        self
    }

    /// How long to wait for another hold to end.
    pub const fn wait(mut self, wait: Wait) -> Self {
        self.wait = wait;
        self
    }

    /// Arm the hold, wait for what began before, write back, judge.
    ///
    /// # Errors
    ///
    /// [`Refusal`]: file and system are as they were.
    pub fn acquire(self, host: &Host) -> Result<Hold, Refusal> {
        let candidate = self.open()?;
        let enforcement = match candidate.arm(host) {
            Ok(enforcement) => enforcement,
            Err(refusal) => {
                // The refusal is what counts.
                drop(candidate);
                let _ = tidy(host);
                return Err(refusal);
            }
        };
        let judged = candidate.judge(host);
        match judged.and_then(|report| candidate.publish(host).map(|()| report)) {
            Ok(report) => Ok(Hold {
                file: candidate.file,
                token: candidate.token,
                report,
                enforcement,
                host: host.clone(),
            }),
            Err(refusal) => {
                candidate.give_up(host);
                Err(refusal)
            }
        }
    }

    fn open(self) -> Result<Candidate, Refusal> {
        let may = probe::may_make_immutable().map_err(ask("what this process may do"))?;
        if !may {
            return Err(Refusal::NoPrivilege);
        }
        let opened = |source| Refusal::Open {
            path: self.path.clone(),
            source,
        };
        let found = Found::at(&self.path).map_err(opened)?;
        let report = activation::check_found(&found, &self.path, Policy::Pages, self.range);
        let report = report.map_err(opened)?;
        if report.verdict() != CheckVerdict::Yes {
            return Err(Refusal::Unfit(Box::new(report)));
        }
        let file = found.open(OFlags::RDWR).map_err(opened)?;
        let policy = self.policy(&file)?;
        // What CMD inherits: no MFD_CLOEXEC.
        let token = memfd_create(
            token_name(&file).map_err(opened)?,
            MemfdFlags::ALLOW_SEALING,
        )
        .map_err(|err| ask("for a token")(err.into()))?;
        Ok(Candidate {
            request: self,
            file,
            token: token.into(),
            policy,
        })
    }

    fn policy(&self, file: &File) -> Result<Policy, Refusal> {
        let facts = Facts::read(file).map_err(ask("what the file is"))?;
        if facts.active_swap {
            return Err(Refusal::Busy {
                path: self.path.clone(),
            });
        }
        Ok(policy_of(&facts, self.level))
    }
}

/// Says whose token it is: the kernel module refuses another file's (`kmod/lend.c`).
fn token_name(file: &File) -> io::Result<String> {
    let data = file.metadata()?;
    Ok(format!("longpin-hold:{:x}:{:x}", data.dev(), data.ino()))
}

/// By which checks a file is held.
pub(crate) const fn policy_of(facts: &Facts, level: Level) -> Policy {
    let strict = matches!(level, Level::Swapfile);
    match facts.fs.family {
        _ if facts.status.attributes.dax => Policy::Dax,
        Family::Memory => Policy::Pages,
        _ if strict => Policy::Blocks,
        _ => Policy::Pages,
    }
}

impl Candidate {
    /// From its return on, operations that begin are refused.
    fn arm(&self, host: &Host) -> Result<Enforcement, Refusal> {
        let deadline = match self.request.wait {
            Wait::No => Some(Instant::now()),
            Wait::For(time) => Instant::now().checked_add(time),
            Wait::Forever => None,
        };
        let pinned_until = Instant::now() + self.request.wait.landing();
        loop {
            let running = Running::open_for_holds(host)?;
            let enforcement = self.attach(&running)?;
            let entered = match self.try_forbidden(&running)? {
                Tried::Free => self.enter(&running)?,
                Tried::Held => Entered::Busy,
                Tried::Pinned(_) if Instant::now() < pinned_until => {
                    drop(running);
                    std::thread::sleep(PATIENCE);
                    continue;
                }
                Tried::Pinned(refusal) => return Err(*refusal),
            };
            match entered {
                Entered::Done => return Ok(enforcement),
                Entered::NoRoom => return Err(Refusal::NoRoom),
                Entered::Busy if deadline.is_some_and(|end| Instant::now() >= end) => {
                    return Err(Refusal::Busy {
                        path: self.request.path.clone(),
                    });
                }
                Entered::Busy => {
                    drop(running);
                    std::thread::sleep(PATIENCE);
                }
            }
        }
    }

    fn attach(&self, running: &Running) -> Result<Enforcement, Refusal> {
        if running.pinned().is_silent().map_err(GuardError::from)? {
            return Err(Refusal::Silent);
        }
        if running.pinned().state().mode() == Mode::Audit {
            return Err(Refusal::Audit);
        }
        if self.request.level == Level::Swapfile {
            if let Some(program) = running.lacks_for_level_swapfile()? {
                return Err(Refusal::Kernel { program });
            }
            let strict = &running.pinned().state().strict;
            strict.fetch_or(STRICT_HOLDS, Ordering::AcqRel);
        }
        Ok(running.enforcement_of_holds(self.request.level)?)
    }

    fn enter(&self, running: &Running) -> Result<Entered, Refusal> {
        let entry = self.entry(running.pinned())?;
        Ok(running
            .pinned()
            .enter_hold(&entry)
            .map_err(GuardError::from)?)
    }

    /// It is judged: one step, after which it is listed, and persists if it is to.
    fn publish(&self, host: &Host) -> Result<(), Refusal> {
        let running = Running::open(host)?;
        let entry = self.entry(running.pinned())?;
        match running.pinned().publish(&entry).map_err(GuardError::from)? {
            true => Ok(()),
            // Released meanwhile.
            false => Err(Refusal::Released {
                path: self.request.path.clone(),
            }),
        }
    }

    fn entry(&self, pinned: &Pinned) -> Result<HoldRequest, Refusal> {
        Ok(HoldRequest {
            file: self.identify_explicit(pinned)?,
            level: self.request.level,
            range: self.pages(),
            token: identify(pinned, &self.token)?.inode,
            persists: self.request.persist,
        })
    }

    /// On btrfs a hold knows its file by its subvolume, too.
    fn identify_explicit(&self, pinned: &Pinned) -> Result<FileId, Refusal> {
        let family = Facts::read(&self.file)
            .map_err(ask("what the file is"))?
            .fs
            .family;
        if family != Family::Btrfs {
            return identify(pinned, &self.file);
        }
        pinned.learn_beside_inodes();
        let file = identify(pinned, &self.file)?;
        let number = btrfs::subvolume(&self.file).map_err(MapError::from)?;
        let is_known = u64::from(file.generation) == number;
        if self.request.level == Level::Swapfile && !is_known {
            return Err(Refusal::Subvolume {
                path: self.request.path.clone(),
                number,
            });
        }
        Ok(file)
    }

    /// Page indexes, both inclusive.
    fn pages(&self) -> (u64, u64) {
        match self.request.range {
            Some(range) if self.request.level == Level::Layout => {
                let end = range.offset.saturating_add(range.len).max(1);
                (range.offset / PAGE, (end - 1) / PAGE)
            }
            _ => (0, (u64::MAX >> 12) - 1),
        }
    }

    /// Nobody is in the middle of changing the file, and it is fit.
    fn judge(&self, host: &Host) -> Result<CheckReport, Refusal> {
        self.refuse_unseen(host)?;
        self.wait_until_landed(host)?;
        if self.request.level == Level::Swapfile {
            self.prove()?;
        }
        settle(&self.file).map_err(ask("whether the file is written"))?;
        self.refuse_others(host)?;
        let before = self.digest()?;
        let Self { request, file, .. } = self;
        let report = activation::check_file(file, &request.path, self.policy, request.range)
            .map_err(ask("whether the file is fit"))?;
        if report.verdict() != CheckVerdict::Yes {
            return Err(Refusal::Unfit(Box::new(report)));
        }
        let report = self.refuse_holes(report)?;
        if self.digest()? != before {
            return Err(Refusal::Moved {
                path: request.path.clone(),
            });
        }
        if request.level == Level::Swapfile {
            // Last of all: nothing else refuses any more.
            activation::clear_preallocated(file).map_err(ask(activation::STAYS))?;
        }
        Ok(report)
    }

    fn prove(&self) -> Result<(), Refusal> {
        try_it(&self.file).map_err(|answer| Refusal::Unproved {
            path: self.request.path.clone(),
            answer,
        })
    }

    /// Of the block map, where there is one.
    fn digest(&self) -> Result<Option<u64>, Refusal> {
        if self.policy == Policy::Pages {
            return Ok(None);
        }
        let facts = Facts::read(&self.file).map_err(ask("what the file is"))?;
        let map = BlockMap::open(&self.file, &facts.status)?;
        Ok(Some(map.digest(&(0..facts.status.size))?))
    }

    /// What is not published ends with its token, also if it was to persist. By the token's address nobody may look for it:
    /// holds that persist bear those of tokens that have gone.
    fn give_up(self, host: &Host) {
        drop(self);
        // Best effort: the refusal is what counts, and what could not be taken back is listed.
        let _ = tidy(host);
    }
}

/// Attached is not enforced: try it. What a file answers that is not held, after all.
fn try_it(file: &File) -> Result<(), String> {
    match swap::probe(file) {
        Probed::Refused => Ok(()),
        Probed::Free => Err("EFBIG, as for a free file".into()),
        Probed::Unknown => Err("neither ETXTBSY nor EFBIG".into()),
    }
}

fn identify(pinned: &Pinned, file: &File) -> Result<FileId, Refusal> {
    let found = pinned.identify(file).map_err(GuardError::from)?;
    found.ok_or_else(|| ask("which inode a file is")(io::ErrorKind::Unsupported.into()))
}

fn ask(what: &'static str) -> impl FnOnce(io::Error) -> Refusal {
    move |source| Refusal::Ask { what, source }
}
