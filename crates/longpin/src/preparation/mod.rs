//! Make a file fit to be lent: every byte of it on blocks of its own, written, in place.
//!
//! | found | done |
//! |---|---|
//! | no file, with a size | created, mode 0600 |
//! | empty, btrfs | no copy on write (chattr +C) |
//! | empty, f2fs | pinned |
//! | smaller than the size | blocks behind the end, then zeroes, and the end moves with them |
//! | holes | blocks; f2fs: refused |
//! | shared blocks | unshared (xfs), written again (btrfs); elsewhere refused |
//! | btrfs: blocks as old as a snapshot, also one that is gone | written again |
//! | unwritten blocks | zeroes |
//!
//! Existing data is never changed: zeroes go only where the block map says that nothing was, and what is written again
//! are the same bytes. A lease keeps others from opening the file meanwhile, and a file that somebody has open is refused. Each step
//! leaves a file whose bytes are what they were, so a prepare that was killed is simply run again.

mod blocks;
mod error;
mod f2fs;
mod held;
mod immutable;
mod renew;
mod zeroes;

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use longpin_linux::attribute;
use longpin_linux::f2fs::pin;
use longpin_linux::file::{self, Found, Kind, Lease};
use rustix::fs::{IFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::activation::{self, CheckReport, CheckVerdict, Facts, Name, Policy};
use crate::extents::{self, BlockMap, ExtentFlags, MapError};
use crate::filesystem::Family;
pub use error::PrepareError;
use error::step;
pub use immutable::clear as make_mutable;
pub use zeroes::Method;
use zeroes::Zeroer;

/// `FS_NOCOMP_FL`: never compressed.
const NOCOMP: IFlags = IFlags::from_bits_retain(0x400);

/// What is wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct PrepareOptions {
    /// Grow the file to so many bytes; create it if there is none.
    pub size: Option<u64>,
    /// Set `FS_IMMUTABLE_FL` at the end.
    pub immutable: bool,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PrepareReport {
    /// Bytes of the file.
    pub size: u64,
    /// Bytes of zeroes that were written.
    pub zeroed: u64,
    /// Bytes that were unshared, or put on blocks of their own that no snapshot had.
    pub unshared: u64,
    /// How the zeroes were written.
    pub method: Method,
    /// How long that took.
    pub elapsed: Duration,
    /// False when there was nothing to do.
    pub changed: bool,
}

/// Make the file fit for policy blocks. `progress` is told bytes done and bytes in all.
///
/// # Errors
///
/// [`PrepareError`]; the file's bytes are then what they were, and prepare can be run again.
pub fn prepare(
    path: &Path,
    request: &PrepareOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<PrepareReport, PrepareError> {
    if let Some(done) = is_done(path, request)? {
        return Ok(done);
    }
    let (file, created) = open(path, request)?;
    let lease = Lease::take(&file).map_err(step("take a lease on the file", 0..0))?;
    let lease = lease.ok_or(PrepareError::InUse)?;
    let before = Before::read(&file, created)?;
    let done = prepare_leased(&file, &lease, path, request, progress);
    if done.is_err() && lease.is_whole().is_ok_and(|whole| whole) {
        before.restore(&file, path);
    }
    done
}

/// What a refusal leaves as it was.
struct Before {
    created: bool,
    size: u64,
    flags: Option<IFlags>,
}

impl Before {
    fn read(file: &File, created: bool) -> Result<Self, PrepareError> {
        let size = file
            .metadata()
            .map_err(step("look at the file", 0..0))?
            .len();
        let flags = file::flags(file).map_err(step("read the flags", 0..0))?;
        Ok(Self {
            created,
            size,
            flags,
        })
    }

    /// Nobody else has the file. If that fails, too, the first failure is the one to tell.
    fn restore(&self, file: &File, path: &Path) {
        if self.created && leads_to(path, file) {
            let _ = std::fs::remove_file(path);
            return;
        }
        let grown = file.metadata().is_ok_and(|data| data.len() > self.size);
        if grown && file.set_len(self.size).is_ok() {
            let _ = attribute::end_zeroing(file);
        }
        if self.size == 0 {
            let now = file::flags(file).ok().flatten();
            if let Some(flags) = self.flags.filter(|_| now != self.flags) {
                let _ = file::set_flags(file, flags);
            }
        }
    }
}

fn leads_to(path: &Path, file: &File) -> bool {
    let named = std::fs::symlink_metadata(path);
    let own = file.metadata();
    let (Ok(named), Ok(own)) = (named, own) else {
        return false;
    };
    (named.dev(), named.ino()) == (own.dev(), own.ino())
}

fn prepare_leased(
    file: &File,
    lease: &Lease<'_>,
    path: &Path,
    request: &PrepareOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<PrepareReport, PrepareError> {
    let size = file
        .metadata()
        .map_err(step("look at the file", 0..0))?
        .len();
    held::refuse_over_limit(request.size.unwrap_or(size))?;
    held::refuse_held(file, path)?;
    let facts = settle(file, path, request)?;
    let target = request.size.unwrap_or(facts.status.size);
    let mut done = fill(file, lease, &facts, target, progress).map_err(|err| match err {
        Failed::Incurable(reason) => PrepareError::Refused(Box::new(report(path, &facts, reason))),
        Failed::Other(err) => err,
    })?;
    file.sync_all().map_err(step("sync", 0..target))?;
    verify(file, path)?;
    if request.immutable {
        immutable::set(file, lease, target)?;
        done.changed = true;
    }
    Ok(done)
}

/// Nothing to do: then the file is not even opened for writing.
fn is_done(path: &Path, request: &PrepareOptions) -> Result<Option<PrepareReport>, PrepareError> {
    let failed = |source| PrepareError::Open {
        path: path.to_owned(),
        source,
    };
    let found = match Found::at(path) {
        Ok(found) => found,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(err) => return Err(failed(err)),
    };
    let kind = found.kind().map_err(failed)?;
    if kind != Kind::Regular {
        let path = path.to_owned();
        return Err(PrepareError::NotRegular { path, kind });
    }
    let file = found.open(OFlags::RDONLY).map_err(failed)?;
    let status = file::status(&file).map_err(failed)?;
    let wanted = request.size.unwrap_or(status.size) == status.size
        && (!request.immutable || status.attributes.immutable);
    let mut report = activation::check_file(&file, path, Policy::Blocks, None).map_err(failed)?;
    // To open a lower file for writing is to have it copied.
    if report.has(Name::Overlay) {
        report.reasons.retain(|reason| reason.name == Name::Overlay);
        return Err(PrepareError::Refused(Box::new(report)));
    }
    Ok(
        (wanted && report.verdict() == CheckVerdict::Yes).then_some(PrepareReport {
            size: status.size,
            zeroed: 0,
            unshared: 0,
            method: Method::WriteZeroes,
            elapsed: Duration::ZERO,
            changed: false,
        }),
    )
}

/// One descriptor for everything: a second one of ours would break the lease. And whether the file is new.
fn open(path: &Path, request: &PrepareOptions) -> Result<(File, bool), PrepareError> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let mode = Mode::RUSR | Mode::WUSR;
    let existing = rustix::fs::open(path, flags, mode);
    let (opened, created) = match (existing, request.size) {
        (Err(Errno::NOENT), Some(_)) => {
            let flags = flags | OFlags::CREATE | OFlags::EXCL;
            (rustix::fs::open(path, flags, mode), true)
        }
        (opened, _) => (opened, false),
    };
    match opened {
        Ok(opened) => Ok((File::from(opened), created)),
        Err(Errno::NOENT) if request.size.is_none() => Err(PrepareError::Missing {
            path: path.to_owned(),
        }),
        // Somebody else's lease; what else this could mean is no regular file, and was refused before.
        Err(Errno::AGAIN) => Err(PrepareError::InUse),
        Err(errno) => Err(PrepareError::Open {
            path: path.to_owned(),
            source: errno.into(),
        }),
    }
}

/// What has to be set while the file is empty is set; what cannot be cured is refused before that.
fn settle(file: &File, path: &Path, request: &PrepareOptions) -> Result<Facts, PrepareError> {
    let read = || Facts::read(file).map_err(step("look at the file", 0..0));
    let facts = read()?;
    let size = facts.status.size;
    let wanted = request.size.unwrap_or(size);
    if wanted < size {
        return Err(PrepareError::Shrink { size, wanted });
    }
    if wanted == 0 {
        let refused = report(path, &facts, Name::Empty);
        return Err(PrepareError::Refused(Box::new(refused)));
    }
    let found = activation::reasons_of_file(Policy::Blocks, &facts);
    let empty = facts.status.size == 0;
    let incurable = |name: Name| match name {
        Name::CopyOnWrite | Name::Compressed | Name::NotPinned => !empty,
        Name::Interrupted => false,
        _ => true,
    };
    let reasons: Vec<_> = found.into_iter().filter(|r| incurable(r.name)).collect();
    if !reasons.is_empty() {
        let mut refused = report(path, &facts, Name::Changed);
        refused.reasons = reasons;
        return Err(PrepareError::Refused(Box::new(refused)));
    }
    if empty && facts.copies_on_write() {
        // What a directory hands down is taken back first: both at once are refused.
        let compression = IFlags::COMPRESSED | NOCOMP;
        let flags = facts.flags.unwrap_or(IFlags::empty());
        let plain = flags - compression;
        let cleared = match flags == plain {
            true => Ok(()),
            false => file::set_flags(file, plain),
        };
        let set = cleared.and_then(|()| file::set_flags(file, plain | IFlags::NOCOW));
        set.map_err(step("switch copy on write off", 0..0))?;
    }
    if empty && facts.is_unpinned() {
        let pinned = pin(file).map_err(io::Error::other);
        pinned.map_err(step("pin the f2fs file", 0..0))?;
    }
    read()
}

fn report(path: &Path, facts: &Facts, name: Name) -> CheckReport {
    CheckReport {
        path: path.to_owned(),
        policy: Policy::Blocks,
        range: 0..facts.status.size,
        fs: facts.fs.to_string(),
        family: facts.fs.family,
        reasons: vec![activation::Reason::whole(name)],
        unknown: None,
        extents: 0,
    }
}

/// Why filling failed.
enum Failed {
    /// There is something that this file system does not cure.
    Incurable(Name),
    Other(PrepareError),
}

impl<E: Into<PrepareError>> From<E> for Failed {
    fn from(err: E) -> Self {
        Self::Other(err.into())
    }
}

/// What the map says is to be done.
#[derive(Debug, Default)]
struct Work {
    holes: u64,
    unwritten: u64,
    shared: u64,
    covered: u64,
}

fn survey(map: &BlockMap<'_>, size: u64) -> Result<Work, MapError> {
    let mut work = Work::default();
    for extent in map.extents(&(0..size)) {
        let extent = extent?;
        work.covered += extent.length;
        if is_unwritten(extent.flags) {
            work.unwritten += extent.length;
        }
        if extent.flags.any(ExtentFlags::SHARED) {
            work.shared += extent.length;
        }
    }
    work.holes = size.saturating_sub(work.covered);
    Ok(work)
}

const fn is_unwritten(flags: ExtentFlags) -> bool {
    flags.any(ExtentFlags::UNWRITTEN)
}

fn fill(
    file: &File,
    lease: &Lease<'_>,
    facts: &Facts,
    target: u64,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<PrepareReport, Failed> {
    let size = facts.status.size;
    // Whoever had the file open a moment ago may have written where the map says that nobody did.
    extents::settle(file).map_err(step("sync", 0..size))?;
    let map = BlockMap::open(file, &facts.status)?;
    let work = survey(&map, size)?;
    let family = facts.fs.family;
    if let Some(name) = is_incurable(family, &work) {
        return Err(Failed::Incurable(name));
    }
    let old = renew::count_old(file, family, size)?;
    let need = work.holes + work.shared.max(old) + (target - size);
    held::refuse_full(file, need, size..target)?;
    // Where there is no fallocate(2), holes get blocks when zeroes are written.
    let write_holes =
        family != Family::F2fs && !blocks::allocate(file, lease, &map, &work, size..target)?;
    let begin = Instant::now();
    renew::all(file, lease, &map, family, size, (work.shared, old))?;
    let all = work.holes + work.unwritten + (target - size);
    let mut zeroer = Zeroer::new(file, lease, all, progress);
    if write_holes {
        zero_holes(&map, size, &mut zeroer)?;
    }
    zero(file, &map, facts, target, &mut zeroer)?;
    let (zeroed, method) = zeroer.finish();
    file.sync_data().map_err(step("sync", 0..target))?;
    Ok(PrepareReport {
        size: target,
        zeroed,
        unshared: work.shared.max(old),
        method,
        elapsed: begin.elapsed(),
        changed: zeroed > 0 || work.holes + work.shared + old > 0,
    })
}

/// What nobody has written, and what is behind the end.
fn zero(
    file: &File,
    map: &BlockMap<'_>,
    facts: &Facts,
    target: u64,
    zeroer: &mut Zeroer<'_>,
) -> Result<(), PrepareError> {
    let size = facts.status.size;
    for extent in map.extents(&(0..size)) {
        let extent = extent?;
        if is_unwritten(extent.flags) {
            zeroer.fill(extent.logical..extent.logical + extent.length)?;
        }
    }
    match facts.fs.family {
        Family::F2fs => f2fs::grow(file, zeroer, facts, size..target),
        _ => zeroer.fill(size..target),
    }
}

/// Each part of the map is read before the holes in it are filled.
fn zero_holes(map: &BlockMap<'_>, size: u64, zeroer: &mut Zeroer<'_>) -> Result<(), PrepareError> {
    let mut next = 0;
    for extent in map.extents(&(0..size)) {
        let extent = extent?;
        zeroer.fill(next..extent.logical.max(next))?;
        next = extent.logical + extent.length;
    }
    zeroer.fill(next..size.max(next))
}

/// f2fs gives a pinned file blocks with whatever they hold: a hole would turn into that. And only xfs and btrfs write
/// what is shared to a new place.
const fn is_incurable(family: Family, work: &Work) -> Option<Name> {
    match family {
        Family::F2fs if work.holes > 0 => Some(Name::Hole),
        Family::Xfs | Family::Btrfs => None,
        _ if work.shared > 0 => Some(Name::Shared),
        _ => None,
    }
}

/// The check that a lender would make must say yes.
fn verify(file: &File, path: &Path) -> Result<(), PrepareError> {
    let report = activation::check_file(file, path, Policy::Blocks, None);
    let report = report.map_err(step("check the file", 0..0))?;
    match report.verdict() {
        CheckVerdict::Yes => Ok(()),
        CheckVerdict::Refused | CheckVerdict::CannotTell => {
            Err(PrepareError::Refused(Box::new(report)))
        }
    }
}

#[cfg(test)]
mod tests;
