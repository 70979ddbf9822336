//! `longpin check --device`: what a user sees is what happens.

use anyhow::{Context, Result, ensure};
use longpin_tests::scratch::FsKind;
use serde_json::Value;

use crate::files::TestFile;
use crate::guard::{self, longpin};

const LEN: u64 = 64 << 10;

/// Run it with `--json`: the exit status, and what it said.
fn check(file: &TestFile, arguments: &[&str]) -> Result<(i32, Value)> {
    let path = file.path.to_string_lossy().into_owned();
    let all = [&["check", &path, "--json"], arguments].concat();
    let output = longpin(&all)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let status = output.status.code().context("killed")?;
    let told = serde_json::from_slice(&output.stdout);
    Ok((status, told.with_context(|| format!("{all:?}: {said}"))?))
}

fn must_be(file: &TestFile, arguments: &[&str], status: i32, plan: &str) -> Result<Value> {
    let (found, told) = check(file, arguments)?;
    ensure!(
        found == status && told["plan"] == plan,
        "{arguments:?}: status {found}, not {status}; plan {plan} expected: {told}"
    );
    Ok(told)
}

pub(crate) fn plan_check() -> Result<()> {
    let memory = TestFile::new(FsKind::Tmpfs, LEN)?;
    let disk = TestFile::new(FsKind::Ext4, LEN)?;
    let told = must_be(&memory, &["--device", "io_uring"], 0, "longterm")?;
    ensure!(
        told["hold"] == "layout" && told["verdict"] == "yes",
        "{told}"
    );
    ensure!(told["obstacles"]["resident-pages"] == LEN / 4096, "{told}");
    let told = must_be(&disk, &["--device", "rxe0", "-r", "pin"], 0, "longterm")?;
    let faults = told["device"]["on-demand"] == true;
    let any = if faults { "on-demand" } else { "longterm" };
    must_be(&disk, &["--device", "rxe0"], 0, any)?;
    must_be(
        &memory,
        &["--device", "rxe0", "--access", "read-write"],
        0,
        any,
    )?;
    let strict = ["--device", "rxe0", "--level", "swapfile"];
    let held = if faults { "held-on-demand" } else { "longterm" };
    let told = must_be(&disk, &strict, 0, held)?;
    ensure!(told["hold"] == "swapfile", "{told}");
    let range = ["--device", "rxe0", "--range", "4K+8K"];
    let told = must_be(&disk, &range, 0, any)?;
    ensure!(told["start"] == 4096 && told["end"] == 12288, "{told}");
    Ok(())
}

pub(crate) fn plan_check_refuses() -> Result<()> {
    let disk = TestFile::new(FsKind::Ext4, LEN)?;
    let (status, told) = check(&disk, &["--device", "io_uring"])?;
    let errno = &told["errno"][0];
    ensure!(
        status == 1 && (errno == "EFAULT" || errno == "EOPNOTSUPP"),
        "{told}"
    );
    // The blocks of a new file on ext4 are written, and its own.
    ensure!(
        told["rule"] != "dirty-tracking" || told["plan"] == "lend-blocks",
        "{told}"
    );
    let advised = told["alternatives"].as_array().context("no alternatives")?;
    ensure!(
        advised.iter().any(|other| other["name"] == "rdma"),
        "{told}"
    );
    let told = must_be(
        &disk,
        &["--device", "rxe0", "--range", "0+1G"],
        1,
        "refused",
    )?;
    ensure!(told["reasons"][0]["name"] == "beyond-end", "{told}");
    strict_is_refused()?;
    let path = disk.path.to_string_lossy().into_owned();
    for (arguments, status, word) in [
        (vec!["--device", "no-such"], 2, "there are: rxe0"),
        (
            vec!["--device", "rxe0", "--for", "blocks"],
            16,
            "--for pages",
        ),
        (vec!["--access", "read-write"], 16, "--device"),
    ] {
        let output = longpin(&[vec!["check", &path], arguments.clone()].concat())?;
        let said = String::from_utf8_lossy(&output.stderr);
        let found = output.status.code();
        ensure!(
            found == Some(status) && said.contains(word),
            "{arguments:?}: {found:?} {said}"
        );
    }
    Ok(())
}

/// Level swapfile takes what `hold` takes, and not more.
fn strict_is_refused() -> Result<()> {
    let holed = TestFile::new(FsKind::Ext4, LEN)?;
    longpin_tests::act::punch(&holed.file, 4096, 4096)?;
    let strict = ["--device", "rxe0", "--level", "swapfile"];
    let told = must_be(&holed, &strict, 1, "refused")?;
    ensure!(told["reasons"][0]["name"] == "hole", "{told}");
    let copied = TestFile::new(FsKind::Btrfs, LEN)?;
    let told = must_be(&copied, &strict, 1, "refused")?;
    let layout = &told["alternatives"][0]["name"];
    ensure!(
        told["reasons"][0]["name"] == "copy-on-write" && layout == "level-layout",
        "{told}"
    );
    let device = std::env::var("LONGPIN_DEVDAX").context("no devdax device")?;
    let told = guard::must(&["check", &device, "--json", "-d", "rxe0", "-r", "pin"])?;
    let told: Value = serde_json::from_str(&told)?;
    let plain = told["plan"] == "longterm" && told["hold"] == Value::Null;
    ensure!(plain && told["medium"] == "dax-device", "{told}");
    Ok(())
}

/// Tried in a process of its own, which leaves nothing.
pub(crate) fn plan_try() -> Result<()> {
    let disk = TestFile::new(FsKind::Xfs, LEN)?;
    let arguments = ["--device", "rxe0", "-r", "pin", "--try", "20"];
    let told = must_be(&disk, &arguments, 0, "longterm")?;
    ensure!(told["tried"] == "registered", "{told}");
    // A deadline that no process can keep.
    let (status, told) = check(&disk, &["--device", "rxe0", "-r", "pin", "--try", "0"])?;
    let said = told["tried"].as_str().unwrap_or_default();
    ensure!(
        status == 1 && said.contains("was killed"),
        "{status} {told}"
    );
    Ok(())
}
