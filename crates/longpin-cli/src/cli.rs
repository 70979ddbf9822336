//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

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
    /// Show holds that begin, end or break, and operations that are refused
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
        /// Room for so many pinned files, 65,536 if not said: 16 bytes each, and 400 while it is pinned
        #[arg(short, long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
        max_files: Option<u32>,
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
    /// Also pins that are no holds, and why
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

/// Columns of `ls`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Column {
    /// Number of the hold, for `release`
    Id,
    /// pin, or broken: pages left the file while pinned
    Kind,
    /// What is refused: layout, or none
    Level,
    /// The file, as seen from here
    Path,
    /// First pinned byte
    Start,
    /// First byte after the last pinned one
    End,
    /// Pages pinned now
    Pages,
    /// Process
    Pid,
    /// Its name
    Command,
    /// Who pinned in the kernel
    Consumer,
    /// cgroup v2 path
    Cgroup,
    /// Time of the first pin
    Since,
    /// User
    Uid,
    /// Pages that left the file while pinned
    Broken,
    /// Why it is a hold, or is none
    Why,
}

impl Column {
    pub(crate) const fn heading(self) -> &'static str {
        match self {
            Self::Id => "ID",
            Self::Kind => "KIND",
            Self::Level => "LEVEL",
            Self::Path => "PATH",
            Self::Start => "START",
            Self::End => "END",
            Self::Pages => "PAGES",
            Self::Pid => "PID",
            Self::Command => "COMMAND",
            Self::Consumer => "CONSUMER",
            Self::Cgroup => "CGROUP",
            Self::Since => "SINCE",
            Self::Uid => "UID",
            Self::Broken => "BROKEN",
            Self::Why => "WHY",
        }
    }
}
