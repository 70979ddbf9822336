//! `cargo xtask lint`: formatting, lints and licences. What CI runs before the tests.

use crate::{build, env, ui};
use anyhow::Result;
use std::path::PathBuf;
use std::process::Command;

/// Runs every check, even after one has failed.
pub(crate) fn run() -> Result<u8> {
    let mut failed = 0;
    for mut check in checks()? {
        let name = describe(&check);
        ui::say(&format!("=== {name}"));
        if let Err(error) = env::run(&mut check) {
            ui::say(&format!("error: {error:#}"));
            failed = 1;
        }
    }
    Ok(failed)
}

fn checks() -> Result<Vec<Command>> {
    let clippy = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ];
    let mut checks = vec![
        build::cargo(&["fmt", "--all", "--check"])?,
        build::cargo(&clippy)?,
    ];
    let sources = bpf_sources()?;
    if !sources.is_empty() {
        let mut format = env::tool("clang-format");
        format
            .current_dir(env::workspace()?)
            .args(["--dry-run", "-Werror"]);
        format.args(sources);
        checks.push(format);
    }
    if has_cargo_deny()? {
        checks.push(build::cargo(&["deny", "check"])?);
    } else {
        ui::say("not checked: licences and advisories, cargo-deny is not installed");
    }
    Ok(checks)
}

/// The C of the BPF programs; none before there are any.
fn bpf_sources() -> Result<Vec<PathBuf>> {
    let Ok(entries) = std::fs::read_dir(env::workspace()?.join("crates/longpin-bpf/src/bpf"))
    else {
        return Ok(Vec::new());
    };
    let paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    let is_c = |path: &PathBuf| path.extension().is_some_and(|end| end == "c" || end == "h");
    let mut sources: Vec<_> = paths.into_iter().filter(is_c).collect();
    sources.sort();
    Ok(sources)
}

fn has_cargo_deny() -> Result<bool> {
    Ok(build::cargo(&["deny", "--version"])?
        .output()?
        .status
        .success())
}

fn describe(command: &Command) -> String {
    let program = PathBuf::from(command.get_program());
    let program = program
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let args = command
        .get_args()
        .filter(|arg| !arg.to_string_lossy().starts_with('/'));
    args.fold(program, |text, arg| {
        format!("{text} {}", arg.to_string_lossy())
    })
}
