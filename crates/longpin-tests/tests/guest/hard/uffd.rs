//! userfaultfd: memory whose missing pages put whoever touches them to sleep, until we say so.
#![allow(unsafe_code, reason = "userfaultfd(2) and its ioctls")]

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use longpin_tests::PATIENCE;
use longpin_tests::mapping::Mapping;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::mm::UserfaultfdFlags;

const PAGE: u64 = 4096;
const API: u64 = 0xaa;
const UFFDIO_API: libc::c_ulong = 0xc018_aa3f;
const UFFDIO_REGISTER: libc::c_ulong = 0xc020_aa00;
const UFFDIO_COPY: libc::c_ulong = 0xc028_aa03;
const MISSING: u64 = 1;

/// A mapping that is watched.
pub(super) struct Watched {
    mapping: Mapping,
    faults: OwnedFd,
}

impl Watched {
    pub(super) fn new(mapping: Mapping) -> Result<Self> {
        // One that blocks cannot be polled.
        let flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK;
        // SAFETY: only the mapping that is registered below, which is ours, will be affected.
        let faults = unsafe { rustix::mm::userfaultfd(flags)? };
        let watched = Self { mapping, faults };
        watched.control(UFFDIO_API, &mut [API, 0, 0])?;
        let (start, len) = (watched.mapping.addr() as u64, watched.mapping.len() as u64);
        watched.control(UFFDIO_REGISTER, &mut [start, len, MISSING, 0])?;
        Ok(watched)
    }

    pub(super) fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    fn control<const N: usize>(&self, request: libc::c_ulong, words: &mut [u64; N]) -> Result<()> {
        // SAFETY: each request's argument is as many 64-bit words as its number says and its caller gives.
        let answer = unsafe { libc::ioctl(self.faults.as_raw_fd(), request, words.as_mut_ptr()) };
        ensure!(
            answer == 0,
            "userfaultfd {request:#x}: {}",
            std::io::Error::last_os_error()
        );
        Ok(())
    }

    /// Does somebody sleep on a missing page? False: `has_passed` says that nobody will.
    pub(super) fn wait(&self, has_passed: impl Fn() -> bool) -> Result<bool> {
        let begin = Instant::now();
        let limit = Duration::from_secs(1).try_into().context("time")?;
        while begin.elapsed() < PATIENCE {
            let passed = has_passed();
            let mut wanted = [PollFd::new(&self.faults, PollFlags::IN)];
            if poll(&mut wanted, Some(&limit))? > 0 {
                let mut message = [0; 32];
                rustix::io::read(self.faults.as_fd(), &mut message)?;
                return Ok(true);
            }
            if passed {
                return Ok(false);
            }
        }
        bail!("nobody met the missing page")
    }

    /// Fill the missing page at this offset, and wake who sleeps on it.
    pub(super) fn fill(&self, at: u64) -> Result<()> {
        let source = Mapping::anonymous(4096)?;
        source.copy_in(0, &[7; 4096]);
        let target = self.mapping.addr() as u64 + at;
        self.control(UFFDIO_COPY, &mut [target, source.addr() as u64, PAGE, 0, 0])
    }
}
