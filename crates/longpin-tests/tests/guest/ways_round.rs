//! What takes a file's pages away without being one of the ordinary operations: refused where a hook can, else reported.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use longpin_tests::PATIENCE;
use longpin_tests::act::quota;
use longpin_tests::pattern::Pattern;
use longpin_tests::scratch::{FsKind, Scratch, load_module};
use rustix::mount::{MountFlags, UnmountFlags, mount_remount, unmount};

use crate::blocks::sh;
use crate::files::TestFile;
use crate::pin::{Pinned, must_allow_soon, must_refuse, pin, register_file};
use crate::{Test, fuse, guard};

pub(crate) const TESTS: &[Test] = &[("c05_quota", quota_files), ("c13_fuse", fuse_opens)];

/// Slow: devices are made and taken away.
pub(crate) const LONG_TESTS: &[Test] = &[("c13_nvmet", nvmet), ("c13_lio", lio)];

const LEN: usize = 1 << 14;

/// An empty file for users' quota (linux/fs/quota/quotaio_v2.h): header and information, then the empty root of a tree.
fn quota_file() -> Vec<u8> {
    let words: [u32; 8] = [0xd9c0_1f11, 1, 604_800, 604_800, 0, 2, 0, 0];
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.resize(LEN, 0);
    bytes
}

/// C05: quota kept in a pinned file, switched on and off.
fn quota_files() -> Result<()> {
    guard::on()?;
    load_module("quota_v2");
    let scratch = Scratch::new(FsKind::Ext4, 64 << 20)?;
    mount_remount(scratch.dir(), MountFlags::empty(), c"usrquota")?;
    let path = scratch.dir().join("aquota.user");
    fs::write(&path, quota_file())?;
    let device = sh("findmnt -no SOURCE $D", &path)?;
    let (device, name) = (
        CString::new(device.trim())?,
        CString::new(&*path.to_string_lossy())?,
    );
    let file = File::options().read(true).write(true).open(&path)?;
    file.sync_all()?;
    let pinned = register_file(&file, 0, 4096, false)?;
    // What changes a file of quota by itself needs nobody to have it open.
    drop(file);
    must_refuse("quotaon", quota(&device, Some(&name)))?;
    drop(pinned);
    must_allow_soon("quotaon, unpinned", || quota(&device, Some(&name)))?;
    let switched_off = while_on(&path, &device);
    let off = || quota(&device, None);
    switched_off.and_then(|()| must_allow_soon("quotaoff, unpinned", off))?;
    scratch.close()
}

fn while_on(path: &Path, device: &CString) -> Result<()> {
    // Nobody may write to it now; before 6.2 the RDMA core pins for writing, whatever was asked.
    let file = File::open(path)?;
    let Ok(pinned) = register_file(&file, 0, 4096, false) else {
        crate::report::skip_part("quotaoff", "the RDMA core pins for writing");
        return Ok(());
    };
    drop(file);
    must_refuse("quotaoff", quota(device, None))?;
    drop(pinned);
    Ok(())
}

/// The row stays, as broken, and events say so.
fn must_be_told(before: u64) -> Result<()> {
    let begin = Instant::now();
    loop {
        let told = guard::count("broken-pages")?;
        let rows = guard::all_holds()?;
        let is_broken = rows.iter().any(|row| row["kind"] == "broken");
        if told > before && is_broken {
            return Ok(());
        }
        let waited = begin.elapsed() > PATIENCE / 3;
        ensure!(!waited, "lost in silence: {told} after {before}, {rows:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// C13: FUSE drops a file's pages when it is opened again, unless its server says that it need not.
fn fuse_opens() -> Result<()> {
    guard::on()?;
    load_module("fuse");
    let dir = Path::new("/run/longpin-fuse");
    fs::create_dir_all(dir)?;
    fuse::serve(dir, Pattern::new(1).bytes(LEN))?;
    let tried = open_again(dir);
    unmount(dir, UnmountFlags::DETACH)?;
    fs::remove_dir(dir)?;
    tried
}

fn open_again(dir: &Path) -> Result<()> {
    let path = dir.join(fuse::NAME);
    let file = File::options().read(true).write(true).open(&path)?;
    let pinned: Pinned = register_file(&file, 0, LEN, false)?;
    let rows = guard::holds_on(&path)?;
    ensure!(rows.len() == 1, "{rows:?}");
    drop(file);
    let before = guard::count("broken-pages")?;
    let again = File::open(&path)?;
    let mut bytes = vec![0; LEN];
    again.read_exact_at(&mut bytes, 0)?;
    must_be_told(before)?;
    drop(pinned);
    Ok(())
}

/// A namespace of nvmet over `$F`, and its device here: printed. It takes no hook for reads and writes.
const NVMET_ON: &str = "C=/sys/kernel/config; mountpoint -q $C || mount -t configfs none $C
    C=$C/nvmet; N=longpin-test; mkdir $C/subsystems/$N; echo 1 > $C/subsystems/$N/attr_allow_any_host
    mkdir $C/subsystems/$N/namespaces/1; printf %s $F > $C/subsystems/$N/namespaces/1/device_path
    echo 1 > $C/subsystems/$N/namespaces/1/enable; mkdir $C/ports/1; echo loop > $C/ports/1/addr_trtype
    ln -s $C/subsystems/$N $C/ports/1/subsystems/$N; echo transport=loop,nqn=$N > /dev/nvme-fabrics
    for i in $(seq 100); do
        for s in /sys/class/nvme/*; do
            grep -q $N $s/subsysnqn && ls -d $s/nvme*n1 >/dev/null 2>&1 && break 2
        done
        sleep 0.1
    done
    udevadm settle || true; n=$(basename $(ls -d $s/nvme*n1 | head -1)); echo /dev/$(echo $n | sed s/c[0-9]*n/n/)";
const NVMET_OFF: &str = "C=/sys/kernel/config/nvmet; N=longpin-test
    for s in /sys/class/nvme/*; do grep -q $N $s/subsysnqn && echo 1 > $s/delete_controller; done
    rm $C/ports/1/subsystems/$N; rmdir $C/ports/1 $C/subsystems/$N/namespaces/1 $C/subsystems/$N";

/// C02, C13: nvmet discards by a call that asks, and writes by one that does not.
fn nvmet() -> Result<()> {
    guard::on()?;
    for module in ["nvmet", "nvme-fabrics", "nvme-loop"] {
        load_module(module);
    }
    if !Path::new("/sys/module/nvme_loop").exists() {
        return crate::report::skip("there is no module nvme-loop");
    }
    let f = TestFile::new(FsKind::Ext4, LEN as u64)?;
    let pinned = pin(&f, 0, LEN)?;
    let device = sh(NVMET_ON, &f.path)?;
    let tried = by_nvmet(&f, device.trim());
    let off = sh(NVMET_OFF, &f.path);
    tried?;
    off?;
    drop(pinned);
    must_allow_soon("truncate, unpinned", || {
        longpin_tests::act::ftruncate(&f.file, 0)
    })
}

fn by_nvmet(f: &TestFile, device: &str) -> Result<()> {
    let before = guard::count("broken-pages")?;
    let discard = sh(&format!("blkdiscard {device}"), &f.path);
    ensure!(discard.is_err(), "the discard was not refused");
    f.check_all().context("after the discard")?;
    ensure!(guard::count("broken-pages")? == before, "discarded");
    let direct = format!("dd if=/dev/zero of={device} bs=4096 count=4 oflag=direct status=none");
    sh(&direct, &f.path).context("a write by nvmet")?;
    must_be_told(before)
}

/// A disk of LIO's over `$F`, and its name here: printed. It takes no hook for a discard, nor for asynchronous writes.
const LIO_ON: &str = "C=/sys/kernel/config; mountpoint -q $C || mount -t configfs none $C
    B=$C/target/core/fileio_0/longpin-test; T=$C/target/loopback/naa.6001405000000001/tpgt_1; mkdir -p $B
    echo fd_dev_name=$F,fd_dev_size=$(stat -c %s $F),fd_async_io=1 > $B/control; echo 1 > $B/enable
    echo 1 > $B/attrib/emulate_tpu; echo 1 > $B/attrib/emulate_tpws
    mkdir -p $T; echo naa.6001405000000002 > $T/nexus; mkdir $T/lun/lun_0; ln -s $B $T/lun/lun_0/longpin-test
    for i in $(seq 100); do
        D=$(ls /sys/bus/scsi/devices/$(cat $T/address):0/block 2>/dev/null) && [ -n \"$D\" ] && break
        sleep 0.1
    done
    udevadm settle || true; echo /dev/$D";
const LIO_OFF: &str = "C=/sys/kernel/config/target; T=$C/loopback/naa.6001405000000001/tpgt_1
    rm $T/lun/lun_0/longpin-test; rmdir $T/lun/lun_0 $T ${T%/*} $C/core/fileio_0/longpin-test";

/// C02, C06, C13: LIO punches its file and writes past its page cache; a file that is held at level swapfile it does not get.
fn lio() -> Result<()> {
    guard::on()?;
    for module in ["sd_mod", "target_core_file", "tcm_loop"] {
        load_module(module);
    }
    let f = TestFile::new(FsKind::Ext4, LEN as u64)?;
    let first = pin(&f, 0, LEN)?;
    let device = sh(LIO_ON, &f.path)?;
    let tried = by_lio(&f, device.trim(), first);
    let off = sh(LIO_OFF, &f.path);
    tried?;
    off?;
    must_allow_soon("truncate, unpinned", || {
        longpin_tests::act::ftruncate(&f.file, 0)
    })
}

fn by_lio(f: &TestFile, device: &str, first: Pinned) -> Result<()> {
    // The disk is read once when it appears: nothing may be lost by that.
    let before = guard::count("broken-pages")?;
    let direct = format!("dd if=/dev/zero of={device} bs=4096 count=4 oflag=direct status=none");
    sh(&direct, &f.path).context("a write by LIO")?;
    must_be_told(before)?;
    drop(first);
    let path = f.path.to_string_lossy();
    let (status, told) = crate::blocks::status(&["hold", "-n", &path, "--", "true"])?;
    ensure!(status == 1, "held while LIO has it: {told}");
    ensure!(
        told.contains("/sys/kernel/config/target/"),
        "no hint: {told}"
    );
    let second = pin(f, 0, LEN)?;
    let before = guard::count("broken-pages")?;
    sh(&format!("blkdiscard {device}"), &f.path).context("a discard by LIO")?;
    must_be_told(before)?;
    drop(second);
    Ok(())
}
