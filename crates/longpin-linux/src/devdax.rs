//! DAX devices, `/dev/daxX.Y`: persistent memory that processes map without a file system.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::FileType;

/// What sysfs says of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DaxDevice {
    /// Bytes.
    pub size: u64,
    /// Mappings begin and end at multiples of this.
    pub align: u64,
}

/// `/sys/dev/char/MAJOR:MINOR`, for a descriptor that may have been opened with O_PATH; `None` for anything but a DAX
/// device.
///
/// # Errors
///
/// It is one, and sysfs does not tell its size.
pub fn read(file: &impl AsFd) -> io::Result<Option<DaxDevice>> {
    let status = rustix::fs::fstat(file)?;
    if FileType::from_raw_mode(status.st_mode) != FileType::CharacterDevice {
        return Ok(None);
    }
    let (major, minor) = (
        rustix::fs::major(status.st_rdev),
        rustix::fs::minor(status.st_rdev),
    );
    let dir = format!("/sys/dev/char/{major}:{minor}");
    let dir = Path::new(&dir);
    match std::fs::read_link(dir.join("subsystem")) {
        Ok(subsystem) if subsystem.ends_with("dax") => {}
        Ok(_) => return Ok(None),
        // A device without a driver of the kernel's model.
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(err) => return Err(err),
    }
    let number = |name: &str| {
        let text = std::fs::read_to_string(dir.join(name))?;
        text.trim().parse().map_err(io::Error::other)
    };
    Ok(Some(DaxDevice {
        size: number("size")?,
        align: number("align")?,
    }))
}

#[cfg(test)]
mod tests {
    #[test]
    fn other_files_are_none() {
        for path in ["/dev/null", "/proc/self/exe", "/"] {
            let file = std::fs::File::open(path).unwrap();
            assert_eq!(super::read(&file).unwrap(), None, "{path}");
        }
    }
}
