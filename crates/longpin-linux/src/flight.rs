//! Operations on a file that had begun before it was held: found in the tasks' kernel stacks.
//!
//! A hook is asked at the beginning of an operation. Who had asked before the hold stood goes on, so the hold
//! counts only when everybody has been seen outside such an operation since.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::mappings::{Process, name_process};
use crate::tasks;

/// Kernel functions inside which a file may be changed, mapped or renamed after the hooks were asked.
const OPERATIONS: [&str; 34] = [
    "vfs_write",
    "vfs_writev",
    "vfs_iter_write",
    "vfs_iocb_iter_write",
    "do_iter_write",
    "do_iter_readv_writev",
    "io_write",
    "aio_write",
    "vfs_fallocate",
    "vfs_truncate",
    "do_truncate",
    "notify_change",
    "vfs_clone_file_range",
    "vfs_copy_file_range",
    "vfs_dedupe_file_range",
    "vfs_dedupe_file_range_one",
    "iter_file_splice_write",
    "splice_direct_to_actor",
    "do_splice",
    "vm_mmap_pgoff",
    "do_mprotect_pkey",
    "vfs_unlink",
    "do_unlinkat",
    "filename_unlinkat",
    "vfs_rename",
    "do_renameat2",
    "filename_renameat2",
    "bprm_execve",
    "ext4_move_extents",
    "swap_inode_boot_loader",
    "xfs_ioc_swapext",
    "xfs_swap_extents",
    "xfs_exchange_range",
    "fsverity_ioctl_enable",
];
/// Between two looks.
const GRAIN: Duration = Duration::from_millis(5);

/// What one look at a task saw.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// Outside, or gone.
    Clear,
    /// Inside an operation that may be on the file.
    Inside,
    /// It runs just now, and shows no stack: so much time has it spent outside the kernel.
    Running(u64),
}

/// Wait until no operation on the file is under way that had begun before the call. `Some`: who still is in
/// one when the time is up.
///
/// # Errors
///
/// `/proc` cannot be read.
pub fn wait_until_landed(device: u64, ino: u64, limit: Duration) -> io::Result<Option<Process>> {
    let deadline = Instant::now().checked_add(limit);
    // This process's own tasks are not in such an operation. Time outside the kernel when first seen running.
    let own = std::process::id();
    let tasks = tasks::list_tasks(|pid| pid != own)?;
    let mut open: Vec<(PathBuf, Option<u64>)> =
        tasks.into_iter().map(|task| (task, None)).collect();
    loop {
        open = still_inside(open, device, ino)?;
        let Some((task, _)) = open.first() else {
            return Ok(None);
        };
        if deadline.is_some_and(|end| Instant::now() > end) {
            return Ok(Some(name_task(task)));
        }
        std::thread::sleep(GRAIN);
    }
}

/// Those of the tasks that have not been seen outside.
fn still_inside(
    tasks: Vec<(PathBuf, Option<u64>)>,
    device: u64,
    ino: u64,
) -> io::Result<Vec<(PathBuf, Option<u64>)>> {
    let mut left = Vec::new();
    for (task, first) in tasks {
        match look(&task, device, ino)? {
            Seen::Clear => {}
            Seen::Inside => left.push((task, first)),
            // Other than when first seen running: it has been outside since.
            Seen::Running(time) if first.is_some_and(|first| first != time) => {}
            Seen::Running(time) => left.push((task, Some(time))),
        }
    }
    Ok(left)
}

fn name_task(task: &Path) -> Process {
    let pid = task.file_name().and_then(|name| name.to_str());
    name_process(pid.and_then(|text| text.parse().ok()).unwrap_or(0))
}

fn look(task: &Path, device: u64, ino: u64) -> io::Result<Seen> {
    let Some(stack) = tasks::read_stack(task)? else {
        return Ok(Seen::Clear);
    };
    if stack.trim().is_empty() {
        return Ok(time_outside(task)?.map_or(Seen::Clear, Seen::Running));
    }
    if !tasks::is_inside(&stack, &OPERATIONS) {
        return Ok(Seen::Clear);
    }
    let call = tasks::unless_gone(fs::read_to_string(task.join("syscall")))?.unwrap_or_default();
    let on_others = descriptors(&call).is_some_and(|list| {
        let is_other = |fd: &u64| is_other_file(task, *fd, device, ino);
        list.iter().all(is_other)
    });
    Ok(if on_others { Seen::Clear } else { Seen::Inside })
}

/// `utime` of `/proc/PID/task/TID/stat`; `None` when the task has gone.
fn time_outside(task: &Path) -> io::Result<Option<u64>> {
    let Some(stat) = tasks::unless_gone(fs::read_to_string(task.join("stat")))? else {
        return Ok(None);
    };
    let strange = || io::Error::other(format!("{} reads {stat:?}", task.join("stat").display()));
    let (_, rest) = stat.rsplit_once(") ").ok_or_else(strange)?;
    let mut words = rest.split_ascii_whitespace();
    // A task that has ended shows no stack either.
    if matches!(words.next(), Some("Z" | "X")) {
        return Ok(None);
    }
    let time = words.nth(10).and_then(|text| text.parse().ok());
    time.map(Some).ok_or_else(strange)
}

/// The descriptors that a system call works on, from `/proc/PID/task/TID/syscall`; `None` where that is not known.
fn descriptors(call: &str) -> Option<Vec<u64>> {
    let mut words = call.split_ascii_whitespace();
    let number: u32 = words.next()?.parse().ok()?;
    let parse = |word: &str| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok();
    let arguments: Option<Vec<u64>> = words.take(6).map(parse).collect();
    let arguments = arguments.filter(|list| list.len() == 6)?;
    let places: &[usize] = match number {
        // write, pwrite64, writev, ftruncate, fallocate, pwritev, pwritev2
        1 | 18 | 20 | 77 | 285 | 296 | 328 => &[0],
        // mmap
        9 => &[4],
        // sendfile
        40 => &[0, 1],
        // splice, copy_file_range
        275 | 326 => &[0, 2],
        _ => return None,
    };
    Some(places.iter().map(|&place| arguments[place]).collect())
}

fn is_other_file(task: &Path, fd: u64, device: u64, ino: u64) -> bool {
    // Descriptors are 32 bits wide, and the register may hold more.
    let path = task.join(format!("fd/{}", fd & 0xffff_ffff));
    fs::metadata(path).is_ok_and(|found| (found.dev(), found.ino()) != (device, ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_names_its_descriptors() {
        let tail = "0x7ffd 0x7f00";
        let call = |number: u32| format!("{number} 0x3 0x10 0x5 0x0 0x7 0x0 {tail}");
        assert_eq!(descriptors(&call(1)), Some(vec![3]));
        assert_eq!(descriptors(&call(9)), Some(vec![7]));
        assert_eq!(descriptors(&call(326)), Some(vec![3, 5]));
        assert_eq!(descriptors(&call(16)), None);
        assert_eq!(descriptors("running"), None);
        assert_eq!(descriptors("-1 0x7ffd 0x7f00"), None);
    }

    #[test]
    fn nobody_writes_to_a_file_of_our_own() {
        let file = tempfile::tempfile().unwrap();
        let data = file.metadata().unwrap();
        let seen = look(Path::new("/proc/self/task/none"), data.dev(), data.ino());
        assert_eq!(seen.unwrap(), Seen::Clear);
    }
}
