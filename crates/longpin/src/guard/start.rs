//! Starting the guard.

use longpin_bpf::facts::Facts;
use longpin_bpf::load::{self, Storage};
use longpin_bpf::pinned::Pinned;
use longpin_bpf::{BpfError, Mode};
use longpin_linux::probe;

use super::{GuardError, Host, Turn, check_privilege, open_pinned, proof, remove_dir, sweep};
use crate::Enforcement;

/// Start the guard: check the host, attach, look for pins that are older, prove, publish, arm.
///
/// `progress` gets page frames looked at and all page frames.
///
/// # Errors
///
/// [`GuardError`]; nothing stays attached.
pub fn start(host: &Host, progress: &mut dyn FnMut(u64, u64)) -> Result<Enforcement, GuardError> {
    check_privilege()?;
    check_host(host)?;
    let _turn = Turn::take(host)?;
    clear_way(host)?;
    let facts = Facts::probe().map_err(|err| name_missing_btf(err, host))?;
    let made = assemble(host, &facts, progress);
    if made.is_err() {
        // The error that counts is the first one.
        let _ = remove_dir(&host.scratch_dir());
    }
    made.map(|()| Enforcement::Full)
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

/// Refuse to start twice; remove what a killed start or stop left, which refuses nobody.
fn clear_way(host: &Host) -> Result<(), GuardError> {
    match open_pinned(&host.guard_dir()) {
        Ok(Some(pinned)) if pinned.state().mode() == Mode::Enforcing => {
            return Err(GuardError::AlreadyRunning);
        }
        Err(err @ GuardError::OtherVersion { .. }) => return Err(err),
        _ => remove_dir(&host.guard_dir())?,
    }
    remove_dir(&host.scratch_dir())
}

fn assemble(
    host: &Host,
    facts: &Facts,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), GuardError> {
    let mut storage = Storage::default();
    let mut attached = load::attach(&mut storage, facts)?;
    let scratch = host.scratch_dir();
    let publish = |source| GuardError::Publish {
        path: host.guard_dir(),
        source,
    };
    std::fs::create_dir(&scratch).map_err(publish)?;
    attached.pin(&scratch)?;
    let pinned = Pinned::open(&scratch)?;
    sweep::sweep_with(&pinned, progress)?;
    pinned.state().set_mode(Mode::Proving(std::process::id()));
    let proved = proof::prove();
    pinned.state().set_mode(Mode::Off);
    proved.map_err(GuardError::Unproved)?;
    std::fs::rename(&scratch, host.guard_dir()).map_err(publish)?;
    pinned.state().set_mode(Mode::Enforcing);
    Ok(())
}
