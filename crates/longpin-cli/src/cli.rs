//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

#[path = "columns.rs"]
mod columns;
#[path = "sizes.rs"]
mod sizes;

pub(crate) use columns::Column;
pub(crate) use sizes::Range;
use sizes::{parse_range, parse_size};

/// Keep files from losing pages that hardware has pinned.
///
/// RDMA, io_uring, VFIO and GPUs pin file pages for hours, and the file system is never told: a
/// truncate or a hole punch makes the device work on memory that is no longer the file. The guard
/// refuses such an operation, with "Text file busy", for as long as the pages are pinned.
#[derive(Debug, Parser)]
#[command(name = "longpin", version, max_term_width = 100, after_help = EXAMPLES)]
pub(crate) struct Cli {
    /// Show causes, and what libbpf and the verifier say
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  longpin doctor              what this host can enforce, and what to change if it cannot
  longpin demo                see the hazard and the cure on this host, in seconds
  longpin guard start         protect every file that somebody pins, from now on
  longpin ls                  who holds what
  longpin why FILE            who pinned this file, and why is truncate busy?
  longpin watch               what is held and refused, as it happens
  longpin guard status        what the guard enforces, and what it refused
  longpin check FILE --device rxe0  can this device get the file's pages, and how? if not, why not
  longpin check FILE --for blocks   may a device use this file's blocks? if not, what cures it
  longpin prepare FILE        make it so
  longpin extents FILE        where the file's bytes lie on its block device

Exit status: 0 done, 1 refused, 2 cannot tell, 8 system error, 16 usage.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the hazard and the cure on this host: an io_uring buffer on tmpfs, and a truncate
    Demo,
    /// Start, stop or look at the guard
    #[command(subcommand)]
    Guard(Guard),
    /// List the files that are pinned now: range, pages, process, consumer
    Ls(Ls),
    /// Everything the guard knows of one file: who holds it, and what was refused
    Why(Why),
    /// Show holds that begin, end or break, operations that are refused, and what on-demand regions lose
    ///
    /// "torn-down" tells what the kernel took back from an on-demand region of a file: which range, by which operation
    /// or for which work of its own (write-back, migration, reclaim), in which process, and whose region it was. Nobody
    /// is refused there. Not more than eight a second of one kind are told of one region, and 32 of all; the next one of
    /// the region says how many were not.
    Watch(Watch),
    /// Say of one file that nobody may pin it long-term; who does so is killed
    Deny(FileArg),
    /// Take that back
    Allow(FileArg),
    /// Give up the protection of a hold whose pages are still pinned
    Release(Release),
    /// What this host can enforce, claim by claim, and what to change if it cannot
    ///
    /// Loads nothing and changes nothing. A "yes" means that nothing is known to be missing; `longpin
    /// guard start` proves it. Exit status 0 when all claims can be enforced, 1 when not all, 2 when
    /// that cannot be told.
    Doctor {
        /// One JSON object: {"version":1,"verdict":...,"checks":[...],"claims":[...]}
        #[arg(short = 'J', long)]
        json: bool,
    },
    /// May this file be pinned, lent to a device or swapped to? If not, why not, and what cures it
    ///
    /// With --device, which kind of registration that device gets (on demand, or a pin), or the rule by which it is
    /// refused: the reason for a bare EFAULT or EOPNOTSUPP, and what would work instead. Nothing of the file is
    /// changed. Exit status 0 yes, 1 refused, 2 when that cannot be told.
    Check(Check),
    /// Register the file on standard input, and let go: what a library tries before a pin that might hang
    #[command(hide = true)]
    TryPin(TryPin),
    /// Make a file fit to be lent: all its blocks there, written, in place, and its own
    ///
    /// Allocates, writes zeroes where nothing was written, unshares, and syncs. An empty file gets what only
    /// an empty file can get: no copy on write (btrfs), a pin (f2fs). Existing data is never changed; a
    /// second run does nothing, and one that was killed is simply run again. What cannot be cured is refused with
    /// the command that would. While it works, nobody can open the file.
    Prepare(Prepare),
    /// Swap to a file: the checks, with `--prepare` the preparation, mkswap's header, swapon(2)
    ///
    /// A file that has data is refused, unless it has a swap signature. Every refusal says why.
    Swapon(Swapon),
    /// End swapping to a file
    Swapoff(FileArg),
    /// Hold a file while a command runs, as if the kernel swapped to it
    ///
    /// For a file whose blocks or memory are lent to a device. It is checked as by `longpin check --for
    /// blocks`, or `--for pages` where it has no blocks and at level layout; nobody else may have it
    /// mapped shared and writable. LONGPIN_EXTENTS names a file with the extents, as `longpin extents
    /// --json` prints them. The command, and what it starts, may map the file shared and writable. The hold
    /// ends when the last of them has closed the descriptor that they inherit. Needs no guard.
    ///
    /// On a host without BPF LSM, --backend swap-header has the kernel itself refuse the same, on ext4, xfs, btrfs and
    /// f2fs: the file becomes a swap file of one page. Its first 8 KiB are given up meanwhile, and are not among the
    /// extents; they must be empty (or --overwrite-head), and are put back at the end. Nobody writes to the file, or
    /// maps it shared and writable, also not the command: the device writes to the blocks. The kernel takes some
    /// 20 swap areas in all. The hold ends with the command; when longpin is killed it stands, until `longpin
    /// release`.
    ///
    /// Exit status: that of the command; 1, or -E, when the hold is refused.
    Hold(Hold),
    /// Where a file's bytes lie: offsets on its block device, in bytes
    ///
    /// The file is written back first. What cannot be translated to a place on a block device (compressed,
    /// encrypted or inline data, data without blocks, btrfs profiles other than single) is refused by
    /// name, and nothing is printed. Exit status 0, 1 when there is no such map, 2 when that cannot be told.
    Extents(Extents),
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The file
    pub(crate) file: PathBuf,
    /// What it is wanted for
    #[arg(long = "for", value_enum, default_value_t = For::Pages, value_name = "WHAT")]
    pub(crate) purpose: For,
    /// Only these bytes of it; K, M, G and T are powers of 1024
    #[arg(long, value_name = "OFF+LEN", value_parser = parse_range)]
    pub(crate) range: Option<Range>,
    /// For pages: who is to get them, `io_uring` or an RDMA device such as rxe0
    #[arg(short, long, value_name = "NAME")]
    pub(crate) device: Option<String>,
    /// What the device does with them; io_uring always pins for writing
    #[arg(
        short,
        long,
        value_enum,
        default_value_t = DeviceAccess::Read,
        value_name = "ACCESS",
        requires = "device"
    )]
    pub(crate) access: DeviceAccess,
    /// Which kind of registration
    #[arg(
        short,
        long,
        value_enum,
        default_value_t = Registration::Any,
        value_name = "KIND",
        requires = "device"
    )]
    pub(crate) registration: Registration,
    /// What the file is to be held at meanwhile; swapfile has it checked as for `hold`
    #[arg(
        short,
        long,
        value_enum,
        default_value_t = Level::Layout,
        value_name = "LEVEL",
        requires = "device"
    )]
    pub(crate) level: Level,
    /// Also try it for so many seconds, in a process that is killed then
    #[arg(long = "try", value_name = "SECONDS", requires = "device")]
    pub(crate) try_for: Option<u64>,
    /// One JSON object: {"version":1,"verdict":...,"reasons":[...]}
    #[arg(short = 'J', long)]
    pub(crate) json: bool,
}

/// What a file is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum For {
    /// A device pins its pages: RDMA, io_uring, VFIO
    Pages,
    /// A device reads and writes its blocks, behind the file system's back
    Blocks,
    /// The kernel swaps to it
    Swap,
}

/// What a device does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DeviceAccess {
    /// It, or the other end through it, reads
    Read,
    /// It reads and writes
    ReadWrite,
}

/// Kinds of registrations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Registration {
    /// On demand where the device can, else a pin
    Any,
    /// On demand, or refused
    OnDemand,
    /// A pin
    Pin,
}

#[derive(Debug, Args)]
pub(crate) struct TryPin {
    /// `io_uring` or an RDMA device
    #[arg(long)]
    pub(crate) device: String,
    /// Bytes
    #[arg(long, value_parser = parse_range)]
    pub(crate) range: Range,
    /// What the device does
    #[arg(long, value_enum)]
    pub(crate) access: DeviceAccess,
}

#[derive(Debug, Args)]
pub(crate) struct Prepare {
    /// The file
    pub(crate) file: PathBuf,
    /// Grow it to so many bytes, or create it; K, M, G and T are powers of 1024
    #[arg(short, long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) size: Option<u64>,
    /// At the end make it immutable: without a guard, the weakest way to keep it as it is
    #[arg(short, long)]
    pub(crate) immutable: bool,
    /// Only take that back, and change nothing else
    #[arg(short, long, conflicts_with_all = ["immutable", "size"])]
    pub(crate) mutable: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Swapon {
    /// The file
    pub(crate) file: PathBuf,
    /// Prepare it first, as `longpin prepare` does
    #[arg(short, long)]
    pub(crate) prepare: bool,
    /// With --prepare: grow it to so many bytes, or create it
    #[arg(short, long, value_name = "SIZE", value_parser = parse_size, requires = "prepare")]
    pub(crate) size: Option<u64>,
    /// Also when it has data, which is lost
    #[arg(short, long)]
    pub(crate) force: bool,
    /// The swap area's label, 16 bytes at most
    #[arg(short = 'L', long, value_name = "LABEL")]
    pub(crate) label: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Extents {
    /// The file
    pub(crate) file: PathBuf,
    /// One JSON object: {"version":1,"path":...,"devices":[...],"extents":[...]}
    #[arg(short = 'J', long)]
    pub(crate) json: bool,
    /// No header line
    #[arg(short, long, conflicts_with = "json")]
    pub(crate) noheadings: bool,
}

/// What is refused while a file is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    /// What would take pages or blocks of the range away from the file
    Layout,
    /// All that is refused of an active swap file: also writes, and names that go away
    Swapfile,
}

/// Who refuses while a file is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    /// BPF LSM programs; the host's list of security modules must have bpf
    Bpf,
    /// The kernel itself, which swaps to one page of the file; gives up the file's first 8 KiB
    SwapHeader,
}

impl Backend {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Bpf => "bpf",
            Self::SwapHeader => "swap-header",
        }
    }

    /// Bytes at the file's head that are not the holder's.
    pub(crate) const fn given_up(self) -> std::ops::Range<u64> {
        match self {
            Self::Bpf => 0..0,
            Self::SwapHeader => longpin::hold::swap_header::GIVEN_UP,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Hold {
    /// The file
    pub(crate) file: PathBuf,
    /// Who refuses
    #[arg(short, long, value_enum, default_value_t = Backend::Bpf, value_name = "BACKEND")]
    pub(crate) backend: Backend,
    /// With --backend swap-header: also if there is data in the first 8 KiB. It is kept in
    /// /var/lib/longpin/heads, and put back at the end
    #[arg(long)]
    pub(crate) overwrite_head: bool,
    /// Only these bytes of it (level layout; swapfile holds the whole file, and checks this range)
    #[arg(long, value_name = "OFF+LEN", value_parser = parse_range)]
    pub(crate) range: Option<Range>,
    /// What is refused
    #[arg(short, long, value_enum, default_value_t = Level::Swapfile, value_name = "LEVEL")]
    pub(crate) level: Level,
    /// Fail at once if another hold excludes this one
    #[arg(short, long, conflicts_with = "wait")]
    pub(crate) nonblock: bool,
    /// Wait so long for it, and for operations that began before; without -n and -w, for ever and 10 s
    #[arg(short, long, value_name = "SECS")]
    pub(crate) wait: Option<u64>,
    /// Exit status of a refusal, instead of 1
    #[arg(short = 'E', long, value_name = "CODE", default_value_t = 1)]
    pub(crate) conflict_exit_code: u8,
    /// The hold stands until `longpin release`
    #[arg(long)]
    pub(crate) persist: bool,
    /// First make the file fit, as `longpin prepare` does
    #[arg(long)]
    pub(crate) prepare: bool,
    /// What to run while the file is held
    #[arg(last = true, required_unless_present = "persist", value_name = "CMD")]
    pub(crate) command: Vec<std::ffi::OsString>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Guard {
    /// Load the guard into the kernel, prove it, and leave it there; no process stays
    Start {
        /// Record what would be refused, and refuse nothing
        #[arg(short, long)]
        audit: bool,
        /// Also where this kernel can enforce a part of the claims only
        #[arg(short, long)]
        partial: bool,
        /// What is refused of pinned files, where no rule says otherwise
        #[arg(short, long, value_enum, default_value_t = Level::Layout, value_name = "LEVEL")]
        level: Level,
        /// Room for so many pinned files, 65,536 if not said: 16 bytes each, and 400 while it is pinned
        #[arg(short, long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
        max_files: Option<u32>,
        /// Look for at most MS milliseconds whether a page of a file is pinned; then refuse, and count the walk as
        /// unfinished [default: 5000]
        #[arg(short, long, value_name = "MS", value_parser = clap::value_parser!(u16).range(1..=10_000))]
        walk_budget: Option<u16>,
    },
    /// Take the guard out of the kernel
    Stop {
        /// Also with live holds: the files lose their protection
        #[arg(short, long)]
        force: bool,
    },
    /// What the guard enforces, and what it has done. Exit status 1 when it is not running
    Status {
        /// One JSON object
        #[arg(short = 'J', long)]
        json: bool,
    },
    /// Put the rules of /etc/longpin/longpin.conf into force anew, in one step
    Reload,
    /// Look at every page frame for pins that were not seen, so that fewer files need a walk
    Sweep,
    /// Read the rules and say what they mean on this host, without putting them into force
    ///
    /// Prints one line for each rule; mistakes and warnings go to standard error, as
    /// FILE:LINE:COLUMN: WHAT. Exit status 0 when the rules can be used, 1 when not, 2 when that cannot
    /// be told. See longpin.conf(5) for the rules.
    CheckConfig {
        /// The file; without it, the one that the guard reads
        #[arg(default_value = "/etc/longpin/longpin.conf")]
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// Also pins that are no holds, and why; and on-demand regions, which hold nothing
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Which columns, in which order
    #[arg(
        short,
        long,
        value_delimiter = ',',
        value_name = "COLUMN",
        ignore_case = true
    )]
    pub(crate) output: Vec<Column>,
    /// One JSON object: {"version":1,"holds":[...]}; ranges in bytes
    #[arg(short = 'J', long, conflicts_with_all = ["raw", "output"])]
    pub(crate) json: bool,
    /// START and END in bytes, not in human units
    #[arg(short, long)]
    pub(crate) bytes: bool,
    /// No header line
    #[arg(short, long)]
    pub(crate) noheadings: bool,
    /// One blank between columns, blanks within them as \x20
    #[arg(short, long)]
    pub(crate) raw: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Why {
    /// The file
    pub(crate) file: PathBuf,
    /// One JSON object
    #[arg(short = 'J', long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct FileArg {
    /// The file
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// Show the last 1,024 events, and end
    #[arg(short, long)]
    pub(crate) last: bool,
    /// Also read the block maps of files held at level swapfile, at least every SECONDS, and tell when blocks have moved
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "10",
        conflicts_with = "last",
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub(crate) verify: Option<u64>,
    /// One JSON object a line
    #[arg(short = 'J', long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Release {
    /// Number of the hold, as `longpin ls` shows it
    pub(crate) id: u64,
    /// Also while its pages are pinned: the device may lose the file
    #[arg(short, long)]
    pub(crate) force: bool,
}
