//! Names: what takes the file away from its users, but not the pages from the file, as long as somebody has it open (C07).

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags};

use super::{Home, Operation};
use crate::act::Outcome;

pub(super) const OPERATIONS: &[Operation] = &[
    Operation::new("unlink", "C07", Home::NAMED, |v| {
        Ok(rustix::fs::unlink(&v.path))
    }),
    Operation::new("unlink, only the pin left", "C07", Home::NAMED, |v| {
        Ok(rustix::fs::unlink(&v.path))
    })
    .alone(),
    Operation::new("rename away", "C07", Home::NAMED, |v| {
        let to = v.path.with_extension("renamed");
        let renamed = rename(&v.path, &to, RenameFlags::empty());
        if renamed.is_ok() {
            rename(&to, &v.path, RenameFlags::empty())?;
        }
        Ok(renamed)
    }),
    Operation::new("rename over", "C07", Home::NAMED, |v| {
        let other = v.donor(false)?;
        Ok(rename(&other.path, &v.path, RenameFlags::empty()))
    }),
    Operation::new("rename over, only the pin left", "C07", Home::NAMED, |v| {
        let other = v.donor(false)?;
        Ok(rename(&other.path, &v.path, RenameFlags::empty()))
    })
    .alone(),
    Operation::new("rename, exchanging", "C07", Home::NAMED, |v| {
        let other = v.donor(false)?;
        let renamed = rename(&other.path, &v.path, RenameFlags::EXCHANGE);
        if renamed.is_ok() {
            rename(&other.path, &v.path, RenameFlags::EXCHANGE)?;
        }
        Ok(renamed)
    }),
];

fn rename(from: &Path, to: &Path, flags: RenameFlags) -> Outcome {
    let here = CWD.as_fd();
    rustix::fs::renameat_with(here, from, here, to, flags)
}
