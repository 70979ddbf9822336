//! Whether QEMU can use KVM here: found out by a trial boot, because `/dev/kvm` may be there and not work.

use crate::kernels::Kernel;
use crate::leash::Leash;
use crate::rundir::RunDir;
use crate::{env, setup, ui};
use anyhow::Result;
use std::ffi::OsString;
use std::io::Read;
use std::time::{Duration, Instant};

/// A boot with KVM takes two or three seconds; nested virtualization may take ten times that.
const TRIAL_LIMIT: Duration = Duration::from_secs(40);

/// Whether KVM works. The answer is remembered until the host boots again.
pub(crate) fn works(kernel: &Kernel) -> Result<bool> {
    let device = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm");
    if device.is_err() {
        return Ok(false);
    }
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let memo = env::cache_dir()?.join("kvm");
    if let Some(answer) = remembered(&memo, boot.trim()) {
        return Ok(answer);
    }
    let answer = trial(kernel)?;
    let word = if answer { "yes" } else { "no" };
    std::fs::write(memo, format!("{} {word}\n", boot.trim()))?;
    Ok(answer)
}

fn remembered(memo: &std::path::Path, boot: &str) -> Option<bool> {
    let text = std::fs::read_to_string(memo).ok()?;
    let (when, answer) = text.trim().split_once(' ')?;
    (when == boot).then_some(answer == "yes")
}

fn trial(kernel: &Kernel) -> Result<bool> {
    let _step = ui::Step::begin("trying KVM");
    let dir = RunDir::empty()?;
    let mut argv = setup::vng()?;
    argv.extend(["-r".into(), kernel.image.clone().into()]);
    argv.extend(["--force-9p", "--memory", "1G", "--exec", "exit 42"].map(OsString::from));
    let mut leash = Leash::spawn(&dir.path, &argv)?;
    let (stdout, stderr) = leash.outputs()?;
    let readers = [
        std::thread::spawn(move || drain(stdout)),
        std::thread::spawn(move || drain(stderr)),
    ];
    let status = leash.wait(Instant::now() + TRIAL_LIMIT, || ())?;
    leash.cut();
    for reader in readers {
        let _ = reader.join();
    }
    Ok(status.and_then(|status| status.code()) == Some(42))
}

/// QEMU's complaints about KVM are the expected answer "no": read so that it never blocks, and not shown.
fn drain(mut stream: impl Read) {
    let _ = std::io::copy(&mut stream, &mut std::io::sink());
}
