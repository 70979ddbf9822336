//! A guard that is pinned in bpffs: its state, its tables, and the programs that look.
#![allow(
    unsafe_code,
    reason = "BPF_PROG_TEST_RUN of a pinned program, and an ioctl, have no safe wrappers"
)]

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use bytemuck::Zeroable;
use libbpf_rs::{Program, libbpf_sys};

use crate::event::{Event, MAX_EVENTS};
use crate::hooks::{HOOKS, Hook, REGIONS, requests};
use crate::rule::{self, Rule, RuleAction};
use crate::shared::{FileId, Row, Sight, Suspect};
use crate::table::{Table, open_map};
use crate::types::{self, constant, file_identity, hints, row_key, rules_word};
use crate::{BpfError, Mode, StateView};

/// How often a look is repeated when others look at the same time.
const INSPECT_TRIES: u32 = 1000;
const IDENTIFY: libc::Ioctl = constant::IDENTIFY.0 as libc::Ioctl;
/// Returned by `inspect` when the inode is gone: `-ENOENT`.
const GONE: u32 = libc::ENOENT.unsigned_abs().wrapping_neg();

/// A pinned guard, open.
#[derive(Debug)]
pub struct Pinned {
    state: StateView,
    files: Table<u64, types::suspect>,
    pub(crate) rows: Table<row_key, types::row>,
    sights: Table<u32, types::sight>,
    events: Table<u32, types::event>,
    identified: Table<u32, types::suspect>,
    rules: Table<u32, types::rule>,
    pub(crate) file_rules: Table<file_identity, u32>,
    pub(crate) strays: Table<u64, types::stray>,
    /// Those that are run on request, by name. Those about pins are not there where only explicit holds are.
    programs: HashMap<&'static str, OwnedFd>,
    pub(crate) answers: Table<u32, types::answer>,
    pub(crate) openings: Table<u64, u32>,
    pub(crate) explicit_holds: Table<file_identity, types::explicit_hold>,
    pub(crate) tokens: Table<u64, row_key>,
    /// Reading it runs `list_regions`; not there where the kernel has no such regions.
    pub(crate) regions: PathBuf,
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
    Ok(Some(StateView::map(&open_map(dir, "state")?)?.mode()))
}

impl Pinned {
    /// Open what [`crate::load::Attached::pin`] left in `dir`.
    ///
    /// # Errors
    ///
    /// [`BpfError::Abi`] when it is of another layout (told before anything else is opened),
    /// [`BpfError::Pin`] when a part is missing.
    pub fn open(dir: &Path) -> Result<Self, BpfError> {
        let state = StateView::map(&open_map(dir, "state")?)?;
        let watches_pins = state.holds_only.load(Ordering::Acquire) == 0;
        Ok(Self {
            programs: open_programs(dir, watches_pins)?,
            state,
            files: Table::open(dir, "files")?,
            rows: Table::open(dir, "rows")?,
            sights: Table::open(dir, "sights")?,
            events: Table::open(dir, "events")?,
            identified: Table::open(dir, "identified")?,
            rules: Table::open(dir, "rules")?,
            file_rules: Table::open(dir, "file_rules")?,
            strays: Table::open(dir, "strays")?,
            answers: Table::open(dir, "answers")?,
            openings: Table::open(dir, "openings")?,
            explicit_holds: Table::open(dir, "explicit_holds")?,
            tokens: Table::open(dir, "tokens")?,
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
        self.files.all(|inode, value| Suspect::of(*inode, value))
    }

    /// The rows, in no order.
    ///
    /// # Errors
    ///
    /// [`BpfError::Table`].
    pub fn rows(&self) -> Result<Vec<Row>, BpfError> {
        let all = self.rows.all(Row::of)?;
        Ok(all.into_iter().flatten().collect())
    }

    /// The event of this number; `None` when it has been written over, or is being written.
    ///
    /// # Errors
    ///
    /// [`BpfError::Table`].
    pub fn event(&self, number: u64) -> Result<Option<Event>, BpfError> {
        let slot = u32::try_from(number % MAX_EVENTS).unwrap_or_default();
        let value = self.events.get(&slot)?;
        Ok(value.and_then(|value| Event::of(&value, number)))
    }

    /// Which inode a descriptor stands for, as the kernel sees it: right on btrfs, where `st_dev` is not the
    /// super block's, and on overlayfs, where the page cache is another inode's. `None` when the guard's
    /// program on `ioctl` did not see the question.
    ///
    /// # Errors
    ///
    /// [`BpfError::Run`] or [`BpfError::Table`].
    pub fn identify(&self, fd: impl AsFd) -> Result<Option<FileId>, BpfError> {
        self.learn_beside_inodes();
        self.identified.set(&0, &Zeroable::zeroed())?;
        self.run(requests::INTRODUCE, &[0])?;
        // SAFETY: the command carries no argument and no file system knows it; the answer (ENOTTY) says
        // nothing, what the program saw does.
        let _ = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), IDENTIFY, 0) };
        // The inode's address stands in `row`.
        let found = self.identified.get(&0)?;
        let found = found.map(|found| FileId::of(found.row, &found.file));
        Ok(found.filter(|file| file.inode != 0))
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
            self.rules.set(&slot, &rule::encode(rule))?;
        }
        let word = rule::word(rules, bank, old);
        self.state.rules.store(word, Ordering::Release);
        Ok(())
    }

    /// Say of one file that long-term pins are denied, or allowed; `None` takes that back.
    ///
    /// # Errors
    ///
    /// [`BpfError::Table`].
    pub fn set_file_rule(&self, file: &FileId, action: Option<RuleAction>) -> Result<(), BpfError> {
        let Some(action) = action else {
            return self.file_rules.remove(&file.key()).map(drop);
        };
        self.file_rules.set(&file.key(), &(action as u32))?;
        let word = &self.state.rules;
        word.fetch_or(rules_word::RULES_FILES.0, Ordering::AcqRel);
        Ok(())
    }

    /// Files of which one is said that long-term pins are denied (true) or allowed (false).
    ///
    /// # Errors
    ///
    /// [`BpfError::Table`].
    pub fn file_rules(&self) -> Result<Vec<(FileId, bool)>, BpfError> {
        let denies = |action: &u32| *action == RuleAction::Deny as u32;
        self.file_rules
            .all(|file, action| (FileId::of(0, file), denies(action)))
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
            let (one, two) = (self.sights.get(&0)?, self.sights.get(&0)?);
            let [one, two] = [one, two].map(|it| it.unwrap_or_else(Zeroable::zeroed));
            if one.nonce == nonce && bytemuck::bytes_of(&one) == bytemuck::bytes_of(&two) {
                return Ok(Some(Sight::of(&one)));
            }
        }
        Err(BpfError::Run {
            program: requests::INSPECT,
            source: std::io::ErrorKind::ResourceBusy.into(),
        })
    }

    /// Is every pin known? What the programs ask themselves before they spare a file the walk.
    ///
    /// # Errors
    ///
    /// [`BpfError::Run`].
    pub fn hints_complete(&self) -> Result<bool, BpfError> {
        Ok(self.run(requests::CHECK_HINTS, &[0])? == hints::HINTS_COMPLETE.0)
    }

    /// Does the kernel call none of the programs that are attached: is `kernel.ftrace_enabled` 0?
    ///
    /// # Errors
    ///
    /// [`BpfError::Run`].
    pub fn is_silent(&self) -> Result<bool, BpfError> {
        Ok(self.run(requests::CHECK_HINTS, &[0])? == hints::HINTS_SILENT.0)
    }
}

/// Tells answers apart, also those of other processes.
fn next_nonce() -> u64 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    u64::from(std::process::id()) << 32 | u64::from(number)
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
