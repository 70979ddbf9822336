//! Swap files: the header that mkswap(8) writes, activation after the checks, and the list of active ones.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use longpin_linux::arch;
use longpin_linux::btrfs;
use longpin_linux::fiemap::ExtentFlags;
use longpin_linux::file::{self, Found, Lease};
use longpin_linux::swap::{self, SwapError};
pub use longpin_linux::swap::{SwapFile, read_swap_files};
use rustix::fs::{Mode, OFlags};
use uuid::Uuid;

use crate::activation::{self, CheckReport, CheckVerdict, Policy};
use crate::extents::{self, BlockMap, MapError};

/// Where the label lies.
const LABEL: Range<usize> = 1052..1068;
/// Where the UUID lies.
pub(crate) const UUID: Range<usize> = 1036..1052;
/// `SWAPSPACE2`, at the end of the first page.
const MAGIC: &[u8; 10] = b"SWAPSPACE2";
/// Bytes read at once when the file is looked through.
const CHUNK: u64 = 4 << 20;
/// How long a scrub of btrfs is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// Options of activation.
#[derive(Debug, Clone, Default)]
pub struct SwapOptions {
    /// Overwrite data.
    pub force: bool,
    /// The label in a new header.
    pub label: Option<String>,
}

/// What was activated.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Activated {
    /// Bytes of the file that are used, header included.
    pub size: u64,
    /// The swap area's UUID.
    pub uuid: String,
    /// A new header was written.
    pub made: bool,
    /// Others than the owner may read or write the file.
    pub open_to: Option<u32>,
}

/// Why a file was not activated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ActivateError {
    /// The checks of swap activation.
    #[error("{} cannot be swapped to", .0.path.display())]
    Refused(Box<CheckReport>),
    /// There is data in the file.
    #[error("the file has data, the first byte that is not 0 at offset {at}: it would be lost")]
    Data {
        /// Where.
        at: u64,
    },
    /// The old header names pages that must not be used.
    #[error("the header in the file names {count} bad pages, which a new one would forget")]
    BadPages {
        /// How many.
        count: u32,
    },
    /// Somebody has the file open, and might write to it.
    #[error("somebody has the file open: what is written meanwhile could be lost")]
    InUse,
    /// The label does not fit.
    #[error("a label has 16 bytes at most, and this one has {len}")]
    Label {
        /// Bytes that it has.
        len: usize,
    },
    /// The map, by which data is looked for.
    #[error(transparent)]
    Map(#[from] MapError),
    /// Reading or writing failed.
    #[error("cannot {what}")]
    Io {
        /// What.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// btrfs reads the chunk that the file lies in, now and all the time that this was tried.
    #[error("{call} failed: a scrub of the file system is under way")]
    Scrub {
        /// Which.
        call: &'static str,
        /// What the kernel said.
        #[source]
        source: SwapError,
    },
    /// swapon(2) or swapoff(2).
    #[error("{call} failed")]
    Kernel {
        /// Which.
        call: &'static str,
        /// What the kernel said.
        #[source]
        source: SwapError,
    },
}

impl ActivateError {
    /// What to do about it.
    #[must_use]
    pub fn hints(&self, path: &Path) -> Vec<String> {
        let file = activation::quote(path);
        match self {
            Self::Refused(report) => {
                let mut hints = report.hints();
                let prepare = format!("longpin prepare {file}");
                if let Some(at) = hints.iter().position(|hint| *hint == prepare) {
                    hints[at] = format!("longpin swapon --prepare {file}");
                }
                hints
            }
            Self::Data { .. } => {
                vec![format!(
                    "longpin swapon --force {file}   # its data is lost"
                )]
            }
            Self::BadPages { .. } => vec![format!("swapon {file}   # as it is")],
            Self::InUse => vec![format!("fuser -v {file}   # who has it open?")],
            Self::Scrub { .. } => vec![format!(
                "btrfs scrub cancel \"$(stat -c %m {file})\"   # ends the scrub; or wait for its end"
            )],
            Self::Kernel { call, source } => kernel_hints(call, source, &file),
            _ => Vec::new(),
        }
    }
}

fn kernel_hints(call: &str, source: &SwapError, file: &str) -> Vec<String> {
    match source {
        SwapError::NotPermitted => vec!["run it as root; `swapon --show` lists the areas".into()],
        SwapError::Invalid if call == "swapon(2)" => {
            vec!["dmesg | tail   # the kernel says there what it misses".into()]
        }
        SwapError::Invalid => vec![format!("swapon --show   # {file} is not in the list")],
        SwapError::Busy => vec!["swapon --show".into()],
        SwapError::NoMemory => vec!["free -m   # what is swapped out must fit into memory".into()],
        _ => Vec::new(),
    }
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> ActivateError {
    move |source| ActivateError::Io { what, source }
}

/// Checks (policy swap), header, `swapon(2)`. A file with data and without a swap signature is refused. The
/// UUID and label of an existing header are kept. `progress` is told bytes looked through, and in all.
///
/// # Errors
///
/// [`ActivateError`]; the file is as it was, unless only the last step failed: then it has a header.
pub fn activate(
    path: &Path,
    options: &SwapOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Activated, ActivateError> {
    let label = label_bytes(options)?;
    let found = Found::at(path).map_err(failed("open the file"))?;
    refuse_unfit(&found, path)?;
    let file = found
        .open(OFlags::RDWR)
        .map_err(failed("open the file for writing"))?;
    let status = file::status(&file).map_err(failed("look at the file"))?;
    let pages = status.size / arch::page_size();
    let mut header = read_header(&file)?;
    let made = label.is_some() || !is_current(&header, pages);
    if made {
        let lease = Lease::take(&file).map_err(failed("take a lease on the file"))?;
        let lease = lease.ok_or(ActivateError::InUse)?;
        // Again, now that nobody else can write.
        let old = Some(read_header(&file)?).filter(|header| has_signature(header));
        if !options.force {
            refuse_loss(&file, &status, old.as_deref(), progress)?;
        }
        header = make_header(pages, old.as_deref(), label)?;
        if !lease.is_whole().map_err(failed("ask for the lease"))? {
            return Err(ActivateError::InUse);
        }
        file.write_all_at(&header, 0)
            .map_err(failed("write the header"))?;
        file.sync_all().map_err(failed("sync the header"))?;
    }
    // swapon(2) takes a name; the descriptor's leads to this very file. Kept open until then.
    swap_on(path, &found)?;
    Ok(Activated {
        size: pages * arch::page_size(),
        uuid: Uuid::from_slice(&header[UUID])
            .map_or_else(|_| String::new(), |uuid| uuid.to_string()),
        made,
        open_to: (status.mode & 0o077 != 0).then_some(status.mode),
    })
}

fn refuse_unfit(found: &Found, path: &Path) -> Result<(), ActivateError> {
    let report = activation::check_found(found, path, Policy::Swap, None);
    let report = report.map_err(failed("look at the file"))?;
    match report.verdict() {
        CheckVerdict::Yes => Ok(()),
        CheckVerdict::Refused | CheckVerdict::CannotTell => {
            Err(ActivateError::Refused(Box::new(report)))
        }
    }
}

/// By the user's name, so that `/proc/swaps` shows it, if it still leads to the file that was checked.
pub(crate) fn swap_on(path: &Path, checked: &Found) -> Result<(), ActivateError> {
    let now = Found::at(path).map_err(failed("open the file"))?;
    let same = now.is_same(checked).map_err(failed("look at the file"))?;
    if !same {
        let source = io::Error::other("its name leads to another file now");
        return Err(failed("activate the file")(source));
    }
    let begin = Instant::now();
    loop {
        let source = match swap::swap_on(path) {
            Ok(()) => return Ok(()),
            Err(source) => source,
        };
        // The chunk that a scrub reads takes no swap file, which is over soon.
        let met_scrub = matches!(source, SwapError::Invalid) && is_scrubbed(checked);
        if met_scrub && begin.elapsed() < PATIENCE {
            std::thread::sleep(PAUSE);
            continue;
        }
        let call = "swapon(2)";
        return Err(match met_scrub {
            true => ActivateError::Scrub { call, source },
            false => ActivateError::Kernel { call, source },
        });
    }
}

/// Only where the kernel says so.
fn is_scrubbed(file: &Found) -> bool {
    let file = file.open(OFlags::RDONLY);
    file.is_ok_and(|file| btrfs::is_scrubbed(&file).unwrap_or(false))
}

/// `swapoff(2)`.
///
/// # Errors
///
/// [`ActivateError::Kernel`].
pub fn deactivate(path: &Path) -> Result<(), ActivateError> {
    swap::swap_off(path).map_err(|source| ActivateError::Kernel {
        call: "swapoff(2)",
        source,
    })
}

pub(crate) fn read_header(file: &File) -> Result<Vec<u8>, ActivateError> {
    let mut header = vec![0; rustix::param::page_size()];
    file.read_exact_at(&mut header, 0)
        .map_err(failed("read the header"))?;
    Ok(header)
}

/// A new header must not give the kernel more of the file than an old one did, unless that is empty: behind a
/// header for a part of the file there may be data.
fn refuse_loss(
    file: &File,
    status: &file::Status,
    old: Option<&[u8]>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), ActivateError> {
    let Some(old) = old else {
        return refuse_data(file, status, 0..status.size, progress);
    };
    match word(old, 1032) {
        Some(0) => {}
        bad => {
            let count = bad.unwrap_or(u32::MAX);
            return Err(ActivateError::BadPages { count });
        }
    }
    let last = word(old, 1028).unwrap_or(0);
    let covered = (u64::from(last) + 1).saturating_mul(arch::page_size());
    refuse_data(
        file,
        status,
        covered.min(status.size)..status.size,
        progress,
    )
}

/// Looks through what was written of this part of the file.
fn refuse_data(
    file: &File,
    status: &file::Status,
    range: Range<u64>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), ActivateError> {
    extents::settle(file).map_err(failed("sync the file"))?;
    let map = BlockMap::open(file, status)?;
    for extent in map.extents(&range) {
        let extent = extent?;
        // These read as zeroes.
        if extent.flags.any(ExtentFlags::UNWRITTEN) {
            continue;
        }
        let mut at = extent.logical;
        let end = extent.logical + extent.length;
        while at < end {
            let len = usize::try_from((end - at).min(CHUNK)).unwrap_or(rustix::param::page_size());
            let mut bytes = vec![0; len];
            file.read_exact_at(&mut bytes, at)
                .map_err(failed("read the file"))?;
            if let Some(inside) = bytes.iter().position(|&byte| byte != 0) {
                let at = at + inside as u64;
                return Err(ActivateError::Data { at });
            }
            at += len as u64;
            progress(at, status.size);
        }
    }
    Ok(())
}

fn label_bytes(options: &SwapOptions) -> Result<Option<[u8; 16]>, ActivateError> {
    let Some(label) = &options.label else {
        return Ok(None);
    };
    let mut bytes = [0; 16];
    let len = label.len();
    let room = bytes.get_mut(..len).ok_or(ActivateError::Label { len })?;
    room.copy_from_slice(label.as_bytes());
    Ok(Some(bytes))
}

/// A header as the kernel takes it: version 1. What looks like an older one counts as data.
pub(crate) fn has_signature(header: &[u8]) -> bool {
    header.ends_with(MAGIC) && word(header, 1024) == Some(1)
}

fn word(header: &[u8], at: usize) -> Option<u32> {
    let bytes = header.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_ne_bytes(bytes))
}

/// A header that needs no change: version 1, all pages, none bad.
fn is_current(header: &[u8], pages: u64) -> bool {
    let last = u32::try_from(pages - 1).ok();
    has_signature(header) && word(header, 1028) == last && word(header, 1032) == Some(0)
}

/// `union swap_header`, version 1, in this machine's byte order, as the kernel reads it.
pub(crate) fn make_header(
    pages: u64,
    old: Option<&[u8]>,
    label: Option<[u8; 16]>,
) -> Result<Vec<u8>, ActivateError> {
    let mut header = vec![0; rustix::param::page_size()];
    // A larger file is used as far as the number goes.
    let last = u32::try_from(pages - 1).unwrap_or(u32::MAX);
    header[1024..1028].copy_from_slice(&1_u32.to_ne_bytes());
    header[1028..1032].copy_from_slice(&last.to_ne_bytes());
    match old {
        Some(old) => header[UUID.start..LABEL.end].copy_from_slice(&old[UUID.start..LABEL.end]),
        None => header[UUID].copy_from_slice(&random_uuid()?),
    }
    if let Some(label) = label {
        header[LABEL].copy_from_slice(&label);
    }
    header[rustix::param::page_size() - MAGIC.len()..].copy_from_slice(MAGIC);
    Ok(header)
}

/// A UUID from the kernel.
fn random_uuid() -> Result<[u8; 16], ActivateError> {
    let path = "/proc/sys/kernel/random/uuid";
    let text = std::fs::read_to_string(path).map_err(failed("get a UUID from the kernel"))?;
    let uuid = Uuid::parse_str(text.trim());
    let uuid = uuid.map_err(|err| failed("get a UUID from the kernel")(io::Error::other(err)))?;
    Ok(uuid.into_bytes())
}

/// An active swap file, as `longpin ls` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveSwap {
    /// Its path, as it was activated.
    pub path: PathBuf,
    /// Nothing has this name any more, or something else.
    pub deleted: bool,
    /// Bytes held, the header included.
    pub end: u64,
}

/// The active swap files, from `/proc/swaps`.
///
/// # Errors
///
/// It cannot be read.
pub fn read_active() -> io::Result<Vec<ActiveSwap>> {
    let files = read_swap_files()?.into_iter();
    Ok(files.map(|file| describe(&file)).collect())
}

fn describe(file: &SwapFile) -> ActiveSwap {
    let whole = file.size + arch::page_size();
    // The whole file is held, also what the header leaves out.
    let size = size_of_active(&file.path);
    ActiveSwap {
        path: file.path.clone(),
        deleted: size.is_none(),
        end: size.unwrap_or(whole).max(whole),
    }
}

/// `None`: its path leads to nothing any more, or to something else. Who may not try takes its word.
fn size_of_active(path: &Path) -> Option<u64> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let size = std::fs::metadata(path).ok()?.len();
    let tried = rustix::fs::open(path, flags, Mode::empty()).map(File::from);
    let is_it = tried.map(|file| swap::is_swapped_to(&file));
    (!matches!(is_it, Ok(Ok(Some(false))))).then_some(size)
}

#[cfg(test)]
mod tests;
