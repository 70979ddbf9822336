//! The last events, as the programs left them in their ring.

use std::time::Duration;

use crate::shared::{FileId, SHORT_NAME_LEN, STACK_DEPTH, Verdict, identity, text, u32_at, u64_at};

/// How many events are kept.
pub const MAX_EVENTS: u64 = 1024;
/// Bytes of `struct event`.
const EVENT_LEN: usize = 288;

/// Where its `end` lies.
const END: usize = 280;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// A hold began.
    Held,
    /// A hold ended: nothing of its range is pinned any more.
    Ended,
    /// A page left its file while it was pinned; or the file of an explicit hold went, which has ended with it.
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
    /// The kernel took a range back from an on-demand region.
    TornDown,
}

impl EventKind {
    const ALL: [Self; 10] = [
        Self::Held,
        Self::Ended,
        Self::Broken,
        Self::Refused,
        Self::WouldRefuse,
        Self::Exempted,
        Self::Denied,
        Self::NotHeld,
        Self::Released,
        Self::TornDown,
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
    /// What took pages back from an on-demand region, in this system call (-1: not known).
    Teardown(i64),
    /// The file of an explicit hold lost its last name and went, in this system call (-1: not known).
    FileGone(i64),
    /// A file system ended, in this system call (-1: not known).
    End(i64),
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
            22 => Self::Teardown(i64::from_ne_bytes(detail.to_ne_bytes())),
            23 => Self::FileGone(i64::from_ne_bytes(detail.to_ne_bytes())),
            24 => Self::End(i64::from_ne_bytes(detail.to_ne_bytes())),
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
    /// Of [`EventKind::TornDown`]: more about it.
    pub torn: Option<Torn>,
}

/// An on-demand region of which something was taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Torn {
    /// The process whose region it is.
    pub owner: u32,
    /// Its command.
    pub command: String,
    /// `enum mmu_notifier_event`.
    pub notice: u32,
    /// How many such events of this region were not told, since the one before.
    pub untold: u64,
    /// The kernel stack of the act, innermost first, 0 past its end.
    pub stack: [u64; STACK_DEPTH],
}

fn parse_torn(value: &[u8]) -> Torn {
    Torn {
        owner: u32_at(value, 184),
        notice: u32_at(value, 188),
        untold: u64_at(value, 192),
        command: text(&value[200..216]),
        stack: std::array::from_fn(|i| u64_at(value, 216 + 8 * i)),
    }
}

/// An event from its slot; `None` when the slot holds another one, or is being written.
pub(crate) fn parse_event(value: &[u8], number: u64) -> Option<Event> {
    if value.len() != EVENT_LEN
        || u64_at(value, 0) != number + 1
        || u64_at(value, END) != number + 1
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
        torn: (*kind == EventKind::TornDown).then(|| parse_torn(value)),
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
        value[END..].copy_from_slice(&6_u64.to_ne_bytes());
        assert_eq!(parse_event(&value, 4), None, "another event");
        let event = parse_event(&value, 5).unwrap();
        assert_eq!(event.kind, EventKind::Refused);
        assert_eq!(event.operation, Operation::Truncate(4096));
        assert_eq!(event.name, "f.w");
        assert_eq!(event.torn, None);
    }

    #[test]
    fn a_teardown_says_whose_region_it_was() {
        let mut value = [0u8; EVENT_LEN];
        value[0..8].copy_from_slice(&1_u64.to_ne_bytes());
        value[16..20].copy_from_slice(&10_u32.to_ne_bytes());
        value[20..24].copy_from_slice(&22_u32.to_ne_bytes());
        value[24..32].copy_from_slice(&76_u64.to_ne_bytes());
        value[184..188].copy_from_slice(&77_u32.to_ne_bytes());
        value[188..192].copy_from_slice(&1_u32.to_ne_bytes());
        value[192..200].copy_from_slice(&3_u64.to_ne_bytes());
        value[200..205].copy_from_slice(b"train");
        value[272..280].copy_from_slice(&9_u64.to_ne_bytes());
        value[END..].copy_from_slice(&1_u64.to_ne_bytes());
        let event = parse_event(&value, 0).unwrap();
        assert_eq!(event.kind, EventKind::TornDown);
        assert_eq!(event.operation, Operation::Teardown(76));
        let torn = event.torn.unwrap();
        assert_eq!((torn.owner, torn.notice, torn.untold), (77, 1, 3));
        assert_eq!((torn.command.as_str(), torn.stack[7]), ("train", 9));
    }
}
