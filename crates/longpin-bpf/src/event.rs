//! The last events, as the programs left them in their ring.

use std::time::Duration;

use crate::shared::{FileId, SHORT_NAME_LEN, Verdict, identity, text, u32_at, u64_at};

/// How many events are kept.
pub const MAX_EVENTS: u64 = 1024;
/// Bytes of `struct event`.
const EVENT_LEN: usize = 192;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// A hold began.
    Held,
    /// A hold ended: nothing of its range is pinned any more.
    Ended,
    /// A page left its file while it was pinned.
    Broken,
    /// An operation was refused.
    Refused,
    /// An operation would have been refused, but the guard only records.
    WouldRefuse,
    /// An operation was let through by rule.
    Exempted,
    /// A process was killed because it pinned what may not be pinned.
    Denied,
    /// A pin is no hold.
    NotHeld,
    /// A hold was released by an administrator.
    Released,
}

impl EventKind {
    const ALL: [Self; 9] = [
        Self::Held,
        Self::Ended,
        Self::Broken,
        Self::Refused,
        Self::WouldRefuse,
        Self::Exempted,
        Self::Denied,
        Self::NotHeld,
        Self::Released,
    ];
}

/// What somebody did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A long-term pin.
    Pin,
    /// Shrinking to this size.
    Truncate(u64),
    /// `fallocate(2)` with this mode.
    Fallocate(u64),
    /// A clone of blocks.
    Clone,
    /// `copy_file_range(2)`.
    Copy,
    /// A deduplication.
    Dedupe,
    /// A write through a descriptor with O_DIRECT.
    DirectWrite,
    /// `ioctl(2)` with this command.
    Ioctl(u64),
    /// `umount(2)`.
    Umount,
    /// A remount.
    Remount,
    /// A write in this system call, to a file held at level swapfile.
    Write(i64),
    /// A shared and writable mapping.
    Mmap,
    /// A shared mapping, made writable.
    Mprotect,
    /// A name that goes away.
    Unlink,
    /// A name that moves, or is taken by another file.
    Rename,
    /// `execve(2)`.
    Exec,
    /// `swapon(2)`.
    Swapon,
    /// A writable loop device.
    Loop,
    /// A page left the page cache in this system call (-1: not known).
    Removal(i64),
    /// Something in this system call (-1: not known), whose arguments were not seen.
    Unknown(i64),
}

impl Operation {
    const fn from_numbers(operation: u32, detail: u64) -> Self {
        match operation {
            1 => Self::Pin,
            2 => Self::Truncate(detail),
            3 => Self::Fallocate(detail),
            4 => Self::Clone,
            5 => Self::Copy,
            6 => Self::Dedupe,
            7 => Self::DirectWrite,
            8 => Self::Ioctl(detail),
            9 => Self::Umount,
            10 => Self::Remount,
            13 => Self::Write(i64::from_ne_bytes(detail.to_ne_bytes())),
            14 => Self::Mmap,
            15 => Self::Mprotect,
            16 => Self::Unlink,
            17 => Self::Rename,
            18 => Self::Exec,
            20 => Self::Swapon,
            21 => Self::Loop,
            12 => Self::Removal(i64::from_ne_bytes(detail.to_ne_bytes())),
            _ => Self::Unknown(i64::from_ne_bytes(detail.to_ne_bytes())),
        }
    }
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its number, from 0.
    pub number: u64,
    /// Boot time.
    pub time: Duration,
    /// What happened.
    pub kind: EventKind,
    /// What somebody did.
    pub operation: Operation,
    /// Who: process.
    pub tgid: u32,
    /// Who: user.
    pub uid: u32,
    /// Who: command.
    pub command: String,
    /// The file.
    pub file: FileId,
    /// Its name, without directories.
    pub name: String,
    /// Page indexes of the operation's range, both inclusive.
    pub range: (u64, u64),
    /// The first pinned page that it met.
    pub page: u64,
    /// The row: 0 where none is known.
    pub row: u64,
    /// Whether the pin is a hold.
    pub verdict: Verdict,
}

/// An event from its slot; `None` when the slot holds another one, or is being written.
pub(crate) fn parse_event(value: &[u8], number: u64) -> Option<Event> {
    if value.len() != EVENT_LEN
        || u64_at(value, 0) != number + 1
        || u64_at(value, 184) != number + 1
    {
        return None;
    }
    let kind = EventKind::ALL.get((u32_at(value, 16) as usize).checked_sub(1)?)?;
    Some(Event {
        number,
        time: Duration::from_nanos(u64_at(value, 8)),
        kind: *kind,
        operation: Operation::from_numbers(u32_at(value, 20), u64_at(value, 24)),
        tgid: u32_at(value, 32),
        uid: u32_at(value, 36),
        file: identity(u64_at(value, 40), &value[48..64]),
        range: (u64_at(value, 64), u64_at(value, 72)),
        page: u64_at(value, 80),
        row: u64_at(value, 88),
        verdict: Verdict::from_number(u32_at(value, 96)),
        command: text(&value[104..120]),
        name: text(&value[120..120 + SHORT_NAME_LEN]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_whole_or_it_is_none() {
        let mut value = [0u8; EVENT_LEN];
        value[0..8].copy_from_slice(&6_u64.to_ne_bytes());
        value[16..20].copy_from_slice(&4_u32.to_ne_bytes());
        value[20..24].copy_from_slice(&2_u32.to_ne_bytes());
        value[24..32].copy_from_slice(&4096_u64.to_ne_bytes());
        value[120..123].copy_from_slice(b"f.w");
        assert_eq!(parse_event(&value, 5), None, "its end is not there yet");
        value[184..192].copy_from_slice(&6_u64.to_ne_bytes());
        assert_eq!(parse_event(&value, 4), None, "another event");
        let event = parse_event(&value, 5).unwrap();
        assert_eq!(event.kind, EventKind::Refused);
        assert_eq!(event.operation, Operation::Truncate(4096));
        assert_eq!(event.name, "f.w");
    }
}
