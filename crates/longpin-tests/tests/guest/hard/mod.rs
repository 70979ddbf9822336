//! The adversarial tests: many against one hold, files that die, calls that sleep, chance.
//!
//! With `LONGPIN_LONG` they go on for longer.

pub(crate) mod actor;
mod dies;
mod flood;
mod oversubscribed;
mod poison;
mod rounds;
mod sleeping;
mod uffd;

use std::process::Command;

use anyhow::{Context, Result, ensure};

pub(crate) use poison::break_page;

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    ("c09_foreign_flood", flood::c09_foreign_flood),
    ("c09_oversubscribed", oversubscribed::c09_oversubscribed),
    ("c09_file_dies_first", dies::c09_file_dies_first),
    ("c13_lazy_umount_of_parent", dies::c13_lazy_umount_of_parent),
    ("c13_broken_stays", dies::c13_broken_stays),
    ("c13_memory_failure", poison::c13_memory_failure),
    ("c13_sleeping_pin", sleeping::c13_sleeping_pin),
    ("c13_race", sleeping::c13_race),
    ("random_rounds", rounds::random_rounds),
];

const PAGE: u64 = 4096;

/// How often: every day, or in a long run.
pub(crate) fn rounds(daily: u64, long: u64) -> u64 {
    if std::env::var_os("LONGPIN_LONG").is_some() {
        long
    } else {
        daily
    }
}

/// The kernel's log, to see what a test adds to it.
struct KernelLog {
    before: usize,
}

impl KernelLog {
    fn mark() -> Result<Self> {
        Ok(Self {
            before: read_log()?.len(),
        })
    }

    /// Nothing since the mark that says the kernel is unwell. A stall that an emulated CPU makes by standing
    /// still is not ours: only one with a BPF program on its stack is. Nor is it unwell where 6.1 warns of /proc/PID/stack
    /// of a task that ran on, with a probe at a function's return.
    fn must_be_clean(&self) -> Result<()> {
        let log = read_log()?;
        let new = log.get(self.before..).unwrap_or(&log);
        let bad = |line: &&String| {
            [
                "WARNING:",
                "BUG:",
                "Oops",
                "general protection",
                "bpf_prog_",
            ]
            .iter()
            .any(|word| line.contains(word))
        };
        let is_known = |line: &&String| line.contains("rethook_find_ret_addr");
        let new = new.iter().filter(|line| !is_known(line));
        let found: Vec<&String> = new.filter(bad).collect();
        ensure!(found.is_empty(), "the kernel's log: {found:#?}");
        Ok(())
    }
}

fn read_log() -> Result<Vec<String>> {
    let output = Command::new("dmesg").output().context("dmesg")?;
    ensure!(output.status.success(), "dmesg: {output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().map(str::to_owned).collect())
}
