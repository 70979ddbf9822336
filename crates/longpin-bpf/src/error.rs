//! One error for what goes wrong between the guard and the kernel's BPF interface.

use std::path::PathBuf;

/// Why a BPF operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BpfError {
    /// The kernel has no type information for itself.
    #[error("the kernel offers no BTF (/sys/kernel/btf/vmlinux)")]
    NoBtf(#[source] libbpf_rs::Error),
    /// A kernel function without which the guard cannot enforce is not there.
    #[error("this kernel has no function {function}, which {purpose}")]
    MissingFunction {
        /// The kernel function.
        function: String,
        /// What the guard needs it for.
        purpose: &'static str,
    },
    /// The kernel does not say where one of its functions or variables is.
    #[error("the kernel does not tell the address of {symbol}, or has none (/proc/kallsyms)")]
    NoAddress {
        /// The kernel function.
        symbol: &'static str,
    },
    /// The programs could not be loaded; the source carries the verifier's last words.
    #[error("the kernel refused to load the BPF programs")]
    Load(#[source] libbpf_rs::Error),
    /// The kernel's list of programs does not show the guard's own, so lost hints could not be noticed.
    #[error("the kernel does not show the statistics of the guard's own programs")]
    NoStatistics,
    /// A program could not be attached.
    #[error("cannot attach {program}")]
    Attach {
        /// The program.
        program: String,
        /// What the kernel said.
        #[source]
        source: libbpf_rs::Error,
    },
    /// A program, link or map could not be pinned or opened.
    #[error("cannot pin or open {}", path.display())]
    Pin {
        /// Its place in bpffs.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: libbpf_rs::Error,
    },
    /// The directory of the pinned guard cannot be listed.
    #[error("cannot list {}", path.display())]
    ListPins {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// The pinned state is not of this build's layout.
    #[error(
        "the running guard speaks ABI {found}, this longpin speaks {}",
        crate::shared::ABI
    )]
    Abi {
        /// What the running guard speaks.
        found: u32,
    },
    /// The state map cannot be mapped into memory.
    #[error("cannot map the guard's state")]
    Map(#[source] std::io::Error),
    /// A table could not be read or changed.
    #[error("cannot read the guard's table {table}")]
    Table {
        /// Which.
        table: &'static str,
        /// What the kernel said.
        #[source]
        source: libbpf_rs::Error,
    },
    /// One of the looking programs could not be run.
    #[error("cannot run the guard's program {program}")]
    Run {
        /// Which.
        program: &'static str,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
}
