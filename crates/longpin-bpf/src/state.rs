//! The guard's state, mapped: counters and switches that the programs and the user side share.
#![allow(
    unsafe_code,
    reason = "maps the BPF map that holds the state into memory"
)]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use libbpf_rs::MapCore;
use rustix::mm::{MapFlags, ProtFlags};

use crate::BpfError;
use crate::overlay::OVERLAY_WORDS;
use crate::shared::{ABI, MAX_PIN_PROGRAMS};

/// `struct guard_state`, field for field.
#[repr(C)]
#[derive(Debug)]
#[allow(missing_docs, reason = "documented in bpf/shared.h")]
pub struct GuardState {
    pub abi: AtomicU32,
    pub(crate) mode: AtomicU32,
    pub(crate) prover: AtomicU32,
    pub suspect_all: AtomicU32,
    pub entered: AtomicU64,
    pub left: AtomicU64,
    pub acked_balance: AtomicU64,
    pub acked_misses: AtomicU64,
    pub sweep_balance: AtomicU64,
    pub sweep_misses: AtomicU64,
    pub files_lost: AtomicU64,
    pub rows_lost: AtomicU64,
    pub refused: AtomicU64,
    pub walks: AtomicU64,
    pub unfinished: AtomicU64,
    pub unnoted: AtomicU64,
    pub(crate) pin_programs: AtomicU32,
    pub(crate) cpus: AtomicU32,
    pub(crate) program_ids: [AtomicU32; MAX_PIN_PROGRAMS],
    pub some_pins_unseen: AtomicU32,
    pub sweep_promotes: AtomicU32,
    pub(crate) program_stats: [AtomicU64; MAX_PIN_PROGRAMS],
    pub(crate) rules: AtomicU32,
    pub quota_files: AtomicU32,
    pub(crate) next_row: AtomicU64,
    pub next_event: AtomicU64,
    pub user_files: AtomicU64,
    pub all_files: AtomicU64,
    pub broken: AtomicU64,
    pub would_refuse: AtomicU64,
    pub exempted: AtomicU64,
    pub denied: AtomicU64,
    pub(crate) misses_seen: AtomicU64,
    pub(crate) misses_time: AtomicU64,
    pub max_files: AtomicU32,
    pub strict: AtomicU32,
    pub explicit_files: AtomicU64,
    pub tokens: AtomicU64,
    pub holds_only: AtomicU32,
    pub(crate) subvolumes: AtomicU32,
    pub(crate) ext4_flags: AtomicU32,
    pub(crate) xfs_flags: AtomicU32,
    pub(crate) home: AtomicU32,
    pub(crate) fuse_passthrough: AtomicU32,
    pub(crate) overlay: [AtomicU32; OVERLAY_WORDS],
    pub broken_holds: AtomicU64,
    pub(crate) subvolume_refs: AtomicU32,
    pad: u32,
}

const _: () = assert!(
    size_of::<GuardState>() == 384,
    "struct guard_state in bpf/shared.h"
);

/// `GuardState::suspect_all`: no sweep has looked since a hint was lost.
pub const SUSPECT_ALL: u32 = 1;
/// `GuardState::suspect_all`: a sweep is looking.
pub const SWEEPING: u32 = 2;

/// `GuardState::strict`: each pin asks for level swapfile, unless a rule says otherwise.
pub const STRICT_ALL: u32 = 1;
/// `GuardState::strict`: some rules do.
pub const STRICT_RULES: u32 = 2;
/// `GuardState::strict`: explicit holds may.
pub const STRICT_HOLDS: u32 = 4;

/// Whom the guard refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nobody: it is being started or stopped.
    Off,
    /// Only the process that swept last, which proves it at start.
    Proving,
    /// Everybody.
    Enforcing,
    /// Nobody; what would be refused is recorded.
    Audit,
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
        match self.mode.load(Ordering::Acquire) {
            1 => Mode::Proving,
            2 => Mode::Enforcing,
            3 => Mode::Audit,
            _ => Mode::Off,
        }
    }

    /// Change whom the guard refuses: one store, seen by the next call of a hook.
    pub fn set_mode(&self, mode: Mode) {
        let number = match mode {
            Mode::Off => 0,
            Mode::Proving => 1,
            Mode::Enforcing => 2,
            Mode::Audit => 3,
        };
        self.mode.store(number, Ordering::Release);
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
