//! What the user side has the programs do about pins, and what they left behind. Where only explicit holds are, these
//! programs are not loaded: nothing was pinned that they know of, and nothing is what they find.

use crate::BpfError;
use crate::hooks::requests;
use crate::pinned::{Pinned, read_table};
use crate::shared::{self, FileId, Row, Stray};

/// `EVENT_ENDED` and `EVENT_RELEASED` in bpf/shared.h.
pub(crate) const EVENT_ENDED: u64 = 2;
pub(crate) const EVENT_RELEASED: u64 = 9;

impl Pinned {
    /// Remove a row whose pages are no longer pinned, and record that its hold ended. A row that is gone
    /// already, or was pinned again meanwhile, is no error.
    ///
    /// # Errors
    ///
    /// [`BpfError::Run`].
    pub fn end_row(&self, row: &Row) -> Result<(), BpfError> {
        self.run_end_row(row, EVENT_ENDED)
    }

    /// Mark a row as released, and record it.
    ///
    /// # Errors
    ///
    /// [`BpfError::Run`].
    pub fn release_row(&self, row: &Row) -> Result<(), BpfError> {
        self.run_end_row(row, EVENT_RELEASED)
    }

    fn run_end_row(&self, row: &Row, kind: u64) -> Result<(), BpfError> {
        let caller = shared::u64_at(&row.key, 8);
        let arguments = [row.file.inode, caller, row.tgid.into(), kind, row.pins];
        self.run(requests::END_ROW, &arguments).map(drop)
    }

    /// What left its file while it was pinned, and is pinned still, as far as there was room to note it.
    ///
    /// # Errors
    ///
    /// [`BpfError::Run`] or [`BpfError::Table`].
    pub fn strays(&self) -> Result<Vec<Stray>, BpfError> {
        self.run(requests::END_STRAYS, &[0])?;
        read_table(&self.strays, "strays", |_, value| {
            shared::parse_stray(value)
        })
    }

    /// A suspect without a pinned page leaves the table; whether it did.
    ///
    /// # Errors
    ///
    /// [`BpfError::Run`].
    pub fn forget(&self, file: &FileId) -> Result<bool, BpfError> {
        Ok(self.run(requests::FORGET, &[file.inode, 0])? == 1)
    }

    /// The file's pins are no longer holds, until it is pinned again.
    ///
    /// # Errors
    ///
    /// [`BpfError::Run`].
    pub fn unhold(&self, file: &FileId) -> Result<bool, BpfError> {
        Ok(self.run(requests::FORGET, &[file.inode, 1])? == 1)
    }

    /// Note what the sweep that begins here will make good: `sweep_balance`, `sweep_misses`.
    ///
    /// # Errors
    ///
    /// [`BpfError::Run`].
    pub fn begin_sweep(&self) -> Result<(), BpfError> {
        self.run(requests::BEGIN_SWEEP, &[0]).map(drop)
    }

    /// Look at `count` page frames from `first`, both multiples of 512: the files behind pinned ones become suspects. How
    /// many pinned file folios were seen.
    ///
    /// # Errors
    ///
    /// [`BpfError::Run`].
    pub fn sweep_frames(&self, first: u64, count: u64) -> Result<u32, BpfError> {
        self.run(requests::SWEEP_FRAMES, &[first, count])
    }
}
