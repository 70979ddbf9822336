//! Holds beside holds: what the end of one leaves to the others.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use longpin_bpf::explicit::{Entered, HoldRequest};
use longpin_bpf::pinned::Pinned;
use longpin_bpf::shared::{Level, Row};
use longpin_tests::PATIENCE;
use longpin_tests::act::{Outcome, truncate};
use longpin_tests::pattern::Pattern;
use longpin_tests::scratch::{FsKind, Scratch, write_pattern};
use rustix::fs::MemfdFlags;
use rustix::io::Errno;

use crate::blocks::status;
use crate::files::TestFile;
use crate::hold::Holder;
use crate::pin::{must_allow, must_refuse, pin};
use crate::{Test, guard};

pub(crate) const TESTS: &[Test] = &[
    ("c12_token_again", token_again),
    ("c12_refused_beside", refused_beside),
    ("backend_beside_bpf", both_backends),
    ("c12_guard_takes_over", taken_over),
    ("c12_takeover_killed", takeover_killed),
];

const LEN: u64 = 4096;

fn open_guard() -> Result<Pinned> {
    Ok(Pinned::open(Path::new("/sys/fs/bpf/longpin"))?)
}

/// Enters a hold with this token, and judges it.
fn enter(pinned: &Pinned, file: &TestFile, token: u64, persists: bool) -> Result<Row> {
    let request = HoldRequest {
        file: pinned.identify(&file.file)?.context("no inode")?,
        level: Level::Layout,
        range: (0, 0),
        token,
        persists,
    };
    ensure!(pinned.enter_hold(&request)? == Entered::Done, "not entered");
    ensure!(pinned.publish(&request)?, "not published");
    let is_it = |row: &Row| row.explicit.is_some() && row.file == request.file;
    pinned.rows()?.into_iter().find(is_it).context("no row")
}

/// A hold that is refused takes back its own, and not one that persists, whose token was at the same address.
fn refused_beside() -> Result<()> {
    guard::on()?;
    let file = TestFile::new(FsKind::Ext4, 1 << 16)?;
    let unfit = file.path.with_extension("unfit");
    fs::File::create(&unfit)?.set_len(1 << 16)?;
    let persist =
        |path: &Path| status(&["hold", "--persist", &path.to_string_lossy(), "--", "true"]);
    ensure!(persist(&file.path)?.0 == 0, "not held");
    for i in 0..16 {
        let (code, words) = persist(&unfit)?;
        ensure!(code == 1 && words.contains("hole"), "{code}: {words}");
        let holds = guard::holds_on(&file.path)?;
        ensure!(
            holds.len() == 1,
            "after {i} refusals it is held by {holds:?}"
        );
    }
    let id = guard::holds_on(&file.path)?[0]["id"].to_string();
    guard::must(&["release", &id])?;
    file.check_all()
}

/// A hold that persists outlives its token, whose address the kernel may give to another one's. Its release must leave
/// that one alone, or the other hold does not end with its holder.
///
/// Fails when `drop_token` does not look whose token it is.
fn token_again() -> Result<()> {
    guard::on()?;
    let (one, other) = (
        TestFile::new(FsKind::Tmpfs, LEN)?,
        TestFile::new(FsKind::Tmpfs, LEN)?,
    );
    let pinned = open_guard()?;
    let count = || pinned.state().tokens.load(Ordering::Acquire);
    let before = count();
    let token = TestFile::memfd(MemfdFlags::empty(), LEN)?;
    let address = pinned.identify(&token.file)?.context("no inode")?.inode;
    let lasting = enter(&pinned, &one, address, true)?;
    ensure!(count() == before + 1, "no token");
    drop(token);
    let begin = Instant::now();
    while count() != before {
        ensure!(begin.elapsed() < PATIENCE, "the token did not end");
        std::thread::sleep(Duration::from_millis(10));
    }
    // What the kernel does some day: another token is there.
    let next = enter(&pinned, &other, address, false)?;
    let released = pinned.take_back(&lasting)?;
    let left = count();
    let ended = pinned.take_back(&next)?;
    guard::must(&["ls"])?;
    ensure!(released && ended, "not released");
    ensure!(left == before + 1, "the other's token went: {left}");
    ensure!(count() == before, "its own stayed");
    Ok(())
}

/// Backends on one file: layout shares, level swapfile excludes, whichever is first, and each end is its own.
fn both_backends() -> Result<()> {
    let scratch = Scratch::full(FsKind::Ext4, 64 << 20)?;
    let path = scratch.dir().join("file");
    let file = path.to_string_lossy();
    guard::must(&["prepare", "--size", "2M", &file])?;
    write_pattern(&path, 2 << 20, Pattern::new(7))?;
    let before = fs::read(&path)?;
    let by_header = |cmd: &str| {
        let own = ["hold", "--backend", "swap-header", "--overwrite-head", "-n"];
        status(&[&own[..], &[&file, "--", "sh", "-c", cmd]].concat())
    };
    for (level, shares) in [("layout", true), ("swapfile", false)] {
        guard::must(&["hold", "-l", level, "--persist", &file])?;
        let (code, words) = by_header("exit 7")?;
        ensure!(
            code == if shares { 7 } else { 1 },
            "{level}: {code}: {words}"
        );
        expect(level, truncate(&path, 0))?;
        release_all(&path)?;
        ensure!(fs::read(&path)? == before, "{level}: other bytes");
    }
    let inner =
        format!("longpin hold -n -l layout '{file}' -- true; longpin hold -n '{file}' -- true");
    let (_, words) = by_header(&format!("{inner}; exit 7"))?;
    // Not the hint that would end the other hold.
    let refused = words.matches("active-swap").count();
    ensure!(refused == 2 && !words.contains("swapoff"), "{words}");
    ensure!(fs::read(&path)? == before, "other bytes");
    scratch.close()
}

fn expect(what: &str, outcome: Outcome) -> Result<()> {
    ensure!(outcome == Err(Errno::TXTBSY), "{what}: {outcome:?}");
    Ok(())
}

fn release_all(path: &Path) -> Result<()> {
    for row in guard::holds_on(path)? {
        guard::must(&["release", &row["id"].to_string()])?;
    }
    Ok(())
}

/// Tries to shorten a file all the time. `ended`: how often that went through, of how many.
struct Attacker {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u64, u64)>,
}

impl Attacker {
    fn on(path: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (path, seen) = (path.to_owned(), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let (mut through, mut tries) = (0, 0);
            while !seen.load(Ordering::Relaxed) {
                through += u64::from(truncate(&path, 4096).is_ok());
                tries += 1;
                // The one processor of a guest is to do something else, too.
                std::thread::sleep(Duration::from_micros(500));
            }
            (through, tries)
        });
        Self { stop, thread }
    }

    fn must_have_failed(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let (through, tries) = self.thread.join().ok().context("the attacker panicked")?;
        ensure!(
            tries > 0 && through == 0,
            "{through} of {tries} went through"
        );
        println!("{tries} truncates, none went through");
        Ok(())
    }
}

/// Explicit holds without a guard: of level swapfile, of level layout, and one that persists.
fn hold_three(files: &[TestFile; 3]) -> Result<[Holder; 2]> {
    let [strict, layout, persisting] = files;
    let name = persisting.path.to_string_lossy();
    let (code, words) = status(&["hold", "--persist", &name, "--", "true"])?;
    ensure!(code == 0, "{words}");
    Ok([
        Holder::start(&[], &strict.path)?,
        Holder::start(&["--level", "layout"], &layout.path)?,
    ])
}

fn three_files() -> Result<[TestFile; 3]> {
    Ok([
        TestFile::new(FsKind::Ext4, 1 << 16)?,
        TestFile::new(FsKind::Xfs, 1 << 16)?,
        TestFile::new(FsKind::Tmpfs, 1 << 16)?,
    ])
}

fn must_hold(files: &[TestFile; 3]) -> Result<()> {
    for file in files {
        must_refuse("truncate", truncate(&file.path, 4096))?;
        let rows = guard::holds_on(&file.path)?;
        ensure!(rows.len() == 1 && rows[0]["kind"] == "explicit", "{rows:?}");
    }
    Ok(())
}

/// Each ends by what ended it without a guard.
fn end_three(files: &[TestFile; 3], holders: [Holder; 2]) -> Result<()> {
    for holder in holders {
        ensure!(holder.end()? == 7);
    }
    let id = guard::holds_on(&files[2].path)?[0]["id"].to_string();
    guard::must(&["release", &id])?;
    for file in files {
        ensure!(guard::holds_on(&file.path)?.is_empty());
        file.check_all()?;
        must_allow("truncate", truncate(&file.path, 4096))?;
    }
    Ok(())
}

/// C12: a guard that starts takes over the explicit holds that stand without one; nobody gets past meanwhile.
fn taken_over() -> Result<()> {
    guard::off()?;
    let files = three_files()?;
    let holders = hold_three(&files)?;
    must_hold(&files)?;
    let (code, words) = status(&["guard", "start", "--audit"])?;
    ensure!(
        code == 1 && words.contains("only records"),
        "{code}: {words}"
    );
    let other = TestFile::new(FsKind::Ext4, 1 << 16)?;
    let denied = TestFile::new(FsKind::Ext4, 1 << 16)?;
    guard::must(&["deny", &denied.path.to_string_lossy()])?;
    let attackers = [Attacker::on(&files[0].path), Attacker::on(&files[2].path)];
    let said = guard::must(&["guard", "start"])?;
    ensure!(said.contains("3 explicit holds stood"), "{said}");
    let pinned = pin(&other, 0, 4096)?;
    must_hold(&files)?;
    must_be_told_apart(&files)?;
    drop(pinned);
    must_refuse("a write", write(&files[0]))?;
    let why = guard::must(&["why", "--json", &denied.path.to_string_lossy()])?;
    ensure!(
        why.contains(r#""deny""#),
        "the denied file is forgotten: {why}"
    );
    for attacker in attackers {
        attacker.must_have_failed()?;
    }
    end_three(&files, holders)?;
    ensure!(guard::status()?["running"] == true);
    Ok(())
}

/// Rows of the guard's own proof, and of pins since, have other numbers than the holds that it took over.
fn must_be_told_apart(files: &[TestFile; 3]) -> Result<()> {
    let all = guard::all_holds()?;
    let ids: BTreeSet<_> = all.iter().map(|row| row["id"].to_string()).collect();
    ensure!(all.len() == 4 && ids.len() == 4, "{all:?}");
    for file in files {
        let events = guard::events_on(&file.path)?;
        let ended = events.iter().any(|event| event["event"] == "ended");
        ensure!(!ended, "a hold that stands is told as ended: {events:?}");
    }
    Ok(())
}

fn write(file: &TestFile) -> Outcome {
    let writer = fs::File::options().write(true).open(&file.path);
    let written = writer.and_then(|writer| writer.write_all_at(b"x", 0));
    written.map_err(|err| Errno::from_io_error(&err).unwrap_or(Errno::IO))
}

/// The same, killed at any moment: the holds stand, and the next start takes them over.
fn takeover_killed() -> Result<()> {
    guard::off()?;
    let files = three_files()?;
    let holders = hold_three(&files)?;
    let attacker = Attacker::on(&files[0].path);
    let mut begin = Duration::from_millis(400);
    for _ in 0..4 {
        let mut start = Command::new("longpin").args(["guard", "start"]).spawn()?;
        std::thread::sleep(begin);
        start.kill()?;
        start.wait()?;
        must_hold(&files)?;
        begin *= 2;
    }
    guard::longpin(&["guard", "start"])?;
    must_hold(&files)?;
    attacker.must_have_failed()?;
    end_three(&files, holders)
}
