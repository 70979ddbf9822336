//! What differs by architecture, for the user side; the programs have bpf/arch.h of longpin-bpf. x86-64 only: the names
//! of its system calls are [`libc`]'s, so that another one lacks lines here and nothing else.

use std::sync::OnceLock;

use libc::c_long;

/// The machine that longpin knows, as uname(2) calls it.
pub const MACHINE: &str = "x86_64";

/// Bytes of a page, as files and frames are counted in.
#[must_use]
pub fn page_size() -> u64 {
    static SIZE: OnceLock<u64> = OnceLock::new();
    *SIZE.get_or_init(|| rustix::param::page_size() as u64)
}

/// `page_size() == 1 << page_shift()`.
#[must_use]
pub fn page_shift() -> u32 {
    page_size().trailing_zeros()
}

/// ioctl(2).
pub const IOCTL: c_long = libc::SYS_ioctl;

/// Which arguments of a system call that changes a file are descriptors of files; `None`: of others that is not known.
#[must_use]
pub fn descriptors_of(call: c_long) -> Option<&'static [usize]> {
    Some(match call {
        libc::SYS_write
        | libc::SYS_pwrite64
        | libc::SYS_writev
        | libc::SYS_ftruncate
        | libc::SYS_fallocate
        | libc::SYS_pwritev
        | libc::SYS_pwritev2 => &[0],
        libc::SYS_mmap => &[4],
        libc::SYS_sendfile => &[0, 1],
        libc::SYS_splice | libc::SYS_copy_file_range => &[0, 2],
        _ => return None,
    })
}

/// The name of a system call in which pages come to leave files or devices.
#[must_use]
pub const fn name_of(call: c_long) -> Option<&'static str> {
    Some(match call {
        libc::SYS_write => "write",
        libc::SYS_open => "open",
        libc::SYS_close => "close",
        libc::SYS_mmap => "mmap",
        libc::SYS_mprotect => "mprotect",
        libc::SYS_munmap => "munmap",
        libc::SYS_ioctl => "ioctl",
        libc::SYS_pwrite64 => "pwrite64",
        libc::SYS_writev => "writev",
        libc::SYS_mremap => "mremap",
        libc::SYS_msync => "msync",
        libc::SYS_madvise => "madvise",
        libc::SYS_exit => "exit",
        libc::SYS_fsync => "fsync",
        libc::SYS_fdatasync => "fdatasync",
        libc::SYS_truncate => "truncate",
        libc::SYS_ftruncate => "ftruncate",
        libc::SYS_creat => "creat",
        libc::SYS_unlink => "unlink",
        libc::SYS_sync => "sync",
        libc::SYS_umount2 => "umount2",
        libc::SYS_exit_group => "exit_group",
        libc::SYS_mbind => "mbind",
        libc::SYS_migrate_pages => "migrate_pages",
        libc::SYS_openat => "openat",
        libc::SYS_unlinkat => "unlinkat",
        libc::SYS_sync_file_range => "sync_file_range",
        libc::SYS_move_pages => "move_pages",
        libc::SYS_fallocate => "fallocate",
        libc::SYS_copy_file_range => "copy_file_range",
        libc::SYS_io_uring_enter => "io_uring_enter",
        libc::SYS_openat2 => "openat2",
        _ => return None,
    })
}
