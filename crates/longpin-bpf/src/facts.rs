//! What the running kernel is like, as far as the programs differ by it: probed, not guessed from a
//! version number.

use std::ops::Range;

use libbpf_rs::ReferencesType;
use libbpf_rs::btf::types::{Enum, Func, FuncProto};
use libbpf_rs::btf::{Btf, BtfType};

use crate::BpfError;
use crate::measure::reached;
use crate::subvolumes::BesideInodes;
use crate::symbols::Symbols;

/// `FOLL_LONGTERM` where it is a macro, which leaves no trace in BTF (before 6.3).
const FOLL_LONGTERM_MACRO: u32 = 0x1_0000;
/// Tracing programs can watch functions of at most this many arguments.
pub const MAX_ARGUMENTS: usize = 6;

/// The one that takes seven arguments on older kernels, where it is probed instead.
pub const PROBED: &str = "pin_user_pages_remote";

/// The kernel's entry points for pins, as far as any supported kernel has them.
pub const PIN_FUNCTIONS: [&str; 5] = [
    "pin_user_pages",
    "pin_user_pages_fast",
    "pin_user_pages_remote",
    "pin_user_pages_unlocked",
    "memfd_pin_folios",
];

/// Functions without which the guard would enforce nothing worth the name.
const REQUIRED: [(&str, &str); 5] = [
    ("pin_user_pages_fast", "RDMA and io_uring pin with"),
    ("bpf_lsm_inode_setattr", "truncates are refused in"),
    ("bpf_lsm_file_permission", "hole punches are refused in"),
    ("vfs_fallocate", "hole punches go through"),
    ("bpf_lsm_inode_free_security", "tells that a file is gone"),
];

/// Functions that some claims need, and without which the others can still be enforced.
const OPTIONAL: [&str; 20] = [
    "vfs_clone_file_range",
    "vfs_copy_file_range",
    "vfs_dedupe_file_range_one",
    "bpf_lsm_file_ioctl",
    "bpf_lsm_sb_umount",
    "bpf_lsm_sb_remount",
    "reconfigure_super",
    "bpf_lsm_mmap_file",
    "bpf_lsm_file_mprotect",
    "bpf_lsm_inode_unlink",
    "bpf_lsm_inode_rmdir",
    "bpf_lsm_quota_on",
    "bpf_lsm_quotactl",
    "bpf_lsm_inode_rename",
    "bpf_lsm_bprm_check_security",
    "bpf_lsm_file_open",
    "mmu_interval_notifier_insert",
    "mmu_interval_notifier_remove",
    "__mmu_notifier_invalidate_range_start",
    "write_enabled_file_bool",
];
/// Programs about on-demand regions: in all of them the kernel must have these structures.
const ON_DEMAND: [&str; 4] = [
    "list_regions",
    "mmu_interval_notifier_insert_exit",
    "mmu_interval_notifier_remove_exit",
    "__mmu_notifier_invalidate_range_start_exit",
];
/// Programs that the user side runs about pins.
const ABOUT_PINS: [&str; 6] = [
    "end_row",
    "end_strays",
    "forget",
    "begin_sweep",
    "sweep_frames",
    "find_statistics",
];
/// Programs that see when others are switched off.
const WITNESSES: [&str; 2] = [WITNESS, "write_enabled_file_bool_entry"];
/// The one that sees writes below `/proc/sys`: it is attached to the root of the cgroups.
pub const WITNESS: &str = "ftrace_switched";
/// The tracepoint that tells of pages that leave their file, by its type.
const REMOVAL: &str = "btf_trace_mm_filemap_delete_from_page_cache";
/// Functions that ask for permission and then do something else than read or write; the order is that of
/// OPERATION_ in bpf/maps.h.
const OPERATIONS: [&str; 6] = [
    "vfs_fallocate",
    "vfs_clone_file_range",
    "vfs_copy_file_range",
    "vfs_dedupe_file_range_one",
    "io_uring_cmd",
    "do_clone_file_range",
];

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
    /// The `inode_setattr` hook gets an idmap before the dentry (6.8 and later).
    pub setattr_has_idmap: bool,
    /// The kernel lets a device write to the page cache of disk file systems (before 6.5).
    pub writable_file_pins: bool,
    /// Where the code of the functions in `OPERATIONS` lies.
    pub operations: [Range<u64>; 6],
    /// Where `VARIABLES` lie; 0: there is none.
    pub variables: [u64; 5],
    /// Where `MOUNTPOINTS` lie; 0 where one of them is not known.
    pub mountpoints: [u64; 3],
    /// Pin functions that a tracing program can be attached to.
    pub watched: Vec<&'static str>,
    /// `pin_user_pages_remote` has too many arguments for that: it is probed instead.
    pub remote_is_probed: bool,
    /// Pin functions that exist and cannot be watched: their pins are found only by walking every
    /// file.
    pub unwatched: Vec<&'static str>,
    /// Optional functions that this kernel lacks.
    pub missing: Vec<&'static str>,
    /// Programs may read kernel memory by plain loads (6.2 and later).
    pub has_rdonly_cast: bool,
    /// Programs for 32-bit ioctls have a hook of their own.
    pub has_compat_ioctl: bool,
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
        let btf = Btf::from_vmlinux().map_err(BpfError::NoBtf)?;
        let arguments = |name: &str| count_arguments(&btf, name);
        for (function, purpose) in REQUIRED {
            if arguments(function).is_none() {
                return Err(BpfError::MissingFunction { function, purpose });
            }
        }
        let (watched, mut unwatched): (Vec<_>, Vec<_>) = PIN_FUNCTIONS
            .into_iter()
            .filter(|name| arguments(name).is_some())
            .partition(|name| arguments(name) <= Some(MAX_ARGUMENTS));
        let remote_is_probed = unwatched.contains(&PROBED);
        unwatched.retain(|name| *name != PROBED);
        let mut missing: Vec<_> = OPTIONAL
            .into_iter()
            .filter(|name| arguments(name).is_none())
            .collect();
        if btf.type_by_name::<BtfType<'_>>(REMOVAL).is_none() {
            missing.push(REMOVAL);
        }
        reached("types of the kernel read");
        let wanted = OPERATIONS.into_iter().chain(VARIABLES).chain(MOUNTPOINTS);
        let symbols = Symbols::find(wanted)?;
        reached("symbols found");
        let facts = Self {
            foll_longterm: find_foll_longterm(&btf),
            hugetlb_by_huge_page: arguments("hugetlb_basepage_index").is_some(),
            setattr_has_idmap: arguments("bpf_lsm_inode_setattr") == Some(3),
            writable_file_pins: arguments("vma_needs_dirty_tracking").is_none(),
            operations: find_operations(&symbols)?,
            variables: find_variables(&symbols)?,
            mountpoints: find_mountpoints(&symbols),
            watched,
            remote_is_probed,
            unwatched,
            missing,
            has_rdonly_cast: arguments("bpf_rdonly_cast").is_some(),
            has_compat_ioctl: arguments("bpf_lsm_file_ioctl_compat").is_some(),
            beside_inodes: BesideInodes::find(&btf),
        };
        reached("types asked");
        Ok(facts)
    }

    fn knows_mountpoints(&self) -> bool {
        self.mountpoints[0] != 0
    }

    /// Has this kernel what a program of this name is attached to?
    pub(crate) fn allow(&self, program: &str) -> bool {
        let lacks = |name: &str| self.missing.contains(&name);
        match program {
            "inode_setattr" => self.setattr_has_idmap,
            "inode_setattr_without_idmap" => !self.setattr_has_idmap,
            "file_ioctl_compat" => self.has_compat_ioctl,
            "file_ioctl" => !lacks("bpf_lsm_file_ioctl"),
            "sb_umount" => !lacks("bpf_lsm_sb_umount"),
            "mountpoint_rmdir" => self.knows_mountpoints() && !lacks("bpf_lsm_inode_rmdir"),
            "mountpoint_rename" => self.knows_mountpoints() && !lacks("bpf_lsm_inode_rename"),
            // Without the note each remount would count as one to read-only.
            "sb_remount" => !lacks("bpf_lsm_sb_remount") && !lacks("reconfigure_super"),
            "quota_on" => !lacks("bpf_lsm_quota_on"),
            "quotactl" => !lacks("bpf_lsm_quotactl"),
            "page_removed" => !lacks(REMOVAL),
            "strict_mmap" => !lacks("bpf_lsm_mmap_file"),
            "strict_mprotect" => !lacks("bpf_lsm_file_mprotect"),
            "strict_unlink" => !lacks("bpf_lsm_inode_unlink"),
            "strict_rename" => !lacks("bpf_lsm_inode_rename"),
            "strict_touch" => !lacks("bpf_lsm_file_ioctl"),
            "strict_open" => !lacks("bpf_lsm_file_open"),
            "strict_exec" => !lacks("bpf_lsm_bprm_check_security"),
            "list_regions" => !lacks("mmu_interval_notifier_insert"),
            "remote_probe_entry" | "remote_probe_exit" => self.remote_is_probed,
            "write_enabled_file_bool_entry" => {
                self.remote_is_probed && !lacks("write_enabled_file_bool")
            }
            _ => watched_function(program).is_none_or(|function| {
                !lacks(function)
                    && (!PIN_FUNCTIONS.contains(&function) || self.watched.contains(&function))
            }),
        }
    }
}

/// Is a program of this name only for automatic holds: does it watch pins, or what became of them?
pub(crate) fn is_for_pins(program: &str) -> bool {
    program == "page_removed"
        || ABOUT_PINS.contains(&program)
        || WITNESSES.contains(&program)
        || ON_DEMAND.contains(&program)
        || program.starts_with("remote_probe_")
        || watched_function(program).is_some_and(|function| PIN_FUNCTIONS.contains(&function))
}

/// The function that a program of this name is attached to, at entry or exit.
fn watched_function(program: &str) -> Option<&str> {
    program
        .strip_suffix("_entry")
        .or_else(|| program.strip_suffix("_exit"))
}

/// Does a program of this name watch the entry of a pin function?
pub(crate) fn watches_entry(program: &str) -> bool {
    program == "remote_probe_entry"
        || program
            .strip_suffix("_entry")
            .is_some_and(|function| PIN_FUNCTIONS.contains(&function))
}

/// How many arguments a kernel function takes; `None` when the kernel has no such function.
fn count_arguments(btf: &Btf<'_>, name: &str) -> Option<usize> {
    let function: Func<'_> = btf.type_by_name(name)?;
    let prototype: FuncProto<'_> = btf.type_by_id(function.referenced_type_id())?;
    Some(prototype.len())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(missing: Vec<&'static str>) -> Facts {
        Facts {
            foll_longterm: 1,
            hugetlb_by_huge_page: false,
            setattr_has_idmap: true,
            writable_file_pins: false,
            operations: Default::default(),
            variables: [1; 5],
            mountpoints: [1, 1, 1],
            watched: vec!["pin_user_pages_fast"],
            remote_is_probed: true,
            unwatched: vec![],
            missing,
            has_rdonly_cast: true,
            has_compat_ioctl: false,
            beside_inodes: BesideInodes::default(),
        }
    }

    #[test]
    fn programs_are_loaded_where_their_function_is() {
        let facts = facts(vec!["vfs_clone_file_range", "reconfigure_super"]);
        for there in [
            "pin_user_pages_fast_exit",
            "remote_probe_entry",
            "inode_setattr",
            "sb_umount",
            "vfs_copy_file_range_entry",
            "inspect",
        ] {
            assert!(facts.allow(there), "{there}");
        }
        for not in [
            "pin_user_pages_remote_exit",
            "memfd_pin_folios_entry",
            "inode_setattr_without_idmap",
            "vfs_clone_file_range_exit",
            "reconfigure_super_entry",
            "sb_remount",
            "file_ioctl_compat",
        ] {
            assert!(!facts.allow(not), "{not}");
        }
        assert!(watches_entry("pin_user_pages_fast_entry"));
        assert!(watches_entry("remote_probe_entry"));
        assert!(!watches_entry("pin_user_pages_fast_exit"));
        assert!(!watches_entry("vfs_fallocate_entry"));
    }
}
