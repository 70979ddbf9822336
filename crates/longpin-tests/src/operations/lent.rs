//! Victims that may be swapped to, or lent to a device by their blocks: in a directory of their own, written, in place.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};

use super::victim::NEXT;
use super::{Build, Ground, Home, Victim, btrfs};

impl<'a> Victim<'a> {
    /// Makes one on a ground for that ([`Ground::lent`]); `short`: of eight pages.
    pub fn lent(ground: &'a Ground, short: bool) -> Result<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let (build, name) = (build_of(ground.home(), short), format!("lent-{number}"));
        let dir = if ground.home() == Home::Btrfs {
            btrfs::create_subvolume(ground.dir()?, &name)?
        } else {
            let dir = ground.dir()?.join(name);
            fs::create_dir(&dir)?;
            dir
        };
        Self::made(ground, dir.join(format!("victim-{number}")), build, None)
    }

    /// The file under its name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens it by its name for reading and writing, in the place of the descriptor that it has.
    pub fn open_anew(&mut self) -> Result<()> {
        self.file = Some(File::options().read(true).write(true).open(&self.path)?);
        Ok(())
    }

    /// Leaves the file where it is.
    pub fn leave(mut self) {
        // What drop removes.
        self.path = PathBuf::new();
    }

    /// Removes the directory that a lent victim has to itself, and all that operations left there.
    pub fn remove_all(mut self) -> Result<()> {
        self.close();
        let dir = self.path.parent().context("no directory")?;
        match fs::remove_dir_all(dir) {
            Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
                Err(err).with_context(|| format!("cannot remove {}", dir.display()))
            }
            _ => Ok(()),
        }
    }
}

const fn build_of(home: Home, short: bool) -> Build {
    match home {
        Home::Btrfs => Build::InPlace,
        Home::F2fs => Build::PlacePinned,
        _ if short => Build::Short,
        _ => Build::Plain,
    }
}
