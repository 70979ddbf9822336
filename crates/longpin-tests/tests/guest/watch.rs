//! What `longpin watch` tells while it happens.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use longpin_tests::PATIENCE;
use longpin_tests::act::{ftruncate, punch};
use longpin_tests::scratch::FsKind;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::files::TestFile;
use crate::hold::Holder;
use crate::pin::{must_allow_soon, must_refuse, pin};
use crate::rules::Rules;
use crate::{Test, guard};

pub(crate) const TESTS: &[Test] = &[
    ("admin_watch", admin_watch),
    ("admin_watch_late", admin_watch_late),
    ("admin_watch_verify", admin_watch_verify),
];

const LEN: u64 = 65_536;

/// A running `longpin watch --json`; killed on drop.
pub(crate) struct Watcher {
    child: Child,
    events: Receiver<Value>,
}

impl Watcher {
    /// One that has told something: from here on it misses nothing.
    pub(crate) fn start() -> Result<Self> {
        let watcher = Self::run(&[])?;
        let f = TestFile::new(FsKind::Tmpfs, LEN)?;
        let _pinned = pin(&f, 0, 4096)?;
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            must_refuse("truncate", ftruncate(&f.file, 0))?;
            if watcher.events.recv_timeout(Duration::from_secs(1)).is_ok() {
                return Ok(watcher);
            }
        }
        anyhow::bail!("it tells nothing")
    }

    fn run(arguments: &[&str]) -> Result<Self> {
        let mut child = Command::new("longpin")
            .args(["watch", "--json"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().context("no stdout")?;
        let (tell, events) = channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            let mut told = lines.filter_map(|line| serde_json::from_str(&line).ok());
            told.try_for_each(|event: Value| tell.send(event))
        });
        Ok(Self { child, events })
    }

    /// The next event that is wanted.
    pub(crate) fn next(&self, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let begin = Instant::now();
        loop {
            let left = PATIENCE.saturating_sub(begin.elapsed());
            let event = self.events.recv_timeout(left).context("it is not told")?;
            if wanted(&event) {
                return Ok(event);
            }
        }
    }

    fn send(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // Already dead is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A line for what begins, ends and is refused, while somebody watches.
fn admin_watch() -> Result<()> {
    guard::on()?;
    let watcher = Watcher::start()?;
    let f = TestFile::new(FsKind::Tmpfs, LEN)?;
    let pinned = pin(&f, 0, 4096)?;
    must_refuse("truncate", ftruncate(&f.file, 0))?;
    drop(pinned);
    // The kernel may take its time to drop the pin: refused more than once.
    must_allow_soon("released", || ftruncate(&f.file, 0))?;
    let mut seen = Vec::new();
    while seen.last().is_none_or(|kind| kind != "ended") {
        let event = watcher.next(|event| event["path"] == *f.path.to_string_lossy());
        let event = event.with_context(|| format!("after {seen:?}"))?;
        seen.push(event["event"].as_str().unwrap_or_default().to_owned());
    }
    seen.dedup();
    ensure!(seen == ["held", "refused", "ended"], "seen: {seen:?}");
    Ok(())
}

/// Who watches too slowly is told what is lost; the last 1,024 events are kept.
fn admin_watch_late() -> Result<()> {
    guard::on()?;
    let f = TestFile::new(FsKind::Tmpfs, LEN)?;
    let watcher = Watcher::start()?;
    watcher.send(Signal::STOP)?;
    let _pinned = pin(&f, 0, 4096)?;
    for _ in 0..1200 {
        must_refuse("truncate", ftruncate(&f.file, 0))?;
    }
    let kept = guard::events_on(&f.path)?.len();
    // The end of an earlier pin may be among them.
    ensure!((1020..=1024).contains(&kept), "{kept} events are kept");
    watcher.send(Signal::CONT)?;
    let lost = watcher.next(|event| event["event"] == "lost")?;
    ensure!(lost["count"].as_u64() >= Some(170), "{lost}");
    Ok(())
}

/// Blocks that move in spite of a hold are told by range: here by the punch of a user whom a rule exempts.
fn admin_watch_verify() -> Result<()> {
    let len = 4 << 20;
    let f = TestFile::new(FsKind::Ext4, len)?;
    let memory = TestFile::new(FsKind::Tmpfs, LEN)?;
    std::os::unix::fs::chown(&f.path, Some(1000), Some(1000))?;
    let _rules = Rules::set("exempt uid=1000\n")?;
    let held = Holder::start(&[], &f.path)?;
    // Without blocks there is nothing to tell.
    let beside = Holder::start(&[], &memory.path)?;
    let watcher = Watcher::run(&["--verify=1"])?;
    let of = |event: &Value| event["path"] == *f.path.to_string_lossy();
    let first = watcher.next(|event| of(event) && event["event"] != "held")?;
    ensure!(
        first["event"] == "verifying" && first["end"] == len,
        "{first}"
    );
    must_refuse("root's punch", punch(&f.file, 1 << 20, 4096))?;
    let status = Command::new("setpriv")
        .args(["--reuid", "1000", "--clear-groups", "fallocate", "-p"])
        .args(["-o", "1MiB", "-l", "1MiB"])
        .arg(&f.path)
        .status()?;
    ensure!(status.success(), "the exempt user was refused");
    let broken = watcher.next(|event| of(event) && event["event"] == "broken")?;
    ensure!(
        broken["start"] == 1 << 20 && broken["end"] == 2 << 20 && broken["hold"].is_u64(),
        "{broken}"
    );
    for holder in [held, beside] {
        ensure!(holder.end()? == 7, "CMD's status was lost");
    }
    let told = watcher.events.try_iter();
    let of_memory = |event: &Value| event["path"] == *memory.path.to_string_lossy();
    let strange = |event: &Value| of_memory(event) && event["event"] == "unverified";
    ensure!(
        !told.into_iter().any(|event| strange(&event)),
        "a file without blocks"
    );
    Ok(())
}
