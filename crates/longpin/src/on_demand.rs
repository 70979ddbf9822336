//! On-demand regions: memory of files that a device uses without a pin. The hardware faults, and the kernel takes pages
//! back through MMU notifiers when the file system wants them. They hold nothing; they are told, and so is what is
//! taken back (claim C11).

use std::collections::{HashMap, HashSet};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use longpin_bpf::event::Torn;
use longpin_bpf::pinned::Pinned;
use longpin_bpf::region::Region;
use longpin_bpf::shared::FileId;
use longpin_linux::kallsyms::Kallsyms;
use longpin_linux::mounts::{self, Mount};
use longpin_linux::{arch, cgroups, probe};

use crate::consumer::name_driver;
use crate::guard::{GuardError, Running};

use crate::names::name_file;

/// A range of a file in an on-demand region.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OnDemand {
    /// The file, as seen from here.
    pub path: String,
    /// No directory names it any more.
    pub deleted: bool,
    /// First byte in the file.
    pub start: u64,
    /// First byte after the last one.
    pub end: u64,
    /// The process, in the initial pid namespace.
    pub pid: u32,
    /// Its name.
    pub command: String,
    /// Its user.
    pub uid: u32,
    /// Its cgroup v2 path; empty where there is none.
    pub cgroup: String,
    /// The kernel's subsystem that uses it, or the driver's module.
    pub consumer: String,
    /// The driver's function that gives pages back.
    pub function: String,
    /// When it began, since the epoch; `None` when the guard did not see that.
    pub since: Option<Duration>,
    /// How often something was taken back from the region, as far as the guard saw.
    pub torn: u64,
    pub(crate) file: FileId,
}

/// What [`read`] finds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OnDemandReport {
    /// By path and range.
    pub regions: Vec<OnDemand>,
    /// Processes that have more than are told: process id and command.
    pub cut: Vec<(u32, String)>,
    /// Asked from a pid namespace, whose processes alone were seen.
    pub only_here: bool,
}

/// The on-demand regions of files: as they are now, those that are older than the guard, too.
/// `None` where they cannot be told: the kernel has no MMU interval notifiers, or only explicit holds run.
///
/// # Errors
///
/// [`GuardError`].
pub fn read(running: &Running) -> Result<Option<OnDemandReport>, GuardError> {
    let pinned = running.pinned();
    let Some(regions) = pinned.regions()? else {
        return Ok(None);
    };
    let probe = |what: &str| {
        let what = what.to_owned();
        move |source| GuardError::Probe { what, source }
    };
    let mounts = mounts::read_mounts().map_err(probe("the mounts"))?;
    let functions = regions.all.iter().map(|region| region.invalidate);
    let symbols = Kallsyms::look_up(functions).map_err(probe("the kernel's symbols"))?;
    let mut all = Vec::new();
    for region in &regions.all {
        all.extend(describe(pinned, region, &mounts, &symbols)?);
    }
    all.sort_by(|a, b| (&a.path, a.start, a.pid).cmp(&(&b.path, b.start, b.pid)));
    Ok(Some(OnDemandReport {
        regions: all,
        cut: regions.cut,
        only_here: !is_first_pid_namespace(),
    }))
}

/// The kernel's number for the first one never changes (`PROC_PID_INIT_INO`).
fn is_first_pid_namespace() -> bool {
    let name = std::fs::read_link("/proc/self/ns/pid");
    name.is_ok_and(|name| name.as_os_str() == "pid:[4026531836]")
}

/// `None`: its file has gone since.
fn describe(
    pinned: &Pinned,
    region: &Region,
    mounts: &[Mount],
    symbols: &Kallsyms,
) -> Result<Option<OnDemand>, GuardError> {
    let Some(sight) = pinned.inspect(&region.file, 0, 0)? else {
        return Ok(None);
    };
    let unknown = || "unknown".to_owned();
    let function = symbols.function_at(region.invalidate);
    let since = Duration::from_nanos(region.since_ns);
    let start =
        region.first.saturating_mul(arch::page_size()) + region.addresses.0 % arch::page_size();
    Ok(Some(OnDemand {
        path: name_file(&region.file, &sight, mounts),
        deleted: sight.links == 0,
        start,
        end: start.saturating_add(region.addresses.1 - region.addresses.0),
        pid: region.tgid,
        command: region.command.clone(),
        uid: region.uid,
        cgroup: cgroups::of_process(region.tgid).unwrap_or_default(),
        consumer: name_driver(symbols, region.invalidate).unwrap_or_else(unknown),
        function: function.map_or_else(unknown, |symbol| symbol.name.clone()),
        since: (region.since_ns != 0).then(|| probe::boot_to_wall_offset() + since),
        torn: region.torn,
        file: region.file,
    }))
}

/// Why pages were taken back from an on-demand region, as far as the kernel's stack tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cause {
    /// What the kernel was about, where that is no system call's own doing.
    pub work: Option<&'static str>,
    /// The kernel's function that gave notice.
    pub function: Option<String>,
}

/// The kernel's word for a notice (`enum mmu_notifier_event`), without its prefix.
#[must_use]
pub fn notice_name(notice: u32) -> Option<&'static str> {
    const NAMES: [&str; 8] = [
        "unmap",
        "clear",
        "protection-vma",
        "protection-page",
        "soft-dirty",
        "release",
        "migrate",
        "exclusive",
    ];
    NAMES.get(notice as usize).copied()
}

pub(crate) fn find_cause(torn: &Torn) -> Cause {
    let names = name_functions(&torn.stack);
    let mut functions = names.iter().filter(|name| !is_machinery(name)).peekable();
    Cause {
        function: functions.peek().map(|name| (*name).clone()),
        work: functions.find_map(|name| kernel_work(name)),
    }
}

/// The guard's program, its trampoline, and the function that it watches.
fn is_machinery(name: &str) -> bool {
    name.starts_with("bpf_") || name.starts_with("__mmu_notifier_invalidate_range_start")
}

/// What the kernel does on its own behalf, by a function of it. The outer ones are asked when the inner ones say
/// nothing, so the order of the stack counts: `try_to_unmap_one` serves many.
fn kernel_work(function: &str) -> Option<&'static str> {
    let is = |part: &str| function.contains(part);
    if is("mkclean") {
        Some("write-back")
    } else if is("try_to_migrate") || is("migrate_vma") {
        Some("migration")
    } else if is("memory_failure") || is("hwpoison") {
        Some("memory failure")
    } else if is("shrink_folio_list") || is("reclaim") {
        Some("reclaim")
    } else if ["collapse_file", "collapse_huge_page", "retract_page_tables"]
        .iter()
        // xfs_collapse_file_space is a file system's.
        .any(|part| function.starts_with(part))
    {
        Some("huge page collapse")
    } else if is("prot_numa") || is("task_numa_work") {
        Some("NUMA balancing")
    } else {
        None
    }
}

/// The names of functions at these addresses, those that have one. The kernel's own code does not move, and the table
/// of its symbols is long: each address is looked up once.
fn name_functions(stack: &[u64]) -> Vec<String> {
    static KNOWN: LazyLock<Mutex<HashMap<u64, Option<String>>>> = LazyLock::new(Mutex::default);
    let Ok(mut known) = KNOWN.lock() else {
        return Vec::new();
    };
    let addresses = || stack.iter().copied().take_while(|&address| address != 0);
    let missing: HashSet<u64> = addresses().filter(|a| !known.contains_key(a)).collect();
    // What cannot be read leaves the cause unknown, and the event told.
    let symbols = Kallsyms::look_up(missing.iter().copied()).unwrap_or_default();
    for address in missing {
        let symbol = symbols.function_at(address);
        known.insert(address, symbol.map(|symbol| symbol.name.clone()));
    }
    addresses()
        .filter_map(|address| known.get(&address).cloned().flatten())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_own_work_is_told_by_its_functions() {
        assert_eq!(kernel_work("page_vma_mkclean_one"), Some("write-back"));
        assert_eq!(kernel_work("try_to_migrate_one"), Some("migration"));
        assert_eq!(kernel_work("try_to_unmap_one"), None, "many call it");
        assert_eq!(kernel_work("shrink_folio_list"), Some("reclaim"));
        assert_eq!(kernel_work("zap_page_range_single"), None);
        assert_eq!(kernel_work("xfs_collapse_file_space"), None);
        assert_eq!(kernel_work("collapse_file"), Some("huge page collapse"));
        assert!(is_machinery("bpf_trampoline_6442"));
        assert!(is_machinery("__mmu_notifier_invalidate_range_start"));
    }

    #[test]
    fn notices_have_the_kernels_names() {
        assert_eq!(notice_name(0), Some("unmap"));
        assert_eq!(notice_name(1), Some("clear"));
        assert_eq!(notice_name(7), Some("exclusive"));
        assert_eq!(notice_name(8), None);
    }
}
