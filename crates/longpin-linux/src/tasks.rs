//! `/proc/*/task/*/stack`: which tasks are inside a kernel function.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::mounts::{self, Mount};

/// The number of the first pid namespace is a constant of the kernel's: `PROC_PID_INIT_INO`.
const FIRST_NAMESPACE: &str = "pid:[4026531836]";

/// How many tasks sleep inside one of these kernel functions. A running task's stack cannot be read, so
/// ask more than once.
///
/// # Errors
///
/// `/proc` cannot be read. Tasks that end meanwhile are left out.
pub fn count_tasks_inside(functions: &[&str]) -> io::Result<u64> {
    let mut count = 0;
    for task in list_tasks(|_| true)? {
        let stack = read_stack(&task)?.unwrap_or_default();
        count += u64::from(is_inside(&stack, functions));
    }
    Ok(count)
}

/// A mount hides what a process does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a mount covers {place}, so nobody sees what process {pid} ({command}) does: it may be in an operation on the file"
)]
pub struct Covered {
    /// The process.
    pub pid: u32,
    /// Its command.
    pub command: String,
    /// What is covered.
    pub place: String,
}

/// The mounts below `/proc/PID`, of which the first one counts.
fn find_covered(mounts: &[Mount]) -> Option<Covered> {
    mounts.iter().find_map(|mount| {
        let below = mount.point.strip_prefix("/proc/")?;
        let pid = below.split('/').next()?.parse().ok()?;
        let command = fs::read_to_string(format!("/proc/{pid}/comm"));
        Some(Covered {
            pid,
            command: command.unwrap_or_default().trim_end().to_owned(),
            place: mount.point.clone(),
        })
    })
}

/// The directories of all tasks of the processes that are wanted. A [`Covered`] inside of the error says that one of them
/// may be missing.
pub(crate) fn list_tasks(is_wanted: impl Fn(u32) -> bool) -> io::Result<Vec<PathBuf>> {
    let covered = find_covered(&mounts::read_mounts()?);
    if let Some(covered) = covered.filter(|it| is_wanted(it.pid)) {
        return Err(io::Error::other(covered));
    }
    let mut tasks = Vec::new();
    for (pid, process) in list_processes()? {
        if !is_wanted(pid) {
            continue;
        }
        let listed = fs::read_dir(process.join("task")).and_then(Iterator::collect);
        let listed: Vec<fs::DirEntry> = unless_gone(listed)?.unwrap_or_default();
        tasks.extend(listed.iter().map(fs::DirEntry::path));
    }
    Ok(tasks)
}

/// The processes, and their directories.
pub(crate) fn list_processes() -> io::Result<Vec<(u32, PathBuf)>> {
    let mut processes = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        processes.extend(pid.map(|pid| (pid, entry.path())));
    }
    Ok(processes)
}

/// A file of `/proc` as text. Names in it may have any bytes; one strange name must not hide the rest.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned())
}

/// Whether `/proc` shows the tasks of all pid namespaces: whether it is the first one's.
///
/// # Errors
///
/// The first process of the namespace cannot be asked.
pub fn sees_all() -> io::Result<bool> {
    Ok(fs::read_link("/proc/1/ns/pid")? == Path::new(FIRST_NAMESPACE))
}

/// The kernel stack of a task, from its directory; `None` when it has gone.
pub(crate) fn read_stack(task: &Path) -> io::Result<Option<String>> {
    let stack = unless_gone(read_text(&task.join("stack")))?;
    // Where no task has one, its absence says nothing about the task.
    if stack.is_none() && task.exists() {
        fs::metadata("/proc/self/stack")?;
    }
    Ok(stack)
}

/// What a process or task that has ended leaves unanswered is no error. Everything else is: what cannot be seen may be anything.
pub(crate) fn unless_gone<T>(answer: io::Result<T>) -> io::Result<Option<T>> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) if err.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Ok(None),
        Err(err) => Err(err),
    }
}

pub(crate) fn is_inside(stack: &str, functions: &[&str]) -> bool {
    stack.lines().any(|line| {
        let frame = line.split_once("] ").map_or(line, |(_, frame)| frame);
        let name = frame.split('+').next().unwrap_or_default();
        functions.contains(&name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_matched_by_its_whole_name() {
        let stack = "[<0>] handle_userfault+0x3c/0x90\n[<0>] pin_user_pages_fast+0x51/0x70\n";
        assert!(is_inside(stack, &["pin_user_pages_fast"]));
        assert!(!is_inside(stack, &["pin_user_pages"]));
        assert!(!is_inside("", &["pin_user_pages"]));
    }

    #[test]
    fn only_what_has_gone_is_left_out() {
        let gone = |errno: Errno| unless_gone::<()>(Err(errno.into()));
        assert_eq!(gone(Errno::NOENT).unwrap(), None);
        assert_eq!(gone(Errno::SRCH).unwrap(), None);
        for errno in [Errno::ACCESS, Errno::PERM, Errno::MFILE, Errno::NOMEM] {
            let err = gone(errno).unwrap_err();
            assert_eq!(err.raw_os_error(), Some(errno.raw_os_error()));
        }
    }

    #[test]
    fn strange_bytes_hide_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("stack"), b"x\xff\n[<0>] vfs_write+0x1/0x2").unwrap();
        let stack = read_stack(dir.path()).unwrap().unwrap();
        assert!(is_inside(&stack, &["vfs_write"]));
    }

    #[test]
    fn a_mount_over_a_process_is_found() {
        let at = |point: &str| Mount {
            id: 1,
            device: (0, 1),
            root: "/".into(),
            point: point.into(),
            kind: "tmpfs".into(),
            options: String::new(),
        };
        let (own, place) = (std::process::id(), "/proc/1/task");
        let found = find_covered(&[at("/proc"), at("/proc/sys/fs"), at(place), at("/")]).unwrap();
        assert_eq!((found.pid, found.place.as_str()), (1, place));
        assert_eq!(find_covered(&[at(&format!("/srv/proc/{own}"))]), None);
        assert_eq!(find_covered(&[at("/proc/fs/nfsd")]), None);
    }

    #[test]
    fn this_process_is_listed_with_its_tasks() {
        let own = std::process::id();
        let tasks = list_tasks(|pid| pid == own).unwrap();
        let main = PathBuf::from(format!("/proc/{own}/task/{own}"));
        assert!(tasks.contains(&main), "{tasks:?}");
    }
}
