//! Bad input: a clear error, and nothing left behind.

use std::fs::File;
use std::ops::Range;

use anyhow::{Context as _, Result, bail, ensure};
use longpin_rdma::{
    Access, Context, MemoryRegion, ProtectionDomain, RegisterError, RegisterOptions, Wish,
};
use longpin_tests::scratch::FsKind;
use rustix::fs::MemfdFlags;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use super::ground::{Left, with_huge_pages};
use crate::files::TestFile;

const LEN: u64 = 64 << 10;

/// The registration must be refused with all of these words.
fn must_refuse(
    domain: &ProtectionDomain,
    file: &File,
    range: Range<u64>,
    access: Access,
    words: &[&str],
) -> Result<()> {
    let name = format!("{range:?}");
    let options = RegisterOptions {
        wish: Wish::Pin,
        ..RegisterOptions::default()
    };
    match MemoryRegion::register_with(domain, file, range, access, &options) {
        Ok(_) => bail!("{name}: registered"),
        Err(err @ RegisterError::Refused(_)) => {
            let said = err.to_string();
            for word in words {
                ensure!(said.contains(word), "{name}: no {word:?} in: {said}");
            }
            Ok(())
        }
        Err(err) => Err(err).context(name),
    }
}

#[expect(
    clippy::reversed_empty_ranges,
    reason = "that is the bad input that is tried"
)]
pub(crate) fn plan_bad_input() -> Result<()> {
    let domain = Context::open("rxe0")?.protection_domain()?;
    let test = TestFile::new(FsKind::Tmpfs, LEN)?;
    let reader = File::open(&test.path)?;
    let unlinked = TestFile::new(FsKind::Tmpfs, LEN)?;
    std::fs::remove_file(&unlinked.path)?;
    // What is asked once is kept: ask before counting.
    longpin_rdma::kernel_rules(&domain)?;
    let left = Left::count()?;
    let cases: [(&File, Range<u64>, Access, &[&str]); 9] = [
        (&test.file, 0..LEN + 1, Access::READ, &["beyond-end"]),
        (&test.file, LEN..2 * LEN, Access::READ, &["beyond-end"]),
        (&test.file, 0..u64::MAX, Access::READ, &["OFF+LEN"]),
        (&test.file, 4096..4096, Access::READ, &["empty"]),
        (&test.file, 8192..4096, Access::READ, &["empty"]),
        (
            &test.file,
            1..LEN,
            Access::READ,
            &["not-on-pages", "1..65536"],
        ),
        (
            &test.file,
            0..100,
            Access::READ,
            &["not-on-pages", "0..100"],
        ),
        (&reader, 0..LEN, Access::READ_WRITE, &["not-writable"]),
        (&unlinked.file, 0..LEN, Access::READ, &["deleted"]),
    ];
    for (file, range, access, words) in cases {
        must_refuse(&domain, file, range, access, words)?;
    }
    left.must_be_all()?;
    with_huge_pages(|| {
        let huge = TestFile::memfd(MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB, 4 << 20)?;
        let words = ["not-on-pages", "2097152"];
        must_refuse(&domain, &huge.file, 4096..2 << 20, Access::READ, &words)
    })?;
    a_device_that_is_not_there()
}

fn a_device_that_is_not_there() -> Result<()> {
    match Context::open("mlx5_0") {
        Ok(_) => bail!("there is an mlx5_0"),
        Err(err) => ensure!(err.to_string().contains("there are: rxe0"), "{err}"),
    }
    Ok(())
}

/// Without CAP_IPC_LOCK the limit binds: the plan says so, and the kernel agrees with ENOMEM.
pub(crate) fn plan_memlock() -> Result<()> {
    let domain = Context::open("rxe0")?.protection_domain()?;
    let file = TestFile::new(FsKind::Tmpfs, 4 * LEN)?;
    longpin_rdma::kernel_rules(&domain)?;
    let left = Left::count()?;
    with_limit(2 * LEN, || {
        let words = [
            "memlock",
            "262144 bytes",
            "131072 are left",
            "raise-memlock",
        ];
        must_refuse(&domain, &file.file, 0..4 * LEN, Access::READ, &words)?;
        kernel_must_refuse(&domain, &file.file)?;
        // Half of it is allowed, and counts.
        let options = RegisterOptions {
            wish: Wish::Pin,
            ..RegisterOptions::default()
        };
        let access = Access::READ;
        let half = 0..LEN;
        let region = MemoryRegion::register_with(&domain, &file.file, half, access, &options)?;
        let words = ["memlock", "131072 bytes", "65536 are left"];
        must_refuse(&domain, &file.file, 0..2 * LEN, Access::READ, &words)?;
        Ok(region.deregister()?)
    })?;
    left.must_be_all()
}

/// The act, without a plan.
fn kernel_must_refuse(domain: &ProtectionDomain, file: &File) -> Result<()> {
    use longpin_linux::memory::{DeviceMemory, Sharing};
    use longpin_linux::verbs::Region;
    let len = usize::try_from(4 * LEN)?;
    let memory = DeviceMemory::of_file(file, 0, len, true, Sharing::Shared)?;
    let answer = Region::register(domain, &memory.into(), len, Access::READ, false).err();
    ensure!(
        answer == Some(rustix::io::Errno::NOMEM),
        "answered {answer:?}"
    );
    Ok(())
}

fn with_limit(bytes: u64, test: impl FnOnce() -> Result<()>) -> Result<()> {
    let (before, limit) = (capabilities(None)?, getrlimit(Resource::Memlock));
    let mut fewer = before;
    fewer.effective.remove(CapabilitySet::IPC_LOCK);
    let current = Some(bytes);
    setrlimit(Resource::Memlock, Rlimit { current, ..limit })?;
    set_capabilities(None, fewer)?;
    let tested = test();
    set_capabilities(None, before)?;
    setrlimit(Resource::Memlock, limit)?;
    tested
}
