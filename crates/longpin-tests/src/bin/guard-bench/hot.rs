//! Acts on a file that nobody holds: what everybody pays.

use std::cell::Cell;
use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};
use longpin_tests::mapping::Mapping;
use longpin_tests::{PAGE, act};
use rustix::fs::{Advice, fadvise, fstat};
use rustix::io::{pread, pwrite};

use crate::count::{Counter, Counts};

/// Each act is done so often.
const CALLS: usize = 1001;
const PAGE_U64: u64 = PAGE as u64;

/// What is counted, in the order of the table.
pub(crate) const ACTS: [&str; 12] = [
    "pread 4 KiB",
    "pwrite 4 KiB",
    "ftruncate, a page less",
    "ftruncate, a page more",
    "fallocate, punch a page",
    "creat, write, unlink",
    "open to write, close",
    "mmap, shared and writable, munmap",
    "rename",
    "unlink",
    "fadvise",
    "fstat",
];

/// All acts, on a file of this directory.
pub(crate) fn count(counter: Counter, dir: &Path) -> Result<Vec<Counts>> {
    let path = dir.join("unheld");
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)?;
    let bytes = vec![7_u8; PAGE];
    let buffer = Cell::new(vec![0_u8; PAGE]);
    let write_at = |at| pwrite(&file, &bytes, at).map(drop).context("pwrite");
    let second_page = || write_at(PAGE_U64);
    let sized = |len| act::ftruncate(&file, len).context("ftruncate");
    let nothing = || Ok(());
    write_at(0)?;
    second_page()?;
    let read = || {
        let mut into = buffer.take();
        let read = pread(&file, &mut into[..], 0).map(drop).context("pread");
        buffer.set(into);
        read
    };
    let other = dir.join("made");
    let make = || {
        let made = File::create(&other)?;
        pwrite(&made, &bytes, 0)?;
        drop(made);
        Ok(std::fs::remove_file(&other)?)
    };
    let (one, two) = (dir.join("one"), dir.join("two"));
    let there = |path: &Path| File::create(path).map(drop).context("creat");
    let counts = vec![
        counter.each(CALLS, nothing, read)?,
        counter.each(CALLS, nothing, || write_at(0))?,
        counter.each(CALLS, second_page, || sized(PAGE_U64))?,
        counter.each(CALLS, || sized(PAGE_U64), || sized(2 * PAGE_U64))?,
        counter.each(CALLS, second_page, || {
            act::punch(&file, PAGE_U64, PAGE_U64).context("punch")
        })?,
        counter.each(CALLS, nothing, make)?,
        counter.each(CALLS, nothing, || {
            let opened = File::options().read(true).write(true).open(&path);
            opened.map(drop).context("open")
        })?,
        counter.each(CALLS, nothing, || {
            let mapped = Mapping::shared(&file, 0, PAGE, true);
            mapped.map(drop).context("mmap")
        })?,
        counter.each(
            CALLS,
            || {
                let _ = std::fs::remove_file(&two);
                there(&one)
            },
            || std::fs::rename(&one, &two).context("rename"),
        )?,
        counter.each(
            CALLS,
            || there(&two),
            || std::fs::remove_file(&two).context("unlink"),
        )?,
        counter.each(CALLS, nothing, || {
            fadvise(&file, 0, None, Advice::Normal).context("fadvise")
        })?,
        counter.each(CALLS, nothing, || fstat(&file).map(drop).context("fstat"))?,
    ];
    drop(file);
    std::fs::remove_file(&path)?;
    Ok(counts)
}
