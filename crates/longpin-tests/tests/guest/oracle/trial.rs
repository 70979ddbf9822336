//! One operation, tried on one file with pinned pages.

use std::fmt;

use anyhow::{Context, Result, ensure};
use longpin_tests::PAGE;
use longpin_tests::act::Outcome;
use longpin_tests::frames::{frames, is_in_large_folio};
use longpin_tests::operations::{Build, Ground, Operation, Victim};
use rustix::io::Errno;

use super::eye::{Eye, Pin};

/// What became of the pinned pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// They are the file's, and what is on the disk.
    Kept,
    /// So many of them are no longer the file's.
    Detached(usize),
    /// They are the file's, but no longer what is on the disk under it: the file loses its bytes with the pin.
    Stale,
    /// The file has no name any more, and nobody had it open.
    Gone,
}

impl Effect {
    pub(super) fn is_loss(self) -> bool {
        self != Self::Kept
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kept => f.write_str("kept"),
            Self::Detached(pages) => write!(f, "{pages} pages detached"),
            Self::Stale => f.write_str("stale"),
            Self::Gone => f.write_str("file gone"),
        }
    }
}

/// What the kernel answered, and what it did.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trial {
    pub(super) answer: Outcome,
    pub(super) effect: Effect,
    /// Whether the pinned range reads as before.
    pub(super) intact: bool,
}

impl Trial {
    /// It could not be tried on this file system.
    const fn not_there() -> Self {
        Self {
            answer: Err(Errno::NOTTY),
            effect: Effect::Kept,
            intact: true,
        }
    }

    /// Whether the file system, or the kernel, does not have the operation.
    pub(super) fn is_not_there(&self) -> bool {
        matches!(self.answer, Err(Errno::NOTTY | Errno::OPNOTSUPP)) && !self.effect.is_loss()
    }
}

/// Tries it on a fresh file.
pub(super) fn try_one(operation: &Operation, ground: &Ground, eye: &mut Eye) -> Result<Trial> {
    let mut victim = Victim::new(ground, operation.build)?;
    let mut pin = eye.pin(ground.home(), victim.file()?, &victim.pinned)?;
    let before = frames(victim.file()?, &victim.pinned)?;
    ensure!(before.iter().all(Option::is_some), "pages were missing");
    if is_of_other_folios(operation, &before)? {
        return Ok(Trial::not_there());
    }
    let contents = victim.read_back()?;
    ensure!(
        sees(&eye.read(&mut pin)?, &contents),
        "the device saw other bytes"
    );
    if operation.alone {
        victim.close();
    }
    let answer = operation.try_on(&mut victim);
    ground.mend().context("after the operation")?;
    let (effect, intact) = look(&mut victim, &before, &contents, eye, &mut pin)
        .with_context(|| format!("looking at it after it answered {answer:?}"))?;
    Ok(Trial {
        answer: answer?,
        effect,
        intact,
    })
}

fn look(
    victim: &mut Victim<'_>,
    before: &[Option<u64>],
    contents: &[u8],
    eye: &mut Eye,
    pin: &mut Pin,
) -> Result<(Effect, bool)> {
    if !victim.reopen()? {
        return Ok((Effect::Gone, false));
    }
    let after = frames(victim.file()?, &victim.pinned)?;
    let changed = before.iter().zip(&after).filter(|(old, new)| old != new);
    let changed = changed.count();
    if changed > 0 {
        return Ok((Effect::Detached(changed), false));
    }
    let read = victim.read_back()?;
    // The same frames, and other bytes: then frames say nothing.
    ensure!(sees(&eye.read(pin)?, &read), "the device sees other bytes");
    let stale = victim.on_disk()?.is_some_and(|disk| disk != read);
    let effect = if stale { Effect::Stale } else { Effect::Kept };
    // A file that grew may show more of its last page.
    Ok((effect, read.starts_with(contents)))
}

/// Behind the end of a file its last page holds zeroes, or what nobody shows.
fn sees(device: &[u8], file: &[u8]) -> bool {
    device.len() - file.len() < PAGE && device.starts_with(file)
}

/// The kernel keeps the last page of a file otherwise than the operation wants it.
fn is_of_other_folios(operation: &Operation, frames: &[Option<u64>]) -> Result<bool> {
    let Build::End(shape) = operation.build else {
        return Ok(false);
    };
    let last = frames.iter().copied().flatten().next_back();
    Ok(is_in_large_folio(last.context("no page")?)? != shape.large)
}
