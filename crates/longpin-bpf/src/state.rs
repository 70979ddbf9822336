//! The guard's state, mapped: counters and switches that the programs and the user side share.
#![allow(
    unsafe_code,
    reason = "maps the BPF map that holds the state into memory"
)]

use std::ptr::NonNull;
use std::sync::atomic::Ordering;

use libbpf_rs::MapCore;
use rustix::mm::{MapFlags, ProtFlags};

use crate::shared::ABI;
use crate::types::{guard_mode, guard_state, lost_hints, strict};
use crate::{BpfError, GuardState};

// Atomics are as large as what they are made of, but they may be aligned otherwise.
const _: () = assert!(size_of::<GuardState>() == size_of::<guard_state>());

/// `GuardState::suspect_all`: no sweep has looked since a hint was lost.
pub const SUSPECT_ALL: u32 = lost_hints::SUSPECT_ALL.0;
/// `GuardState::suspect_all`: a sweep is looking.
pub const SWEEPING: u32 = lost_hints::SWEEPING.0;

/// `GuardState::strict`: each pin asks for level swapfile, unless a rule says otherwise.
pub const STRICT_ALL: u32 = strict::STRICT_ALL.0;
/// `GuardState::strict`: some rules do.
pub const STRICT_RULES: u32 = strict::STRICT_RULES.0;
/// `GuardState::strict`: explicit holds may.
pub const STRICT_HOLDS: u32 = strict::STRICT_HOLDS.0;

/// Whom the guard refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Mode {
    /// Nobody: it is being started or stopped.
    Off = guard_mode::MODE_OFF.0,
    /// Only the process that swept last, which proves it at start.
    Proving = guard_mode::MODE_PROVING.0,
    /// Everybody.
    Enforcing = guard_mode::MODE_ENFORCING.0,
    /// Nobody; what would be refused is recorded.
    Audit = guard_mode::MODE_AUDIT.0,
}

impl Mode {
    /// Started, for people to use.
    #[must_use]
    pub const fn is_running(self) -> bool {
        matches!(self, Self::Enforcing | Self::Audit)
    }
}

impl GuardState {
    /// Whom the guard refuses now.
    #[must_use]
    pub fn mode(&self) -> Mode {
        match guard_mode(self.mode.load(Ordering::Acquire)) {
            guard_mode::MODE_PROVING => Mode::Proving,
            guard_mode::MODE_ENFORCING => Mode::Enforcing,
            guard_mode::MODE_AUDIT => Mode::Audit,
            _ => Mode::Off,
        }
    }

    /// Change whom the guard refuses: one store, seen by the next call of a hook.
    pub fn set_mode(&self, mode: Mode) {
        self.mode.store(mode as u32, Ordering::Release);
    }
}

/// The mapped state. Unmapped on drop; the map itself lives as long as it is pinned or used.
#[derive(Debug)]
pub struct StateView {
    state: NonNull<GuardState>,
}

// SAFETY: every field is an atomic, and the mapping is owned by this value alone.
unsafe impl Send for StateView {}
// SAFETY: as above; all access is through atomics.
unsafe impl Sync for StateView {}

impl StateView {
    /// `mmap(2)` of the map that holds `struct guard_state`.
    ///
    /// # Errors
    ///
    /// [`BpfError::Abi`] when the state is of another layout, [`BpfError::Map`] when the kernel
    /// refuses the mapping.
    pub fn map(map: &impl MapCore) -> Result<Self, BpfError> {
        let len = size_of::<GuardState>();
        if (map.value_size() as usize) < len {
            return Err(BpfError::Abi { found: 0 });
        }
        // SAFETY: a fresh shared mapping of a map that is at least one page long; nothing else is
        // placed there.
        let mapped = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                map.as_fd(),
                0,
            )
        };
        let address = mapped.map_err(|err| BpfError::Map(err.into()))?;
        let state = NonNull::new(address.cast::<GuardState>())
            .ok_or_else(|| BpfError::Map(std::io::ErrorKind::AddrNotAvailable.into()))?;
        let view = Self { state };
        match view.abi.load(Ordering::Acquire) {
            ABI => Ok(view),
            found => Err(BpfError::Abi { found }),
        }
    }
}

impl std::ops::Deref for StateView {
    type Target = GuardState;

    fn deref(&self) -> &GuardState {
        // SAFETY: mapped in `map`, page aligned, long enough, unmapped only in `drop`; the kernel
        // side writes it concurrently, which atomics allow.
        unsafe { self.state.as_ref() }
    }
}

impl Drop for StateView {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`, of this length; no reference into it outlives `self`.
        let unmapped =
            unsafe { rustix::mm::munmap(self.state.as_ptr().cast(), size_of::<GuardState>()) };
        debug_assert!(unmapped.is_ok(), "munmap of the guard's state");
    }
}
