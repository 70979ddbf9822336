//! What may be asked of the module wrongly: a clear answer each, nothing freed under a device, and a quiet kernel log.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use longpin_tests::PAGE;
use longpin_tests::act::outcome_name;
use longpin_tests::lend::flag::{self, Flag, ask_raw, lend_raw};
use longpin_tests::lend::{Lend, Wish, abi};
use longpin_tests::operations::clone_range;
use longpin_tests::scratch::FsKind;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use super::ground::{Field, Held, LEN, must_have_no_lend};
use crate::guard;

fn must(what: &str, answer: Result<(), Errno>, wanted: Result<(), Errno>) -> Result<()> {
    ensure!(
        answer == wanted,
        "{what}: {}, not {}",
        outcome_name(answer),
        outcome_name(wanted)
    );
    Ok(())
}

/// As it lies in memory.
const fn word_of(number: i32) -> u32 {
    u32::from_ne_bytes(number.to_ne_bytes())
}

/// LEND as `longpin_lend.h` has it.
struct Request(Vec<u8>);

impl Request {
    const FLAGS: usize = 4;
    const FILE: usize = 8;
    const TOKEN: usize = 12;
    const OFFSET: usize = 16;
    const LENGTH: usize = 24;
    const GROUPS: usize = 32;
    const COUNT: usize = 40;
    const ZERO: usize = 44;

    /// A good one.
    fn new(held: &Held) -> Result<Self> {
        let mut request = Self(vec![0; 48]);
        request.put(0, 48);
        request.put(Self::FLAGS, abi::WRITE);
        request.put_fd(Self::FILE, held.file()?);
        request.put_fd(Self::TOKEN, &held.token()?);
        request.put_long(Self::LENGTH, LEN as u64);
        Ok(request)
    }

    fn put(&mut self, at: usize, word: u32) {
        self.0[at..at + 4].copy_from_slice(&word.to_ne_bytes());
    }

    fn put_fd(&mut self, at: usize, fd: &impl AsFd) {
        self.put(at, word_of(fd.as_fd().as_raw_fd()));
    }

    fn put_long(&mut self, at: usize, word: u64) {
        self.0[at..at + 8].copy_from_slice(&word.to_ne_bytes());
    }

    /// A descriptor is closed at once.
    fn ask(&mut self) -> Result<(), Errno> {
        lend_raw(&mut self.0).map(drop)
    }
}

/// Each field, wrong.
pub(super) fn requests() -> Result<()> {
    let field = Field::guarded(FsKind::Xfs)?;
    let held = field.held("lent")?;
    must("a good request", Request::new(&held)?.ask(), Ok(()))?;
    words(&held)?;
    longs(&held)?;
    descriptors(&field, &held)?;
    sizes(&held)?;
    others(&held)?;
    held.must_be_free("asked")
}

fn words(held: &Held) -> Result<()> {
    let none = -1_i32;
    for (what, at, word, wanted) in [
        ("an unknown flag", Request::FLAGS, 1 << 2, Errno::INVAL),
        ("all flags", Request::FLAGS, u32::MAX, Errno::INVAL),
        ("zero is not zero", Request::ZERO, 1, Errno::INVAL),
        ("no file", Request::FILE, word_of(none), Errno::BADF),
        ("no token", Request::TOKEN, word_of(none), Errno::BADF),
        ("17 groups", Request::COUNT, 17, Errno::INVAL),
        ("all groups", Request::COUNT, u32::MAX, Errno::INVAL),
        ("a group at address 0", Request::COUNT, 1, Errno::FAULT),
    ] {
        let mut request = Request::new(held)?;
        request.put(at, word);
        must(what, request.ask(), Err(wanted))?;
    }
    Ok(())
}

fn longs(held: &Held) -> Result<()> {
    let (page, len) = (PAGE as u64, LEN as u64);
    for (what, offset, length) in [
        ("offset 1", 1, len - page),
        ("length 0", 0, 0),
        ("half a page", 0, page / 2),
        ("a page behind the end", page, len),
        ("all behind the end", len, page),
        (
            "offset at the end of numbers",
            u64::MAX - page + 1,
            2 * page,
        ),
        ("overflow", u64::MAX - page + 1, page),
        ("overflow to the beginning", page, u64::MAX - page + 1),
        ("the largest length", 0, u64::MAX - page + 1),
        ("behind the largest file", 1 << 63, page),
        ("a petabyte", 0, 1 << 50),
    ] {
        let mut request = Request::new(held)?;
        request.put_long(Request::OFFSET, offset);
        request.put_long(Request::LENGTH, length);
        must(what, request.ask(), Err(Errno::INVAL))?;
    }
    let mut request = Request::new(held)?;
    request.put_long(Request::OFFSET, len - page);
    request.put_long(Request::LENGTH, page);
    must("the last page", request.ask(), Ok(()))
}

fn descriptors(field: &Field, held: &Held) -> Result<()> {
    let other = field.held("other")?;
    let memory = memfd_create("memory", MemfdFlags::CLOEXEC)?;
    ftruncate(&memory, LEN as u64)?;
    let reader = File::open(&held.path)?;
    let null = File::open("/dev/null")?;
    let directory = File::open(field.dir())?;
    let (socket, _peer) = UnixStream::pair()?;
    for (what, at, fd, wanted) in [
        ("a memfd", Request::FILE, memory.as_fd(), Errno::OPNOTSUPP),
        (
            "a directory",
            Request::FILE,
            directory.as_fd(),
            Errno::OPNOTSUPP,
        ),
        ("a device", Request::FILE, null.as_fd(), Errno::OPNOTSUPP),
        ("a reader", Request::FILE, reader.as_fd(), Errno::ACCESS),
        (
            "another file's token",
            Request::TOKEN,
            other.token()?,
            Errno::XDEV,
        ),
        (
            "a socket for a token",
            Request::TOKEN,
            socket.as_fd(),
            Errno::INVAL,
        ),
        (
            "a device for a token",
            Request::TOKEN,
            null.as_fd(),
            Errno::INVAL,
        ),
        (
            "the file for a token",
            Request::TOKEN,
            reader.as_fd(),
            Errno::INVAL,
        ),
    ] {
        let mut request = Request::new(held)?;
        request.put_fd(at, &fd);
        must(what, request.ask(), Err(wanted))?;
    }
    for (what, group, wanted) in [
        ("no group", -1, Errno::BADF),
        ("/dev/null for a group", null.as_raw_fd(), Errno::NODEV),
        ("a file for a group", reader.as_raw_fd(), Errno::NODEV),
    ] {
        let groups = [group];
        let mut request = Request::new(held)?;
        request.put_long(Request::GROUPS, groups.as_ptr() as u64);
        request.put(Request::COUNT, 1);
        must(what, request.ask(), Err(wanted))?;
    }
    other.must_be_free("the other file")
}

/// A structure may be longer than the module's, if what it says more is nothing.
fn sizes(held: &Held) -> Result<()> {
    for (what, size, last, wanted) in [
        ("too short", 44, 0, Err(Errno::INVAL)),
        ("no size", 0, 0, Err(Errno::INVAL)),
        ("longer", 56, 0, Ok(())),
        ("longer, and says something", 56, 1, Err(Errno::TOOBIG)),
        ("longer than a page", 8192, 0, Err(Errno::INVAL)),
    ] {
        let mut request = Request::new(held)?;
        request.0.resize(8192, 0);
        request.put(0, size);
        if last != 0 {
            request.0[size as usize - 1] = last;
        }
        must(what, request.ask(), wanted)?;
    }
    Ok(())
}

/// The other requests.
fn others(held: &Held) -> Result<()> {
    let plain = |number, words: &[u32]| {
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        ask_raw(number, &mut bytes).map(drop)
    };
    let file = word_of(held.file()?.as_raw_fd());
    let none = u32::MAX;
    must("an unknown request", plain(0x1f, &[4]), Err(Errno::NOTTY))?;
    let until = |buffer, group, zero| plain(flag::UNTIL, &[16, buffer, group, zero]);
    must("UNTIL of nothing", until(none, file, 0), Err(Errno::BADF))?;
    must("UNTIL of a file", until(file, file, 0), Err(Errno::INVAL))?;
    must(
        "REVOKE of nothing",
        plain(flag::REVOKE, &[8, none]),
        Err(Errno::BADF),
    )?;
    must(
        "REVOKE of a file",
        plain(flag::REVOKE, &[8, file]),
        Err(Errno::INVAL),
    )?;
    must(
        "FLAG of nothing",
        plain(flag::FLAG, &[8, none]),
        Err(Errno::BADF),
    )?;
    let lent = held.lend(abi::WRITE, &[])?;
    let buffer = word_of(lent.as_fd().as_raw_fd());
    must(
        "UNTIL of no group",
        until(buffer, none, 0),
        Err(Errno::BADF),
    )?;
    must(
        "UNTIL of a file as group",
        until(buffer, file, 0),
        Err(Errno::NODEV),
    )?;
    must("UNTIL, not zero", until(buffer, file, 1), Err(Errno::INVAL))?;
    let mapped = lent.map(true).map(drop);
    must("mmap before a group is named", mapped, Err(Errno::NXIO))?;
    // size, row_size, after, rows, room, zero
    let list =
        |row: u32, at: u32, room, zero| plain(flag::LIST, &[32, row, 0, 0, at, 0, room, zero]);
    must("LIST of short rows", list(80, 0, 1, 0), Err(Errno::INVAL))?;
    must("LIST of long rows", list(8192, 0, 1, 0), Err(Errno::INVAL))?;
    must("LIST to address 0", list(88, 0, 1, 0), Err(Errno::FAULT))?;
    must("LIST, not zero", list(88, 0, 1, 1), Err(Errno::INVAL))?;
    must("LIST of no rows", list(88, 0, 0, 0), Ok(()))?;
    must(
        "LIST, most rows",
        list(88, 0, u32::MAX, 0),
        Err(Errno::INVAL),
    )
}

/// A file that nobody holds is not changed by being asked for, and a hole has no memory.
pub(super) fn not_held() -> Result<()> {
    let field = Field::guarded(FsKind::Xfs)?;
    let mut held = field.held("free")?;
    let token = memfd_create("token", MemfdFlags::CLOEXEC)?;
    held.close_token();
    crate::pin::must_allow_soon("the hold is gone", || {
        let file = File::options().write(true).open(&held.path);
        file.and_then(|file| file.write_all_at(b"x", 0))
            .map_err(|_| Errno::TXTBSY)
    })?;
    let times =
        |path| fs::metadata(path).map(|data| (data.mtime_nsec(), data.ctime_nsec(), data.blocks()));
    let before = times(&held.path)?;
    std::thread::sleep(Duration::from_millis(50));
    let lend = |flags| {
        let file = held.file()?.as_fd();
        let wish = Wish {
            file,
            token: token.as_fd(),
            offset: 0,
            len: LEN,
            flags,
            groups: &[],
        };
        Ok::<_, anyhow::Error>(Lend::ask(&wish).map(drop))
    };
    must("nobody holds it", lend(abi::WRITE)?, Err(Errno::PERM))?;
    ensure!(times(&held.path)? == before, "asking changed the file");

    // The flag is a hold, too, and asks for no checks.
    let sparse = field.create("sparse")?;
    sparse.set_len(LEN as u64)?;
    let flagged = Flag::set(&sparse)?;
    let wish = Wish {
        file: sparse.as_fd(),
        token: token.as_fd(),
        offset: 0,
        len: LEN,
        flags: 0,
        groups: &[],
    };
    must("a hole", Lend::ask(&wish).map(drop), Err(Errno::OPNOTSUPP))?;
    drop(flagged);
    let shared = field.create("shared")?;
    clone_range(held.file()?, &shared, 0, LEN as u64).context("clone")?;
    let flagged = Flag::set(&shared)?;
    let wish = Wish {
        file: shared.as_fd(),
        ..wish
    };
    // The hold would have refused them. Whether the kernel marks such a page differs; that it answers at all did, too.
    let answer = Lend::ask(&wish).map(drop);
    ensure!(
        matches!(answer, Ok(()) | Err(Errno::OPNOTSUPP)),
        "shared blocks, for reading: {}",
        outcome_name(answer)
    );
    drop(flagged);
    must_have_no_lend()
}

/// Two lends of one range wait for others, not for each other.
pub(super) fn twice() -> Result<()> {
    let field = Field::guarded(FsKind::Ext4)?;
    for first in [true, false] {
        let mut held = field.held("twice")?;
        let whole = held.lend(abi::WRITE, &[])?;
        let part = held.ask(LEN as u64 / 4, LEN / 2, 0, &[])??;
        held.close_file();
        held.close_token();
        let rest = if first {
            drop(whole);
            part
        } else {
            drop(part);
            whole
        };
        held.must_stay_refused("one of two is left")?;
        drop(rest);
        held.must_be_free("both are closed")?;
    }
    Ok(())
}

/// RLIMIT_MEMLOCK counts what is lent, until it is no more.
pub(super) fn locked_memory() -> Result<()> {
    let field = Field::guarded(FsKind::Ext4)?;
    let held = field.held("counted")?;
    let before = getrlimit(Resource::Memlock);
    let limit = Some(LEN as u64 * 3 / 2);
    setrlimit(
        Resource::Memlock,
        Rlimit {
            current: limit,
            maximum: before.maximum,
        },
    )?;
    let privileged = capabilities(None)?;
    let mut less = privileged;
    less.effective.remove(CapabilitySet::IPC_LOCK);
    set_capabilities(None, less)?;
    let tried = try_locked(&held);
    set_capabilities(None, privileged)?;
    let more = (held.lend(abi::WRITE, &[])?, held.lend(abi::WRITE, &[])?);
    setrlimit(Resource::Memlock, before)?;
    tried?;
    drop(more);
    held.must_be_free("counted")?;
    let locked = fs::read_to_string("/proc/self/status")?;
    let locked = locked.lines().find(|line| line.starts_with("VmLck"));
    ensure!(
        locked.is_some_and(|line| line.contains(" 0 kB")),
        "still counted: {locked:?}"
    );
    Ok(())
}

fn try_locked(held: &Held) -> Result<()> {
    let first = held.lend(abi::WRITE, &[])?;
    let second = held.ask(0, LEN, abi::WRITE, &[])?.map(drop);
    must("more than RLIMIT_MEMLOCK", second, Err(Errno::NOMEM))?;
    drop(first);
    must_have_no_lend()?;
    drop(held.lend(abi::WRITE, &[])?);
    must_have_no_lend()
}

pub(super) fn thousand() -> Result<()> {
    many(1_000)
}

pub(super) fn ten_thousand() -> Result<()> {
    many(10_000)
}

fn many(count: usize) -> Result<()> {
    let field = Field::guarded(FsKind::Ext4)?;
    let mut held = field.held("many")?;
    let before = getrlimit(Resource::Nofile);
    let limit = Some(count as u64 + 256);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit,
            maximum: before.maximum.max(limit),
        },
    )?;
    let piece = 16 * PAGE;
    let places = LEN / piece;
    let lend = |number: usize| held.ask((number % places * piece) as u64, piece, abi::WRITE, &[]);
    let begin = std::time::Instant::now();
    let lent: Result<Vec<_>> = (0..count).map(|number| Ok(lend(number)??)).collect();
    let lent = lent?;
    println!("{count} lends after {:.1?}", begin.elapsed());
    let rows = longpin_tests::lend::list()?;
    ensure!(rows.len() == count, "LIST has {} rows", rows.len());
    ensure!(
        rows.is_sorted_by(|a, b| a.id < b.id),
        "LIST is not in order"
    );
    held.close_file();
    held.close_token();
    held.must_be_refused("many")?;
    drop(lent);
    setrlimit(Resource::Nofile, before)?;
    held.must_be_free("many are closed")
}

/// The guard goes: what is lent stays, and nothing more is lent.
pub(super) fn hold_lost() -> Result<()> {
    let field = Field::guarded(FsKind::Xfs)?;
    let held = field.held("lost")?;
    let lent = held.lend(abi::WRITE, &[])?;
    guard::must(&["guard", "stop", "--force"])?;
    let later = held.ask(0, LEN, abi::WRITE, &[])?.map(drop);
    must("the hold is lost", later, Err(Errno::PERM))?;
    held.check()?;
    drop(lent);
    // Before 6.15 the file system would not wait.
    must_have_no_lend()?;
    held.must_be_free("closed")
}
