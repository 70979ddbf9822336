//! The end of a hold by swap header: `swapoff(2)`, and the file's first 8 KiB are put back.

use longpin_linux::arch;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use longpin_linux::f2fs::{self, PinError};
use longpin_linux::file::{Found, Kind};
use longpin_linux::swap::{self, SwapError};
use rustix::fs::{Advice, OFlags};

use super::inode;
use crate::activation::Facts;
use crate::guard::Force;
use crate::hold::heads::{Heads, Record};
use crate::hold::{ReleaseError, ReleaseReport};
use crate::swapfile::{self, ActivateError, UUID};

/// End the hold of this number; one whose holder lives, and that does not persist, only by force.
///
/// # Errors
///
/// [`ReleaseError`].
pub fn release(heads: &Heads, id: u64, force: Force) -> Result<ReleaseReport, ReleaseError> {
    let found = heads.find(id).map_err(records(heads))?;
    let record = found.ok_or(ReleaseError::NoSuchHold { id })?;
    if force == Force::No {
        refuse_alive(heads, &record)?;
    }
    let (found, path) = locate(&record).ok_or_else(|| ReleaseError::Lost {
        id,
        path: record.path.clone(),
        record: heads.path(id),
    })?;
    let file = found.open(OFlags::RDWR);
    let file = file.map_err(|source| ReleaseError::PutBack {
        path: path.clone(),
        source,
    })?;
    finish(heads, &record, &path, &file)
}

pub(super) fn refuse_alive(heads: &Heads, record: &Record) -> Result<(), ReleaseError> {
    let id = record.id();
    if record.persists || !heads.has_holder(id).map_err(records(heads))? {
        return Ok(());
    }
    Err(ReleaseError::Alive {
        id,
        path: record.path.clone(),
        pid: record.pid,
    })
}

/// The hold of the file that this path leads to.
///
/// # Errors
///
/// [`ReleaseError::Records`].
pub fn find_by_path(heads: &Heads, path: &Path) -> Result<Option<Record>, ReleaseError> {
    let all = heads.read_all().map_err(records(heads))?;
    let is_of = |record: &Record| {
        let file = open_regular(path);
        file.and_then(|(_, file)| bears(&file, record))
            .unwrap_or(false)
    };
    Ok(all.into_iter().find(is_of))
}

/// By an open descriptor of the file.
pub(in crate::hold) fn finish(
    heads: &Heads,
    record: &Record,
    path: &Path,
    file: &File,
) -> Result<ReleaseReport, ReleaseError> {
    let _lock = heads.lock().map_err(records(heads))?;
    // Somebody else may have ended it while this waited.
    match heads.find(record.id()).map_err(records(heads))? {
        Some(_) => undo(heads, record, path, file),
        None => Ok(ReleaseReport {
            was_held: false,
            ..ReleaseReport::of(path.to_owned())
        }),
    }
}

/// With the records locked.
pub(super) fn undo(
    heads: &Heads,
    record: &Record,
    path: &Path,
    file: &File,
) -> Result<ReleaseReport, ReleaseError> {
    // This very file, whatever its name leads to.
    let own = format!("/proc/self/fd/{}", file.as_raw_fd());
    let was_held = match swapfile::deactivate(Path::new(&own)) {
        Ok(()) => true,
        Err(ActivateError::Kernel {
            source: SwapError::Invalid,
            ..
        }) => false,
        Err(err) => return Err(err.into()),
    };
    let put_back = |source| ReleaseError::PutBack {
        path: path.to_owned(),
        source,
    };
    // Before the head is written: then that happens in place.
    let unpinned = !keep_pinned(file).map_err(put_back)?;
    // A device wrote the blocks, and the cache does not know. What somebody has mapped or locked stays in it.
    let _ = rustix::fs::fadvise(file, 0, None, Advice::DontNeed);
    write_head(file, record).map_err(put_back)?;
    heads.remove(record.id()).map_err(records(heads))?;
    Ok(ReleaseReport {
        path: path.to_owned(),
        was_held,
        unpinned,
    })
}

/// f2fs takes the pin away when it deactivates a swap file. False: it is gone.
fn keep_pinned(file: &File) -> io::Result<bool> {
    if !Facts::read(file)?.is_unpinned() {
        return Ok(true);
    }
    match f2fs::pin(file) {
        Ok(()) => Ok(true),
        Err(PinError::NotEmpty) => Ok(false),
        Err(err) => Err(io::Error::other(err)),
    }
}

/// The slot first: as long as the header is there, it is not done.
fn write_head(file: &File, record: &Record) -> io::Result<()> {
    let (first, second) = record.head.split_at(rustix::param::page_size());
    file.write_all_at(second, arch::page_size())?;
    file.sync_all()?;
    file.write_all_at(first, 0)?;
    file.sync_all()
}

/// By its name, or where an active swap file of its number is now.
fn locate(record: &Record) -> Option<(Found, PathBuf)> {
    let active = swap::read_swap_files().unwrap_or_default();
    let active = active.into_iter().map(|file| file.path);
    let mut names = std::iter::once(record.path.clone()).chain(active);
    names.find_map(|path| {
        let (found, file) = open_regular(&path).ok()?;
        let ours = bears(&file, record).ok()? || is_back(&file, record).ok()?;
        ours.then_some((found, path))
    })
}

fn open_regular(path: &Path) -> io::Result<(Found, File)> {
    let found = Found::at(path)?;
    if found.kind()? != Kind::Regular {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let file = found.open(OFlags::RDONLY)?;
    Ok((found, file))
}

/// The record's header is at the head of the file.
pub(super) fn bears(file: &File, record: &Record) -> io::Result<bool> {
    let header = read_page(file)?;
    Ok(swapfile::has_signature(&header) && header[UUID] == record.uuid)
}

/// A kill came between the last write and the end of the record, or before the first one.
fn is_back(file: &File, record: &Record) -> io::Result<bool> {
    let same = inode(file)? == record.inode;
    Ok(same && read_page(file)? == record.head[..rustix::param::page_size()])
}

fn read_page(file: &File) -> io::Result<Vec<u8>> {
    let mut page = vec![0; rustix::param::page_size()];
    file.read_exact_at(&mut page, 0)?;
    Ok(page)
}

fn records(heads: &Heads) -> impl FnOnce(io::Error) -> ReleaseError {
    let path = heads.path(0).parent().map(Path::to_owned);
    move |source| ReleaseError::Records {
        path: path.unwrap_or_default(),
        source,
    }
}
