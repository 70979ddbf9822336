//! The rest of the module's requests: the flag of swap files, and requests that no program should make.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use anyhow::Result as Outcome;
use rustix::io::Errno;

use super::{abi, checked, device, owned};
use crate::operations::compat::ioctl_answer;

/// `LONGPIN_IOC_*`, by their numbers.
pub const LEND: u8 = 0x10;
/// UNTIL.
pub const UNTIL: u8 = 0x11;
/// FLAG.
pub const FLAG: u8 = 0x12;
/// LIST.
pub const LIST: u8 = 0x13;
/// REVOKE.
pub const REVOKE: u8 = 0x14;
/// INFO.
pub const INFO: u8 = 0x15;

/// A file has `S_SWAPFILE` as long as this, or a copy of its descriptor, is there.
#[derive(Debug)]
#[must_use = "dropping it clears the flag"]
pub struct Flag(OwnedFd);

impl Flag {
    /// `ioctl(LONGPIN_IOC_FLAG)`.
    ///
    /// # Errors
    ///
    /// What the module answered.
    pub fn set(file: &impl AsFd) -> Result<Self, Errno> {
        let asked = [8, file.as_fd().as_raw_fd()];
        // SAFETY: the module reads one `longpin_lend_flag`, two words, which live across the call.
        let answer =
            unsafe { libc::ioctl(device()?.as_raw_fd(), abi::request::FLAG, &raw const asked) };
        owned(answer).map(Self)
    }
}

impl AsFd for Flag {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Asks with these bytes, of which the first four say how many they are.
///
/// # Errors
///
/// What the module answered.
pub fn ask_raw(number: u8, bytes: &mut [u8]) -> Result<i32, Errno> {
    let request = libc::Ioctl::from(number) | 0x4c00;
    let size = bytes
        .first_chunk()
        .map_or(0, |size| u32::from_ne_bytes(*size));
    assert!(bytes.len() >= size as usize, "fewer bytes than it says");
    // SAFETY: the module reads and writes no more bytes than their first four say; they are there, and live across the call.
    let answer = unsafe { libc::ioctl(device()?.as_raw_fd(), request, bytes.as_mut_ptr()) };
    checked(answer)
}

/// LEND with these bytes.
///
/// # Errors
///
/// What the module answered.
pub fn lend_raw(bytes: &mut [u8]) -> Result<OwnedFd, Errno> {
    owned(ask_raw(LEND, bytes)?)
}

/// Asks with these words as a 32-bit program does.
///
/// # Errors
///
/// The device cannot be opened, or there is no memory for the request.
pub fn ask_32(number: u8, words: &[u32]) -> Outcome<Result<i32, Errno>> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    ioctl_answer(&device()?, u32::from(number) | 0x4c00, &bytes)
}

/// LEND by a 32-bit program.
///
/// # Errors
///
/// As [`ask_32`], or what the module answered.
pub fn lend_32(words: &[u32]) -> Outcome<OwnedFd> {
    Ok(owned(ask_32(LEND, words)??)?)
}
