//! `longpin prepare`: afterwards a device finds zeroes and data at the file's extents, and nothing else; before,
//! between and after kills the file's bytes are what they were.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use longpin_linux::attribute;
use longpin_linux::swap::{swap_off, swap_on};
use longpin_tests::PATIENCE;
use longpin_tests::pattern::Pattern;
use longpin_tests::scratch::{FsKind, Scratch};

use crate::blocks::{check, device_bytes, same, sh, status};
use crate::{Test, guard};

pub(crate) const TESTS: &[Test] = &[
    ("prepare_keeps_data", prepare_keeps_data),
    ("prepare_refuses", prepare_refuses),
];

pub(crate) const LONG_TESTS: &[Test] = &[
    ("prepare_leaves_nothing_stale", prepare_leaves_nothing_stale),
    ("prepare_by_the_device", prepare_by_the_device),
    ("prepare_killed_everywhere", || killed_on(&DISKS)),
];

const DISKS: [FsKind; 4] = [FsKind::Ext4, FsKind::Xfs, FsKind::Btrfs, FsKind::F2fs];

/// Bytes of a prepared file, in units of what f2fs pins.
const SIZE: usize = 8 << 20;

fn prepare(file: &Path, more: &[&str]) -> Result<String> {
    let path = file.to_string_lossy();
    let mut arguments = vec!["prepare", &path];
    arguments.extend(more);
    guard::must(&arguments)
}

fn is_fit(file: &Path) -> Result<()> {
    let (verdict, names) = check(file, "blocks")?;
    ensure!(verdict == "yes", "{}: {verdict} {names:?}", file.display());
    Ok(())
}

/// A file system whose free blocks are full of somebody's data.
fn soiled(kind: FsKind) -> Result<Scratch> {
    let scratch = Scratch::new(kind, 320 << 20)?;
    let file = scratch.dir().join("soil");
    let soil = "xfs_io -f -c 'pwrite -q -b 4m -S 0xaa 0 100m' -c fsync $F; rm $F; sync";
    sh(soil, &file)?;
    Ok(scratch)
}

fn prepare_leaves_nothing_stale() -> Result<()> {
    let mut stale = 0;
    for kind in DISKS {
        let scratch = soiled(kind)?;
        // What a file without preparation shows to a device.
        let raw = scratch.dir().join("raw");
        sh(
            "touch $F; chattr +C $F 2>/dev/null || :; fallocate -l 8M $F",
            &raw,
        )?;
        if kind != FsKind::F2fs {
            stale += device_bytes(&raw)?
                .iter()
                .filter(|&&byte| byte == 0xaa)
                .count();
        }
        sh("rm $F", &raw)?;
        let file = scratch.dir().join("file");
        let said = prepare(&file, &["--size", "8M"])?;
        ensure!(said.contains("MB/s"), "no speed: {said}");
        println!("  {kind}: {}", said.lines().next().unwrap_or_default());
        is_fit(&file).with_context(|| kind.name())?;
        let found = device_bytes(&file)?;
        same(&format!("{kind}, the device"), &found, &vec![0; SIZE])?;
        same(
            &format!("{kind}, the file"),
            &fs::read(&file)?,
            &vec![0; SIZE],
        )?;
        let again = prepare(&file, &["--size", "8M"])?;
        ensure!(again.contains("nothing done"), "{kind}: {again}");
        in_place(&file, &found).with_context(|| kind.name())?;
        scratch.close()?;
    }
    ensure!(
        stale > 0,
        "no device shows stale blocks: the test proves nothing"
    );
    Ok(())
}

/// Writes stay where they are, and the kernel swaps to it.
fn in_place(file: &Path, before: &[u8]) -> Result<()> {
    let map = || guard::must(&["extents", "--noheadings", &file.to_string_lossy()]);
    let old = map()?;
    sh(
        "dd if=/dev/urandom of=$F bs=1M count=8 conv=notrunc,fsync status=none",
        file,
    )?;
    ensure!(map()? == old, "a write moved the file: {old} {}", map()?);
    ensure!(
        device_bytes(file)? != before,
        "the write did not reach the device"
    );
    sh("mkswap -q $F", file)?;
    swap_on(file).context("swapon of a prepared file")?;
    Ok(swap_off(file)?)
}

/// A file with data, holes and unwritten blocks, and no whole page at the end.
fn patched(scratch: &Scratch) -> Result<PathBuf> {
    let file = scratch.dir().join("file");
    sh("touch $F; chattr +C $F 2>/dev/null || :", &file)?;
    let file = scratch.file("file", (8 << 20) + 777, Pattern::new(3))?;
    let patch = "fallocate -p -o 1M -l 1M $F; fallocate -p -o 3M -l 64K $F; fallocate -o 1M -l 512K $F; truncate -s 12345678 $F; sync $F";
    sh(patch, &file)?;
    Ok(file)
}

fn prepare_keeps_data() -> Result<()> {
    for kind in [FsKind::Ext4, FsKind::Xfs, FsKind::Btrfs] {
        let scratch = soiled(kind)?;
        let file = patched(&scratch)?;
        let before = fs::read(&file)?;
        prepare(&file, &[]).with_context(|| kind.name())?;
        is_fit(&file).with_context(|| kind.name())?;
        same(&format!("{kind}, the file"), &fs::read(&file)?, &before)?;
        same(
            &format!("{kind}, the device"),
            &device_bytes(&file)?,
            &before,
        )?;
        prepare(&file, &["--size", "20M"])?;
        let mut grown = before;
        grown.resize(20 << 20, 0);
        same(&format!("{kind}, grown"), &fs::read(&file)?, &grown)?;
        same(
            &format!("{kind}, grown, the device"),
            &device_bytes(&file)?,
            &grown,
        )?;
        scratch.close()?;
    }
    unshares()?;
    immutable()
}

fn unshares() -> Result<()> {
    let scratch = soiled(FsKind::Xfs)?;
    let file = patched(&scratch)?;
    sh("cp --reflink=always $F $F.copy; sync", &file)?;
    let before = fs::read(&file)?;
    let (verdict, names) = check(&file, "blocks")?;
    ensure!(
        names.iter().any(|name| name == "shared"),
        "{verdict} {names:?}"
    );
    let said = prepare(&file, &[])?;
    ensure!(said.contains("unshared"), "{said}");
    is_fit(&file)?;
    same("unshared", &device_bytes(&file)?, &before)?;
    // What is written to one is not the other's.
    sh(
        "dd if=/dev/urandom of=$F bs=1M count=11 conv=notrunc,fsync status=none",
        &file,
    )?;
    same("the copy", &fs::read(file.with_extension("copy"))?, &before)?;
    scratch.close()
}

fn immutable() -> Result<()> {
    let scratch = Scratch::new(FsKind::Ext4, 128 << 20)?;
    let file = scratch.dir().join("file");
    prepare(&file, &["--size", "1M", "--immutable"])?;
    ensure!(
        fs::write(&file, "x").is_err(),
        "an immutable file can be written"
    );
    ensure!(
        fs::remove_file(&file).is_err(),
        "an immutable file can be removed"
    );
    let again = prepare(&file, &["--immutable"])?;
    ensure!(again.contains("nothing done"), "{again}");
    sh("chattr -i $F", &file)?;
    scratch.close()
}

/// kill -9 whenever the file has grown a little more, then once to the end.
fn killed_on(kinds: &[FsKind]) -> Result<()> {
    for &kind in kinds {
        let scratch = soiled(kind)?;
        let file = scratch.dir().join("file");
        prepare(&file, &["--size", "2M"])?;
        longpin_tests::scratch::write_pattern(&file, 2 << 20, Pattern::new(9))?;
        let killed = kill_often(&file).with_context(|| kind.name())?;
        println!("  {kind}: killed {killed} times");
        ensure!(
            killed > 0,
            "{kind}: no prepare was killed: the test proves nothing"
        );
        prepare(&file, &["--size", "64M"])?;
        is_fit(&file).with_context(|| kind.name())?;
        let found = device_bytes(&file)?;
        ensure!(found.len() == 64 << 20, "{kind}: {} bytes", found.len());
        data_and_zeroes(&found).with_context(|| format!("{kind}, the device"))?;
        scratch.close()?;
    }
    Ok(())
}

/// How often; each time the file must be what it was, and zeroes.
fn kill_often(file: &Path) -> Result<usize> {
    let mut killed = 0;
    for _ in 0..40 {
        killed += usize::from(kill_in_the_middle(file)?);
        data_and_zeroes(&finished(file)?)?;
        if killed == 3 || fs::metadata(file)?.len() == 64 << 20 {
            break;
        }
    }
    Ok(killed)
}

fn data_and_zeroes(bytes: &[u8]) -> Result<()> {
    let (data, rest) = bytes.split_at_checked(2 << 20).context("too short")?;
    same("data", data, &Pattern::new(9).bytes(2 << 20))?;
    same("the rest", rest, &vec![0; rest.len()])
}

/// What must be zeroes or data by now: on f2fs the last bytes are neither, and it says so.
fn finished(file: &Path) -> Result<Vec<u8>> {
    let mut bytes = fs::read(file)?;
    if let Some(left) = attribute::zeroing(&fs::File::open(file)?)? {
        let (verdict, names) = check(file, "blocks")?;
        let named = names.iter().any(|name| name == "interrupted");
        ensure!(verdict == "refused" && named, "{verdict} {names:?}");
        bytes.truncate(usize::try_from(left.start)?);
    }
    Ok(bytes)
}

/// Starts it, waits until the file has grown, and kills it: whether it was killed before the end.
fn kill_in_the_middle(file: &Path) -> Result<bool> {
    let before = fs::metadata(file)?.len();
    let mut child = Command::new("longpin")
        .arg("prepare")
        .arg(file)
        .args(["--size", "64M"])
        .stdout(Stdio::null())
        .spawn()?;
    let begin = Instant::now();
    while fs::metadata(file)?.len() == before && begin.elapsed() < PATIENCE {
        if child.try_wait()?.is_some() {
            return Ok(false);
        }
    }
    child.kill()?;
    Ok(!child.wait()?.success())
}

/// A device that writes zeroes by itself: `FALLOC_FL_WRITE_ZEROES`, Linux 6.17. Elsewhere the same by writes.
fn prepare_by_the_device() -> Result<()> {
    let scratch = Scratch::new(FsKind::Tmpfs, 8 << 20)?;
    let file = scratch.dir().join("x");
    let make = "modprobe sd_mod; modprobe scsi_debug dev_size_mb=128 lbpu=1 lbpws=1 lbprz=1
        udevadm settle 2>/dev/null || sleep 1
        d=$(basename $(ls -d /sys/bus/pseudo/drivers/scsi_debug/adapter0/host*/target*/*/block/*))
        cat /sys/block/$d/queue/write_zeroes_unmap_max_hw_bytes 2>/dev/null || echo 0
        mkfs.ext4 -q -F /dev/$d; mkdir $D/mnt; mount /dev/$d $D/mnt";
    let can = match sh(make, &file) {
        Ok(said) => said.trim() != "0",
        Err(err) => return crate::report::skip(format!("no scsi_debug: {err:#}")),
    };
    let tried = prepared_by(&scratch.dir().join("mnt/file"), can);
    sh("umount $D/mnt; modprobe -r scsi_debug", &file)?;
    tried?;
    scratch.close()
}

fn prepared_by(file: &Path, device: bool) -> Result<()> {
    sh(SOIL_A_LITTLE, file)?;
    let said = prepare(file, &["--size", "8M"])?;
    println!("  {}", said.trim());
    let way = if device {
        "by the device"
    } else {
        "by direct writes"
    };
    ensure!(said.contains(way), "not {way}: {said}");
    is_fit(file)?;
    same("the device", &device_bytes(file)?, &vec![0; SIZE])
}

/// Free blocks of a small device, full of somebody's data.
const SOIL_A_LITTLE: &str = "xfs_io -f -c 'pwrite -q -b 4m -S 0xaa 0 60m' -c fsync $F; rm $F; sync";

/// What it cannot cure, it refuses with the command that would, and leaves as it was.
fn prepare_refuses() -> Result<()> {
    refuses_on_btrfs()?;
    let f2fs = Scratch::new(FsKind::F2fs, 128 << 20)?;
    let file = f2fs.file("file", 1 << 20, Pattern::new(1))?;
    refuse(&file, &[], &["not-pinned", "hint: longpin prepare NEW"])?;
    f2fs.close()?;
    let ext4 = Scratch::new(FsKind::Ext4, 64 << 20)?;
    let file = ext4.file("file", 1 << 20, Pattern::new(1))?;
    refuse(
        &file,
        &["--size", "4K"],
        &["1048576 bytes", "does not shrink"],
    )?;
    refuse(&file, &["--size", "4G"], &["allocate"])?;
    let open = fs::File::open(&file)?;
    let words = ["somebody has the file open", "hint: fuser"];
    refuse(&file, &["--size", "2M"], &words)?;
    drop(open);
    prepare(&file, &["--size", "2M"])?;
    ext4.close()?;
    let tmpfs = Scratch::new(FsKind::Tmpfs, 8 << 20)?;
    let file = tmpfs.dir().join("file");
    let (code, words) = status(&["prepare", &file.to_string_lossy(), "--size", "1M"])?;
    ensure!(code == 1 && words.contains("no-blocks"), "{code}: {words}");
    ensure!(!file.exists(), "a refused prepare left a file");
    tmpfs.close()
}

fn refuses_on_btrfs() -> Result<()> {
    let btrfs = Scratch::new(FsKind::Btrfs, 320 << 20)?;
    let write = "dd if=/dev/urandom of=$F bs=1M count=4 conv=notrunc,fsync status=none";
    let file = btrfs.dir().join("file");
    sh(&format!("touch $F; chattr +c $F; {write}"), &file)?;
    let words = [
        "compressed",
        "copy-on-write",
        "hint: longpin prepare NEW --size",
    ];
    refuse(&file, &[], &words)?;
    btrfs.close()
}

fn refuse(file: &Path, more: &[&str], words: &[&str]) -> Result<()> {
    let before = (fs::read(file)?, fs::metadata(file)?.len());
    let path = file.to_string_lossy();
    let mut arguments = vec!["prepare", &path];
    arguments.extend(more);
    let (code, said) = status(&arguments)?;
    ensure!(code == 1 || code == 8, "{code}: {said}");
    for word in words {
        ensure!(said.contains(word), "no {word:?} in {said}");
    }
    let after = (fs::read(file)?, fs::metadata(file)?.len());
    ensure!(before == after, "{} changed", file.display());
    Ok(())
}
