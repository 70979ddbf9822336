//! C05, C06: each row of the table of commands, asked of a held file. What is refused is refused before its argument is
//! looked at, so that zeroes will do; what the kernel answers of real arguments, the parity tests compare.
#![allow(unsafe_code, reason = "ioctl(2) by any number")]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

use anyhow::{Result, ensure};
use longpin_linux::commands::{COMMANDS, Command, Layout, Owner};
use longpin_tests::scratch::{FsKind, Scratch};

use crate::blocks::sh;
use crate::hold::Holder;
use crate::{Test, guard};

pub(crate) const TESTS: &[Test] = &[("c05_each_command", each_command)];

/// `ioctl(file, number)`, with an argument of zeroes: the name of its answer.
fn ask(file: &File, row: &Command) -> String {
    let mut zeroes = [0_u64; 1024];
    // SAFETY: larger than what any of these commands reads or writes by its pointer, and refused before that.
    let answer = unsafe {
        libc::ioctl(
            file.as_raw_fd(),
            libc::Ioctl::from(row.number),
            zeroes.as_mut_ptr(),
        )
    };
    if answer >= 0 {
        return "done".to_owned();
    }
    match std::io::Error::last_os_error().raw_os_error() {
        Some(libc::EAGAIN) => "EAGAIN".to_owned(),
        Some(libc::EINVAL) => "EINVAL".to_owned(),
        Some(libc::EPERM) => "EPERM".to_owned(),
        Some(libc::EOPNOTSUPP) => "EOPNOTSUPP".to_owned(),
        Some(libc::ETXTBSY) => "ETXTBSY".to_owned(),
        other => format!("{other:?}"),
    }
}

/// What it must answer at this level; `None`: that depends on its argument, and other tests ask.
fn wanted(row: &Command, level: &str) -> Option<&'static str> {
    match (level, row.layout, row.swapfile) {
        ("swapfile", _, Some((_, answer))) => Some(answer.name()),
        (_, Layout::File | Layout::FileSystem, _) => Some("ETXTBSY"),
        _ => None,
    }
}

fn ask_all(path: &Path, owner: Owner, level: &str) -> Result<usize> {
    let held = Holder::start(&["--level", level], path)?;
    let file = File::open(path)?;
    let mut asked = 0;
    for row in COMMANDS {
        let is_known = row.owner == owner || row.owner == Owner::Any;
        let Some(wanted) = wanted(row, level).filter(|_| is_known) else {
            continue;
        };
        let answer = ask(&file, row);
        ensure!(
            answer == wanted,
            "{} of a file held at level {level} answered {answer}, not {wanted}",
            row.name
        );
        asked += 1;
    }
    ensure!(held.end()? == 7);
    Ok(asked)
}

fn each_command() -> Result<()> {
    guard::on()?;
    for (kind, owner, size) in [
        (FsKind::Ext4, Owner::Ext4, 64),
        (FsKind::Xfs, Owner::Xfs, 320),
        (FsKind::Btrfs, Owner::Btrfs, 256),
        (FsKind::F2fs, Owner::F2fs, 128),
    ] {
        let scratch = Scratch::new(kind, size << 20)?;
        let path = scratch.dir().join("held");
        sh("longpin prepare $F --size 1M", &path)?;
        let strict = ask_all(&path, owner, "swapfile")?;
        let layout = ask_all(&path, owner, "layout")?;
        // Each has some of its own, besides the one that several have.
        ensure!(strict > 1 && (layout > 0 || kind == FsKind::Btrfs));
    }
    Ok(())
}
