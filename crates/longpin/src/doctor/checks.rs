//! What every claim needs, one check each.

use longpin_bpf::{BpfError, hooks};
use longpin_linux::arch;
use std::path::PathBuf;

use super::{Check, Fact, HostFacts, State, SymbolFacts};
use crate::guard::{GuardError, Host};

/// All checks, in the order in which they are shown.
pub(super) fn check(facts: &HostFacts) -> Vec<Check> {
    vec![
        machine(facts),
        privilege(facts),
        security_modules(facts),
        btf(facts),
        bpf_fs(facts),
        lockdown(facts),
        symbols(facts),
        tracing(facts),
        io_uring(facts),
    ]
}

fn ok(name: &'static str, found: impl Into<String>) -> Check {
    Check {
        name,
        state: State::Ok,
        found: found.into(),
        remedy: Vec::new(),
    }
}

fn not(state: State, name: &'static str, found: impl Into<String>, remedy: &[&str]) -> Check {
    Check {
        state,
        remedy: remedy.iter().map(|&line| line.to_owned()).collect(),
        ..ok(name, found)
    }
}

/// The line that the command itself would print.
fn as_error(name: &'static str, err: &GuardError) -> Check {
    Check {
        remedy: err.hints(),
        ..not(State::Missing, name, err.to_string(), &[])
    }
}

fn machine(facts: &HostFacts) -> Check {
    let HostFacts {
        machine, page_size, ..
    } = facts;
    let found = format!("{machine}, pages of {page_size} bytes");
    if machine == arch::MACHINE && *page_size == 4096 {
        return ok("machine", found);
    }
    let remedy = "longpin knows x86_64 with pages of 4096 bytes only";
    not(State::Missing, "machine", found, &[remedy])
}

fn privilege(facts: &HostFacts) -> Check {
    if facts.privileged {
        return ok("privilege", "CAP_SYS_ADMIN");
    }
    let found = "no CAP_SYS_ADMIN: cannot see whether a guard runs";
    not(State::Note, "privilege", found, &["sudo longpin doctor"])
}

/// Without securityfs neither the list nor the lockdown can be read.
const MOUNT_SECURITYFS: &str = "mount -t securityfs securityfs /sys/kernel/security";

fn security_modules(facts: &HostFacts) -> Check {
    const NAME: &str = "security modules";
    let modules = match &facts.security_modules {
        Ok(Some(modules)) => modules,
        Ok(None) => {
            let found = "securityfs is not mounted";
            return not(State::Unknown, NAME, found, &[MOUNT_SECURITYFS]);
        }
        Err(why) => return not(State::Unknown, NAME, why, &[]),
    };
    if modules.iter().any(|name| name == "bpf") {
        return ok(NAME, modules.join(","));
    }
    let modules = modules.clone();
    let mut check = as_error(NAME, &GuardError::NoBpfLsm { modules });
    let now = facts.lsm_option.iter();
    check
        .remedy
        .extend(now.map(|list| format!("the command line says `lsm={list}` now: replace that")));
    check
}

fn btf(facts: &HostFacts) -> Check {
    let path = Host::default().btf;
    match &facts.btf {
        Ok(Some(btf)) => match hooks::find_missing(btf) {
            Some((function, purpose)) => {
                let missing = BpfError::MissingFunction { function, purpose };
                as_error("BTF", &missing.into())
            }
            None => ok("BTF", path.display().to_string()),
        },
        Ok(None) => as_error("BTF", &GuardError::NoBtf { path }),
        Err(why) => not(State::Unknown, "BTF", why, &[]),
    }
}

fn bpf_fs(facts: &HostFacts) -> Check {
    let path: PathBuf = Host::default().bpf_fs;
    match &facts.bpf_fs {
        Ok(true) => ok("bpffs", path.display().to_string()),
        Ok(false) => as_error("bpffs", &GuardError::NoBpfFs { path }),
        Err(why) => not(State::Unknown, "bpffs", why, &[]),
    }
}

fn lockdown(facts: &HostFacts) -> Check {
    match &facts.lockdown {
        Ok(None) => ok("lockdown", "none"),
        Ok(Some(level)) if level == "confidentiality" => not(
            State::Missing,
            "lockdown",
            "confidentiality: BPF programs may not read kernel memory",
            &["take `lockdown=confidentiality` off the kernel command line; `integrity` is fine"],
        ),
        Ok(Some(level)) => ok("lockdown", level),
        Err(why) => not(State::Unknown, "lockdown", why, &[MOUNT_SECURITYFS]),
    }
}

fn symbols(facts: &HostFacts) -> Check {
    const NAME: &str = "kernel addresses";
    match &facts.symbols {
        Ok(SymbolFacts { shown: true, .. }) => ok(NAME, "/proc/kallsyms"),
        Ok(SymbolFacts {
            kptr_restrict: Some(0 | 1),
            ..
        }) if !facts.privileged => ok(NAME, "shown to root (kernel.kptr_restrict)"),
        Ok(SymbolFacts {
            kptr_restrict: None,
            ..
        }) if !facts.privileged => not(State::Unknown, NAME, "hidden from this user", &[]),
        Ok(_) => not(
            State::Missing,
            NAME,
            "hidden, also from root",
            &["sysctl kernel.kptr_restrict=1"],
        ),
        Err(why) => not(State::Unknown, NAME, why, &[]),
    }
}

fn tracing(facts: &HostFacts) -> Check {
    let name = "kernel.ftrace_enabled";
    let missing = "0: tracing programs do not run";
    switch(name, &facts.ftrace_enabled, |value| value != 0, missing)
}

/// The starting guard pins a file of its own with io_uring. 1 is for users without privilege.
fn io_uring(facts: &HostFacts) -> Check {
    let name = "kernel.io_uring_disabled";
    let missing = "2: the guard cannot prove itself when it starts";
    let is_open = matches!(facts.io_uring_disabled, Ok(None | Some(0)));
    if is_open && facts.io_uring == Ok(false) {
        let found = "it allows io_uring, and something else refuses it to this process";
        return not(
            State::Missing,
            "io_uring",
            found,
            &[crate::guard::OUTSIDE_OF_FILTER],
        );
    }
    switch(name, &facts.io_uring_disabled, |value| value < 2, missing)
}

fn switch(
    name: &'static str,
    fact: &Fact<Option<u32>>,
    good: impl Fn(u32) -> bool,
    missing: &str,
) -> Check {
    match fact {
        Ok(None) => ok(name, "no such switch"),
        Ok(Some(value)) if good(*value) => ok(name, value.to_string()),
        Ok(Some(_)) => {
            let value = u32::from(name.ends_with("enabled"));
            let remedy = format!("sysctl {name}={value}");
            not(State::Missing, name, missing, &[&remedy])
        }
        Err(why) => not(State::Unknown, name, why, &[]),
    }
}
