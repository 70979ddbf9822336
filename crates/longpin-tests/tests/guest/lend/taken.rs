//! What the machine's administrator takes away while something is lent: the DAX device itself, and the right to load modules.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use longpin_tests::lend;
use longpin_tests::scratch::FsKind;

use super::ground::{Field, REGISTRABLE};
use super::vfio::{Assigned, must_read};
use crate::plan::sh;

const DRIVER: &str = "/sys/bus/nd/drivers/nd_pmem";
/// What the guest's DAX file systems lie on.
const DEVICE: &str = "pfn0.0";

/// `ndctl disable-namespace --force`, in its one system call, waits for the end of the lend. That comes with this process's:
/// the kernel breaks when a file system is unmounted whose device has gone (docs/findings.md). The last test of a guest.
pub(super) fn namespace() -> Result<()> {
    let field = Field::guarded(FsKind::Xfs)?;
    let held = field.held("disabled")?;
    let assigned = Assigned::new(&held)?;
    let script = format!("echo {DEVICE} > {DRIVER}/unbind");
    let mut disable = Command::new("sh").args(["-c", &script]).spawn()?;
    std::thread::sleep(Duration::from_secs(5));
    let ended = disable.try_wait();
    let read = must_read(&assigned.pin, &held);
    let rows = lend::list();
    std::mem::forget((assigned, held, field));
    let ended = ended?;
    ensure!(ended.is_none(), "it did not wait: {ended:?}");
    ensure!(rows.as_ref().is_ok_and(|rows| rows.len() == 1), "{rows:?}");
    read.context("while it waits")
}

/// A locked-down kernel takes no module that nobody has signed; one that it has works on. Nothing lifts that again: for the end
/// of a guest.
pub(super) fn lockdown() -> Result<()> {
    let field = Field::guarded(FsKind::Ext4)?;
    let held = field.held("locked")?;
    fs::write("/sys/kernel/security/lockdown", "integrity").context("no lockdown here")?;
    let module = std::env::var("LONGPIN_KMOD")?;
    let answer = sh(&format!("insmod {module} 2>&1; true"))?;
    ensure!(
        answer.contains("Operation not permitted"),
        "insmod: {answer}"
    );
    let log = sh("dmesg")?;
    ensure!(
        log.contains("Lockdown: insmod: unsigned module loading is restricted"),
        "the kernel says nothing of it"
    );
    drop(held.lend(REGISTRABLE, &[])?);
    held.must_be_free("lent in lockdown")
}
