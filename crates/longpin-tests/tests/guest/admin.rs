//! What an administrator sees and decides: who may hold, audit, deny, release, why, watch.

use std::os::unix::fs::{PermissionsExt, chown};

use anyhow::{Context, Result, ensure};
use longpin_tests::act::ftruncate;
use longpin_tests::scratch::FsKind;
use serde_json::Value;

use crate::blocks::status as status_of;
use crate::child::Pinner;
use crate::files::TestFile;
use crate::pin::{must_allow, must_allow_soon, must_refuse, pin};
use crate::rules::Rules;
use crate::{Test, guard};

pub(crate) const TESTS: &[Test] = &[
    ("smoke_verifier", smoke_verifier),
    ("admin_who_may_hold", admin_who_may_hold),
    ("admin_quota", admin_quota),
    ("admin_audit", admin_audit),
    ("c15_deny", c15_deny),
    ("admin_release", admin_release),
    ("admin_ls", admin_ls),
    ("admin_ls_runs", admin_ls_runs),
    ("admin_why", admin_why),
];

const USER: u32 = 1000;
const LEN: u64 = 65_536;

/// Every program is loaded on every row, and far from the verifier's limit of a million instructions.
fn smoke_verifier() -> Result<()> {
    guard::on()?;
    let status = guard::status()?;
    ensure!(status["missing"] == serde_json::json!([]), "{status}");
    let programs = status["programs"].as_array().context("no programs")?;
    ensure!(programs.len() > 25, "only {} programs", programs.len());
    for program in programs {
        let name = program["name"].as_str().unwrap_or_default();
        let verified = program["verified-instructions"].as_u64().unwrap_or(0);
        println!("verifier: {name:<34} {verified:>7}");
        ensure!(verified > 0 && verified < 100_000, "{program}");
    }
    Ok(())
}

fn owned(kind: FsKind, uid: u32, mode: u32) -> Result<TestFile> {
    let f = TestFile::new(kind, LEN)?;
    chown(&f.path, Some(uid), Some(uid))?;
    std::fs::set_permissions(&f.path, std::fs::Permissions::from_mode(mode))?;
    Ok(f)
}

/// Pinned by this user, is the file held?
fn judge(who: &str, owner: u32, mode: u32, held: bool) -> Result<()> {
    let f = owned(FsKind::Tmpfs, owner, mode)?;
    let pinner = Pinner::pin_as(who, &f.path, 0, 4096)?;
    let pins = guard::pins_on(&f.path)?;
    ensure!(pins.len() == 1, "ls --all shows {pins:?}");
    ensure!(pins[0]["enforced"] == held, "ls --all shows {pins:?}");
    let outcome = ftruncate(&f.file, 0);
    if held {
        must_refuse("truncate", outcome)?;
        f.check_all()
    } else {
        must_allow("truncate", outcome)?;
        let why = pins[0]["why"].as_str().unwrap_or_default();
        ensure!(why.contains("may not write"), "the reason is {why:?}");
        drop(pinner);
        Ok(())
    }
}

/// A pin is a hold if its process may write the file, however it was opened.
fn admin_who_may_hold() -> Result<()> {
    guard::on()?;
    for (who, owner, mode, held) in [
        ("1000", USER, 0o644, true),
        ("1000", USER, 0o444, true),
        ("1000", 0, 0o644, false),
        ("1000", 0, 0o666, true),
        ("0", USER, 0o600, true),
        // Root in a namespace of its own: over its own files only.
        ("1000:userns", 0, 0o644, false),
        ("1000:userns", USER, 0o600, true),
    ] {
        judge(who, owner, mode, held)
            .with_context(|| format!("user {who}, file of {owner}, mode {mode:o}"))?;
    }
    reader_beside_owner()
}

/// A reader's pin is none; the owner's pin of the same file is one, and ends with the owner's.
fn reader_beside_owner() -> Result<()> {
    let f = owned(FsKind::Tmpfs, 0, 0o644)?;
    let _reader = Pinner::pin_as("1000", &f.path, 0, 4096)?;
    must_allow("a reader alone", ftruncate(&f.file, LEN - 4096))?;
    let owner = Pinner::pin(&f.path, 4096, 4096)?;
    must_refuse("with the owner", ftruncate(&f.file, 4096))?;
    owner.kill()?;
    Ok(())
}

/// A user other than root holds as many files as the quota says; root is not counted.
fn admin_quota() -> Result<()> {
    let _rules = Rules::set("quota files=2\n")?;
    quota_of_two()
}

fn quota_of_two() -> Result<()> {
    let files: Vec<TestFile> = (0..3)
        .map(|_| owned(FsKind::Tmpfs, USER, 0o644))
        .collect::<Result<_>>()?;
    let mut pinners = Vec::new();
    for f in &files {
        pinners.push(Pinner::pin_as("1000", &f.path, 0, 4096)?);
    }
    must_refuse("the first", ftruncate(&files[0].file, 0))?;
    must_refuse("the second", ftruncate(&files[1].file, 0))?;
    must_allow("over quota", ftruncate(&files[2].file, 4096))?;
    let pins = guard::pins_on(&files[2].path)?;
    ensure!(
        pins[0]["why"]
            .as_str()
            .unwrap_or_default()
            .contains("quota"),
        "ls --all shows {pins:?}"
    );
    let f = TestFile::new(FsKind::Tmpfs, LEN)?;
    let _root = pin(&f, 0, 4096)?;
    must_refuse("root", ftruncate(&f.file, 0))
}

/// Audit: refuses nothing, records what it would refuse.
fn admin_audit() -> Result<()> {
    guard::off()?;
    guard::must(&["guard", "start", "--audit"])?;
    let tried = audit();
    guard::off()?;
    tried
}

fn audit() -> Result<()> {
    let f = TestFile::new(FsKind::Tmpfs, LEN)?;
    let pinned = pin(&f, 0, 4096)?;
    must_allow("truncate", ftruncate(&f.file, 0))?;
    let events = guard::events_on(&f.path)?;
    let would = |event: &Value| event["event"] == "would-refuse";
    ensure!(events.iter().any(would), "events: {events:?}");
    let status = guard::status()?;
    ensure!(
        status["audit"] == true && status["would-refuse"] == 1,
        "{status}"
    );
    drop(pinned);
    crate::mount_ends::far::audited().context("many ends at once")?;
    // A hold under it would hold nothing.
    let other = TestFile::new(FsKind::Tmpfs, LEN)?;
    let path = other.path.to_string_lossy();
    for level in ["layout", "swapfile"] {
        let hold = ["hold", "--level", level, &path, "--", "true"];
        let (code, words) = status_of(&hold)?;
        ensure!(code == 1 && words.contains("--audit"), "{code}: {words}");
    }
    Ok(())
}

/// Who pins a denied file is killed before it can use the pin; nobody else is.
fn c15_deny() -> Result<()> {
    guard::on()?;
    let f = TestFile::new(FsKind::Tmpfs, LEN)?;
    let path = f.path.to_string_lossy().into_owned();
    guard::must(&["deny", &path])?;
    let denied = Pinner::pin(&f.path, 0, 4096);
    ensure!(denied.is_err(), "a denied pin came back");
    must_allow_soon("its pin is gone", || ftruncate(&f.file, 4096))?;
    let events = guard::events_on(&f.path)?;
    ensure!(
        events.iter().any(|event| event["event"] == "denied"),
        "events: {events:?}"
    );
    let other = TestFile::new(FsKind::Tmpfs, LEN)?;
    let _pinner = Pinner::pin(&other.path, 0, 4096).context("another file")?;
    guard::must(&["allow", &path])?;
    let _allowed = Pinner::pin(&f.path, 0, 4096).context("allowed again")?;
    must_refuse("held", ftruncate(&f.file, 0))
}

fn admin_release() -> Result<()> {
    guard::on()?;
    let f = TestFile::new(FsKind::Tmpfs, LEN)?;
    let pinned = pin(&f, 0, 4096)?;
    let id = guard::holds_on(&f.path)?[0]["id"].to_string();
    let refused = guard::longpin(&["release", &id])?;
    ensure!(refused.status.code() == Some(1), "release: {refused:?}");
    must_refuse("not released", ftruncate(&f.file, 0))?;
    guard::must(&["release", &id, "--force"])?;
    ensure!(guard::holds_on(&f.path)?.is_empty(), "still listed");
    must_allow("released", ftruncate(&f.file, 0))?;
    drop(pinned);
    ftruncate(&f.file, LEN)?;
    let _again = pin(&f, 0, 4096)?;
    must_refuse("a new pin is a hold again", ftruncate(&f.file, 0))?;
    let unknown = guard::longpin(&["release", "999999"])?;
    ensure!(unknown.status.code() == Some(1), "release: {unknown:?}");
    Ok(())
}

/// Columns, raw output, and what became of the file's name.
fn admin_ls() -> Result<()> {
    guard::on()?;
    let f = TestFile::new(FsKind::Ext4, LEN)?;
    let pinned = pin(&f, 4096, 8192)?;
    let holds = guard::holds_on(&f.path)?;
    ensure!(holds.len() == 1, "holds: {holds:?}");
    let hold = &holds[0];
    ensure!(
        hold["start"] == 4096 && hold["end"] == 12_288 && hold["pages"] == 2,
        "{hold}"
    );
    ensure!(hold["pid"] == std::process::id(), "{hold}");
    ensure!(hold["consumer"] == pinned.consumer(), "{hold}");
    ensure!(
        hold["cgroup"].as_str().is_some_and(|c| c.starts_with('/')),
        "{hold}"
    );
    let raw = guard::must(&["ls", "--raw", "-b", "-n", "-o", "START,END,PATH"])?;
    let wanted = format!("4096 12288 {}", f.path.display());
    ensure!(raw.lines().any(|line| line == wanted), "raw: {raw}");
    let moved = f.path.with_extension("moved");
    std::fs::rename(&f.path, &moved)?;
    let listed = guard::must(&["ls"])?;
    let name = f.path.file_name().unwrap_or_default().to_string_lossy();
    ensure!(
        listed.contains(&format!("{} (was {name})", moved.display())),
        "{listed}"
    );
    std::fs::remove_file(&moved)?;
    let listed = guard::must(&["ls"])?;
    ensure!(listed.contains("(deleted)"), "{listed}");
    Ok(())
}

/// Two pins of one process, far apart: two lines of one hold, and nothing between.
fn admin_ls_runs() -> Result<()> {
    guard::on()?;
    let f = TestFile::new(FsKind::Tmpfs, LEN)?;
    f.file.set_len(1 << 40)?;
    let _near = pin(&f, 4096, 8192)?;
    let _far = pin(&f, 1 << 39, 4096)?;
    let holds = guard::holds_on(&f.path)?;
    let ranges: Vec<_> = holds
        .iter()
        .map(|hold| {
            (
                hold["start"].as_u64(),
                hold["end"].as_u64(),
                hold["pages"].as_u64(),
            )
        })
        .collect();
    let far = 1_u64 << 39;
    ensure!(
        ranges
            == [
                (Some(4096), Some(12_288), Some(2)),
                (Some(far), Some(far + 4096), Some(1))
            ],
        "{holds:?}"
    );
    ensure!(holds[0]["id"] == holds[1]["id"], "{holds:?}");
    must_allow(
        "punch between",
        longpin_tests::act::punch(&f.file, 12_288, 1 << 30),
    )
}

/// Who pinned this file, and what was refused, also afterwards.
fn admin_why() -> Result<()> {
    guard::on()?;
    let f = TestFile::new(FsKind::Ext4, LEN)?;
    let path = f.path.to_string_lossy().into_owned();
    let pinned = pin(&f, 0, 4096)?;
    must_refuse("truncate", ftruncate(&f.file, 0))?;
    let said = guard::must(&["why", &path])?;
    let pid = std::process::id().to_string();
    ensure!(said.contains("held") && said.contains(&pid), "{said}");
    drop(pinned);
    must_allow_soon("released", || ftruncate(&f.file, 0))?;
    let answer: Value = serde_json::from_str(&guard::must(&["why", "--json", &path])?)?;
    ensure!(
        answer["holds"].as_array().is_some_and(Vec::is_empty),
        "{answer}"
    );
    let events = answer["events"].as_array().context("no events")?;
    let refused = |event: &&Value| event["event"] == "refused";
    let event = events.iter().find(refused).context("no refusal is told")?;
    ensure!(
        event["operation"] == "truncate to 0" && event["pid"] == std::process::id(),
        "{event}"
    );
    ensure!(
        guard::longpin(&["why", "/nowhere"])?.status.code() == Some(2),
        "a missing file"
    );
    ensure!(
        guard::longpin(&["why", "/dev/null"])?.status.code() == Some(16),
        "a device"
    );
    Ok(())
}
