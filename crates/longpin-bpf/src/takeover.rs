//! Explicit holds that go from one set of programs to another, and stand all the time: both sets refuse meanwhile.
//!
//! What ends meanwhile ends in the old set, and in the new one as far as that knows of it already: so the tokens come
//! first, whose ends each set sees for itself, then the rows, and what the old set has ended by then is taken back at last.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use crate::explicit::Entered;
use crate::hooks::requests;
use crate::pinned::Pinned;
use crate::shared::{Level, Row};
use crate::types::{event_kind, rules_word};
use crate::{BpfError, STRICT_HOLDS};

impl Pinned {
    /// The number of the last row.
    #[must_use]
    pub fn last_row(&self) -> u64 {
        self.state().next_row.load(Ordering::Acquire)
    }

    /// Enter the explicit holds of `old`, in programs that refuse nobody yet and have none, and what was said of single files.
    /// How many; `Err` inside: the tables are full.
    ///
    /// # Errors
    ///
    /// [`BpfError::Table`] or [`BpfError::Run`].
    pub fn adopt(&self, old: &Self) -> Result<Result<u32, Entered>, BpfError> {
        self.adopt_file_rules(old)?;
        self.adopt_tokens(old)?;
        let mut seen = HashSet::new();
        for row in old.rows()? {
            // A table that changes while it is read may tell an entry twice.
            if row.explicit.is_some() && seen.insert(row.id) && !self.adopt_row(old, &row)? {
                return Ok(Err(Entered::NoRoom));
            }
        }
        self.drop_ended_in(old)?;
        Ok(Ok(u32::try_from(seen.len()).unwrap_or(u32::MAX)))
    }

    /// Counted first and listed then: one that ends in between has a row here, and none in the old set.
    fn adopt_row(&self, old: &Self, row: &Row) -> Result<bool, BpfError> {
        if row.explicit == Some(Level::Swapfile) {
            self.state().strict.fetch_or(STRICT_HOLDS, Ordering::AcqRel);
        }
        let enter = |id: u64| {
            let arguments = [
                row.file.inode,
                row.caller,
                row.tgid.into(),
                row.level.0.into(),
                row.first,
                row.last,
                row.file.ino,
                row.file.dev.into(),
                row.file.generation.into(),
                id,
            ];
            self.run(requests::ADOPT, &arguments)
        };
        let key = row.key();
        let Some(value) = old.rows.get(&key)? else {
            return Ok(true);
        };
        if enter(row.id)? != 0 {
            return Ok(false);
        }
        self.rows.set(&key, &value)?;
        Ok(enter(0)? == 0)
    }

    fn adopt_file_rules(&self, old: &Self) -> Result<(), BpfError> {
        for (file, rule) in old.file_rules.all(|file, rule| (*file, *rule))? {
            self.file_rules.set(&file, &rule)?;
            let word = &self.state().rules;
            word.fetch_or(rules_word::RULES_FILES.0, Ordering::AcqRel);
        }
        Ok(())
    }

    /// From the moment a token is entered its end is seen here; what ended before that is taken out again.
    fn adopt_tokens(&self, old: &Self) -> Result<(), BpfError> {
        let tokens = old.tokens.all(|token, hold| (*token, *hold))?;
        let count = &self.state().tokens;
        count.fetch_add(tokens.len() as u64, Ordering::AcqRel);
        for (token, hold) in &tokens {
            self.tokens.set(token, hold)?;
        }
        let left: HashSet<u64> = old.tokens.keys().collect();
        for (token, _) in tokens.iter().filter(|(token, _)| !left.contains(token)) {
            if self.tokens.remove(token)? {
                count.fetch_sub(1, Ordering::AcqRel);
            }
        }
        Ok(())
    }

    /// End here what ended in `old` before it was whole here; what ends from now on, both see.
    fn drop_ended_in(&self, old: &Self) -> Result<(), BpfError> {
        for row in self.rows()?.iter().filter(|row| row.explicit.is_some()) {
            if old.rows.get(&row.key())?.is_none() {
                self.end(row, event_kind::EVENT_ENDED)?;
            }
        }
        Ok(())
    }
}
