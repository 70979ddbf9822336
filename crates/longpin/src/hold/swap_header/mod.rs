//! Holds without BPF: the kernel is told to swap to the file, and gives it an active swap file's guarantee itself.
//!
//! The file's first page gets a swap header that says: one page. So the kernel uses 8 KiB ([`GIVEN_UP`]), the header
//! and one slot, and protects all of the file. A header without a usable slot is refused ("Empty swap-file"), so the
//! slot may get a page of somebody's memory; it comes back at the end. What was in the 8 KiB is kept
//! ([`super::heads`]) and put back.
//!
//! The order of an acquisition, and what a kill leaves:
//!
//! | step | a kill leaves |
//! |---|---|
//! | checks (policies swap and blocks), a lease | nothing |
//! | the 8 KiB are kept, on the disk | a record; the file as it was |
//! | the header is written | a record; the file with a header, not held |
//! | `swapon(2)` | the hold |
//! | checks once more: nobody can change the file now | the hold |
//!
//! It ends in the opposite order, and whatever a kill leaves, [`release`] goes on from there.

mod end;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::Instant;

use longpin_linux::file::{self, Found, Kind, Lease, Version};
use longpin_linux::swap::{self, SwapError};
use longpin_linux::{arch, mappings, probe};
use rustix::fs::OFlags;
use rustix::io::Errno;

pub(super) use end::finish;
pub use end::{find_by_path, release};

use super::heads::{self, HEAD, Heads, Record};
use super::{Hold, Kept, Level, PATIENCE, Refusal, Request, ask, prove};
use crate::Enforcement;
use crate::activation::{self, CheckReport, CheckVerdict, Facts, Name, Policy};
use crate::extents::{BlockMap, Extent, Place};
use crate::swapfile::{self, ActivateError, UUID};

/// What of a held file is not the holder's: the header, and the slot.
pub const GIVEN_UP: Range<u64> = 0..HEAD as u64;
/// Pages that the header names: its own, and the slot.
const PAGES: u64 = 2;

/// How a hold by swap header is made.
#[derive(Debug, Clone, Default)]
pub struct SwapHeader {
    heads: Heads,
    overwrite_head: bool,
}

impl SwapHeader {
    /// Keep records somewhere else.
    #[must_use]
    pub fn heads(mut self, heads: Heads) -> Self {
        self.heads = heads;
        self
    }

    /// Also when there is data in the first 8 KiB: it is not to be had while the hold stands.
    #[must_use]
    pub const fn overwrite_head(mut self, yes: bool) -> Self {
        self.overwrite_head = yes;
        self
    }
}

/// Check, keep the head, write the header, `swapon(2)`, check again.
pub(super) fn acquire(request: &Request<'_>, options: &SwapHeader) -> Result<Hold, Refusal> {
    let not_offered = |what| Err(Refusal::NotOffered { what });
    if request.level != Level::Swapfile {
        return not_offered("level layout");
    }
    if request.range.is_some() {
        return not_offered("a range");
    }
    if !probe::may_load_lsm_programs().map_err(ask("what this process may do"))? {
        return Err(Refusal::NoPrivilege {
            hold: "a hold by swap header",
            capability: "CAP_SYS_ADMIN",
        });
    }
    let deadline = request.wait.deadline();
    let candidate = Candidate { request, options };
    loop {
        match candidate.try_once() {
            Err(Refusal::Busy { .. }) if deadline.is_none_or(|end| Instant::now() < end) => {
                std::thread::sleep(PATIENCE);
            }
            done => return done,
        }
    }
}

/// A request, and how.
struct Candidate<'a> {
    request: &'a Request<'a>,
    options: &'a SwapHeader,
}

impl Candidate<'_> {
    fn try_once(&self) -> Result<Hold, Refusal> {
        let opened = self.request.not_opened();
        let lock = self.options.heads.lock().map_err(self.keep())?;
        let found = self.request.find()?;
        if found.kind().map_err(opened)? == Kind::Regular {
            self.refuse_held(&found)?;
        }
        for policy in [Policy::Swap, Policy::Blocks] {
            let report = activation::check_found(&found, &self.request.path, policy, None);
            fit(report.map_err(opened)?)?;
        }
        let file = found.open(OFlags::RDWR).map_err(opened)?;
        let (record, token, version) = self.put_header(&file, &lock)?;
        Ok(Hold {
            path: self.request.path.clone(),
            report: self.activate(&found, &file, &record, version)?,
            enforcement: Enforcement::Full,
            file,
            token,
            kept: Kept::SwapHeader {
                heads: self.options.heads.clone(),
                record,
            },
        })
    }

    /// Held already. What a crash left of another hold is put right.
    fn refuse_held(&self, found: &Found) -> Result<(), Refusal> {
        let path = || self.request.path.clone();
        let opened = self.request.not_opened();
        let file = &found.open(OFlags::RDONLY).map_err(opened)?;
        let facts = Facts::read(file).map_err(ask("what the file is"))?;
        let records = self.options.heads.read_all().map_err(self.keep())?;
        let mut records = records.into_iter();
        let record = records.find(|record| end::bears(file, record).unwrap_or(false));
        match record {
            Some(_) if facts.active_swap => Err(Refusal::Busy { path: path() }),
            None if facts.active_swap => Err(Refusal::ActiveSwap { path: path() }),
            Some(record) => {
                let id = record.id();
                let left = |source| Refusal::Left {
                    path: path(),
                    id,
                    source,
                };
                end::refuse_alive(&self.options.heads, &record).map_err(left)?;
                let file = found.open(OFlags::RDWR).map_err(opened)?;
                let undone = end::undo(&self.options.heads, &record, &self.request.path, &file);
                undone.map(drop).map_err(left)
            }
            None => Ok(()),
        }
    }

    /// Nobody else has the file open from before the look at its head until the header is there.
    fn put_header(&self, file: &File, lock: &File) -> Result<(Record, File, Version), Refusal> {
        let in_use = || Refusal::InUse {
            path: self.request.path.clone(),
        };
        let lease = Lease::take(file).map_err(ask("for a lease on the file"))?;
        let lease = lease.ok_or_else(in_use)?;
        self.refuse_slot_elsewhere(file)?;
        let mut head = vec![0; HEAD];
        file.read_exact_at(&mut head, 0)
            .map_err(ask("what is in the file"))?;
        if let Some(at) = head.iter().position(|&byte| byte != 0) {
            if !self.options.overwrite_head {
                return Err(Refusal::Data {
                    path: self.request.path.clone(),
                    at,
                });
            }
        }
        let (header, uuid) = self.new_header()?;
        let record = self.record(file, head, uuid)?;
        let token = self
            .options
            .heads
            .save(&record, lock)
            .map_err(self.keep())?;
        if !lease.is_whole().map_err(ask("for the lease"))? {
            self.options
                .heads
                .remove(record.id())
                .map_err(self.keep())?;
            return Err(in_use());
        }
        let written = file.write_all_at(&header, 0).and_then(|()| file.sync_all());
        let version = written.and_then(|()| file::status(file));
        let refused = |err| self.take_back(file, &record, refused_write(&self.request.path, err));
        Ok((record.clone(), token, version.map_err(refused)?.version))
    }

    /// With a UUID whose number no other record has.
    fn new_header(&self) -> Result<(Vec<u8>, [u8; 16]), Refusal> {
        loop {
            let header = swapfile::make_header(PAGES, None, None)?;
            let mut uuid = [0; 16];
            uuid.copy_from_slice(&header[UUID]);
            let taken = self.options.heads.find(heads::id_of(&uuid));
            if taken.map_err(self.keep())?.is_none() {
                return Ok((header, uuid));
            }
        }
    }

    fn record(&self, file: &File, head: Vec<u8>, uuid: [u8; 16]) -> Result<Record, Refusal> {
        let path =
            std::path::absolute(&self.request.path).unwrap_or_else(|_| self.request.path.clone());
        let pid = std::process::id();
        Ok(Record {
            uuid,
            path,
            inode: inode(file).map_err(ask("which inode the file is"))?,
            pid,
            command: mappings::name_process(pid).command,
            since: heads::now(),
            persists: self.request.persist,
            head,
        })
    }

    /// From its return on, the kernel holds the file.
    fn activate(
        &self,
        found: &Found,
        file: &File,
        record: &Record,
        version: Version,
    ) -> Result<CheckReport, Refusal> {
        let activated = swapfile::swap_on(&self.request.path, found);
        let judged = match activated {
            Ok(()) => self.judge(file, version),
            Err(err) => Err(self.not_activated(err)),
        };
        judged.map_err(|refusal| self.take_back(file, record, refusal))
    }

    /// The kernel swaps to whole pages of the device, counted in the order of the file: the second one is the slot. It is
    /// the file's second page only if the first two begin where pages of the device do, which blocks smaller than a page
    /// need not; else swap would overwrite what is not given up.
    fn refuse_slot_elsewhere(&self, file: &File) -> Result<(), Refusal> {
        let status = file::status(file).map_err(ask("what the file is"))?;
        let map = BlockMap::open(file, &status).map_err(ActivateError::from)?;
        for extent in map.located(&GIVEN_UP) {
            let extent = extent.map_err(ActivateError::from)?;
            if !is_of_pages(&extent) {
                return Err(Refusal::SlotElsewhere {
                    path: self.request.path.clone(),
                    at: extent.logical,
                });
            }
        }
        Ok(())
    }

    /// What nobody can change now.
    fn judge(&self, file: &File, version: Version) -> Result<CheckReport, Refusal> {
        let status = file::status(file).map_err(ask("what the file is"))?;
        // Somebody wrote to it after the lease was given back, perhaps to its head.
        if status.version != version {
            return Err(Refusal::Changed {
                path: self.request.path.clone(),
            });
        }
        let mut report = activation::check_file(file, &self.request.path, Policy::Blocks, None)
            .map_err(ask("whether the file is fit"))?;
        let reasons = &mut report.reasons;
        reasons.retain(|reason| reason.name != Name::ActiveSwap);
        let report = fit(report)?;
        self.refuse_slot_elsewhere(file)?;
        prove(file, &self.request.path)?;
        Ok(report)
    }

    /// Undo what was done. The refusal is what there is to tell; what could not be undone, `longpin ls` lists.
    fn take_back(&self, file: &File, record: &Record, refusal: Refusal) -> Refusal {
        let mut record = record.clone();
        if let Refusal::Changed { .. } = refusal {
            // The newer bytes of the slot are the file's.
            let _ = file.read_exact_at(
                &mut record.head[rustix::param::page_size()..],
                arch::page_size(),
            );
        }
        if end::bears(file, &record).unwrap_or(true) {
            let _ = end::undo(&self.options.heads, &record, &self.request.path, file);
        } else {
            // Without the header nothing was taken from the file.
            let _ = self.options.heads.remove(record.id());
        }
        refusal
    }

    fn not_activated(&self, err: ActivateError) -> Refusal {
        match err {
            ActivateError::Kernel {
                source: SwapError::NotPermitted,
                ..
            } => Refusal::NoSwapArea {
                path: self.request.path.clone(),
                active: swap::count_areas().ok().flatten().unwrap_or(0),
            },
            other => other.into(),
        }
    }

    fn keep(&self) -> impl FnOnce(io::Error) -> Refusal {
        let path = self.request.path.clone();
        move |source| Refusal::Keep { path, source }
    }
}

/// It begins and ends with a page, of the file and of the device.
fn is_of_pages(extent: &Extent) -> bool {
    let page = arch::page_size();
    let whole = extent.logical % page == 0 && extent.length % page == 0;
    match extent.place {
        Place::On { physical, .. } => whole && physical % page == 0,
        Place::Nowhere(_) => false,
    }
}

fn fit(report: CheckReport) -> Result<CheckReport, Refusal> {
    match report.verdict() {
        CheckVerdict::Yes => Ok(report),
        CheckVerdict::Refused | CheckVerdict::CannotTell => Err(Refusal::Unfit(Box::new(report))),
    }
}

/// Whoever holds it already by other means refuses the write.
fn refused_write(path: &Path, err: io::Error) -> Refusal {
    match Errno::from_io_error(&err) {
        Some(Errno::TXTBSY) => Refusal::ActiveSwap {
            path: path.to_owned(),
        },
        _ => Refusal::Ask {
            what: "whether the header is written",
            source: err,
        },
    }
}

fn inode(file: &File) -> io::Result<(u64, u64)> {
    let data = file.metadata()?;
    Ok((data.dev(), data.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extents::{BlockDevice, ExtentFlags, Unlocated};

    #[test]
    fn the_slot_is_the_second_page_only_where_pages_are_whole() {
        let extent = |logical, physical, length| Extent {
            logical,
            length,
            flags: ExtentFlags::default(),
            place: Place::On {
                device: BlockDevice(7, 0),
                physical,
            },
        };
        assert!(is_of_pages(&extent(0, 1 << 20, 8192)));
        assert!(is_of_pages(&extent(4096, 12288, 4096)));
        assert!(!is_of_pages(&extent(0, (1 << 20) + 1024, 8192)));
        assert!(!is_of_pages(&extent(0, 1 << 20, 5120)));
        assert!(!is_of_pages(&extent(5120, 1 << 20, 3072)));
        let nowhere = Extent {
            place: Place::Nowhere(Unlocated::Inline),
            ..extent(0, 0, 8192)
        };
        assert!(!is_of_pages(&nowhere));
    }
}
