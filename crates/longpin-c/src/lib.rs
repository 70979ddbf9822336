//! The core calls for C, as `include/longpin.h` describes them.
#![allow(
    unsafe_code,
    reason = "C hands over pointers, and takes functions by name"
)]

mod calls;
mod numbers;
mod text;

use std::ffi::{CStr, OsStr, c_char, c_int};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use longpin::activation::ByteRange;
use longpin::hold::{Hold, Request};

use calls::{Answer, Said};
use numbers::{CheckResult, HoldResult, PlanResult};
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

/// # Safety
///
/// `result` is null, or room for one.
unsafe fn put<T>(value: T, result: *mut T) {
    if !result.is_null() {
        // SAFETY: as the caller promises.
        unsafe { result.write(value) };
    }
}

fn tell(said: &Said, text: &mut Text) -> c_int {
    text.write(&said.lines.join("\n"));
    said.answer as c_int
}

fn misused(what: &str) -> Said {
    Said::of(Answer::Misused, what)
}

/// `longpin_version`: as `LONGPIN_VERSION`.
#[unsafe(no_mangle)]
pub extern "C" fn longpin_version() -> u32 {
    let part = |text: &str| text.parse::<u32>().unwrap_or(0);
    part(env!("CARGO_PKG_VERSION_MAJOR")) << 16
        | part(env!("CARGO_PKG_VERSION_MINOR")) << 8
        | part(env!("CARGO_PKG_VERSION_PATCH"))
}

/// `longpin_check`.
///
/// # Safety
///
/// As C programs pass strings and buffers: `path` null or terminated, `result` null or room for one, `text` null or with
/// room for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn longpin_check(
    path: *const c_char,
    purpose: c_int,
    offset: u64,
    len: u64,
    result: *mut CheckResult,
    text: *mut c_char,
    size: usize,
) -> c_int {
    // SAFETY: as the caller promises.
    let mut text = unsafe { Text::new(text, size) };
    // SAFETY: as the caller promises.
    let (said, numbers) = match unsafe { path_of(path) } {
        Some(path) => calls::check(path, purpose, wanted(offset, len)),
        None => (misused("no path"), CheckResult::default()),
    };
    // SAFETY: as the caller promises.
    unsafe { put(numbers, result) };
    tell(&said, &mut text)
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
    result: *mut PlanResult,
    text: *mut c_char,
    size: usize,
) -> c_int {
    // SAFETY: as the caller promises.
    let mut text = unsafe { Text::new(text, size) };
    // SAFETY: as the caller promises.
    let path = unsafe { path_of(path) };
    // SAFETY: as the caller promises.
    let device = unsafe { path_of(device) };
    let (said, numbers) = match (path, device) {
        (Some(path), Some(device)) => {
            let device = device.to_string_lossy();
            calls::plan(path, &device, access, level, wanted(offset, len))
        }
        _ => (misused("no path, or no device"), PlanResult::default()),
    };
    // SAFETY: as the caller promises.
    unsafe { put(numbers, result) };
    tell(&said, &mut text)
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
    result: *mut HoldResult,
    text: *mut c_char,
    size: usize,
) -> c_int {
    // SAFETY: as the caller promises.
    let mut text = unsafe { Text::new(text, size) };
    // SAFETY: as the caller promises.
    let request = unsafe { path_of(path) }.map(Hold::on);
    let made = acquire(request, hold, level, wanted(offset, len));
    // SAFETY: as the caller promises.
    unsafe { hand_over(made, hold, result, &mut text) }
}

/// `longpin_hold_file`.
///
/// # Safety
///
/// As [`longpin_hold`]; `file` stays open as long as this runs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn longpin_hold_file(
    file: c_int,
    level: c_int,
    offset: u64,
    len: u64,
    hold: *mut *mut Hold,
    result: *mut HoldResult,
    text: *mut c_char,
    size: usize,
) -> c_int {
    // SAFETY: as the caller promises.
    let mut text = unsafe { Text::new(text, size) };
    // SAFETY: it is not -1, and open, as the caller promises.
    let file = (file >= 0).then(|| unsafe { BorrowedFd::borrow_raw(file) });
    let request = file.as_ref().map(Hold::of_file);
    let made = acquire(request, hold, level, wanted(offset, len));
    // SAFETY: as the caller promises.
    unsafe { hand_over(made, hold, result, &mut text) }
}

fn acquire(
    request: Option<Request<'_>>,
    hold: *mut *mut Hold,
    level: c_int,
    range: Option<ByteRange>,
) -> (Option<Hold>, Said, HoldResult) {
    match request {
        Some(request) if !hold.is_null() => calls::hold(request, level, range),
        _ => {
            let said = misused("no file, or no room for the hold");
            (None, said, HoldResult::default())
        }
    }
}

/// # Safety
///
/// As [`longpin_hold`].
unsafe fn hand_over(
    (made, said, numbers): (Option<Hold>, Said, HoldResult),
    hold: *mut *mut Hold,
    result: *mut HoldResult,
    text: &mut Text,
) -> c_int {
    let made = made.map_or(std::ptr::null_mut(), |made| Box::into_raw(Box::new(made)));
    // SAFETY: null, or room for a pointer, as the caller promises.
    unsafe { put(made, hold) };
    // SAFETY: as the caller promises.
    unsafe { put(numbers, result) };
    tell(&said, text)
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
