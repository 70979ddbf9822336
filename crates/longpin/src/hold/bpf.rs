//! Holds by BPF programs.
//!
//! The hold is armed first, in the kernel; then what had begun before is waited for, what is only in memory is written,
//! and the file is judged. A refusal takes back what was armed.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::Ordering;
use std::time::Instant;

use longpin_bpf::explicit::{Entered, HoldRequest};
use longpin_bpf::pinned::Pinned;
use longpin_bpf::shared::FileId;
use longpin_bpf::{Mode, STRICT_HOLDS};
use longpin_linux::{arch, btrfs, probe};
use rustix::fs::{MemfdFlags, OFlags, memfd_create};

use super::others::Tried;
use super::{Hold, Kept, Level, PATIENCE, Refusal, Request, ask, prove};
use crate::Enforcement;
use crate::activation::{self, CheckReport, CheckVerdict, Facts, Policy};
use crate::extents::{BlockMap, MapError, settle};
use crate::filesystem::Family;
use crate::guard::{self, GuardError, Host, Running};

/// Remove from the kernel what explicit holds needed and need no longer.
pub(super) fn tidy(host: &Host) -> Result<(), GuardError> {
    match Running::open(host) {
        Ok(running) => guard::settle_holds(&running),
        Err(GuardError::NotRunning) => Ok(()),
        Err(err) => Err(err),
    }
}

/// A request whose file was opened and found possible.
pub(super) struct Candidate<'file> {
    pub(super) request: Request<'file>,
    pub(super) file: File,
    token: File,
    policy: Policy,
}

/// Arm the hold, wait for what began before, write back, judge.
pub(super) fn acquire(request: Request<'_>, host: &Host) -> Result<Hold, Refusal> {
    let candidate = Candidate::open(request)?;
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
            path: candidate.request.path,
            file: candidate.file,
            token: candidate.token,
            report,
            enforcement,
            kept: Kept::Bpf { host: host.clone() },
        }),
        Err(refusal) => {
            candidate.give_up(host);
            Err(refusal)
        }
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

impl<'file> Candidate<'file> {
    fn open(request: Request<'file>) -> Result<Self, Refusal> {
        let may = probe::may_make_immutable().map_err(ask("what this process may do"))?;
        if !may {
            return Err(Refusal::NoPrivilege {
                hold: "a hold",
                capability: "CAP_LINUX_IMMUTABLE",
            });
        }
        let opened = request.not_opened();
        let found = request.find()?;
        let report = activation::check_found(&found, &request.path, Policy::Pages, request.range);
        let report = report.map_err(opened)?;
        if report.verdict() != CheckVerdict::Yes {
            return Err(Refusal::Unfit(Box::new(report)));
        }
        let file = found.open(OFlags::RDWR).map_err(opened)?;
        let facts = Facts::read(&file).map_err(ask("what the file is"))?;
        if facts.active_swap {
            return Err(Refusal::Busy { path: request.path });
        }
        // What CMD inherits: no MFD_CLOEXEC.
        let name = token_name(&file).map_err(opened)?;
        let token = memfd_create(name, MemfdFlags::ALLOW_SEALING)
            .map_err(|err| ask("for a token")(err.into()))?;
        Ok(Self {
            policy: policy_of(&facts, request.level),
            request,
            file,
            token: token.into(),
        })
    }

    /// From its return on, operations that begin are refused.
    fn arm(&self, host: &Host) -> Result<Enforcement, Refusal> {
        let deadline = self.request.wait.deadline();
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
    pub(super) fn identify_explicit(&self, pinned: &Pinned) -> Result<FileId, Refusal> {
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
                (
                    range.offset / arch::page_size(),
                    (end - 1) / arch::page_size(),
                )
            }
            _ => (0, (u64::MAX >> arch::page_shift()) - 1),
        }
    }

    /// Nobody is in the middle of changing the file, and it is fit.
    fn judge(&self, host: &Host) -> Result<CheckReport, Refusal> {
        self.refuse_unseen(host)?;
        self.wait_until_landed(host)?;
        if self.request.level == Level::Swapfile {
            prove(&self.file, &self.request.path)?;
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

pub(super) fn identify(pinned: &Pinned, file: &File) -> Result<FileId, Refusal> {
    let found = pinned.identify(file).map_err(GuardError::from)?;
    found.ok_or_else(|| ask("which inode a file is")(io::ErrorKind::Unsupported.into()))
}
