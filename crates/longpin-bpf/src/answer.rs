//! What an inode itself says of who else may write to its file: of all namespaces, and of the kernel itself.

use crate::BpfError;
use crate::hooks::requests;
use crate::pinned::Pinned;
use crate::shared::{FileId, text};
use crate::types;

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
            self.openings.remove(&key)?;
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
        let answer = self.answers.get(&0)?.as_ref().map(Answer::of);
        answer.ok_or(BpfError::Run {
            program: requests::ASK_INODE,
            source: std::io::ErrorKind::InvalidData.into(),
        })
    }
}

impl Answer {
    fn of(value: &types::answer) -> Self {
        let count = u64::try_from(value.shared).unwrap_or(0);
        let met = usize::try_from(value.mappers).unwrap_or(usize::MAX);
        let mappers = value.mapper.iter().take(met);
        let mut mappers: Vec<_> = mappers.map(|it| (it.tgid, text(&it.comm))).collect();
        mappers.sort();
        mappers.dedup();
        Self {
            swap: value.flags & SWAPFILE != 0,
            mappers,
            // Before 6.7 the kernel also counts those that a seal keeps from writing.
            all_mappings: value.shared == value.shared_after
                && (count == value.seen || count == value.seen + value.seen_sealed)
                && value.finished != 0,
            writers: u64::try_from(value.writers).unwrap_or(0),
            openings: value.openings,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;

    use super::*;

    #[test]
    fn what_was_not_met_is_told() {
        let met = |shared, shared_after, seen, seen_sealed| {
            let value = types::answer {
                shared,
                shared_after,
                seen,
                seen_sealed,
                flags: SWAPFILE,
                finished: 1,
                ..Zeroable::zeroed()
            };
            Answer::of(&value)
        };
        let found = met(2, 2, 2, 0);
        assert!(found.all_mappings && found.swap);
        assert!(!met(2, 2, 1, 0).all_mappings);
        assert!(met(2, 2, 1, 1).all_mappings);
        assert!(!met(2, 3, 2, 0).all_mappings);
        assert!(!Answer::of(&types::answer::zeroed()).all_mappings);
        // Sealed: nobody may map it for writing.
        assert!(met(-1, -1, 0, 0).all_mappings);
    }
}
