//! The hints of the other commands: a command that is refused, its hints, and what then goes well.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use longpin_tests::scratch::{FsKind, Scratch};

use crate::blocks::sh;
use crate::{guard, report};

struct Case {
    /// What makes it go wrong.
    make: &'static str,
    command: &'static str,
    /// A word of the refusal.
    word: &'static str,
    /// What is left to put away.
    undo: &'static str,
}

const fn case(make: &'static str, command: &'static str, word: &'static str) -> Case {
    Case {
        make,
        command,
        word,
        undo: "true",
    }
}

const WRITTEN: &str = "dd if=/dev/urandom of=$F bs=1M count=2 conv=fsync status=none";

/// With the hold's number in a file beside it.
const HELD: &str = "WRITTEN
    longpin hold -n $F -- sleep 1000 >/dev/null 2>&1 & echo $! > $F.pid
    until longpin ls --json | grep -o '\"id\": *[0-9]*' | grep -o '[0-9]*' > $F.id; do sleep 0.2; done";

const CASES: &[Case] = &[
    case(
        "WRITTEN; losetup -f $F; sleep 1",
        "longpin hold -n $F -- true",
        "loop",
    ),
    case("rm -f $F", "longpin prepare $F", "hint"),
    case(
        "rm -f $F",
        "ulimit -S -f 100; longpin prepare $F --size 2M",
        "limit",
    ),
    Case {
        undo: "swapoff $F",
        ..case("WRITTEN", "longpin swapon $F", "data")
    },
    Case {
        undo: "swapoff $F",
        ..case("truncate -s 2M $F", "longpin swapon $F", "hole")
    },
    case(
        "WRITTEN; sysctl -q kernel.ftrace_enabled=0",
        "longpin hold -n $F -- true",
        "ftrace_enabled",
    ),
    Case {
        undo: "kill $(cat $F.pid); rm -f $F.pid $F.id",
        ..case(HELD, "longpin release $(cat $F.id)", "stands until")
    },
    case(
        "WRITTEN",
        "longpin check $F --device io_uring --access read-write",
        "refused",
    ),
];

/// Every hint of a refusal, one after the other, then the command again; a hint that is the same command with other
/// words takes its place.
fn cured(case: &Case, file: &Path) -> Result<()> {
    let mut command = case.command.to_owned();
    for round in 0..4 {
        let (is_well, words) = ask(&command, file)?;
        if is_well {
            ensure!(round > 0, "nothing is wrong: {words}");
            return Ok(());
        }
        ensure!(
            round > 0 || words.contains(case.word),
            "no {:?}: {words}",
            case.word
        );
        let hints: Vec<&str> = words
            .lines()
            .filter_map(|line| line.strip_prefix("hint: "))
            .collect();
        ensure!(!hints.is_empty(), "no hint: {words}");
        command = follow(&hints, &command, file).with_context(|| words.clone())?;
    }
    anyhow::bail!("the hints do not cure it: {command}")
}

fn follow(hints: &[&str], command: &str, file: &Path) -> Result<String> {
    let verb = |line: &str| line.split(' ').nth(1).map(str::to_owned);
    for hint in hints {
        let hint = hint.replace("SIZE", "2M").replace("NAME", "rxe0");
        if hint.starts_with("ulimit") {
            return Ok(command.replacen("; ", &format!("; {hint}; "), 1));
        }
        if hint.starts_with("longpin") && verb(&hint) == verb(command) {
            return Ok(hint);
        }
        let (is_well, words) = ask(&hint, file)?;
        // Who looks for users of a file finds none, at times.
        ensure!(is_well || hint.starts_with("fuser"), "{hint}: {words}");
    }
    Ok(command.to_owned())
}

fn ask(line: &str, file: &Path) -> Result<(bool, String)> {
    let output = Command::new("bash")
        .args(["-c", line])
        .env("F", file)
        .output()?;
    let mut words = String::from_utf8_lossy(&output.stdout).into_owned();
    words += &String::from_utf8_lossy(&output.stderr);
    Ok((output.status.success(), words))
}

pub(super) fn cure() -> Result<()> {
    guard::on()?;
    let scratch = Scratch::new(FsKind::Ext4, 64 << 20)?;
    let file = scratch.dir().join("file");
    let can_be_silenced = guard::switch_tracing(false)?;
    guard::switch_tracing(true)?;
    for case in CASES {
        let what = case.command;
        if case.make.contains("ftrace_enabled") && !can_be_silenced {
            report::skip_part(
                "silence",
                "the kernel does not switch its tracing functions off",
            );
            continue;
        }
        sh(&case.make.replace("WRITTEN", WRITTEN), &file).context(what)?;
        let done = cured(case, &file).context(what);
        guard::switch_tracing(true)?;
        done?;
        sh(case.undo, &file).context(what)?;
        sh("rm -f $F", &file)?;
        println!("  {what}: cured");
    }
    scratch.close()
}
