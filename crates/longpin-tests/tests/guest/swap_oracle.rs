//! The kernel is the oracle: `longpin check --for swap` says yes where swapon(2) does, and no where it does not.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use longpin_linux::swap::{swap_off, swap_on};
use longpin_tests::scratch::{FsKind, Scratch};

use crate::Test;
use crate::blocks::{check, sh};

pub(crate) const TESTS: &[Test] = &[
    ("swap_oracle_ext4", swap_oracle_ext4),
    ("swap_oracle_xfs", swap_oracle_xfs),
    ("swap_oracle_btrfs", swap_oracle_btrfs),
    ("swap_oracle_f2fs", swap_oracle_f2fs),
    ("swap_oracle_others", swap_oracle_others),
];

/// A file to ask both about.
struct Case {
    name: &'static str,
    /// Makes `$F`.
    make: &'static str,
    /// After the header was written.
    then: &'static str,
    /// Before it is removed.
    undo: &'static str,
    /// What the check must name when it refuses; empty where only agreement matters.
    reason: &'static str,
}

const fn case(name: &'static str, make: &'static str, reason: &'static str) -> Case {
    Case {
        name,
        make,
        then: "",
        undo: "",
        reason,
    }
}

impl Case {
    const fn then(mut self, then: &'static str, undo: &'static str) -> Self {
        self.then = then;
        self.undo = undo;
        self
    }
}

const WRITTEN: &str = "dd if=/dev/zero of=$F bs=1M count=8 conv=notrunc,fsync status=none";

/// On every file system; `$F` is there and empty, on btrfs without copy on write.
const COMMON: &[Case] = &[
    case("written", WRITTEN, ""),
    case("preallocated", "fallocate -l 8M $F", ""),
    case(
        "preallocated, then half written",
        "fallocate -l 8M $F; dd if=/dev/zero of=$F bs=1M count=4 conv=notrunc,fsync status=none",
        "",
    ),
    case("one hole", "truncate -s 8M $F", "hole"),
    case(
        "a hole in the middle",
        "dd if=/dev/zero of=$F bs=1M count=8 conv=notrunc,fsync status=none; fallocate -p -o 4M -l 1M $F",
        "hole",
    ),
    case(
        "a hole at the end",
        "dd if=/dev/zero of=$F bs=1M count=4 conv=notrunc,fsync status=none; truncate -s 8M $F",
        "hole",
    ),
    case(
        "part of a page at the end",
        "dd if=/dev/zero of=$F bs=1000 count=8001 conv=notrunc,fsync status=none",
        "",
    ),
    case(
        "a hole in the part of a page at the end",
        "fallocate -l 8M $F; truncate -s $((8 << 20 | 100)) $F",
        "",
    ),
    case(
        "one page",
        "dd if=/dev/zero of=$F bs=4096 count=1 conv=notrunc,fsync status=none",
        "too-small",
    ),
    case(
        "two pages",
        "dd if=/dev/zero of=$F bs=4096 count=2 conv=notrunc,fsync status=none",
        "",
    ),
    case("immutable", WRITTEN, "immutable").then("chattr +i $F", "chattr -i $F"),
    case("append only", WRITTEN, "append-only").then("chattr +a $F", "chattr -a $F"),
    case("active already", WRITTEN, "active-swap").then("swapon $F", "swapoff $F"),
];

/// Asks both; what they do not agree on.
fn disagreement(dir: &Path, case: &Case) -> Result<Option<String>> {
    let file = dir.join("file");
    sh(
        "touch $F; chmod 600 $F; chattr +C $F 2>/dev/null || :",
        &file,
    )?;
    sh(case.make, &file).with_context(|| case.name)?;
    write_header(&file)?;
    sh(case.then, &file).with_context(|| case.name)?;
    let answer = ask(&file, case.reason);
    sh(case.undo, &file)?;
    fs::remove_file(&file)?;
    let complaint = answer?;
    println!(
        "  {:<40} {}",
        case.name,
        complaint.as_deref().unwrap_or("agreed")
    );
    Ok(complaint.map(|complaint| format!("{}: {complaint}", case.name)))
}

fn ask(file: &Path, reason: &str) -> Result<Option<String>> {
    let (verdict, names) = check(file, "swap")?;
    let kernel = swap_on(file);
    if kernel.is_ok() {
        swap_off(file)?;
    }
    let agreed = match &kernel {
        Ok(()) => verdict == "yes",
        Err(_) => verdict == "refused",
    };
    // The one place where check is stricter: older kernels (6.1) swap to an encrypted file, in plain text. Newer
    // ones (7.2) refuse it.
    let agreed = agreed || reason == "encrypted" && verdict == "refused";
    let named = reason.is_empty() || names.iter().any(|name| name == reason);
    let said = format!("the kernel says {kernel:?}, check says {verdict} {names:?}");
    Ok((!agreed || !named).then_some(said))
}

/// A header for all of the file, as mkswap writes it; written independently of longpin's own.
fn write_header(file: &Path) -> Result<()> {
    let opened = File::options().read(true).write(true).open(file)?;
    let pages = opened.metadata()?.len() / 4096;
    let last = u32::try_from(pages.max(1) - 1)?;
    opened.write_all_at(&1_u32.to_ne_bytes(), 1024)?;
    opened.write_all_at(&last.to_ne_bytes(), 1028)?;
    opened.write_all_at(b"SWAPSPACE2", 4096 - 10)?;
    Ok(opened.sync_all()?)
}

fn agree(what: &str, dir: &Path, cases: &[Case]) -> Result<()> {
    println!("{what}");
    let mut complaints = Vec::new();
    for case in cases {
        complaints.extend(disagreement(dir, case)?);
    }
    ensure!(complaints.is_empty(), "{what}:\n{}", complaints.join("\n"));
    Ok(())
}

fn swap_oracle_ext4() -> Result<()> {
    let scratch = Scratch::new(FsKind::Ext4, 128 << 20)?;
    agree("ext4", scratch.dir(), COMMON)?;
    agree(
        "ext4",
        scratch.dir(),
        &[case(
            "data journal",
            "chattr +j $F; fallocate -l 8M $F; dd if=/dev/zero of=$F bs=1M count=8 conv=notrunc,fsync status=none",
            "",
        )],
    )?;
    read_only(scratch.dir())?;
    deleted(scratch.dir())?;
    scratch.close()?;
    small_blocks()?;
    encrypted()
}

/// Blocks of 1 KiB: pages that lie in pieces.
fn small_blocks() -> Result<()> {
    let cases = [
        case("written", WRITTEN, ""),
        case(
            "one hole of a block",
            "dd if=/dev/zero of=$F bs=1M count=8 conv=notrunc,fsync status=none; fallocate -p -o 1M -l 1024 $F",
            "hole",
        ),
        case(
            "blocks here and there",
            "dd if=/dev/zero of=$D/o bs=1M count=1 conv=fsync status=none; for i in $(seq 0 2 200); do fallocate -p -o $((i << 10)) -l 1024 $D/o; dd if=/dev/zero of=$F bs=1024 seek=$((i >> 1)) count=1 conv=notrunc,fsync status=none; done; rm $D/o",
            "",
        ),
    ];
    on_image("mkfs.ext4 -q -F -b 1024", "ext4", |dir| {
        agree("ext4, 1 KiB", dir, &cases)
    })
}

fn encrypted() -> Result<()> {
    let make = "mkdir $D/e; key=$(head -c 64 /dev/urandom | xfs_io -c add_enckey $D | sed 's/.*identifier //')
        xfs_io -c \"set_encpolicy -v 2 $key\" $D/e";
    on_image("mkfs.ext4 -q -F -O encrypt", "ext4", |dir| {
        if let Err(err) = sh(make, &dir.join("x")) {
            crate::report::skip_part("encrypted", &format!("no encryption: {err:#}"));
            return Ok(());
        }
        let cases = [
            case("written", WRITTEN, "encrypted"),
            case("preallocated", "fallocate -l 8M $F", "encrypted"),
        ];
        agree("ext4, encrypted", &dir.join("e"), &cases)?;
        let file = dir.join("e/file");
        sh(WRITTEN, &file)?;
        let (verdict, names) = check(&file, "blocks")?;
        let named = verdict == "refused" && names.iter().any(|name| name == "encrypted");
        ensure!(named, "an encrypted file's blocks: {verdict} {names:?}");
        Ok(())
    })
}

/// A file system that [`Scratch`] does not make.
fn on_image(maker: &str, kind: &str, test: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let scratch = Scratch::new(FsKind::Tmpfs, 1 << 30)?;
    let file = scratch.dir().join("image");
    let make = format!(
        "truncate -s 320M $F; mkdir $D/mnt; {maker} $F >/dev/null; mount -t {kind} -o loop $F $D/mnt"
    );
    let tried = sh(&make, &file).and_then(|_| test(&scratch.dir().join("mnt")));
    sh("umount $D/mnt || :", &file)?;
    tried?;
    scratch.close()
}

fn swap_oracle_xfs() -> Result<()> {
    let scratch = Scratch::new(FsKind::Xfs, 320 << 20)?;
    agree("xfs", scratch.dir(), COMMON)?;
    let cases = [
        case("reflinked", WRITTEN, "shared")
            .then("cp --reflink=always $F $F.copy; sync", "rm $F.copy"),
        case("reflinked once", WRITTEN, "")
            .then("cp --reflink=always $F $F.copy; rm $F.copy; sync", ""),
        case("reflinked and unshared", WRITTEN, "").then(
            "cp --reflink=always $F $F.copy; xfs_io -c 'funshare 0 8M' -c fsync $F",
            "rm $F.copy",
        ),
    ];
    agree("xfs", scratch.dir(), &cases)?;
    read_only(scratch.dir())?;
    deleted(scratch.dir())?;
    scratch.close()
}

fn swap_oracle_btrfs() -> Result<()> {
    let scratch = Scratch::new(FsKind::Btrfs, 512 << 20)?;
    agree("btrfs", scratch.dir(), COMMON)?;
    let cases = [
        case(
            "copy on write",
            "chattr -C $F; dd if=/dev/zero of=$F bs=1M count=8 conv=notrunc,fsync status=none",
            "copy-on-write",
        ),
        case(
            "compressed",
            "chattr -C $F; chattr +c $F; dd if=/dev/zero of=$F bs=1M count=8 conv=notrunc,fsync status=none",
            "compressed",
        ),
        case("reflinked", WRITTEN, "shared").then(
            "touch $F.copy; chattr +C $F.copy; cp --reflink=always $F $F.copy; sync",
            "rm $F.copy",
        ),
        case("a snapshot shares it", WRITTEN, "shared").then(
            "sync; btrfs subvolume snapshot $D $D/snap >/dev/null; sync",
            "btrfs subvolume delete -c $D/snap >/dev/null",
        ),
    ];
    agree("btrfs", scratch.dir(), &cases)?;
    read_only(scratch.dir())?;
    deleted(scratch.dir())?;
    sh(
        "btrfs balance start -f -dconvert=dup $D >/dev/null",
        &scratch.dir().join("x"),
    )?;
    agree(
        "btrfs, dup",
        scratch.dir(),
        &[case("written", WRITTEN, "profile")],
    )?;
    scratch.close()
}

fn swap_oracle_f2fs() -> Result<()> {
    let scratch = Scratch::full(FsKind::F2fs, 512 << 20)?;
    agree("f2fs", scratch.dir(), COMMON)?;
    let cases = [
        case(
            "pinned",
            "f2fs_io pinfile set $F >/dev/null; fallocate -l 8M $F",
            "",
        ),
        case(
            "pinned, no whole sections",
            "f2fs_io pinfile set $F >/dev/null; fallocate -l 7M $F",
            "",
        ),
        case(
            "compressed",
            "chattr +c $F; dd if=/dev/zero of=$F bs=1M count=8 conv=notrunc,fsync status=none",
            "compressed",
        ),
    ];
    agree("f2fs", scratch.dir(), &cases)?;
    read_only(scratch.dir())?;
    deleted(scratch.dir())?;
    scratch.close()
}

fn read_only(dir: &Path) -> Result<()> {
    let file = dir.join("file");
    sh(
        "touch $F; chattr +C $F 2>/dev/null || :; mkdir $D/ro",
        &file,
    )?;
    sh(WRITTEN, &file)?;
    write_header(&file)?;
    sh(
        "mount --bind $D $D/ro; mount -o remount,bind,ro $D/ro",
        &file,
    )?;
    let asked = ask(&dir.join("ro/file"), "read-only");
    sh("umount $D/ro; rmdir $D/ro; rm $F", &file)?;
    let complaint = asked?;
    ensure!(complaint.is_none(), "read-only: {complaint:?}");
    Ok(())
}

fn deleted(dir: &Path) -> Result<()> {
    let file = dir.join("file");
    sh("touch $F; chattr +C $F 2>/dev/null || :", &file)?;
    sh(WRITTEN, &file)?;
    write_header(&file)?;
    let open = File::options().read(true).write(true).open(&file)?;
    fs::remove_file(&file)?;
    let path = format!("/proc/{}/fd/{}", std::process::id(), open.as_raw_fd());
    let complaint = ask(&PathBuf::from(path), "deleted")?;
    ensure!(complaint.is_none(), "deleted: {complaint:?}");
    Ok(())
}

/// tmpfs, overlayfs, DAX.
fn swap_oracle_others() -> Result<()> {
    let scratch = Scratch::new(FsKind::Tmpfs, 64 << 20)?;
    agree(
        "tmpfs",
        scratch.dir(),
        &[case("written", WRITTEN, "no-blocks")],
    )?;
    scratch.close()?;
    let scratch = Scratch::new(FsKind::Ext4, 128 << 20)?;
    let file = scratch.dir().join("x");
    sh(
        "cd $D; mkdir l u w o; mount -t overlay -o lowerdir=l,upperdir=u,workdir=w overlay o",
        &file,
    )?;
    let agreed = agree(
        "overlay",
        &scratch.dir().join("o"),
        &[case("written", WRITTEN, "overlay")],
    );
    sh("umount $D/o", &file)?;
    agreed?;
    scratch.close()?;
    dax()
}

fn dax() -> Result<()> {
    let device = std::env::var("LONGPIN_FSDAX").context("no fsdax device")?;
    let scratch = Scratch::new(FsKind::Tmpfs, 8 << 20)?;
    let file = scratch.dir().join("x");
    let make = format!(
        "mkfs.ext4 -q -F -b 4096 {device}; mkdir $D/dax; mount -o dax=always {device} $D/dax"
    );
    sh(&make, &file)?;
    let agreed = agree(
        "ext4, DAX",
        &scratch.dir().join("dax"),
        &[case("written", WRITTEN, "dax")],
    );
    let pages = dax_pages(&scratch.dir().join("dax/file"));
    sh("umount $D/dax", &file)?;
    agreed.and(pages)?;
    scratch.close()
}

/// A DAX file's pages are its blocks: they are judged as such.
fn dax_pages(file: &Path) -> Result<()> {
    sh("fallocate -l 8M $F", file)?;
    let (verdict, names) = check(file, "pages")?;
    ensure!(
        verdict == "refused" && names == ["unwritten"],
        "{verdict} {names:?}"
    );
    sh(WRITTEN, file)?;
    let (verdict, names) = check(file, "pages")?;
    ensure!(verdict == "yes", "{verdict} {names:?}");
    Ok(())
}
