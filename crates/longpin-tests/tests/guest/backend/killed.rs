//! kill -9 at any moment of an acquisition, and of a release.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use longpin_tests::pattern::Pattern;
use longpin_tests::scratch::FsKind;

use super::{is_active, is_whole, make, records, scratch_of};
use crate::blocks::status;
use crate::guard;

/// Moments of an acquisition, evenly spread over twice its time.
const MOMENTS: u32 = 30;

/// kill -9 whenever an acquisition has gone a little further, then the same with the release: the file is held, or can be
/// released, and has its bytes.
pub(super) fn killed_anywhere() -> Result<()> {
    let scratch = scratch_of(FsKind::Ext4)?;
    let own = Pattern::new(39);
    let path = make(&scratch, "held", own)?;
    let text = path.to_string_lossy();
    let mut hold = vec!["hold", "--backend", "swap-header", "--overwrite-head"];
    hold.extend(["--persist", &text]);
    let step = time_of(&hold)? * 2 / MOMENTS;
    // Nothing there, a record, a hold.
    let mut met = [0; 3];
    // A busy machine may have become busier: as far as it takes.
    for time in (0..10 * MOMENTS).map(|moment| step * moment) {
        killed_after(&hold, time)?;
        let state = match (records()?.is_empty(), is_active(&path)?) {
            (true, active) => {
                ensure!(!active, "held, and no record");
                0
            }
            (false, active) => 1 + usize::from(active),
        };
        met[state] += 1;
        for id in records()? {
            killed_after(&["release", &id], time)?;
            let (code, said) = status(&["release", &id])?;
            ensure!(code == 0 || said.contains("there is no hold"), "{said}");
        }
        is_whole(&format!("killed after {time:?}"), &path, own)?;
        if time >= step * MOMENTS && met[2] > 0 {
            break;
        }
    }
    let [nothing, record, held] = met;
    println!("killed: {nothing} with nothing done, {record} with a record, {held} held");
    ensure!(nothing > 0 && held > 0, "too early or too late: {met:?}");
    scratch.close()
}

/// How long it takes here, when it is not the first one.
fn time_of(hold: &[&str]) -> Result<Duration> {
    let mut taken = Duration::ZERO;
    for _ in 0..2 {
        let begin = Instant::now();
        guard::must(hold)?;
        taken = begin.elapsed();
        for id in records()? {
            guard::must(&["release", &id])?;
        }
    }
    Ok(taken)
}

fn killed_after(arguments: &[&str], time: Duration) -> Result<()> {
    let mut longpin = Command::new("longpin").args(arguments).spawn()?;
    std::thread::sleep(time);
    longpin.kill()?;
    longpin.wait()?;
    Ok(())
}
