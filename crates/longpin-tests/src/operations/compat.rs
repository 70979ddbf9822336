//! What a 32-bit program can ask for: the same operations by other numbers of system calls, and by other structures.
//!
//! The calls are made from here by `int $0x80`, which is for the kernel a 32-bit program's; what they point to lies below
//! 4 GiB.
#![allow(
    unsafe_code,
    reason = "a system call by int $0x80, and memory at an address of 32 bits"
)]

use std::ffi::c_void;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

use anyhow::Result;
use rustix::io::Errno;

use super::zlib::zlib_of;
use super::{Home, Operation, Victim};
use crate::PAGE;
use crate::act::Outcome;

const IOCTL: u32 = 54;
const PWRITE64: u32 = 181;
const FTRUNCATE64: u32 = 194;
const FALLOCATE: u32 = 324;
const COPY_FILE_RANGE: u32 = 377;

/// `FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE`.
const PUNCH: u32 = 3;
/// `FICLONERANGE`.
const CLONE_RANGE: u32 = 0x4020_940d;
/// `FS_IOC_UNRESVSP64_32`: a structure of 44 bytes.
const UNRESVSP64: u32 = 0x402c_582b;
/// `BTRFS_IOC_ENCODED_WRITE_32`: a structure of 120 bytes.
const ENCODED_WRITE: u32 = 0x4078_9440;

pub(super) const OPERATIONS: &[Operation] = &[
    Operation::new("32-bit ftruncate", "C01", Home::ALL, |v| {
        let [low, high] = halves(v.pinned.start);
        Ok(call(FTRUNCATE64, [fd(v.file()?)?, low, high, 0, 0]))
    }),
    Operation::new("32-bit fallocate PUNCH_HOLE", "C02", Home::ALL, |v| {
        let [low, high] = halves(v.pinned.start);
        let len = u32::try_from(v.pinned_len())?;
        Ok(call(FALLOCATE, [fd(v.file()?)?, PUNCH, low, high, len]))
    }),
    Operation::new("32-bit UNRESVSP64", "C02", Home::ALL, |v| {
        let mut space = vec![0; 4];
        put(&mut space, v.pinned.start);
        put(&mut space, v.pinned_len());
        space.resize(44, 0);
        ioctl(v.file()?, UNRESVSP64, &space)
    }),
    Operation::new("32-bit FICLONERANGE into", "C03", Home::ALL, |v| {
        let donor = v.donor(false)?;
        let mut range = Vec::new();
        put(&mut range, fd(&donor.file)?.into());
        put(&mut range, v.pinned.start);
        put(&mut range, v.pinned_len());
        put(&mut range, v.pinned.start);
        ioctl(v.file()?, CLONE_RANGE, &range)
    }),
    Operation::new("32-bit copy_file_range into", "C03", Home::ALL, copy),
    Operation::new("32-bit write", "C06", Home::ALL, |v| {
        let bytes = Low::of(&[b'w'; PAGE])?;
        let [low, high] = halves(v.pinned.start);
        let page = u32::try_from(PAGE)?;
        Ok(call(
            PWRITE64,
            [fd(v.file()?)?, bytes.address, page, low, high],
        ))
    }),
    Operation::new("btrfs 32-bit ENCODED_WRITE", "C05", &[Home::Btrfs], encode),
];

fn call(number: u32, arguments: [u32; 5]) -> Outcome {
    answer_of(number, arguments).map(drop)
}

/// A system call with five arguments, and a sixth of 0.
fn answer_of(number: u32, arguments: [u32; 5]) -> Result<i32, Errno> {
    let answer: u64;
    // SAFETY: the arguments are numbers, descriptors, and addresses of memory that outlives the call and that nobody
    // else uses; rbx and rbp, which the compiler keeps for itself, are put back.
    unsafe {
        std::arch::asm!(
            "push rbp",
            "xchg {first}, rbx",
            "xor ebp, ebp",
            "int 0x80",
            "xchg {first}, rbx",
            "pop rbp",
            first = inout(reg) u64::from(arguments[0]) => _,
            inlateout("rax") u64::from(number) => answer,
            in("rcx") u64::from(arguments[1]),
            in("rdx") u64::from(arguments[2]),
            in("rsi") u64::from(arguments[3]),
            in("rdi") u64::from(arguments[4]),
            lateout("r8") _,
            lateout("r9") _,
            lateout("r10") _,
            lateout("r11") _,
        );
    }
    // The lower half: what a 32-bit program sees.
    let bytes = answer.to_le_bytes();
    let answer = i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    match answer {
        -4095..0 => Err(Errno::from_raw_os_error(-answer)),
        _ => Ok(answer),
    }
}

fn ioctl(file: &File, request: u32, argument: &[u8]) -> Result<Outcome> {
    Ok(ioctl_answer(file, request, argument)?.map(drop))
}

/// `ioctl(file, request, argument)`: what it answered.
///
/// # Errors
///
/// There is no memory below 4 GiB for the argument.
pub fn ioctl_answer(file: &File, request: u32, argument: &[u8]) -> Result<Result<i32, Errno>> {
    let argument = Low::of(argument)?;
    let arguments = [fd(file)?, request, argument.address, 0, 0];
    Ok(answer_of(IOCTL, arguments))
}

fn copy(victim: &mut Victim<'_>) -> Result<Outcome> {
    let donor = victim.donor(false)?;
    let mut offsets = Vec::new();
    put(&mut offsets, victim.pinned.start);
    put(&mut offsets, victim.pinned.start);
    let offsets = Low::of(&offsets)?;
    let (from, to) = (offsets.address, offsets.address + 8);
    let len = u32::try_from(victim.pinned_len())?;
    let arguments = [fd(&donor.file)?, from, fd(victim.file()?)?, to, len];
    Ok(call(COPY_FILE_RANGE, arguments))
}

/// As the operation of 64 bits: zlib-compressed data for the pinned range.
fn encode(victim: &mut Victim<'_>) -> Result<Outcome> {
    let len = victim.pinned_len();
    let zlib = zlib_of(b'e', usize::try_from(len)?)?;
    let data = Low::of(&zlib)?;
    let mut vector = data.address.to_le_bytes().to_vec();
    vector.extend(u32::try_from(zlib.len())?.to_le_bytes());
    let vector = Low::of(&vector)?;
    let mut arguments = vector.address.to_le_bytes().to_vec();
    arguments.extend(1_u32.to_le_bytes());
    for number in [victim.pinned.start, 0, len, len, 0] {
        put(&mut arguments, number);
    }
    // Compression: zlib.
    arguments.extend(1_u32.to_le_bytes());
    arguments.resize(120, 0);
    ioctl(victim.file()?, ENCODED_WRITE, &arguments)
}

fn fd(file: &File) -> Result<u32> {
    Ok(u32::try_from(file.as_raw_fd())?)
}

fn halves(number: u64) -> [u32; 2] {
    let bytes = number.to_le_bytes();
    let half =
        |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    [half(0), half(4)]
}

fn put(bytes: &mut Vec<u8>, number: u64) {
    bytes.extend(number.to_le_bytes());
}

/// Bytes at an address of 32 bits; unmapped on drop.
struct Low {
    base: NonNull<c_void>,
    address: u32,
    len: usize,
}

impl Low {
    fn of(bytes: &[u8]) -> Result<Self> {
        let len = bytes.len().next_multiple_of(PAGE);
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT;
        // SAFETY: the kernel chooses a free address; nothing that exists is replaced.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error().into());
        }
        let base = NonNull::new(base).ok_or(Errno::NOMEM)?;
        let address = u32::try_from(base.as_ptr().addr())?;
        // SAFETY: fresh memory of at least that length, which is ours alone.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), base.as_ptr().cast(), bytes.len()) };
        Ok(Self { base, address, len })
    }
}

impl Drop for Low {
    fn drop(&mut self) {
        // SAFETY: what mmap returned for this value alone.
        unsafe { libc::munmap(self.base.as_ptr(), self.len) };
    }
}
