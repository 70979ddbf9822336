//! The one door: everything that the judgement knows of a host is read here.

use std::fs;
use std::io::BufRead;
use std::path::Path;

use longpin_bpf::hooks::{self, Offered};
use longpin_bpf::offers::Offers;
use longpin_linux::{fixed_buffer, kallsyms, probe, pseudo, swap};

use super::{BtfFacts, Fact, GuardFact, HostFacts, SymbolFacts};
use crate::guard::{GuardError, Host, Running};

/// Look at this host. Changes nothing, and loads nothing.
#[must_use]
pub fn read_host(host: &Host) -> HostFacts {
    let kernel = rustix::system::uname();
    HostFacts {
        release: kernel.release().to_string_lossy().into_owned(),
        machine: kernel.machine().to_string_lossy().into_owned(),
        page_size: rustix::param::page_size(),
        privileged: probe::may_load_lsm_programs().unwrap_or(false),
        security_modules: probe::read_security_modules(&host.security_modules)
            .map_err(|err| said(&host.security_modules, &err)),
        lsm_option: fs::read_to_string("/proc/cmdline")
            .ok()
            .and_then(|line| lsm_option(&line)),
        lockdown: read_lockdown(&host.security_modules),
        btf: read_btf(&host.btf),
        bpf_fs: probe::is_bpf_fs(&host.bpf_fs).map_err(|err| said(&host.bpf_fs, &err)),
        symbols: read_symbols(),
        ftrace_enabled: read_switch("ftrace_enabled"),
        io_uring_disabled: read_switch("io_uring_disabled"),
        io_uring: fixed_buffer::is_enabled().map_err(|err| format!("io_uring_setup(2): {err}")),
        swap_areas: swap::count_areas().map_err(|err| said(Path::new("/proc/swaps"), &err)),
        may_make_immutable: probe::may_make_immutable().unwrap_or(false),
        guard: read_guard(host),
    }
}

fn said(path: &Path, err: &std::io::Error) -> String {
    format!("{}: {err}", path.display())
}

/// The last one counts, as for the kernel.
fn lsm_option(line: &str) -> Option<String> {
    let words = line.split_ascii_whitespace().rev();
    let mut values = words.filter_map(|word| word.strip_prefix("lsm="));
    values.next().map(str::to_owned)
}

/// `/sys/kernel/security/lockdown`: the level in brackets. No file beside the list of modules: no such
/// module.
fn read_lockdown(security_modules: &Path) -> Fact<Option<String>> {
    let path = security_modules.with_file_name("lockdown");
    match pseudo::read_text(&path) {
        Ok(Some(text)) => Ok(Some(lockdown_level(&text))),
        Ok(None) if security_modules.exists() => Ok(None),
        Ok(None) => Err("securityfs is not mounted".to_owned()),
        Err(err) => Err(said(&path, &err)),
    }
}

fn lockdown_level(text: &str) -> String {
    let level = text
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'));
    level.map_or("none", |(level, _)| level).to_owned()
}

fn read_btf(path: &Path) -> Fact<Option<BtfFacts>> {
    let there = path.try_exists().map_err(|err| said(path, &err))?;
    if !there {
        return pseudo::is_absent(path)
            .map(|()| None)
            .map_err(|err| said(path, &err));
    }
    let offers = Offers::read(path).map_err(|_| format!("{} cannot be read", path.display()))?;
    let functions = hooks::functions().filter_map(|name| {
        let arguments = offers.arguments(&name)?;
        Some((name, arguments))
    });
    let tracepoints = hooks::tracepoints().filter(|name| offers.has_tracepoint(name));
    Ok(Some(BtfFacts {
        functions: functions.collect(),
        tracepoints: tracepoints.collect(),
    }))
}

fn read_symbols() -> Fact<SymbolFacts> {
    let path = Path::new("/proc/kallsyms");
    let input = kallsyms::open().map_err(|err| said(path, &err))?;
    let mut found = SymbolFacts {
        kptr_restrict: read_switch("kptr_restrict").ok().flatten(),
        ..SymbolFacts::default()
    };
    let wanted = hooks::pin_functions();
    for line in input.lines() {
        if !note_symbol(&mut found, &wanted, &line.map_err(|err| said(path, &err))?) {
            break;
        }
    }
    Ok(found)
}

/// Modules' symbols, of which none is wanted, stand behind the kernel's own: then it is false.
fn note_symbol(found: &mut SymbolFacts, wanted: &[&'static str], line: &str) -> bool {
    let mut words = line.split_ascii_whitespace();
    let shown = words
        .next()
        .is_some_and(|address| address.bytes().any(|digit| digit != b'0'));
    found.shown |= shown;
    let name = words.nth(1).unwrap_or_default();
    if words.next().is_some() {
        return false;
    }
    let ours = wanted.iter().find(|&&function| function == name);
    found.pin_functions.extend(ours);
    true
}

/// A number below `/proc/sys/kernel`.
fn read_switch(name: &str) -> Fact<Option<u32>> {
    let path = Path::new("/proc/sys/kernel").join(name);
    let Some(text) = pseudo::read_text(&path).map_err(|err| said(&path, &err))? else {
        return Ok(None);
    };
    let number = text.trim().parse().map(Some);
    number.map_err(|_| format!("{}: {}", path.display(), text.trim()))
}

fn read_guard(host: &Host) -> GuardFact {
    match Running::open(host) {
        Ok(_) => GuardFact::Running,
        Err(GuardError::NotRunning) => GuardFact::NotRunning,
        Err(err @ GuardError::OtherVersion { .. }) => GuardFact::Other(err.to_string()),
        Err(err) => GuardFact::Unseen(err.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_of_lockdown_is_the_one_in_brackets() {
        assert_eq!(
            lockdown_level("none [integrity] confidentiality\n"),
            "integrity"
        );
        assert_eq!(lockdown_level("[none] integrity confidentiality\n"), "none");
        assert_eq!(lockdown_level(""), "none");
    }

    #[test]
    fn the_last_lsm_option_counts() {
        let line = "quiet lsm=a,b root=/dev/vda lsm=c nolsm=d\n";
        assert_eq!(lsm_option(line).as_deref(), Some("c"));
        assert_eq!(lsm_option("quiet"), None);
    }

    #[test]
    fn a_list_without_addresses_still_names_functions() {
        let mut found = SymbolFacts::default();
        let module = "0000000000000000 t pin_user_pages\t[other]";
        let wanted = ["pin_user_pages", "pin_user_pages_fast"];
        let mut note = |line| note_symbol(&mut found, &wanted, line);
        assert!(note("0000000000000000 T pin_user_pages_fast"));
        assert!(!note(module));
        assert_eq!(found.pin_functions, ["pin_user_pages_fast"]);
        assert!(!found.shown);
        assert!(note_symbol(&mut found, &wanted, "ffffffff81000000 T _text"));
        assert!(found.shown);
    }

    #[test]
    fn this_host_can_be_read_by_anybody() {
        let facts = read_host(&Host::default());
        assert!(!facts.release.is_empty());
        assert_eq!(facts.machine == "x86_64", cfg!(target_arch = "x86_64"));
    }

    #[test]
    fn what_is_not_there_is_not_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let modules = dir.path().join("lsm");
        assert!(read_lockdown(&modules).is_err());
        fs::write(&modules, "yama").unwrap();
        assert_eq!(read_lockdown(&modules), Ok(None));
        assert_eq!(read_btf(&dir.path().join("btf")), Ok(None));
        fs::write(dir.path().join("btf"), "no BTF").unwrap();
        assert!(read_btf(&dir.path().join("btf")).is_err());
    }
}
