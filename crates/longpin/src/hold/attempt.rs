//! An attempt that proves a hold, and harms nobody where there is none.

use std::fs::File;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// What a held file and an active swap file answer `ETXTBSY`. No file has room behind the last offset that there is, so any
/// other answers `EFBIG`, and is as it was. (A truncate to the size that a file has may drop a page of it.)
pub(super) fn allocate(file: &File) -> Result<(), Errno> {
    let last = i64::MAX.unsigned_abs();
    fallocate(file, FallocateFlags::empty(), last, last)
}
