//! Who opens a held file for writing, by whatever call: a program for itself, whose writes are asked about, or the kernel
//! for somebody, whose writes are not.
#![allow(
    unsafe_code,
    reason = "fanotify(7) and file_setattr(2), which rustix does not have"
)]

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use longpin_linux::{open_by_ring, write_by_ring};
use longpin_tests::PATIENCE;
use longpin_tests::act::{Outcome, swap};
use longpin_tests::scratch::{FsKind, load_module};
use longpin_tests::udmabuf::{self, CreateError, Udmabuf};
use rustix::fs::MemfdFlags;
use rustix::io::Errno;

use crate::blocks::sh;
use crate::files::TestFile;
use crate::hold::Holder;
use crate::pin::{must_allow, must_allow_soon, must_refuse, pin};
use crate::{Test, guard, report};

pub(crate) const TESTS: &[Test] = &[
    ("c06_opened_for_programs", opened_for_programs),
    ("c05_flags_by_call", flags_by_call),
    ("c05_scrub", scrub),
    ("c06_given_to_drivers", given_to_drivers),
];

/// Slow: a driver's settings.
pub(crate) const LONG_TESTS: &[Test] = &[("c06_settings_by_ring", settings_by_ring)];

const LEN: u64 = 1 << 20;

fn name_of(path: &Path) -> Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

fn errno(err: &std::io::Error) -> Errno {
    Errno::from_io_error(err).unwrap_or(Errno::IO)
}

fn outcome(answer: i64) -> Outcome {
    match answer {
        -1 => Err(errno(&std::io::Error::last_os_error())),
        _ => Ok(()),
    }
}

/// Active until it is dropped.
struct SwapFile(CString);

impl SwapFile {
    fn new(file: &TestFile) -> Result<Self> {
        sh("mkswap -q $F; chmod 600 $F; sync", &file.path)?;
        let name = name_of(&file.path)?;
        must_allow("swapon", swap(&name, true))?;
        Ok(Self(name))
    }
}

impl Drop for SwapFile {
    fn drop(&mut self) {
        let _ = swap(&self.0, false);
    }
}

/// The same of a held file as of an active swap file, which is first.
fn on_both(act: impl Fn(&Path) -> Result<()>) -> Result<()> {
    let file = TestFile::new(FsKind::Ext4, LEN)?;
    let active = SwapFile::new(&file)?;
    act(&file.path).context("a swap file")?;
    drop(active);
    let file = TestFile::new(FsKind::Ext4, LEN)?;
    let held = Holder::start(&[], &file.path)?;
    act(&file.path).context("a held file")?;
    ensure!(held.end()? == 7);
    file.check_all()
}

/// C06, C14: what opens a file for a program is allowed, and what the program writes is not.
fn opened_for_programs() -> Result<()> {
    guard::on()?;
    on_both(|path| {
        opened_by_ring(path)?;
        met_by_fanotify(path)
    })
}

fn must_not_write(file: &File) -> Result<()> {
    let written = file.write_all_at(b"x", 0);
    must_refuse("a write", written.map_err(|err| errno(&err)))
}

fn opened_by_ring(path: &Path) -> Result<()> {
    let file = open_by_ring(&name_of(path)?, libc::O_RDWR)?;
    must_not_write(&File::from(file.context("an open by a ring")?))
}

/// A group that is asked before anybody opens the file, and gets a descriptor for reading and writing.
fn group(path: &Path) -> Result<File> {
    let both_ways = u32::try_from(libc::O_RDWR)?;
    let kind = libc::FAN_CLASS_CONTENT | libc::FAN_CLOEXEC;
    // SAFETY: the call takes numbers, and returns a descriptor or -1.
    let group = unsafe { libc::fanotify_init(kind, both_ways) };
    outcome(group.into()).context("fanotify_init")?;
    // SAFETY: made just now, and nobody else's.
    let group = unsafe { File::from_raw_fd(group) };
    let name = name_of(path)?;
    // SAFETY: the name ends, and outlives the call.
    let marked = unsafe {
        libc::fanotify_mark(
            group.as_raw_fd(),
            libc::FAN_MARK_ADD,
            libc::FAN_OPEN_PERM,
            libc::AT_FDCWD,
            name.as_ptr(),
        )
    };
    outcome(marked.into()).context("fanotify_mark")?;
    Ok(group)
}

/// Who scans files as they are opened reads of each with a descriptor; where it gets none, nobody opens the file.
fn met_by_fanotify(path: &Path) -> Result<()> {
    let mut group = group(path)?;
    let wanted = path.to_owned();
    let opener = std::thread::spawn(move || File::open(wanted).map(drop));
    let mut event = [0; 256];
    let read = group.read(&mut event);
    let answered = read.map_err(anyhow::Error::new).and_then(|_| {
        // struct fanotify_event_metadata: the descriptor is its sixth member, at 16.
        let bytes = event[16..20].try_into()?;
        let descriptor = i32::from_ne_bytes(bytes);
        ensure!(descriptor >= 0, "no descriptor");
        // SAFETY: the kernel made it for the event, and it is nobody else's.
        let file = unsafe { File::from_raw_fd(descriptor) };
        let [fd, answer] = [descriptor.to_ne_bytes(), libc::FAN_ALLOW.to_ne_bytes()];
        group.write_all(&[fd, answer].concat())?;
        Ok(file)
    });
    drop(group);
    let opened = opener.join().map_err(|_| anyhow::anyhow!("panicked"))?;
    let file = answered.context("the event")?;
    must_allow("the open", opened.map_err(|err| errno(&err)))?;
    must_not_write(&file)
}

/// A namespace of nvmet over `$F`, which is not enabled yet: the path of the setting is printed.
const NVMET: &str = "C=/sys/kernel/config; mountpoint -q $C || mount -t configfs none $C
    N=$C/nvmet/subsystems/longpin-opens/namespaces/1; mkdir -p $N; printf %s $F > $N/device_path; printf %s $N/enable";
const NVMET_OFF: &str = "N=/sys/kernel/config/nvmet/subsystems/longpin-opens
    echo 0 > $N/namespaces/1/enable; rmdir $N/namespaces/1 $N";

/// Whether nvmet took the file.
fn enable(path: &Path, by_ring: bool) -> Result<Outcome> {
    let setting = sh(NVMET, path)?;
    let setting = File::options().write(true).open(setting)?;
    let answer = match by_ring {
        true => write_by_ring(&setting, 0, b"1\n")?,
        false => (&setting).write_all(b"1\n").map_err(|err| errno(&err)),
    };
    drop(setting);
    sh(NVMET_OFF, path)?;
    Ok(answer)
}

/// C06: nvmet writes to its file without asking. Who sets it by io_uring is refused as who does by write(2).
fn settings_by_ring() -> Result<()> {
    guard::on()?;
    load_module("nvmet");
    if !Path::new("/sys/module/nvmet").exists() {
        return report::skip("there is no module nvmet");
    }
    let free = TestFile::new(FsKind::Ext4, LEN)?;
    let held_file = TestFile::new(FsKind::Ext4, LEN)?;
    let held = Holder::start(&[], &held_file.path)?;
    for by_ring in [false, true] {
        must_allow("another file", enable(&free.path, by_ring)?)?;
        must_refuse("a held file", enable(&held_file.path, by_ring)?)
            .with_context(|| format!("by a ring: {by_ring}"))?;
    }
    ensure!(held.end()? == 7);
    must_allow("afterwards", enable(&held_file.path, true)?)?;
    held_file.check_all()
}

/// `file_setattr(2)` (since Linux 6.17): `struct file_attr` with these flags.
fn set_flags(path: &Path, flags: u64) -> Result<Outcome> {
    const FILE_SETATTR: i64 = 469;
    let attributes = [flags, 0, 0];
    let name = name_of(path)?;
    let (here, len) = (libc::AT_FDCWD, size_of_val(&attributes));
    // SAFETY: the name ends, and it and the structure outlive the call, which only reads them.
    let answer = unsafe {
        libc::syscall(
            FILE_SETATTR,
            here,
            name.as_ptr(),
            attributes.as_ptr(),
            len,
            0,
        )
    };
    Ok(outcome(answer))
}

const DAX: u64 = 0x8000;

/// C05: the flag DAX, without an ioctl.
fn flags_by_call() -> Result<()> {
    guard::on()?;
    for kind in [FsKind::Ext4, FsKind::Xfs] {
        let file = TestFile::new(kind, LEN)?;
        if set_flags(&file.path, 0)? == Err(Errno::NOSYS) {
            return report::skip("no file_setattr(2) before Linux 6.17");
        }
        let pinned = pin(&file, 0, 4096)?;
        must_refuse("DAX", set_flags(&file.path, DAX)?).with_context(|| kind.name().to_owned())?;
        must_allow("flags as they are", set_flags(&file.path, 0)?)?;
        must_allow("another flag", set_flags(&file.path, 0x40)?)?;
        drop(pinned);
        must_allow_soon("DAX, unpinned", || {
            set_flags(&file.path, DAX).unwrap_or(Err(Errno::IO))
        })?;
        must_allow("no DAX", set_flags(&file.path, 0)?)?;
    }
    Ok(())
}

/// `struct xfs_scrub_metadata`.
#[repr(C)]
#[derive(Default)]
struct Scrub {
    kind: u32,
    flags: u32,
    ino: u64,
    generation: u32,
    rest: [u32; 11],
}

/// `struct xfs_scrub_vec_head` with one `struct xfs_scrub_vec`.
#[repr(C)]
#[derive(Default)]
struct ScrubAll {
    ino: u64,
    generation: u32,
    group: u32,
    flags: u32,
    rest_us: u16,
    count: u16,
    reserved: u64,
    list: u64,
}

/// `XFS_IOC_SCRUB_METADATA` (since Linux 4.15), and of several questions about one file (6.10).
const SCRUB: libc::Ioctl = 0xc040_583c;
const SCRUB_ALL: libc::Ioctl = 0xc028_5840;
const _: () = assert!(size_of::<Scrub>() == 64 && size_of::<ScrubAll>() == 40);
const REPAIR: u32 = 1;
const MAP_OF_DATA: u32 = 12;

fn ask<T>(file: &File, number: libc::Ioctl, argument: &mut T) -> Outcome {
    // SAFETY: the numbers above are paired with their structures below, which outlive the call; what a structure points to
    // outlives it, too.
    outcome(unsafe { libc::ioctl(file.as_raw_fd(), number, std::ptr::from_mut(argument)) }.into())
}

/// The block map of the file with this number (0: of `file`) is looked at, or repaired.
fn scrub_map(file: &File, ino: u64, generation: u32, flags: u32) -> Outcome {
    let mut scrub = Scrub {
        kind: MAP_OF_DATA,
        flags,
        ino,
        generation,
        ..Scrub::default()
    };
    ask(file, SCRUB, &mut scrub)
}

fn scrub_all(file: &File, flags: u32) -> Outcome {
    let mut questions = [MAP_OF_DATA, flags, 0, 0];
    let mut all = ScrubAll {
        count: 1,
        list: questions.as_mut_ptr() as u64,
        ..ScrubAll::default()
    };
    ask(file, SCRUB_ALL, &mut all)
}

/// C05: xfs repairs a file's block map, and drops its pages before, whatever the state of the map.
fn scrub() -> Result<()> {
    guard::on()?;
    let free = TestFile::new(FsKind::Xfs, LEN)?;
    let repairs = scrub_map(&free.file, 0, 0, REPAIR);
    if matches!(repairs, Err(Errno::OPNOTSUPP | Errno::NOTTY)) {
        println!("this kernel repairs nothing: {repairs:?}");
    }
    let file = TestFile::new(FsKind::Xfs, LEN)?;
    let pinned = pin(&file, 0, 4096)?;
    must_refuse("a repair", scrub_map(&file.file, 0, 0, REPAIR))?;
    must_refuse("one of several", scrub_all(&file.file, REPAIR))?;
    let ino = file.file.metadata()?.ino();
    must_refuse("by its number", scrub_map(&free.file, ino, 0, REPAIR))?;
    let same = |what: &str, now: Outcome, before: Outcome| {
        ensure!(now == before, "{what}: {now:?}, and {before:?} before");
        anyhow::Ok(())
    };
    same("another", scrub_map(&free.file, 0, 0, REPAIR), repairs)?;
    let looks = scrub_map(&free.file, 0, 0, 0);
    same("a look at it", scrub_map(&file.file, 0, 0, 0), looks)?;
    same("looks", scrub_all(&file.file, 0), scrub_all(&free.file, 0))?;
    drop(pinned);
    let begin = Instant::now();
    while scrub_map(&file.file, 0, 0, REPAIR) != repairs {
        ensure!(begin.elapsed() < PATIENCE, "refused for ever");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// `SET_BITMAP_FILE` of md, which writes to the blocks of that file: on a device that has no array.
fn give_to_md(md: &File, file: &File) -> Outcome {
    const SET_BITMAP_FILE: libc::Ioctl = 0x4004_092b;
    // SAFETY: the argument is a number, of a descriptor that is open.
    outcome(unsafe { libc::ioctl(md.as_raw_fd(), SET_BITMAP_FILE, file.as_raw_fd()) }.into())
}

/// C06: drivers that are given a file by its descriptor, and change it without asking.
fn given_to_drivers() -> Result<()> {
    guard::on()?;
    given_to_md()?;
    as_a_buffer()
}

fn given_to_md() -> Result<()> {
    load_module("md-mod");
    let file = TestFile::new(FsKind::Ext4, LEN)?;
    sh(
        "[ -b /run/longpin-md ] || mknod /run/longpin-md b 9 77",
        &file.path,
    )?;
    let Ok(md) = File::options()
        .read(true)
        .write(true)
        .open("/run/longpin-md")
    else {
        report::skip_part("md", "there is no module md-mod");
        return Ok(());
    };
    let held = Holder::start(&[], &file.path)?;
    must_refuse("md", give_to_md(&md, &file.file))?;
    ensure!(held.end()? == 7);
    file.check_all()
}

/// udmabuf makes a buffer of a file in memory, to which anybody may write who has that.
fn as_a_buffer() -> Result<()> {
    load_module("udmabuf");
    if !udmabuf::supported()? {
        report::skip_part("udmabuf", "Debian's kernel is built without udmabuf");
        return Ok(());
    }
    let file = TestFile::memfd(MemfdFlags::empty(), LEN)?;
    let path = format!("/proc/{}/fd/{}", std::process::id(), file.file.as_raw_fd());
    let free = TestFile::memfd(MemfdFlags::empty(), LEN)?;
    let made = |answer| match answer {
        Ok::<Udmabuf, _>(buffer) => {
            drop(buffer);
            Ok(())
        }
        Err(CreateError::Refused { errno, .. }) => Err(errno),
        Err(_) => Err(Errno::IO),
    };
    let make = || made(Udmabuf::create(&file.file, 0, 4096));
    let make_of_both = || made(Udmabuf::create_of_both([&free.file, &file.file]));
    must_allow("a buffer", make())?;
    must_allow("another", made(Udmabuf::create(&free.file, 0, 4096)))?;
    must_allow("one of both", make_of_both())?;
    let held = Holder::start(&[], Path::new(&path))?;
    must_refuse("a buffer of a held file", make())?;
    must_refuse("one with a held file", make_of_both())?;
    ensure!(held.end()? == 7);
    must_allow("a buffer afterwards", make())?;
    must_allow("one of both afterwards", make_of_both())
}
