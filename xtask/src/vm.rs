//! `cargo xtask vm`: runs a command in a guest with one of the kernels of `KERNELS`.

use crate::console::{self, Findings};
use crate::kernels::Kernel;
use crate::leash::Leash;
use crate::outputs::{Labelled, relay};
use crate::rundir::{self, RunDir};
use crate::stall::Stall;
use crate::{env, kvm, setup, ui};
use anyhow::{Context, Result};
use clap::ValueEnum;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The guest's kernel panicked or found a bug in itself.
pub(crate) const EXIT_KERNEL_BUG: u8 = 123;
/// The guest was killed after its time was over, as timeout(1) says it.
pub(crate) const EXIT_TIMED_OUT: u8 = 124;
/// There was no guest to run the command in, as timeout(1) says of its own failures.
pub(crate) const EXIT_NO_GUEST: u8 = 125;

/// Size of the memory that is plugged in as NVDIMMs, room included.
const NVDIMM_ROOM_MIB: u32 = 4096;
/// A label area of 16 MiB, and a namespace whose size is a multiple of 16 MiB, as the kernel wants it.
const NVDIMM_MIB: u32 = 528;

/// The disk: as large as file systems want it, of which little is ever written.
const DISK_MIB: u64 = 512;
/// How long a guest that is to be killed at its word may go on.
const GLANCE: Duration = Duration::from_millis(100);

/// So long the guest may take until it is ready; emulated on a busy machine it takes minutes.
const BOOT_LIMIT: Duration = Duration::from_secs(600);

/// How often a guest that dies before it is ready is booted, in all.
const BOOTS: u32 = 3;

/// File system of the scratch directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ScratchFs {
    Ext4,
    Xfs,
    Btrfs,
    F2fs,
    #[default]
    Tmpfs,
}

impl ScratchFs {
    /// The name mount(8) knows.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::F2fs => "f2fs",
            Self::Tmpfs => "tmpfs",
        }
    }
}

/// A guest to boot and what to run in it.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    pub(crate) kernel: Kernel,
    pub(crate) fs: ScratchFs,
    pub(crate) cpus: u32,
    pub(crate) memory_mib: u32,
    pub(crate) timeout: Duration,
    /// A test in it may take so long: then it is a hung one, and the guest ends.
    pub(crate) test_limit: Option<Duration>,
    /// Put before each line of its output, where several guests run at once.
    pub(crate) label: Option<String>,
    /// Count instructions: guest nanoseconds are instructions then.
    pub(crate) icount: bool,
    /// Where the contents of its NVDIMMs stay for the next guest; without, they go with it.
    pub(crate) nvdimms: Option<PathBuf>,
    /// Kill it as soon as there is this file.
    pub(crate) kill_at: Option<PathBuf>,
    pub(crate) cmd: Vec<OsString>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The command ended with this status.
    Status(u8),
    /// The kernel panicked or found a bug in itself.
    KernelBug,
    /// The command ran and was killed.
    TimedOut,
    /// The command ran, and was killed when it had asked for it.
    Killed,
    /// The command never ran, or the guest ended before it did.
    NoGuest,
}

impl End {
    /// The exit code that says so.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Status(status) => status,
            Self::Killed => 0,
            Self::KernelBug => EXIT_KERNEL_BUG,
            Self::TimedOut => EXIT_TIMED_OUT,
            Self::NoGuest => EXIT_NO_GUEST,
        }
    }
}

/// A finished run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) end: End,
    /// Why, where it was not the command that ended it.
    pub(crate) verdict: String,
    /// The guest was ready and the command began.
    pub(crate) began: bool,
    /// Nobody had to kill it.
    pub(crate) ended: bool,
    /// What its tests told, a line an event.
    pub(crate) report: String,
    /// Processor time of the emulator, where the guest ended by itself.
    pub(crate) cpu: Option<Duration>,
    /// Everything the command wrote to its standard output; it was also passed on.
    pub(crate) stdout: String,
}

impl Guest {
    /// A guest of the usual size.
    pub(crate) fn new(kernel: Kernel, cmd: Vec<OsString>) -> Self {
        Self {
            kernel,
            fs: ScratchFs::default(),
            cpus: 2,
            memory_mib: 4096,
            timeout: Duration::from_secs(600),
            test_limit: None,
            label: None,
            icount: false,
            nvdimms: None,
            kill_at: None,
            cmd,
        }
    }

    /// Boots the guest and runs the command, its outputs passed on as they come. A guest that dies before the command
    /// began is booted again: an emulated kernel sometimes trips over the patching of its own code.
    pub(crate) fn run(&self) -> Result<Run> {
        let kvm = !self.icount && kvm::works(&self.kernel)?;
        for _ in 1..BOOTS {
            let run = self.boot_and_run(kvm)?;
            if run.began || !run.ended || kvm {
                return Ok(run);
            }
            ui::say("the guest died while it booted: once more");
        }
        self.boot_and_run(kvm)
    }

    fn boot_and_run(&self, kvm: bool) -> Result<Run> {
        let vng = setup::vng()?;
        let (dir, shared) = self.ground()?;
        let argv = self.argv(vng, &dir, &shared, kvm);
        let mut boot = ui::Step::begin(&self.announcement(kvm));
        let mut leash = Leash::spawn(&dir.path, &argv)?;
        let (stdout, stderr) = leash.outputs()?;
        let stdout = relay(
            stdout,
            Labelled::new(std::io::stdout(), self.label.as_deref()),
        );
        let stderr = relay(
            stderr,
            Labelled::new(std::io::stderr(), self.label.as_deref()),
        );
        let ended = self.await_end(&dir, &mut leash, || {
            if dir.is_ready() {
                boot.end();
            }
        })?;
        boot.end();
        let (end, verdict) = self.judge(&dir, ended);
        // The leash takes the directory with it.
        let (began, report, cpu) = (dir.is_ready(), dir.report(), leash.processor_time());
        leash.cut();
        let stdout = stdout.join().unwrap_or_default();
        let _ = stderr.join();
        Ok(Run {
            end,
            verdict,
            began,
            ended,
            report,
            cpu,
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
        })
    }

    /// The directories that it shares with the host: for this run, and for all.
    fn ground(&self) -> Result<(RunDir, PathBuf)> {
        let shared = shared_dir()?;
        std::fs::create_dir_all(&shared)
            .with_context(|| format!("cannot create {}", shared.display()))?;
        let dir = RunDir::with_orders(self)?;
        std::fs::File::create(dir.disk_path())?.set_len(DISK_MIB << 20)?;
        Ok((dir, shared))
    }

    /// Whether it has ended by itself, in its time and before it was to be killed.
    fn await_end(&self, dir: &RunDir, leash: &mut Leash, mut tick: impl FnMut()) -> Result<bool> {
        let begin = Instant::now();
        let deadline = begin + self.timeout;
        let mut stall = self.test_limit.map(Stall::new);
        while Instant::now() < deadline && !self.is_to_be_killed() {
            let glance = deadline.min(Instant::now() + GLANCE);
            if leash.wait(glance, &mut tick)?.is_some() {
                return Ok(true);
            }
            let stalls = stall
                .as_mut()
                .is_some_and(|it| it.is_over(&dir.report_path()));
            if stalls || begin.elapsed() > BOOT_LIMIT && !dir.is_ready() {
                break;
            }
        }
        Ok(false)
    }

    fn is_to_be_killed(&self) -> bool {
        self.kill_at.as_ref().is_some_and(|path| path.exists())
    }

    fn announcement(&self, kvm: bool) -> String {
        let how = if kvm { "with KVM" } else { "emulated" };
        let name = &self.kernel.row.name;
        format!("booting {name}: {}, {how}", self.kernel.in_words())
    }

    fn argv(
        &self,
        mut argv: Vec<OsString>,
        dir: &RunDir,
        shared: &Path,
        kvm: bool,
    ) -> Vec<OsString> {
        argv.extend(["-r".into(), self.kernel.image.clone().into()]);
        let cpus = if self.icount { 1 } else { self.cpus };
        let sizes = [
            format!("--memory={}M", self.memory_mib),
            format!("--cpus={cpus}"),
        ];
        argv.extend(["--force-9p", "--user=root"].map(OsString::from));
        argv.extend(sizes.map(OsString::from));
        if !kvm {
            argv.push("--disable-kvm".into());
        }
        for path in [&dir.path, shared] {
            argv.extend(["--rwdir".into(), path.into()]);
        }
        for mask in dir.masks() {
            argv.extend(["--rodir".into(), mask]);
        }
        // Warnings and worse reach the console, so that the log of a dead guest is complete.
        argv.push("--append=loglevel=5".into());
        // The IOMMU is there to assign a device through; the others' own DMA goes past it, as without one.
        argv.extend(["--append=intel_iommu=on", "--append=iommu=pt"].map(OsString::from));
        let words = self.kernel.row.words.iter();
        argv.extend(words.map(|word| format!("--append={word}").into()));
        argv.push(format!("--qemu-opts={}", self.qemu_options(dir, kvm)).into());
        let mut exec = OsString::from("exec /bin/sh ");
        exec.push(rundir::quote(dir.path.join("init.sh").as_os_str()));
        exec.push(" ");
        exec.push(rundir::quote(dir.path.as_os_str()));
        argv.extend([OsString::from("--exec"), exec]);
        argv
    }

    /// The console goes to a file (virtme-ng throws it away); two NVDIMMs are plugged in, a disk, an IOMMU, and a PCI device that
    /// no driver takes: QEMU's `edu`, which does DMA as it is told.
    fn qemu_options(&self, dir: &RunDir, kvm: bool) -> String {
        let console = rundir::qemu_path(&dir.console_path());
        let (memory, max) = (self.memory_mib, self.memory_mib + NVDIMM_ROOM_MIB);
        let mut options = vec![
            format!("-set 'chardev.console.path={console}'"),
            format!("-machine q35,nvdimm=on -m {memory}M,slots=2,maxmem={max}M"),
            "-device intel-iommu,intremap=off -device edu".to_owned(),
        ];
        for number in 0..2 {
            let kept = self.nvdimms.as_ref().unwrap_or(&dir.path);
            let path = rundir::qemu_path(&kept.join(format!("nvdimm{number}")));
            options.push(format!(
                "-object 'memory-backend-file,id=mem{number},share=on,mem-path={path},size={NVDIMM_MIB}M' \
                 -device nvdimm,memdev=mem{number},id=nvdimm{number},label-size=16M"
            ));
        }
        let disk = rundir::qemu_path(&dir.disk_path());
        options.push(format!(
            "-drive if=none,id=disk,format=raw,file={disk} -device virtio-blk-pci,drive=disk"
        ));
        // The host's root once more: the guest mounts it in such a way that it may keep what it has read.
        options.push(
            "-virtfs 'local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap'"
                .to_owned(),
        );
        if self.icount {
            options.push("-icount shift=0,sleep=off".to_owned());
        } else if !kvm {
            // With a thread for each CPU, QEMU loses the race against a kernel that patches its own code (static
            // branches, BPF trampolines): "Oops: int3" out of nowhere.
            options.push("-accel tcg,thread=single".to_owned());
            // Emulation goes byte by byte through what a real processor moves in one go.
            options.push("-cpu max,-erms".to_owned());
        }
        options.join(" ")
    }

    /// Says how the run ended and shows what the kernel had to say.
    fn judge(&self, dir: &RunDir, ended: bool) -> (End, String) {
        let name = &self.kernel.row.name;
        let log = dir.console();
        let kept = keep_console(name, &log);
        let findings = console::examine(&log);
        show(
            &format!("kernel log of {name} (all of it: {kept})"),
            &findings.excerpt,
        );
        let (end, verdict) = self.verdict(dir, ended, &findings);
        if verdict.is_empty() {
            return (end, verdict);
        }
        if !dir.is_ready() {
            let title = format!("end of the kernel log of {name}");
            show(&title, &console::tail(&log));
        }
        let full = dir.is_full().map(|words| format!(": {words}"));
        let verdict = verdict + &full.unwrap_or_default();
        ui::say(&format!("error: {name}: {verdict}"));
        (end, verdict)
    }

    /// How it ended, and why if it was not the command that ended it.
    fn verdict(&self, dir: &RunDir, ended: bool, findings: &Findings) -> (End, String) {
        let bad = findings.first();
        match (dir.status(), dir.is_ready()) {
            _ if findings.panic => (
                End::KernelBug,
                format!("the guest's kernel panicked: {bad}"),
            ),
            (Some(status), _) if findings.bug => (
                End::KernelBug,
                format!("the guest's kernel has a bug (the command's status was {status}): {bad}"),
            ),
            (Some(status), _) => (End::Status(status), String::new()),
            (None, true) if !ended && self.is_to_be_killed() => (End::Killed, String::new()),
            (None, true) if !ended => (End::TimedOut, self.overdue()),
            (None, true) => (
                End::NoGuest,
                "the guest ended before the command did".to_owned(),
            ),
            (None, false) => {
                let late = || match ended {
                    true => "see the messages above".to_owned(),
                    false => format!("it was not ready after {} s", BOOT_LIMIT.as_secs()),
                };
                let reason = dir.failure().unwrap_or_else(late);
                (End::NoGuest, format!("the guest did not boot: {reason}"))
            }
        }
    }

    fn overdue(&self) -> String {
        let verdict = match self.test_limit {
            Some(limit) => format!("no test ended for {} s", limit.as_secs()),
            None => format!("no end after {} s, set --timeout", self.timeout.as_secs()),
        };
        format!("killed the guest: {verdict}")
    }
}

/// The directory that host and guest share for results.
pub(crate) fn shared_dir() -> Result<PathBuf> {
    Ok(env::target_dir()?.join("vm-shared"))
}

/// Where the console log of a row's last guest is kept.
pub(crate) fn console_path(row: &str) -> Result<PathBuf> {
    Ok(shared_dir()?.join(format!("console-{row}.log")))
}

/// Keeps the console log for a later look. Returns where, for people.
fn keep_console(name: &str, log: &str) -> String {
    let path = console_path(name);
    match path.and_then(|path| Ok(std::fs::write(&path, log).map(|()| path)?)) {
        Ok(path) => path.display().to_string(),
        Err(error) => format!("not kept, {error}"),
    }
}

fn show(title: &str, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    ui::say(&format!("{title}:"));
    for line in lines {
        ui::say(&format!("  {line}"));
    }
}

/// Reads a size as QEMU writes it: `4G`, `512M`; MiB.
pub(crate) fn parse_memory(text: &str) -> std::result::Result<u32, String> {
    let wrong = || format!("{text} is no memory size: write 4G or 2048M");
    let (number, factor) = match text.strip_suffix(['G', 'g']) {
        Some(number) => (number, 1024),
        None => (text.strip_suffix(['M', 'm']).ok_or_else(wrong)?, 1),
    };
    let number: u32 = number.parse().map_err(|_| wrong())?;
    number
        .checked_mul(factor)
        .filter(|mib| *mib >= 512)
        .ok_or_else(wrong)
}

/// A program and its arguments as words.
pub(crate) fn words(program: &Path, args: &[&str]) -> Vec<OsString> {
    let args = args.iter().map(OsStr::new);
    std::iter::once(program.as_os_str())
        .chain(args)
        .map(OsStr::to_owned)
        .collect()
}
