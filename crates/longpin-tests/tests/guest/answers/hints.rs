//! Every hint that is printed is run, on the case that printed it, and cures it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use longpin_tests::scratch::{FsKind, Scratch};

use crate::blocks::{sh, status};

/// A file that is not fit, for what, and by which name.
struct Case {
    make: &'static str,
    purpose: &'static str,
    reason: &'static str,
}

const fn case(make: &'static str, purpose: &'static str, reason: &'static str) -> Case {
    Case {
        make,
        purpose,
        reason,
    }
}

const ON_EXT4: &[Case] = &[
    case("truncate -s 4M $F", "blocks", "hole"),
    case("fallocate -l 4M $F", "blocks", "unwritten"),
    case(": > $F", "blocks", "empty"),
    case("WRITE; chattr +i $F", "swap", "immutable"),
    case("WRITE; chattr +a $F", "swap", "append-only"),
    case("WRITE; chattr +j $F", "blocks", "journalled"),
    case(
        "dd if=/dev/zero of=$F bs=4096 count=1 conv=fsync status=none",
        "swap",
        "too-small",
    ),
    case(
        "WRITE; chmod 600 $F; mkswap -q $F; swapon $F",
        "blocks",
        "active-swap",
    ),
    case("WRITE; sync; mount -o remount,ro $D", "blocks", "read-only"),
    case(
        "WRITE; umount $D; tune2fs -o journal_data $D/../store/image >/dev/null; mount -o loop $D/../store/image $D",
        "blocks",
        "journalled",
    ),
    case(
        "WRITE; umount $D; tune2fs -o journal_data $D/../store/image >/dev/null; mount -o loop $D/../store/image $D; mkdir $D/../store/bind $D/dir; mount --bind $D/dir $D/../store/bind",
        "blocks",
        "journalled",
    ),
];

const ON_XFS: &[Case] = &[case(
    "WRITE; cp --reflink=always $F $F.2; sync",
    "blocks",
    "shared",
)];

const ON_F2FS: &[Case] = &[
    case("WRITE", "blocks", "not-pinned"),
    case("WRITE; truncate -s 8M $F", "blocks", "hole"),
];

const ON_BTRFS: &[Case] = &[
    case("WRITE", "blocks", "copy-on-write"),
    case(
        "PLAIN; touch $F.2; chattr +C $F.2; cp --reflink=always $F $F.2; sync",
        "blocks",
        "shared",
    ),
    case(
        "mkdir -p $D; PLAIN; btrfs -q subvolume snapshot $D $D/was; btrfs -q subvolume delete $D/was; btrfs subvolume sync $D >/dev/null; sync",
        "blocks",
        "snapshotted",
    ),
    case(
        "chattr +c $D; touch $F; chattr -c $D; WRITE",
        "blocks",
        "compressed",
    ),
    case("printf x > $F; sync", "blocks", "inline"),
    case(
        "PLAIN; mount -o remount,autodefrag $D",
        "blocks",
        "moves-data",
    ),
    case(
        "PLAIN; echo 30 > /sys/fs/btrfs/$(findmnt -nfo UUID -T $F)/allocation/data/bg_reclaim_threshold",
        "blocks",
        "moves-data",
    ),
    case(
        "PLAIN; btrfs -q balance start -dconvert=dup $D",
        "blocks",
        "profile",
    ),
    case(
        "umount $D; mkfs.btrfs -q -f -M -d dup -m dup $D/../store/image >/dev/null; mount -o loop $D/../store/image $D; PLAIN",
        "blocks",
        "profile",
    ),
    case("chattr +C $D; printf x > $F; sync", "blocks", "inline"),
];

const WRITE: &str = "dd if=/dev/urandom of=$F bs=1M count=4 conv=notrunc,fsync status=none";

/// Names that a shell, or a command, takes for something else.
const ODD: [&str; 4] = ["-swap", "a b", "it's $HOME", "x\ny"];

fn script(case: &Case) -> String {
    let plain = format!("touch $F; chattr +C $F; {WRITE}");
    case.make.replace("PLAIN", &plain).replace("WRITE", WRITE)
}

/// Runs the hints, each once, until none is left: the file that is fit then.
fn cured(what: &str, file: &Path, purpose: &str, reason: &str) -> Result<()> {
    let mut asked: PathBuf = file.to_owned();
    for round in 0..4 {
        let path = asked.to_string_lossy().into_owned();
        let (code, words) = status(&["check", "--for", purpose, &path])?;
        if code == 0 {
            ensure!(round > 0, "{what}: nothing is wrong: {words}");
            println!("  {what}: cured");
            return Ok(());
        }
        ensure!(
            round > 0 || words.contains(reason),
            "{what}: no {reason}: {words}"
        );
        let hint = words.lines().find_map(|line| line.strip_prefix("hint: "));
        let hint = hint.with_context(|| format!("{what}: no hint: {words}"))?;
        let new = file.with_file_name("NEW");
        let _ = fs::remove_file(&new);
        let command = hint
            .replace("SIZE", "4M")
            .replace("NEW", &new.to_string_lossy());
        sh(&command, &asked).with_context(|| format!("{what}: {hint}"))?;
        if hint.contains("NEW") {
            asked = new;
        }
    }
    anyhow::bail!("{what}: the hints do not cure it")
}

fn cure_all(kind: FsKind, cases: &[Case]) -> Result<()> {
    let mut scratch = None;
    for case in cases {
        let made: &Scratch = match &scratch {
            Some(made) => made,
            None => scratch.insert(Scratch::new(kind, kind.least_size().max(300 << 20))?),
        };
        let file = made.dir().join("file");
        let what = format!("{kind}, {}", case.reason);
        sh(&script(case), &file).with_context(|| what.clone())?;
        cured(&what, &file, case.purpose, case.reason)?;
        sh("rm -f $F $F.2 $D/NEW", &file)?;
    }
    scratch.map_or(Ok(()), Scratch::close)
}

pub(super) fn cure() -> Result<()> {
    cure_all(FsKind::Ext4, ON_EXT4)?;
    cure_all(FsKind::Xfs, ON_XFS)?;
    cure_all(FsKind::F2fs, ON_F2FS)
}

pub(super) fn cure_on_btrfs() -> Result<()> {
    cure_all(FsKind::Btrfs, ON_BTRFS)
}

/// From the directory of the file, as users call it.
pub(super) fn of_odd_names() -> Result<()> {
    let scratch = Scratch::new(FsKind::Ext4, 64 << 20)?;
    for name in ODD {
        let file = scratch.dir().join(name);
        fs::File::create_new(&file)?.set_len(1 << 20)?;
        let ask = r#"cd "$D"; n=${F##*/}; longpin check --for blocks -- "$n" || :"#;
        let words = sh(ask, &file)?;
        let hint = words.lines().find_map(|line| line.strip_prefix("hint: "));
        let hint = hint.with_context(|| format!("{name:?}: {words}"))?;
        sh(&format!("cd \"$D\"; {hint}"), &file).with_context(|| format!("{name:?}: {hint}"))?;
        let again = sh(ask, &file)?;
        ensure!(again.contains(": yes"), "{name:?}: {hint}: {again}");
    }
    scratch.close()
}
