//! The guest tier: every claim, by trying the act. Needs root, a kernel that loads LSM programs, and
//! devices that may be spoilt: the guest of `cargo xtask vm`. Elsewhere every test is listed as ignored.
//!
//! The names begin with the claim of docs/guarantee.md that the test serves.

mod acquire;
mod admin;
mod answers;
mod backend;
mod bad_input;
mod behind;
mod blocks;
mod c_api;
mod child;
mod claims;
mod config;
mod consumers;
mod each_command;
mod extents;
mod files;
mod fuse;
mod guard;
mod hard;
mod hints;
mod hold;
mod hold_moving;
mod holds_beside;
#[cfg(feature = "rdma")]
mod hosts;
#[cfg(not(feature = "rdma"))]
mod hosts {
    pub(crate) const WITHOUT_GUARD: &[crate::Test] = &[];
    pub(crate) const TESTS: &[crate::Test] = &[];
    pub(crate) const LONG_TESTS: &[crate::Test] = &[];
}
#[cfg(feature = "rdma")]
mod lend;
#[cfg(not(feature = "rdma"))]
mod lend {
    pub(crate) const TESTS: &[crate::Test] = &[];
    pub(crate) const LONG_TESTS: &[crate::Test] = &[];
}
mod list;
mod mount_ends;
#[cfg(feature = "rdma")]
mod on_demand;
mod oracle;
mod parity;
mod pin;
mod plan;
mod prepare;
mod race;
mod report;
mod rules;
mod shutdown;
mod swap_oracle;
mod swapon;
mod third_party;
mod walk;
mod watch;
mod ways_round;
mod who_opens;

use libtest_mimic::{Arguments, Trial};

type Test = (&'static str, fn() -> anyhow::Result<()>);

fn main() -> std::process::ExitCode {
    if let Some(code) = child::run_if_asked() {
        return code;
    }
    if std::env::args().nth(1).as_deref() == Some("longpin-test-list") {
        list::print();
        return std::process::ExitCode::SUCCESS;
    }
    let mut arguments = Arguments::from_args();
    // One guard, one kernel: one test at a time.
    arguments.test_threads = Some(1);
    let in_guest = std::env::var_os("LONGPIN_GUEST").is_some();
    if !in_guest {
        println!("not run here: these tests need root in the guest; `make test` boots it");
    }
    let ended = libtest_mimic::run(&arguments, trials(in_guest));
    if in_guest {
        report::count("guard starts", guard::starts());
    }
    ended.exit_code()
}

/// All tests; of them only those that `LONGPIN_TESTS` names, if it is set, whether long or not.
fn trials(in_guest: bool) -> Vec<Trial> {
    let long = std::env::var_os("LONGPIN_LONG").is_some();
    let chosen = std::env::var("LONGPIN_TESTS").ok();
    let is_chosen = |name: &str| match &chosen {
        Some(names) => names.split_whitespace().any(|chosen| chosen == name),
        None => true,
    };
    let entries = list::entries().into_iter();
    let entries = entries.filter(|entry| is_chosen(entry.test.0));
    let trials = entries.map(|list::Entry { test, tier, .. }| {
        let (name, test) = test;
        let asked = long || chosen.is_some() || tier != list::Tier::Long;
        Trial::ignorable_test(name, move || report::run(name, test))
            .with_ignored_flag(!in_guest || !asked)
    });
    trials.collect()
}
