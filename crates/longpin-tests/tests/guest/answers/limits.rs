//! What the plan says yes to, the kernel does; what it lacks is named with its numbers, and asking costs what is there.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use longpin_linux::FixedBuffer;
use longpin_linux::swap::{swap_off, swap_on};
use longpin_tests::scratch::{FsKind, Scratch};
use serde_json::Value;

use crate::blocks::{check, sh, status};
use crate::report;

fn plan(file: &Path, more: &[&str]) -> Result<(i32, Value)> {
    let path = file.to_string_lossy();
    let arguments = [
        &["check", "--device", "io_uring", "--json", &*path][..],
        more,
    ]
    .concat();
    let (code, words) = status(&arguments)?;
    Ok((code, serde_json::from_str(&words).context(words)?))
}

fn refuses(file: &Path, rule: &str) -> Result<()> {
    let (code, told) = plan(file, &[])?;
    ensure!(code == 1 && told["rule"] == rule, "{code}: {told}");
    let (needed, there) = (told["needed"].as_u64(), told["there"].as_u64());
    ensure!(needed > there && there.is_some(), "no numbers: {told}");
    println!("  {rule}: {needed:?} needed, {there:?} there");
    Ok(())
}

/// Without a page of memory: hugetlbfs has none to give, and the length is looked at before.
pub(super) fn of_a_ring() -> Result<()> {
    let scratch = Scratch::new(FsKind::Tmpfs, 8 << 30)?;
    let file = scratch.dir().join("large");
    let opened = File::create_new(&file)?;
    opened.set_len((1 << 30) + 4096)?;
    let limit = longpin_linux::ring_limits::largest_below((1 << 30) + 4096)?;
    println!("  a buffer of 1 GiB and a page: the limit is {limit:?}");
    if limit.is_some() {
        refuses(&file, "buffer-limit")?;
        let (code, told) = plan(&file, &["--range", "0+1073741824"])?;
        ensure!(code == 0, "a piece: {told}");
    } else {
        let (code, told) = plan(&file, &[])?;
        ensure!(code == 0, "{told}");
        opened.set_len(1 << 50)?;
        // The memory is looked at before: there is no tmpfs of this size.
        let (code, told) = plan(&file, &[])?;
        ensure!(code == 1, "{told}");
    }
    drop(opened);
    scratch.close()
}

pub(super) fn of_memory() -> Result<()> {
    let small = Scratch::new(FsKind::Tmpfs, 4 << 20)?;
    let file = small.dir().join("file");
    let opened = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&file)?;
    opened.set_len(8 << 20)?;
    refuses(&file, "no-room")?;
    ensure!(
        FixedBuffer::register(&opened, 0, 8 << 20).is_err(),
        "the kernel pins it"
    );
    opened.set_len(4 << 20)?;
    let (code, told) = plan(&file, &[])?;
    ensure!(code == 0, "{told}");
    FixedBuffer::register(&opened, 0, 4 << 20)?.unregister()?;
    drop(opened);
    small.close()?;
    of_a_group()?;
    huge()
}

/// Who pins holes pays for them: a control group that may not have so much gets its process killed.
fn of_a_group() -> Result<()> {
    let large = Scratch::new(FsKind::Tmpfs, 256 << 20)?;
    let file = large.dir().join("file");
    File::create_new(&file)?.set_len(100 << 20)?;
    let group = "G=/sys/fs/cgroup/longpin-limit
        echo +memory > /sys/fs/cgroup/cgroup.subtree_control
        mkdir -p $G; echo 30M > $G/memory.max; echo $$ > $G/cgroup.procs
        longpin check $F --json --device io_uring || :
        echo $$ > /sys/fs/cgroup/cgroup.procs; rmdir $G";
    let told: Value = serde_json::from_str(&sh(group, &file)?)?;
    ensure!(told["rule"] == "no-room", "{told}");
    refuses_nothing(&file)?;
    large.close()
}

fn refuses_nothing(file: &Path) -> Result<()> {
    let (code, told) = plan(file, &[])?;
    ensure!(code == 0, "outside of the group: {told}");
    Ok(())
}

/// A memfd that nobody may map for writing any more.
pub(super) fn sealed() -> Result<()> {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
    use std::os::fd::AsRawFd;
    for seal in [SealFlags::FUTURE_WRITE, SealFlags::WRITE] {
        let file = File::from(memfd_create("sealed", MemfdFlags::ALLOW_SEALING)?);
        file.set_len(1 << 20)?;
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        let (code, told) = plan(Path::new(&path), &[])?;
        ensure!(code == 0, "{code}: {told}");
        fcntl_add_seals(&file, seal)?;
        let (code, told) = plan(Path::new(&path), &[])?;
        ensure!(
            code == 1 && told["rule"] == "not-writable",
            "{code}: {told}"
        );
        ensure!(
            FixedBuffer::register(&file, 0, 1 << 20).is_err(),
            "the kernel pins it"
        );
    }
    Ok(())
}

fn huge() -> Result<()> {
    let path = "/proc/sys/vm/nr_hugepages";
    let before = fs::read_to_string(path)?;
    fs::write(path, "0")?;
    let scratch = Scratch::new(FsKind::Hugetlbfs, 0)?;
    let file = scratch.dir().join("file");
    File::create_new(&file)?.set_len(4 << 20)?;
    let tried = refuses(&file, "no-huge-pages");
    fs::write(path, before.trim())?;
    tried?;
    scratch.close()
}

pub(super) fn sparse_is_cheap() -> Result<()> {
    let scratch = Scratch::new(FsKind::Tmpfs, 64 << 20)?;
    let file = scratch.dir().join("file");
    for bits in [36, 40, 62] {
        sh(&format!("truncate -s $((1 << {bits})) $F"), &file)?;
        let begin = Instant::now();
        let (code, told) = plan(&file, &[])?;
        let took = begin.elapsed();
        println!("  2^{bits} bytes: {took:?}");
        ensure!(code == 1 && told["rule"] == "no-room", "{told}");
        ensure!(
            took < Duration::from_secs(5),
            "2^{bits} bytes took {took:?}"
        );
    }
    scratch.close()?;
    // Read by a device: nothing of it needs room at once on a file system with blocks.
    let disk = Scratch::new(FsKind::Xfs, 320 << 20)?;
    let file = disk.dir().join("file");
    sh("truncate -s 1T $F", &file)?;
    let begin = Instant::now();
    let (_, words) = status(&[
        "check",
        &file.to_string_lossy(),
        "--device",
        "rxe0",
        "-r",
        "pin",
    ])?;
    ensure!(begin.elapsed() < Duration::from_secs(10), "1 TiB: {words}");
    disk.close()
}

/// xfs with blocks of 16 KiB, where the kernel has that: some kernels swap there, others do not, and check cannot tell.
pub(super) fn large_blocks() -> Result<()> {
    let scratch = Scratch::new(FsKind::Tmpfs, 700 << 20)?;
    let file = scratch.dir().join("mnt/file");
    let make = "mkdir -p $D; truncate -s 400M $D/../image; mkfs.xfs -q -f -b size=16384 $D/../image; mount -o loop $D/../image $D";
    fs::create_dir(scratch.dir().join("mnt"))?;
    if let Err(err) = sh(make, &file) {
        println!("  no blocks of 16 KiB here: {err:#}");
        scratch.close()?;
        return report::skip("the kernel mounts no blocks larger than a page");
    }
    sh(
        "dd if=/dev/zero of=$F bs=1M count=4 conv=fsync status=none; chmod 600 $F; mkswap -q $F",
        &file,
    )?;
    let (verdict, names) = check(&file, "swap")?;
    let kernel = swap_on(&file);
    if kernel.is_ok() {
        swap_off(&file)?;
    }
    let blocks = check(&file, "blocks")?;
    sh("umount $D", &file)?;
    ensure!(
        verdict == "unknown" && names.is_empty(),
        "the kernel says {kernel:?}, check says {verdict} {names:?}"
    );
    ensure!(blocks.0 == "yes", "for blocks: {blocks:?}");
    scratch.close()
}
