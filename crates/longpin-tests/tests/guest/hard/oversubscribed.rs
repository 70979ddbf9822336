//! C09 with many more pinners than CPUs.

use anyhow::{Context, Result, ensure};
use longpin_tests::act::ftruncate;
use longpin_tests::scratch::FsKind;

use super::actor::Actor;
use super::{KernelLog, rounds};
use crate::files::TestFile;
use crate::guard;
use crate::pin::{must_allow_soon, must_refuse};

const PINNERS: usize = 16;
const SHARED: usize = 6;
const LEN: u64 = 65_536;

/// Sixteen processes pin and unpin on two CPUs, direct writes beside them; each tries to truncate under its own
/// live pin, and what it pins is what it reads. Six of them share one file: the others' unpins end nothing. Ten
/// take a new file each time, which nothing but the hint of this very pin makes a suspect. The kernel lets tasks
/// be preempted in the middle of its own code, the programs' among it: that is how hints come to be lost. What
/// the guard then says of its hints is true: if they are complete, every file with a live pin is listed with its
/// process.
///
/// Fails when hints are always taken to be complete (`hints_complete`), and when an unpin ends a hold.
pub(super) fn c09_oversubscribed() -> Result<()> {
    guard::fresh()?;
    let _often = Preemption::full()?;
    let log = KernelLog::mark()?;
    let files = (0..=PINNERS - SHARED)
        .map(|_| TestFile::new(FsKind::Tmpfs, LEN))
        .collect::<Result<Vec<_>>>()?;
    let sink = TestFile::new(FsKind::Ext4, LEN)?;
    let seconds = rounds(5, 60);
    let mut pinners = Vec::new();
    for number in 0..PINNERS {
        let file = &files[number.saturating_sub(SHARED - 1)];
        pinners.push((Actor::start(0)?, file));
    }
    let mut writers = [Actor::start(0)?, Actor::start(0)?];
    for writer in &mut writers {
        writer.tell(&format!("direct {} {seconds}", sink.path.display()))?;
    }
    for (number, (pinner, file)) in pinners.iter_mut().enumerate() {
        let how = if number < SHARED {
            "churn"
        } else {
            "churn-fresh"
        };
        pinner.tell(&format!("{how} {} 1 {seconds}", file.path.display()))?;
    }
    let mut total = 0_u64;
    for (pinner, _) in &mut pinners {
        total += pinner.answer()?.parse::<u64>()?;
    }
    for writer in &mut writers {
        println!("{} direct writes", writer.answer()?);
    }
    println!("{total} pins, hints {}", guard::status()?["hints"]);
    ensure!(total > 100, "only {total} pins");
    every_live_pin_counts(&pinners)?;
    drop((pinners, writers));
    for f in &files {
        must_allow_soon("afterwards", || ftruncate(&f.file, 0))?;
    }
    log.must_be_clean()
}

/// Each pinner has kept its last pin.
fn every_live_pin_counts(pinners: &[(Actor, &TestFile)]) -> Result<()> {
    let complete = guard::status()?["hints"] == "complete";
    let holds = guard::all_holds()?;
    for (pinner, f) in pinners {
        must_refuse("a kept pin", ftruncate(&f.file, 4096))?;
        f.check_all()?;
        let path = f.path.to_string_lossy();
        let listed = holds
            .iter()
            .any(|hold| hold["path"] == *path && hold["pid"] == pinner.pid());
        ensure!(
            listed || !complete,
            "hints are complete, yet {} is not listed: {holds:?}",
            pinner.pid()
        );
    }
    guard::must(&["guard", "sweep"])?;
    for (_, f) in pinners {
        must_refuse("after a sweep", ftruncate(&f.file, 4096)).context("a kept pin")?;
    }
    Ok(())
}

/// How the kernel preempts tasks inside itself; as before on drop.
struct Preemption {
    before: String,
}

impl Preemption {
    const SWITCH: &str = "/sys/kernel/debug/sched/preempt";

    fn full() -> Result<Self> {
        if !std::path::Path::new(Self::SWITCH).exists() {
            let mount = std::process::Command::new("mount")
                .args(["-t", "debugfs", "none", "/sys/kernel/debug"])
                .status()?;
            ensure!(mount.success(), "no debugfs");
        }
        // As "none (voluntary) full".
        let said = std::fs::read_to_string(Self::SWITCH)?;
        let now = said.split(['(', ')']).nth(1).context("no mode")?;
        std::fs::write(Self::SWITCH, "full")?;
        Ok(Self {
            before: now.to_owned(),
        })
    }
}

impl Drop for Preemption {
    fn drop(&mut self) {
        // It was possible a moment ago.
        let _ = std::fs::write(Self::SWITCH, &self.before);
    }
}
