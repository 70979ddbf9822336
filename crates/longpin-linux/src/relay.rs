//! Signals while a command runs: who waits for it must not die before it does.
#![allow(unsafe_code, reason = "sigaction(2) and kill(2)")]

use std::io;
use std::sync::atomic::{AtomicI32, Ordering};

/// The command; 0: none runs.
static CHILD: AtomicI32 = AtomicI32::new(0);
/// A signal that came before the command had begun; 0: none.
static EARLY: AtomicI32 = AtomicI32::new(0);

/// The terminal sends these to the command, too.
const FROM_TERMINAL: [libc::c_int; 2] = [libc::SIGINT, libc::SIGQUIT];
/// Whoever sends these means the command.
const PASSED_ON: [libc::c_int; 2] = [libc::SIGTERM, libc::SIGHUP];

extern "C" fn stay(_: libc::c_int) {}

extern "C" fn pass_on(signal: libc::c_int) {
    let child = CHILD.load(Ordering::Relaxed);
    if child > 0 {
        send(child, signal);
    } else {
        EARLY.store(signal, Ordering::Relaxed);
    }
}

fn send(child: libc::c_int, signal: libc::c_int) {
    // SAFETY: takes numbers, and may be called by a signal handler.
    unsafe { libc::kill(child, signal) };
}

/// `sigaction(2)`: from here on SIGINT and SIGQUIT do not end this process, and SIGTERM and SIGHUP go to the child that
/// [`to`] names. A program that is started begins with the default actions, as ever: these are handlers, not SIG_IGN.
///
/// # Errors
///
/// What the kernel says.
pub fn begin() -> io::Result<()> {
    let handlers = FROM_TERMINAL.map(|signal| (signal, stay as extern "C" fn(libc::c_int)));
    let passed = PASSED_ON.map(|signal| (signal, pass_on as extern "C" fn(libc::c_int)));
    for (signal, handler) in handlers.into_iter().chain(passed) {
        install(signal, handler)?;
    }
    Ok(())
}

/// `sigaction(SIGXFSZ)`: a write behind `RLIMIT_FSIZE` answers EFBIG, and does not end this process in the middle.
///
/// # Errors
///
/// What the kernel says.
pub fn outlive_size_limit() -> io::Result<()> {
    install(libc::SIGXFSZ, stay)
}

/// The child, which gets what came before it was known; 0 when it has ended.
pub fn to(child: u32) {
    let child = i32::try_from(child).unwrap_or(0);
    CHILD.store(child, Ordering::Relaxed);
    let early = EARLY.swap(0, Ordering::Relaxed);
    if early != 0 && child > 0 {
        send(child, early);
    }
}

fn install(signal: libc::c_int, handler: extern "C" fn(libc::c_int)) -> io::Result<()> {
    // SAFETY: a structure of numbers and pointers, for which zeroes are good values.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the structure lives across the call, and its handler for ever; nothing is written back.
    match unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn the_child_gets_what_is_sent_to_its_parent() {
        begin().unwrap();
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        to(child.id());
        // SAFETY: takes a number; the handler above runs.
        unsafe { libc::raise(libc::SIGTERM) };
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGTERM));
        to(0);
        // SAFETY: as above.
        unsafe { libc::raise(libc::SIGINT) };

        // It comes while nobody knows the child yet.
        // SAFETY: as above.
        unsafe { libc::raise(libc::SIGTERM) };
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        to(child.id());
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGTERM));
        to(0);
    }
}
