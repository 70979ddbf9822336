//! The block map: the bytes on the device at a file's extents are the file's.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use longpin_tests::act::punch;
use longpin_tests::pattern::Pattern;
use longpin_tests::scratch::{FsKind, Scratch, write_striped};

use crate::Test;
use crate::blocks::{check, device_bytes, extents, same, sh, status};

pub(crate) const TESTS: &[Test] = &[
    ("extents_are_the_files_bytes", extents_are_the_files_bytes),
    ("extents_refused", extents_refused),
];

pub(crate) const LONG_TESTS: &[Test] = &[
    ("extents_realtime", extents_realtime),
    ("extents_map_swapfile", extents_map_swapfile),
    ("extents_many", extents_many),
];

const DISKS: [FsKind; 4] = [FsKind::Ext4, FsKind::Xfs, FsKind::Btrfs, FsKind::F2fs];

/// Bytes of the file: no whole page at the end.
const LEN: usize = (2 << 20) + 777;

/// A pattern with holes in it, on blocks here and there.
fn scattered(scratch: &Scratch, name: &str) -> Result<std::path::PathBuf> {
    let other = scratch.file("other", 4 << 20, Pattern::new(1))?;
    let file = scratch.file(name, LEN, Pattern::new(7))?;
    let open = |path: &Path| fs::File::options().write(true).open(path);
    let opened = open(&file)?;
    for at in [3, 17, 64, 65, 200] {
        punch(&opened, at * 4096, 8192)?;
    }
    // Room between the extents, and blocks that were somebody else's.
    let opened = open(&other)?;
    for at in (0..=1000).step_by(40) {
        punch(&opened, at * 4096, 65_536)?;
    }
    let more = "dd if=/dev/urandom of=$F bs=4096 seek=300 count=100 conv=notrunc,fsync status=none";
    sh(more, &file)?;
    Ok(file)
}

fn extents_are_the_files_bytes() -> Result<()> {
    for kind in DISKS {
        let scratch = Scratch::new(kind, 320 << 20)?;
        let file = scattered(&scratch, "file")?;
        compare(&file).with_context(|| kind.name())?;
        // Rewritten in place or elsewhere: the map is the new one.
        sh(
            "dd if=/dev/urandom of=$F bs=65536 count=7 conv=notrunc status=none",
            &file,
        )?;
        compare(&file).with_context(|| format!("{kind}, rewritten"))?;
        scratch.close()?;
    }
    Ok(())
}

/// The device, the file, and a changed byte that must be noticed.
fn compare(file: &Path) -> Result<()> {
    let found = device_bytes(file)?;
    let mut expected = fs::read(file)?;
    ensure!(
        expected.iter().any(|&byte| byte != 0),
        "an empty file proves nothing"
    );
    same("the device at the file's extents", &found, &expected)?;
    let middle = expected.len() / 2;
    expected[middle] ^= 1;
    ensure!(
        same("", &found, &expected).is_err(),
        "the comparison sees nothing"
    );
    Ok(())
}

/// A map does not have to fit into memory: of this one, 4 MiB would not have room for 24 bytes of each extent.
fn extents_many() -> Result<()> {
    const MANY: u64 = 200_000;
    const LIMIT: &str = "ulimit -d 4096";
    let scratch = Scratch::new(FsKind::Ext4, MANY * 4096 * 21 / 20 + (64 << 20))?;
    let file = scratch.dir().join("file");
    write_striped(&file, MANY)?;
    let count = |command: &str| -> Result<u64> {
        let printed = sh(&format!("{LIMIT} && {command} | wc -l"), &file)?;
        Ok(printed.trim().parse()?)
    };
    let lines = count("longpin extents -n $F")?;
    ensure!(lines == MANY, "{lines} extents of {MANY}");
    let lines = count("longpin extents --json $F | tr '{' '\\n' | grep physical")?;
    ensure!(lines == MANY, "{lines} extents of {MANY} as JSON");
    let keep = "awk '{ kept[NR] = $0 } END { print NR }'";
    let kept = sh(&format!("longpin extents -n $F | ({LIMIT}; {keep})"), &file);
    ensure!(kept.is_err(), "the limit limits nothing");
    scratch.close()
}

/// A real-time file lies on the other device, and a file beside it does not.
fn extents_realtime() -> Result<()> {
    let scratch = Scratch::new(FsKind::Tmpfs, 1 << 30)?;
    let dir = scratch.dir();
    let make = "truncate -s 320M $D/data; truncate -s 128M $D/rt; mkdir $D/mnt
        a=$(losetup -f --show $D/data); b=$(losetup -f --show $D/rt)
        echo $a >$D/plain; echo $b >$D/realtime
        mkfs.xfs -q -f -m rmapbt=0,reflink=0 -r rtdev=$b $a
        mount -t xfs -o rtdev=$b $a $D/mnt
        touch $D/mnt/realtime $D/mnt/plain; xfs_io -c 'chattr +r' $D/mnt/realtime
        dd if=/dev/urandom of=$D/mnt/realtime bs=1M count=3 conv=notrunc,fsync status=none
        dd if=/dev/urandom of=$D/mnt/plain bs=1M count=3 conv=notrunc,fsync status=none";
    let end = "umount $D/mnt || :; losetup -d $(cat $D/plain) $(cat $D/realtime) || :";
    let tried = sh(make, &dir.join("x")).and_then(|_| {
        for name in ["realtime", "plain"] {
            let file = dir.join("mnt").join(name);
            compare(&file).with_context(|| name.to_owned())?;
            let device = fs::read_to_string(dir.join(name))?;
            let map = extents(&file)?;
            ensure!(map["devices"][0]["path"] == device.trim(), "{name}: {map}");
        }
        Ok(())
    });
    sh(end, &dir.join("x"))?;
    tried?;
    scratch.close()
}

/// btrfs-progs translates, too.
fn extents_map_swapfile() -> Result<()> {
    let scratch = Scratch::new(FsKind::Btrfs, 320 << 20)?;
    let file = scratch.dir().join("file");
    sh(
        "truncate -s 0 $F; chattr +C $F; fallocate -l 16M $F; chmod 600 $F",
        &file,
    )?;
    sh(
        "dd if=/dev/urandom of=$F bs=1M count=16 conv=notrunc,fsync status=none",
        &file,
    )?;
    let said = sh("btrfs inspect-internal map-swapfile $F", &file)?;
    let theirs = said
        .lines()
        .find_map(|line| line.strip_prefix("Physical start:"));
    let theirs: u64 = theirs.context(said.clone())?.trim().parse()?;
    let map = extents(&file)?;
    ensure!(map["extents"][0]["physical"] == theirs, "{said}: {map}");
    compare(&file)?;
    scratch.close()
}

/// What cannot be translated is named, and nothing is printed.
fn extents_refused() -> Result<()> {
    let btrfs = Scratch::new(FsKind::Btrfs, 320 << 20)?;
    let cases = [
        ("echo hello >$F; sync", "among metadata"),
        (
            "chattr +c $F; dd if=/dev/zero of=$F bs=1M count=4 conv=notrunc,fsync",
            "compressed",
        ),
    ];
    for (number, (script, word)) in cases.into_iter().enumerate() {
        let file = btrfs.dir().join(format!("file-{number}"));
        sh(&format!("touch $F; {script}"), &file)?;
        refuse(&file, word)?;
    }
    let file = btrfs.dir().join("dup");
    sh(
        "btrfs balance start -f -dconvert=dup $D >/dev/null; dd if=/dev/urandom of=$F bs=1M count=4 conv=fsync",
        &file,
    )?;
    refuse(&file, "more than once")?;
    let (verdict, names) = check(&file, "blocks")?;
    let named = verdict == "refused" && names.iter().any(|name| name == "profile");
    ensure!(named, "{verdict}: {names:?}");
    btrfs.close()?;
    let tmpfs = Scratch::new(FsKind::Tmpfs, 8 << 20)?;
    let file = tmpfs.file("file", 8192, Pattern::new(1))?;
    refuse(&file, "tmpfs gives no block map")?;
    refuse(tmpfs.dir(), "a directory")?;
    tmpfs.close()
}

fn refuse(file: &Path, word: &str) -> Result<()> {
    let (code, words) = status(&["extents", "--json", &file.to_string_lossy()])?;
    let named = code == 1 && words.contains(word) && !words.contains("version");
    ensure!(named, "{}: {code}: {words}", file.display());
    Ok(())
}
