//! The sweep: look at every page frame of the machine, so that no pinned file stays unknown.
//!
//! Hints can be lost: programs are suppressed under load, tables fill, and pins can be older than the
//! guard. From then on every file is a suspect and each layout change walks; a sweep makes the lost
//! hints good and ends that.

use std::num::NonZero;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::available_parallelism;
use std::time::Duration;

use longpin_bpf::hooks::pin_functions;
use longpin_bpf::pinned::Pinned;
use longpin_bpf::{BpfError, GuardState, SWEEPING};
use longpin_linux::{probe, tasks};

use super::{GuardError, Running};

/// Page frames that a processor looks at without a break: 256 MiB.
const PART: u64 = 65_536;
/// So many processors at most: then memory is what they wait for.
const MAX_PROCESSORS: usize = 16;
/// How often the balance is looked at and the tasks are asked: one that runs just now shows no stack.
const LOOKS: u32 = 5;

/// What a sweep found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Swept {
    /// Page frames looked at.
    pub frames: u64,
    /// Pinned file folios seen among them.
    pub folios: u64,
    /// Whether every pin is known now; not when hints were lost again meanwhile.
    pub complete: bool,
}

/// Sweep on behalf of a running guard. `progress` gets page frames looked at and all page frames.
///
/// # Errors
///
/// [`GuardError`]; all files then stay suspects.
pub fn sweep(running: &Running, progress: &mut dyn FnMut(u64, u64)) -> Result<Swept, GuardError> {
    sweep_with(running.pinned(), progress)
}

pub(super) fn sweep_with(
    pinned: &Pinned,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Swept, GuardError> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |source| GuardError::Probe { what, source }
    };
    let all = probe::count_page_frames().map_err(failed("the page frames"))?;
    if all == 0 {
        let source = std::io::ErrorKind::InvalidData.into();
        return Err(failed("the page frames")(source));
    }
    if !pinned.watches_pins() {
        return Ok(Swept {
            frames: 0,
            folios: 0,
            complete: pinned.hints_complete()?,
        });
    }
    let state = pinned.state();
    pinned.learn_beside_inodes();
    pinned.begin_sweep()?;
    let lost_exits = count_lost_exits(state).map_err(failed("tasks inside pin calls"))?;
    if lost_exits != state.acked_balance.load(Ordering::Relaxed) {
        state.sweep_promotes.store(1, Ordering::Relaxed);
    }
    let folios = look_at_all(pinned, all, progress)?;
    progress(all, all);
    acknowledge(state, lost_exits);
    // What nobody pins any more need not be walked again; and the table is finite.
    for suspect in pinned.suspects()? {
        pinned.forget(&suspect.file)?;
    }
    Ok(Swept {
        frames: all,
        folios,
        complete: pinned.hints_complete()?,
    })
}

/// Every page frame, by all processors; how many pinned file folios there are.
fn look_at_all(
    pinned: &Pinned,
    all: u64,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<u64, BpfError> {
    let next = AtomicU64::new(0);
    let take = || Some(next.fetch_add(PART, Ordering::Relaxed)).filter(|&first| first < all);
    let look = |first| pinned.sweep_frames(first, PART).map(u64::from);
    let rest = || -> Result<u64, BpfError> { std::iter::from_fn(take).map(look).sum() };
    let processors = available_parallelism().map_or(1, NonZero::get);
    let helpers =
        (1..processors.min(MAX_PROCESSORS)).take(usize::try_from(all / PART).unwrap_or(0));
    std::thread::scope(|scope| {
        let helpers: Vec<_> = helpers.map(|_| scope.spawn(rest)).collect();
        let mut folios = 0;
        while let Some(first) = take() {
            progress(first, all);
            folios += look(first)?;
        }
        for helper in helpers {
            folios += helper.join().unwrap_or_else(|panic| resume_unwind(panic))?;
        }
        Ok(folios)
    })
}

/// Pin calls that began and, as far as the programs saw, never ended, less those that are still under
/// way: their exits were lost. A lost exit stays in the balance, a call that runs leaves it, so the least
/// of some looks counts; calls that sleep are found in the tasks' stacks. Looking at too many tasks errs
/// on the side of walking.
fn count_lost_exits(state: &GuardState) -> std::io::Result<u64> {
    let balance = || {
        let left = state.left.load(Ordering::Acquire);
        state.entered.load(Ordering::Acquire).wrapping_sub(left)
    };
    let mut unbalanced = state.sweep_balance.load(Ordering::Relaxed);
    let mut under_way = 0;
    for _ in 0..LOOKS {
        unbalanced = unbalanced.min(balance());
        if unbalanced == 0 {
            return Ok(0);
        }
        under_way = under_way.max(tasks::count_tasks_inside(&pin_functions())?);
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(unbalanced.wrapping_sub(under_way))
}

/// Make good what was lost before the sweep began. What was lost since leaves the mark standing.
fn acknowledge(state: &GuardState, lost_exits: u64) {
    state.acked_balance.store(lost_exits, Ordering::Relaxed);
    let misses = state.sweep_misses.load(Ordering::Relaxed);
    state.acked_misses.store(misses, Ordering::Relaxed);
    // Fails when a table was full meanwhile: then all files stay suspects.
    let _ = state
        .suspect_all
        .compare_exchange(SWEEPING, 0, Ordering::AcqRel, Ordering::Acquire);
}
