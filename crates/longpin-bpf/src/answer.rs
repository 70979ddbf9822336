//! What an inode itself says of who else may write to its file: of all namespaces, and of the kernel itself.

use libbpf_rs::{MapCore, MapFlags};

use crate::BpfError;
use crate::hooks::requests;
use crate::pinned::Pinned;
use crate::shared::{self, FileId};

/// `struct answer` in bpf/shared.h.
const LEN: usize = 296;
/// `MAX_MAPPERS`.
const MAX_MAPPERS: usize = 8;
/// Where they begin, and how long each is.
const MAPPERS: usize = 64;
const MAPPER: usize = 24;
/// `S_SWAPFILE`.
const SWAPFILE: u32 = 1 << 8;

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The kernel swaps to the file.
    pub swap: bool,
    /// Who maps the file shared and writable: process id in the initial namespace and name. The id is 0 where the
    /// kernel names nobody.
    pub mappers: Vec<(u32, String)>,
    /// Every mapping that may be written through was met.
    pub all_mappings: bool,
    /// Open files that may write to it, as the kernel counts them.
    pub writers: u64,
    /// Those of them that were met.
    pub openings: u64,
}

impl Pinned {
    /// Who maps the file, and how many open files may write to it. One command at a time.
    ///
    /// # Errors
    ///
    /// [`BpfError::Run`] or [`BpfError::Table`].
    pub fn ask_inode(&self, file: &FileId) -> Result<Answer, BpfError> {
        for key in self.openings.keys() {
            // Ours alone: it cannot be gone.
            let _ = self.openings.delete(&key);
        }
        self.run(requests::ASK_INODE, &[file.inode])?;
        self.read_answer()
    }

    /// The same after a look at the descriptors of every task.
    ///
    /// # Errors
    ///
    /// [`BpfError::Run`] or [`BpfError::Table`].
    pub fn count_openings(&self) -> Result<Answer, BpfError> {
        self.run(requests::COUNT_OPENINGS, &[0])?;
        self.read_answer()
    }

    fn read_answer(&self) -> Result<Answer, BpfError> {
        let table = "answers";
        let value = self.answers.lookup(&0_u32.to_ne_bytes(), MapFlags::ANY);
        let value = value.map_err(|source| BpfError::Table { table, source })?;
        let answer = value.as_deref().and_then(parse);
        answer.ok_or(BpfError::Run {
            program: requests::ASK_INODE,
            source: std::io::ErrorKind::InvalidData.into(),
        })
    }
}

fn parse(value: &[u8]) -> Option<Answer> {
    if value.len() != LEN {
        return None;
    }
    let number = |at: usize| shared::u64_at(value, at * 8);
    let signed = |at: usize| i64::from_ne_bytes(number(at).to_ne_bytes());
    let (seen, sealed) = (number(2), number(3));
    let count = u64::try_from(signed(0)).unwrap_or(0);
    let mappers = usize::try_from(number(4)).unwrap_or(usize::MAX);
    let mapper = |n: usize| &value[MAPPERS + n * MAPPER..][..MAPPER];
    let name = |it: &[u8]| (shared::u32_at(it, 0), shared::text(&it[8..]));
    let mut named: Vec<_> = (0..mappers.min(MAX_MAPPERS))
        .map(|n| name(mapper(n)))
        .collect();
    named.sort();
    named.dedup();
    Some(Answer {
        swap: shared::u32_at(value, 56) & SWAPFILE != 0,
        mappers: named,
        // Before 6.7 the kernel also counts those that a seal keeps from writing.
        all_mappings: signed(0) == signed(1)
            && (count == seen || count == seen + sealed)
            && shared::u32_at(value, 60) != 0,
        writers: u64::try_from(signed(5)).unwrap_or(0),
        openings: number(6),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(words: &[(usize, u64)]) -> Answer {
        let mut value = vec![0; LEN];
        for (at, word) in words {
            value[at * 8..at * 8 + 8].copy_from_slice(&word.to_ne_bytes());
        }
        parse(&value).unwrap()
    }

    #[test]
    fn what_was_not_met_is_told() {
        let finished = (7, 1 << 32 | u64::from(SWAPFILE));
        let found = answer(&[(0, 2), (1, 2), (2, 2), finished]);
        assert!(found.all_mappings && found.swap);
        assert!(!answer(&[(0, 2), (1, 2), (2, 1), finished]).all_mappings);
        assert!(answer(&[(0, 2), (1, 2), (2, 1), (3, 1), finished]).all_mappings);
        assert!(!answer(&[(0, 2), (1, 3), (2, 2), finished]).all_mappings);
        assert!(!answer(&[]).all_mappings);
        // Sealed: nobody may map it for writing.
        let sealed = u64::MAX;
        assert!(answer(&[(0, sealed), (1, sealed), finished]).all_mappings);
    }
}
