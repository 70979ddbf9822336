//! Files to try things on: one scratch file system of each kind for the whole run.

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex};

use anyhow::{Context, Result};
use longpin_tests::pattern::Pattern;
use longpin_tests::scratch::{FsKind, Scratch};

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

    /// Bytes of the file as they must be.
    pub(crate) fn check(&self, first_page: u64, bytes: &[u8]) -> Result<()> {
        self.pattern
            .check(first_page, bytes)
            .map_err(|err| anyhow::anyhow!("{}: other bytes: {err:?}", self.kind.name()))
    }

    /// The whole file, read back, is as it was written.
    pub(crate) fn check_all(&self) -> Result<()> {
        self.check(0, &std::fs::read(&self.path)?)
    }
}

impl Drop for TestFile {
    fn drop(&mut self) {
        // The file system goes away with the guest.
        let _ = std::fs::remove_file(&self.path);
    }
}
