//! The end of a file system while pages of its files are pinned (C08), and what comes close to it.

use std::fs::{self, File};

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, UnmountFlags, mount_bind, mount_remount, unmount};

use super::requests::{FREEZE, THAW};
use super::{Build, Home, Operation, Victim};
use crate::act::Outcome;

pub(super) const OPERATIONS: &[Operation] = &[
    Operation::unclaimed("freeze and thaw", Home::NAMED, |v| {
        let mounted = File::open(v.ground.dir()?)?;
        let frozen = FREEZE.ask(&mounted, &mut 0);
        if frozen.is_ok() {
            THAW.ask(&mounted, &mut 0)?;
        }
        Ok(frozen)
    }),
    Operation::unclaimed("bind mount made read-only", Home::NAMED, |v| {
        let dir = v.ground.dir()?;
        let flags = MountFlags::BIND | MountFlags::RDONLY;
        let answer = mount_remount(dir, flags, c"");
        mount_remount(dir, MountFlags::BIND, c"").context("make the mount writable again")?;
        Ok(answer)
    })
    .alone(),
    Operation::new("remount read-only", "C08", Home::NAMED, |v| {
        let dir = v.ground.dir()?;
        let answer = mount_remount(dir, MountFlags::RDONLY, c"");
        mount_remount(dir, MountFlags::empty(), c"").context("remount it writable")?;
        Ok(answer)
    })
    .alone(),
    Operation::new(
        "umount of one of two mounts",
        "C08",
        Home::NAMED,
        one_of_two,
    )
    .alone(),
    Operation::new("umount", "C08", Home::NAMED, |v| {
        end(v, UnmountFlags::empty())
    })
    .alone(),
    Operation::new("umount, forced", "C08", Home::NAMED, |v| {
        end(v, UnmountFlags::FORCE)
    })
    .alone(),
    Operation::new("umount, lazy", "C08", Home::NAMED, |v| {
        end(v, UnmountFlags::DETACH)
    })
    .alone(),
    Operation::new("end of its mount namespace", "C08", Home::NAMED, |v| {
        let mut namespace = v.namespace.take().context("a victim elsewhere")?;
        namespace.end()?;
        v.move_here()?;
        Ok(Ok(()))
    })
    .on(Build::Elsewhere)
    .alone(),
];

fn end(victim: &Victim<'_>, flags: UnmountFlags) -> Result<Outcome> {
    Ok(unmount(victim.ground.dir()?, flags))
}

/// The file system stays mounted elsewhere; then this place is mounted again.
fn one_of_two(victim: &mut Victim<'_>) -> Result<Outcome> {
    let dir = victim.ground.dir()?;
    let other = dir.with_file_name("other");
    fs::create_dir(&other)?;
    mount_bind(dir, &other)?;
    let answer = unmount(dir, UnmountFlags::empty());
    if answer.is_ok() {
        mount_bind(&other, dir).context("mount it here again")?;
    }
    unmount(&other, UnmountFlags::empty()).context("unmount the other mount")?;
    fs::remove_dir(&other)?;
    Ok(answer)
}
