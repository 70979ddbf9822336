//! What this host can enforce, claim by claim, before anything is loaded.
//!
//! [`read_host`] is the one door: it collects [`HostFacts`]. [`judge`] is pure. A "yes" here means that
//! nothing is known to be missing; only a starting guard proves it.

mod backends;
mod checks;
mod claims;
mod door;

use std::collections::BTreeMap;

pub use door::read_host;

/// An answer of the host, or why there is none.
pub type Fact<T> = Result<T, String>;

/// What there is to know about a host.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostFacts {
    /// The kernel's release, as `uname -r` says it.
    pub release: String,
    /// The machine, as `uname -m` says it.
    pub machine: String,
    /// Bytes of a page.
    pub page_size: usize,
    /// This process has CAP_SYS_ADMIN.
    pub privileged: bool,
    /// The active security modules; `None` where securityfs is not mounted.
    pub security_modules: Fact<Option<Vec<String>>>,
    /// The value of `lsm=` on the kernel's command line.
    pub lsm_option: Option<String>,
    /// How far the kernel is locked down; `None` where it has no such module.
    pub lockdown: Fact<Option<String>>,
    /// The functions in BTF that longpin asks for, with their numbers of arguments, and the typed
    /// tracepoints; `None` when the kernel has no BTF.
    pub btf: Fact<Option<BtfFacts>>,
    /// A BPF file system is mounted where the guard is pinned.
    pub bpf_fs: Fact<bool>,
    /// The kernel's list of symbols.
    pub symbols: Fact<SymbolFacts>,
    /// `kernel.ftrace_enabled`; `None` when there is no such switch.
    pub ftrace_enabled: Fact<Option<u32>>,
    /// `kernel.io_uring_disabled`; `None` when there is no such switch.
    pub io_uring_disabled: Fact<Option<u32>>,
    /// This process may make rings: a filter (seccomp) may refuse what the switch allows.
    pub io_uring: Fact<bool>,
    /// Lines of `/proc/swaps`; `None` on a kernel without swap.
    pub swap_areas: Fact<Option<usize>>,
    /// This process has CAP_LINUX_IMMUTABLE.
    pub may_make_immutable: bool,
    /// Whether a guard runs.
    pub guard: GuardFact,
}

/// What BTF knows of what longpin asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BtfFacts {
    /// Functions, with their numbers of arguments.
    pub functions: BTreeMap<String, usize>,
    /// Tracepoints.
    pub tracepoints: Vec<&'static str>,
}

/// What `/proc/kallsyms` shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SymbolFacts {
    /// It shows addresses to this process.
    pub shown: bool,
    /// `kernel.kptr_restrict`: 2 hides them from everybody.
    pub kptr_restrict: Option<u32>,
    /// The pin functions that the kernel has, whether or not BTF knows them.
    pub pin_functions: Vec<&'static str>,
}

/// Whether a guard runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuardFact {
    /// Yes.
    Running,
    /// No.
    NotRunning,
    /// One of another longpin version, or something in its place.
    Other(String),
    /// It could not be looked at.
    Unseen(String),
}

/// What was looked at, and how it is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it is.
    pub state: State,
    /// What was found.
    pub found: String,
    /// Lines to paste or to think about.
    pub remedy: Vec<String>,
}

/// How a thing is that the guard needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// As it must be.
    Ok,
    /// Worth knowing, and no obstacle.
    Note,
    /// It could not be looked at.
    Unknown,
    /// Without it nothing is enforced.
    Missing,
}

/// How much of a claim this host can enforce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostVerdict {
    /// All of it.
    Yes,
    /// Part of it.
    Partial,
    /// Nothing.
    No,
    /// Something could not be looked at.
    Unknown,
}

/// A claim on this host.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct ClaimVerdict {
    /// The claim's id in `docs/guarantee.md`.
    pub id: String,
    /// The claim in a few words.
    pub summary: &'static str,
    /// How much of it this host can enforce.
    pub verdict: HostVerdict,
    /// Why not all of it, or what it costs here.
    pub reason: Option<String>,
    /// What to do about it.
    pub remedy: Vec<String>,
}

/// Something that can hold a file, on this host.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct BackendVerdict {
    /// Its name.
    pub name: &'static str,
    /// Whether it can be used here.
    pub verdict: HostVerdict,
    /// Why not, or what it gives and takes.
    pub reason: String,
}

/// The whole judgement.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DoctorReport {
    /// What every claim needs.
    pub checks: Vec<Check>,
    /// The claims, in their order.
    pub claims: Vec<ClaimVerdict>,
    /// What can hold a file here, strongest first.
    pub backends: Vec<BackendVerdict>,
}

impl DoctorReport {
    /// All claims together.
    #[must_use]
    pub fn verdict(&self) -> HostVerdict {
        let has = |wanted| self.claims.iter().any(|claim| claim.verdict == wanted);
        match (
            has(HostVerdict::Yes),
            has(HostVerdict::Partial),
            has(HostVerdict::No),
            has(HostVerdict::Unknown),
        ) {
            (_, false, false, false) => HostVerdict::Yes,
            (_, false, false, true) => HostVerdict::Unknown,
            (false, false, true, false) => HostVerdict::No,
            _ => HostVerdict::Partial,
        }
    }
}

/// Judge a host by what is known of it.
#[must_use]
pub fn judge(facts: &HostFacts) -> DoctorReport {
    let checks = checks::check(facts);
    let claims = claims::judge_claims(facts, &checks);
    let backends = backends::judge(facts, &checks, &claims);
    DoctorReport {
        checks,
        claims,
        backends,
    }
}

#[cfg(test)]
mod tests;
