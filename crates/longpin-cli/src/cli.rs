//! The command line.

use clap::{Args, Parser, Subcommand};

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
  longpin demo                see the hazard and the cure on this host, in seconds
  longpin guard start         protect every file that somebody pins, from now on
  longpin ls                  who holds what
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
}

#[derive(Debug, Subcommand)]
pub(crate) enum Guard {
    /// Load the guard into the kernel, prove it, and leave it there; no process stays
    Start,
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
    /// Look at every page frame for pins that were not seen, so that fewer files need a walk
    Sweep,
}

#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// One JSON object: {"version":1,"holds":[...]}; ranges in bytes
    #[arg(short = 'J', long)]
    pub(crate) json: bool,
    /// START and END in bytes, not in human units
    #[arg(short, long)]
    pub(crate) bytes: bool,
    /// No header line
    #[arg(short, long)]
    pub(crate) noheadings: bool,
}
