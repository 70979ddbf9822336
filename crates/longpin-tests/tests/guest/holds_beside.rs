//! Holds beside holds: what the end of one leaves to the others.

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;
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
use crate::{Test, guard};

pub(crate) const TESTS: &[Test] = &[
    ("c12_token_again", token_again),
    ("c12_refused_beside", refused_beside),
    ("backend_beside_bpf", both_backends),
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
