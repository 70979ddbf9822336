//! What a person sees, and the order of the rounds.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use longpin_tests::rdma::Device;
use longpin_tests::scratch::{FsKind, Scratch};

use crate::guard::{self, Guard};
use crate::options::Options;
use crate::round::{self, Row};
use crate::{CANNOT_TELL, complain, report, supervise};

/// One line. A reader who has gone away does not stop the undoing.
pub(crate) fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}

/// The line above a round, with the time since the first.
pub(crate) fn heading(text: &str) -> Result<()> {
    static STARTED: OnceLock<Instant> = OnceLock::new();
    supervise::go_on()?;
    let seconds = STARTED.get_or_init(Instant::now).elapsed().as_secs();
    line(&format!("\n== {text} [{seconds} s]"));
    Ok(())
}

/// A line for something that is about to be done, or was just seen. An error if the demo has been interrupted.
pub(crate) fn step(text: &str) -> Result<()> {
    supervise::go_on()?;
    line(&format!("  {text}"));
    Ok(())
}

/// A line of what somebody else said.
pub(crate) fn detail(text: &str) {
    line(&format!("    {text}"));
}

/// All of the demo.
pub(crate) fn demo(options: &Options) -> Result<ExitCode> {
    supervise::watch();
    if !rustix::process::geteuid().is_root() {
        bail!("this makes file systems and starts the guard: run it as root");
    }
    if guard::is_running() {
        bail!("a guard is running, so the hazard cannot be shown: `longpin guard stop` first");
    }
    let device = Device::open(&options.device).context("no device to show this with")?;
    let stage = Stage {
        device: (&options.device, &device),
        scratches: make(&options.kinds)?,
    };
    let mut rows = Vec::new();
    stage.play_all(None, &mut rows)?;
    let cure = match guard::command() {
        _ if options.only_hazard => Ok(()),
        None => Err(anyhow!("`longpin` is not on PATH")),
        Some(command) => show_cure(&stage, command, &mut rows),
    };
    stage.scratches.into_iter().try_for_each(Scratch::close)?;
    Ok(conclude(&rows, cure))
}

/// What all rounds are played on.
struct Stage<'a> {
    device: (&'a str, &'a Device),
    scratches: Vec<Scratch>,
}

impl Stage<'_> {
    fn play_all(&self, guard: Option<&Guard>, rows: &mut Vec<Row>) -> Result<()> {
        for scratch in &self.scratches {
            rows.push(round::play(scratch, self.device, guard)?);
        }
        Ok(())
    }
}

fn make(kinds: &[FsKind]) -> Result<Vec<Scratch>> {
    heading("file systems")?;
    let make = |kind: &FsKind| {
        step(&format!("making {kind}"))?;
        Scratch::new(*kind, 64 << 20)
    };
    kinds.iter().map(make).collect()
}

/// The same rounds between the start and the stop of the guard.
fn show_cure(stage: &Stage<'_>, command: PathBuf, rows: &mut Vec<Row>) -> Result<()> {
    heading("the guard")?;
    let guard = Guard::start(command)?;
    stage.play_all(Some(&guard), rows)?;
    heading("the guard")?;
    guard.stop()
}

/// The table of what was seen, also when the second half failed.
fn conclude(rows: &[Row], cure: Result<()>) -> ExitCode {
    line("");
    report::table(rows).iter().for_each(|text| line(text));
    line("");
    line(&report::verdict(rows));
    if !report::broken_promises(rows).is_empty() {
        return ExitCode::FAILURE;
    }
    match cure {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error.context("the cure could not be shown"), CANNOT_TELL),
    }
}
