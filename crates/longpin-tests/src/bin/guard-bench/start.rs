//! What it costs to start: the guard by stage and by program, the sweep by page frame, and the commands as wholes.

use std::fs::File;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use longpin::guard::{self, Force, Host, Running, StartOptions};
use longpin::hold::Hold;
use longpin_bpf::facts::Facts;
use longpin_bpf::load::Purpose;
use longpin_bpf::measure::{self, Verified};
use longpin_bpf::shared::MAX_FILES;
use longpin_tests::scratch::{FsKind, Scratch};
use rustix::fs::{FallocateFlags, fallocate};

use crate::commands::{command, words};
use crate::count::{self, Counter};
use crate::options::Asked;
use crate::table::{self, Table, number, percent, progress};

/// The stages that ended since they were last asked for, and when.
static STAGES: Mutex<Vec<(String, u64)>> = Mutex::new(Vec::new());
/// Stages, or programs, and what each took.
type Spans = Vec<(String, u64)>;
/// What a person does: a hold without a guard, a guard, a hold with it.
const COMMANDS: [&str; 8] = [
    "hold FILE -- true",
    "hold --level layout FILE -- true",
    "guard start",
    "hold FILE -- true",
    "guard status",
    "ls",
    "guard sweep",
    "guard stop",
];
/// The kernel takes programs apart after the command that lets go of them has ended; until then that is counted with
/// whatever comes next. While nothing else runs the machine's time passes in no time.
const SETTLING: Duration = Duration::from_secs(2);
/// The lent file.
const LEN: u64 = 4 << 20;

pub(crate) fn run(asked: &Asked, counter: Counter) -> Result<()> {
    measure::listen(note);
    let scratch = Scratch::new(FsKind::Ext4, 64 << 20)?;
    let file = lendable(scratch.dir())?;
    let host = Host::default();
    let commands = commands(asked, counter, Path::new(&file))?;
    progress("stages");
    let mut swept = None;
    let started = least(asked.rounds, || {
        let spans = stages(|| {
            let _ = guard::start(&host, StartOptions::default(), &mut |_, _| ())?;
            Ok(())
        })?;
        if swept.is_none() {
            swept = Some(sweep(counter, &host)?);
        }
        guard::stop(&host, Force::Yes)?;
        Ok(spans)
    })?;
    let held = least(asked.rounds, || {
        let mut hold = None;
        let spans = stages(|| {
            hold = Some(Hold::on(Path::new(&file)).acquire(&host)?);
            Ok(())
        })?;
        hold.context("no hold")?.release()?;
        Ok(spans)
    })?;
    progress("programs");
    let programs = programs(&[started.as_slice(), &held].concat())?;
    for table in [commands, by_stage("guard start", &started)] {
        print(&table);
    }
    print(&by_stage("a hold without a guard", &held));
    print(&swept.context("no sweep")?);
    print(&programs);
    Ok(())
}

#[allow(clippy::unnecessary_wraps, reason = "what prepares an act may fail")]
fn settled() -> Result<()> {
    std::thread::sleep(SETTLING);
    Ok(())
}

fn print(table: &Table) {
    table::line("");
    table.print();
}

fn note(stage: &str) {
    let now = count::now();
    if let Ok(mut stages) = STAGES.lock() {
        stages.push((stage.to_owned(), now));
    }
}

/// A file that can be held for its blocks.
fn lendable(dir: &Path) -> Result<String> {
    let path = dir.join("lent");
    fallocate(&File::create_new(&path)?, FallocateFlags::empty(), 0, LEN)?;
    command(&words(&["longpin", "prepare"], &path))?;
    Ok(path.to_string_lossy().into_owned())
}

/// The commands as a person calls them, the program's own start included.
fn commands(asked: &Asked, counter: Counter, file: &Path) -> Result<Table> {
    let longpin = |line: &str| -> Vec<String> {
        let line = line.replace("FILE", &file.to_string_lossy());
        let line = format!("longpin {line}");
        line.split(' ').map(str::to_owned).collect()
    };
    let mut least = vec![u64::MAX; COMMANDS.len()];
    for _ in 0..asked.rounds {
        for (line, least) in COMMANDS.iter().zip(&mut least) {
            progress(line);
            let words = longpin(line);
            let counts = counter.each(1, settled, || command(&words))?;
            *least = counts.typical().min(*least);
        }
    }
    let mut table = Table::new(["command, in this order", "instructions"]);
    for (line, least) in COMMANDS.iter().zip(least) {
        table.row(vec![format!("`longpin {line}`"), number(least)]);
    }
    Ok(table)
}

/// Each stage of an act, in instructions; what follows the last one is the rest.
fn stages(act: impl FnOnce() -> Result<()>) -> Result<Spans> {
    let take = || STAGES.lock().map(|mut stages| std::mem::take(&mut *stages));
    let _ = take();
    settled()?;
    let mut last = count::now();
    act()?;
    let mut ended = take().unwrap_or_default();
    ended.push(("the rest".to_owned(), count::now()));
    let spans = ended.into_iter().map(|(stage, end)| {
        let span = end.saturating_sub(last);
        last = end;
        (stage, span)
    });
    Ok(spans.collect())
}

/// Of each stage the least of all rounds: in the others it waited for the host.
fn least(rounds: usize, mut round: impl FnMut() -> Result<Spans>) -> Result<Spans> {
    let mut least = round()?;
    for _ in 1..rounds {
        let spans = round()?;
        let same = |(one, other): (&(String, u64), &(String, u64))| one.0 == other.0;
        ensure!(
            least.len() == spans.len() && least.iter().zip(&spans).all(same),
            "other stages than before"
        );
        for (least, span) in least.iter_mut().zip(spans) {
            least.1 = least.1.min(span.1);
        }
    }
    Ok(least)
}

/// Programs are attached one by one; what that took is part of the stage that they end in.
fn by_stage(act: &str, spans: &Spans) -> Table {
    let all = spans.iter().map(|(_, span)| span).sum();
    let mut table = Table::new([act, "instructions", "share"]);
    let mut parts = 0;
    for (stage, span) in spans {
        parts += span;
        if measure::program_of(stage).is_none() {
            let whole = std::mem::take(&mut parts);
            table.row(vec![stage.clone(), number(whole), percent(whole, all)]);
        }
    }
    table.row(vec!["all".to_owned(), number(all), percent(all, all)]);
    table
}

fn sweep(counter: Counter, host: &Host) -> Result<Table> {
    progress("sweep");
    let running = Running::open(host)?;
    let mut frames = 0;
    let counts = counter.each(
        2,
        || Ok(()),
        || {
            let swept = guard::sweep(&running, &mut |_, _| ())?;
            ensure!(swept.complete, "the sweep is not complete: {swept:?}");
            frames = swept.frames;
            Ok(())
        },
    )?;
    let all = counts.typical();
    let present = present_frames()?;
    let tenths = all * 10 / present.max(1);
    let mut table = Table::new([
        "sweep",
        "page frames",
        "of them memory",
        "instructions",
        "a page of memory",
    ]);
    let each = format!("{}.{}", tenths / 10, tenths % 10);
    let row = [number(frames), number(present), number(all), each];
    table.row([vec!["the whole machine".to_owned()], row.to_vec()].concat());
    Ok(table)
}

/// `/proc/zoneinfo`: pages that there are.
fn present_frames() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/zoneinfo")?;
    let present = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some("present")).then(|| words.next()?.parse::<u64>().ok())?
    });
    Ok(present.sum())
}

/// What the verifier needs for each program, of the guard and of holds alone.
fn programs(spans: &[(String, u64)]) -> Result<Table> {
    let attaching = |program: &str| {
        let found = spans
            .iter()
            .find(|it| measure::program_of(&it.0) == Some(program));
        found.map_or(0, |(_, span)| *span / 1000)
    };
    let facts = Facts::probe()?;
    let max_files = MAX_FILES;
    let purpose = Purpose::Guard {
        max_files,
        last_row: 0,
        walk_budget: None,
    };
    let guard = measure::load_each(&facts, purpose)?;
    let holds = measure::load_each(&facts, Purpose::Holds)?;
    let mut table = Table::new([
        "program",
        "verifier's steps",
        "thousand instructions",
        "for holds",
        "attaching",
    ]);
    let mut sum = [0, 0, 0, 0];
    for Verified {
        name,
        micros,
        steps,
    } in &guard
    {
        let alone = holds.iter().find(|other| other.name == *name);
        let alone_micros = alone.map(|other| other.micros);
        sum[0] += steps;
        sum[1] += micros;
        sum[2] += alone_micros.unwrap_or(0);
        let last = alone_micros.map_or_else(|| "not loaded".to_owned(), number);
        let attached = attaching(name);
        sum[3] += attached;
        table.row(vec![
            format!("`{name}`"),
            number(*steps),
            number(*micros),
            last,
            number(attached),
        ]);
    }
    let all = sum.map(number).to_vec();
    table.row([vec![format!("{} programs", guard.len())], all].concat());
    Ok(table)
}
