//! `/proc/*/maps`: who has a file mapped shared and writable.

use std::fs;
use std::io;

use crate::tasks;

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its name, or what is known of it.
    pub command: String,
}

/// Processes with a shared mapping of the file that they may write to. `device` and `ino` are those of
/// `stat(2)`: where the super block has other ones (btrfs), nobody is found.
///
/// # Errors
///
/// `/proc` cannot be read. Processes that end meanwhile are left out.
pub fn find_writable(device: (u32, u32), ino: u64) -> io::Result<Vec<Process>> {
    let mut found = Vec::new();
    for (pid, process) in tasks::list_processes()? {
        let maps = tasks::unless_gone(fs::read_to_string(process.join("maps")))?;
        let maps = maps.unwrap_or_default();
        if maps.lines().any(|line| is_writable(line, device, ino)) {
            found.push(name_process(pid));
        }
    }
    Ok(found)
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

/// `START-END rw-s OFFSET MAJOR:MINOR INODE PATH`
fn is_writable(line: &str, device: (u32, u32), ino: u64) -> bool {
    let mut words = line.split_ascii_whitespace();
    let mode = words.nth(1).unwrap_or_default().as_bytes();
    let shared = mode.get(1) == Some(&b'w') && mode.get(3) == Some(&b's');
    let place = words.nth(1).and_then(|text| text.split_once(':'));
    let number = |text: &str| u32::from_str_radix(text, 16).ok();
    let own = place.and_then(|(major, minor)| Some((number(major)?, number(minor)?)));
    let inode = words.next().and_then(|text| text.parse::<u64>().ok());
    shared && own == Some(device) && inode == Some(ino)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_shared_writable_mappings_of_the_file_count() {
        let line = "7f00-7f01 rw-s 00000000 fe:0a 77                         /mnt/a b";
        assert!(is_writable(line, (0xfe, 0x0a), 77));
        assert!(!is_writable(line, (0xfe, 0x0b), 77));
        assert!(!is_writable(line, (0xfe, 0x0a), 78));
        assert!(!is_writable(
            &line.replace("rw-s", "r--s"),
            (0xfe, 0x0a),
            77
        ));
        assert!(!is_writable(
            &line.replace("rw-s", "rw-p"),
            (0xfe, 0x0a),
            77
        ));
        assert!(!is_writable("", (0, 0), 0));
    }
}
