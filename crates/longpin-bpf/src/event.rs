//! The last events, as the programs left them in their ring.

use std::time::Duration;

use crate::shared::{FileId, STACK_DEPTH, Verdict, text};
use crate::types::{self, constant, event_kind, operation};

/// How many events are kept.
pub const MAX_EVENTS: u64 = constant::MAX_EVENTS.0 as u64;

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
    /// `None`: this build does not know it.
    const fn of(number: event_kind) -> Option<Self> {
        Some(match number {
            event_kind::EVENT_HELD => Self::Held,
            event_kind::EVENT_ENDED => Self::Ended,
            event_kind::EVENT_BROKEN => Self::Broken,
            event_kind::EVENT_REFUSED => Self::Refused,
            event_kind::EVENT_WOULD_REFUSE => Self::WouldRefuse,
            event_kind::EVENT_EXEMPTED => Self::Exempted,
            event_kind::EVENT_DENIED => Self::Denied,
            event_kind::EVENT_NOT_HELD => Self::NotHeld,
            event_kind::EVENT_RELEASED => Self::Released,
            event_kind::EVENT_TORN => Self::TornDown,
            _ => return None,
        })
    }
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
    const fn of(number: operation, detail: u64) -> Self {
        let call = i64::from_ne_bytes(detail.to_ne_bytes());
        match number {
            operation::OP_PIN => Self::Pin,
            operation::OP_TRUNCATE => Self::Truncate(detail),
            operation::OP_FALLOCATE => Self::Fallocate(detail),
            operation::OP_CLONE => Self::Clone,
            operation::OP_COPY => Self::Copy,
            operation::OP_DEDUPE => Self::Dedupe,
            operation::OP_DIRECT_WRITE => Self::DirectWrite,
            operation::OP_IOCTL => Self::Ioctl(detail),
            operation::OP_UMOUNT => Self::Umount,
            operation::OP_REMOUNT => Self::Remount,
            operation::OP_REMOVAL => Self::Removal(call),
            operation::OP_WRITE => Self::Write(call),
            operation::OP_MMAP => Self::Mmap,
            operation::OP_MPROTECT => Self::Mprotect,
            operation::OP_UNLINK => Self::Unlink,
            operation::OP_RENAME => Self::Rename,
            operation::OP_EXEC => Self::Exec,
            operation::OP_SWAPON => Self::Swapon,
            operation::OP_LOOP => Self::Loop,
            operation::OP_TEARDOWN => Self::Teardown(call),
            operation::OP_FILE_GONE => Self::FileGone(call),
            operation::OP_END => Self::End(call),
            _ => Self::Unknown(call),
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

impl Torn {
    fn of(value: &types::event) -> Self {
        Self {
            owner: value.owner,
            command: text(&value.owner_comm),
            notice: value.notice,
            untold: value.untold,
            stack: value.stack,
        }
    }
}

impl Event {
    /// What is in a slot; `None` when that is another one, or is being written.
    pub(crate) fn of(value: &types::event, number: u64) -> Option<Self> {
        if (value.seq, value.end) != (number + 1, number + 1) {
            return None;
        }
        let kind = EventKind::of(value.kind)?;
        Some(Self {
            number,
            time: Duration::from_nanos(value.time),
            kind,
            operation: Operation::of(value.operation, value.detail),
            tgid: value.tgid,
            uid: value.uid,
            command: text(&value.comm),
            file: FileId::of(value.inode, &value.file),
            name: text(&value.name),
            range: (value.first, value.last),
            page: value.page,
            row: value.row,
            verdict: Verdict::of(value.verdict),
            torn: (kind == EventKind::TornDown).then(|| Torn::of(value)),
        })
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;

    use super::*;

    #[test]
    fn an_event_is_whole_or_it_is_none() {
        let mut value = types::event {
            seq: 6,
            kind: event_kind::EVENT_REFUSED,
            operation: operation::OP_TRUNCATE,
            detail: 4096,
            ..Zeroable::zeroed()
        };
        assert_eq!(Event::of(&value, 5), None, "its end is not there yet");
        value.end = 6;
        assert_eq!(Event::of(&value, 4), None, "another event");
        let event = Event::of(&value, 5).unwrap();
        assert_eq!(event.kind, EventKind::Refused);
        assert_eq!(event.operation, Operation::Truncate(4096));
        assert_eq!(event.torn, None);
        value.kind = event_kind(11);
        assert_eq!(Event::of(&value, 5), None, "of a kind to come");
    }

    #[test]
    fn a_teardown_says_whose_region_it_was() {
        let value = types::event {
            seq: 1,
            end: 1,
            kind: event_kind::EVENT_TORN,
            operation: operation::OP_TEARDOWN,
            detail: u64::MAX,
            owner: 77,
            ..Zeroable::zeroed()
        };
        let event = Event::of(&value, 0).unwrap();
        assert_eq!(event.operation, Operation::Teardown(-1));
        assert_eq!(event.torn.unwrap().owner, 77);
    }
}
