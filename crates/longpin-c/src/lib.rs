//! The core calls for C, as `include/longpin.h` describes them.
#![allow(
    unsafe_code,
    reason = "C hands over pointers, and takes functions by name"
)]

mod calls;
mod text;

use std::ffi::{CStr, OsStr, c_char, c_int};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use longpin::activation::ByteRange;
use longpin::hold::Hold;

use calls::{Answer, Said};
use text::Text;

/// # Safety
///
/// `path` is null, or a string with its 0 that outlives the value.
unsafe fn path_of<'a>(path: *const c_char) -> Option<&'a Path> {
    if path.is_null() {
        return None;
    }
    // SAFETY: as the caller promises.
    let name = unsafe { CStr::from_ptr(path) };
    Some(Path::new(OsStr::from_bytes(name.to_bytes())))
}

const fn wanted(offset: u64, len: u64) -> Option<ByteRange> {
    match len {
        0 => None,
        len => Some(ByteRange { offset, len }),
    }
}

fn tell(said: &Said, text: &mut Text) -> c_int {
    text.write(&said.lines.join("\n"));
    said.answer as c_int
}

fn misused(what: &str, text: &mut Text) -> c_int {
    tell(&Said::of(Answer::Misused, what), text)
}

/// `longpin_check`.
///
/// # Safety
///
/// As C programs pass strings and buffers: `path` null or terminated, `text` null or with room for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn longpin_check(
    path: *const c_char,
    purpose: c_int,
    offset: u64,
    len: u64,
    text: *mut c_char,
    size: usize,
) -> c_int {
    // SAFETY: as the caller promises.
    let mut text = unsafe { Text::new(text, size) };
    // SAFETY: as the caller promises.
    let Some(path) = (unsafe { path_of(path) }) else {
        return misused("no path", &mut text);
    };
    tell(&calls::check(path, purpose, wanted(offset, len)), &mut text)
}

/// `longpin_plan`.
///
/// # Safety
///
/// As [`longpin_check`]; `device` like `path`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn longpin_plan(
    path: *const c_char,
    device: *const c_char,
    access: c_int,
    level: c_int,
    offset: u64,
    len: u64,
    text: *mut c_char,
    size: usize,
) -> c_int {
    // SAFETY: as the caller promises.
    let mut text = unsafe { Text::new(text, size) };
    // SAFETY: as the caller promises.
    let path = unsafe { path_of(path) };
    // SAFETY: as the caller promises.
    let device = unsafe { path_of(device) };
    let (Some(path), Some(device)) = (path, device) else {
        return misused("no path, or no device", &mut text);
    };
    let device = device.to_string_lossy();
    let range = wanted(offset, len);
    tell(&calls::plan(path, &device, access, level, range), &mut text)
}

/// `longpin_hold`.
///
/// # Safety
///
/// As [`longpin_check`]; `hold` is null, or room for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn longpin_hold(
    path: *const c_char,
    level: c_int,
    offset: u64,
    len: u64,
    hold: *mut *mut Hold,
    text: *mut c_char,
    size: usize,
) -> c_int {
    // SAFETY: as the caller promises.
    let mut text = unsafe { Text::new(text, size) };
    // SAFETY: as the caller promises.
    let path = unsafe { path_of(path) };
    let (Some(path), false) = (path, hold.is_null()) else {
        return misused("no path, or no room for the hold", &mut text);
    };
    let (pointer, said) = match calls::hold(path, level, wanted(offset, len)) {
        Ok(made) => (Box::into_raw(Box::new(made)), Said::yes("held")),
        Err(said) => (std::ptr::null_mut(), said),
    };
    // SAFETY: room for a pointer, as the caller promises.
    unsafe { hold.write(pointer) };
    tell(&said, &mut text)
}

/// `longpin_hold_token`: -1 for null.
///
/// # Safety
///
/// `hold` is null, or came from [`longpin_hold`] and has not been released.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn longpin_hold_token(hold: *const Hold) -> c_int {
    // SAFETY: as the caller promises.
    let hold = unsafe { hold.as_ref() };
    hold.map_or(-1, |hold| hold.token().as_raw_fd())
}

/// `longpin_release`.
///
/// # Safety
///
/// As [`longpin_hold_token`]; not used again. `text` as for [`longpin_check`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn longpin_release(hold: *mut Hold, text: *mut c_char, size: usize) -> c_int {
    // SAFETY: as the caller promises.
    let mut text = unsafe { Text::new(text, size) };
    if hold.is_null() {
        return tell(&Said::yes(""), &mut text);
    }
    // SAFETY: it came from `Box::into_raw`, and is given back once, as the caller promises.
    let hold = unsafe { Box::from_raw(hold) };
    tell(&calls::release(*hold), &mut text)
}
