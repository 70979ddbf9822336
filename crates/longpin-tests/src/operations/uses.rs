//! Uses of a file that leave it its pages and blocks. An active swap file refuses some of them, too.

use std::ffi::CString;
use std::fs::{File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};
use longpin_linux::{fallocate_by_ring, ftruncate_by_ring, write_by_ring};
use rustix::fs::{FallocateFlags, OFlags, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use super::requests::{EXT4_SET_VERSION, GET_FLAGS, GET_XFLAGS, SET_FLAGS, SET_XFLAGS};
use super::victim::Aligned;
use super::{Home, Operation, Victim};
use crate::PAGE;
use crate::act::{self, Outcome};

/// `FS_IMMUTABLE_FL`.
const IMMUTABLE: u32 = 0x10;
/// `FS_APPEND_FL`.
const APPEND: u32 = 0x20;
/// `FS_NODUMP_FL`.
const NO_DUMP: u32 = 0x40;

/// Of the bytes and the size.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation::unclaimed("open for writing", Home::DISK, |v| {
        Ok(io(File::options().write(true).open(&v.path)).map(drop))
    }),
    Operation::unclaimed("append", Home::DISK, |v| {
        with_flag(v, OFlags::APPEND, |file| {
            rustix::io::write(file, &[b'a'; PAGE]).map(drop)
        })
    }),
    Operation::unclaimed("write of nothing", Home::DISK, |v| {
        Ok(rustix::io::pwrite(v.file()?, &[], v.pinned.start).map(drop))
    }),
    Operation::unclaimed("write of one byte", Home::DISK, |v| {
        Ok(rustix::io::pwrite(v.file()?, b"1", v.pinned.start).map(drop))
    }),
    Operation::unclaimed("write behind the end", Home::DISK, |v| {
        Ok(rustix::io::pwrite(v.file()?, &[b'b'; PAGE], len(v)?).map(drop))
    }),
    Operation::unclaimed("direct write, this descriptor", Home::DISK, |v| {
        let (mut bytes, at) = (Aligned::of(PAGE, b'd'), v.pinned.start);
        with_flag(v, OFlags::DIRECT, |file| {
            rustix::io::pwrite(file, bytes.bytes(), at).map(drop)
        })
    }),
    Operation::unclaimed("direct read, this descriptor", Home::DISK, |v| {
        let (mut bytes, at) = (Aligned::of(PAGE, 0), v.pinned.start);
        with_flag(v, OFlags::DIRECT, |file| {
            rustix::io::pread(file, bytes.bytes(), at).map(drop)
        })
    }),
    Operation::unclaimed("io_uring write", Home::DISK, |v| {
        Ok(write_by_ring(v.file()?, v.pinned.start, &[b'u'; PAGE])?)
    }),
    Operation::unclaimed("io_uring write of nothing", Home::DISK, |v| {
        Ok(write_by_ring(v.file()?, v.pinned.start, &[])?)
    }),
    Operation::unclaimed("read", Home::DISK, |v| {
        let found = v.read_back();
        Ok(found
            .map(drop)
            .map_err(|err| err.downcast().map_or(Errno::IO, |err| errno_of(&err))))
    }),
    Operation::unclaimed("sendfile from", Home::DISK, |v| {
        let sink = File::options().write(true).open("/dev/null")?;
        Ok(rustix::fs::sendfile(sink, v.file()?, Some(&mut 0), PAGE).map(drop))
    }),
    Operation::unclaimed("truncate to the same size", Home::DISK, |v| {
        Ok(act::truncate(&v.path, len(v)?))
    }),
    Operation::unclaimed("ftruncate to the same size", Home::DISK, |v| {
        Ok(act::ftruncate(v.file()?, len(v)?))
    }),
    Operation::unclaimed("ftruncate to grow", Home::DISK, |v| {
        Ok(act::ftruncate(v.file()?, 2 * len(v)?))
    }),
    Operation::unclaimed("io_uring ftruncate to the same size", Home::DISK, |v| {
        Ok(ftruncate_by_ring(v.file()?, len(v)?)?)
    }),
    Operation::unclaimed("io_uring ftruncate to grow", Home::DISK, |v| {
        Ok(ftruncate_by_ring(v.file()?, 2 * len(v)?)?)
    }),
    Operation::unclaimed("fallocate behind the end", Home::DISK, |v| {
        behind(v, FallocateFlags::empty())
    }),
    Operation::unclaimed("fallocate KEEP_SIZE behind the end", Home::DISK, |v| {
        behind(v, FallocateFlags::KEEP_SIZE)
    }),
    Operation::unclaimed("fallocate ZERO_RANGE, KEEP_SIZE", Home::DISK, |v| {
        behind(v, FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE)
    }),
    Operation::unclaimed("fallocate, a mode that nobody has", Home::DISK, |v| {
        behind(v, FallocateFlags::from_bits_retain(1 << 30))
    }),
    Operation::unclaimed("io_uring fallocate", Home::DISK, |v| {
        let len = v.pinned_len();
        Ok(fallocate_by_ring(v.file()?, 0, v.pinned.start, len)?)
    }),
    Operation::unclaimed("io_uring fallocate ZERO_RANGE", Home::DISK, |v| {
        let mode = i32::try_from(FallocateFlags::ZERO_RANGE.bits())?;
        let len = v.pinned_len();
        Ok(fallocate_by_ring(v.file()?, mode, v.pinned.start, len)?)
    }),
    Operation::unclaimed("copy_file_range inside it", Home::DISK, |v| {
        let (mut from, mut to) = (0, v.pinned.start);
        let (read, write) = (Some(&mut from), Some(&mut to));
        let file = v.file()?;
        Ok(rustix::fs::copy_file_range(file, read, file, write, PAGE).map(drop))
    }),
    Operation::unclaimed("execve", Home::DISK, execute).alone(),
    Operation::unclaimed("swapon", Home::DISK, |v| activate(&v.path)),
];

/// Of what the inode says.
pub(super) const ATTRIBUTES: &[Operation] = &[
    Operation::unclaimed("chmod", Home::DISK, |v| {
        let before = v.file()?.metadata()?.permissions();
        let changed = io(std::fs::set_permissions(
            &v.path,
            Permissions::from_mode(0o640),
        ));
        let _ = std::fs::set_permissions(&v.path, before);
        Ok(changed)
    }),
    Operation::unclaimed("chown", Home::DISK, |v| {
        let changed = io(std::os::unix::fs::chown(&v.path, Some(1000), Some(1000)));
        let _ = std::os::unix::fs::chown(&v.path, Some(0), Some(0));
        Ok(changed)
    }),
    Operation::unclaimed("utimes", Home::DISK, |v| {
        let time = Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        Ok(rustix::fs::futimens(v.file()?, &times))
    }),
    Operation::unclaimed("setxattr", Home::DISK, |v| {
        let (file, flags) = (v.file()?, XattrFlags::empty());
        Ok(rustix::fs::fsetxattr(
            file,
            "trusted.longpin.test",
            b"1",
            flags,
        ))
    }),
    Operation::unclaimed("removexattr", Home::DISK, |v| {
        Ok(
            match rustix::fs::fremovexattr(v.file()?, "trusted.longpin.test") {
                Err(Errno::NODATA) => Ok(()),
                other => other,
            },
        )
    }),
    Operation::unclaimed("flag: immutable", Home::DISK, |v| flag(v, IMMUTABLE)),
    Operation::unclaimed("flag: append only", Home::DISK, |v| flag(v, APPEND)),
    Operation::unclaimed("flag: no dump", Home::DISK, |v| flag(v, NO_DUMP)),
    Operation::unclaimed("flags as they are", Home::DISK, |v| flag(v, 0)),
    Operation::unclaimed("project id", Home::DISK, |v| {
        let mut flags = [0; 7];
        if let Err(errno) = GET_XFLAGS.ask(v.file()?, &mut flags) {
            return Ok(Err(errno));
        }
        flags[3] = 7;
        Ok(SET_XFLAGS.ask(v.file()?, &mut flags))
    }),
    Operation::unclaimed("ext4 SETVERSION", &[Home::Ext4], |v| {
        Ok(EXT4_SET_VERSION.ask(v.file()?, &mut 77))
    }),
];

/// Of its names.
pub(super) const NAMES: &[Operation] = &[
    Operation::unclaimed("hard link", Home::DISK, |v| {
        Ok(rustix::fs::link(&v.path, next_name(v)))
    }),
    Operation::unclaimed("unlink of a hard link", Home::DISK, |v| {
        let name = next_name(v);
        let linked = rustix::fs::link(&v.path, &name);
        Ok(linked.and_then(|()| rustix::fs::unlink(&name)))
    }),
    Operation::unclaimed("rename over it of its own link", Home::DISK, |v| {
        // Two names of one inode: nothing is to be done, and nothing is.
        let name = next_name(v);
        let linked = rustix::fs::link(&v.path, &name);
        Ok(linked.and_then(|()| rustix::fs::rename(&name, &v.path)))
    }),
    Operation::unclaimed("rename of its directory", Home::DISK, |v| {
        let dir = v.path.parent().context("no directory")?;
        let away = dir.with_extension("away");
        let moved = rustix::fs::rename(dir, &away);
        if moved.is_ok() {
            rustix::fs::rename(&away, dir).context("move the directory back")?;
        }
        Ok(moved)
    }),
];

fn io<T>(result: std::io::Result<T>) -> Result<T, Errno> {
    result.map_err(|err| errno_of(&err))
}

fn errno_of(err: &std::io::Error) -> Errno {
    Errno::from_io_error(err).unwrap_or(Errno::IO)
}

fn len(victim: &Victim<'_>) -> Result<u64> {
    Ok(victim.file()?.metadata()?.len())
}

fn behind(victim: &Victim<'_>, flags: FallocateFlags) -> Result<Outcome> {
    let end = len(victim)?;
    Ok(rustix::fs::fallocate(
        victim.file()?,
        flags,
        end,
        PAGE as u64,
    ))
}

/// With a flag of open(2) switched on in the descriptor that is there.
fn with_flag(
    victim: &Victim<'_>,
    flag: OFlags,
    act: impl FnOnce(&File) -> Outcome,
) -> Result<Outcome> {
    let file = victim.file()?;
    let before = rustix::fs::fcntl_getfl(file)?;
    if let Err(errno) = rustix::fs::fcntl_setfl(file, before | flag) {
        return Ok(Err(errno));
    }
    let answer = act(file);
    rustix::fs::fcntl_setfl(file, before)?;
    Ok(answer)
}

/// The file is no program: what the kernel says after it has opened it for execution is `ENOEXEC`.
fn execute(victim: &mut Victim<'_>) -> Result<Outcome> {
    std::fs::set_permissions(&victim.path, Permissions::from_mode(0o700))?;
    let started = Command::new(&victim.path).stdin(Stdio::null()).spawn();
    std::fs::set_permissions(&victim.path, Permissions::from_mode(0o600))?;
    match started {
        Ok(_) => bail!("a pattern runs"),
        Err(err) => Ok(Err(errno_of(&err))),
    }
}

/// swapon(2), and off again.
fn activate(path: &Path) -> Result<Outcome> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let answer = act::swap(&path, true);
    if answer.is_ok() {
        act::swap(&path, false).context("swapoff")?;
    }
    Ok(answer)
}

/// `FS_IOC_SETFLAGS` of one flag more, and back.
fn flag(victim: &Victim<'_>, flag: u32) -> Result<Outcome> {
    let file = victim.file()?;
    let mut before = [0; 2];
    if let Err(errno) = GET_FLAGS.ask(file, &mut before) {
        return Ok(Err(errno));
    }
    let answer = SET_FLAGS.ask(file, &mut [before[0] | flag, 0]);
    if answer.is_ok() {
        SET_FLAGS.ask(file, &mut before).context("take it back")?;
    }
    Ok(answer)
}

/// Another name beside the victim's.
fn next_name(victim: &Victim<'_>) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    victim.path.with_extension(format!("link-{number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_use_is_of_file_systems_with_blocks() {
        let mut all = OPERATIONS.iter().chain(ATTRIBUTES).chain(NAMES);
        assert!(all.all(|it| it.homes.iter().all(|home| !home.is_memory())));
    }
}
