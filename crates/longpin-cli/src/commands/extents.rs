//! `longpin extents`: where a file's bytes lie.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use longpin::activation::{self, Facts, quote};
use longpin::extents::{BlockDevice, BlockMap, Extent, MapError, Place, settle};
use longpin_linux::file::{self, Found, Kind};
use rustix::fs::OFlags;

use crate::cli::{Backend, Extents};
use crate::output::{NotRegular, visible};

pub(crate) fn run(options: &Extents) -> anyhow::Result<ExitCode> {
    let path = &options.file;
    let file = open(path)?;
    settle(&file).with_context(|| format!("cannot sync {}", path.display()))?;
    let status =
        file::status(&file).with_context(|| format!("cannot look at {}", path.display()))?;
    let refused = || format!("{} has no block map", path.display());
    refuse_other_bytes(&file).with_context(refused)?;
    let map = BlockMap::open(&file, &status).with_context(refused)?;
    let range = 0..status.size;
    // Read once before anything is printed: a map that ends in an error is not printed by half.
    let devices = devices(&map, &range).with_context(refused)?;
    let digest = map.digest(&range).with_context(refused)?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    if options.json {
        print_json(&mut out, &map, path, &range, &devices, None)?;
    } else {
        print_table(&mut out, &map, &range, options.noheadings)?;
    }
    out.flush()?;
    let now = file::status(&file)?;
    if now.version != status.version || map.digest(&range)? != digest {
        return Err(MapError::Changed).with_context(refused);
    }
    warn_unheld(&file, path);
    Ok(ExitCode::SUCCESS)
}

/// The map of a file that nobody holds is what it was a moment ago.
fn warn_unheld(file: &File, path: &Path) {
    let writable = Found::at(path).and_then(|found| found.open(OFlags::RDWR));
    let kept = writable.and_then(|writable| file::is_kept(&writable));
    if kept.is_ok_and(|kept| kept) {
        return;
    }
    let moves = activation::moving_blocks(file);
    let also = moves.map_or_else(String::new, |what| format!("; and writes move it: {what}"));
    let shown = visible(&path.display().to_string());
    anstream::eprintln!(
        "longpin: {shown}: nobody is known to hold it at level swapfile: who may write to it may move it{also}"
    );
    anstream::eprintln!(
        "hint: longpin hold {} -- CMD   # finds the map in $LONGPIN_EXTENTS",
        quote(path)
    );
}

/// The map of an open file as one JSON object, for somebody who holds it: without what the hold gives up at the head.
pub(super) fn print_json_of(
    out: &mut impl Write,
    file: &File,
    path: &Path,
    backend: Backend,
) -> anyhow::Result<()> {
    let status = file::status(file)?;
    refuse_other_bytes(file)?;
    let map = BlockMap::open(file, &status)?;
    let range = backend.given_up().end..status.size;
    let devices = devices(&map, &range)?;
    print_json(out, &map, path, &range, &devices, Some(backend))
}

/// Where FIEMAP gives places that do not hold what the file says, and does not say so.
fn refuse_other_bytes(file: &File) -> Result<(), MapError> {
    let facts = Facts::read(file).map_err(|source| MapError::Ask {
        what: "what the file is".into(),
        source,
    })?;
    let what = if facts.status.attributes.encrypted {
        "they are encrypted"
    } else if facts.journalled {
        "its data lies in the journal first (data=journal)"
    } else {
        return Ok(());
    };
    Err(MapError::OtherBytes { what })
}

/// Open for reading, if it is a regular file: nothing else is touched.
fn open(path: &Path) -> anyhow::Result<File> {
    let cannot = || format!("cannot open {}", path.display());
    let found = Found::at(path).with_context(cannot)?;
    let kind = found.kind().with_context(cannot)?;
    if kind != Kind::Regular {
        let path = path.to_owned();
        return Err(NotRegular { path, kind }.into());
    }
    found.open(OFlags::RDONLY).with_context(cannot)
}

fn devices(map: &BlockMap<'_>, range: &Range<u64>) -> Result<BTreeSet<BlockDevice>, MapError> {
    let mut devices = BTreeSet::new();
    for extent in map.located(range) {
        if let Place::On { device, .. } = extent?.place {
            devices.insert(device);
        }
    }
    Ok(devices)
}

fn print_table(
    out: &mut impl Write,
    map: &BlockMap<'_>,
    range: &Range<u64>,
    bare: bool,
) -> anyhow::Result<()> {
    let mut line = |cells: [&str; 5]| {
        let [logical, physical, length, device, flags] = cells;
        let text = format!("{logical:>15} {physical:>15} {length:>15} {device:<7} {flags}");
        writeln!(out, "{}", text.trim_end())
    };
    if !bare {
        line(["LOGICAL", "PHYSICAL", "LENGTH", "DEVICE", "FLAGS"])?;
    }
    for extent in map.located(range) {
        let extent = extent?;
        let (device, physical) = place_of(&extent)?;
        line([
            &extent.logical.to_string(),
            &physical.to_string(),
            &extent.length.to_string(),
            &device.to_string(),
            &extent.flags.names().join(","),
        ])?;
    }
    Ok(())
}

fn place_of(extent: &Extent) -> Result<(BlockDevice, u64), MapError> {
    match extent.place {
        Place::On { device, physical } => Ok((device, physical)),
        Place::Nowhere(why) => Err(MapError::Unlocated {
            at: extent.logical,
            length: extent.length,
            why,
        }),
    }
}

/// One object, written as it is read: a file may have a million extents.
fn print_json(
    out: &mut impl Write,
    map: &BlockMap<'_>,
    path: &Path,
    range: &Range<u64>,
    devices: &BTreeSet<BlockDevice>,
    backend: Option<Backend>,
) -> anyhow::Result<()> {
    let device = |device: &BlockDevice| {
        serde_json::json!({
            "number": device.to_string(),
            "path": device.path().display().to_string(),
        })
    };
    let devices: Vec<_> = devices.iter().map(device).collect();
    let name = serde_json::json!(visible(&path.display().to_string()));
    let devices = serde_json::Value::from(devices);
    write!(out, r#"{{"version":1,"path":{name},"size":{},"#, range.end)?;
    if let Some(backend) = backend {
        let (name, bytes) = (backend.as_str(), backend.given_up().end);
        write!(out, r#""backend":"{name}","given-up":{bytes},"#)?;
    }
    write!(out, r#""devices":{devices},"extents":["#)?;
    for (number, extent) in map.located(range).enumerate() {
        let extent = extent?;
        let (device, physical) = place_of(&extent)?;
        let object = serde_json::json!({
            "logical": extent.logical,
            "physical": physical,
            "length": extent.length,
            "device": device.to_string(),
            "flags": extent.flags.names(),
        });
        let comma = if number == 0 { "" } else { "," };
        write!(out, "{comma}{object}")?;
    }
    writeln!(out, "]}}")?;
    Ok(())
}
