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

/// The examples, in `release/examples`, where their tests look for them.
pub(crate) fn examples() -> Result<()> {
    let packages = ["--examples", "-p", "longpin", "-p", "longpin-rdma"];
    env::run(&mut cargo(
        &[&["build", "--release"], &packages[..]].concat(),
    )?)
}

/// The test program of the guest tiers.
pub(crate) fn guest_tests() -> Result<PathBuf> {
    let package = ["--release", "-p", "longpin-tests", "--features", "rdma"];
    let args = [&["test", "--no-run"], &package[..], &["--test", "guest"]].concat();
    executable("guest", &args)
}

/// The demonstration over soft-RoCE.
pub(crate) fn rdma_demo() -> Result<PathBuf> {
    program("rdma-demo")
}

/// The benchmark.
pub(crate) fn guard_bench() -> Result<PathBuf> {
    program("guard-bench")
}

/// A program of the tests' package.
fn program(name: &str) -> Result<PathBuf> {
    let package = ["--release", "-p", "longpin-tests", "--features", "rdma"];
    let args = [&["build"], &package[..], &["--bin", name]].concat();
    executable(name, &args)
}

/// Builds, and returns the path of the target of this name.
fn executable(name: &str, args: &[&str]) -> Result<PathBuf> {
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
    executable_among(&messages, name)
        .with_context(|| format!("cargo {} built no executable", args.join(" ")))
}

/// A test's package's programs are built with it, in any order: the target's name tells which is wanted.
fn executable_among(messages: &str, name: &str) -> Option<PathBuf> {
    let mut messages = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    messages.find_map(|message| {
        let path = message.get("executable")?.as_str()?;
        (message["target"]["name"] == name).then(|| path.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_found_among_the_messages() {
        let artifact = |name: &str, path: &str| {
            let target = serde_json::json!({ "name": name });
            let message = serde_json::json!({ "target": target, "executable": path });
            message.to_string()
        };
        let library = r#"{"target":{"name":"guest"},"executable":null}"#.to_owned();
        let messages = [
            library,
            artifact("guest", "/t/guest-1"),
            artifact("rdma-demo", "/t/demo"),
        ];
        let found = |name| executable_among(&messages.join("\n"), name);
        assert_eq!(found("guest"), Some(PathBuf::from("/t/guest-1")));
        assert_eq!(found("rdma-demo"), Some(PathBuf::from("/t/demo")));
        assert_eq!(found("other"), None);
    }
}
