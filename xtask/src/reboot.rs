//! `cargo xtask reboot`: what a device wrote to persistent memory is there after the machine has gone without a word.
//!
//! One guest has a client write files by RDMA, tells what, and is killed (SIGKILL of QEMU): nothing was synced or unmounted.
//! A second one is booted with the same NVDIMMs and reads.

use crate::vm::{self, End, Guest};
use crate::{build, kernels, rows, ui};
use anyhow::{Context, Result, ensure};
use clap::Args;
use std::fs;
use std::path::Path;

/// File systems, as the guest's program knows them.
const KINDS: [&str; 2] = ["ext4", "xfs"];

/// What to boot.
#[derive(Debug, Args)]
pub(crate) struct RebootArgs {
    /// Row of KERNELS to boot
    #[arg(long, value_name = "ROW", default_value = "latest")]
    kernel: String,
}

impl RebootArgs {
    /// Two guests for each file system.
    pub(crate) fn run(&self) -> Result<u8> {
        build::release()?;
        let program = build::guest_tests()?;
        // The guests see it, too.
        let dir = vm::shared_dir()?.join(format!("reboot-{}", std::process::id()));
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let tested = KINDS
            .iter()
            .try_for_each(|kind| self.reboot(&program, &dir, kind));
        fs::remove_dir_all(&dir)?;
        tested.map(|()| 0)
    }

    fn reboot(&self, program: &Path, dir: &Path, kind: &str) -> Result<()> {
        let told = dir.join(format!("{kind}.json"));
        let mut first = self.guest(program, dir, &["persist-write", kind], &told)?;
        first.kill_at = Some(told.clone());
        let written = first.run()?.end;
        ensure!(
            written == End::Killed,
            "{kind}: the first guest was not to end by itself: {written:?}"
        );
        ui::say(&format!("{kind}: the first guest is killed"));
        let read = self.guest(program, dir, &["persist-read", kind], &told)?;
        let read = read.run()?.end;
        ensure!(
            read == End::Status(0),
            "{kind}: not found after the reboot: {read:?}"
        );
        for number in 0..2 {
            fs::remove_file(dir.join(format!("nvdimm{number}")))?;
        }
        Ok(())
    }

    fn guest(&self, program: &Path, dir: &Path, what: &[&str], told: &Path) -> Result<Guest> {
        let kernel = kernels::ensure(&rows::named(&self.kernel)?)?;
        let told = told.to_string_lossy();
        let arguments = [&["longpin-test-child"], what, &[&*told]].concat();
        let mut guest = Guest::new(kernel, vm::words(program, &arguments));
        guest.nvdimms = Some(dir.to_owned());
        Ok(guest)
    }
}
