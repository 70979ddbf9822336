//! Pages in ZONE_MOVABLE are seen beforehand, and the pin moves them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use longpin::fixed_buffer::FixedBuffer;
use longpin::plan::{Obstacles, read_obstacles};
use longpin_tests::scratch::FsKind;

use crate::files::TestFile;

const LEN: u64 = 8 << 20;

fn look(file: &TestFile) -> Result<Obstacles> {
    Ok(read_obstacles(&file.file, &(0..LEN), 4096)?)
}

pub(crate) fn plan_movable() -> Result<()> {
    let Some(block) = move_a_block()? else {
        return crate::report::skip("no block of memory goes offline");
    };
    let tested = pins_move();
    let online = |kind: &str| fs::write(block.join("state"), kind);
    // Back to where everything may lie.
    let back = online("offline").and_then(|()| online("online"));
    println!("the block goes back: {back:?}");
    tested
}

fn pins_move() -> Result<()> {
    let file = TestFile::new(FsKind::Tmpfs, LEN)?;
    let before = look(&file)?;
    println!("before: {before:?}");
    ensure!(
        before.zone_movable > 0 && before.resident == LEN / 4096,
        "{before:?}"
    );
    ensure!(
        before.movable > Some(0),
        "no page is seen to lie there: {before:?}"
    );
    let buffer = FixedBuffer::register(&file.file, 0..LEN)?;
    let pinned = look(&file)?;
    ensure!(
        pinned.movable == Some(0),
        "pinned, and not moved: {pinned:?}"
    );
    buffer.unregister()?;
    file.check_all()
}

/// Takes a block of memory offline, and back as ZONE_MOVABLE.
fn move_a_block() -> Result<Option<PathBuf>> {
    let Ok(blocks) = fs::read_dir("/sys/devices/system/memory") else {
        return Ok(None);
    };
    let mut blocks: Vec<PathBuf> = blocks
        .map(|block| Ok(block?.path()))
        .collect::<Result<_>>()?;
    blocks.sort();
    // The last ones have the fewest pages of the kernel's own.
    for block in blocks
        .into_iter()
        .rev()
        .filter(|block| block.join("state").exists())
    {
        let set = |kind: &str| fs::write(block.join("state"), kind);
        if !is_movable(&block) || set("offline").is_err() {
            continue;
        }
        match set("online_movable") {
            Ok(()) => return Ok(Some(block)),
            Err(err) => println!("{}: {err}", block.display()),
        }
        let _ = set("online");
    }
    Ok(None)
}

fn is_movable(block: &Path) -> bool {
    let zones = fs::read_to_string(block.join("valid_zones")).unwrap_or_default();
    zones.contains("Normal")
}
