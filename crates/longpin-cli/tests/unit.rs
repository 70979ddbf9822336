//! The systemd unit, as systemd reads it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;

fn unit() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/longpin-guard.service");
    std::fs::read_to_string(path).unwrap()
}

/// Values of a key, in their order.
fn values(key: &str) -> Vec<String> {
    let text = unit();
    let lines = text
        .lines()
        .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    lines.map(str::to_owned).collect()
}

#[test]
fn it_stands_before_whatever_pins_and_ends_before_file_systems_do() {
    let before: Vec<String> = values("Before");
    assert!(
        before.contains(&"sysinit.target".into()) && before.contains(&"shutdown.target".into())
    );
    assert!(values("After")[0].contains("local-fs.target"));
    assert_eq!(values("Conflicts"), ["shutdown.target"]);
    assert_eq!(values("DefaultDependencies"), ["no"]);
    assert_eq!(values("RemainAfterExit"), ["yes"]);
}

#[test]
fn what_it_runs_are_commands() {
    let stop = values("ExecStop").remove(0);
    assert!(stop.contains("longpin guard stop --force"), "{stop}");
    for line in [
        values("ExecStart").remove(0),
        "longpin guard stop --force".to_owned(),
    ] {
        let words = line.split(' ').skip(1).chain(["--help"]);
        let run = assert_cmd::Command::cargo_bin("longpin")
            .unwrap()
            .args(words)
            .output()
            .unwrap();
        assert!(
            run.status.success(),
            "{line}: {}",
            String::from_utf8_lossy(&run.stderr)
        );
    }
}

/// systemd looks for the programs, so the unit is checked with the one that was just built.
#[test]
fn systemd_finds_nothing_wrong_with_it() {
    let Ok(there) = Command::new("systemd-analyze").arg("--version").output() else {
        println!("not checked: there is no systemd-analyze");
        return;
    };
    assert!(there.status.success());
    let dir = tempfile::tempdir().unwrap();
    let built: PathBuf = assert_cmd::cargo::cargo_bin("longpin");
    let program = format!("={} guard", built.display());
    let path = dir.path().join("longpin-guard.service");
    std::fs::write(&path, unit().replace("=longpin guard", &program)).unwrap();
    let mut verify = Command::new("systemd-analyze");
    let checked = verify
        .args(["verify", "--man=no"])
        .arg(&path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&checked.stderr);
    // Other units of this host may have flaws of their own.
    let ours: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("longpin"))
        .collect();
    assert!(checked.status.success() && ours.is_empty(), "{said}");
}
