//! What the tests of the plan stand on: huge pages, and a count of what could be left behind.

use anyhow::{Context, Result, ensure};

/// Runs with huge pages, and gives them back.
pub(crate) fn with_huge_pages<T>(test: impl FnOnce() -> Result<T>) -> Result<T> {
    let pages = "/proc/sys/vm/nr_hugepages";
    std::fs::write(pages, "16")?;
    if std::fs::read_to_string(pages)?.trim() != "16" {
        // All of the memory: seconds, and seldom needed.
        std::fs::write("/proc/sys/vm/compact_memory", "1")?;
        std::fs::write(pages, "16")?;
    }
    let tested = test();
    std::fs::write(pages, "0")?;
    tested
}

/// What a failed registration could leave behind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Left {
    mappings: usize,
    descriptors: usize,
    pinned: u64,
}

impl Left {
    pub(crate) fn count() -> Result<Self> {
        let maps = std::fs::read_to_string("/proc/self/maps")?;
        let ours = ["/mnt/file-", "memfd:", "longpin-plan"];
        let is_ours = |line: &&str| ours.iter().any(|name| line.contains(name));
        Ok(Self {
            mappings: maps.lines().filter(is_ours).count(),
            descriptors: std::fs::read_dir("/proc/self/fd")?.count(),
            pinned: longpin_linux::memory::pinned_bytes()?,
        })
    }

    /// The same as now.
    pub(crate) fn must_be_all(&self) -> Result<()> {
        let now = Self::count().context("counting")?;
        ensure!(*self == now, "left behind: {self:?} became {now:?}");
        Ok(())
    }
}
