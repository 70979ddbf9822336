//! Chance: many processes, few files, a model of who pins what.

use anyhow::{Context, Result, ensure};
use longpin_tests::act::{ftruncate, punch};
use longpin_tests::pattern::Pattern;
use longpin_tests::scratch::FsKind;
use std::os::unix::fs::FileExt;

use super::actor::{Actor, kill};
use super::{KernelLog, PAGE, rounds};
use crate::claims::Dice;
use crate::files::TestFile;
use crate::guard;
use crate::pin::{must_allow, must_allow_soon, must_refuse};

const FILES: u64 = 5;
const ACTORS: u64 = 4;
const PAGES: u64 = 64;

struct LivePin {
    id: u64,
    file: usize,
    first: u64,
    count: u64,
}

/// An actor with its pins; after its death a fork of it may have them.
struct Player {
    actor: Actor,
    forks: Vec<u32>,
    pins: Vec<LivePin>,
}

struct World {
    dice: Dice,
    files: Vec<TestFile>,
    players: Vec<Player>,
    /// Forks of dead actors, and what they inherited.
    heirs: Vec<(Vec<u32>, Vec<LivePin>)>,
    next: u64,
    refused: u32,
}

/// Random pins, unpins, truncates, punches, forks, exits and kills, the same ones every time. Each answer is
/// what the model says: refused where a live pin is met, allowed elsewhere; what the devices see never changes.
/// In the end nothing is held, and the kernel has nothing to say.
///
/// Fails when the walk stops early, when an act is judged by another range, when the end of one pin (or the
/// death of one process) ends the hold of another, and when a hold outlives its pin.
pub(super) fn random_rounds() -> Result<()> {
    guard::on()?;
    let log = KernelLog::mark()?;
    let seed = 20_261;
    let mut world = World::new(seed)?;
    for round in 0..rounds(80, 1000) {
        world
            .play()
            .with_context(|| format!("seed {seed}, round {round}"))?;
    }
    let refused = world.refused;
    println!("{refused} refusals");
    world.end()?;
    ensure!(refused > 5, "only {refused} refusals");
    log.must_be_clean()
}

/// Whatever failed, no fork goes on holding what it inherited.
impl Drop for World {
    fn drop(&mut self) {
        let heirs = self.heirs.iter().flat_map(|(forks, _)| forks);
        let forks = self.players.iter().flat_map(|player| &player.forks);
        for pid in heirs.chain(forks) {
            // Already dead is fine.
            let _ = kill(*pid);
        }
    }
}

impl World {
    fn new(seed: u64) -> Result<Self> {
        let files = (0..FILES).map(|_| TestFile::new(FsKind::Tmpfs, PAGES * PAGE));
        let mut world = Self {
            dice: Dice(seed),
            files: files.collect::<Result<_>>()?,
            players: Vec::new(),
            heirs: Vec::new(),
            next: 0,
            refused: 0,
        };
        for _ in 0..ACTORS {
            world.enter()?;
        }
        Ok(world)
    }

    fn enter(&mut self) -> Result<()> {
        self.players.push(Player {
            actor: Actor::start(0)?,
            forks: Vec::new(),
            pins: Vec::new(),
        });
        Ok(())
    }

    fn pick(&mut self, count: usize) -> Result<usize> {
        Ok(usize::try_from(self.dice.below(u64::try_from(count)?))?)
    }

    fn play(&mut self) -> Result<()> {
        let player = self.pick(self.players.len())?;
        let file = self.pick(self.files.len())?;
        match self.dice.below(16) {
            0..=4 => self.pin(player, file).context("pin"),
            5..=6 => self.unpin(player).context("unpin"),
            7..=9 => self.truncate(file).context("truncate"),
            10..=12 => self.punch(file).context("punch"),
            13 => self.fork(player).context("fork"),
            14 => self.leave(player, true).context("kill"),
            _ => self.leave(player, false).context("exit"),
        }
    }

    fn pin(&mut self, player: usize, file: usize) -> Result<()> {
        let first = self.dice.below(PAGES);
        let count = 1 + self.dice.below((PAGES - first).min(8));
        self.next += 1;
        let (id, path) = (self.next, self.files[file].path.display());
        let order = format!("pin {id} {path} {} {}", first * PAGE, count * PAGE);
        let player = &mut self.players[player];
        player.actor.ask(&order)?;
        player.pins.push(LivePin {
            id,
            file,
            first,
            count,
        });
        self.check(&order)
    }

    fn unpin(&mut self, player: usize) -> Result<()> {
        let pins = self.players[player].pins.len();
        if pins == 0 {
            return Ok(());
        }
        let pin = self.pick(pins)?;
        let player = &mut self.players[player];
        let pin = player.pins.swap_remove(pin);
        player.actor.ask(&format!("unpin {}", pin.id)).map(drop)
    }

    /// Every live pin of every actor, as its device sees it.
    fn check(&mut self, what: &str) -> Result<()> {
        for player in &mut self.players {
            for pin in &player.pins {
                let seed = self.files[pin.file].seed();
                let order = format!("check {} {seed} {}", pin.id, pin.first);
                player.actor.ask(&order).context(what.to_owned())?;
            }
        }
        Ok(())
    }

    fn is_pinned(&self, file: usize, from: u64, to: u64) -> bool {
        let living = self.players.iter().flat_map(|player| &player.pins);
        let inherited = self.heirs.iter().flat_map(|(_, pins)| pins);
        living
            .chain(inherited)
            .any(|pin| pin.file == file && pin.first < to && from < pin.first + pin.count)
    }

    fn truncate(&mut self, file: usize) -> Result<()> {
        let size = self.dice.below(PAGES * PAGE);
        let f = &self.files[file];
        let act = || ftruncate(&f.file, size);
        if self.is_pinned(file, size / PAGE, PAGES) {
            self.refused += 1;
            must_refuse(&format!("to {size}"), act())?;
        } else {
            must_allow_soon(&format!("to {size}"), act)?;
            must_allow("growing again", ftruncate(&f.file, PAGES * PAGE))?;
            f.restore(size / PAGE, PAGES)?;
        }
        self.files[file].check_all()?;
        self.check("truncate")
    }

    fn punch(&mut self, file: usize) -> Result<()> {
        let first = self.dice.below(PAGES);
        let count = 1 + self.dice.below((PAGES - first).min(12));
        let f = &self.files[file];
        let act = || punch(&f.file, first * PAGE, count * PAGE);
        if self.is_pinned(file, first, first + count) {
            self.refused += 1;
            must_refuse(&format!("{count} at {first}"), act())?;
        } else {
            must_allow_soon(&format!("{count} at {first}"), act)?;
            f.restore(first, first + count)?;
        }
        self.files[file].check_all()?;
        self.check("punch")
    }

    fn fork(&mut self, player: usize) -> Result<()> {
        let player = &mut self.players[player];
        let pid = player.actor.ask("fork")?.parse()?;
        player.forks.push(pid);
        Ok(())
    }

    /// An actor goes. Where it forked after its last pin, the rings live on in the fork, for some rounds.
    fn leave(&mut self, player: usize, killed: bool) -> Result<()> {
        while self.heirs.len() > 1 {
            for pid in self.heirs.remove(0).0 {
                kill(pid)?;
            }
        }
        let mut player = self.players.swap_remove(player);
        if !player.pins.is_empty() && self.dice.below(2) == 0 {
            // The fork has all the rings, those of now.
            player.forks.push(player.actor.ask("fork")?.parse()?);
            self.heirs.push((player.forks, player.pins));
        } else {
            for pid in player.forks {
                kill(pid)?;
            }
        }
        if killed {
            player.actor.kill()?;
        } else {
            player.actor.dismiss()?;
        }
        self.enter()
    }

    fn end(mut self) -> Result<()> {
        self.check("the end")?;
        for (forks, _) in self.heirs.drain(..) {
            for pid in forks {
                kill(pid)?;
            }
        }
        for player in self.players.drain(..) {
            for pid in player.forks {
                kill(pid)?;
            }
            player.actor.kill()?;
        }
        for f in &self.files {
            f.check_all()?;
            must_allow_soon("nobody pins", || ftruncate(&f.file, 0))?;
            let left = guard::pins_on(&f.path)?;
            ensure!(left.is_empty(), "still listed: {left:?}");
        }
        let refused = guard::count("refused")?;
        let other = TestFile::new(FsKind::Tmpfs, PAGES * PAGE)?;
        must_allow("a file that nobody pinned", ftruncate(&other.file, 0))?;
        ensure!(guard::count("refused")? == refused, "a refusal more");
        Ok(())
    }
}

impl TestFile {
    fn seed(&self) -> u64 {
        self.pattern.seed
    }

    /// Write these pages anew.
    fn restore(&self, from: u64, to: u64) -> Result<()> {
        let pattern = Pattern::new(self.seed());
        for page in from..to {
            self.file.write_all_at(&pattern.page(page), page * PAGE)?;
        }
        Ok(())
    }
}
