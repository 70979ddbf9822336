//! VFIO never unpins pages of ZONE_DEVICE memory (docs/findings.md): what longpin says of pins that nobody has any more.
//! Nothing: it lists files, and a DAX device is none that anybody could truncate.

use std::fs::File;

use anyhow::{Context, Result, ensure};
use longpin_tests::mapping::Mapping;
use longpin_tests::vfio::{Access, Device};

use crate::guard;

const LEN: usize = 2 << 20;

/// No pin of a DAX device is listed, neither a live one nor one that is left for ever; and none makes the guard doubt.
pub(super) fn leak() -> Result<()> {
    guard::on()?;
    let path = std::env::var("LONGPIN_DEVDAX")?;
    let dax = File::options().read(true).write(true).open(&path)?;
    let mapping = Mapping::shared(&dax, 0, LEN, true).context("mmap")?;
    mapping.copy_in(0, b"x");
    let device = Device::open()?;
    for _ in 0..3 {
        let pin = device.map(&mapping, Access::ReadWrite)?;
        must_say_nothing("pinned", &path)?;
        pin.unmap()?;
    }
    drop((device, mapping, dax));
    must_say_nothing("unpinned", &path)?;
    guard::sweep_until_known()?;
    must_say_nothing("swept", &path)
}

fn must_say_nothing(when: &str, path: &str) -> Result<()> {
    let pins = guard::pins_on(path.as_ref())?;
    ensure!(pins.is_empty(), "{when}: {pins:?}");
    guard::must_know_all().with_context(|| when.to_owned())
}
