//! C09 under other people's short pins.

use std::os::unix::fs::{PermissionsExt, chown};

use anyhow::{Context, Result, ensure};
use longpin_tests::act::{ftruncate, punch};
use longpin_tests::scratch::FsKind;

use super::actor::Actor;
use super::{KernelLog, PAGE, rounds};
use crate::files::TestFile;
use crate::guard;
use crate::pin::{must_allow_soon, must_refuse, pin};

const READER: u32 = 1000;
const PAGES: u64 = 16;

/// A user who may only read the file pins its pages for a moment, thousands of times, while the guard starts
/// and while it runs. No truncate between gets through, and at the end the hold covers what it covered.
///
/// Fails when the end of any pin ends the hold (a file that leaves the table at `unpin_user_page`), when a pin
/// is judged by the last caller (the reader's verdict clears `FILE_HELD`), and when a sweep gives the file of
/// a pin older than the guard to nobody.
pub(super) fn c09_foreign_flood() -> Result<()> {
    guard::off()?;
    let log = KernelLog::mark()?;
    let f = TestFile::new(FsKind::Tmpfs, 4 * PAGES * PAGE)?;
    let sink = TestFile::new(FsKind::Ext4, 4 * PAGES * PAGE)?;
    chown(&sink.path, Some(READER), Some(READER))?;
    std::fs::set_permissions(&f.path, std::fs::Permissions::from_mode(0o644))?;
    let mut pinned = pin(&f, PAGES * PAGE, 65_536)?;
    let times = rounds(500, 100_000);
    let (file, sink_path) = (f.path.display(), sink.path.display());
    let held = format!("{} {}", PAGES * PAGE, 2 * PAGES * PAGE);
    let order = format!("flood {file} {sink_path} {times} {held}");
    let mut readers = [Actor::start(READER)?, Actor::start(READER)?];
    for reader in &mut readers {
        reader.tell(&order)?;
    }
    guard::on()?;
    std::fs::write(format!("{}.sign", sink.path.display()), "")?;
    let mut tries = 0_u32;
    for reader in &mut readers {
        tries += try_until_done(&f, reader)?;
    }
    ensure!(tries > 10, "only {tries} tries while the readers read");
    let device = pinned.read_as_device()?.context("no device")?;
    f.check(PAGES, &device)?;
    is_exact(&f)?;
    drop(pinned);
    must_allow_soon("truncate", || ftruncate(&f.file, 0))?;
    for reader in readers {
        reader.dismiss()?;
    }
    log.must_be_clean()
}

/// Truncates and punches while this reader floods; how many.
fn try_until_done(f: &TestFile, reader: &mut Actor) -> Result<u32> {
    let (done, wait) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let answer = scope.spawn(|| {
            let answer = reader.answer();
            let _ = done.send(());
            answer
        });
        let mut tries = 0;
        let tried = loop {
            let tried = must_refuse("truncate", ftruncate(&f.file, 0))
                .and_then(|()| must_refuse("punch", punch(&f.file, 17 * PAGE, PAGE)));
            tries += 1;
            if tried.is_err() || wait.try_recv().is_ok() {
                break tried;
            }
        };
        let said = answer
            .join()
            .map_err(|_| anyhow::anyhow!("a thread panicked"))?;
        // A reader of a file that was cut fails, too.
        tried.with_context(|| format!("try {tries}"))?;
        let said = said?;
        println!("{tries} tries, the reader's short pins and direct writes: {said}");
        Ok(tries)
    })
}

/// The held range to the page, now that nobody else pins.
fn is_exact(f: &TestFile) -> Result<()> {
    let last = 2 * PAGES - 1;
    must_refuse("the last page", punch(&f.file, last * PAGE, PAGE))?;
    must_refuse("the first page", punch(&f.file, PAGES * PAGE, PAGE))?;
    must_allow_soon("before it", || punch(&f.file, (PAGES - 1) * PAGE, PAGE))?;
    must_allow_soon("behind it", || punch(&f.file, 2 * PAGES * PAGE, PAGE))?;
    must_refuse("into it", ftruncate(&f.file, last * PAGE))?;
    must_allow_soon("up to it", || ftruncate(&f.file, 2 * PAGES * PAGE))?;
    let holds = guard::holds_on(&f.path)?;
    ensure!(
        holds.len() == 1 && holds[0]["start"] == PAGES * PAGE && holds[0]["pages"] == PAGES,
        "holds: {holds:?}"
    );
    Ok(())
}
