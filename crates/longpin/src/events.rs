//! What happened: holds begun, ended and broken, operations refused, pages taken back from on-demand regions. The
//! guard keeps the last 1,024 events in the kernel, so that one can ask afterwards; whoever asks too late is told how
//! many are gone.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use longpin_bpf::event::MAX_EVENTS;
pub use longpin_bpf::event::{Event, EventKind, Operation, Torn};
use longpin_bpf::pinned::Pinned;
use longpin_bpf::shared::{FileId, Row};
use longpin_linux::mounts::{self, Mount};
use longpin_linux::probe;

use crate::guard::{GuardError, Running};
use crate::listing::{end_rows, name_explicit};
use crate::names::name_file;
use crate::on_demand::{Cause, find_cause};

/// An event, with what only the user side knows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Notice {
    /// The event.
    pub event: Event,
    /// When, since the epoch.
    pub time: Duration,
    /// The file as seen from here; its last name where it has gone.
    pub path: String,
    /// Of what was taken back from an on-demand region: why.
    pub cause: Cause,
}

/// Events in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Batch {
    /// The events.
    pub events: Vec<Notice>,
    /// How many were written over before they could be read.
    pub lost: u64,
    /// Number of the first event that is not in here yet.
    pub next: u64,
}

/// Number of the next event that will be recorded.
#[must_use]
pub fn next_number(running: &Running) -> u64 {
    running.pinned().state().next_event.load(Ordering::Acquire)
}

/// Number of the oldest event that is still kept.
#[must_use]
pub fn oldest_number(running: &Running) -> u64 {
    next_number(running).saturating_sub(MAX_EVENTS)
}

/// Events from this number on. Looks first for holds that have ended, since nothing tells of that.
///
/// # Errors
///
/// [`GuardError`].
pub fn read_events(running: &Running, from: u64) -> Result<Batch, GuardError> {
    let pinned = running.pinned();
    end_rows(pinned)?;
    let end = next_number(running);
    // A guard that was started anew counts from 0 again.
    let from = if from > end { 0 } else { from };
    let mounts = mounts::read_mounts().map_err(|source| GuardError::Probe {
        what: "the mounts".into(),
        source,
    })?;
    let first = from.max(end.saturating_sub(MAX_EVENTS));
    let mut explicit = ExplicitHolds::read(pinned)?;
    let mut batch = Batch {
        lost: first - from,
        next: first,
        ..Batch::default()
    };
    for number in first..end {
        match pinned.event(number)? {
            Some(event) => batch
                .events
                .push(tell(pinned, event, &mounts, &mut explicit)?),
            None if next_number(running) > number + MAX_EVENTS => batch.lost += 1,
            // Being written: the next call has it.
            None => break,
        }
        batch.next = number + 1;
    }
    Ok(batch)
}

/// The kept events of one file, and of these of its holds: it may have been at another address then.
///
/// # Errors
///
/// [`GuardError`].
pub(crate) fn read_events_of(
    running: &Running,
    file: &FileId,
    holds: &[u64],
) -> Result<Vec<Notice>, GuardError> {
    let mut batch = read_events(running, oldest_number(running))?;
    batch.events.retain(|Notice { event, .. }| {
        event.file == *file || (event.row != 0 && holds.contains(&event.row))
    });
    Ok(batch.events)
}

/// Explicit holds that stand, by their numbers, with the paths of their files once somebody has asked.
struct ExplicitHolds(HashMap<u64, (Row, Option<String>)>);

impl ExplicitHolds {
    fn read(pinned: &Pinned) -> Result<Self, GuardError> {
        let rows = pinned.rows()?.into_iter();
        let rows = rows.filter(|row| row.explicit.is_some());
        Ok(Self(rows.map(|row| (row.id, (row, None))).collect()))
    }

    /// The file of this hold: it has not gone, though it may have left memory.
    fn path(
        &mut self,
        pinned: &Pinned,
        hold: u64,
        mounts: &[Mount],
    ) -> Result<Option<String>, GuardError> {
        let Some((row, path)) = self.0.get_mut(&hold) else {
            return Ok(None);
        };
        if path.is_none() {
            *path = Some(name_explicit(pinned, row, mounts)?);
        }
        Ok(path.clone())
    }
}

fn tell(
    pinned: &Pinned,
    event: Event,
    mounts: &[Mount],
    explicit: &mut ExplicitHolds,
) -> Result<Notice, GuardError> {
    let seen = pinned.inspect(&event.file, 0, 0)?;
    let of_hold = match &seen {
        Some(_) => None,
        None => explicit.path(pinned, event.row, mounts)?,
    };
    let path = match seen {
        Some(sight) => name_file(&event.file, &sight, mounts),
        None if of_hold.is_some() => of_hold.unwrap_or_default(),
        None if event.file.ino == 0 => "a file that was not found".to_owned(),
        None if event.name.is_empty() => {
            let (major, minor) = event.file.device();
            format!("inode {} on {major}:{minor} (gone)", event.file.ino)
        }
        None => format!("{} (gone)", event.name),
    };
    Ok(Notice {
        time: probe::boot_to_wall_offset() + event.time,
        cause: event.torn.as_ref().map(find_cause).unwrap_or_default(),
        event,
        path,
    })
}
