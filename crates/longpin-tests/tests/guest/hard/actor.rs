//! A process that does as it is told, line by line: pins by number, forks, floods, dies.
#![allow(unsafe_code, reason = "fork(2), for a child that inherits the rings")]

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use longpin_linux::FixedBuffer;
use longpin_tests::PAGE;
use longpin_tests::act::{become_user, ftruncate, outcome_name, read_foreign_at};
use longpin_tests::mapping::Mapping;
use longpin_tests::pattern::Pattern;
use rustix::io::Errno;

/// The parent's end.
pub(crate) struct Actor {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Actor {
    /// As root, or as this user.
    pub(crate) fn start(uid: u32) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([crate::child::WORD, "actor", &uid.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take().context("no stdin")?;
        let stdout = child.stdout.take().context("no stdout")?;
        let mut actor = Self {
            child,
            stdin,
            stdout: BufReader::new(stdout),
        };
        actor.answer().context("the actor did not begin")?;
        Ok(actor)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Say it, without waiting.
    pub(crate) fn tell(&mut self, line: &str) -> Result<()> {
        writeln!(self.stdin, "{line}")?;
        Ok(self.stdin.flush()?)
    }

    /// What it answers; "failed: …" is an error.
    pub(crate) fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.stdout.read_line(&mut line)? > 0, "the actor is gone");
        let line = line.trim().to_owned();
        ensure!(
            !line.starts_with("failed"),
            "the actor {}: {line}",
            self.pid()
        );
        Ok(line)
    }

    pub(crate) fn ask(&mut self, line: &str) -> Result<String> {
        self.tell(line)?;
        self.answer().with_context(|| line.to_owned())
    }

    /// Let it end in its own way.
    pub(crate) fn dismiss(self) -> Result<()> {
        let Self {
            mut child, stdin, ..
        } = self;
        drop(stdin);
        child.wait()?;
        Ok(())
    }

    /// kill -9, and wait for the corpse.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

/// End a process that an actor forked.
pub(crate) fn kill(pid: u32) -> Result<()> {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid)?).context("no pid")?;
    Ok(rustix::process::kill_process(
        pid,
        rustix::process::Signal::KILL,
    )?)
}

#[derive(Default)]
struct Stage {
    pins: HashMap<u64, FixedBuffer>,
    regions: Vec<super::dies::Orphan>,
}

/// `actor UID`: the child's end.
pub(crate) fn act(arguments: &[String]) -> Result<()> {
    let uid: u32 = arguments.first().context("actor UID")?.parse()?;
    if uid != 0 {
        become_user(uid, false)?;
    }
    let mut stage = Stage::default();
    say("ready")?;
    for line in std::io::stdin().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        match stage.play(&words) {
            Ok(answer) => say(&answer)?,
            Err(err) => say(&format!("failed: {err:#}"))?,
        }
    }
    Ok(())
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

impl Stage {
    fn play(&mut self, words: &[&str]) -> Result<String> {
        match words {
            ["pin", id, path, offset, len] => {
                let file = File::options().read(true).write(true).open(path)?;
                let pin = FixedBuffer::register(&file, offset.parse()?, len.parse()?)?;
                self.pins.insert(id.parse()?, pin);
                Ok("pinned".into())
            }
            ["region", path] => {
                let file = File::options().read(true).write(true).open(path)?;
                self.regions.push(super::dies::by_region(&file)?);
                Ok("pinned".into())
            }
            ["unpin", id] => {
                let pin = self.pins.remove(&id.parse()?).context("no such pin")?;
                pin.unregister()?;
                Ok("unpinned".into())
            }
            ["check", id, seed, first] => {
                let pin = self.pins.get_mut(&id.parse()?).context("no such pin")?;
                let bytes = pin.read_as_device()?;
                Pattern::new(seed.parse()?).check(first.parse()?, &bytes)?;
                Ok("same".into())
            }
            ["fork"] => fork_sleeper().map(|pid| pid.to_string()),
            ["flood", path, sink, times, from, to] => {
                let held = from.parse()?..to.parse()?;
                flood(path, sink, times.parse()?, held)
            }
            ["churn", path, keep, seconds] => {
                self.churn(path, keep.parse()?, seconds.parse()?, false)
            }
            ["churn-fresh", path, keep, seconds] => {
                self.churn(path, keep.parse()?, seconds.parse()?, true)
            }
            ["direct", path, seconds] => direct_io(path, seconds.parse()?),
            _ => bail!("unknown words {words:?}"),
        }
    }

    /// Pin, try to truncate under the pin, and unpin, for a while: this file, or a new one each time. In the end a
    /// pin of this file is kept as `keep`.
    fn churn(&mut self, path: &str, keep: u64, seconds: u64, fresh: bool) -> Result<String> {
        let file = File::options().read(true).write(true).open(path)?;
        let len = file.metadata()?.len();
        let deadline = Instant::now() + Duration::from_secs(seconds);
        let mut rounds = 0_u32;
        while Instant::now() < deadline {
            let what = || format!("round {rounds}");
            if fresh {
                let name = format!("{path}.{rounds}");
                let made = create(&name, len)?;
                let pinned = pin_and_try(&made, len, rounds % 16 == 0);
                std::fs::remove_file(name)?;
                pinned.with_context(what)?.unregister()?;
            } else {
                let pinned = pin_and_try(&file, len, rounds % 16 == 0);
                pinned.with_context(what)?.unregister()?;
            }
            rounds += 1;
        }
        let pinned = pin_and_try(&file, len, true)?;
        self.pins.insert(keep, pinned);
        Ok(rounds.to_string())
    }
}

fn create(path: &str, len: u64) -> Result<File> {
    let mut options = File::options();
    let file = options.read(true).write(true).create_new(true).open(path)?;
    file.set_len(len)?;
    Ok(file)
}

/// A pin under which the file cannot be cut.
fn pin_and_try(file: &File, len: u64, compare: bool) -> Result<FixedBuffer> {
    let mut pin = FixedBuffer::register(file, 0, usize::try_from(len)?)?;
    let outcome = ftruncate(file, 0);
    if outcome != Err(Errno::TXTBSY) {
        bail!("a truncate under a live pin: {}", outcome_name(outcome));
    }
    if compare {
        let mut found = vec![0; usize::try_from(len)?];
        file.read_exact_at(&mut found, 0)?;
        ensure!(pin.read_as_device()? == found, "two memories");
    }
    Ok(pin)
}

/// A child with all our descriptors, rings among them, which sleeps until it is killed.
fn fork_sleeper() -> Result<u32> {
    // SAFETY: this process has one thread, and the child makes two system calls, none of which allocates.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // The parent of us both waits for the end of our maker's output: it must not wait for ours.
        // SAFETY: closing the standard descriptors of a process that uses them no more.
        unsafe { libc::close(0) };
        // SAFETY: as above.
        unsafe { libc::close(1) };
        loop {
            // SAFETY: waits for a signal.
            unsafe { libc::pause() };
        }
    }
    u32::try_from(pid).context("fork")
}

/// Pin pages of a file for a moment, over and over, as whoever may read it can: `process_vm_readv` of our own
/// mapping, and direct writes from it. So many times, counted from when the sign is there; one page of the held
/// range each time, and now and then the whole file, which costs as much as a hundred pages.
fn flood(path: &str, sink: &str, times: u64, held: Range<usize>) -> Result<String> {
    let file = File::open(path)?;
    ensure!(
        File::options().write(true).open(path).is_err(),
        "this reader may write"
    );
    let len = usize::try_from(file.metadata()?.len())?;
    let mapping = Mapping::shared(&file, 0, len, false)?;
    let pid = std::process::id();
    let (mut before, mut done, mut direct) = (0_u64, 0_u64, 0_u64);
    let sign = format!("{sink}.sign");
    let mut room = vec![0; len];
    let mut pages = held.step_by(PAGE).cycle();
    while done < times {
        if (before + done) % 32 == 0 {
            read_foreign_at(pid, &mapping, 0, &mut room)?;
        } else {
            let page = pages.next().context("nothing held")?;
            read_foreign_at(pid, &mapping, page, &mut room[..PAGE])?;
        }
        if done > 0 || Path::new(&sign).exists() {
            done += 1;
        } else {
            before += 1;
        }
        if (before + done) % 64 == 0 && write_directly(Path::new(sink), &mapping)? {
            direct += 1;
        }
    }
    Ok(format!("{before}+{done} {direct}"))
}

/// O_DIRECT from the mapping: false where the file system takes none.
fn write_directly(sink: &Path, mapping: &Mapping) -> Result<bool> {
    let opened = File::options()
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(sink);
    let Ok(sink) = opened else { return Ok(false) };
    use std::os::fd::AsRawFd;
    let from = mapping.addr() as *const libc::c_void;
    // SAFETY: the kernel only reads the mapping, which outlives the call.
    let written = unsafe { libc::pwrite(sink.as_raw_fd(), from, mapping.len(), 0) };
    ensure!(
        usize::try_from(written).ok() == Some(mapping.len()),
        "direct write: {}",
        std::io::Error::last_os_error()
    );
    Ok(true)
}

/// Direct writes from anonymous memory, for a while.
fn direct_io(path: &str, seconds: u64) -> Result<String> {
    let memory = Mapping::anonymous(65_536)?;
    memory.copy_in(0, &[1; 65_536]);
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let mut done = 0_u32;
    while Instant::now() < deadline {
        ensure!(
            write_directly(Path::new(path), &memory)?,
            "no direct writes"
        );
        done += 1;
    }
    Ok(done.to_string())
}
