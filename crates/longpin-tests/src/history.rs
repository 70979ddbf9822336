//! What each page of a file held when, as told by those who changed it; and whether what others saw of it meanwhile can be.
//!
//! Nobody has to stand still for the check. Every change and every look has a beginning and an end, and between the two
//! either may come first, page by page and byte by byte. What began after a change had ended must see it.
//!
//! Times are CLOCK_MONOTONIC, which all processes of a machine share.

use std::fmt;
use std::ops::Range;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::PAGE;
use crate::pattern::Pattern;

/// From when to when something happened, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Before it, it had not begun.
    pub began: u64,
    /// After it, it was done.
    pub ended: u64,
}

impl Span {
    /// Does something, and tells how long that took.
    pub fn of<T>(act: impl FnOnce() -> T) -> (Self, T) {
        let began = now();
        let done = act();
        let ended = now();
        (Self { began, ended }, done)
    }
}

/// The time now.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let (seconds, rest) = (time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs());
    seconds * 1_000_000_000 + rest
}

/// What a page may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// The page of this [`Pattern`], whose seed nobody else has.
    Generation(u64),
    /// A hole, or what a file has grown by.
    Zero,
    /// There is no such page: it is behind the end of the file.
    Gone,
}

impl Content {
    fn byte(self, of: &[u8; PAGE], at: usize) -> Option<u8> {
        match self {
            Self::Generation(_) => Some(of[at]),
            Self::Zero => Some(0),
            Self::Gone => None,
        }
    }
}

/// What somebody found in a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Found {
    /// All of it the page of this pattern.
    Generation(u64),
    /// Zeroes.
    Zero,
    /// Neither: its bytes.
    Mixed(Vec<u8>),
    /// Nothing: it is behind the end of the file.
    Gone,
}

impl Found {
    /// What page `index` of a file holds, by its own words, all of them compared.
    pub fn read(index: u64, page: &[u8]) -> Self {
        let seed = page
            .first_chunk()
            .map_or(0, |head| u64::from_le_bytes(*head));
        if Pattern::new(seed).check(index, page).is_ok() {
            Self::Generation(seed)
        } else if page.iter().all(|byte| *byte == 0) {
            Self::Zero
        } else {
            Self::Mixed(page.to_vec())
        }
    }
}

/// Somebody changed pages.
#[derive(Debug, Clone)]
pub struct Change {
    /// What they hold then.
    pub content: Content,
    /// Which pages.
    pub pages: Range<u64>,
    /// When it was done.
    pub span: Span,
    /// Whether it was done at all; otherwise it may have been, in part.
    pub sure: bool,
}

/// How a page can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// It was right at another time: the file has gone on without whoever looked.
    Stale,
    /// It was never right.
    Foreign,
}

/// A look at a page that cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The page.
    pub page: u64,
    /// How it is wrong.
    pub wrong: Wrong,
    /// When it was looked at.
    pub span: Span,
    /// What was found, in words.
    pub found: String,
    /// What could have been found.
    pub possible: Vec<Content>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { page, wrong, .. } = self;
        write!(f, "page {page} is {wrong:?}: found {}", self.found)?;
        write!(f, ", possible {:?}, {:?}", self.possible, self.span)
    }
}

/// The changes of one file.
#[derive(Debug, Default)]
pub struct History {
    changes: Vec<Change>,
}

impl History {
    /// Adds a change, in any order.
    pub fn record(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// What a page may have held in that time.
    pub fn possible(&self, page: u64, span: Span) -> Vec<Content> {
        let of_page = || self.changes.iter().filter(|it| it.pages.contains(&page));
        let done = of_page().filter(|it| it.sure && it.span.ended <= span.began);
        // What was over before this had begun is gone for good.
        let last = done.map(|it| it.span.began).max().unwrap_or(0);
        let live = of_page().filter(|it| it.span.began <= span.ended && it.span.ended > last);
        live.map(|it| it.content).collect()
    }

    /// Whether a transfer over these pages may have failed: one of them may not have been there.
    pub fn may_fail(&self, mut pages: Range<u64>, span: Span) -> bool {
        pages.any(|page| self.possible(page, span).contains(&Content::Gone))
    }

    /// Whether that can have been found.
    pub fn check(&self, page: u64, span: Span, found: &Found) -> Result<(), Violation> {
        let possible = self.possible(page, span);
        if is_among(page, found, &possible) {
            return Ok(());
        }
        let ever: Vec<_> = self
            .changes
            .iter()
            .filter(|it| it.pages.contains(&page))
            .collect();
        let ever: Vec<_> = ever.iter().map(|it| it.content).collect();
        Err(Violation {
            page,
            wrong: if is_among(page, found, &ever) {
                Wrong::Stale
            } else {
                Wrong::Foreign
            },
            span,
            found: in_words(page, found),
            possible,
        })
    }
}

fn is_among(page: u64, found: &Found, possible: &[Content]) -> bool {
    match found {
        Found::Generation(seed) => possible.contains(&Content::Generation(*seed)),
        Found::Zero => possible.contains(&Content::Zero),
        Found::Gone => possible.contains(&Content::Gone),
        Found::Mixed(bytes) => is_mixture(page, bytes, possible),
    }
}

/// Every byte is that of one content or another: the page was changed while it was looked at.
fn is_mixture(page: u64, bytes: &[u8], possible: &[Content]) -> bool {
    let pages = possible.iter().map(|content| match content {
        Content::Generation(seed) => (*content, Pattern::new(*seed).page(page)),
        other => (*other, [0; PAGE]),
    });
    let pages: Vec<_> = pages.collect();
    let is_known = |at: usize, byte: u8| pages.iter().any(|(it, of)| it.byte(of, at) == Some(byte));
    bytes
        .iter()
        .enumerate()
        .all(|(at, byte)| is_known(at, *byte))
}

fn in_words(page: u64, found: &Found) -> String {
    let Found::Mixed(bytes) = found else {
        return format!("{found:?}");
    };
    let head = Pattern::new(0).check(page, bytes).err();
    head.map_or_else(String::new, |wrong| wrong.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn span(began: u64, ended: u64) -> Span {
        Span { began, ended }
    }

    fn change(content: Content, began: u64, ended: u64, sure: bool) -> Change {
        let (pages, span) = (0..4, span(began, ended));
        Change {
            content,
            pages,
            span,
            sure,
        }
    }

    fn overwritten() -> History {
        let mut history = History::default();
        history.record(change(Content::Generation(1), 0, 1, true));
        history.record(change(Content::Generation(2), 10, 20, true));
        history
    }

    fn wrong(history: &History, when: Span, found: &Found) -> Option<Wrong> {
        history.check(3, when, found).err().map(|it| it.wrong)
    }

    #[test]
    fn what_began_later_must_see_it() {
        let (history, old, new) = (overwritten(), Found::Generation(1), Found::Generation(2));
        assert_eq!(wrong(&history, span(21, 30), &new), None);
        assert_eq!(wrong(&history, span(21, 30), &old), Some(Wrong::Stale));
        assert_eq!(wrong(&history, span(19, 30), &old), None);
        assert_eq!(wrong(&history, span(2, 9), &new), Some(Wrong::Stale));
        assert_eq!(wrong(&history, span(2, 11), &new), None);
        assert_eq!(
            wrong(&history, span(2, 11), &Found::Zero),
            Some(Wrong::Foreign)
        );
    }

    #[test]
    fn a_page_may_be_torn_while_it_changes_and_not_later() {
        let history = overwritten();
        let mut page = Pattern::new(1).page(3);
        page[..1003].copy_from_slice(&Pattern::new(2).page(3)[..1003]);
        let torn = Found::read(3, &page);
        assert!(matches!(torn, Found::Mixed(_)));
        assert_eq!(wrong(&history, span(15, 16), &torn), None);
        assert_eq!(wrong(&history, span(21, 22), &torn), Some(Wrong::Stale));
        page[4000] ^= 1;
        let foreign = Found::read(3, &page);
        assert_eq!(
            wrong(&history, span(15, 16), &foreign),
            Some(Wrong::Foreign)
        );
    }

    #[test]
    fn a_failed_write_may_have_been_done_until_another_is() {
        let mut history = overwritten();
        history.record(change(Content::Generation(3), 30, 40, false));
        for seed in [2, 3] {
            assert_eq!(
                wrong(&history, span(50, 60), &Found::Generation(seed)),
                None
            );
        }
        history.record(change(Content::Gone, 70, 80, true));
        assert_eq!(
            wrong(&history, span(81, 90), &Found::Generation(3)),
            Some(Wrong::Stale)
        );
        assert!(history.may_fail(2..9, span(81, 90)) && !history.may_fail(2..9, span(50, 60)));
        assert_eq!(wrong(&history, span(81, 90), &Found::Gone), None);
    }

    #[test]
    fn whose_page_it_is() {
        let page = Pattern::new(7).page(5);
        assert_eq!(Found::read(5, &page), Found::Generation(7));
        assert!(matches!(Found::read(6, &page), Found::Mixed(_)));
        assert_eq!(Found::read(6, &[0; PAGE]), Found::Zero);
    }
}
