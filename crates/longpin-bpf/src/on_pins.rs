//! What the user side has the programs do about pins, and what they left behind. Where only explicit holds are, these
//! programs are not loaded: nothing was pinned that they know of, and nothing is what they find.

use std::os::fd::OwnedFd;
use std::path::Path;

use crate::BpfError;
use crate::pinned::{Pinned, open_program, read_table, run};
use crate::shared::{self, FileId, Row, Stray};

/// `EVENT_ENDED` and `EVENT_RELEASED` in bpf/shared.h.
const EVENT_ENDED: u64 = 2;
pub(crate) const EVENT_RELEASED: u64 = 9;

/// The programs.
#[derive(Debug)]
pub(crate) struct OnPins {
    end_row: OwnedFd,
    end_strays: OwnedFd,
    forget: OwnedFd,
    begin_sweep: OwnedFd,
    sweep_frames: OwnedFd,
}

impl OnPins {
    pub(crate) fn open(dir: &Path) -> Result<Self, BpfError> {
        Ok(Self {
            end_row: open_program(dir, "prog_end_row")?,
            end_strays: open_program(dir, "prog_end_strays")?,
            forget: open_program(dir, "prog_forget")?,
            begin_sweep: open_program(dir, "prog_begin_sweep")?,
            sweep_frames: open_program(dir, "prog_sweep_frames")?,
        })
    }
}

impl Pinned {
    /// Does it watch pins? Not where it was started by an explicit hold.
    #[must_use]
    pub const fn watches_pins(&self) -> bool {
        self.on_pins.is_some()
    }

    fn ask(
        &self,
        program: fn(&OnPins) -> &OwnedFd,
        name: &'static str,
        arguments: &[u64],
    ) -> Result<u32, BpfError> {
        match &self.on_pins {
            Some(programs) => run(program(programs), name, arguments),
            None => Ok(0),
        }
    }

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
        self.ask(|it| &it.end_row, "end_row", &arguments).map(drop)
    }

    /// What left its file while it was pinned, and is pinned still, as far as there was room to note it.
    ///
    /// # Errors
    ///
    /// [`BpfError::Run`] or [`BpfError::Table`].
    pub fn strays(&self) -> Result<Vec<Stray>, BpfError> {
        self.ask(|it| &it.end_strays, "end_strays", &[0])?;
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
        Ok(self.ask(|it| &it.forget, "forget", &[file.inode, 0])? == 1)
    }

    /// The file's pins are no longer holds, until it is pinned again.
    ///
    /// # Errors
    ///
    /// [`BpfError::Run`].
    pub fn unhold(&self, file: &FileId) -> Result<bool, BpfError> {
        Ok(self.ask(|it| &it.forget, "forget", &[file.inode, 1])? == 1)
    }

    /// Note what the sweep that begins here will make good: `sweep_balance`, `sweep_misses`.
    ///
    /// # Errors
    ///
    /// [`BpfError::Run`].
    pub fn begin_sweep(&self) -> Result<(), BpfError> {
        self.ask(|it| &it.begin_sweep, "begin_sweep", &[0])
            .map(drop)
    }

    /// Look at `count` page frames from `first`, both multiples of 512: the files behind pinned ones become suspects. How
    /// many pinned file folios were seen.
    ///
    /// # Errors
    ///
    /// [`BpfError::Run`].
    pub fn sweep_frames(&self, first: u64, count: u64) -> Result<u32, BpfError> {
        self.ask(|it| &it.sweep_frames, "sweep_frames", &[first, count])
    }
}
