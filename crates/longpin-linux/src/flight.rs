//! Operations on a file that had begun before it was held: found in the tasks' kernel stacks.
//!
//! A hook is asked at the beginning of an operation. Who had asked before the hold stood goes on, so the hold
//! counts only when everybody has been seen outside such an operation since.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use libc::c_long;

use crate::arch;
use crate::commands::may_move;
use crate::identity;
use crate::mappings::{Process, name_process};
use crate::mounts::{Mount, read_mounts};
use crate::tasks;

/// Kernel functions inside which a file may be changed, mapped or renamed after the hooks were asked.
const OPERATIONS: [&str; 35] = [
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
    "btrfs_do_encoded_write",
];
/// The same of file systems' commands, which one function serves: which of them may move blocks is told by the number.
/// Who jumps to the last function leaves no frame: then only that one is on the stack.
const COMMANDS: [&str; 13] = [
    "btrfs_ioctl",
    "btrfs_ioctl_rm_dev",
    "btrfs_ioctl_rm_dev_v2",
    "btrfs_ioctl_snap_create",
    "btrfs_ioctl_snap_create_v2",
    "btrfs_ioctl_snap_destroy",
    "btrfs_ioctl_defrag",
    "btrfs_ioctl_resize",
    "btrfs_ioctl_balance",
    "btrfs_ioctl_dev_replace",
    "btrfs_mksubvol",
    "__f2fs_ioctl",
    "f2fs_ioctl",
];
/// overlayfs and FUSE: their files have numbers of their own, and may be other file systems'.
const SHOWS_OTHERS: [u64; 2] = [0x794c_7630, 0x6573_5546];
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

/// The file that operations may be on.
struct Target<'a> {
    device: u64,
    ino: u64,
    /// Of its file system.
    magic: u64,
    /// Device number of its super block; `None`: its mount cannot be seen.
    super_block: Option<(u32, u32)>,
    mounts: Vec<Mount>,
    /// Whether what overlayfs or FUSE shows here is certainly another file's.
    shows_another: &'a dyn Fn(&Path) -> bool,
}

impl<'a> Target<'a> {
    fn of(file: &File, shows_another: &'a dyn Fn(&Path) -> bool) -> io::Result<Self> {
        let data = file.metadata()?;
        let mounts = read_mounts()?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        Ok(Self {
            device: data.dev(),
            ino: data.ino(),
            magic: magic(&path).ok_or_else(|| io::Error::other("statfs failed"))?,
            super_block: super_block(&path, &mounts),
            mounts,
            shows_another,
        })
    }

    /// Whether this is certainly another file.
    fn is_not(&self, path: &Path) -> bool {
        if magic(path).is_some_and(|it| SHOWS_OTHERS.contains(&it)) {
            return (self.shows_another)(path);
        }
        fs::metadata(path).is_ok_and(|it| (it.dev(), it.ino()) != (self.device, self.ino))
    }

    /// Whether this is certainly on another file system.
    fn is_not_beside(&self, path: &Path) -> bool {
        if magic(path).is_some_and(|other| other != self.magic) {
            return true;
        }
        let other = super_block(path, &self.mounts);
        other.is_some() && self.super_block.is_some() && other != self.super_block
    }
}

fn magic(path: &Path) -> Option<u64> {
    u64::try_from(rustix::fs::statfs(path).ok()?.f_type).ok()
}

/// The mount's, as `st_dev` is another one in each subvolume of btrfs.
fn super_block(path: &Path, mounts: &[Mount]) -> Option<(u32, u32)> {
    let found = identity::identify(path, mounts).ok()?;
    Some(found.mount.device)
}

/// Wait until no operation on the file is under way that had begun before the call. `Some`: who still is in
/// one when the time is up. `shows_another`: is what overlayfs or FUSE shows at a path certainly another file's?
///
/// # Errors
///
/// `/proc` cannot be read.
pub fn wait_until_landed(
    file: &File,
    limit: Duration,
    shows_another: &dyn Fn(&Path) -> bool,
) -> io::Result<Option<Process>> {
    let target = Target::of(file, shows_another)?;
    let deadline = Instant::now().checked_add(limit);
    // This process's own tasks are not in such an operation. Time outside the kernel when first seen running.
    let own = std::process::id();
    let tasks = tasks::list_tasks(|pid| pid != own)?;
    let mut open: Vec<(PathBuf, Option<u64>)> =
        tasks.into_iter().map(|task| (task, None)).collect();
    loop {
        open = still_inside(open, &target)?;
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
    target: &Target<'_>,
) -> io::Result<Vec<(PathBuf, Option<u64>)>> {
    let mut left = Vec::new();
    for (task, first) in tasks {
        match look(&task, target)? {
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

fn look(task: &Path, target: &Target<'_>) -> io::Result<Seen> {
    let Some(stack) = tasks::read_stack(task)? else {
        return Ok(Seen::Clear);
    };
    if stack.trim().is_empty() {
        return Ok(time_outside(task)?.map_or(Seen::Clear, Seen::Running));
    }
    let in_command = tasks::is_inside(&stack, &COMMANDS);
    let in_operation = tasks::is_inside(&stack, &OPERATIONS);
    if !in_command && !in_operation {
        return Ok(Seen::Clear);
    }
    let call = tasks::unless_gone(tasks::read_text(&task.join("syscall")))?.unwrap_or_default();
    // Descriptors are 32 bits wide, and the register may hold more.
    let path = |fd: u64| task.join(format!("fd/{}", fd & 0xffff_ffff));
    let clear = match command(&call).filter(|_| in_command) {
        Some((fd, command)) => {
            let harmless = !in_operation && !may_move(command);
            // Another thread may have put another file there: the command keeps its own.
            harmless || is_alone(task) && target.is_not_beside(&path(fd))
        }
        None => {
            descriptors(&call).is_some_and(|list| list.iter().all(|fd| target.is_not(&path(*fd))))
        }
    };
    Ok(if clear { Seen::Clear } else { Seen::Inside })
}

/// Whether its process has no other thread; false where that cannot be read.
fn is_alone(task: &Path) -> bool {
    let all = task.parent().and_then(|all| fs::read_dir(all).ok());
    all.is_some_and(|all| all.count() == 1)
}

/// `utime` of `/proc/PID/task/TID/stat`; `None` when the task has gone.
fn time_outside(task: &Path) -> io::Result<Option<u64>> {
    let Some(stat) = tasks::unless_gone(tasks::read_text(&task.join("stat")))? else {
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

/// The number of a system call and its arguments, from `/proc/PID/task/TID/syscall`; `None` where that is not known.
fn arguments(call: &str) -> Option<(c_long, Vec<u64>)> {
    let mut words = call.split_ascii_whitespace();
    let number: c_long = words.next()?.parse().ok()?;
    let parse = |word: &str| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok();
    let arguments: Option<Vec<u64>> = words.take(6).map(parse).collect();
    let arguments = arguments.filter(|list| list.len() == 6)?;
    Some((number, arguments))
}

/// The descriptor and the command of ioctl(2); `None`: another call.
fn command(call: &str) -> Option<(u64, u64)> {
    let (number, arguments) = arguments(call)?;
    (number == arch::IOCTL).then(|| (arguments[0], arguments[1]))
}

/// The descriptors that a system call works on; `None` where that is not known.
fn descriptors(call: &str) -> Option<Vec<u64>> {
    let (number, arguments) = arguments(call)?;
    let places = arch::descriptors_of(number)?;
    Some(places.iter().map(|&place| arguments[place]).collect())
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
        assert_eq!(command(&call(16)), Some((3, 0x10)));
        assert_eq!(command(&call(1)), None);
    }

    /// A task like those of /proc, with one descriptor.
    fn task(dir: &Path, stack: &[&str], command: u64, fd: &str) -> PathBuf {
        let task = dir.join("task/7");
        fs::create_dir_all(task.join("fd")).unwrap();
        let stack: Vec<String> = stack
            .iter()
            .map(|it| format!("[<0>] {it}+0x1/0x2"))
            .collect();
        fs::write(task.join("stack"), stack.join("\n")).unwrap();
        let call = format!("16 0x3 {command:#x} 0x5 0x0 0x7 0x0 0x7ffd 0x7f00");
        fs::write(task.join("syscall"), call).unwrap();
        std::os::unix::fs::symlink(fd, task.join("fd/3")).unwrap();
        task
    }

    #[test]
    fn a_harmless_number_does_not_clear_an_operation() {
        let target = Target::of(&tempfile::tempfile().unwrap(), &|_| false).unwrap();
        let seen = |stack: &[&str], command| {
            let dir = tempfile::tempdir().unwrap();
            look(&task(dir.path(), stack, command, "/no/such/file"), &target).unwrap()
        };
        // BTRFS_IOC_SCRUB, FS_IOC_ENABLE_VERITY.
        assert_eq!(seen(&["btrfs_ioctl"], 0xc400_941b), Seen::Clear);
        let inner = ["fsverity_ioctl_enable", "btrfs_ioctl"];
        assert_eq!(seen(&inner, 0x4080_6685), Seen::Inside);
        assert_eq!(seen(&inner, 0xc400_941b), Seen::Inside);
        // BTRFS_IOC_RM_DEV_V2, without the function that jumped to it.
        let jumped = ["btrfs_ioctl_rm_dev_v2"];
        assert_eq!(seen(&jumped, 0x5000_943a), Seen::Inside);
    }

    #[test]
    fn a_program_may_have_any_name() {
        let dir = tempfile::tempdir().unwrap();
        let mut stat = b"7 (x\xff) R 1".to_vec();
        stat.extend(b" 0".repeat(9));
        stat.extend(b" 42 1");
        fs::write(dir.path().join("stat"), stat).unwrap();
        assert_eq!(time_outside(dir.path()).unwrap(), Some(42));
    }

    #[test]
    fn the_descriptor_of_one_thread_says_where_a_command_is() {
        let target = Target::of(&tempfile::tempfile().unwrap(), &|_| false).unwrap();
        let dir = tempfile::tempdir().unwrap();
        // BTRFS_IOC_BALANCE_V2, on a file of /proc.
        let task = task(dir.path(), &["btrfs_ioctl"], 0xc400_9420, "/proc/self/stat");
        assert_eq!(look(&task, &target).unwrap(), Seen::Clear);
        fs::create_dir(dir.path().join("task/8")).unwrap();
        assert_eq!(look(&task, &target).unwrap(), Seen::Inside);
    }

    #[test]
    fn what_is_on_another_file_system_is_told() {
        let target = Target::of(&tempfile::tempfile().unwrap(), &|_| false).unwrap();
        assert!(target.is_not_beside(Path::new("/proc/self/stat")));
        assert!(!target.is_not_beside(Path::new("/no/such/file")));
    }

    #[test]
    fn nobody_writes_to_a_file_of_our_own() {
        let file = tempfile::tempfile().unwrap();
        let target = Target::of(&file, &|_| false).unwrap();
        let seen = look(Path::new("/proc/self/task/none"), &target);
        assert_eq!(seen.unwrap(), Seen::Clear);
    }
}
