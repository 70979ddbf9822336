//! C13 when the memory itself fails under a pin.
#![allow(unsafe_code, reason = "madvise(2) that breaks memory")]

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use anyhow::{Result, ensure};
use longpin_tests::act::punch;
use longpin_tests::mapping::Mapping;
use longpin_tests::scratch::FsKind;
use rustix::io::Errno;

use super::PAGE;
use super::dies::{by_region, by_ring};
use crate::child::WORD;
use crate::files::TestFile;
use crate::guard;

const LEN: usize = 16_384;

/// A page frame that breaks leaves its file, on file systems with blocks, or stays and gives errors (tmpfs). It
/// stays held, or its loss is reported.
///
/// Fails when `page_removed` is not attached.
pub(super) fn c13_memory_failure() -> Result<()> {
    guard::on()?;
    for kind in [FsKind::Tmpfs, FsKind::Ext4] {
        let pin = if kind.is_memory() { by_ring } else { by_region };
        let f = TestFile::new(kind, LEN as u64)?;
        f.file.sync_all()?;
        let _pin = pin(&f.file)?;
        let broken = break_first_page(&f)?;
        if punch(&f.file, 0, PAGE) == Err(Errno::TXTBSY) {
            println!("{}: the page stays the file's ({broken})", kind.name());
            continue;
        }
        let events = guard::events_on(&f.path)?;
        ensure!(
            events.iter().any(|event| event["event"] == "broken"),
            "{}: lost in silence: {events:?}",
            kind.name()
        );
        println!("{}: lost, and reported", kind.name());
    }
    Ok(())
}

/// In a process of its own: whoever maps a page that breaks and cannot leave its file may get SIGBUS. What it said.
fn break_first_page(f: &TestFile) -> Result<String> {
    let output = Command::new(std::env::current_exe()?)
        .args([WORD, "break"])
        .arg(&f.path)
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let killed = output.status.signal() == Some(libc::SIGBUS);
    ensure!(
        killed || ["broken", "busy"].contains(&said.as_str()),
        "{}: MADV_HWPOISON: {} {said}",
        f.kind.name(),
        output.status
    );
    Ok(if killed { "SIGBUS".to_owned() } else { said })
}

/// `break PATH`: the frame behind the file's first page is out of order from here on.
pub(crate) fn break_page(arguments: &[String]) -> Result<()> {
    let [path] = arguments else {
        anyhow::bail!("break PATH")
    };
    let file = File::options().read(true).write(true).open(path)?;
    let mapping = Mapping::shared(&file, 0, LEN, true)?;
    mapping.touch();
    let address = mapping.addr() as *mut libc::c_void;
    // SAFETY: nobody touches the page afterwards; its frame is not used again.
    let answer = unsafe { libc::madvise(address, 4096, libc::MADV_HWPOISON) };
    let error = std::io::Error::last_os_error();
    match (answer, error.raw_os_error()) {
        (0, _) => println!("broken"),
        // Pinned: it cannot be taken out of its file (EHWPOISON: nor split off a large folio).
        (_, Some(libc::EBUSY | libc::EHWPOISON)) => println!("busy"),
        _ => return Err(error.into()),
    }
    Ok(())
}
