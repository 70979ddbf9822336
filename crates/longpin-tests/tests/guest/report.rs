//! What the runner is told of each test, line by line in the file that `LONGPIN_REPORT` names: what begins, what came of
//! it, and what was skipped and why. A test that does not end is told, too, and ends the program.

use std::any::Any;
use std::fs::{self, File};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use libtest_mimic::{Completion, Failed};
use serde_json::{Value, json};

/// What the kernel cannot do: the error with which a test, or a part of it, ends without having been run.
#[derive(Debug, thiserror::Error)]
#[error("skipped: {0}")]
struct Skipped(String);

/// The test ends here, as this kernel cannot do what it needs. What the kernel answers instead was asserted before.
///
/// Which tests are skipped on which row is listed in the file `skips` of this crate.
pub(crate) fn skip<T>(reason: impl Into<String>) -> Result<T> {
    Err(Skipped(reason.into()).into())
}

/// A part of the running test ends here; the rest goes on.
pub(crate) fn skip_part(part: &str, reason: &str) {
    println!("part {part} skipped: {reason}");
    tell(&json!({ "event": "part", "part": part, "reason": reason }));
}

/// What the running test could not take apart: it has failed then, unless it has already.
static LEFT: Mutex<Option<String>> = Mutex::new(None);

/// For destructors, which have nobody else to tell.
#[cfg(feature = "rdma")]
pub(crate) fn leaves(what: String) {
    *LEFT.lock().unwrap_or_else(PoisonError::into_inner) = Some(what);
}

/// Runs a test, with the report before and after.
pub(crate) fn run(name: &'static str, test: fn() -> Result<()>) -> Result<Completion, Failed> {
    tell(&json!({ "event": "begin", "test": name }));
    let begin = Instant::now();
    let watch = watch(name);
    let result = catch_unwind(AssertUnwindSafe(test))
        .unwrap_or_else(|panic| Err(anyhow!("panicked: {}", words(&*panic))));
    drop(watch);
    let seconds = begin.elapsed().as_secs_f32();
    let left = LEFT.lock().unwrap_or_else(PoisonError::into_inner).take();
    let result =
        result.and_then(|()| left.map_or(Ok(()), |left| Err(anyhow!("left behind: {left}"))));
    let skipped = result
        .as_ref()
        .err()
        .and_then(|err| err.downcast_ref::<Skipped>());
    let skipped = skipped.map(|Skipped(reason)| reason.clone());
    let (came, said) = match (&result, &skipped) {
        (Ok(()), _) => ("passed", String::new()),
        (_, Some(reason)) => ("skipped", reason.clone()),
        (Err(err), _) => ("failed", format!("{err:#}")),
    };
    tell(
        &json!({ "event": "end", "test": name, "result": came, "seconds": seconds, "words": said }),
    );
    println!("[{seconds:.0} s]");
    match (result, skipped) {
        (Ok(()), _) => Ok(Completion::Completed),
        (_, Some(reason)) => Ok(Completion::ignored_with(reason)),
        (Err(err), _) => Err(Failed::from(format!("{err:#}"))),
    }
}

/// How often something was done in all.
pub(crate) fn count(what: &str, times: u32) {
    println!("{what}: {times}");
    tell(&json!({ "event": "count", "what": what, "times": times }));
}

fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref().copied())
        .unwrap_or("without a word")
}

/// Opened and closed for each line: whatever becomes of the guest, the host has it.
fn tell(event: &Value) {
    let Some(path) = std::env::var_os("LONGPIN_REPORT") else {
        return;
    };
    let told = File::options()
        .append(true)
        .create(true)
        .open(path)
        .and_then(|mut file| file.write_all(format!("{event}\n").as_bytes()));
    if let Err(err) = told {
        println!("the runner is not told: {err}");
    }
}

/// A thread that ends the program if it is still there when the time is over.
fn watch(name: &'static str) -> Option<Sender<()>> {
    let limit = std::env::var("LONGPIN_TEST_LIMIT").ok()?.parse().ok()?;
    let (ended, waiting) = channel();
    std::thread::spawn(move || await_end(name, Duration::from_secs(limit), &waiting));
    Some(ended)
}

fn await_end(name: &str, limit: Duration, ended: &Receiver<()>) {
    if ended.recv_timeout(limit) != Err(RecvTimeoutError::Timeout) {
        return;
    }
    println!(
        "\n{name}: no end after {} s; who waits where:",
        limit.as_secs()
    );
    for line in waiting() {
        println!("  {line}");
    }
    tell(&json!({ "event": "hung", "test": name, "seconds": limit.as_secs() }));
    // The runner ends the guest if this does not: somebody may sleep where no signal wakes him.
    std::process::exit(124);
}

/// Processes and threads of programs, and the top of what the kernel does for each.
fn waiting() -> Vec<String> {
    let mut lines = Vec::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let command = fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
        if command.is_empty() {
            continue;
        }
        let threads = fs::read_dir(process.path().join("task"));
        for thread in threads.into_iter().flatten().flatten() {
            let read = |name: &str| fs::read_to_string(thread.path().join(name));
            let name = read("comm").unwrap_or_default();
            let stack = read("stack").unwrap_or_default();
            let frames = stack.lines().take(6);
            let frames: Vec<_> = frames.filter_map(|line| line.split(' ').nth(1)).collect();
            let id = thread.file_name().to_string_lossy().into_owned();
            lines.push(format!("{} {}: {}", id, name.trim(), frames.join(" < ")));
        }
    }
    lines
}
