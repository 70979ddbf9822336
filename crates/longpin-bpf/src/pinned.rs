//! A guard that is pinned in bpffs: its state, its tables, and the programs that look.
#![allow(
    unsafe_code,
    reason = "BPF_PROG_TEST_RUN of a pinned program, and an ioctl, have no safe wrappers"
)]

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use libbpf_rs::{MapCore, MapFlags, MapHandle, Program, libbpf_sys};

use crate::event::{Event, MAX_EVENTS, parse_event};
use crate::hooks::{HOOKS, Hook, REGIONS, requests};
use crate::rule::{self, Rule, RuleAction};
use crate::shared::{self, FileId, Row, Sight, Suspect};
use crate::{BpfError, Mode, StateView};

/// How often a look is repeated when others look at the same time.
const INSPECT_TRIES: u32 = 1000;
/// In bpf/shared.h.
const IDENTIFY: libc::Ioctl = 0x6c70_0001;
/// In bpf/shared.h.
const HINTS_SILENT: u32 = 2;
/// Returned by `inspect` when the inode is gone: `-ENOENT`.
const GONE: u32 = 2_u32.wrapping_neg();

/// A pinned guard, open.
#[derive(Debug)]
pub struct Pinned {
    state: StateView,
    files: MapHandle,
    pub(crate) rows: MapHandle,
    sights: MapHandle,
    events: MapHandle,
    identified: MapHandle,
    rules: MapHandle,
    file_rules: MapHandle,
    pub(crate) strays: MapHandle,
    /// Those that are run on request, by name. Those about pins are not there where only explicit holds are.
    programs: HashMap<&'static str, OwnedFd>,
    pub(crate) answers: MapHandle,
    pub(crate) openings: MapHandle,
    pub(crate) explicit_holds: MapHandle,
    pub(crate) tokens: MapHandle,
    /// Reading it runs `list_regions`; not there where the kernel has no such regions.
    pub(crate) regions: PathBuf,
}

fn open_map(dir: &Path, name: &str) -> Result<MapHandle, BpfError> {
    let path = dir.join(name);
    MapHandle::from_pinned_path(&path).map_err(|source| BpfError::Pin { path, source })
}

fn open_program(dir: &Path, name: &str) -> Result<OwnedFd, BpfError> {
    let path = dir.join(name);
    Program::fd_from_pinned_path(&path).map_err(|source| BpfError::Pin { path, source })
}

fn open_programs(
    dir: &Path,
    watches_pins: bool,
) -> Result<HashMap<&'static str, OwnedFd>, BpfError> {
    let here = |hook: &&Hook| hook.is_on_request() && (watches_pins || !hook.pins);
    let open = |hook: &'static Hook| Ok((hook.program, open_program(dir, &hook.pinned())?));
    HOOKS.iter().filter(here).map(open).collect()
}

/// Whom a pinned guard refuses, from its state alone; `None` when no state is pinned in `dir`.
///
/// # Errors
///
/// [`BpfError::Abi`] or [`BpfError::Pin`].
pub fn read_mode(dir: &Path) -> Result<Option<Mode>, BpfError> {
    if !dir.join("map_state").exists() {
        return Ok(None);
    }
    Ok(Some(StateView::map(&open_map(dir, "map_state")?)?.mode()))
}

impl Pinned {
    /// Open what [`crate::load::Attached::pin`] left in `dir`.
    ///
    /// # Errors
    ///
    /// [`BpfError::Abi`] when it is of another layout (told before anything else is opened),
    /// [`BpfError::Pin`] when a part is missing.
    pub fn open(dir: &Path) -> Result<Self, BpfError> {
        let state = StateView::map(&open_map(dir, "map_state")?)?;
        let watches_pins = state.holds_only.load(Ordering::Acquire) == 0;
        Ok(Self {
            programs: open_programs(dir, watches_pins)?,
            state,
            files: open_map(dir, "map_files")?,
            rows: open_map(dir, "map_rows")?,
            sights: open_map(dir, "map_sights")?,
            events: open_map(dir, "map_events")?,
            identified: open_map(dir, "map_identified")?,
            rules: open_map(dir, "map_rules")?,
            file_rules: open_map(dir, "map_file_rules")?,
            strays: open_map(dir, "map_strays")?,
            answers: open_map(dir, "map_answers")?,
            openings: open_map(dir, "map_openings")?,
            explicit_holds: open_map(dir, "map_explicit_holds")?,
            tokens: open_map(dir, "map_tokens")?,
            regions: dir.join(format!("link_{REGIONS}")),
        })
    }

    /// The shared state.
    #[must_use]
    pub fn state(&self) -> &StateView {
        &self.state
    }

    /// Does it watch pins? Not where it was started by an explicit hold.
    #[must_use]
    pub fn watches_pins(&self) -> bool {
        self.programs.contains_key(requests::FORGET)
    }

    /// What a program that is run on request returned. One about pins has nothing to tell where no pin is watched: 0.
    pub(crate) fn run(&self, program: &'static str, arguments: &[u64]) -> Result<u32, BpfError> {
        match self.programs.get(program) {
            Some(opened) => run(opened, program, arguments),
            None => Ok(0),
        }
    }

    /// The suspects.
    ///
    /// # Errors
    ///
    /// [`BpfError::Table`].
    pub fn suspects(&self) -> Result<Vec<Suspect>, BpfError> {
        read_table(&self.files, "files", shared::parse_suspect)
    }

    /// The rows, in no order.
    ///
    /// # Errors
    ///
    /// [`BpfError::Table`].
    pub fn rows(&self) -> Result<Vec<Row>, BpfError> {
        read_table(&self.rows, "rows", shared::parse_row)
    }

    /// The event of this number; `None` when it has been written over, or is being written.
    ///
    /// # Errors
    ///
    /// [`BpfError::Table`].
    pub fn event(&self, number: u64) -> Result<Option<Event>, BpfError> {
        let slot = u32::try_from(number % MAX_EVENTS).unwrap_or_default();
        let table = "events";
        let value = self
            .events
            .lookup(&slot.to_ne_bytes(), MapFlags::ANY)
            .map_err(|source| BpfError::Table { table, source })?;
        Ok(value.and_then(|value| parse_event(&value, number)))
    }

    /// Which inode a descriptor stands for, as the kernel sees it: right on btrfs, where `st_dev` is not the
    /// super block's, and on overlayfs, where the page cache is another inode's. `None` when the guard's
    /// program on `ioctl` did not see the question.
    ///
    /// # Errors
    ///
    /// [`BpfError::Run`] or [`BpfError::Table`].
    pub fn identify(&self, fd: impl AsFd) -> Result<Option<FileId>, BpfError> {
        let (table, key) = ("identified", 0_u32.to_ne_bytes());
        self.learn_beside_inodes();
        write(&self.identified, table, &key, &[0; shared::SUSPECT_LEN])?;
        self.run(requests::INTRODUCE, &[0])?;
        // SAFETY: the command carries no argument and no file system knows it; the answer (ENOTTY) says
        // nothing, what the program saw does.
        let _ = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), IDENTIFY, 0) };
        let value = self
            .identified
            .lookup(&key, MapFlags::ANY)
            .map_err(|source| BpfError::Table { table, source })?;
        Ok(value.as_deref().and_then(shared::parse_identified))
    }

    /// Replace all rules: written into the bank that is not in use, then switched to by one store.
    ///
    /// # Errors
    ///
    /// [`BpfError::Table`]; the old rules then go on to count.
    pub fn set_rules(&self, rules: &[Rule]) -> Result<(), BpfError> {
        let old = self.state.rules.load(Ordering::Acquire);
        let (first, bank) = rule::other_bank(old);
        for (slot, rule) in (first..).zip(rules.iter().take(rule::MAX_RULES)) {
            write(
                &self.rules,
                "rules",
                &slot.to_ne_bytes(),
                &rule::encode(rule),
            )?;
        }
        let word = rule::rules_word(rules, bank, old);
        self.state.rules.store(word, Ordering::Release);
        Ok(())
    }

    /// Say of one file that long-term pins are denied, or allowed; `None` takes that back.
    ///
    /// # Errors
    ///
    /// [`BpfError::Table`].
    pub fn set_file_rule(&self, file: &FileId, action: Option<RuleAction>) -> Result<(), BpfError> {
        let key = shared::identity_key(file);
        match action {
            Some(action) => {
                let value = (action as u32).to_ne_bytes();
                write(&self.file_rules, "file_rules", &key, &value)?;
                self.state
                    .rules
                    .fetch_or(rule::RULES_FILES, Ordering::AcqRel);
                Ok(())
            }
            None => match self.file_rules.delete(&key) {
                Err(source) if source.kind() != libbpf_rs::ErrorKind::NotFound => {
                    let table = "file_rules";
                    Err(BpfError::Table { table, source })
                }
                _ => Ok(()),
            },
        }
    }

    /// Files of which one is said that long-term pins are denied (true) or allowed (false).
    ///
    /// # Errors
    ///
    /// [`BpfError::Table`].
    pub fn file_rules(&self) -> Result<Vec<(FileId, bool)>, BpfError> {
        read_table(&self.file_rules, "file_rules", |key, value| {
            let denied = shared::u32_at(value, 0) == RuleAction::Deny as u32;
            (key.len() == 16).then(|| (shared::identity(0, key), denied))
        })
    }

    /// Look at page indexes `first..=last` of a file; `None` when the inode is gone. Others may look
    /// at the same time.
    ///
    /// # Errors
    ///
    /// [`BpfError::Run`] or [`BpfError::Table`].
    pub fn inspect(&self, file: &FileId, first: u64, last: u64) -> Result<Option<Sight>, BpfError> {
        let Some(mut all) = self.inspect_part(file, (first, last), false)? else {
            return Ok(None);
        };
        // A part at a time: the kernel does not reschedule while one is looked at.
        while let Some(next) = all.next {
            let Some(part) = self.inspect_part(file, (next, last), false)? else {
                return Ok(None);
            };
            all.append(&part);
            if part.next == Some(next) {
                break;
            }
        }
        Ok(Some(all))
    }

    /// The runs of pinned pages among `first..=last`; what is beyond `limit` is joined to the last one.
    ///
    /// # Errors
    ///
    /// As [`Self::inspect`].
    pub fn runs(
        &self,
        file: &FileId,
        (first, last): (u64, u64),
        limit: usize,
    ) -> Result<Vec<(u64, u64)>, BpfError> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        let mut from = first;
        while from <= last {
            let one = runs.len() < limit;
            let Some(sight) = self.inspect_part(file, (from, last), one)? else {
                break;
            };
            match (sight.pinned, runs.last_mut()) {
                // A run that a part was cut in.
                (Some((start, end)), Some(run)) if !one || start == run.1 + 1 => run.1 = end,
                (Some(run), _) => runs.push(run),
                (None, _) if sight.next.is_none() => break,
                (None, _) => {}
            }
            let seen = sight.pinned.map(|(_, end)| end + 1);
            let next = if one { seen.or(sight.next) } else { sight.next };
            match next {
                Some(next) if next > from => from = next,
                _ => break,
            }
        }
        Ok(runs)
    }

    fn inspect_part(
        &self,
        file: &FileId,
        (from, last): (u64, u64),
        only_run: bool,
    ) -> Result<Option<Sight>, BpfError> {
        for _ in 0..INSPECT_TRIES {
            let nonce = next_nonce();
            let arguments = [
                file.inode,
                file.ino,
                u64::from(file.dev) << 32 | u64::from(file.generation),
                from,
                last,
                only_run.into(),
                nonce,
            ];
            if self.run(requests::INSPECT, &arguments)? == GONE {
                return Ok(None);
            }
            // Others may ask at the same time, and their answer lie there: it is ours if it is so twice.
            let (one, two) = (self.read_sight()?, self.read_sight()?);
            if one == two && shared::sight_nonce(&one) == nonce {
                return Ok(shared::parse_sight(&one));
            }
        }
        Err(BpfError::Run {
            program: requests::INSPECT,
            source: std::io::ErrorKind::ResourceBusy.into(),
        })
    }

    fn read_sight(&self) -> Result<Vec<u8>, BpfError> {
        let table = "sights";
        let value = self.sights.lookup(&0_u32.to_ne_bytes(), MapFlags::ANY);
        let value = value.map_err(|source| BpfError::Table { table, source })?;
        Ok(value.unwrap_or_default())
    }

    /// Is every pin known? What the programs ask themselves before they spare a file the walk.
    ///
    /// # Errors
    ///
    /// [`BpfError::Run`].
    pub fn hints_complete(&self) -> Result<bool, BpfError> {
        Ok(self.run(requests::CHECK_HINTS, &[0])? == 1)
    }

    /// Does the kernel call none of the programs that are attached: is `kernel.ftrace_enabled` 0?
    ///
    /// # Errors
    ///
    /// [`BpfError::Run`].
    pub fn is_silent(&self) -> Result<bool, BpfError> {
        Ok(self.run(requests::CHECK_HINTS, &[0])? == HINTS_SILENT)
    }
}

fn write(map: &MapHandle, table: &'static str, key: &[u8], value: &[u8]) -> Result<(), BpfError> {
    map.update(key, value, MapFlags::ANY)
        .map_err(|source| BpfError::Table { table, source })
}

/// Tells answers apart, also those of other processes.
fn next_nonce() -> u64 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    u64::from(std::process::id()) << 32 | u64::from(number)
}

/// All entries of a hash; one that vanishes meanwhile is left out.
pub(crate) fn read_table<T>(
    map: &MapHandle,
    table: &'static str,
    parse: impl Fn(&[u8], &[u8]) -> Option<T>,
) -> Result<Vec<T>, BpfError> {
    let mut entries = Vec::new();
    for key in map.keys() {
        let value = map
            .lookup(&key, MapFlags::ANY)
            .map_err(|source| BpfError::Table { table, source })?;
        entries.extend(value.and_then(|value| parse(&key, &value)));
    }
    Ok(entries)
}

/// `BPF_PROG_TEST_RUN` of a raw tracepoint program with these arguments, or of a syscall program without: what it returned.
pub(crate) fn run(
    program: &impl AsFd,
    name: &'static str,
    arguments: &[u64],
) -> Result<u32, BpfError> {
    let ctx_in = match arguments {
        [] => std::ptr::null(),
        some => some.as_ptr().cast(),
    };
    let mut opts = libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>() as libbpf_sys::size_t,
        ctx_in,
        ctx_size_in: u32::try_from(size_of_val(arguments)).unwrap_or(0),
        ..Default::default()
    };
    // SAFETY: `opts` is initialised and names its own size; `ctx_in` points at `arguments`, which
    // outlives the call and which the kernel only reads.
    let err =
        unsafe { libbpf_sys::bpf_prog_test_run_opts(program.as_fd().as_raw_fd(), &raw mut opts) };
    if err == 0 {
        return Ok(opts.retval);
    }
    Err(BpfError::Run {
        program: name,
        source: std::io::Error::last_os_error(),
    })
}
