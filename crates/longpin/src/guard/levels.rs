//! Level swapfile in the kernel: its programs are attached while somebody asks for it.

use std::path::Path;
use std::sync::atomic::Ordering;

use longpin_bpf::lend::{attach_layout, attach_strict, detach_strict};
use longpin_bpf::pinned::Pinned;
use longpin_bpf::{Mode, STRICT_HOLDS};

use super::{GuardError, Running, remove_dir};

/// Attach the programs of level swapfile, or detach them, as the state wants it.
pub(crate) fn settle(pinned: &Pinned, dir: &Path) -> Result<(), GuardError> {
    if pinned.state().strict.load(Ordering::Acquire) == 0 {
        detach_strict(dir)?;
    } else {
        attach_strict(dir)?;
    }
    Ok(())
}

/// Attach what holds of level layout need, where no guard has it attached.
pub(crate) fn settle_layout(pinned: &Pinned, dir: &Path) -> Result<(), GuardError> {
    if is_for_holds_only(pinned) {
        attach_layout(dir)?;
    }
    Ok(())
}

/// Was this started by an explicit hold, so that nobody watches pins?
pub(super) fn is_for_holds_only(pinned: &Pinned) -> bool {
    !pinned.watches_pins()
}

/// Explicit holds that stand.
pub(super) fn count_explicit(pinned: &Pinned) -> Result<usize, GuardError> {
    let rows = pinned.rows()?;
    Ok(rows.iter().filter(|row| row.explicit.is_some()).count())
}

/// Remove what explicit holds needed and need no longer: the programs of level swapfile, or all of them where
/// no guard was started.
pub(crate) fn settle_holds(running: &Running) -> Result<(), GuardError> {
    let pinned = running.pinned();
    if count_explicit(pinned)? > 0 {
        return Ok(());
    }
    pinned.tidy()?;
    if is_for_holds_only(pinned) {
        pinned.state().set_mode(Mode::Off);
        return remove_dir(running.dir());
    }
    let strict = &pinned.state().strict;
    strict.fetch_and(!STRICT_HOLDS, Ordering::AcqRel);
    settle(pinned, running.dir())
}
