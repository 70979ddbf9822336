//! A held file that a FUSE server lets the kernel work on by itself.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;

use anyhow::{Result, ensure};
use longpin_tests::act::swap;
use longpin_tests::mapping::Mapping;
use longpin_tests::scratch::FsKind;
use longpin_tests::stores::Answer;
use rustix::io::Errno;

use super::fuse::Fuse;
use super::{LEN, hold, io, send_into, splice_into, store};
use crate::blocks::sh;
use crate::files::TestFile;
use crate::hold::Holder;
use crate::pin::must_allow;
use crate::{guard, report};

/// C06, C13: FUSE works on another file, too. Writes ask for that again; splices and mappings do not.
pub(super) fn fuse_passthrough() -> Result<()> {
    guard::on()?;
    let file = TestFile::new(FsKind::Ext4, LEN)?;
    let Some(fuse) = Fuse::over(&file.path)? else {
        return report::skip("FUSE passes nothing on");
    };
    let open = || File::options().read(true).write(true).open(&fuse.shown);
    let older = open()?;
    ensure!(fs::read(&fuse.shown)? == fs::read(&file.path)?);
    let writable = Mapping::shared(&older, 0, 4096, true)?;
    let (code, words) = hold(&file.path)?;
    let own = format!("[{}]", std::process::id());
    ensure!(code == 1 && words.contains(&own), "{code}: {words}");
    drop(writable);
    let held = Holder::start(&[], &file.path)?;
    let newer = open()?;
    for descriptor in [&older, &newer] {
        for (what, answer) in through_fuse(descriptor)? {
            ensure!(answer == Answer::Errno(Errno::TXTBSY), "{what}: {answer:?}");
        }
    }
    file.check_all()?;
    ensure!(held.end()? == 7);
    sh("mkswap -q $F", &file.path)?;
    let before = fs::read(&file.path)?;
    let name = CString::new(file.path.as_os_str().as_bytes())?;
    must_allow("swapon", swap(&name, true))?;
    let tried = through_fuse(&older);
    must_allow("swapoff", swap(&name, false))?;
    for (what, answer) in tried? {
        println!("a swap file by FUSE: {what}: {answer:?}");
    }
    ensure!(fs::read(&file.path)? == before, "the swap file changed");
    Ok(())
}

fn through_fuse(file: &File) -> Result<Vec<(&'static str, Answer)>> {
    Ok(vec![
        ("write", io(file.write_all_at(b"overwritten", 0)).into()),
        ("splice", splice_into(file, b"overwritten").into()),
        ("sendfile", send_into(file).into()),
        ("mmap and store", store(file)?),
    ])
}
