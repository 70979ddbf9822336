//! What the plan depends on, asked of the file and the kernel.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use longpin_linux::memory::Sharing;
use longpin_linux::{devdax, fixed_buffer, kallsyms};
use rustix::fs::OFlags;

use super::device::plan_device;
use super::lack;
use super::{
    Access, Alternative, Device, KernelRules, Level, Medium, Plan, Question, Wish, decide,
};
use crate::activation::{self, ByteRange, CheckReport, CheckVerdict, Facts, Policy, Reason};
use crate::hold;

/// Only where pins for writing are asked whether the file system tracks dirty pages does this function exist.
const TRACKING: &str = "vma_needs_dirty_tracking";

/// Why no plan could be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The file cannot be looked at.
    #[error("cannot look at {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The kernel's rules cannot be found out.
    #[error("cannot find out {what}")]
    Kernel {
        /// What.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl KernelRules {
    /// Ask the running kernel; [`Self::rdma_always_writes`] only a device can tell, and false stands for it.
    ///
    /// # Errors
    ///
    /// [`PlanError::Kernel`].
    pub fn probe() -> Result<Self, PlanError> {
        let failed = |what| move |source| PlanError::Kernel { what, source };
        let tracks = kallsyms::has_function(TRACKING)
            .map_err(failed("which pins the kernel refuses (/proc/kallsyms)"))?;
        Ok(Self {
            refuses_tracked_writes: tracks,
            // Both came with 6.5: io_uring looked at files by itself until the pin functions did.
            io_uring_memory_only: !tracks,
            rdma_always_writes: false,
            io_uring: fixed_buffer::is_enabled().map_err(failed("whether io_uring is on"))?,
        })
    }
}

/// A plan for a file, with what it was made from.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Planned {
    /// What was asked.
    pub question: Question,
    /// The bytes.
    pub range: Range<u64>,
    /// The file system.
    pub fs: String,
    /// What will happen.
    pub plan: Plan,
    /// What would work instead of what is refused.
    pub alternatives: Vec<Alternative>,
    /// What could not be found out; then the plan is none.
    pub unknown: Option<String>,
}

impl Planned {
    /// Yes, refused, or neither.
    #[must_use]
    pub fn verdict(&self) -> CheckVerdict {
        match (self.plan.refusal(), &self.unknown) {
            (Some(_), _) => CheckVerdict::Refused,
            (None, Some(_)) => CheckVerdict::CannotTell,
            (None, None) => CheckVerdict::Yes,
        }
    }
}

/// What is asked of [`plan_file`] besides the file.
#[derive(Debug, Clone)]
pub struct PlanRequest {
    /// The bytes; `None`: all.
    pub wanted: Option<ByteRange>,
    /// How they are mapped.
    pub sharing: Sharing,
    /// What the device does.
    pub access: Access,
    /// Which kind of registration is wanted.
    pub wish: Wish,
    /// What the file is to be held at, at least. Level swapfile has the file checked, which writes it back.
    pub level: Level,
    /// For whom.
    pub device: Device,
    /// By which rules.
    pub kernel: KernelRules,
    /// Whether the file can be mapped for writing.
    pub may_write: bool,
    /// Bytes that may still be pinned.
    pub memlock: Option<u64>,
    /// If its pages are refused, look whether its blocks could be lent: that writes the file back.
    pub look_at_blocks: bool,
}

/// Plan for an open file; the path is for messages.
///
/// # Errors
///
/// [`PlanError::File`].
pub fn plan_file(file: &File, path: &Path, request: &PlanRequest) -> Result<Planned, PlanError> {
    let failed = |source| PlanError::File {
        path: path.to_owned(),
        source,
    };
    if let Some(device) = devdax::read(file).map_err(failed)? {
        return Ok(plan_device(&device, request));
    }
    let facts = Facts::read(file).map_err(failed)?;
    let (fit, fit_for_layout) = fitness(file, path, &facts, request).map_err(failed)?;
    let dax = facts.status.attributes.dax;
    let medium = Medium::of(facts.fs.magic, facts.fs.family, dax);
    let mut unfit = fit.reasons;
    let page = page_of(file).map_err(failed)?;
    unfit.extend(unaligned(&fit.range, facts.status.size, page));
    // That has a rule of its own.
    unfit.retain(|_| medium != Medium::Secret);
    let bytes = fit.range.end - fit.range.start;
    let mut question = Question {
        medium,
        fit_for_layout,
        may_write: request.may_write && !is_sealed(file),
        ..Question::of(request, unfit, bytes)
    };
    question.lack = lack::find(file, &fit.range, &question).map_err(failed)?;
    let mut plan = decide(&question);
    let is_page_rule = plan.refusal().is_some_and(|rule| !rule.errnos().is_empty());
    if request.look_at_blocks && is_page_rule {
        let lend = activation::check_file(file, path, Policy::Blocks, request.wanted);
        question.blocks = Some(lend.map_err(failed)?.verdict() == CheckVerdict::Yes);
        plan = decide(&question);
    }
    Ok(Planned {
        alternatives: Alternative::to(&question),
        unknown: unknown_of(medium, fit.unknown).or_else(|| counts_more(&question, &fit.range)),
        range: fit.range,
        fs: fit.fs,
        question,
        plan,
    })
}

/// The checks, and whether the file would pass those of level layout.
fn fitness(
    file: &File,
    path: &Path,
    facts: &Facts,
    request: &PlanRequest,
) -> io::Result<(CheckReport, bool)> {
    let pages = activation::judge_pages(file, path, facts, request.wanted);
    let is_held = request.level == Level::Swapfile && request.sharing == Sharing::Shared;
    if !is_held || pages.verdict() != CheckVerdict::Yes {
        return Ok((pages, false));
    }
    let policy = hold::policy_of(facts, request.level);
    let report = activation::check_file(file, path, policy, request.wanted)?;
    Ok((report, true))
}

impl Question {
    /// What the request says, of the memory of a file.
    pub(super) fn of(request: &PlanRequest, unfit: Vec<Reason>, bytes: u64) -> Self {
        Self {
            medium: Medium::Unknown,
            sharing: request.sharing,
            access: request.access,
            wish: request.wish,
            level: request.level,
            fit_for_layout: false,
            device: request.device.clone(),
            kernel: request.kernel,
            may_write: request.may_write,
            bytes,
            memlock: request.memlock,
            lack: None,
            unfit,
            blocks: None,
        }
    }
}

/// memfd_secret's file system is known here, if not to the activation.
fn unknown_of(medium: Medium, unknown: Option<String>) -> Option<String> {
    match medium {
        Medium::Secret => None,
        _ => unknown,
    }
}

/// The largest folio of page cache.
const LARGEST_FOLIO: u64 = 2 << 20;

/// Of a page in a large folio io_uring counts the whole folio against the limit, and nobody knows which folios there are.
pub(super) fn counts_more(question: &Question, range: &Range<u64>) -> Option<String> {
    let limit = question.memlock?;
    let cut = range.start - range.start % LARGEST_FOLIO;
    let most = range.end.next_multiple_of(LARGEST_FOLIO) - cut;
    let may = question.device == Device::IoUring && question.medium == Medium::Memory;
    (may && limit < most).then(|| {
        format!("io_uring counts whole folios against RLIMIT_MEMLOCK ({limit} bytes): {most} bytes, if they are large")
    })
}

/// A range begins where a page does, and ends where one does or where the file does.
pub(super) fn unaligned(range: &Range<u64>, size: u64, page: u64) -> Option<Reason> {
    let begins = range.start % page == 0;
    let ends = range.end % page == 0 || range.end == size;
    if begins && ends {
        return None;
    }
    let detail = format!("{}..{}, pages of {page} bytes", range.start, range.end);
    Some(Reason::whole(activation::Name::NotOnPages).with(detail))
}

/// A memfd that nobody may map for writing any more.
fn is_sealed(file: &File) -> bool {
    use rustix::fs::SealFlags;
    let seals = rustix::fs::fcntl_get_seals(file).unwrap_or(SealFlags::empty());
    seals.intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE)
}

/// The size of the file's pages: 4096, or a huge page of hugetlbfs, or what a DAX device is mapped by.
///
/// # Errors
///
/// What `fstatfs(2)` says.
pub fn page_of(file: &File) -> io::Result<u64> {
    if let Some(device) = devdax::read(file)? {
        return Ok(device.align);
    }
    let system = rustix::fs::fstatfs(file)?;
    let hugetlbfs = Medium::of(
        u64::from_ne_bytes(system.f_type.to_ne_bytes()) & 0xffff_ffff,
        crate::filesystem::Family::Memory,
        false,
    ) == Medium::HugePages;
    match u64::try_from(system.f_bsize) {
        Ok(bytes) if hugetlbfs => Ok(bytes),
        _ => Ok(rustix::param::page_size() as u64),
    }
}

/// Whether a descriptor allows a shared mapping for writing.
///
/// # Errors
///
/// What `fcntl(2)` says.
pub fn writable(file: &File) -> io::Result<bool> {
    let flags = rustix::fs::fcntl_getfl(file)?;
    Ok(flags & OFlags::ACCMODE == OFlags::RDWR)
}
