//! The command line.

use std::path::PathBuf;

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
  longpin doctor              what this host can enforce, and what to change if it cannot
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
