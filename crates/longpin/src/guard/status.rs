//! What the guard says of itself.

use std::sync::atomic::{AtomicU64, Ordering};

use longpin_bpf::hooks::WITNESS;
pub use longpin_bpf::programs::ProgramCost;
use longpin_bpf::shared::Level;
use longpin_bpf::{GuardState, Mode};

use super::{GuardError, Running, level_of};
use crate::Enforcement;

/// Are all pins known by their hints?
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hints {
    /// Yes: only files that somebody pinned are walked.
    Complete,
    /// No: every file is walked before its layout changes, until a sweep has looked.
    Incomplete,
    /// This kernel has a pin function that cannot be watched: every file is walked, always.
    Impossible,
}

/// A running guard's status.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Status {
    /// How much of the promise it enforces.
    pub enforcement: Enforcement,
    /// It records what it would refuse, and refuses nothing.
    pub audit: bool,
    /// Started by an explicit hold: pins are not watched.
    pub holds_only: bool,
    /// The level at which pinned files are held, where no rule says otherwise.
    pub level: Level,
    /// Somebody asks for level swapfile.
    pub strict: bool,
    /// `kernel.ftrace_enabled` is 0: the kernel calls none of its programs, and nothing is refused.
    pub silent: bool,
    /// Whoever switches programs off is seen: pins that are missed meanwhile are known to be missed.
    pub witnessed: bool,
    /// Whether every pin is known.
    pub hints: Hints,
    /// Files that were pinned since the guard began, and live.
    pub suspects: usize,
    /// Operations refused.
    pub refused: u64,
    /// Walks through a page cache.
    pub walks: u64,
    /// Walks that could not finish, and so refused.
    pub unfinished: u64,
    /// `fallocate` calls whose arguments were not seen, judged for the whole file.
    pub unnoted: u64,
    /// Long-term pin calls seen.
    pub pin_calls: u64,
    /// Files that found the table of suspects full.
    pub files_lost: u64,
    /// Rows that found the table of rows full: not listed by `ls`.
    pub rows_lost: u64,
    /// Pages that left their file while they were pinned.
    pub broken: u64,
    /// Explicit holds that ended with their file, or with its file system.
    pub broken_holds: u64,
    /// Operations that would have been refused (audit).
    pub would_refuse: u64,
    /// Operations let through by rule.
    pub exempted: u64,
    /// Processes killed because they pinned what may not be pinned.
    pub denied: u64,
    /// The programs in the kernel.
    pub programs: Vec<ProgramCost>,
}

impl Status {
    /// Every pin is known: only files that somebody pinned are walked.
    #[must_use]
    pub fn hints_are_complete(&self) -> bool {
        self.hints == Hints::Complete
    }
}

/// Ask a running guard.
///
/// # Errors
///
/// [`GuardError`].
pub fn read_status(running: &Running) -> Result<Status, GuardError> {
    let pinned = running.pinned();
    let state: &GuardState = pinned.state();
    let hints = match (
        state.some_pins_unseen.load(Ordering::Relaxed),
        pinned.hints_complete()?,
    ) {
        (0, true) => Hints::Complete,
        (0, false) => Hints::Incomplete,
        _ => Hints::Impossible,
    };
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Ok(Status {
        enforcement: running.enforcement()?,
        audit: state.mode() == Mode::Audit,
        holds_only: state.holds_only.load(Ordering::Relaxed) != 0,
        level: level_of(state.strict.load(Ordering::Relaxed)),
        strict: state.strict.load(Ordering::Relaxed) != 0,
        silent: pinned.is_silent()?,
        witnessed: running.dir().join(format!("link_{WITNESS}")).exists(),
        hints,
        suspects: pinned.suspects()?.len(),
        refused: read(&state.refused),
        walks: read(&state.walks),
        unfinished: read(&state.unfinished),
        unnoted: read(&state.unnoted),
        pin_calls: read(&state.entered),
        files_lost: read(&state.files_lost),
        rows_lost: read(&state.rows_lost),
        broken: read(&state.broken),
        broken_holds: read(&state.broken_holds),
        would_refuse: read(&state.would_refuse),
        exempted: read(&state.exempted),
        denied: read(&state.denied),
        programs: longpin_bpf::programs::read_programs(running.dir())?,
    })
}
