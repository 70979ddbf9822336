//! Files to try things on: one scratch file system of each kind for the whole run.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex};

use anyhow::{Context, Result};
use longpin_tests::mapping::Mapping;
use longpin_tests::pattern::Pattern;
use longpin_tests::scratch::{FsKind, Scratch};
use rustix::fs::MemfdFlags;

static SCRATCH: LazyLock<Mutex<HashMap<&'static str, PathBuf>>> = LazyLock::new(Mutex::default);
static NEXT: AtomicU32 = AtomicU32::new(0);

/// The directory of the scratch file system of this kind; it lives as long as the guest.
fn dir(kind: FsKind) -> Result<PathBuf> {
    let mut made = SCRATCH
        .lock()
        .map_err(|_| anyhow::anyhow!("a test panicked"))?;
    if let Some(dir) = made.get(kind.name()) {
        return Ok(dir.clone());
    }
    let size = if kind.is_memory() { 1 << 30 } else { 400 << 20 };
    let scratch = Scratch::new(kind, size).with_context(|| format!("no {}", kind.name()))?;
    let dir = scratch.dir().to_owned();
    std::mem::forget(scratch);
    made.insert(kind.name(), dir.clone());
    Ok(dir)
}

/// A file whose every byte is known; removed on drop.
pub(crate) struct TestFile {
    pub(crate) kind: FsKind,
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    pub(crate) pattern: Pattern,
}

impl TestFile {
    pub(crate) fn new(kind: FsKind, len: u64) -> Result<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = dir(kind)?.join(format!("file-{number}"));
        let pattern = Pattern::new(number.into());
        longpin_tests::scratch::write_pattern(&path, usize::try_from(len)?, pattern)?;
        let file = File::options().read(true).write(true).open(&path)?;
        Ok(Self {
            kind,
            path,
            file,
            pattern,
        })
    }

    /// A memfd that can be sealed, under the path that `ls` gives it. Filled through a mapping: huge pages cannot be
    /// written otherwise.
    pub(crate) fn memfd(flags: MemfdFlags, len: u64) -> Result<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("file-{number}");
        let flags = flags | MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(rustix::fs::memfd_create(&name, flags)?);
        file.set_len(len)?;
        let pattern = Pattern::new(number.into());
        let len = usize::try_from(len)?;
        let mapping = Mapping::shared(&file, 0, len, true).context("no huge pages")?;
        mapping.copy_in(0, &pattern.bytes(len));
        Ok(Self {
            kind: FsKind::Tmpfs,
            path: format!("/memfd:{name}").into(),
            file,
            pattern,
        })
    }

    /// Bytes of the file as they must be.
    pub(crate) fn check(&self, first_page: u64, bytes: &[u8]) -> Result<()> {
        self.pattern
            .check(first_page, bytes)
            .map_err(|err| anyhow::anyhow!("{}: other bytes: {err:?}", self.kind.name()))
    }

    /// The whole file, read back, is as it was written.
    pub(crate) fn check_all(&self) -> Result<()> {
        let mut bytes = vec![0; usize::try_from(self.file.metadata()?.len())?];
        self.file.read_exact_at(&mut bytes, 0)?;
        self.check(0, &bytes)
    }
}

impl Drop for TestFile {
    fn drop(&mut self) {
        // The file system goes away with the guest, and a memfd has no name to remove.
        let _ = std::fs::remove_file(&self.path);
    }
}
