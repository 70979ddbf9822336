//! Which tests there are, in which order they run, and when.

use crate::{
    Test, acquire, admin, answers, backend, bad_input, behind, c_api, claims, config, consumers,
    each_command, extents, hard, hints, hold, hold_moving, holds_beside, hosts, lend, mount_ends,
    oracle, parity, plan, prepare, race, rules, shutdown, swap_oracle, swapon, third_party, walk,
    watch, ways_round, who_opens,
};

/// When a test runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tier {
    /// Every day, and on every row whose `daily` in KERNELS is whole.
    Daily,
    /// The same, and for longer with the long ones.
    Both,
    /// When somebody asks for it: `make test-long`.
    Long,
}

impl Tier {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Daily => "daily",
            Self::Both => "both",
            Self::Long => "long",
        }
    }
}

/// A test with its place in the list.
pub(crate) struct Entry {
    pub(crate) test: Test,
    pub(crate) tier: Tier,
    /// Whether it also runs on rows whose `daily` is smoke.
    pub(crate) smoke: bool,
}

/// These go on for longer when `LONGPIN_LONG` is set: more rounds, more pins.
const LONGER: [&str; 11] = [
    "c08_two_umounts",
    "c09_busy",
    "c09_file_dies_first",
    "c09_foreign_flood",
    "c09_oversubscribed",
    "c10_kill",
    "c13_race",
    "m13_rdma_kill",
    "m13_ring_kill",
    "m13_vfio_kill",
    "random_rounds",
];

/// Something of everything, in a minute or two.
const SMOKE: [&str; 14] = [
    "plan_check",
    "smoke_guard",
    "smoke_verifier",
    "c01_truncate",
    "c02_punch",
    "c09_release",
    "c11_on_demand",
    "c14_other_files",
    "rdma_pins",
    "pins_vfio",
    "hold_under_guard",
    "hold_persists",
    "hold_excludes",
    "doctor_good_host",
];

/// These stop the guard or need it stopped, and every start costs: they come last, in an order in which few of them have to.
const RESTARTING: [&str; 28] = [
    // Leave no guard.
    "m13_vfio_force",
    "m13_rdma_force",
    "m13_rdma_force_orphan",
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
    // Take something from the machine.
    "m13_lockdown",
    "m13_namespace_disabled",
];

/// All tests, in the order in which they run.
pub(crate) fn entries() -> Vec<Entry> {
    let mut entries = listed();
    let is_listed = |name: &&str| entries.iter().any(|entry| entry.test.0 == *name);
    let named = RESTARTING.iter().chain(&LONGER).chain(&SMOKE);
    let missing: Vec<_> = named.filter(|name| !is_listed(name)).collect();
    // Without RDMA some of them are not there.
    assert!(
        missing.is_empty() || cfg!(not(feature = "rdma")),
        "no such test: {missing:?}"
    );
    // Stable: the others stay as they are listed.
    entries.sort_by_key(|entry| {
        let last = RESTARTING.iter().position(|name| *name == entry.test.0);
        last.map_or(0, |at| at + 1)
    });
    entries
}

/// The list for the runner: `NAME TIER whole|smoke`.
pub(crate) fn print() {
    for Entry { test, tier, smoke } in entries() {
        let daily = if smoke { "smoke" } else { "whole" };
        println!("{} {} {daily}", test.0, tier.name());
    }
}

fn listed() -> Vec<Entry> {
    let entry = |&test: &Test, tier| Entry {
        test,
        tier,
        smoke: SMOKE.contains(&test.0),
    };
    let daily = DAILY.iter().copied().flatten().map(|test| {
        let longer = LONGER.contains(&test.0);
        entry(test, if longer { Tier::Both } else { Tier::Daily })
    });
    let long = LONG.iter().copied().flatten();
    daily
        .chain(long.map(|test| entry(test, Tier::Long)))
        .collect()
}

const DAILY: &[&[Test]] = &[
    plan::WITHOUT_GUARD,
    plan::RDMA_WITHOUT_GUARD,
    answers::WITHOUT_GUARD,
    behind::WITHOUT_GUARD,
    hosts::WITHOUT_GUARD,
    parity::WITHOUT_GUARD,
    claims::TESTS,
    mount_ends::TESTS,
    plan::TESTS,
    plan::RDMA_TESTS,
    hosts::TESTS,
    walk::TESTS,
    hints::TESTS,
    oracle::TESTS,
    admin::TESTS,
    watch::TESTS,
    rules::TESTS,
    consumers::TESTS,
    config::TESTS,
    hard::TESTS,
    ways_round::TESTS,
    extents::TESTS,
    prepare::TESTS,
    swapon::TESTS,
    hold::TESTS,
    holds_beside::TESTS,
    acquire::TESTS,
    who_opens::TESTS,
    each_command::TESTS,
    behind::TESTS,
    answers::TESTS,
    backend::TESTS,
    c_api::TESTS,
    bad_input::TESTS,
    lend::TESTS,
];

const LONG: &[&[Test]] = &[
    mount_ends::LONG_TESTS,
    walk::LONG_TESTS,
    plan::LONG_TESTS,
    plan::RDMA_LONG_TESTS,
    hosts::LONG_TESTS,
    shutdown::TESTS,
    ways_round::LONG_TESTS,
    oracle::LONG_TESTS,
    swap_oracle::TESTS,
    extents::LONG_TESTS,
    prepare::LONG_TESTS,
    hold::LONG_TESTS,
    acquire::LONG_TESTS,
    who_opens::LONG_TESTS,
    behind::LONG_TESTS,
    answers::LONG_TESTS,
    race::TESTS,
    hold_moving::TESTS,
    backend::LONG_TESTS,
    parity::TESTS,
    third_party::TESTS,
    lend::LONG_TESTS,
];
