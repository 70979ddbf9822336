//! What the running kernel is like, as far as the programs differ by it: probed, not guessed from a
//! version number.

use std::ops::Range;

use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::Enum;

use crate::BpfError;
use crate::hooks::{self, HOOKS, Hook, Offered};
use crate::measure::reached;
use crate::offers::Offers;
use crate::subvolumes::BesideInodes;
use crate::symbols::Symbols;

/// `FOLL_LONGTERM` where it is a macro, which leaves no trace in BTF (before 6.3).
const FOLL_LONGTERM_MACRO: u32 = 0x1_0000;
/// Functions whose being there tells kernels apart.
pub(crate) const MARKS: [&str; 3] = [BY_HUGE_PAGE, DIRTY_TRACKING, RDONLY_CAST];
const BY_HUGE_PAGE: &str = "hugetlb_basepage_index";
const DIRTY_TRACKING: &str = "vma_needs_dirty_tracking";
const RDONLY_CAST: &str = "bpf_rdonly_cast";
/// Functions that ask for permission and then do something else than read or write. Each kernel has the first.
const OPERATIONS: [&str; 6] = [
    "vfs_fallocate",
    "vfs_clone_file_range",
    "vfs_copy_file_range",
    "vfs_dedupe_file_range_one",
    // Commands of drivers and file systems.
    "io_uring_cmd",
    // A clone by overlayfs before 6.8, of a whole file: it needs no note.
    "do_clone_file_range",
];

/// Functions that open files for programs, though the system call does not say so; the order does not matter.
const OPENERS: [&str; 2] = ["io_openat2", "fanotify_read"];

/// Variables that the programs begin at; the order is that of `Facts::variables`.
const VARIABLES: [&str; 5] = [
    "vmemmap_base",
    "__per_cpu_offset",
    "init_task",
    "ftrace_enabled",
    DISARMED,
];
/// Not in kernels without probes.
const DISARMED: &str = "kprobes_all_disarmed";
/// The table of mount points; the order is that of `Facts::mountpoints`.
const MOUNTPOINTS: [&str; 3] = ["mountpoint_hashtable", "mp_hash_mask", "mp_hash_shift"];

/// The facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Value of `FOLL_LONGTERM`.
    pub foll_longterm: u32,
    /// hugetlbfs indexes its page cache by huge page (before 6.7).
    pub hugetlb_by_huge_page: bool,
    /// The kernel lets a device write to the page cache of disk file systems (before 6.5).
    pub writable_file_pins: bool,
    /// Where the code of the functions in `OPERATIONS` lies.
    pub operations: [Range<u64>; 6],
    /// The same of `OPENERS`; empty where there is none.
    pub openers: [Range<u64>; 2],
    /// Where `VARIABLES` lie; 0: there is none.
    pub variables: [u64; 5],
    /// Where `MOUNTPOINTS` lie; 0 where one of them is not known.
    pub mountpoints: [u64; 3],
    /// Programs of the table of hooks that this kernel has a place for.
    pub fitting: Vec<&'static str>,
    /// Pin functions that exist and cannot be watched: their pins are found only by walking every
    /// file.
    pub unwatched: Vec<&'static str>,
    /// Programs may read kernel memory by plain loads (6.2 and later).
    pub has_rdonly_cast: bool,
    /// What file systems keep beside an inode.
    pub beside_inodes: BesideInodes,
}

impl Facts {
    /// Probe the running kernel: its BTF and its symbols.
    ///
    /// # Errors
    ///
    /// [`BpfError::NoBtf`], [`BpfError::MissingFunction`], [`BpfError::NoAddress`], or what keeps the symbols from
    /// being found.
    pub fn probe() -> Result<Self, BpfError> {
        let offers = Offers::of_this_kernel()?;
        if let Some((function, purpose)) = hooks::find_missing(&offers) {
            return Err(BpfError::MissingFunction { function, purpose });
        }
        reached("types of the kernel read");
        let wanted = OPERATIONS.into_iter().chain(OPENERS);
        let wanted = wanted.chain(VARIABLES).chain(MOUNTPOINTS);
        let symbols = Symbols::find(wanted)?;
        reached("symbols found");
        let has = |name: &str| offers.arguments(name).is_some();
        let mountpoints = find_mountpoints(&symbols);
        let fits = |hook: &&Hook| hook.fits(&offers, mountpoints[0] != 0);
        let facts = Self {
            foll_longterm: find_foll_longterm(offers.types()),
            hugetlb_by_huge_page: has(BY_HUGE_PAGE),
            writable_file_pins: !has(DIRTY_TRACKING),
            operations: find_operations(&symbols)?,
            openers: OPENERS.map(|name| symbols.code(name).unwrap_or_default()),
            variables: find_variables(&symbols)?,
            mountpoints,
            fitting: HOOKS.iter().filter(fits).map(|hook| hook.program).collect(),
            unwatched: hooks::unwatched(&offers),
            has_rdonly_cast: has(RDONLY_CAST),
            beside_inodes: BesideInodes::find(offers.types()),
        };
        reached("types asked");
        Ok(facts)
    }

    /// Has this kernel a place for the program?
    pub(crate) fn allow(&self, hook: &Hook) -> bool {
        self.fitting.contains(&hook.program)
    }

    /// A pin function has too many arguments for a tracing program: it is probed instead.
    pub(crate) fn is_probed(&self) -> bool {
        let mut probes = HOOKS.iter().filter(|hook| hook.is_probe());
        probes.any(|hook| self.allow(hook))
    }
}

/// The value of `FOLL_LONGTERM`: an enumerator since 6.3, a macro before.
fn find_foll_longterm(btf: &Btf<'_>) -> u32 {
    btf.type_by_kind::<Enum<'_>>()
        .find_map(|list| {
            list.iter()
                .find(|member| member.name.is_some_and(|name| name == "FOLL_LONGTERM"))
                .and_then(|member| u32::try_from(member.value).ok())
        })
        .unwrap_or(FOLL_LONGTERM_MACRO)
}

/// Empty where there is none, but for the first.
fn find_operations(symbols: &Symbols) -> Result<[Range<u64>; 6], BpfError> {
    let code = OPERATIONS.map(|name| symbols.code(name));
    let symbol = OPERATIONS[0];
    match &code[0] {
        None => Err(BpfError::NoAddress { symbol }),
        Some(_) => Ok(code.map(Option::unwrap_or_default)),
    }
}

fn find_variables(symbols: &Symbols) -> Result<[u64; 5], BpfError> {
    let mut found = [0; 5];
    for (slot, symbol) in found.iter_mut().zip(VARIABLES) {
        *slot = match symbols.address(symbol) {
            None if symbol != DISARMED => return Err(BpfError::NoAddress { symbol }),
            address => address.unwrap_or(0),
        };
    }
    Ok(found)
}

/// All of them, or none.
fn find_mountpoints(symbols: &Symbols) -> [u64; 3] {
    let found = MOUNTPOINTS.map(|name| symbols.address(name));
    let all: Option<Vec<u64>> = found.into_iter().collect();
    all.and_then(|all| all.try_into().ok()).unwrap_or_default()
}
