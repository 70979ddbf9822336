//! Swap's own side of a hold: the slot that it may use, and the kernel's table of areas.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use longpin_linux::swap::read_swap_files;
use longpin_tests::mapping::Mapping;
use longpin_tests::pattern::Pattern;
use longpin_tests::scratch::{FsKind, Scratch};

use super::{Held, LEN, make, nothing_is_left, scratch_of};
use crate::blocks::{device_bytes, extents, same, status};
use crate::guard;

/// The slot may get a page of somebody's memory: it comes back with the end of the hold, and the file's own bytes, too.
pub(super) fn slot_is_used() -> Result<()> {
    let scratch = scratch_of(FsKind::Ext4)?;
    let (own, secret) = (Pattern::new(35), Pattern::new(36));
    let path = make(&scratch, "held", own)?;
    let held = Held::start(&path)?;
    let memory = Mapping::anonymous(LEN)?;
    memory.copy_in(0, &secret.bytes(LEN));
    memory.advise(0..LEN, rustix::mm::Advice::LinuxPageOut)?;
    let used = |path: &Path| -> Result<u64> {
        let swaps = read_swap_files()?;
        let own = swaps.iter().find(|swap| swap.path == path);
        Ok(own.context("no such swap file")?.used)
    };
    match used(&path)? {
        4096 => {}
        // 6.1 finds no slot in an area of one, where the device is no rotating disk.
        0 => println!("the slot was not used"),
        other => anyhow::bail!("{other} bytes are used"),
    }
    ensure!(held.end()? == 7, "CMD's status was lost");
    same("the memory", &memory.copy_out(0..LEN), &secret.bytes(LEN))?;
    same("the file", &fs::read(&path)?, &own.bytes(LEN))?;
    same("the device", &device_bytes(&path)?, &own.bytes(LEN))?;
    nothing_is_left(&path)?;
    scratch.close()
}

/// Blocks of 1 KiB: where the file begins inside a page of the device, the slot would be partly outside of the 8 KiB.
pub(super) fn slot_elsewhere() -> Result<()> {
    let scratch = Scratch::new(FsKind::Ext4, 64 << 20)?;
    let mut refused = 0;
    for number in 0..8 {
        let name = number.to_string();
        // Files of odd sizes, so that each begins somewhere else.
        let path = scratch.dir().join(&name);
        let text = path.to_string_lossy();
        guard::must(&["prepare", "--size", "67K", &text])?;
        let physical = extents(&path)?["extents"][0]["physical"].as_u64();
        let aligned = physical.context("no extent")? % 4096 == 0;
        let hold = ["hold", "--backend", "swap-header", &text, "--", "true"];
        let (code, said) = status(&hold)?;
        ensure!((code == 0) == aligned, "at {physical:?}: {code}: {said}");
        ensure!(fs::read(&path)? == vec![0; 67 << 10], "a header is left");
        if !aligned {
            refused += 1;
            let words = "would not swap to the second page";
            ensure!(said.contains(words), "{said}");
        }
    }
    ensure!(refused > 0, "all files begin with a page of the device");
    nothing_is_left(scratch.dir())?;
    scratch.close()
}

/// The kernel's table is full: said, with the number; and all can be released.
pub(super) fn no_more_areas() -> Result<()> {
    let scratch = scratch_of(FsKind::Ext4)?;
    let mut ids = Vec::new();
    let refused = loop {
        ensure!(ids.len() < 40, "no limit was met");
        let path = scratch.dir().join(ids.len().to_string());
        let text = path.to_string_lossy();
        guard::must(&["prepare", "--size", "64K", &text])?;
        let (code, said) = status(&["hold", "--backend", "swap-header", "--persist", &text])?;
        if code != 0 {
            ensure!(
                fs::read(&path)? == vec![0; 64 << 10],
                "a refused file has a header"
            );
            break said;
        }
        let words: Vec<&str> = said.split(' ').collect();
        let at = words.iter().position(|word| *word == "hold");
        let id = at.and_then(|at| words.get(at + 1)).context("no number")?;
        ids.push((*id).to_owned());
    };
    println!("{} holds by swap header", ids.len());
    let words = format!("{} are active", ids.len());
    ensure!(
        refused.contains("takes no more swap areas") && refused.contains(&words),
        "{refused}"
    );
    ensure!((20..30).contains(&ids.len()), "{} holds", ids.len());
    for id in &ids {
        guard::must(&["release", id])?;
    }
    nothing_is_left(scratch.dir())?;
    scratch.close()
}
