//! `/proc/*/maps`: who has a file mapped shared and writable.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::tasks;

/// So often is a table read that changes meanwhile.
const LOOKS: usize = 5;

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its name, or what is known of it.
    pub command: String,
}

/// Processes with a shared mapping of the file that they may write to. `device` and `ino` are those of `stat(2)`.
/// Where the table of mappings shows another device (btrfs: the super block's), the mapped file itself is asked, which
/// takes CAP_SYS_ADMIN.
///
/// # Errors
///
/// `/proc` cannot be read. Processes that end meanwhile are left out.
pub fn find_writable(device: u64, ino: u64) -> io::Result<Vec<Process>> {
    let mut found = Vec::new();
    for (pid, process) in tasks::list_processes()? {
        if maps_file(&process, device, ino)? {
            found.push(name_process(pid));
        }
    }
    Ok(found)
}

/// Whose table changes again and again while it is looked at is taken to have the file mapped.
fn maps_file(process: &Path, device: u64, ino: u64) -> io::Result<bool> {
    for _ in 0..LOOKS {
        let maps = tasks::unless_gone(fs::read_to_string(process.join("maps")))?;
        if let Some(answer) = look(process, &maps.unwrap_or_default(), device, ino)? {
            return Ok(answer);
        }
    }
    Ok(true)
}

/// One look; `None`: a mapping that may be of the file is no longer as the table says.
fn look(process: &Path, maps: &str, device: u64, ino: u64) -> io::Result<Option<bool>> {
    let numbers = (rustix::fs::major(device), rustix::fs::minor(device));
    let mut answer = Some(false);
    for mapped in maps.lines().filter_map(|line| writable(line, ino)) {
        if mapped.device == numbers {
            return Ok(Some(true));
        }
        let file = fs::metadata(process.join("map_files").join(mapped.range));
        match tasks::unless_gone(file)? {
            Some(file) if (file.dev(), file.ino()) == (device, ino) => return Ok(Some(true)),
            Some(_) => {}
            None => answer = None,
        }
    }
    Ok(answer)
}

/// The name of a process; empty when it has gone.
#[must_use]
pub fn name_process(pid: u32) -> Process {
    let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Process {
        pid,
        command: command.trim_end().to_owned(),
    }
}

/// A line of the table.
#[derive(Debug, PartialEq, Eq)]
struct Mapped {
    /// The name in `map_files`.
    range: String,
    device: (u32, u32),
}

/// `START-END rw-s OFFSET MAJOR:MINOR INODE PATH`, if it is shared and writable, of a file of this number.
fn writable(line: &str, ino: u64) -> Option<Mapped> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let mode = words.next()?.as_bytes();
    let shared = mode.get(1) == Some(&b'w') && mode.get(3) == Some(&b's');
    let (major, minor) = words.nth(1)?.split_once(':')?;
    let number = |text: &str| u32::from_str_radix(text, 16).ok();
    let device = (number(major)?, number(minor)?);
    let inode = words.next()?.parse::<u64>().ok();
    // There the addresses have no zeroes before them.
    let bare = |address: &str| address.trim_start_matches('0').to_owned();
    let range = format!("{}-{}", bare(start), bare(end));
    (shared && inode == Some(ino)).then_some(Mapped { range, device })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_has_gone_says_nothing_of_the_file() {
        let process = tempfile::tempdir().unwrap();
        let other = fs::metadata(process.path()).unwrap();
        let line = "7f000-7f01000 rw-s 00000000 00:2a 77 /mnt/a\n";
        fs::write(process.path().join("maps"), line).unwrap();
        let maps = |ino| maps_file(process.path(), other.dev(), ino).unwrap();
        assert!(maps(77) && !maps(78));
        // Another file of this number.
        let ranges = process.path().join("map_files");
        fs::create_dir(&ranges).unwrap();
        fs::write(ranges.join("7f000-7f01000"), "").unwrap();
        assert!(!maps(77));
        fs::remove_file(process.path().join("maps")).unwrap();
        assert!(!maps(77));
    }

    #[test]
    fn only_shared_writable_mappings_of_the_number_count() {
        let line = "0007f000-7f01000 rw-s 00000000 fe:0a 77                   /mnt/a b";
        let mapped = Mapped {
            range: "7f000-7f01000".to_owned(),
            device: (0xfe, 0x0a),
        };
        assert_eq!(writable(line, 77), Some(mapped));
        assert_eq!(writable(line, 78), None);
        assert_eq!(writable(&line.replace("rw-s", "r--s"), 77), None);
        assert_eq!(writable(&line.replace("rw-s", "rw-p"), 77), None);
        assert_eq!(writable("", 0), None);
    }
}
