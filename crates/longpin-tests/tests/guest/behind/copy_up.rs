//! A lower file that is held or pinned, when overlayfs copies it up.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Result, ensure};
use longpin_tests::act::{ftruncate, swap};
use longpin_tests::scratch::FsKind;
use rustix::fs::ioctl_ficlone;
use rustix::io::Errno;

use super::{LEN, Overlay};
use crate::blocks::{check, sh, status};
use crate::files::TestFile;
use crate::guard;
use crate::hold::Holder;
use crate::pin::{must_allow, must_refuse, pin, register_file};

/// C04: what overlayfs copies up from a held lower file shares no blocks with it where a clone would be refused.
pub(super) fn copy_up_of_held() -> Result<()> {
    guard::on()?;
    for level in ["swapfile", "layout"] {
        let mut file = TestFile::new(FsKind::Xfs, LEN)?;
        let overlay = Overlay::over(&mut file, "lower")?;
        let held = Holder::start(&["--level", level], &file.path)?;
        copied_without_sharing(&file, &overlay, level)?;
        ensure!(held.end()? == 7);
    }
    let mut file = TestFile::new(FsKind::Xfs, LEN)?;
    let overlay = Overlay::over(&mut file, "lower")?;
    sh("mkswap -q $F", &file.path)?;
    let name = CString::new(file.path.as_os_str().as_bytes())?;
    must_allow("swapon", swap(&name, true))?;
    let opened = overlay.open().map(drop);
    let shares = shares(&file.path);
    must_allow("swapoff", swap(&name, false))?;
    opened?;
    ensure!(!shares?, "the swap file was cloned");
    Ok(())
}

fn shares(path: &Path) -> Result<bool> {
    let (_, reasons) = check(path, "blocks")?;
    Ok(reasons.iter().any(|name| name == "shared"))
}

/// May the file be cloned by anybody, as it is held or pinned now?
fn may_be_cloned(file: &TestFile) -> Result<bool> {
    let clone = file.path.with_extension("clone");
    let answer = ioctl_ficlone(File::create(&clone)?, &file.file);
    ensure!(matches!(answer, Ok(()) | Err(Errno::TXTBSY)), "{answer:?}");
    fs::remove_file(&clone)?;
    // The file is shared no more.
    sh("sync -f $F", &file.path)?;
    Ok(answer.is_ok())
}

fn copied_without_sharing(file: &TestFile, overlay: &Overlay, what: &str) -> Result<()> {
    let refused = !may_be_cloned(file)?;
    ensure!(refused || what != "swapfile", "a held file was cloned");
    drop(overlay.open()?);
    if refused {
        ensure!(!shares(&file.path)?, "{what}: the lower file was cloned");
    }
    let copy = overlay.root.join("upper/file");
    ensure!(copy.exists(), "{what}: it was not copied up");
    ensure!(
        fs::read(&copy)? == fs::read(&file.path)?,
        "{what}: other bytes"
    );
    file.check_all()
}

/// C13, C04: a lower file that is pinned through the overlay, where the overlay then shows a copy. The pin stays with
/// the lower file, which is what everybody is told.
pub(super) fn copy_up_of_pinned() -> Result<()> {
    guard::fresh()?;
    let mut file = TestFile::new(FsKind::Xfs, LEN)?;
    let overlay = Overlay::over(&mut file, "lower")?;
    let shown = File::open(&overlay.merged)?;
    // Before 6.2 the RDMA core pins for writing, which a lower file is never opened for.
    let pinned = register_file(&shown, 0, 65_536, false).or_else(|_| pin(&file, 0, 65_536))?;
    let merged = overlay.merged.to_string_lossy();
    let (_, words) = status(&["why", &merged])?;
    ensure!(words.contains("16 pages"), "{words}");
    copied_without_sharing(&file, &overlay, "pinned")?;
    overlay.open()?.write_all_at(b"overwritten", 0)?;
    let (_, words) = status(&["why", &merged])?;
    ensure!(words.contains("nobody has pinned it"), "{words}");
    ensure!(
        guard::holds_on(&file.path)?.len() == 1,
        "the pin is not told of"
    );
    must_refuse("truncate of the lower file", ftruncate(&file.file, 0))?;
    drop(pinned);
    file.check_all()
}
