//! What is done to a file that is lent, against what the same costs elsewhere: a hold against swapping to the file, `prepare`
//! against writing zeroes, `extents` against filefrag.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use longpin::guard::Host;
use longpin::hold::Hold;
use longpin_linux::fiemap::Fiemap;
use longpin_linux::swap::{swap_off, swap_on};
use longpin_tests::scratch::{FsKind, Scratch};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use crate::commands::{command, dd, extents_of, filefrag, prepare, remove, words};
use crate::count::{Counter, Counts};
use crate::guard::Guard;
use crate::options::Asked;
use crate::table::{self, Table, bytes, number, progress};

const BLOCK: u64 = 4096;
/// Extents that a file shall have.
const EXTENTS: [u64; 3] = [1, 1_000, 100_000];

pub(crate) fn run(asked: &Asked, counter: Counter) -> Result<()> {
    let guard = Guard::start()?;
    let mut holds = Table::new([
        "lent file, ext4",
        "swapon and swapoff",
        "hold and release",
        "ratio",
    ]);
    let mut maps = Table::new(["block map, ext4", "filefrag -v", "extents", "ratio"]);
    for extents in EXTENTS {
        progress(&format!("a file of {extents} extents"));
        let (_scratch, path, found) = fragmented(extents)?;
        let name = format!("{} extents", number(found));
        let swap = count_swap(asked, counter, &path)?;
        let hold = count_hold(asked, counter, &path)?;
        holds.row(against(&name, &swap, &hold));
        let frag = count_command(asked, counter, &filefrag(&path))?;
        let own = count_command(asked, counter, &extents_of(&path))?;
        maps.row(against(&name, &frag, &own));
    }
    guard.stop()?;
    let zeroes = zeroes(asked, counter)?;
    for table in [holds, maps, zeroes] {
        table::line("");
        table.print();
    }
    Ok(())
}

fn against(name: &str, base: &Counts, own: &Counts) -> Vec<String> {
    let (base, own) = (base.typical(), own.typical());
    let hundredths = own.saturating_mul(100) / base.max(1);
    let ratio = format!("{}.{:02}", hundredths / 100, hundredths % 100);
    vec![name.to_owned(), number(base), number(own), ratio]
}

fn count_swap(asked: &Asked, counter: Counter, path: &Path) -> Result<Counts> {
    command(&words(&["mkswap", "-q"], path))?;
    let swap = || {
        swap_on(path)?;
        Ok(swap_off(path)?)
    };
    counter.each(asked.rounds, || Ok(()), swap)
}

fn count_hold(asked: &Asked, counter: Counter, path: &Path) -> Result<Counts> {
    let host = Host::default();
    let hold = || Ok(Hold::on(path).acquire(&host)?.release().map(drop)?);
    counter.each(asked.rounds, || Ok(()), hold)
}

fn count_command(asked: &Asked, counter: Counter, words: &[String]) -> Result<Counts> {
    counter.each(asked.rounds, || Ok(()), || command(words))
}

/// `prepare` of a new file against dd of as many zeroes with direct I/O.
fn zeroes(asked: &Asked, counter: Counter) -> Result<Table> {
    let size = (asked.largest as u64).min(1 << 30);
    progress(&format!("a new file of {}", bytes(size)));
    let scratch = Scratch::new(FsKind::Ext4, size + (128 << 20))?;
    let path = scratch.dir().join("new");
    let dd = counter.each(asked.rounds, || remove(&path), || command(&dd(&path, size)))?;
    let prepare = counter.each(
        asked.rounds,
        || remove(&path),
        || command(&prepare(&path, size)),
    )?;
    let mut table = Table::new(["new file, ext4", "dd, direct", "prepare", "ratio"]);
    table.row(against(&bytes(size), &dd, &prepare));
    Ok(table)
}

/// A file on written blocks in about so many extents, on a file system of its own; how many they are.
fn fragmented(extents: u64) -> Result<(Scratch, PathBuf, u64)> {
    let single = extents > 1;
    // The file system keeps these for itself, in one piece, and gives that first.
    let kept = (extents / 20).clamp(2048, 4096);
    // Some go to the maps.
    let holes = (extents + kept) * 21 / 20;
    let size = if single { 2 * holes * BLOCK } else { 0 };
    let scratch = Scratch::new(FsKind::Ext4, size + (64 << 20))?;
    let path = scratch.dir().join("lent");
    let len = if single {
        leave_only_single_blocks(scratch.dir(), holes)?;
        (extents + kept) * BLOCK
    } else {
        4 << 20
    };
    let file = File::create_new(&path)?;
    fallocate(&file, FallocateFlags::empty(), 0, len)?;
    // Prepare wants it for itself.
    drop(file);
    command(&words(&["longpin", "prepare"], &path))?;
    let count = Fiemap::new(&File::open(&path)?, 0, len).count() as u64;
    ensure!(
        !single || count > extents / 2,
        "the file has {count} extents, not some {extents}"
    );
    Ok((scratch, path, count))
}

/// Fills the file system, and makes every other block of a part free again.
fn leave_only_single_blocks(dir: &Path, holes: u64) -> Result<()> {
    let filler = File::create_new(dir.join("filler"))?;
    let (mut at, mut step) = (0, 64 << 20);
    while step >= BLOCK {
        match fallocate(&filler, FallocateFlags::empty(), at, step) {
            Ok(()) => at += step,
            Err(Errno::NOSPC) => step /= 2,
            Err(err) => bail!(err),
        }
    }
    ensure!(at > 2 * holes * BLOCK, "no room for {holes} holes");
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    for index in 0..holes {
        fallocate(&filler, punch, index * 2 * BLOCK, BLOCK)?;
    }
    // Freed blocks are free when the journal has them.
    Ok(rustix::fs::syncfs(&filler)?)
}
