//! Operations by way of a mapping, which was there before the file was swapped to, or held, or is made after.

use anyhow::Result;
use longpin_tests::PAGE;
use longpin_tests::mapping::Mapping;
use longpin_tests::operations::Victim;
use longpin_tests::stores::{Access, Answer, in_child, read_into};
use rustix::io::Errno;
use rustix::mm::Advice;

/// An operation, and the mapping that it needs.
pub(super) struct Mapped {
    pub(super) name: &'static str,
    /// Whether the mapping is there before.
    pub(super) older: bool,
    kind: Kind,
    act: fn(&Mapping) -> Result<Answer>,
}

#[derive(Clone, Copy)]
enum Kind {
    /// `MAP_SHARED`, `PROT_READ | PROT_WRITE`.
    Writable,
    /// `MAP_SHARED`, `PROT_READ`, of a descriptor that may be written to.
    ReadOnly,
    /// `MAP_PRIVATE`, `PROT_READ | PROT_WRITE`.
    Private,
}

impl Mapped {
    /// Of the victim's first page: a mapping, or why there is none.
    pub(super) fn map(&self, victim: &Victim<'_>) -> Result<Result<Mapping, Errno>> {
        let file = victim.file()?;
        Ok(match self.kind {
            Kind::Writable => Mapping::shared(file, 0, PAGE, true),
            Kind::ReadOnly => Mapping::shared(file, 0, PAGE, false),
            Kind::Private => Mapping::private(file, 0, PAGE),
        })
    }

    pub(super) fn act(&self, mapping: &Mapping) -> Result<Answer> {
        (self.act)(mapping)
    }
}

const fn older(name: &'static str, kind: Kind, act: fn(&Mapping) -> Result<Answer>) -> Mapped {
    Mapped {
        name,
        older: true,
        kind,
        act,
    }
}

const fn newer(name: &'static str, kind: Kind, act: fn(&Mapping) -> Result<Answer>) -> Mapped {
    Mapped {
        older: false,
        ..older(name, kind, act)
    }
}

pub(super) const ALL: &[Mapped] = &[
    newer("mmap shared, writable: store", Kind::Writable, store),
    newer("mmap shared, read-only: load", Kind::ReadOnly, load),
    newer(
        "mmap shared, read-only: mprotect, store",
        Kind::ReadOnly,
        protect_and_store,
    ),
    newer("mmap private: store", Kind::Private, store),
    older("older writable mapping: load", Kind::Writable, load),
    older("older writable mapping: store", Kind::Writable, store),
    older(
        "older writable mapping: read(2) into",
        Kind::Writable,
        |m| Ok(read_into(m)?),
    ),
    older(
        "older writable mapping: MADV_POPULATE_WRITE",
        Kind::Writable,
        |m| Ok(m.advise(0..PAGE, Advice::LinuxPopulateWrite).into()),
    ),
    older("older writable mapping: MADV_REMOVE", Kind::Writable, |m| {
        Ok(m.remove().into())
    }),
    older("older read-only mapping: load", Kind::ReadOnly, load),
    older(
        "older read-only mapping: mprotect, store",
        Kind::ReadOnly,
        protect_and_store,
    ),
    older("older private mapping: store", Kind::Private, store),
];

fn load(mapping: &Mapping) -> Result<Answer> {
    Ok(in_child(mapping, Access::Load)?)
}

fn store(mapping: &Mapping) -> Result<Answer> {
    Ok(in_child(mapping, Access::Store)?)
}

fn protect_and_store(mapping: &Mapping) -> Result<Answer> {
    Ok(in_child(mapping, Access::ProtectAndStore)?)
}
