//! The kernel knows which device a file system lies on; a name may lead elsewhere by now.

use anyhow::{Result, ensure};
use longpin_tests::scratch::{FsKind, Scratch};

use crate::blocks::{extents, sh};

/// btrfs, mounted by a device file of one's own, which is then another disk's, and then gone.
pub(super) fn of_devices() -> Result<()> {
    let scratch = Scratch::new(FsKind::Tmpfs, 1 << 30)?;
    let mount = scratch.dir().join("mnt");
    std::fs::create_dir(&mount)?;
    let file = mount.join("file");
    let make =
        "truncate -s 256M $D/../one; cp $D/../one $D/../two; mkfs.btrfs -q -f $D/../one >/dev/null
        a=$(losetup -f --show $D/../one); b=$(losetup -f --show $D/../two); cp -a $a $D/../node
        mount -i -t btrfs $D/../node $D; echo $a > $D/../a; echo $b > $D/../b
        touch $F; chattr +C $F; dd if=/dev/zero of=$F bs=1M count=1 conv=notrunc,fsync status=none
        stat -c '%Hr:%Lr' $a";
    let number = sh(make, &file)?;
    let look = || -> Result<()> {
        let map = extents(&file)?;
        ensure!(
            map["devices"][0]["number"] == number.trim(),
            "not {number}: {map}"
        );
        Ok(())
    };
    let tried = look().and_then(|()| {
        sh("rm $D/../node; cp -a $(cat $D/../b) $D/../node", &file)?;
        look()?;
        sh("rm $D/../node", &file)?;
        look()
    });
    sh("umount $D; losetup -d $(cat $D/../a) $(cat $D/../b)", &file)?;
    tried?;
    scratch.close()
}
