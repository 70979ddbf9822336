//! Explicit holds that go from one set of programs to another, and stand all the time: both sets refuse meanwhile.
//!
//! What ends meanwhile ends in the old set, and in the new one as far as that knows of it already: so the tokens come
//! first, whose ends each set sees for itself, then the rows, and what the old set has ended since is taken back at last.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use crate::explicit::Entered;
use crate::hooks::requests;
use crate::pinned::Pinned;
use crate::shared::{Level, Row, Verdict};
use crate::types::event_kind;
use crate::{BpfError, STRICT_HOLDS};

impl Pinned {
    /// Enter the explicit holds of `old`, in programs that refuse nobody yet and have none. How many; `Err` inside: the
    /// tables are full.
    ///
    /// # Errors
    ///
    /// [`BpfError::Table`] or [`BpfError::Run`].
    pub fn adopt(&self, old: &Self) -> Result<Result<u32, Entered>, BpfError> {
        self.adopt_tokens(old)?;
        // What is not judged yet has not begun: its command has gone, or it would have the turn.
        let stands = |row: &Row| row.explicit.is_some() && row.verdict == Verdict::Held;
        let rows: Vec<Row> = old.rows()?.into_iter().filter(stands).collect();
        let mut entered = 0;
        for key in rows.iter().map(Row::key) {
            if let Some(row) = old.rows.get(&key)? {
                self.rows.set(&key, &row)?;
                entered += 1;
            }
        }
        if self.run(requests::ADOPT, &[])? != entered {
            return Ok(Err(Entered::NoRoom));
        }
        if rows.iter().any(|row| row.explicit == Some(Level::Swapfile)) {
            self.state().strict.fetch_or(STRICT_HOLDS, Ordering::AcqRel);
        }
        Ok(Ok(entered))
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

    /// End here what has ended in `old` since [`Self::adopt`].
    ///
    /// # Errors
    ///
    /// [`BpfError::Table`] or [`BpfError::Run`].
    pub fn drop_ended_in(&self, old: &Self) -> Result<(), BpfError> {
        for row in self.rows()?.iter().filter(|row| row.explicit.is_some()) {
            if old.rows.get(&row.key())?.is_none() {
                self.end(row, event_kind::EVENT_ENDED)?;
            }
        }
        Ok(())
    }
}
