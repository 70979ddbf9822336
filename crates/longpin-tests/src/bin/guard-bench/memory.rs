//! Kernel memory of the guard, as the kernel accounts for it.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};

use crate::{bpf, guard};

/// Bytes by object.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory {
    pub(crate) programs: Vec<(String, u64)>,
    pub(crate) maps: Vec<(String, u64)>,
}

impl Memory {
    /// Of the running guard.
    pub(crate) fn read() -> Result<Self> {
        let (programs, maps) = bpf::objects(Path::new(guard::PINNED))?;
        let sizes = |objects: Vec<bpf::Object>| -> Result<Vec<_>> {
            let sizes = objects
                .into_iter()
                .map(|object| Ok((object.name, memlock(&object.fd)?)));
            sizes.collect()
        };
        Ok(Self {
            programs: sizes(programs)?,
            maps: sizes(maps)?,
        })
    }

    pub(crate) fn of_programs(&self) -> u64 {
        self.programs.iter().map(|(_, bytes)| bytes).sum()
    }

    pub(crate) fn of_maps(&self) -> u64 {
        self.maps.iter().map(|(_, bytes)| bytes).sum()
    }
}

/// `memlock` of a BPF object, from `/proc/self/fdinfo`.
fn memlock(fd: &OwnedFd) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
    let bytes = text.lines().find_map(|line| line.strip_prefix("memlock:"));
    let bytes = bytes.context("a BPF object without memlock in its fdinfo")?;
    Ok(bytes.trim().parse()?)
}
