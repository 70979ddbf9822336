//! Stopping the guard.

use longpin_bpf::Mode;

use super::{GuardError, Host, Turn, check_privilege, open_pinned, remove_dir, sweep};
use crate::listing;

/// Whether what is held is given up, too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Force {
    /// What is held is a refusal.
    #[default]
    No,
    /// The files lose their protection.
    Yes,
}

/// What was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stopped {
    /// Live holds that ended with it.
    pub holds: usize,
}

/// Stop the guard: disarm, then unpin. With live holds only by `force`.
///
/// # Errors
///
/// [`GuardError::NotRunning`], [`GuardError::Held`], [`GuardError::OtherVersion`] (without `force`), or
/// what keeps it from being removed.
pub fn stop(host: &Host, force: Force) -> Result<Stopped, GuardError> {
    check_privilege()?;
    let _turn = Turn::take(host)?;
    // The rest of a killed command refuses nobody; it goes in passing.
    remove_dir(&host.scratch_dir())?;
    if !host.guard_dir().exists() {
        return Err(GuardError::NotRunning);
    }
    let ended = match open_pinned(&host.guard_dir()) {
        Ok(Some(pinned)) => {
            if !pinned.hints_complete()? {
                sweep::sweep_with(&pinned, &mut |_, _| ())?;
            }
            let live = listing::read(&pinned)?
                .iter()
                .filter(|hold| hold.is_enforced())
                .count();
            if live > 0 && force == Force::No {
                return Err(GuardError::Held { holds: live });
            }
            pinned.state().set_mode(Mode::Off);
            live
        }
        Ok(None) => 0,
        Err(err) if force == Force::No => return Err(err),
        // Another version's guard: unpinning its links ends it, whatever its tables look like.
        Err(_) => 0,
    };
    remove_dir(&host.guard_dir())?;
    Ok(Stopped { holds: ended })
}
