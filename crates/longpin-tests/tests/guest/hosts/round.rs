//! One file offered, read and written from the other host, while on this one everything is done to it.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use longpin_tests::act::{self, Outcome, ftruncate, punch};
use longpin_tests::history::{Change, Content, Found, History, Span};
use longpin_tests::operations::{clone_range, copy_range};
use longpin_tests::pattern::Pattern;
use longpin_tests::scratch::FsKind;
use longpin_tests::{PAGE, PATIENCE};

use super::Hosts;
use super::account::{Account, Look};
use super::words::{Did, Offer, Order, Reply, Request, Said, Traffic, Transfer};
use crate::claims::Dice;
use crate::files::TestFile;
use crate::guard;
use crate::pin::{must_allow, must_allow_soon, must_refuse};

/// Pages of the file.
const PAGES: u64 = 64;
/// What the overwrites write, what is punched, cloned, cut.
const HEAD: Range<u64> = 0..16;
const HOLE: Range<u64> = 16..32;
const CLONE: Range<u64> = 32..48;
pub(super) const TAIL: Range<u64> = 32..PAGES;
const NONE: Range<u64> = 0..0;
/// How many transfers over its pages follow each operation, at least.
const AFTER: usize = 3;
/// Generations between those of two rounds, of which there are fewer.
const ROOM: u64 = 1 << 24;

/// Not the seeds of other tests' files.
static GENERATION: AtomicU64 = AtomicU64::new(1 << 32);

/// How the file is registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Pinned, and the guard holds it: what takes pages away is refused.
    Held,
    /// Pinned, and nobody holds it.
    Unheld,
    /// The device faults: nothing is refused.
    OnDemand,
}

/// The file, and what happens to it.
pub(super) struct Round<'a> {
    hosts: &'a mut Hosts,
    mode: Mode,
    /// The client writes, too.
    writes: bool,
    file: TestFile,
    path: PathBuf,
    history: History,
    transfers: Vec<Transfer>,
    looks: Vec<Look>,
    refused: usize,
}

fn bytes(pages: &Range<u64>) -> (u64, u64) {
    let len = pages.end - pages.start;
    (pages.start * PAGE as u64, len * PAGE as u64)
}

impl<'a> Round<'a> {
    /// `Err` in the answer: the rule by which the plan refuses.
    pub(super) fn begin(
        hosts: &'a mut Hosts,
        kind: FsKind,
        mode: Mode,
    ) -> Result<Result<Self, String>> {
        let (span, file) = Span::of(|| TestFile::new(kind, PAGES * PAGE as u64));
        let file = file?;
        let writes = kind.is_memory() || mode == Mode::OnDemand;
        let offer = Offer {
            path: file.path.clone(),
            writes,
            pinned: mode != Mode::OnDemand,
            held: mode == Mode::Held,
        };
        let window = match hosts.server.ask(&Request::Offer(offer))? {
            Reply::Offered(window) => window,
            Reply::Refused(rule) => return Ok(Err(rule)),
            other => bail!("no region: {other:?}"),
        };
        let generation = GENERATION.fetch_add(ROOM, Ordering::Relaxed);
        hosts.client.tell(&Order::Begin(Traffic {
            window,
            writes,
            generation,
        }))?;
        let path = file.path.clone();
        let mut round = Self {
            hosts,
            mode,
            writes,
            file,
            path,
            history: History::default(),
            transfers: Vec::new(),
            looks: Vec::new(),
            refused: 0,
        };
        let content = Content::Generation(round.file.pattern.seed);
        round.record(content, 0..PAGES, span);
        round.await_traffic(0..PAGES, 0)?;
        Ok(Ok(round))
    }

    fn record(&mut self, content: Content, pages: Range<u64>, span: Span) {
        self.history.record(Change {
            content,
            pages,
            span,
            sure: true,
        });
    }

    /// Everything that may be done to a file.
    pub(super) fn play(&mut self) -> Result<()> {
        self.overwrite(HEAD)?;
        self.step("sync_file_range", &NONE, None, |it| {
            Ok(act::write_back(&it.file.file))
        })?;
        self.punch(&HOLE)?;
        self.overwrite(HOLE)?;
        self.reflink(&CLONE)?;
        self.step("fsync", &NONE, None, |it| {
            Ok(rustix::fs::fsync(&it.file.file))
        })?;
        self.cut_and_grow(TAIL)?;
        self.rename()?;
        self.step("sync", &NONE, None, |it| {
            Ok(rustix::fs::syncfs(&it.file.file))
        })?;
        if !self.file.kind.is_memory() {
            self.look_at_disk()?;
        }
        self.unlink()
    }

    /// By chance, over any pages.
    pub(super) fn storm(&mut self, dice: &mut Dice, steps: usize) -> Result<()> {
        for _ in 0..steps {
            let first = dice.below(PAGES);
            let pages = first..first + 1 + dice.below(PAGES - first);
            match dice.below(7) {
                0 => self.punch(&pages)?,
                1 => self.reflink(&pages)?,
                2 => self.cut_and_grow(first..PAGES)?,
                3 => self.step("fsync", &NONE, None, |it| {
                    Ok(rustix::fs::fsync(&it.file.file))
                })?,
                4 => self.step("sync_file_range", &NONE, None, |it| {
                    Ok(act::write_back(&it.file.file))
                })?,
                _ => self.overwrite(pages)?,
            }
        }
        if !self.file.kind.is_memory() {
            self.look_at_disk()?;
        }
        Ok(())
    }

    fn punch(&mut self, pages: &Range<u64>) -> Result<()> {
        let (offset, len) = bytes(pages);
        self.take("punch", pages, Content::Zero, |it| {
            Ok(punch(&it.file.file, offset, len))
        })
    }

    /// What somebody does who knows nothing of the device: the file is cut, grows, and is written anew.
    pub(super) fn cut_and_grow(&mut self, tail: Range<u64>) -> Result<()> {
        let (short, full) = (tail.start * PAGE as u64, PAGES * PAGE as u64);
        self.take("truncate", &tail, Content::Gone, |it| {
            Ok(ftruncate(&it.file.file, short))
        })?;
        let grown = (self.mode != Mode::Held).then_some(Content::Zero);
        self.step("grow", &tail, grown, |it| {
            Ok(ftruncate(&it.file.file, full))
        })?;
        self.overwrite(tail)
    }

    /// Plain writes in place are nobody's business.
    fn overwrite(&mut self, pages: Range<u64>) -> Result<()> {
        let seed = GENERATION.fetch_add(ROOM, Ordering::Relaxed);
        let content = Some(Content::Generation(seed));
        let data: Vec<u8> = pages
            .clone()
            .flat_map(|it| Pattern::new(seed).page(it))
            .collect();
        self.step("write", &pages, content, |it| {
            let written = it.file.file.write_all_at(&data, bytes(&pages).0);
            Ok(Ok(written?))
        })
    }

    /// Another file's pages come in, by clone on xfs, elsewhere by copy.
    fn reflink(&mut self, pages: &Range<u64>) -> Result<()> {
        let donor = TestFile::new(self.file.kind, PAGES * PAGE as u64)?;
        let content = Content::Generation(donor.pattern.seed);
        let (offset, len) = bytes(pages);
        self.take("reflink", pages, content, |it| match it.file.kind {
            FsKind::Xfs => Ok(clone_range(&donor.file, &it.file.file, offset, len)),
            _ => copy_range(&donor.file, &it.file.file, offset, len),
        })
    }

    fn rename(&mut self) -> Result<()> {
        let to = self.path.with_extension("renamed");
        self.step("rename", &NONE, None, |it| {
            Ok(rustix::fs::rename(&it.path, &to))
        })?;
        self.path = to;
        Ok(())
    }

    /// Allowed as the rename is, and `ls` tells both of a held file.
    fn unlink(&mut self) -> Result<()> {
        self.step("unlink", &NONE, None, |it| Ok(rustix::fs::unlink(&it.path)))?;
        if self.mode == Mode::Held {
            let told = format!("{} (deleted)", self.path.display());
            let listed = guard::must(&["ls"])?;
            ensure!(listed.contains(&told), "no {told}: {listed}");
        }
        Ok(())
    }

    /// Something that takes pages away: refused while the file is held.
    fn take(
        &mut self,
        name: &str,
        pages: &Range<u64>,
        content: Content,
        act: impl FnOnce(&Self) -> Result<Outcome>,
    ) -> Result<()> {
        if self.mode != Mode::Held {
            return self.step(name, pages, Some(content), act);
        }
        self.step(name, pages, None, |it| {
            must_refuse(name, act(it)?)?;
            Ok(Ok(()))
        })?;
        self.refused += 1;
        Ok(())
    }

    /// Something that is allowed; then what it made of the pages is looked at, from here and from the other host.
    fn step(
        &mut self,
        name: &str,
        pages: &Range<u64>,
        content: Option<Content>,
        act: impl FnOnce(&Self) -> Result<Outcome>,
    ) -> Result<()> {
        let (span, done) = Span::of(|| act(self));
        must_allow(name, done?)?;
        if let Some(content) = content {
            self.record(content, pages.clone(), span);
        }
        self.look()?;
        let pages = if pages.is_empty() {
            0..PAGES
        } else {
            pages.clone()
        };
        self.await_traffic(pages, span.ended)
            .with_context(|| format!("after {name}"))
    }

    /// What the file holds, by pread(2).
    fn look(&mut self) -> Result<()> {
        let mut data = vec![0; usize::try_from(PAGES)? * PAGE];
        let (span, read) = Span::of(|| read_up_to_end(&self.file.file, &mut data));
        data.truncate(read?);
        self.keep_look("the file", span, &data);
        Ok(())
    }

    /// What the disk holds once it is written back: a page that the device wrote, and that nobody knew to be dirty, is not
    /// there.
    fn look_at_disk(&mut self) -> Result<()> {
        let (span, data) = Span::of(|| read_past_cache(&self.path));
        self.keep_look("the disk", span, &data?);
        Ok(())
    }

    fn keep_look(&mut self, at: &'static str, span: Span, data: &[u8]) {
        let read = (0..).zip(data.chunks(PAGE));
        let mut found: Vec<_> = read.map(|(index, page)| Found::read(index, page)).collect();
        found.resize(usize::try_from(PAGES).unwrap_or(0), Found::Gone);
        self.looks.push(Look { at, span, found });
    }

    /// Until enough transfers that met these pages have begun after that time, a write among them where the client writes;
    /// answers what the client asks for meanwhile.
    fn await_traffic(&mut self, pages: Range<u64>, after: u64) -> Result<()> {
        let begin = Instant::now();
        let (mut reads, mut writes) = (0, 0);
        while reads < AFTER || writes == 0 && self.writes {
            ensure!(begin.elapsed() < PATIENCE, "the client makes no progress");
            let Some(transfer) = self.hear()? else {
                continue;
            };
            let overlaps = transfer.pages.start < pages.end && pages.start < transfer.pages.end;
            if overlaps && transfer.span.began > after {
                match transfer.did {
                    Did::Wrote(_) | Did::Failed { wrote: Some(_), .. } => writes += 1,
                    Did::Read(_) | Did::Failed { wrote: None, .. } => reads += 1,
                }
            }
            self.transfers.push(transfer);
        }
        Ok(())
    }

    /// The next transfer; `None` when the client wanted a connection, or stopped.
    fn hear(&mut self) -> Result<Option<Transfer>> {
        match self.hosts.client.hear(PATIENCE)? {
            Some(Said::Did(transfer)) => Ok(Some(transfer)),
            Some(Said::Connect(endpoint)) => self.hosts.connect(endpoint).map(|()| None),
            Some(Said::Stopped) | None => bail!("the client has stopped"),
        }
    }

    /// The client stops, the file is looked at once more, and is free when it is no longer offered. What came of it all.
    pub(super) fn end(mut self) -> Result<Account> {
        self.hosts.client.tell(&Order::Stop)?;
        loop {
            match self.hosts.client.hear(PATIENCE)? {
                Some(Said::Did(transfer)) => self.transfers.push(transfer),
                Some(Said::Connect(endpoint)) => self.hosts.connect(endpoint)?,
                Some(Said::Stopped) => break,
                None => bail!("the client does not stop"),
            }
        }
        self.look()?;
        match self.hosts.server.ask(&Request::Withdraw)? {
            Reply::Withdrawn => {}
            other => bail!("not withdrawn: {other:?}"),
        }
        must_allow_soon("truncate", || ftruncate(&self.file.file, 0))?;
        Ok(Account::close(
            self.history,
            &self.transfers,
            &self.looks,
            self.refused,
        ))
    }
}

fn read_up_to_end(file: &File, data: &mut [u8]) -> Result<usize> {
    let mut done = 0;
    while done < data.len() {
        match file.read_at(&mut data[done..], done as u64)? {
            0 => break,
            read => done += read,
        }
    }
    Ok(done)
}

/// Direct I/O, which writes the dirty pages back first.
fn read_past_cache(path: &Path) -> Result<Vec<u8>> {
    let mut dd = Command::new("dd");
    dd.arg(format!("if={}", path.display()));
    let output = dd.args(["iflag=direct", "bs=1M", "status=none"]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "dd: {said}");
    Ok(output.stdout)
}
