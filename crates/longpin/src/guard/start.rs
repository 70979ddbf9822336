//! Starting the guard.

use std::sync::atomic::Ordering;
use std::time::Duration;

use longpin_bpf::facts::Facts;
use longpin_bpf::hooks::pin_functions;
use longpin_bpf::load::{self, Purpose, Storage};
use longpin_bpf::measure::reached;
use longpin_bpf::pinned::Pinned;
use longpin_bpf::shared::Level;
use longpin_bpf::shared::MAX_FILES;
use longpin_bpf::{BpfError, Mode, STRICT_ALL, SUSPECT_ALL};
use longpin_linux::{probe, tasks};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{
    GuardError, Host, Turn, check_privilege, levels, open_pinned, proof, read_enforcement,
    read_mode, remove_dir, rules, sweep,
};
use crate::Enforcement;
use crate::config::{self, Resolved};

/// How often the tasks are looked at for pin calls that are older than the programs.
const QUIET_LOOKS: u32 = 20;

/// How to start.
#[derive(Debug, Clone, Copy, Default)]
pub struct StartOptions {
    /// Record what would be refused, and refuse nothing.
    pub audit: bool,
    /// Also where the kernel lets the guard enforce a part of the claims only.
    pub partial: bool,
    /// Room for so many files; `None`: [`MAX_FILES`].
    pub max_files: Option<u32>,
    /// A walk over a file's pages, or over a file system's files, that takes longer is given up: what was asked for is
    /// refused, and counted ([`super::Status::unfinished`]). From 1 ms to 10 s; `None`: 5 s.
    pub walk_budget: Option<Duration>,
    /// Pinned files are held at level swapfile, unless a rule says otherwise.
    pub swapfile: bool,
}

/// A guard that was started.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Started {
    /// How much of the promise it enforces.
    pub enforcement: Enforcement,
    /// Explicit holds that stood without a guard, and stand on under it.
    pub adopted: u32,
}

/// Start the guard: check the host, attach, look for pins that are older, prove, take over explicit holds that stand, arm,
/// publish. These are kept all the time: by the programs that they began with until the new ones are armed.
///
/// `progress` gets page frames looked at and all page frames.
///
/// # Errors
///
/// [`GuardError`]; nothing stays attached.
pub fn start(
    host: &Host,
    options: StartOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Started, GuardError> {
    check_privilege()?;
    check_host(host)?;
    let _turn = Turn::take(host)?;
    let holds = clear_way(host, options.audit)?;
    let rules = config::load(&host.config, config::Missing::NoRules)?;
    reached("host looked at, rules read");
    let facts = Facts::probe().map_err(|err| name_missing_btf(err, host))?;
    let made = assemble(host, options, &facts, &rules, holds.as_ref(), progress);
    if made.is_err() {
        // The error that counts is the first one.
        let _ = remove_dir(&host.scratch_dir());
    }
    made
}

/// Start what explicit holds need, without a guard: pins are not watched. The caller has the turn.
pub(super) fn start_for_holds(host: &Host) -> Result<(), GuardError> {
    check_host(host)?;
    remove_dir(&host.guard_dir())?;
    remove_dir(&host.scratch_dir())?;
    let rules = config::load(&host.config, config::Missing::NoRules)?;
    reached("host looked at, rules read");
    let facts = Facts::probe().map_err(|err| name_missing_btf(err, host))?;
    let made = assemble_for_holds(host, &facts, &rules);
    if made.is_err() {
        // The error that counts is the first one.
        let _ = remove_dir(&host.scratch_dir());
    }
    made
}

fn assemble_for_holds(host: &Host, facts: &Facts, rules: &Resolved) -> Result<(), GuardError> {
    let pinned = load_and_pin(host, facts, Purpose::Holds)?;
    rules::apply(&pinned, rules)?;
    publish(host, &pinned, Mode::Enforcing)
}

/// Load the programs, attach them, and pin them where they are not armed yet.
fn load_and_pin(host: &Host, facts: &Facts, purpose: Purpose) -> Result<Pinned, GuardError> {
    let mut storage = Storage::default();
    let mut attached = load::attach(&mut storage, facts, purpose)?;
    let scratch = host.scratch_dir();
    std::fs::create_dir(&scratch).map_err(|source| not_published(host, source))?;
    attached.pin(&scratch)?;
    let pinned = Pinned::open(&scratch)?;
    drop(attached);
    reached("programs pinned");
    Ok(pinned)
}

/// Programs that are armed already, in the place of those that explicit holds had until now: these hold until the others
/// are seen by everybody.
fn replace(host: &Host, old: &Pinned) -> Result<(), GuardError> {
    let (new, place) = (host.scratch_dir(), host.guard_dir());
    renameat_with(CWD, &new, CWD, &place, RenameFlags::EXCHANGE)
        .map_err(|source| not_published(host, source.into()))?;
    old.state().set_mode(Mode::Off);
    // The guard runs: what is left there refuses nobody, and goes with the next command.
    let _ = remove_dir(&new);
    Ok(())
}

/// One rename shows the programs to other commands, one store arms them.
fn publish(host: &Host, pinned: &Pinned, mode: Mode) -> Result<(), GuardError> {
    std::fs::rename(host.scratch_dir(), host.guard_dir())
        .map_err(|source| not_published(host, source))?;
    pinned.state().set_mode(mode);
    Ok(())
}

fn not_published(host: &Host, source: std::io::Error) -> GuardError {
    GuardError::Publish {
        path: host.guard_dir(),
        source,
    }
}

fn check_host(host: &Host) -> Result<(), GuardError> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |source| GuardError::Probe { what, source }
    };
    let modules = probe::read_security_modules(&host.security_modules)
        .map_err(failed("the active security modules"))?;
    if let Some(modules) = modules.filter(|list| !list.iter().any(|name| name == "bpf")) {
        return Err(GuardError::NoBpfLsm { modules });
    }
    if !host.btf.exists() {
        return Err(GuardError::NoBtf {
            path: host.btf.clone(),
        });
    }
    if !probe::is_bpf_fs(&host.bpf_fs).map_err(failed("the BPF file system"))? {
        return Err(GuardError::NoBpfFs {
            path: host.bpf_fs.clone(),
        });
    }
    Ok(())
}

fn name_missing_btf(err: BpfError, host: &Host) -> GuardError {
    match err {
        BpfError::NoBtf(_) => GuardError::NoBtf {
            path: host.btf.clone(),
        },
        other => other.into(),
    }
}

/// Refuse to start twice; remove what a killed start or stop left. What explicit holds have without a guard is returned.
fn clear_way(host: &Host, audit: bool) -> Result<Option<Pinned>, GuardError> {
    remove_dir(&host.scratch_dir())?;
    match read_mode(&host.guard_dir())? {
        Some(mode) if mode.is_running() => {
            let pinned = open_pinned(&host.guard_dir())?.ok_or(GuardError::AlreadyRunning)?;
            if !levels::is_for_holds_only(&pinned) {
                return Err(GuardError::AlreadyRunning);
            }
            match levels::count_explicit(&pinned)? {
                holds if holds > 0 && audit => Err(GuardError::HoldsUnderAudit { holds }),
                _ => Ok(Some(pinned)),
            }
        }
        _ => remove_dir(&host.guard_dir()).map(|()| None),
    }
}

/// Is nobody inside a pin call? One that began before the programs were attached is not seen to end.
fn nobody_pins() -> Result<bool, GuardError> {
    for _ in 0..QUIET_LOOKS {
        let inside = tasks::count_tasks_inside(&pin_functions()).map_err(|source| {
            let what = "tasks inside pin calls".into();
            GuardError::Probe { what, source }
        })?;
        if inside == 0 {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(false)
}

fn assemble(
    host: &Host,
    options: StartOptions,
    facts: &Facts,
    rules: &Resolved,
    holds: Option<&Pinned>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Started, GuardError> {
    let max_files = options.max_files.unwrap_or(MAX_FILES);
    let scratch = host.scratch_dir();
    let walk_budget = options.walk_budget;
    let purpose = Purpose::Guard {
        max_files,
        last_row: holds.map_or(0, Pinned::last_row),
        walk_budget,
    };
    let pinned = load_and_pin(host, facts, purpose)?;
    let level = if options.swapfile {
        Level::Swapfile
    } else {
        Level::Layout
    };
    let enforcement = read_enforcement(&scratch, level)?;
    if enforcement != Enforcement::Full && !options.partial {
        return Err(GuardError::Partial {
            missing: enforcement.missing().to_vec(),
        });
    }
    if options.swapfile {
        pinned.state().strict.fetch_or(STRICT_ALL, Ordering::AcqRel);
    }
    // Before the sweep: what it finds is held at the level that the rules say.
    rules::apply(&pinned, rules)?;
    reached("rules applied");
    look_over(&pinned, progress)?;
    prove_hooks(&pinned, options.swapfile)?;
    let mode = if options.audit {
        Mode::Audit
    } else {
        Mode::Enforcing
    };
    let mut adopted = 0;
    match holds {
        Some(old) => {
            let full = |_| GuardError::NoRoomForHolds;
            adopted = pinned.adopt(old)?.map_err(full)?;
            reached("explicit holds taken over");
            pinned.state().set_mode(mode);
            replace(host, old)?;
        }
        None => publish(host, &pinned, mode)?,
    }
    Ok(Started {
        enforcement,
        adopted,
    })
}

/// Find the pins that are older than the programs.
fn look_over(pinned: &Pinned, progress: &mut dyn FnMut(u64, u64)) -> Result<(), GuardError> {
    let quiet = nobody_pins()?;
    reached("tasks looked at");
    sweep::sweep_with(pinned, progress)?;
    reached("page frames swept");
    if !quiet {
        let mark = &pinned.state().suspect_all;
        mark.store(SUSPECT_ALL, Ordering::Relaxed);
    }
    Ok(())
}

/// Attached is not enforced: try it, refusing this process only.
fn prove_hooks(pinned: &Pinned, swapfile: bool) -> Result<(), GuardError> {
    let seen = pinned.state().left.load(Ordering::Relaxed);
    pinned.state().set_mode(Mode::Proving);
    let proved = proof::prove(swapfile);
    pinned.state().set_mode(Mode::Off);
    proved.map_err(GuardError::Unproved)?;
    if pinned.state().left.load(Ordering::Relaxed) == seen {
        return Err(GuardError::Unproved(proof::ProofError::NoHint));
    }
    reached("proved");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host of files in a directory, with these active security modules.
    fn host(dir: &std::path::Path, modules: &str) -> Host {
        let place = |name: &str| dir.join(name);
        std::fs::write(place("lsm"), modules).unwrap();
        std::fs::write(place("btf"), "").unwrap();
        Host {
            security_modules: place("lsm"),
            btf: place("btf"),
            bpf_fs: dir.to_owned(),
            lock: place("lock"),
            config: place("longpin.conf"),
        }
    }

    fn hint(err: &GuardError) -> String {
        err.hints().join("\n")
    }

    #[test]
    fn a_kernel_without_the_bpf_module_is_told_the_line_to_change() {
        let dir = tempfile::tempdir().unwrap();
        let err = check_host(&host(dir.path(), "lockdown,yama\n")).unwrap_err();
        assert!(matches!(&err, GuardError::NoBpfLsm { modules } if modules.len() == 2));
        assert!(
            hint(&err).contains("lsm=lockdown,yama,bpf"),
            "{}",
            hint(&err)
        );
    }

    #[test]
    fn a_kernel_without_btf_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut host = host(dir.path(), "yama,bpf");
        host.btf = dir.path().join("nothing");
        let err = check_host(&host).unwrap_err();
        assert!(matches!(err, GuardError::NoBtf { .. }), "{err}");
    }

    #[test]
    fn an_ordinary_directory_is_no_bpf_file_system() {
        let dir = tempfile::tempdir().unwrap();
        let err = check_host(&host(dir.path(), "yama,bpf")).unwrap_err();
        assert!(matches!(err, GuardError::NoBpfFs { .. }), "{err}");
        assert!(
            hint(&err).starts_with("mount -t bpf bpf "),
            "{}",
            hint(&err)
        );
    }

    #[test]
    fn where_securityfs_is_not_mounted_the_list_is_unknown_and_loading_will_tell() {
        let dir = tempfile::tempdir().unwrap();
        let mut host = host(dir.path(), "");
        host.security_modules = dir.path().join("nothing");
        let err = check_host(&host).unwrap_err();
        assert!(matches!(err, GuardError::NoBpfFs { .. }), "{err}");
    }
}
