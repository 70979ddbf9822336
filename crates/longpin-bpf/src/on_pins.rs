//! What the user side has the programs do about pins, and what they left behind. Where only explicit holds are, these
//! programs are not loaded: nothing was pinned that they know of, and nothing is what they find.

use crate::BpfError;
use crate::hooks::requests;
use crate::pinned::Pinned;
use crate::shared::{FileId, Row, Stray};
use crate::types::event_kind;

impl Pinned {
    /// Remove a row whose pages are no longer pinned, and record that its hold ended. A row that is gone
    /// already, or was pinned again meanwhile, is no error.
    ///
    /// # Errors
    ///
    /// [`BpfError::Run`].
    pub fn end_row(&self, row: &Row) -> Result<(), BpfError> {
        self.run_end_row(row, event_kind::EVENT_ENDED)
    }

    /// Mark a row as released, and record it.
    ///
    /// # Errors
    ///
    /// [`BpfError::Run`].
    pub fn release_row(&self, row: &Row) -> Result<(), BpfError> {
        self.run_end_row(row, event_kind::EVENT_RELEASED)
    }

    fn run_end_row(&self, row: &Row, kind: event_kind) -> Result<(), BpfError> {
        let (tgid, kind) = (row.tgid.into(), kind.0.into());
        let arguments = [row.file.inode, row.caller, tgid, kind, row.pins];
        self.run(requests::END_ROW, &arguments).map(drop)
    }

    /// What left its file while it was pinned, and is pinned still, as far as there was room to note it.
    ///
    /// # Errors
    ///
    /// [`BpfError::Run`] or [`BpfError::Table`].
    pub fn strays(&self) -> Result<Vec<Stray>, BpfError> {
        self.run(requests::END_STRAYS, &[0])?;
        self.strays.all(|_, value| Stray::of(value))
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
