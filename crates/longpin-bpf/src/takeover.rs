//! Explicit holds that go from one set of programs to another, and stand all the time: both sets refuse meanwhile.
//!
//! What ends meanwhile ends in the old set, and in the new one as far as that knows of it already: so the tokens come
//! first, whose ends each set sees for itself, then the rows, and what the old set has ended since is taken back at last.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use libbpf_rs::{MapCore, MapFlags, MapHandle};

use crate::hooks::requests;
use crate::on_pins::EVENT_ENDED;
use crate::pinned::{Pinned, read_table};
use crate::shared::{Level, Row, Verdict};
use crate::{BpfError, STRICT_HOLDS};

/// Key and value, as they lie in the kernel.
type Entry = (Vec<u8>, Vec<u8>);

fn entries(map: &MapHandle, table: &'static str) -> Result<Vec<Entry>, BpfError> {
    read_table(map, table, |key, value| {
        Some((key.to_vec(), value.to_vec()))
    })
}

fn enter(map: &MapHandle, table: &'static str, (key, value): &Entry) -> Result<(), BpfError> {
    map.update(key, value, MapFlags::NO_EXIST)
        .map_err(|source| BpfError::Table { table, source })
}

impl Pinned {
    /// Enter the explicit holds of `old`, in programs that refuse nobody yet and have none. How many.
    ///
    /// # Errors
    ///
    /// [`BpfError::Table`] or [`BpfError::Run`].
    pub fn adopt(&self, old: &Self) -> Result<u32, BpfError> {
        self.adopt_tokens(old)?;
        // What is not judged yet has not begun: its command has gone, or it would have the turn.
        let explicit: HashSet<_> = (old.rows()?.into_iter())
            .filter(|row| row.explicit.is_some() && row.verdict == Verdict::Held)
            .map(|row| row.key.to_vec())
            .collect();
        let mut entered = 0;
        for entry in entries(&old.rows, "rows")? {
            if explicit.contains(&entry.0) {
                enter(&self.rows, "rows", &entry)?;
                entered += 1;
            }
        }
        let adopted = self.run(requests::ADOPT, &[])?;
        if adopted != entered {
            return Err(BpfError::Table {
                table: "explicit_holds",
                source: libbpf_rs::Error::from_raw_os_error(libc::ENOSPC),
            });
        }
        if self.rows()?.iter().any(is_strict) {
            self.state().strict.fetch_or(STRICT_HOLDS, Ordering::AcqRel);
        }
        Ok(adopted)
    }

    /// From the moment a token is entered its end is seen here; what ended before that is taken out again.
    fn adopt_tokens(&self, old: &Self) -> Result<(), BpfError> {
        let tokens = entries(&old.tokens, "tokens")?;
        let count = &self.state().tokens;
        count.fetch_add(tokens.len() as u64, Ordering::AcqRel);
        for token in &tokens {
            enter(&self.tokens, "tokens", token)?;
        }
        let left: HashSet<_> = entries(&old.tokens, "tokens")?.into_iter().collect();
        for (token, _) in tokens.iter().filter(|token| !left.contains(*token)) {
            if self.tokens.delete(token).is_ok() {
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
        let left: HashSet<_> = old.rows()?.into_iter().map(|row| row.key).collect();
        let own = self.rows()?.into_iter();
        for row in own.filter(|row| row.explicit.is_some() && !left.contains(&row.key)) {
            self.end(&row, EVENT_ENDED)?;
        }
        Ok(())
    }
}

fn is_strict(row: &Row) -> bool {
    row.explicit == Some(Level::Swapfile)
}
