//! Files that are held while others are used: a page each, pinned by io_uring.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use longpin_linux::FixedBuffer;
use longpin_tests::PAGE;
use rustix::process::{Resource, Rlimit, setrlimit};

/// Held files; let go, and removed, with this value.
#[derive(Debug)]
pub(crate) struct Held {
    pins: Vec<(PathBuf, FixedBuffer)>,
}

impl Held {
    pub(crate) fn none() -> Self {
        Self { pins: Vec::new() }
    }

    /// Hold more, up to `count` files of one page in this directory, which is on a file system that lives in memory.
    pub(crate) fn grow(&mut self, dir: &Path, count: usize) -> Result<()> {
        let open_files = Some(count as u64 * 2 + 1024);
        setrlimit(
            Resource::Nofile,
            Rlimit {
                current: open_files,
                maximum: open_files,
            },
        )?;
        for number in self.pins.len()..count {
            let path = dir.join(format!("held-{number}"));
            let file = File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .open(&path)?;
            file.set_len(PAGE as u64)?;
            let pin = FixedBuffer::register(&file, 0, PAGE).context("cannot hold a file")?;
            self.pins.push((path, pin));
        }
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for (path, pin) in self.pins.drain(..) {
            // The file system goes away with the guest.
            let _ = pin.unregister();
            let _ = std::fs::remove_file(path);
        }
    }
}
