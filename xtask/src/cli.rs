//! The command line.

use crate::bench::BenchArgs;
use crate::kernels::Kernel;
use crate::kmod::KmodArgs;
use crate::reboot::RebootArgs;
use crate::test::TestArgs;
use crate::vm::{Guest, ScratchFs, parse_memory};
use crate::weakened::WeakenedArgs;
use crate::{demo, docs, kernels, lint, rows, setup};
use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::time::Duration;

/// Development commands of the longpin workspace.
///
/// The guest is a virtual machine that boots one of the kernels in the file KERNELS with this machine's own file
/// system as its read-only root, so that programs built here run there, at the same paths, as root.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// One command.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Install what is missing to build, boot and test: Debian packages (through sudo if need be) and virtme-ng
    Setup,
    /// Fetch kernels into the cache ($LONGPIN_CACHE, else ~/.cache/longpin)
    Kernels(KernelsArgs),
    /// Build the kernel module of kmod/ for rows of KERNELS, into target/kmod/ROW
    Kmod(KmodArgs),
    /// Run a command in the guest and pass its outputs and its exit status on
    Vm(VmArgs),
    /// Run the host tests, the guest tests on every row of KERNELS, the demo; or guest tests by row and name
    Test(TestArgs),
    /// Take mechanisms out of the guard, one at a time, and see that a test fails each time
    Weakened(WeakenedArgs),
    /// Show the hazard and the cure with a real kernel and soft-RoCE
    Demo,
    /// Count in instructions what the guard costs, on kernels that run emulated
    Bench(BenchArgs),
    /// Write to persistent memory by RDMA, kill the guest, and see in a second one that all of it is there
    Reboot(RebootArgs),
    /// Check formatting, lints and licences
    Lint,
    /// Make man pages and shell completions from the command line's definition
    Docs,
}

/// What to fetch.
#[derive(Debug, Args)]
pub(crate) struct KernelsArgs {
    /// `fetch` (what happens anyway), then rows of KERNELS: `6.1`, `latest`… Without rows: all
    #[arg(value_name = "ROW")]
    rows: Vec<String>,
    /// Look for newer kernels. Without it, the network is not touched for a row that is in the cache
    #[arg(long)]
    update: bool,
}

/// What to boot and to run.
#[derive(Debug, Args)]
#[command(after_help = VM_HELP)]
pub(crate) struct VmArgs {
    /// Row of KERNELS to boot
    #[arg(long, value_name = "ROW", default_value = "latest")]
    kernel: String,
    /// File system of the scratch directory, fresh in each run
    #[arg(long, value_enum, default_value_t)]
    fs: ScratchFs,
    /// Processors
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: u32,
    /// Memory, without the NVDIMMs
    #[arg(long, value_name = "SIZE", default_value = "4G", value_parser = parse_memory)]
    memory: u32,
    /// Kill the guest after this many seconds, booting included
    #[arg(long, value_name = "SECS", default_value_t = 600)]
    timeout: u64,
    /// Count instructions: one processor, and a guest nanosecond is an instruction, the same from run to run
    #[arg(long)]
    icount: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    cmd: Vec<OsString>,
}

const VM_HELP: &str = "\
The command runs as root where you are, with target/release first on PATH, a soft-RoCE device rxe0 (10.9.0.1), an IOMMU
and an idle PCI device to assign (QEMU's edu, 1234:11e8; load vfio-pci yourself), and in its environment:
  LONGPIN_GUEST=1     LONGPIN_KERNEL     the row's name      LONGPIN_ENFORCE  what KERNELS says of it
  LONGPIN_SCRATCH     a directory on a fresh file system (--fs)
  LONGPIN_FSDAX       a block device for DAX file systems    LONGPIN_DEVDAX   a DAX character device
  LONGPIN_DISK        an empty disk (512 MiB, virtio)        LONGPIN_DISK_IMAGE  the host's file behind it
  LONGPIN_KMOD        the kernel module, if `cargo xtask kmod` built it for this kernel; nothing loads it
  LONGPIN_SHARED      a directory that is writable and outlives the guest: target/vm-shared
Everything else is read-only or forgotten. Variables LONGPIN_*, RUST_* and PROPTEST_* are passed through.

Exit status: the command's, or
  123  the guest's kernel panicked or reported a bug
  124  the guest was killed after --timeout
  125  the guest did not boot

Examples:
  cargo xtask vm -- uname -r
  cargo xtask vm --kernel 6.1 --fs xfs -- sh -c 'df $LONGPIN_SCRATCH'";

impl Command {
    /// Runs the command and returns the exit code.
    pub(crate) fn run(&self) -> Result<u8> {
        match self {
            Self::Setup => setup::run().map(|()| 0),
            Self::Kernels(args) => args.run().map(|()| 0),
            Self::Kmod(args) => args.run(),
            Self::Vm(args) => args.run(),
            Self::Test(args) => args.run(),
            Self::Weakened(args) => args.run(),
            Self::Demo => demo::run(),
            Self::Bench(args) => args.run(),
            Self::Reboot(args) => args.run(),
            Self::Lint => lint::run(),
            Self::Docs => docs::run().map(|()| 0),
        }
    }
}

impl KernelsArgs {
    fn run(&self) -> Result<()> {
        let names = match self.rows.split_first() {
            Some((first, rest)) if first == "fetch" => rest,
            _ => &self.rows,
        };
        for row in rows::select(names)? {
            let kernel = if self.update {
                kernels::fetch(&row)?
            } else {
                kernels::ensure(&row)?
            };
            let Kernel {
                release,
                version,
                image,
                ..
            } = kernel;
            println!(
                "{:<9} {:<16} {version:<12} {release:<24} {}",
                row.name,
                row.suite,
                image.display()
            );
        }
        Ok(())
    }
}

impl VmArgs {
    fn run(&self) -> Result<u8> {
        let kernel = kernels::ensure(&rows::named(&self.kernel)?)?;
        let mut guest = Guest::new(kernel, self.cmd.clone());
        guest.fs = self.fs;
        guest.cpus = self.cpus;
        guest.memory_mib = self.memory;
        guest.timeout = Duration::from_secs(self.timeout);
        guest.icount = self.icount;
        Ok(guest.run()?.end.code())
    }
}
