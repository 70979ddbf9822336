//! ext4: how it treats its files' data, as the kernel itself tells it.

use std::io;
use std::path::Path;

use crate::pseudo;

/// `/proc/fs/ext4/NAME/options`: whether the data of all files goes through the journal. mountinfo says nothing of that
/// where the super block asks for it (`tune2fs -o journal_data`). `None`: the ext4 driver knows no such device. Linux 3.9.
///
/// # Errors
///
/// It cannot be read.
pub fn journals_data(device: (u32, u32)) -> io::Result<Option<bool>> {
    let Some(name) = block_device_name(device)? else {
        return Ok(None);
    };
    let options = pseudo::read_text(Path::new("/proc/fs/ext4").join(name).join("options"))?;
    Ok(options.map(|options| options.lines().any(|line| line == "data=journal")))
}

/// The kernel's name of a block device, by its number.
fn block_device_name((major, minor): (u32, u32)) -> io::Result<Option<std::ffi::OsString>> {
    let path = format!("/sys/dev/block/{major}:{minor}");
    match std::fs::read_link(&path) {
        Ok(target) => Ok(target.file_name().map(Into::into)),
        Err(err) if err.kind() == io::ErrorKind::NotFound => {
            pseudo::is_absent(Path::new(&path)).map(|()| None)
        }
        Err(err) => Err(err),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_none_is_not_asked() {
        assert_eq!(journals_data((0, 0)).unwrap(), None);
    }
}
