//! Every byte that was moved, accounted for.

use std::fmt;

use longpin_tests::history::{Change, Content, Found, History, Span, Violation, Wrong};

use super::words::{Did, Transfer};

/// What was seen of the whole file on its own host.
pub(super) struct Look {
    pub(super) at: &'static str,
    pub(super) span: Span,
    pub(super) found: Vec<Found>,
}

/// What came of a round.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// Pages that the client read, and wrote.
    pub(super) read: u64,
    pub(super) wrote: u64,
    /// Those of its reads that met a change under way.
    pub(super) torn: usize,
    /// Transfers that failed, as they might.
    pub(super) failed: usize,
    pub(super) transfers: usize,
    /// Operations that were refused.
    pub(super) refused: usize,
    /// What cannot be: seen by whom, and what.
    pub(super) wrong: Vec<(&'static str, Violation)>,
    /// Failures that should not have been.
    pub(super) errors: Vec<String>,
}

impl Account {
    pub(super) fn close(
        mut history: History,
        transfers: &[Transfer],
        looks: &[Look],
        refused: usize,
    ) -> Self {
        for transfer in transfers {
            if let Some(change) = change_by(transfer) {
                history.record(change);
            }
        }
        let mut account = Self {
            transfers: transfers.len(),
            refused,
            ..Self::default()
        };
        for transfer in transfers {
            account.add(&history, transfer);
        }
        for look in looks {
            account.check(&history, look.at, look.span, (0..).zip(&look.found));
        }
        account
    }

    fn add(&mut self, history: &History, transfer: &Transfer) {
        let (span, pages) = (transfer.span, transfer.pages.clone());
        match &transfer.did {
            Did::Wrote(_) => self.wrote += pages.end - pages.start,
            Did::Read(found) => {
                self.read += pages.end - pages.start;
                let mixed = |it: &&Found| matches!(it, Found::Mixed(_));
                self.torn += found.iter().filter(mixed).count();
                self.check(history, "the client", span, pages.zip(found));
            }
            Did::Failed { refused, error, .. } => {
                self.failed += 1;
                if !refused || !history.may_fail(pages.clone(), span) {
                    self.errors
                        .push(format!("pages {pages:?}, {span:?}: {error}"));
                }
            }
        }
    }

    fn check<'a>(
        &mut self,
        history: &History,
        who: &'static str,
        span: Span,
        found: impl Iterator<Item = (u64, &'a Found)>,
    ) {
        let checked = found.map(|(page, found)| history.check(page, span, found));
        let wrong = checked.filter_map(Result::err);
        self.wrong.extend(wrong.map(|it| (who, it)));
    }

    /// How often somebody saw what was right at another time.
    pub(super) fn stale(&self, by: &str) -> usize {
        let stale = |(who, it): &&(&str, Violation)| *who == by && it.wrong == Wrong::Stale;
        self.wrong.iter().filter(stale).count()
    }

    pub(super) fn is_right(&self) -> bool {
        self.wrong.is_empty() && self.errors.is_empty()
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} transfers: {} pages read ({} torn), {} written, {} failed; {} operations refused",
            self.transfers, self.read, self.torn, self.wrote, self.failed, self.refused
        )?;
        let (wrong, errors) = (self.wrong.len(), self.errors.len());
        write!(f, "; {wrong} looks and {errors} failures that cannot be")?;
        for (who, violation) in self.wrong.iter().take(3) {
            write!(f, "; {who}: {violation}")?;
        }
        self.errors
            .iter()
            .take(3)
            .try_for_each(|it| write!(f, "; {it}"))
    }
}

/// What a transfer made of the file.
fn change_by(transfer: &Transfer) -> Option<Change> {
    let (seed, span, sure) = match transfer.did {
        Did::Wrote(seed) => (seed, transfer.span, true),
        Did::Failed {
            wrote: Some(seed),
            settled,
            ..
        } => {
            let began = transfer.span.began;
            let ended = settled;
            (seed, Span { began, ended }, false)
        }
        _ => return None,
    };
    Some(Change {
        content: Content::Generation(seed),
        pages: transfer.pages.clone(),
        span,
        sure,
    })
}
