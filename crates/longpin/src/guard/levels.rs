//! Explicit holds: what is left when the last one has gone.

use std::sync::atomic::Ordering;

use longpin_bpf::pinned::Pinned;
use longpin_bpf::{Mode, STRICT_HOLDS};

use super::{GuardError, Running, remove_dir};

/// Was this started by an explicit hold, so that nobody watches pins?
pub(super) fn is_for_holds_only(pinned: &Pinned) -> bool {
    !pinned.watches_pins()
}

/// Explicit holds that stand.
pub(super) fn count_explicit(pinned: &Pinned) -> Result<usize, GuardError> {
    let rows = pinned.rows()?;
    Ok(rows.iter().filter(|row| row.explicit.is_some()).count())
}

/// What explicit holds needed and need no longer: that level swapfile is asked about, or, where no guard was started, all
/// programs.
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
    Ok(())
}
