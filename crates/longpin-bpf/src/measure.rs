//! For benchmarks: how far a start has come, and what each program costs the verifier.

use std::sync::{Mutex, OnceLock};

use libbpf_rs::skel::OpenSkel;
use libbpf_rs::{PrintLevel, get_print, set_print};

use crate::BpfError;
use crate::facts::Facts;
use crate::load::{self, Purpose, Storage};

static LISTENER: OnceLock<fn(&str)> = OnceLock::new();
/// What stands before the name of a program that was attached.
const ATTACHED: &str = "attached ";

/// Have this told the name of each stage of a start as it ends; once in a process.
pub fn listen(listener: fn(&str)) {
    let _ = LISTENER.set(listener);
}

/// A stage has ended.
pub fn reached(stage: &str) {
    if let Some(listener) = LISTENER.get() {
        listener(stage);
    }
}

/// A program has been attached: a stage of its own.
pub(crate) fn attached(program: &str) {
    if let Some(listener) = LISTENER.get() {
        listener(&format!("{ATTACHED}{program}"));
    }
}

/// The program that this stage attached.
#[must_use]
pub fn program_of(stage: &str) -> Option<&str> {
    stage.strip_prefix(ATTACHED)
}

/// What the verifier says of a program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// The program.
    pub name: String,
    /// How long it took; the kernel counts microseconds.
    pub micros: u64,
    /// Instructions that it went through.
    pub steps: u64,
}

/// What libbpf says while the programs are loaded.
static SAID: Mutex<Vec<Verified>> = Mutex::new(Vec::new());
/// `BPF_LOG_STATS`.
const STATISTICS: u32 = 4;

/// Load what a start would load, attach nothing, and tell what each program cost.
///
/// # Errors
///
/// [`BpfError::Load`].
pub fn load_each(facts: &Facts, purpose: Purpose) -> Result<Vec<Verified>, BpfError> {
    let mut storage = Storage::default();
    let mut open = load::open(&mut storage, facts, purpose)?;
    for mut program in open.open_object_mut().progs_mut() {
        program.set_log_level(STATISTICS);
    }
    let before = get_print();
    set_print(Some((PrintLevel::Debug, note)));
    let loaded = open.load().map_err(BpfError::Load);
    set_print(before);
    loaded?;
    Ok(std::mem::take(&mut *said()))
}

fn said() -> std::sync::MutexGuard<'static, Vec<Verified>> {
    SAID.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[allow(clippy::needless_pass_by_value, reason = "libbpf-rs's signature")]
fn note(_: PrintLevel, text: String) {
    said().extend(parse_log(&text));
}

/// The verifier's statistics, as libbpf passes them on.
fn parse_log(text: &str) -> Option<Verified> {
    let (_, rest) = text.split_once("prog '")?;
    let (name, rest) = rest.split_once("': -- BEGIN PROG LOAD LOG --")?;
    let after = |word: &str| {
        let (_, rest) = rest.split_once(word)?;
        rest.split_ascii_whitespace().next()?.parse().ok()
    };
    Some(Verified {
        name: name.to_owned(),
        micros: after("verification time ")?,
        // Where there are functions of their own, "insns processed" comes before.
        steps: after("\nprocessed ")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_statistics_are_read() {
        let text = "libbpf: prog 'enter_hold': -- BEGIN PROG LOAD LOG --\nverification time 1234 usec\n\
                    stack depth 8+0\ninsns processed 64+35\nprocessed 99 insns (limit 1000000)\n-- END PROG LOAD LOG --\n";
        let found = parse_log(text).unwrap();
        assert_eq!(
            (found.name.as_str(), found.micros, found.steps),
            ("enter_hold", 1234, 99)
        );
        assert_eq!(parse_log("libbpf: prog 'enter_hold': relo #1"), None);
    }
}
