//! What cargo builds for the guest, and where it put it.

use crate::env;
use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// cargo, at the workspace's root.
pub(crate) fn cargo(args: &[&str]) -> Result<Command> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = env::tool(cargo);
    // What cargo told this process about xtask's own package must not reach the builds of others: their build
    // scripts and rustc flags would be judged changed every time.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_PKG_") {
            command.env_remove(name);
        }
    }
    command
        .env_remove("CARGO_MANIFEST_DIR")
        .env_remove("CARGO_MANIFEST_PATH");
    command.current_dir(env::workspace()?).args(args);
    command.stdin(Stdio::null());
    Ok(command)
}

/// The default members' programs, in `release`, where the guest has them on its PATH.
pub(crate) fn release() -> Result<()> {
    env::run(&mut cargo(&["build", "--release"])?)
}

/// The test program of the guest tiers.
pub(crate) fn guest_tests() -> Result<PathBuf> {
    let package = ["--release", "-p", "longpin-tests", "--features", "rdma"];
    executable(&[&["test", "--no-run"], &package[..], &["--test", "guest"]].concat())
}

/// The demonstration over soft-RoCE.
pub(crate) fn rdma_demo() -> Result<PathBuf> {
    let package = ["--release", "-p", "longpin-tests", "--features", "rdma"];
    executable(&[&["build"], &package[..], &["--bin", "rdma-demo"]].concat())
}

/// Builds, and returns the path of the one executable that came of it.
fn executable(args: &[&str]) -> Result<PathBuf> {
    let mut command = cargo(args)?;
    command
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit());
    let output = command.output().context("cannot run cargo")?;
    if !output.status.success() {
        bail!(
            "cargo {} failed ({}): see above",
            args.join(" "),
            output.status
        );
    }
    let messages = String::from_utf8_lossy(&output.stdout).into_owned();
    last_executable(&messages)
        .with_context(|| format!("cargo {} built no executable", args.join(" ")))
}

/// Dependencies' build scripts come first in the messages: the executable asked for is the last.
fn last_executable(messages: &str) -> Option<PathBuf> {
    let messages = messages
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    messages
        .filter_map(|message: serde_json::Value| {
            message.get("executable")?.as_str().map(PathBuf::from)
        })
        .next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_found_among_the_messages() {
        let messages = "{\"reason\":\"compiler-artifact\",\"executable\":null}\n\
                        {\"reason\":\"compiler-artifact\",\"executable\":\"/t/guest-1\"}\n\
                        {\"reason\":\"build-finished\",\"success\":true}\n";
        assert_eq!(last_executable(messages), Some(PathBuf::from("/t/guest-1")));
    }
}
