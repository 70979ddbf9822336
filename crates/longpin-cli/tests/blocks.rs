//! `check`, `prepare` and `extents` on a file system of this host, without privilege where it needs none.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use assert_cmd::Command;

/// Exit status, standard output and standard error.
fn longpin(arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::cargo_bin("longpin").unwrap();
    let output = command.args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap();
    (code, text(output.stdout), text(output.stderr))
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn exit_statuses_are_the_documented_ones() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().to_str().unwrap();
    let (code, out, _) = longpin(&["check", dir]);
    assert_eq!(code, 1);
    assert!(
        out.contains("not-regular: only regular files can be held (a directory)"),
        "{out}"
    );
    assert_eq!(longpin(&["check", "/no/such/file"]).0, 2);
    assert_eq!(longpin(&["check", "--range", "4096", dir]).0, 16);
    assert_eq!(longpin(&["check", "--for", "nothing", dir]).0, 16);
    assert_eq!(longpin(&["extents", "/dev/null"]).0, 1);
    let (code, out, err) = longpin(&["extents", "/proc/version"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("gives no block map"), "{err}");
}

#[test]
fn what_check_refuses_prepare_cures() {
    let dir = tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap();
    let file = dir.path().join("a file");
    std::fs::write(&file, "data").unwrap();
    let opened = std::fs::File::options().write(true).open(&file).unwrap();
    opened.set_len((1 << 20) + 5).unwrap();
    drop(opened);
    let path = file.to_str().unwrap();
    let (code, out, _) = longpin(&["check", "--for", "blocks", "--json", path]);
    let report = json(&out);
    if report["file-system"] != "ext4" && report["file-system"] != "xfs" {
        return println!("not tried: {report}");
    }
    assert_eq!((code, &report["reasons"][0]["name"]), (1, &"hole".into()));
    let hint = report["reasons"][0]["hint"].as_str().unwrap();
    assert_eq!(hint, format!("longpin prepare '{path}'"));
    // The hint is a command.
    let (code, out, err) = longpin(&["prepare", path]);
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(longpin(&["check", "--for", "blocks", path]).0, 0);
    assert!(std::fs::read(&file).unwrap().starts_with(b"data\0"));
    let map = json(&longpin(&["extents", "--json", path]).1);
    let extents = map["extents"].as_array().unwrap();
    let lengths: u64 = extents.iter().map(|e| e["length"].as_u64().unwrap()).sum();
    assert_eq!(lengths, (1 << 20) + 5);
}

#[test]
fn what_a_backend_does_not_do_is_said_before_anything_is_done() {
    let hold = |more: &[&str]| {
        let arguments = [&["hold"], more, &["/no/such/file", "--", "true"]].concat();
        let (code, _, err) = longpin(&arguments);
        (code, err)
    };
    let swap = ["--backend", "swap-header"];
    let (code, err) = hold(&[&swap[..], &["--level", "layout"]].concat());
    assert!(code == 1 && err.contains("at level swapfile only"), "{err}");
    let (code, err) = hold(&[&swap[..], &["--range", "0+4K", "-E", "9"]].concat());
    assert!(code == 9 && err.contains("takes no --range"), "{err}");
    let (code, err) = hold(&["--overwrite-head"]);
    assert!(code == 16 && err.contains("is for --backend"), "{err}");
    assert_eq!(hold(&["--backend", "none"]).0, 16);
    let prepare = ["prepare", "--mutable", "--immutable", "/no/such/file"];
    assert_eq!(longpin(&prepare).0, 16);
}
