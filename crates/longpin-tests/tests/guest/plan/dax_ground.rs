//! What the tests on persistent memory stand on: a file there, a connection that writes and reads it, and a count of what
//! the kernel takes back from the device.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use longpin_rdma::{Access, Level, MemoryRegion, RegisterError, RegisterOptions, Wish};
use longpin_tests::PAGE;
use longpin_tests::pattern::Pattern;
use longpin_tests::scratch::write_pattern;

use super::region::Net;
use super::special::DaxMount;

/// xfs with reflink, as its maker has it.
pub(super) const MAKERS: [&str; 2] = ["mkfs.ext4 -q -F -b 4096", "mkfs.xfs -q -f"];
pub(super) const LEN: usize = 1 << 20;

pub(super) const HELD: RegisterOptions = RegisterOptions {
    wish: Wish::OnDemand,
    level: Level::Swapfile,
    map_sync: false,
    require_hold: true,
    trial: None,
};

pub(super) const FREE: RegisterOptions = RegisterOptions {
    level: Level::Layout,
    require_hold: false,
    ..HELD
};

pub(super) fn mount(maker: &str) -> Result<DaxMount> {
    DaxMount::make(maker)
}

/// A file on persistent memory, and the pages that it must have.
pub(super) struct DaxFile {
    pub(super) path: PathBuf,
    pub(super) file: File,
    pages: Vec<Vec<u8>>,
}

impl DaxFile {
    /// Of a pattern, every block written.
    pub(super) fn new(on: &DaxMount, name: &str) -> Result<Self> {
        let path = on.path().join(name);
        let pattern = Pattern::new(7);
        write_pattern(&path, LEN, pattern)?;
        let bytes = pattern.bytes(LEN);
        Self::open(&path, bytes.chunks(PAGE).map(<[u8]>::to_vec).collect())
    }

    /// Of blocks that the file system has given and nobody has written.
    pub(super) fn unwritten(on: &DaxMount, name: &str) -> Result<Self> {
        let path = on.path().join(name);
        let file = File::create(&path)?;
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, LEN as u64)?;
        file.sync_all()?;
        Self::open(&path, vec![vec![0; PAGE]; LEN / PAGE])
    }

    fn open(path: &Path, pages: Vec<Vec<u8>>) -> Result<Self> {
        let file = File::options().read(true).write(true).open(path)?;
        let dax = longpin_linux::file::status(&file)?.attributes.dax;
        ensure!(dax, "{} is not on DAX memory", path.display());
        Ok(Self {
            path: path.to_owned(),
            file,
            pages,
        })
    }

    pub(super) fn register(
        &self,
        net: &Net,
        options: &RegisterOptions,
    ) -> Result<MemoryRegion, RegisterError> {
        let range = 0..LEN as u64;
        MemoryRegion::register_with(&net.domain, &self.file, range, Access::READ_WRITE, options)
    }

    /// The other end writes a page, and reads all of the file: what was written, and nothing else has changed.
    pub(super) fn round(&mut self, net: &mut Net, region: &MemoryRegion, mark: u8) -> Result<()> {
        let page = usize::from(mark) % self.pages.len();
        let bytes = vec![mark ^ 0x5a; PAGE];
        let to = region.address() + (page * PAGE) as u64;
        net.ends.0.write(to, region.rkey(), &bytes)?;
        self.pages[page] = bytes;
        let seen = net.ends.0.read(region.address(), region.rkey(), LEN)?;
        self.must_be(&seen)
    }

    fn must_be(&self, bytes: &[u8]) -> Result<()> {
        for (number, (found, wanted)) in bytes.chunks(PAGE).zip(&self.pages).enumerate() {
            ensure!(found == wanted, "page {number} has other bytes");
        }
        ensure!(bytes.len() == LEN, "{} bytes", bytes.len());
        Ok(())
    }

    /// By `read(2)` of another descriptor.
    pub(super) fn check(&self) -> Result<()> {
        let mut bytes = vec![0; LEN];
        File::open(&self.path)?.read_exact_at(&mut bytes, 0)?;
        self.must_be(&bytes)
    }

    /// Closes it, so that its file system can go.
    pub(super) fn close(self) -> Closed {
        let Self { path, pages, .. } = self;
        Closed { path, pages }
    }
}

/// Not open anywhere.
pub(super) struct Closed {
    path: PathBuf,
    pages: Vec<Vec<u8>>,
}

impl Closed {
    /// The bytes are there.
    pub(super) fn check(self) -> Result<DaxFile> {
        let file = DaxFile::open(&self.path, self.pages)?;
        file.check()?;
        Ok(file)
    }

    /// These are the bytes that have to be there.
    pub(super) fn of(path: PathBuf, pages: Vec<Vec<u8>>) -> Self {
        Self { path, pages }
    }
}

/// Counts how often soft-RoCE is told that pages of its on-demand regions go: a probe on the function that is told. The
/// kernel's writeback, which takes pages back to make them read-only, waits meanwhile.
pub(super) struct Invalidations {
    /// Hundredths of a second between its rounds, as it was.
    flusher: String,
}

const TRACING: &str = "/sys/kernel/tracing";
const EVENT: &str = "longpin/invalidate";
const FLUSHER: &str = "/proc/sys/vm/dirty_writeback_centisecs";

impl Invalidations {
    pub(super) fn watch() -> Result<Self> {
        let new = format!("p:{EVENT} rxe_ib_invalidate_range");
        std::fs::write(format!("{TRACING}/kprobe_events"), new).context("cannot probe")?;
        let flusher = std::fs::read_to_string(FLUSHER)?;
        let this = Self { flusher };
        std::fs::write(FLUSHER, "0")?;
        std::fs::write(format!("{TRACING}/events/{EVENT}/enable"), "1")?;
        Ok(this)
    }

    pub(super) fn count(&self) -> Result<u64> {
        let profile = std::fs::read_to_string(format!("{TRACING}/kprobe_profile"))?;
        for line in profile.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let ["invalidate", hits, missed] = words.as_slice() {
                ensure!(*missed == "0", "{missed} hits of the probe were missed");
                return Ok(hits.parse()?);
            }
        }
        bail!("the probe is not there: {profile}")
    }
}

impl Drop for Invalidations {
    fn drop(&mut self) {
        // Best effort: the guest ends soon.
        let _ = std::fs::write(FLUSHER, &self.flusher);
        let _ = std::fs::write(format!("{TRACING}/events/{EVENT}/enable"), "0");
        let _ = std::fs::write(format!("{TRACING}/kprobe_events"), format!("-:{EVENT}"));
    }
}
