//! The module itself: every row's guest loads it; it does not go while it has lent something.

use anyhow::{Context, Result, ensure};
use longpin_tests::lend::{self, abi};
use longpin_tests::scratch::FsKind;
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use super::ground::{Field, LEN, REGISTRABLE};

pub(super) fn loads() -> Result<()> {
    let field = Field::guarded(FsKind::Ext4)?;
    let mut held = field.held("lent")?;
    let lent = held.lend(abi::WRITE, &[])?;
    ensure!(!lend::unload()?, "the module went while a file is lent");
    // Door 3 is for who asks for it.
    ensure!(lend::unload_soon(|| drop(lent))?, "the module does not go");
    lend::load_with(&[])?;
    let info = lend::info().context("INFO")?;
    ensure!(info.version == 1, "version {}", info.version);
    ensure!(
        info.can & abi::CAN_REGISTER == 0,
        "door 3 is open by itself"
    );
    let asked = held.ask(0, LEN, REGISTRABLE, &[])?;
    ensure!(
        asked.is_err_and(|errno| errno == Errno::NXIO),
        "door 3 is shut, and was used"
    );
    ensure!(lend::unload()?, "the module does not go");
    lend::load()?;
    let can = lend::info().context("INFO")?.can;
    ensure!(
        can & abi::CAN_REGISTER != 0,
        "door 3 is not armed: see the kernel log"
    );
    held.close_file();
    held.close_token();
    held.must_be_free("closed")
}

/// What LIST tells no more has let go of pages, file and hold: the file system can be unmounted at that moment.
pub(super) fn listed_until_gone() -> Result<()> {
    let field = Field::guarded(FsKind::Ext4)?;
    for round in 0..3 {
        let mut held = field.held(&format!("gone-{round}"))?;
        let lent = held.lend(abi::WRITE, &[])?;
        held.close_file();
        held.close_token();
        drop(lent);
        // Without a pause: what goes on after the answer must be seen.
        while !lend::list().context("LIST")?.is_empty() {}
        unmount(field.dir(), UnmountFlags::empty())
            .with_context(|| format!("round {round}: not listed, and busy"))?;
        field.mount_again()?;
    }
    Ok(())
}
