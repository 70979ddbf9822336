//! The order of the measurement: the same acts under each state of the guard, twice over.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use longpin_tests::scratch::{FsKind, Scratch};

use crate::bpf::{self, Empty, Place};
use crate::count::{Counter, Counts};
use crate::guard::{self, Guard};
use crate::held::Held;
use crate::memory::Memory;
use crate::options::Asked;
use crate::table::{self, Table, above, bytes, number, percent, progress};
use crate::{hold, hot, perftest, register, start, walk};

/// Regions are no larger: that is the goal that they are measured for.
const LARGEST_REGION: usize = 1 << 30;
/// Held files in the last state.
const MANY: usize = 1000;

/// File systems to measure on.
pub(crate) struct Places {
    pub(crate) tmpfs: PathBuf,
    pub(crate) tmpfs_huge: PathBuf,
    pub(crate) ext4: PathBuf,
    _scratches: Vec<Scratch>,
}

impl Places {
    fn make() -> Result<Self> {
        let kinds = [FsKind::Tmpfs, FsKind::TmpfsHuge, FsKind::Ext4];
        let made: Result<Vec<_>> = kinds
            .into_iter()
            .map(|kind| Scratch::new(kind, if kind.is_memory() { 8 << 30 } else { 128 << 20 }))
            .collect();
        let made = made?;
        let dir = |at: usize| {
            made.get(at)
                .map(|fs: &Scratch| fs.dir().to_owned())
                .unwrap_or_default()
        };
        Ok(Self {
            tmpfs: dir(0),
            tmpfs_huge: dir(1),
            ext4: dir(2),
            _scratches: made,
        })
    }
}

/// What the guard does meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Off,
    Empty,
    On { held: usize },
}

const STATES: [State; 5] = [
    State::Off,
    State::Empty,
    State::On { held: 0 },
    State::On { held: 1 },
    State::On { held: MANY },
];

/// All that was counted in one state.
#[derive(Debug, Default)]
struct Found {
    tmpfs: Vec<Counts>,
    ext4: Vec<Counts>,
    regions: Vec<Counts>,
    memory: Option<Memory>,
}

impl Found {
    fn join(&mut self, other: Self) {
        join(&mut self.tmpfs, other.tmpfs);
        join(&mut self.ext4, other.ext4);
        join(&mut self.regions, other.regions);
        self.memory = self.memory.take().or(other.memory);
    }
}

fn join(all: &mut Vec<Counts>, more: Vec<Counts>) {
    if all.is_empty() {
        *all = more;
        return;
    }
    for (one, other) in all.iter_mut().zip(more) {
        one.join(other);
    }
}

/// Measures what is asked for and prints it.
pub(crate) fn run(asked: &Asked) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "run this as root, in the guest"
    );
    let counter = Counter::calibrate()?;
    if asked.hot || asked.register || asked.memory {
        let places = Places::make()?;
        let attached = attached()?;
        print_places(&attached);
        let bench = Bench {
            asked,
            counter,
            places,
            attached,
        };
        bench.states()?;
    }
    if asked.walk {
        walk::run(asked, counter)?;
    }
    if asked.hold {
        hold::run(asked, counter)?;
    }
    if asked.start {
        start::run(asked, counter)?;
    }
    if asked.perftest {
        perftest::run(asked)?;
    }
    Ok(())
}

/// Where the guard has programs: it is started once, only to be looked at.
fn attached() -> Result<Vec<Place>> {
    let guard = Guard::start()?;
    let places = bpf::places(Path::new(guard::PINNED));
    guard.stop()?;
    places
}

fn print_places(attached: &[Place]) {
    let names: Vec<_> = attached
        .iter()
        .map(|place| format!("`{}`", place.name))
        .collect();
    table::line(&format!(
        "Attached, and twinned by an empty program each: {}.",
        names.join(", ")
    ));
}

struct Bench<'a> {
    asked: &'a Asked,
    counter: Counter,
    places: Places,
    attached: Vec<Place>,
}

impl Bench<'_> {
    fn states(&self) -> Result<()> {
        let largest = self.asked.largest.min(LARGEST_REGION);
        let memory = self
            .asked
            .register
            .then(|| register::Memory::make(&self.places, largest));
        let memory = memory.transpose()?;
        let mut found: Vec<Found> = STATES.iter().map(|_| Found::default()).collect();
        let rounds = self.asked.rounds;
        for round in 1..=rounds {
            progress(&format!("round {round} of {rounds}"));
            for (found, more) in found.iter_mut().zip(self.round(memory.as_ref())?) {
                found.join(more);
            }
        }
        self.print(&found);
        Ok(())
    }

    /// Every state once, in the order of [`STATES`].
    fn round(&self, memory: Option<&register::Memory>) -> Result<Vec<Found>> {
        let mut found = vec![self.count(State::Off, memory)?];
        let empty = Empty::attach(&self.attached)?;
        found.push(self.count(State::Empty, memory)?);
        drop(empty);
        let guard = Guard::start()?;
        let mut held = Held::none();
        for state in &STATES[found.len()..] {
            if let State::On { held: count } = state {
                held.grow(&self.places.tmpfs, *count)?;
            }
            found.push(self.count(*state, memory)?);
        }
        drop(held);
        guard.stop()?;
        Ok(found)
    }

    fn count(&self, state: State, memory: Option<&register::Memory>) -> Result<Found> {
        let mut found = Found::default();
        if let State::On { .. } = state {
            found.memory = Some(Memory::read()?);
        }
        if self.asked.hot {
            found.tmpfs = hot::count(self.counter, &self.places.tmpfs)?;
            found.ext4 = hot::count(self.counter, &self.places.ext4)?;
        }
        let held = matches!(state, State::On { held } if held > 0);
        if let Some(memory) = memory.filter(|_| !held) {
            let largest = self.asked.largest.min(LARGEST_REGION);
            found.regions = memory.count(self.counter, largest)?;
        }
        Ok(found)
    }

    fn print(&self, found: &[Found]) {
        if self.asked.hot {
            print_hot("tmpfs", found, |found| &found.tmpfs);
            print_hot("ext4", found, |found| &found.ext4);
        }
        if self.asked.register {
            print_regions(found, self.asked.largest.min(LARGEST_REGION));
        }
        if self.asked.memory {
            print_memory(found);
        }
    }
}

fn print_hot(name: &str, found: &[Found], part: impl Fn(&Found) -> &Vec<Counts>) {
    let mut table = Table::new([
        &format!("{name}, instructions"),
        "no guard",
        "empty programs",
        "nothing held",
        "1 held",
        "1,000 held",
        "over empty",
        "spread",
    ]);
    for (at, act) in hot::ACTS.iter().enumerate() {
        let counts: Vec<_> = found
            .iter()
            .filter_map(|found| part(found).get(at))
            .collect();
        let typical: Vec<_> = counts.iter().map(|counts| counts.typical()).collect();
        let [off, empty, on @ ..] = typical.as_slice() else {
            continue;
        };
        let mut row = vec![(*act).to_owned(), number(*off), above(*empty, *off)];
        row.extend(on.iter().map(|on| above(*on, *off)));
        let worst = on.iter().copied().max().unwrap_or(0);
        row.push(above(worst, *empty));
        row.push(number(
            counts
                .iter()
                .map(|counts| counts.spread())
                .max()
                .unwrap_or(0),
        ));
        table.row(row);
    }
    table::line("");
    table.print();
}

fn print_regions(found: &[Found], largest: usize) {
    let sizes = register::sizes(largest).into_iter();
    let rows = register::KINDS
        .iter()
        .flat_map(|kind| sizes.clone().map(move |(size, _)| (kind, size)));
    let mut table = Table::new([
        "register and deregister",
        "size",
        "no guard",
        "empty programs",
        "guard",
        "guard, %",
        "a page",
        "spread",
    ]);
    for (at, (kind, size)) in rows.enumerate() {
        let counts: Vec<_> = found
            .iter()
            .filter_map(|found| found.regions.get(at))
            .collect();
        let typical: Vec<_> = counts.iter().map(|counts| counts.typical()).collect();
        let [off, empty, on, ..] = typical.as_slice() else {
            continue;
        };
        let more = on.saturating_sub(*off);
        table.row(vec![
            (*kind).to_owned(),
            bytes(size as u64),
            number(*off),
            above(*empty, *off),
            above(*on, *off),
            percent(more, *off),
            number(more / (size as u64 / 4096)),
            number(
                counts
                    .iter()
                    .map(|counts| counts.spread())
                    .max()
                    .unwrap_or(0),
            ),
        ]);
    }
    table::line("");
    table.print();
}

fn print_memory(found: &[Found]) {
    let [_, _, nothing, _, many] = found else {
        return;
    };
    let (Some(nothing), Some(many)) = (&nothing.memory, &many.memory) else {
        return;
    };
    let mut table = Table::new([
        "kernel memory, bytes",
        "nothing held",
        "1,000 held",
        "a held file",
    ]);
    let per_file = |before: u64, after: u64| number(after.saturating_sub(before) / MANY as u64);
    for ((name, before), (_, after)) in nothing.maps.iter().zip(&many.maps) {
        table.row(vec![
            format!("map `{name}`"),
            number(*before),
            number(*after),
            per_file(*before, *after),
        ]);
    }
    let programs = (nothing.of_programs(), many.of_programs());
    let count = format!("{} programs", nothing.programs.len());
    table.row(vec![
        count,
        number(programs.0),
        number(programs.1),
        per_file(programs.0, programs.1),
    ]);
    let all = (programs.0 + nothing.of_maps(), programs.1 + many.of_maps());
    table.row(vec![
        "all".to_owned(),
        number(all.0),
        number(all.1),
        per_file(all.0, all.1),
    ]);
    table::line("");
    table.print();
}
