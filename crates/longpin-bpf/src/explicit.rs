//! Explicit holds on a pinned guard: entered, taken back, looked up.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::BpfError;
use crate::hooks::requests;
use crate::pinned::Pinned;
use crate::shared::{FileId, Level, Row};
use crate::subvolumes::{self, BesideInodes};
use crate::types::{event_kind, level};

/// What keeps a hold from being entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entered {
    /// Nothing: it stands.
    Done,
    /// Another hold excludes it.
    Busy,
    /// The tables are full.
    NoRoom,
}

/// An explicit hold to be entered.
#[derive(Debug, Clone, Copy)]
pub struct HoldRequest {
    /// The file.
    pub file: FileId,
    /// Its level.
    pub level: Level,
    /// Page indexes, both inclusive.
    pub range: (u64, u64),
    /// Address of the inode whose descriptors the holder has.
    pub token: u64,
    /// It does not end with the token.
    pub persists: bool,
}

impl HoldRequest {
    const fn level_word(&self) -> u64 {
        let persists = if self.persists {
            level::LEVEL_PERSISTS.0
        } else {
            0
        };
        (self.level as u32 | persists) as u64
    }
}

/// `-EBUSY`, as a program returns it.
const BUSY: u32 = libc::EBUSY.unsigned_abs().wrapping_neg();

/// What is not known yet: the module may have come since.
fn learn(known: &AtomicU32, found: Option<u32>) {
    if known.load(Ordering::Acquire) == 0 {
        known.store(found.unwrap_or(0), Ordering::Release);
    }
}

impl Pinned {
    /// Let the programs know what file systems keep beside an inode: btrfs the number of its subvolume, ext4 and xfs
    /// its flags; and where overlayfs and FUSE keep the files behind their own. They may be modules that came after the programs.
    pub fn learn_beside_inodes(&self) {
        let state = self.state();
        let all = [
            (&state.subvolumes, c"btrfs"),
            (&state.subvolume_refs, c"btrfs"),
            (&state.ext4_flags, c"ext4"),
            (&state.xfs_flags, c"xfs"),
            (&state.overlay[0], c"overlay"),
            (&state.fuse_passthrough, c"fuse"),
        ];
        let unknown = all.map(|(known, name)| (known.load(Ordering::Acquire) == 0).then_some(name));
        if !subvolumes::is_any_known(unknown.into_iter().flatten()) {
            return;
        }
        let found = BesideInodes::read();
        learn(&state.subvolumes, found.subvolumes);
        learn(&state.subvolume_refs, found.subvolume_refs);
        learn(&state.ext4_flags, found.ext4_flags);
        learn(&state.xfs_flags, found.xfs_flags);
        learn(&state.fuse_passthrough, found.fuse_passthrough);
        // The first one last: it says that the others are there.
        for (known, word) in state
            .overlay
            .iter()
            .zip(found.overlay.unwrap_or_default())
            .rev()
        {
            learn(known, Some(word));
        }
    }

    /// Enter an explicit hold: from then on the file is held.
    ///
    /// # Errors
    ///
    /// [`BpfError::Run`].
    pub fn enter_hold(&self, request: &HoldRequest) -> Result<Entered, BpfError> {
        let (first, last) = request.range;
        let arguments = [
            request.file.inode,
            request.level_word(),
            first,
            last,
            request.token,
        ];
        Ok(match self.run(requests::ENTER_HOLD, &arguments)? {
            0 => Entered::Done,
            BUSY => Entered::Busy,
            _ => Entered::NoRoom,
        })
    }

    /// An explicit hold that this process entered is judged: from then on it is one, and persists if it is to.
    ///
    /// # Errors
    ///
    /// [`BpfError::Run`].
    pub fn publish(&self, request: &HoldRequest) -> Result<bool, BpfError> {
        let arguments = [request.file.inode, request.token, request.level_word()];
        Ok(self.run(requests::PUBLISH, &arguments)? == 0)
    }

    /// End an explicit hold; false: it had ended.
    ///
    /// # Errors
    ///
    /// [`BpfError::Run`].
    pub fn take_back(&self, row: &Row) -> Result<bool, BpfError> {
        self.end(row, event_kind::EVENT_RELEASED)
    }

    /// The same, with an event of this kind.
    pub(crate) fn end(&self, row: &Row, kind: event_kind) -> Result<bool, BpfError> {
        let arguments = [
            row.file.inode,
            row.caller,
            row.tgid.into(),
            row.level.0.into(),
            kind.0.into(),
        ];
        Ok(self.run(requests::TAKE_BACK, &arguments)? == 0)
    }

    /// Where the inode of a file that is held explicitly was met last; `None`: it is not held any more.
    ///
    /// # Errors
    ///
    /// [`BpfError::Table`].
    pub fn explicit_at(&self, file: &FileId) -> Result<Option<u64>, BpfError> {
        let found = self.explicit_holds.get(&file.numbers())?;
        Ok(found.map(|found| found.inode))
    }

    /// Files without a hold are no longer looked up; how many files are left.
    ///
    /// # Errors
    ///
    /// [`BpfError::Run`] or [`BpfError::Table`].
    pub fn tidy(&self) -> Result<usize, BpfError> {
        let files = self.explicit_holds.all(|file, _| *file)?;
        let mut left = files.len();
        for file in files {
            let gone = self.run(
                requests::TIDY,
                &[file.ino, file.dev.into(), file.generation.into()],
            )?;
            left -= usize::from(gone == 1);
        }
        Ok(left)
    }

    /// Direct reads and writes of a file that are under way.
    ///
    /// # Errors
    ///
    /// [`BpfError::Run`].
    pub fn count_direct(&self, file: &FileId) -> Result<u32, BpfError> {
        self.run(requests::COUNT_DIRECT, &[file.inode])
    }
}
