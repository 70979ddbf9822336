//! C13: holds that are asked for while others are in the middle of changing the file.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use longpin_tests::PAGE;
use longpin_tests::act::{Outcome, ftruncate, outcome_name, punch};
use longpin_tests::pattern::Pattern;
use longpin_tests::scratch::FsKind;
use rustix::io::Errno;

use crate::files::TestFile;
use crate::{Test, guard};

pub(crate) const TESTS: &[Test] = &[
    ("c13_hold_race_ext4", || race(FsKind::Ext4)),
    ("c13_hold_race_xfs", || race(FsKind::Xfs)),
];

const LEN: u64 = 4 << 20;
const PIECE: usize = 1 << 20;
/// Holds asked for beside writers, and as many beside one who cuts and punches besides.
const ROUNDS: usize = 3;

/// What CMD does: look twice, with time between in which a late operation would land.
const LOOK: &str = r#"
look() { sha256sum <"$1"; longpin extents -n "$1"; stat -c %s "$1"; }
look "$1" >"$2.first"; sleep 0.3; look "$1" >"$2.second"
cmp "$2.first" "$2.second"
"#;

/// What became of the operations.
#[derive(Default)]
struct Counts {
    stop: AtomicBool,
    /// The file may be made unfit.
    may_break: AtomicBool,
    done: AtomicU64,
    refused: AtomicU64,
}

impl Counts {
    fn count(&self, outcome: Outcome) -> Result<bool> {
        match outcome {
            Ok(()) => self.done.fetch_add(1, Ordering::Relaxed),
            Err(Errno::TXTBSY) => self.refused.fetch_add(1, Ordering::Relaxed),
            // The kernel's own, between direct and other writes.
            Err(Errno::AGAIN | Errno::INTR | Errno::BUSY) => 0,
            other => bail!("answered {}", outcome_name(other)),
        };
        std::thread::sleep(Duration::from_millis(5));
        Ok(outcome.is_ok())
    }

    fn ended(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

fn race(kind: FsKind) -> Result<()> {
    guard::on()?;
    let file = TestFile::new(kind, LEN)?;
    let counts = Counts::default();
    let (held, unfit) = std::thread::scope(|scope| {
        let racers = [
            scope.spawn(|| keep_writing(&file.path, 0, &counts)),
            scope.spawn(|| keep_writing(&file.path, libc::O_DIRECT, &counts)),
            scope.spawn(|| keep_breaking(&file.path, &counts)),
        ];
        let asked = ask_for_holds(&file.path, &counts);
        counts.stop.store(true, Ordering::Relaxed);
        for racer in racers {
            let ended = racer
                .join()
                .map_err(|_| anyhow::anyhow!("a racer panicked"));
            ended?.context("beside the holds")?;
        }
        asked
    })?;
    let (done, refused) = (counts.done.into_inner(), counts.refused.into_inner());
    println!("{kind}: held {held}, unfit {unfit} times; {done} operations done, {refused} refused");
    ensure!(held >= ROUNDS, "held {held} times: that is no race");
    ensure!(done > 0 && refused > 0, "nobody raced");
    Ok(())
}

/// How often it was held, and how often refused because of what the file was then.
fn ask_for_holds(path: &Path, counts: &Counts) -> Result<(usize, usize)> {
    let (mut held, mut unfit) = (0, 0);
    let notes = path.with_extension("look");
    let base = notes.file_name().context("no name")?;
    let notes = Path::new("/tmp").join(base);
    for round in 0..2 * ROUNDS {
        counts.may_break.store(round >= ROUNDS, Ordering::Relaxed);
        let hold = Command::new("longpin")
            .args(["hold", "-E", "9"])
            .arg(path)
            .args(["--", "sh", "-euc", LOOK, "look"])
            .args([path, &notes])
            .output()?;
        let words = [hold.stdout, hold.stderr].concat();
        let words = String::from_utf8_lossy(&words);
        match hold.status.code() {
            Some(0) => held += 1,
            Some(9) if round >= ROUNDS => {
                println!("{}", words.lines().next().unwrap_or_default());
                unfit += 1;
            }
            other => bail!("round {round}: {other:?}: {words}"),
        }
    }
    Ok((held, unfit))
}

/// A piece here and there, each time with other bytes.
fn keep_writing(path: &Path, flags: i32, counts: &Counts) -> Result<()> {
    let file = File::options().write(true).custom_flags(flags).open(path)?;
    let mut room = vec![0; PIECE + PAGE];
    let skip = room.as_ptr().align_offset(PAGE);
    let bytes = &mut room[skip..skip + PIECE];
    for turn in 1_u64.. {
        if counts.ended() {
            break;
        }
        for page in bytes.chunks_mut(PAGE) {
            page[..8].copy_from_slice(&turn.to_le_bytes());
        }
        let written = file.write_all_at(bytes, turn % 3 * PIECE as u64);
        let outcome = written.map_err(|err| Errno::from_io_error(&err).unwrap_or(Errno::IO));
        counts.count(outcome).context("a write")?;
    }
    Ok(())
}

/// Cuts and punches, and makes whole again.
fn keep_breaking(path: &Path, counts: &Counts) -> Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let last = LEN - PIECE as u64;
    let bytes = Pattern::new(1).bytes(PIECE);
    for turn in 0_u64.. {
        while !counts.may_break.load(Ordering::Relaxed) && !counts.ended() {
            std::thread::sleep(Duration::from_millis(5));
        }
        if counts.ended() {
            break;
        }
        let broken = if turn % 2 == 0 {
            ftruncate(&file, last)
        } else {
            punch(&file, last, PIECE as u64)
        };
        counts.count(broken).context("cut or punch")?;
        let mend = || {
            let mended = file.write_all_at(&bytes, last);
            mended.map_err(|err| Errno::from_io_error(&err).unwrap_or(Errno::IO))
        };
        while !counts.count(mend()).context("a write")? {
            if counts.ended() {
                break;
            }
        }
        // So that it is whole now and then.
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
