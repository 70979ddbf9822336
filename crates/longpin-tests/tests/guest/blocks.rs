//! What the tests of block maps share: shell commands, and a look at the device itself.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::guard;

/// Blocks of any device are as large at most.
const ALIGN: u64 = 4096;

/// Runs a script with `$F` and `$D`, the file and its directory: what it printed.
pub(crate) fn sh(script: &str, file: &Path) -> Result<String> {
    let dir = file.parent().context("no directory")?;
    let output = Command::new("sh")
        .args(["-euc", script])
        .env("F", file)
        .env("D", dir)
        .stdin(Stdio::null())
        .output()?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{script}: {}", words.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `longpin extents --json`.
pub(crate) fn extents(file: &Path) -> Result<Value> {
    let text = guard::must(&["extents", "--json", &file.to_string_lossy()])?;
    let map: Value = serde_json::from_str(&text)?;
    ensure!(map["version"] == 1, "{map}");
    Ok(map)
}

/// The exit status of `longpin` and what it printed.
pub(crate) fn status(arguments: &[&str]) -> Result<(i32, String)> {
    let output = guard::longpin(arguments)?;
    let mut words = String::from_utf8_lossy(&output.stdout).into_owned();
    words += &String::from_utf8_lossy(&output.stderr);
    Ok((output.status.code().context("killed")?, words))
}

/// The verdict of `longpin check` (yes, refused, unknown) and the names of its reasons.
pub(crate) fn check(file: &Path, purpose: &str) -> Result<(String, Vec<String>)> {
    let path = file.to_string_lossy();
    let output = guard::longpin(&["check", "--for", purpose, "--json", &path])?;
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    let report: Value = serde_json::from_slice(&output.stdout).context(words)?;
    let verdict = report["verdict"].as_str().context("no verdict")?.to_owned();
    let code = output.status.code();
    let expected = match verdict.as_str() {
        "yes" => 0,
        "refused" => 1,
        _ => 2,
    };
    ensure!(code == Some(expected), "exit status {code:?} for {report}");
    let reasons = report["reasons"].as_array().context("no reasons")?;
    let names = reasons.iter().filter_map(|reason| reason["name"].as_str());
    Ok((verdict, names.map(str::to_owned).collect()))
}

/// What lies on the block devices at the file's extents, read past every cache; holes as zeroes.
pub(crate) fn device_bytes(file: &Path) -> Result<Vec<u8>> {
    let map = extents(file)?;
    let number = |value: &Value| value.as_u64().context("no number");
    let mut bytes = vec![0; usize::try_from(number(&map["size"])?)?];
    for extent in map["extents"].as_array().context("no extents")? {
        let devices = map["devices"].as_array().context("no devices")?;
        let device = devices.iter().find(|d| d["number"] == extent["device"]);
        let path = device.and_then(|d| d["path"].as_str());
        let path = path.with_context(|| format!("no device for {extent}"))?;
        let logical = usize::try_from(number(&extent["logical"])?)?;
        let length = number(&extent["length"])?;
        let found = read_direct(Path::new(path), number(&extent["physical"])?, length)?;
        let place = bytes.get_mut(logical..logical + found.len());
        place.context("behind the end")?.copy_from_slice(&found);
    }
    Ok(bytes)
}

/// `O_DIRECT` from a block device.
fn read_direct(path: &Path, offset: u64, length: u64) -> Result<Vec<u8>> {
    let device = File::options()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    let first = offset / ALIGN * ALIGN;
    let end = (offset + length).next_multiple_of(ALIGN);
    let whole = usize::try_from(end - first)?;
    let mut room = vec![0; whole + usize::try_from(ALIGN)?];
    let skip = room.as_ptr().align_offset(usize::try_from(ALIGN)?);
    let aligned = &mut room[skip..skip + whole];
    device.read_exact_at(aligned, first)?;
    let inside = usize::try_from(offset - first)?;
    Ok(aligned[inside..inside + usize::try_from(length)?].to_vec())
}

/// Where two contents differ first.
pub(crate) fn same(what: &str, found: &[u8], expected: &[u8]) -> Result<()> {
    ensure!(
        found.len() == expected.len(),
        "{what}: {} bytes, not {}",
        found.len(),
        expected.len()
    );
    if found == expected {
        return Ok(());
    }
    let differ = found.iter().zip(expected).position(|(a, b)| a != b);
    ensure!(differ.is_none(), "{what}: other bytes at {differ:?}");
    Ok(())
}
