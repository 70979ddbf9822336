//! Counting instructions: the guest's time stamp counter under `-icount shift=0`, which moves by one for each.
#![allow(
    unsafe_code,
    reason = "reading the time stamp counter, and a loop whose length is known"
)]

use std::arch::asm;
use std::arch::x86_64::_rdtsc;

use anyhow::{Result, ensure};

/// Instructions of the loop that the counter is tried on: two in each round.
const TRIAL_ROUNDS: u64 = 100_000;
/// How often the trial is made: the smallest count is the one that no interrupt fell into.
const TRIALS: usize = 21;
/// So many calls have a middle that says more than their least.
const MANY: usize = 100;
/// Calls before those that count: caches of the kernel's are filled by then.
const WARM_UP: usize = 20;

/// What the counter says.
pub(crate) fn now() -> u64 {
    // SAFETY: every x86-64 processor has the counter, and Linux lets user programs read it.
    unsafe { _rdtsc() }
}

fn spin(rounds: u64) {
    // SAFETY: counts one register down to zero, and touches nothing else.
    unsafe {
        asm!("2:", "dec {rounds}", "jnz 2b", rounds = inout(reg) rounds => _, options(nomem, nostack));
    }
}

/// The smallest of many counts of the same act.
fn least(act: impl Fn()) -> u64 {
    let counts = (0..TRIALS).map(|_| {
        let begin = now();
        act();
        now() - begin
    });
    counts.min().unwrap_or(0)
}

/// A counter that has been tried.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counter {
    /// What reading it twice costs.
    own: u64,
}

impl Counter {
    /// Fails where the counter does not count instructions: on real processors, under KVM, and without `-icount`.
    pub(crate) fn calibrate() -> Result<Self> {
        let short = least(|| spin(1));
        let long = least(|| spin(1 + TRIAL_ROUNDS));
        ensure!(
            long.wrapping_sub(short) == 2 * TRIAL_ROUNDS,
            "{} instructions are {} on the time stamp counter: boot with `cargo xtask vm --icount`",
            2 * TRIAL_ROUNDS,
            long.wrapping_sub(short)
        );
        Ok(Self { own: least(|| ()) })
    }

    /// Count each of `calls` acts by itself, with `prepare` before each, which does not count.
    pub(crate) fn each(
        self,
        calls: usize,
        mut prepare: impl FnMut() -> Result<()>,
        mut act: impl FnMut() -> Result<()>,
    ) -> Result<Counts> {
        let warm_up = match calls {
            1 => 0,
            2..MANY => 1,
            _ => WARM_UP,
        };
        let mut counts = Vec::with_capacity(calls);
        for call in 0..warm_up + calls {
            prepare()?;
            let begin = now();
            let done = act();
            let end = now();
            done?;
            if call >= warm_up {
                counts.push((end - begin).saturating_sub(self.own));
            }
        }
        Ok(Counts::new(counts))
    }
}

/// The counts of one act, in rising order.
#[derive(Debug, Clone)]
pub(crate) struct Counts(Vec<u64>);

impl Counts {
    fn new(mut counts: Vec<u64>) -> Self {
        counts.sort_unstable();
        Self(counts)
    }

    /// The middle one of many: timer interrupts fall into few of them. The least of a few long ones: an interrupt falls
    /// into each.
    pub(crate) fn typical(&self) -> u64 {
        let at = if self.0.len() < MANY {
            0
        } else {
            self.0.len() / 2
        };
        self.0.get(at).copied().unwrap_or(0)
    }

    /// From the lowest tenth to the highest.
    pub(crate) fn spread(&self) -> u64 {
        let at = |tenths: usize| self.0.get(self.0.len() * tenths / 10).copied().unwrap_or(0);
        at(9) - at(1)
    }

    /// The counts of the same act in another round.
    pub(crate) fn join(&mut self, other: Self) {
        self.0.extend(other.0);
        self.0.sort_unstable();
    }
}
