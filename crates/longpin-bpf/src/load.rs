//! From the object file to attached, pinned programs. Until they are pinned they live only as long as
//! this process: a start that fails, or is killed, leaves nothing attached.

use std::io::Read;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use libbpf_rs::skel::{OpenSkel, Skel, SkelBuilder};
use libbpf_rs::{Iter, Link, OpenObject, Program};

use longpin_linux::arch;

use crate::cgroup;
use crate::facts::Facts;
use crate::hooks::requests::FIND_STATISTICS;
use crate::hooks::{Hook, On};
use crate::measure::{self, reached};
use crate::shared::ABI;
use crate::skel::guard::{GuardSkel, GuardSkelBuilder, OpenGuardSkel};
use crate::subvolumes::BesideInodes;
use crate::types::mountpoint_table;
use crate::{BpfError, SUSPECT_ALL, StateView, object};

/// Files of one user other than root, unless the configuration says otherwise.
pub const DEFAULT_QUOTA: u32 = 4096;

/// Bounds of a walk's budget: nobody else has the processor meanwhile.
const SHORTEST_WALK: Duration = Duration::from_millis(1);
const LONGEST_WALK: Duration = Duration::from_secs(10);

/// What is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The guard.
    Guard {
        /// Room for so many suspects.
        max_files: u32,
        /// The last number that a row of others has: explicit holds that it takes over keep theirs.
        last_row: u64,
        /// So long may it look whether a page is pinned, from 1 ms to 10 s; `None`: as long as the programs say themselves.
        walk_budget: Option<Duration>,
    },
    /// Explicit holds only: pins are not watched.
    Holds,
}

/// Where libbpf keeps the object; must outlive [`Attached`].
#[derive(Debug)]
pub struct Storage(MaybeUninit<OpenObject>);

impl Default for Storage {
    fn default() -> Self {
        Self(MaybeUninit::uninit())
    }
}

/// Programs attached, not yet pinned; detached on drop.
#[must_use = "dropping it detaches the guard"]
pub struct Attached<'obj> {
    skel: GuardSkel<'obj>,
    links: Vec<(String, Link)>,
    state: StateView,
}

/// Load the programs and attach them. They refuse nothing until the mode is set.
///
/// # Errors
///
/// [`BpfError::Load`] or [`BpfError::Attach`]; nothing stays attached.
pub fn attach<'obj>(
    storage: &'obj mut Storage,
    facts: &Facts,
    purpose: Purpose,
) -> Result<Attached<'obj>, BpfError> {
    let open = open(storage, facts, purpose)?;
    reached("object opened");
    let skel = open.load().map_err(BpfError::Load)?;
    let state = StateView::map(&skel.maps.data_state)?;
    reached("programs loaded");
    if purpose != Purpose::Holds {
        watch_suppression(&skel, &state)?;
        reached("statistics found");
    }
    let links = attach_all(&skel)?;
    reached("programs attached");
    Ok(Attached { skel, links, state })
}

/// The object for this kernel, with what is wanted of it and the facts, to be loaded.
pub(crate) fn open<'obj>(
    storage: &'obj mut Storage,
    facts: &Facts,
    purpose: Purpose,
) -> Result<OpenGuardSkel<'obj>, BpfError> {
    object::choose(facts.has_rdonly_cast, purpose == Purpose::Holds);
    let mut open = GuardSkelBuilder::default()
        .open(&mut storage.0)
        .map_err(BpfError::Load)?;
    choose_programs(&mut open, facts, purpose);
    tell_facts(&mut open, facts);
    tell_purpose(&mut open, purpose)?;
    Ok(open)
}

fn choose_programs(open: &mut OpenGuardSkel<'_>, facts: &Facts, purpose: Purpose) {
    let in_use = |hook: &Hook| purpose != Purpose::Holds || !hook.pins;
    for mut program in open.open_object_mut().progs_mut() {
        let row = program.name().to_str().and_then(Hook::of);
        program.set_autoload(row.is_some_and(|hook| facts.allow(hook) && in_use(hook)));
    }
}

fn tell_facts(open: &mut OpenGuardSkel<'_>, facts: &Facts) {
    if let Some(rodata) = open.maps.rodata_data.as_deref_mut() {
        rodata.foll_longterm = facts.foll_longterm;
        rodata.page_shift = arch::page_shift();
        rodata.hugetlb_by_huge_page = facts.hugetlb_by_huge_page.into();
        rodata.writable_file_pins = facts.writable_file_pins.into();
        [
            rodata.vmemmap_base,
            rodata.per_cpu_offset,
            rodata.init_task,
            rodata.ftrace_enabled,
            rodata.kprobes_all_disarmed,
        ] = facts.variables;
        let [heads, mask, shift] = facts.mountpoints;
        rodata.mountpoint_table = mountpoint_table { heads, mask, shift };
        rodata.remote_probed = facts.is_probed().into();
        for (slot, code) in rodata.operations.iter_mut().zip(&facts.operations) {
            slot.start = code.start;
            slot.end = code.end;
        }
        for (slot, code) in rodata.openers.iter_mut().zip(&facts.openers) {
            slot.start = code.start;
            slot.end = code.end;
        }
    }
    if let Some(data) = open.maps.data_state_data.as_deref_mut() {
        data.state.abi = ABI;
        data.state.some_pins_unseen = (!facts.unwatched.is_empty()).into();
        // Nothing has been looked at yet.
        data.state.suspect_all = SUSPECT_ALL;
        data.state.quota_files = DEFAULT_QUOTA;
        let BesideInodes {
            subvolumes,
            subvolume_refs,
            ext4_flags,
            xfs_flags,
            overlay,
            fuse_passthrough,
        } = facts.beside_inodes;
        data.state.subvolumes = subvolumes.unwrap_or(0);
        data.state.subvolume_refs = subvolume_refs.unwrap_or(0);
        data.state.ext4_flags = ext4_flags.unwrap_or(0);
        data.state.xfs_flags = xfs_flags.unwrap_or(0);
        data.state.overlay = overlay.unwrap_or_default();
        data.state.fuse_passthrough = fuse_passthrough.unwrap_or(0);
    }
}

fn tell_purpose(open: &mut OpenGuardSkel<'_>, purpose: Purpose) -> Result<(), BpfError> {
    if let Purpose::Guard { walk_budget, .. } = purpose
        && let (Some(budget), Some(rodata)) = (walk_budget, open.maps.rodata_data.as_deref_mut())
    {
        let budget = budget.clamp(SHORTEST_WALK, LONGEST_WALK);
        rodata.walk_budget_ns = u64::try_from(budget.as_nanos()).unwrap_or(u64::MAX);
    }
    let data = open.maps.data_state_data.as_deref_mut();
    match (purpose, data) {
        (
            Purpose::Guard {
                max_files,
                last_row,
                ..
            },
            Some(data),
        ) => {
            data.state.max_files = max_files;
            data.state.next_row = last_row;
        }
        (Purpose::Holds, Some(data)) => {
            // No pin is known, and none is asked for.
            data.state.suspect_all = 0;
            data.state.some_pins_unseen = 0;
            data.state.holds_only = 1;
        }
        (_, None) => {}
    }
    let max_files = match purpose {
        Purpose::Guard { max_files, .. } => max_files,
        Purpose::Holds => 1,
    };
    let files = &mut open.maps.files;
    files.set_max_entries(max_files).map_err(BpfError::Load)
}

/// Tell the programs where the kernel counts the runs of the pin programs that it suppressed.
fn watch_suppression(skel: &GuardSkel<'_>, state: &StateView) -> Result<(), BpfError> {
    let failed = |source| BpfError::Attach {
        program: FIND_STATISTICS.into(),
        source,
    };
    let mut ids = Vec::new();
    for program in skel.object().progs() {
        let row = program.name().to_str().and_then(Hook::of);
        if program.autoload() && row.is_some_and(Hook::sees_pins_begin) {
            ids.push(Program::id_from_fd(program.as_fd()).map_err(failed)?);
        }
    }
    for (slot, id) in state.program_ids.iter().zip(&ids) {
        slot.store(*id, Ordering::Relaxed);
    }
    let count = ids.len().min(state.program_ids.len());
    state
        .pin_programs
        .store(u32::try_from(count).unwrap_or(u32::MAX), Ordering::Relaxed);
    let cpus = libbpf_rs::num_possible_cpus().map_err(failed)?;
    state
        .cpus
        .store(u32::try_from(cpus).unwrap_or(u32::MAX), Ordering::Relaxed);
    let link = skel.progs.find_statistics.attach().map_err(failed)?;
    let mut out = Vec::new();
    Iter::new(&link)
        .map_err(failed)?
        .read_to_end(&mut out)
        .map_err(|err| BpfError::Run {
            program: FIND_STATISTICS,
            source: err,
        })?;
    let unknown = |slot: &AtomicU64| slot.load(Ordering::Relaxed) == 0;
    if count != ids.len() || state.program_stats[..count].iter().any(unknown) {
        return Err(BpfError::NoStatistics);
    }
    Ok(())
}

/// The device of a directory's file system, as the kernel encodes it; 0 is none.
fn device_of(dir: &Path) -> Option<u32> {
    let device = std::fs::metadata(dir).ok()?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    (minor < 1 << 20).then_some(major << 20 | minor)
}

fn attach_all(skel: &GuardSkel<'_>) -> Result<Vec<(String, Link)>, BpfError> {
    let mut links = Vec::new();
    for program in skel.object().progs_mut() {
        let row = program.name().to_str().and_then(Hook::of);
        let wanted = |hook: &&Hook| hook.is_attached() && program.autoload();
        let Some(hook) = row.filter(wanted) else {
            continue;
        };
        if hook.on == On::Sysctl {
            // Where there is no root to attach it to, or somebody keeps it, the status says so.
            let root = cgroup::open_root();
            let link = root.and_then(|root| program.attach_cgroup(root.as_raw_fd()).ok());
            links.extend(link.map(|link| (hook.link(), link)));
            continue;
        }
        let link = program.attach().map_err(|source| BpfError::Attach {
            program: hook.program.to_owned(),
            source,
        })?;
        measure::attached(hook.program);
        links.push((hook.link(), link));
    }
    Ok(links)
}

impl Attached<'_> {
    /// The state that the programs read.
    #[must_use]
    pub fn state(&self) -> &StateView {
        &self.state
    }

    /// Pin links, maps and the programs run on request into an existing directory of bpffs: from then
    /// on they live without this process.
    ///
    /// # Errors
    ///
    /// [`BpfError::Pin`]; what was pinned by then is the caller's to remove.
    pub fn pin(&mut self, dir: &Path) -> Result<(), BpfError> {
        let home = device_of(dir).unwrap_or(0);
        self.state.home.store(home, Ordering::Relaxed);
        for (name, link) in &mut self.links {
            let path = dir.join(name);
            link.pin(&path)
                .map_err(|source| BpfError::Pin { path, source })?;
        }
        let maps = &mut self.skel.maps;
        for (name, map) in [
            ("map_state", &mut maps.data_state),
            ("map_files", &mut maps.files),
            ("map_rows", &mut maps.rows),
            ("map_sights", &mut maps.sights),
            ("map_events", &mut maps.events),
            ("map_identified", &mut maps.identified),
            ("map_rules", &mut maps.rules),
            ("map_file_rules", &mut maps.file_rules),
            ("map_explicit_holds", &mut maps.explicit_holds),
            ("map_tokens", &mut maps.tokens),
            ("map_answers", &mut maps.answers),
            ("map_openings", &mut maps.openings),
            ("map_strays", &mut maps.strays),
        ] {
            let path = dir.join(name);
            map.pin(&path)
                .map_err(|source| BpfError::Pin { path, source })?;
        }
        self.pin_programs(dir)
    }

    /// Those that are run on request.
    fn pin_programs(&mut self, dir: &Path) -> Result<(), BpfError> {
        for mut program in self.skel.object_mut().progs_mut() {
            let row = program.name().to_str().and_then(Hook::of);
            let wanted = |hook: &&Hook| hook.is_on_request() && program.autoload();
            let Some(hook) = row.filter(wanted) else {
                continue;
            };
            let path = dir.join(hook.pinned());
            program
                .pin(&path)
                .map_err(|source| BpfError::Pin { path, source })?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Attached<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attached")
            .field("links", &self.links.len())
            .finish_non_exhaustive()
    }
}
