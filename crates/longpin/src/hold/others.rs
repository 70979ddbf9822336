//! Who else may write to the file. The inode is asked; `/proc` only puts names to what it says, and what has no name
//! is refused all the same.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use longpin_bpf::answer::Answer;
use longpin_bpf::pinned::Pinned;
use longpin_bpf::shared::FileId;
use longpin_linux::mappings::Process;
use longpin_linux::swap::{Probed, probe, probe_collapse};
use longpin_linux::{flight, loops, tasks};
use rustix::fs::{SeekFrom, seek};

use super::bpf::{Candidate, identify};
use super::{Level, Refusal, ask};
use crate::activation::{CheckReport, Name, Reason};
use crate::filesystem::Family;
use crate::guard::{GuardError, Host, Running};

/// How long the kernel may take to close what somebody closed, or to move a mapping.
const SETTLING: Duration = Duration::from_secs(2);
/// Between two questions.
const GRAIN: Duration = Duration::from_millis(20);

/// What the forbidden act answered, before the hold stood.
pub(super) enum Tried {
    /// Nobody refuses it.
    Free,
    /// Somebody does: another hold, of this longpin or one with its own bpffs, or a swap file.
    Held,
    /// Because pages are pinned: the refusal, should that not end.
    Pinned(Box<Refusal>),
}

impl Candidate<'_> {
    /// The other's refusal must not be taken for this one's proof.
    pub(super) fn try_forbidden(&self, running: &Running) -> Result<Tried, Refusal> {
        let answer = match self.request.level {
            Level::Swapfile => probe_collapse(&self.file),
            Level::Layout => probe(&self.file),
        };
        if answer != Probed::Refused {
            return Ok(Tried::Free);
        }
        if self.is_held_explicitly(running)? {
            return Ok(Tried::Held);
        }
        Ok(match self.find_pins(running)? {
            None => Tried::Held,
            // Pins share with a layout hold.
            Some(_) if self.request.level == Level::Layout => Tried::Free,
            Some(refusal) => Tried::Pinned(Box::new(refusal)),
        })
    }

    /// Is there an explicit hold of the file that this longpin knows?
    fn is_held_explicitly(&self, running: &Running) -> Result<bool, Refusal> {
        let pinned = running.pinned();
        let file = self.identify_explicit(pinned)?;
        let rows = pinned.rows().map_err(GuardError::from)?;
        let is_it = |it: &FileId| (it.ino, it.dev) == (file.ino, file.dev);
        let mut rows = rows.iter();
        Ok(rows.any(|row| row.explicit.is_some() && is_it(&row.file)))
    }

    /// Operations in flight are found by looking at all tasks.
    pub(super) fn refuse_unseen(&self, host: &Host) -> Result<(), Refusal> {
        if tasks::sees_all().map_err(ask("whose processes are seen"))? {
            return Ok(());
        }
        // A reason that has a name is the better answer.
        if self.request.level == Level::Swapfile {
            self.refuse_mapped(host)?;
        }
        Err(Refusal::Namespace {
            path: self.request.path.clone(),
        })
    }

    /// C13: operations whose hooks had been asked before the hold was armed.
    pub(super) fn wait_until_landed(&self, host: &Host) -> Result<(), Refusal> {
        let path = || self.request.path.clone();
        let patience = self.request.wait.landing();
        let own = identify(Running::open(host)?.pinned(), &self.file)?;
        let late = flight::wait_until_landed(&self.file, patience, &|path| {
            shows_another(host, &own, path)
        });
        let late = late.map_err(ask("what other processes do"))?;
        if let Some(by) = late {
            return Err(Refusal::InFlight { path: path(), by });
        }
        // Direct I/O goes on without the task that began it.
        let deadline = Instant::now().checked_add(patience);
        loop {
            match self.count_direct(host)? {
                0 => return Ok(()),
                count if deadline.is_some_and(|end| Instant::now() > end) => {
                    return Err(Refusal::Direct {
                        path: path(),
                        count,
                    });
                }
                _ => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    fn count_direct(&self, host: &Host) -> Result<u32, Refusal> {
        let running = Running::look(host)?;
        let file = identify(running.pinned(), &self.file)?;
        let count = running.pinned().count_direct(&file);
        Ok(count.map_err(GuardError::from)?)
    }

    /// Stores through mappings and loop devices, writers inside the kernel and devices ask nobody.
    pub(super) fn refuse_others(&self, host: &Host) -> Result<(), Refusal> {
        if self.request.level != Level::Swapfile {
            return Ok(());
        }
        self.refuse_mapped(host)?;
        self.refuse_looped()?;
        self.refuse_kernel_writers(host)?;
        let deadline = Instant::now() + self.request.wait.landing();
        loop {
            match self.find_pins(&Running::open(host)?)? {
                None => return Ok(()),
                Some(refusal) if Instant::now() > deadline => return Err(refusal),
                Some(_) => std::thread::sleep(GRAIN),
            }
        }
    }

    /// Until it says so, or the time is up: the last answer.
    fn ask_until(
        &self,
        host: &Host,
        question: impl Fn(&Pinned, &FileId) -> Result<Answer, longpin_bpf::BpfError>,
        is_well: impl Fn(&Answer) -> bool,
    ) -> Result<Answer, Refusal> {
        let deadline = Instant::now() + SETTLING;
        loop {
            let running = Running::open(host)?;
            let file = identify(running.pinned(), &self.file)?;
            let answer = question(running.pinned(), &file).map_err(GuardError::from)?;
            if is_well(&answer) || Instant::now() > deadline {
                return Ok(answer);
            }
            drop(running);
            std::thread::sleep(GRAIN);
        }
    }

    fn refuse_mapped(&self, host: &Host) -> Result<(), Refusal> {
        let path = || self.request.path.clone();
        let is_well = |answer: &Answer| answer.all_mappings || !answer.mappers.is_empty();
        let answer = self.ask_until(host, Pinned::ask_inode, is_well)?;
        if answer.swap {
            return Err(Refusal::Busy { path: path() });
        }
        if !answer.mappers.is_empty() {
            let by = answer.mappers.into_iter();
            let by = by.map(|(pid, command)| Process { pid, command }).collect();
            return Err(Refusal::Mapped { path: path(), by });
        }
        if !answer.all_mappings {
            return Err(Refusal::Somebody {
                path: path(),
                may: "map it shared and writable",
            });
        }
        Ok(())
    }

    fn refuse_looped(&self) -> Result<(), Refusal> {
        let data = self.file.metadata().map_err(ask("what the file is"))?;
        let devices = loops::find_writable(data.dev(), data.ino());
        match devices.map_err(ask("which loop devices write to the file"))? {
            found if found.is_empty() => Ok(()),
            devices => Err(Refusal::Looped {
                path: self.request.path.clone(),
                devices,
            }),
        }
    }

    /// More writers than open files that anybody has: the others are the kernel's.
    fn refuse_kernel_writers(&self, host: &Host) -> Result<(), Refusal> {
        let question = |pinned: &Pinned, file: &FileId| {
            let answer = pinned.ask_inode(file)?;
            // Most often there is only the one of this process.
            if answer.writers <= 1 {
                return Ok(Answer {
                    openings: answer.writers,
                    ..answer
                });
            }
            pinned.count_openings()
        };
        let is_well = |answer: &Answer| answer.writers <= answer.openings;
        if is_well(&self.ask_until(host, question, is_well)?) {
            return Ok(());
        }
        Err(Refusal::Somebody {
            path: self.request.path.clone(),
            may: "have it open for writing inside the kernel",
        })
    }

    /// A device may write to pages that are pinned.
    fn find_pins(&self, running: &Running) -> Result<Option<Refusal>, Refusal> {
        let pinned = running.pinned();
        let file = identify(pinned, &self.file)?;
        let sight = pinned.inspect(&file, 0, u64::MAX);
        let pages = sight.map_err(GuardError::from)?.map_or(0, |it| it.pages);
        if pages == 0 {
            return Ok(None);
        }
        let rows = pinned.rows().map_err(GuardError::from)?;
        let rows = rows.into_iter();
        let of_it = rows.filter(|row| row.explicit.is_none() && row.file == file);
        let by = of_it.map(|row| Process {
            pid: row.tgid,
            command: row.command,
        });
        Ok(Some(Refusal::Pinned {
            path: self.request.path.clone(),
            pages,
            by: by.collect(),
        }))
    }

    /// userfaultfd(2) puts a page where the page cache has none, through a mapping that only reads.
    pub(super) fn refuse_holes(&self, mut report: CheckReport) -> Result<CheckReport, Refusal> {
        if self.request.level != Level::Swapfile || report.family != Family::Memory {
            return Ok(report);
        }
        let whole = self.file.metadata().map_err(ask("how large the file is"))?;
        let hole = seek(&self.file, SeekFrom::Hole(0));
        let hole = hole.map_err(|err| ask("where the file has holes")(err.into()))?;
        if hole >= whole.len() {
            return Ok(report);
        }
        report.reasons.push(Reason {
            first: Some(hole),
            ..Reason::whole(Name::Hole)
        });
        Err(Refusal::Unfit(Box::new(report)))
    }
}

/// Is the file behind what overlayfs or FUSE shows here certainly another one?
fn shows_another(host: &Host, own: &FileId, path: &Path) -> bool {
    let is_file = fs::metadata(path).map(|data| data.is_file());
    // Nothing else is opened: it may do more than to show what it is.
    match is_file {
        Ok(false) => return true,
        Err(_) => return false,
        Ok(true) => {}
    }
    let Ok(file) = File::open(path) else {
        return false;
    };
    // Only for the question: other commands do not wait for operations to land.
    let running = Running::open(host).ok();
    let found = running.and_then(|it| it.pinned().identify(&file).ok().flatten());
    found.is_some_and(|it| (it.ino, it.dev) != (own.ino, own.dev))
}
