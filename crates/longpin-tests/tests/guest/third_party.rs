//! A real third party: who was lent a file's blocks writes them behind the file system's back, on the block device, while
//! others try every operation on the file, and make and remove files beside it until the file system is full.
//!
//! The third party is another program in the guest, which writes to the block device; or it is outside of the guest, and
//! writes into the image of the guest's disk.
//!
//! With the hold the third party's bytes are the file's, the file system is clean and no other file is touched. The same
//! without it, to show what the hold is for: other files are destroyed.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use longpin_tests::PAGE;
use longpin_tests::operations::{self, Build, Ground, Home, Operation, Victim};
use longpin_tests::pattern::Pattern;
use serde_json::Value;

use crate::parity::{Kind, Subject};
use crate::{Test, blocks, guard};

pub(crate) const TESTS: &[Test] = &[
    ("hold_third_party_ext4", || {
        third_party(Home::Ext4, Party::Inside)
    }),
    ("hold_third_party_xfs", || {
        third_party(Home::Xfs, Party::Inside)
    }),
    ("hold_third_party_btrfs", || {
        third_party(Home::Btrfs, Party::Inside)
    }),
    ("hold_third_party_f2fs", || {
        third_party(Home::F2fs, Party::Inside)
    }),
    ("hold_third_party_outside_ext4", || {
        third_party(Home::Ext4, Party::Outside)
    }),
    ("hold_third_party_outside_xfs", || {
        third_party(Home::Xfs, Party::Outside)
    }),
];

/// Who writes the blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Party {
    /// This program, to the block device, of which the file system knows nothing.
    Inside,
    /// The host, to the image of the guest's disk, of which not even the guest's block layer knows: what this program
    /// writes to the image is sent to QEMU's file server, which writes it there.
    Outside,
}

impl Party {
    /// A file system for it.
    fn ground(self, home: Home) -> Result<Ground> {
        match self {
            Self::Inside => Ground::lent_of(home, LENT),
            Self::Outside => Ground::lent_on(home, &variable("LONGPIN_DISK")?, LENT),
        }
    }

    /// Where it writes what lies at the same offset of this block device.
    fn opens(self, device: &str) -> Result<File> {
        let (path, flags) = match self {
            Self::Inside => (PathBuf::from(device), libc::O_DIRECT),
            Self::Outside => (variable("LONGPIN_DISK_IMAGE")?, 0),
        };
        File::options()
            .write(true)
            .custom_flags(flags)
            .open(&path)
            .with_context(|| format!("cannot write to {}", path.display()))
    }
}

fn variable(name: &str) -> Result<PathBuf> {
    let value = std::env::var_os(name).with_context(|| format!("{name} is not set"))?;
    Ok(PathBuf::from(value))
}

/// What is lent.
const LENT: usize = 4 << 20;
/// What the load may fill.
const ROOM: u64 = 40 << 20;
/// The file that takes up the rest.
const BALLAST: &str = "ballast";
/// A file of the load beside it.
const BESIDE: usize = 64 << 10;

/// Operations that would end the experiment, not the file; and what goes round every hook.
const LEFT_OUT: &[&str] = &[
    "mount",
    "loop device",
    "freeze",
    "memory",
    "MADV",
    "store",
    "drop_caches",
    "swapon",
];

/// Operations that give the blocks to one file more, which keeps them: without a hold nobody else would get them.
const GIVING: &[&str] = &[" from", "SWAPEXT", "EXCHANGE", "COMMIT"];

/// What became of it all.
#[derive(Debug)]
struct Outcome {
    /// Rounds in which the third party wrote all of the file's blocks.
    rounds: u64,
    /// Operations that were refused, of how many.
    refused: usize,
    tried: usize,
    /// Whether the file holds what the third party wrote last.
    has_last: bool,
    /// Files beside it that do not hold what was written, of how many.
    destroyed: usize,
    beside: usize,
    /// What the checker said, when it found something wrong.
    damage: Option<String>,
}

fn third_party(home: Home, party: Party) -> Result<()> {
    guard::off()?;
    let free = lend(home, party, Kind::Ordinary)?;
    println!("{home}, no hold: {}", told(&free));
    ensure!(!free.has_last, "the file was lost to nobody");
    ensure!(
        free.destroyed > 0,
        "without the hold no other file was destroyed: the test tests nothing"
    );
    let held = lend(home, party, Kind::Held)?;
    println!("{home}, held:    {}", told(&held));
    ensure!(held.rounds > 1, "the third party had no time");
    ensure!(
        held.has_last,
        "the file does not hold what the third party wrote"
    );
    ensure!(
        held.destroyed == 0,
        "{} files were destroyed",
        held.destroyed
    );
    ensure!(
        held.damage.is_none(),
        "the file system is damaged: {:?}",
        held.damage
    );
    Ok(())
}

fn told(outcome: &Outcome) -> String {
    let file = if outcome.has_last { "has" } else { "has NOT" };
    let damage = outcome.damage.as_deref().map_or_else(
        || "clean".to_owned(),
        |words| format!("DAMAGED: {}", first_words(words)),
    );
    format!(
        "{} of {} operations refused; the file {file} the third party's last bytes ({} rounds); {} of {} other files destroyed; file system {damage}",
        outcome.refused, outcome.tried, outcome.rounds, outcome.destroyed, outcome.beside
    )
}

/// What a checker says first that is not the name of one of its steps.
fn first_words(said: &str) -> &str {
    let is_step = |line: &&str| {
        let line = line.trim_start();
        !line.starts_with("Phase") && !line.starts_with('-') && !line.is_empty()
    };
    said.lines().find(is_step).unwrap_or(said)
}

/// The experiment.
fn lend(home: Home, party: Party, kind: Kind) -> Result<Outcome> {
    let ground = party.ground(home)?;
    let victim = Victim::lent(&ground, false)?;
    let path = victim.path().to_owned();
    let subject = Subject::new(&ground, victim, kind)?;
    let mut subject = subject.map_err(|refused| anyhow::anyhow!("not held: {}", refused.0))?;
    let device = Device::of(&path, party)?;
    let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    // In the file's own directory: xfs looks for blocks near it first, where the file's may have become free.
    let mut beside = Beside::new(path.parent().context("no directory")?)?;
    let ((tried, refused), shut) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| device.write_until(&stop, &rounds));
        let counts = try_all(home, kind, &mut subject.victim, &mut beside);
        // What has lost its name goes, and its blocks are there for others.
        subject.victim.close();
        let shut = beside.fill().err().map(|err| format!("{err:#}"));
        stop.store(true, Ordering::Relaxed);
        let wrote = writer.join();
        wrote.map_err(|_| anyhow::anyhow!("the third party panicked"))??;
        anyhow::Ok((counts, shut))
    })?;
    let last = Pattern::new(rounds.load(Ordering::Relaxed)).bytes(LENT);
    subject.leave()?;
    rustix::fs::sync();
    fs::write("/proc/sys/vm/drop_caches", "3")?;
    let has_last = fs::read(&path).is_ok_and(|found| found.get(..LENT) == Some(&last[..]));
    let (destroyed, count) = beside.destroyed();
    drop(device);
    if ground.needs_room() {
        beside.remove().context("make room")?;
    }
    let damage = ground.check()?.or(shut);
    Ok(Outcome {
        rounds: rounds.into_inner(),
        refused,
        tried,
        has_last,
        destroyed,
        beside: count,
        damage,
    })
}

fn is_wanted(home: Home, operation: &Operation) -> bool {
    operation.homes.contains(&home)
        && matches!(operation.build, Build::Plain)
        && !LEFT_OUT.iter().any(|part| operation.name.contains(part))
}

/// Every operation, with a file made and one removed beside it after each: how many, and how many were refused.
fn try_all(home: Home, kind: Kind, victim: &mut Victim<'_>, beside: &mut Beside) -> (usize, usize) {
    let (mut tried, mut refused) = (0, 0);
    let gives = |it: &&Operation| GIVING.iter().any(|part| it.name.contains(part));
    let all = operations::uses().chain(operations::all());
    let all = all.filter(|it| is_wanted(home, it) && (kind == Kind::Held || !gives(it)));
    for operation in all {
        // Without the hold the file is soon gone.
        let opened = victim.open_anew().is_ok();
        let answer = opened.then(|| operation.try_on(victim));
        tried += 1;
        refused += usize::from(matches!(answer, Some(Ok(Err(_)))));
        // It may be full already.
        let _ = beside.turn();
    }
    (tried, refused)
}

/// The blocks of the file, as `longpin extents` told them.
struct Device {
    file: File,
    extents: Vec<(usize, u64, usize)>,
}

impl Device {
    fn of(path: &Path, party: Party) -> Result<Self> {
        let map = blocks::extents(path)?;
        let name = map["devices"][0]["path"].as_str().context("no device")?;
        let file = party.opens(name)?;
        let extents = map["extents"].as_array().context("no extents")?;
        let extents: Result<_> = extents.iter().map(place).collect();
        Ok(Self {
            file,
            extents: extents?,
        })
    }

    /// Writes all of the blocks, each time with other bytes, and once more after the end.
    fn write_until(&self, stop: &AtomicBool, rounds: &AtomicU64) -> Result<()> {
        loop {
            let is_last = stop.load(Ordering::Relaxed);
            let seed = rounds.fetch_add(1, Ordering::Relaxed) + 1;
            let bytes = Pattern::new(seed).bytes(LENT);
            let mut room = vec![0; LENT + PAGE];
            let skip = room.as_ptr().align_offset(PAGE);
            room[skip..skip + LENT].copy_from_slice(&bytes);
            let aligned = &room[skip..skip + LENT];
            for &(logical, physical, len) in &self.extents {
                let piece = aligned
                    .get(logical..logical + len)
                    .context("behind the end")?;
                self.file
                    .write_all_at(piece, physical)
                    .context("the third party's write")?;
            }
            if is_last {
                return Ok(());
            }
        }
    }
}

fn place(extent: &Value) -> Result<(usize, u64, usize)> {
    let number = |name: &str| extent[name].as_u64().with_context(|| format!("no {name}"));
    let length = usize::try_from(number("length")?)?;
    Ok((
        usize::try_from(number("logical")?)?,
        number("physical")?,
        length,
    ))
}

/// The load: files of known bytes.
struct Beside {
    dir: PathBuf,
    next: u64,
    files: Vec<u64>,
}

impl Beside {
    /// A seed that no round of the third party has.
    const FIRST: u64 = 1 << 40;

    /// With little room left beside them.
    fn new(dir: &Path) -> Result<Self> {
        let room = rustix::fs::statvfs(dir)?;
        let taken = (room.f_bavail * room.f_frsize).saturating_sub(ROOM);
        let ballast = File::create(dir.join(BALLAST))?;
        let flags = rustix::fs::FallocateFlags::empty();
        rustix::fs::fallocate(&ballast, flags, 0, taken).context("no ballast")?;
        Ok(Self {
            dir: dir.to_owned(),
            next: Self::FIRST,
            files: Vec::new(),
        })
    }

    fn path(&self, seed: u64) -> PathBuf {
        self.dir.join(seed.to_string())
    }

    /// One file more, on the disk.
    fn make(&mut self, len: usize) -> Result<()> {
        let seed = self.next;
        self.next += 1;
        let file = File::create(self.path(seed))?;
        let written = file.write_all_at(&Pattern::new(seed).bytes(len), 0);
        if let Err(err) = written.and_then(|()| file.sync_all()) {
            // What did not fit is not looked at.
            fs::remove_file(self.path(seed))?;
            return Err(err.into());
        }
        self.files.push(seed);
        Ok(())
    }

    /// Three files more, and two less.
    fn turn(&mut self) -> Result<()> {
        for _ in 0..3 {
            self.make(BESIDE)?;
        }
        for at in [0, self.files.len() / 2] {
            let seed = self.files.remove(at);
            fs::remove_file(self.path(seed))?;
        }
        Ok(())
    }

    /// Until there is no room.
    fn fill(&mut self) -> Result<()> {
        let full = loop {
            if let Err(err) = self.make(16 * BESIDE) {
                break err;
            }
        };
        let errno = full
            .downcast_ref()
            .and_then(rustix::io::Errno::from_io_error);
        ensure!(errno == Some(rustix::io::Errno::NOSPC), "{full:#}");
        Ok(())
    }

    /// How many do not hold what was written, and of how many.
    fn destroyed(&self) -> (usize, usize) {
        let is_whole = |seed: &&u64| {
            let found = fs::read(self.path(**seed)).unwrap_or_default();
            found.len() >= BESIDE && Pattern::new(**seed).check(0, &found).is_ok()
        };
        let whole = self.files.iter().filter(is_whole).count();
        (self.files.len() - whole, self.files.len())
    }

    /// Nothing of it is left, on the disk either.
    fn remove(self) -> Result<()> {
        for seed in &self.files {
            fs::remove_file(self.path(*seed))?;
        }
        fs::remove_file(self.dir.join(BALLAST))?;
        rustix::fs::sync();
        Ok(())
    }
}
