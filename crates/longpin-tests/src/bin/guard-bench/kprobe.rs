//! Attaching to a kprobe: the one kind of place that BTF does not number.
#![allow(unsafe_code, reason = "perf_event_open(2) has no safe wrapper")]

use std::ffi::CString;
use std::fs;
use std::io::Error;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use anyhow::{Context, Result, ensure};
use libbpf_rs::libbpf_sys as sys;

/// Where the kernel says which kind of perf event a kprobe is, and which bit makes it one at the function's return.
const KIND: &str = "/sys/bus/event_source/devices/kprobe/type";
/// `PERF_FLAG_FD_CLOEXEC`.
const CLOEXEC: libc::c_ulong = 8;

/// `struct perf_event_attr` in its first published size, which a kprobe needs no more than.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    function: u64,
    offset: u64,
}

/// The guard's programs on kprobes: the name of the link, the function, and whether it runs when the function returns. Old
/// kernels do not say where the link of a kprobe leads.
const PROBES: [(&str, &str, bool); 2] = [
    ("remote_probe_entry", "pin_user_pages_remote", false),
    ("remote_probe_exit", "pin_user_pages_remote", true),
];

/// Attach where the guard's program of this name is.
pub(crate) fn attach(program: &OwnedFd, name: &str) -> Result<OwnedFd> {
    let probe = PROBES.iter().find(|probe| probe.0 == name);
    let (_, function, at_return) =
        probe.with_context(|| format!("where is {name}? PROBES in kprobe.rs must say"))?;
    let event = open(function, *at_return).with_context(|| format!("no kprobe on {function}"))?;
    // SAFETY: both descriptors are open.
    let link = unsafe {
        sys::bpf_link_create(
            program.as_raw_fd(),
            event.as_raw_fd(),
            sys::BPF_PERF_EVENT,
            ptr::null(),
        )
    };
    ensure!(link >= 0, Error::last_os_error());
    // SAFETY: just returned to us; the link keeps the event.
    Ok(unsafe { OwnedFd::from_raw_fd(link) })
}

fn open(function: &str, at_return: bool) -> Result<OwnedFd> {
    let kind = fs::read_to_string(KIND).context(KIND)?;
    let function = CString::new(function)?;
    let attributes = Attributes {
        kind: kind.trim().parse()?,
        size: u32::try_from(size_of::<Attributes>())?,
        config: u64::from(at_return),
        function: function.as_ptr() as u64,
        ..Default::default()
    };
    let all_tasks: libc::pid_t = -1;
    let first_cpu = 0;
    let no_group = -1;
    // SAFETY: the structure says its own size, and the string that it names lives across the call.
    let event = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attributes,
            all_tasks,
            first_cpu,
            no_group,
            CLOEXEC,
        )
    };
    ensure!(event >= 0, Error::last_os_error());
    // SAFETY: just returned to us.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(event)?) })
}
