//! The guest tier: every claim, by trying the act. Needs root, a kernel that loads LSM programs, and
//! devices that may be spoilt: the guest of `cargo xtask vm`. Elsewhere every test is listed as ignored.
//!
//! The names begin with the claim of docs/guarantee.md that the test serves.

mod admin;
mod answers;
mod backend;
mod bad_input;
mod blocks;
mod c_api;
mod child;
mod claims;
mod config;
mod consumers;
mod extents;
mod files;
mod guard;
mod hard;
mod hints;
mod hold;
mod hold_moving;
#[cfg(feature = "rdma")]
mod hosts;
#[cfg(not(feature = "rdma"))]
mod hosts {
    pub(crate) const WITHOUT_GUARD: &[crate::Test] = &[];
    pub(crate) const TESTS: &[crate::Test] = &[];
    pub(crate) const LONG_TESTS: &[crate::Test] = &[];
}
#[cfg(feature = "rdma")]
mod on_demand;
mod oracle;
mod parity;
mod pin;
mod plan;
mod prepare;
mod race;
mod rules;
mod shutdown;
mod swap_oracle;
mod swapon;
mod third_party;
mod walk;
mod watch;

use libtest_mimic::{Arguments, Failed, Trial};

type Test = (&'static str, fn() -> anyhow::Result<()>);

fn main() -> std::process::ExitCode {
    if let Some(code) = child::run_if_asked() {
        return code;
    }
    let mut arguments = Arguments::from_args();
    // One guard, one kernel: one test at a time.
    arguments.test_threads = Some(1);
    let in_guest = std::env::var_os("LONGPIN_GUEST").is_some();
    if !in_guest {
        println!("not run here: these tests need root in the guest; `make test` boots it");
    }
    let long = std::env::var_os("LONGPIN_LONG").is_some();
    let trials = all_tests().into_iter().map(|((name, test), is_long)| {
        Trial::test(name, move || run(test)).with_ignored_flag(!in_guest || is_long && !long)
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

fn run(test: fn() -> anyhow::Result<()>) -> Result<(), Failed> {
    let begin = std::time::Instant::now();
    let result = test();
    println!("[{:.0} s]", begin.elapsed().as_secs_f32());
    result.map_err(|err| Failed::from(format!("{err:#}")))
}

/// These stop the guard or need it stopped, and a start takes ten seconds and more under emulation: they come last, in an
/// order in which few of them have to.
const RESTARTING: [&str; 23] = [
    // Leave no guard.
    "c09_lost_hints",
    "c09_full_table",
    "admin_audit",
    "doctor_what_is_missing",
    "bad_no_privilege",
    "bad_no_bpf_lsm",
    "bad_no_btf",
    "bad_no_bpf_fs",
    "hold_ext4",
    "backend_without_bpf",
    // Each begins as the one before it ends.
    "swapon_prepares_and_activates",
    "bad_started_twice",
    "bad_stop_with_holds",
    "bad_other_version",
    "c13_sleeping_pin",
    "doctor_good_host",
    "c10_kill",
    "c10_kill_others",
    "rules_wrong",
    "bad_interrupted_start",
    "c09_older_pins",
    "c09_foreign_flood",
    "oracle_detachment",
];

fn all_tests() -> Vec<(Test, bool)> {
    let mut tests = listed_tests();
    let is_listed = |name: &&str| tests.iter().any(|((test, _), _)| test == name);
    assert!(RESTARTING.iter().all(is_listed), "no such test");
    // Stable: the others stay as they are listed.
    tests.sort_by_key(|((name, _), _)| {
        RESTARTING
            .iter()
            .position(|last| last == name)
            .map_or(0, |at| at + 1)
    });
    tests
}

fn listed_tests() -> Vec<(Test, bool)> {
    let quick = plan::WITHOUT_GUARD
        .iter()
        .chain(plan::RDMA_WITHOUT_GUARD)
        .chain(answers::WITHOUT_GUARD)
        .chain(hosts::WITHOUT_GUARD)
        .chain(claims::TESTS)
        .chain(plan::TESTS)
        .chain(plan::RDMA_TESTS)
        .chain(hosts::TESTS)
        .chain(walk::TESTS)
        .chain(hints::TESTS)
        .chain(oracle::TESTS)
        .chain(admin::TESTS)
        .chain(watch::TESTS)
        .chain(rules::TESTS)
        .chain(consumers::TESTS)
        .chain(config::TESTS)
        .chain(hard::TESTS)
        .chain(extents::TESTS)
        .chain(prepare::TESTS)
        .chain(swapon::TESTS)
        .chain(hold::TESTS)
        .chain(answers::TESTS)
        .chain(backend::TESTS)
        .chain(c_api::TESTS)
        .chain(bad_input::TESTS);
    let quick = quick.map(|&test| (test, false));
    let long = walk::LONG_TESTS
        .iter()
        .chain(plan::LONG_TESTS)
        .chain(plan::RDMA_LONG_TESTS)
        .chain(hosts::LONG_TESTS)
        .chain(shutdown::TESTS)
        .chain(swap_oracle::TESTS)
        .chain(extents::LONG_TESTS)
        .chain(prepare::LONG_TESTS)
        .chain(hold::LONG_TESTS)
        .chain(answers::LONG_TESTS)
        .chain(race::TESTS)
        .chain(hold_moving::TESTS)
        .chain(backend::LONG_TESTS)
        .chain(parity::TESTS)
        .chain(third_party::TESTS);
    quick.chain(long.map(|&test| (test, true))).collect()
}
