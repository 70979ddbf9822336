//! May this file be held, lent or swapped to? The checks that swap activation makes, as one judgement
//! with several policies.
//!
//! | | pages | swap | blocks, dax |
//! |---|---|---|---|
//! | directories, devices, other people's and self-moving file systems, deleted files | no | no | no |
//! | tmpfs, hugetlbfs | yes | no | no |
//! | read-only | yes | no | no |
//! | blocks larger than a page | yes | no | yes |
//! | immutable, append-only | yes | no | yes |
//! | holes, shared, inline, encoded extents, a second device | yes | no | no |
//! | btrfs: extents not younger than a snapshot, also one that is gone | yes | yes | no |
//! | unwritten extents | yes | yes | no |
//! | btrfs: copy on write; xfs: a real-time file on zoned devices | yes | no | no |
//! | ext4: data through the journal | yes | yes | no |
//! | btrfs: chunks move now / scrub, autodefrag, automatic reclaim | yes | no / yes | no |
//! | f2fs: not pinned / pinned in shared sections | yes | yes: activation pins it | no |
//!
//! For `pages`, a file of the page cache gets a yes; a DAX file has no page cache, and is judged by
//! policy `dax`. The kernel's swapon(2) is the oracle of policy `swap`.

mod facts;
mod hint;
mod judge;
mod reason;
mod stay;

use longpin_linux::arch;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use longpin_linux::btrfs::{self, BtrfsError};
use longpin_linux::fiemap::FiemapError;
use longpin_linux::file::{self, Found, Kind};
use rustix::fs::OFlags;

pub use facts::{Facts, Gap};
pub use hint::quote;
pub use reason::{Name, Reason};
pub use stay::moving_blocks;
pub(crate) use stay::{STAYS, clear_preallocated};

use crate::extents::{BlockMap, MapError, settle};
use crate::filesystem::Family;
use judge::{Walk, whole_file};

/// How often a file that changes is looked at anew.
const ATTEMPTS: usize = 3;

/// What the file is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Policy {
    /// Its pages stay pinned.
    Pages,
    /// The kernel swaps to it.
    Swap,
    /// A device reads and writes its blocks.
    Blocks,
    /// A device reads and writes its DAX memory, which is its blocks.
    Dax,
}

impl Policy {
    /// The name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pages => "pages",
            Self::Swap => "swap",
            Self::Blocks => "blocks",
            Self::Dax => "dax",
        }
    }
}

/// A range as a user asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRange {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// The judgement.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckReport {
    /// The file.
    pub path: PathBuf,
    /// The policy that was applied.
    pub policy: Policy,
    /// What was judged, in bytes.
    pub range: Range<u64>,
    /// Its file system.
    pub fs: String,
    /// Its file system's family.
    pub family: Family,
    /// What speaks against it; empty for a yes.
    pub reasons: Vec<Reason>,
    /// What could not be found out; then an empty list of reasons is no yes.
    pub unknown: Option<String>,
    /// Extents that were looked at; 0 where the blocks do not matter.
    pub extents: u64,
}

/// Yes, no, or neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckVerdict {
    /// The file is fit.
    Yes,
    /// It is not.
    Refused,
    /// That could not be found out.
    CannotTell,
}

impl CheckReport {
    /// The verdict.
    #[must_use]
    pub fn verdict(&self) -> CheckVerdict {
        match (self.reasons.is_empty(), &self.unknown) {
            (false, _) => CheckVerdict::Refused,
            (true, Some(_)) => CheckVerdict::CannotTell,
            (true, None) => CheckVerdict::Yes,
        }
    }

    pub(crate) fn has(&self, name: Name) -> bool {
        self.reasons.iter().any(|reason| reason.name == name)
    }

    /// There are no blocks to look at.
    #[must_use]
    pub fn fs_is_memory(&self) -> bool {
        self.family == Family::Memory
    }

    /// Whose file an overlay shows: only a guard knows.
    pub fn name_layer(&mut self, path: &Path) {
        let is_it = |reason: &&mut Reason| reason.name == Name::Overlay;
        if let Some(reason) = self.reasons.iter_mut().find(is_it) {
            reason.detail = Some(format!("{}{}", judge::SHOWS, path.display()));
        }
    }

    /// Commands that cure what speaks against it, each once.
    #[must_use]
    pub fn hints(&self) -> Vec<String> {
        let mut hints = Vec::new();
        // A copy as small would lie among metadata again.
        let is_small = self.family == Family::Btrfs && self.has(Name::Inline);
        let copies = |name| matches!(name, Name::CopyOnWrite | Name::Compressed | Name::Encoded);
        let hint = |reason: &Reason| reason.hint(&self.path, self.family);
        let reasons = self.reasons.iter();
        let reasons = reasons.filter(|reason| !(is_small && copies(reason.name)));
        for hint in reasons.filter_map(hint) {
            if !hints.contains(&hint) {
                hints.push(hint);
            }
        }
        hints
    }
}

/// Why nothing could be said at all.
#[derive(Debug, thiserror::Error)]
#[error("cannot look at {}", path.display())]
pub struct CheckError {
    /// The file.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// Judge a file by name. It is not opened unless it is a regular file.
///
/// # Errors
///
/// The file cannot be found, opened or looked at.
pub fn check(
    path: &Path,
    policy: Policy,
    wanted: Option<ByteRange>,
) -> Result<CheckReport, CheckError> {
    let failed = |source| CheckError {
        path: path.to_owned(),
        source,
    };
    let found = Found::at(path).map_err(failed)?;
    check_found(&found, path, policy, wanted).map_err(failed)
}

/// Judge a file that was found; the path is for messages.
///
/// # Errors
///
/// It cannot be opened or looked at.
pub fn check_found(
    found: &Found,
    path: &Path,
    policy: Policy,
    wanted: Option<ByteRange>,
) -> io::Result<CheckReport> {
    let kind = found.kind()?;
    if kind != Kind::Regular {
        return Ok(not_regular(path, policy, kind));
    }
    let file = found.open(OFlags::RDONLY)?;
    check_file(&file, path, policy, wanted)
}

fn not_regular(path: &Path, policy: Policy, kind: Kind) -> CheckReport {
    CheckReport {
        path: path.to_owned(),
        policy,
        range: 0..0,
        fs: "-".to_owned(),
        family: Family::Unknown,
        reasons: vec![Reason::whole(Name::NotRegular).with(kind.name())],
        unknown: None,
        extents: 0,
    }
}

/// Judge an open regular file; the path is for messages. Nothing of the file is changed; what of it is
/// only in memory is written back, except for policy pages.
///
/// # Errors
///
/// What the system says when it cannot be asked.
pub fn check_file(
    file: &File,
    path: &Path,
    policy: Policy,
    wanted: Option<ByteRange>,
) -> io::Result<CheckReport> {
    attempt(file, path, policy, wanted, &mut || {})
}

/// `meanwhile` is what others do between the two looks.
fn attempt(
    file: &File,
    path: &Path,
    policy: Policy,
    wanted: Option<ByteRange>,
    meanwhile: &mut dyn FnMut(),
) -> io::Result<CheckReport> {
    let mut changed = None;
    for _ in 0..ATTEMPTS {
        if policy != Policy::Pages {
            // What is written back later would look like a change.
            settle(file)?;
        }
        let facts = Facts::read(file)?;
        let policy = match policy {
            Policy::Pages if facts.status.attributes.dax => Policy::Dax,
            other => other,
        };
        let report = judge(file, path, policy, &facts, wanted);
        meanwhile();
        if policy == Policy::Pages || file::status(file)?.version == facts.status.version {
            return Ok(report);
        }
        changed = Some(report);
    }
    let mut report = changed.ok_or_else(|| io::Error::other("no attempt was made"))?;
    report.reasons.push(Reason::whole(Name::Changed));
    Ok(report)
}

/// Judge the file for its pages, DAX or not: nothing is walked.
pub(crate) fn judge_pages(
    file: &File,
    path: &Path,
    facts: &Facts,
    wanted: Option<ByteRange>,
) -> CheckReport {
    judge(file, path, Policy::Pages, facts, wanted)
}

fn judge(
    file: &File,
    path: &Path,
    policy: Policy,
    facts: &Facts,
    wanted: Option<ByteRange>,
) -> CheckReport {
    let mut report = CheckReport {
        path: path.to_owned(),
        policy,
        range: 0..facts.status.size,
        fs: facts.fs.to_string(),
        family: facts.fs.family,
        reasons: whole_file(policy, facts),
        unknown: None,
        extents: 0,
    };
    match range_of(wanted, facts.status.size) {
        Ok(range) => report.range = range,
        Err(name) => report.reasons.push(Reason::whole(name)),
    }
    if report.range.is_empty() && policy != Policy::Swap {
        report.reasons.push(Reason::whole(Name::Empty));
    }
    if policy == Policy::Swap && facts.status.size < 2 * arch::page_size() {
        report.reasons.push(Reason::whole(Name::TooSmall));
    }
    if policy != Policy::Pages {
        report.unknown = facts.gap(policy == Policy::Swap).map(str::to_owned);
    }
    if policy == Policy::Swap && report.unknown.is_none() {
        report.unknown = judge::large_blocks(facts);
    }
    if facts.fs.family == Family::Unknown {
        report.unknown = Some(format!("{} is not known to longpin", facts.fs));
    } else if policy != Policy::Pages && has_blocks(facts.fs.family) && !report.range.is_empty() {
        walk(file, facts, &mut report);
    }
    report
}

const fn has_blocks(family: Family) -> bool {
    use Family::{Btrfs, Ext, F2fs, Fat, Xfs};
    matches!(family, Ext | Xfs | Btrfs | F2fs | Fat)
}

fn range_of(wanted: Option<ByteRange>, size: u64) -> Result<Range<u64>, Name> {
    let Some(ByteRange { offset, len }) = wanted else {
        return Ok(0..size);
    };
    let end = offset.checked_add(len).ok_or(Name::Overflow)?;
    // Offsets in a file are signed.
    i64::try_from(end).map_err(|_| Name::Overflow)?;
    if end > size {
        return Err(Name::BeyondEnd);
    }
    Ok(offset..end)
}

/// What is true of the whole file and speaks against it.
pub(crate) fn reasons_of_file(policy: Policy, facts: &Facts) -> Vec<Reason> {
    whole_file(policy, facts)
}

/// Goes over the map twice: another map at the second time is a change.
fn walk(file: &File, facts: &Facts, report: &mut CheckReport) {
    let mut range = report.range.clone();
    if report.policy == Policy::Swap {
        // The kernel swaps to whole pages; what is behind the last one does not matter.
        range.end -= range.end % arch::page_size();
    }
    let walked = BlockMap::open(file, &facts.status).and_then(|map| {
        let before = map.digest(&range)?;
        let extents = map.extents(&range);
        let (mut reasons, extents) =
            Walk::new(report.policy, facts, range.clone()).over(extents)?;
        if report.policy != Policy::Swap && !facts.copies_on_write() {
            reasons.extend(old(file, facts, &range)?);
        }
        Ok(((reasons, extents), before != map.digest(&range)?))
    });
    match walked {
        Ok(((reasons, extents), changed)) => {
            report.extents = extents;
            report.reasons.extend(reasons);
            if changed {
                report.reasons.push(Reason::whole(Name::Changed));
            }
        }
        Err(err) => explain(&err, report),
    }
}

/// btrfs: blocks that a snapshot had are not written in place, although nobody shares them any more.
fn old(file: &File, facts: &Facts, range: &Range<u64>) -> Result<Option<Reason>, MapError> {
    if facts.fs.family != Family::Btrfs {
        return Ok(None);
    }
    let old = btrfs::find_old(file, range, &mut |_| {})?;
    Ok((old.count > 0).then(|| Reason {
        count: old.count,
        bytes: old.bytes,
        first: Some(old.first),
        ..Reason::whole(Name::Snapshotted)
    }))
}

/// No map: refused for a reason of the file system's, or not known.
fn explain(err: &MapError, report: &mut CheckReport) {
    let refused = match err {
        MapError::ManyDevices => Some(Name::ForeignDevice),
        MapError::Fiemap(FiemapError::Unsupported) => None,
        MapError::Btrfs(BtrfsError::Malformed { .. }) => Some(Name::UnknownLocation),
        _ => None,
    };
    let text = with_causes(err);
    match refused {
        Some(name) => report.reasons.push(Reason::whole(name).with(text)),
        None => report.unknown = report.unknown.take().or(Some(text)),
    }
}

pub(crate) fn with_causes(err: &dyn std::error::Error) -> String {
    let mut text = err.to_string();
    let mut cause = err.source();
    while let Some(err) = cause {
        text += &format!(": {err}");
        cause = err.source();
    }
    text
}

#[cfg(test)]
mod tests;
