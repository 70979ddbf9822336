//! `longpin demo`: the hazard and the cure on this host, in seconds.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use longpin::guard::{self, Force, GuardError, Host, Running, StartOptions};
use longpin::listing;
use longpin_linux::FixedBuffer;
use rustix::io::Errno;

use crate::output::{REFUSED, human};

const LEN: usize = 1 << 20;

/// The demo's file; removed on drop.
struct Scratch {
    path: PathBuf,
    file: File,
}

impl Scratch {
    fn new(fill: u8) -> anyhow::Result<Self> {
        let path = PathBuf::from(format!("/dev/shm/longpin-demo-{}", std::process::id()));
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .with_context(|| format!("cannot make {} (a tmpfs file)", path.display()))?;
        let scratch = Self { path, file };
        scratch.file.write_all_at(&vec![fill; LEN], 0)?;
        Ok(scratch)
    }

    fn truncate(&self) -> Result<(), Errno> {
        rustix::fs::ftruncate(&self.file, 0)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing can be done about a failure here; the file is on tmpfs and has a telling name.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn say(line: &str) {
    anstream::println!("{line}");
}

pub(crate) fn run() -> anyhow::Result<ExitCode> {
    say("1. Without the guard");
    let running = is_running()?;
    if running {
        say("   (the guard is running here: the hazard cannot be shown, the cure can)");
    } else {
        show_hazard()?;
    }
    say("2. With the guard");
    let started = if running { false } else { start_guard()? };
    if !running && !started {
        return Ok(ExitCode::from(REFUSED));
    }
    let shown = show_cure();
    if started {
        guard::stop(&Host::default(), Force::Yes)?;
        say("   the demo's guard is stopped; `longpin guard start` starts one that stays");
    }
    shown.map(|()| ExitCode::SUCCESS)
}

/// Only a privileged caller can be told; for others it is not running as far as this demo goes.
fn is_running() -> anyhow::Result<bool> {
    match Running::open(&Host::default()) {
        Ok(_) => Ok(true),
        Err(GuardError::NotRunning | GuardError::NoPrivilege | GuardError::Lock { .. }) => {
            Ok(false)
        }
        Err(err) => Err(err.into()),
    }
}

fn show_hazard() -> anyhow::Result<()> {
    let scratch = Scratch::new(b'A')?;
    let mut buffer = FixedBuffer::register(&scratch.file, 0, LEN)?;
    say(&format!(
        "   {} of {} registered with io_uring",
        human(LEN as u64),
        scratch.path.display()
    ));
    say(&format!("   truncate to 0: {}", answer(scratch.truncate())));
    scratch.file.write_all_at(&vec![b'B'; LEN], 0)?;
    let orphaned = buffer.read_as_device()? == vec![b'A'; LEN];
    say("   then the file is written anew, all B");
    say(&format!(
        "   the ring still reads: all {}",
        if orphaned {
            "A   <- memory that is no longer the file"
        } else {
            "B"
        }
    ));
    Ok(())
}

/// Start a guard for the demo; say what is missing where it cannot be.
fn start_guard() -> anyhow::Result<bool> {
    match guard::start(&Host::default(), StartOptions::default(), &mut |_, _| ()) {
        Ok(_) => Ok(true),
        Err(err) => {
            say(&format!("   cannot be shown here: {err}"));
            let mut cause = std::error::Error::source(&err);
            while let Some(inner) = cause {
                say(&format!("     because: {inner}"));
                cause = inner.source();
            }
            for hint in err.hints() {
                say(&format!("   hint: {hint}"));
            }
            Ok(false)
        }
    }
}

fn show_cure() -> anyhow::Result<()> {
    let scratch = Scratch::new(b'A')?;
    let mut buffer = FixedBuffer::register(&scratch.file, 0, LEN)?;
    say(&format!(
        "   {} of {} registered with io_uring",
        human(LEN as u64),
        scratch.path.display()
    ));
    say(&format!("   truncate to 0: {}", answer(scratch.truncate())));
    for hold in listing::read_rows(&Running::open(&Host::default())?)? {
        let Some(owner) = hold.owner.filter(|owner| owner.pid == std::process::id()) else {
            continue;
        };
        say(&format!(
            "   longpin ls: {} {}..{}, {} pages, {}[{}] by {}",
            hold.path,
            human(hold.start),
            human(hold.end),
            hold.pages,
            owner.command,
            owner.pid,
            owner.consumer
        ));
    }
    anyhow::ensure!(
        buffer.read_as_device()? == vec![b'A'; LEN],
        "the ring reads other bytes"
    );
    say("   the ring still reads the file: all A");
    drop(buffer);
    say(&format!(
        "   buffer unregistered; truncate to 0: {}",
        release(&scratch)?
    ));
    Ok(())
}

/// The kernel drops the pins of a closed ring a moment later.
fn release(scratch: &Scratch) -> anyhow::Result<String> {
    for _ in 0..200 {
        if scratch.truncate().is_ok() {
            return Ok(answer(Ok(())));
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    anyhow::bail!("the file stayed busy after its buffer was unregistered")
}

fn answer(result: Result<(), Errno>) -> String {
    match result {
        Ok(()) => "success".into(),
        Err(Errno::TXTBSY) => "Text file busy".into(),
        Err(other) => other.to_string(),
    }
}
