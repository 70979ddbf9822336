//! What there is less of than a pin needs: found by numbers and by trying, before anything is pinned.

use std::fs::File;
use std::io;
use std::ops::Range;

use longpin_linux::memory::{DeviceMemory, Sharing};
use longpin_linux::{cgroups, ring_limits, sparse};
use rustix::io::Errno;

use super::{Device, Lack, Medium, Question, Rule, decide};

/// Nothing is asked for what is refused anyway.
pub(super) fn find(
    file: &File,
    range: &Range<u64>,
    question: &Question,
) -> io::Result<Option<Lack>> {
    let plan = decide(question);
    if range.is_empty() || plan.refusal().is_some() {
        return Ok(None);
    }
    if question.medium == Medium::HugePages {
        if let Some(lack) = huge_pages(file, range)? {
            return Ok(Some(lack));
        }
    }
    // What is faulted in page by page need not be there at once.
    if plan.is_on_demand() {
        return Ok(None);
    }
    if question.medium == Medium::Memory {
        if let Some(lack) = room(file, range)? {
            return Ok(Some(lack));
        }
    }
    match question.device {
        Device::IoUring if question.kernel.io_uring => buffer(range.end - range.start),
        _ => Ok(None),
    }
}

fn buffer(bytes: u64) -> io::Result<Option<Lack>> {
    let largest = ring_limits::largest_below(bytes)?;
    Ok(largest.map(|there| Lack {
        rule: Rule::BufferLimit,
        needed: bytes,
        there,
    }))
}

/// tmpfs gives a page to each hole that is pinned, and the control group of who pins it pays.
fn room(file: &File, range: &Range<u64>) -> io::Result<Option<Lack>> {
    let system = rustix::fs::fstatvfs(file)?;
    // A tmpfs without a limit says that it has no blocks.
    let left = system.f_bavail.saturating_mul(system.f_frsize);
    let left = (system.f_blocks != 0).then_some(left);
    let limits = left.into_iter().chain(cgroups::memory_limit()?);
    let Some(there) = limits.min() else {
        return Ok(None);
    };
    let mut needed = range.end - range.start;
    for run in sparse::Data::of(file, range)? {
        let run = run?;
        needed = needed.saturating_sub(run.end - run.start);
        if needed <= there {
            return Ok(None);
        }
    }
    let rule = Rule::NoRoom;
    Ok((needed > there).then_some(Lack {
        rule,
        needed,
        there,
    }))
}

/// A mapping sets the pages aside that the file has not yet, or is refused.
fn huge_pages(file: &File, range: &Range<u64>) -> io::Result<Option<Lack>> {
    let page = super::page_of(file)?;
    let start = range.start - range.start % page;
    let bytes = range.end.next_multiple_of(page) - start;
    let mapped = match usize::try_from(bytes) {
        Ok(len) => DeviceMemory::of_file(file, start, len, false, Sharing::Shared).map(drop),
        Err(_) => Err(Errno::NOMEM),
    };
    match mapped {
        Ok(()) | Err(Errno::INVAL) => Ok(None),
        Err(Errno::NOMEM) => Ok(Some(Lack {
            rule: Rule::NoHugePages,
            needed: bytes,
            there: free_huge_pages(file, page)?,
        })),
        Err(err) => Err(err.into()),
    }
}

fn free_huge_pages(file: &File, page: u64) -> io::Result<u64> {
    let system = rustix::fs::fstatvfs(file)?;
    let dir = format!("/sys/kernel/mm/hugepages/hugepages-{}kB", page >> 10);
    let number = |name: &str| -> io::Result<u64> {
        let text = longpin_linux::pseudo::must_read(format!("{dir}/{name}"))?;
        text.trim().parse().map_err(io::Error::other)
    };
    let free = number("free_hugepages")?.saturating_sub(number("resv_hugepages")?);
    let free = free.saturating_mul(page);
    // The mount may have a limit of its own.
    Ok(match system.f_blocks {
        0 => free,
        _ => free.min(system.f_bavail.saturating_mul(system.f_frsize)),
    })
}
