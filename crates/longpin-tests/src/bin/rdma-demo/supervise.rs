//! Undoing everything when the demo is interrupted, without a signal handler.
//!
//! The process that a person starts only starts another one, in a process group of its own, and holds a pipe to it.
//! However the first ends, the pipe ends with it; the worker sees that and goes the ordinary way out, through the
//! destructors that unmount, stop the guard and end the server.

use std::env;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, bail};

use crate::options::WORKER;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Starts the worker with the same arguments, and ends as it ends.
pub(crate) fn run() -> Result<ExitCode> {
    let program = env::current_exe().context("cannot find the demo's own program")?;
    let mut worker = Command::new(program)
        .arg(WORKER)
        .args(env::args_os().skip(1))
        .stdin(Stdio::piped())
        .process_group(0)
        .spawn()
        .context("cannot start the demo's worker")?;
    // `wait` would close it at once.
    let lifeline = worker.stdin.take();
    let status = worker.wait().context("cannot wait for the demo's worker")?;
    drop(lifeline);
    match status.code() {
        Some(code) => Ok(ExitCode::from(u8::try_from(code)?)),
        None => bail!("the demo's worker was killed: {status}"),
    }
}

/// Watches for the end of the process that started this one.
pub(crate) fn watch() {
    thread::spawn(|| {
        let mut ignored = Vec::new();
        let _ = std::io::stdin().read_to_end(&mut ignored);
        INTERRUPTED.store(true, Ordering::Relaxed);
    });
}

/// An error once that process has gone; called before every step.
pub(crate) fn go_on() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        bail!("interrupted; everything is undone");
    }
    Ok(())
}
