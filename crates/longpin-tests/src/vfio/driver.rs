//! Which driver has a PCI device: given to `vfio-pci`, and taken back.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

const DEVICES: &str = "/sys/bus/pci/devices";
const DRIVER: &str = "vfio-pci";
const UNSAFE_INTERRUPTS: &str = "/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts";

/// Vendor and device of QEMU's `edu`, as sysfs writes them.
const EDU: (&str, &str) = ("0x1234", "0x11e8");

/// The address of the first `edu` device.
pub(super) fn find_edu() -> Result<String> {
    for entry in fs::read_dir(DEVICES).with_context(|| format!("cannot list {DEVICES}"))? {
        let entry = entry?;
        let id = |name| fs::read_to_string(entry.path().join(name));
        if (id("vendor")?.trim(), id("device")?.trim()) == EDU {
            return Ok(entry.file_name().to_string_lossy().into_owned());
        }
    }
    bail!(
        "no PCI device {}:{}: QEMU's edu is not plugged in",
        EDU.0,
        EDU.1
    )
}

/// A device that `vfio-pci` has; it gets its driver back, or none, when this is dropped.
#[derive(Debug)]
pub(super) struct Binding {
    address: String,
}

impl Binding {
    /// Loads VFIO's modules, and has `vfio-pci` take the device by `driver_override`.
    pub(super) fn bind(address: &str) -> Result<Self> {
        modprobe(&["vfio_iommu_type1", DRIVER])?;
        // The emulated IOMMU does not remap interrupts: the device could raise any. It raises none unless told to.
        put(Path::new(UNSAFE_INTERRUPTS), "1")?;
        let dir = Path::new(DEVICES).join(address);
        ensure!(
            fs::exists(dir.join("iommu_group"))?,
            "{address} is in no IOMMU group: the IOMMU is off"
        );
        let binding = Self {
            address: address.to_owned(),
        };
        binding.give_to(Some(DRIVER))?;
        Ok(binding)
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// The number of the device's IOMMU group, which is its name in /dev/vfio.
    pub(super) fn group(&self) -> Result<String> {
        let group = fs::read_link(self.dir().join("iommu_group"))?;
        let number = group.file_name().context("an IOMMU group without a name")?;
        Ok(number.to_string_lossy().into_owned())
    }

    fn dir(&self) -> PathBuf {
        Path::new(DEVICES).join(&self.address)
    }

    /// This driver has the device afterwards; `None`: whichever driver the kernel finds for it.
    fn give_to(&self, wanted: Option<&str>) -> Result<()> {
        let dir = self.dir();
        put(&dir.join("driver_override"), wanted.unwrap_or("\n"))?;
        if driver_of(&dir)?.as_deref() == wanted {
            return Ok(());
        }
        match put(&dir.join("driver/unbind"), &self.address) {
            Err(err) if err.kind() != ErrorKind::NotFound => return Err(err.into()),
            _ => {}
        }
        put(Path::new("/sys/bus/pci/drivers_probe"), &self.address)?;
        let now = driver_of(&dir)?;
        ensure!(
            wanted.is_none() || now.as_deref() == wanted,
            "{}: its driver is {now:?}, not {wanted:?}",
            self.address
        );
        Ok(())
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        if let Err(err) = self.give_to(None) {
            // The standard error may be closed, and a destructor has nobody else to tell.
            let _ = writeln!(
                io::stderr(),
                "{} stays with {DRIVER}: {err:#}",
                self.address
            );
        }
    }
}

fn driver_of(dir: &Path) -> io::Result<Option<String>> {
    match fs::read_link(dir.join("driver")) {
        Ok(link) => Ok(link
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())),
        Err(err) if err.kind() == ErrorKind::NotFound => Ok(None),
        Err(err) => Err(err),
    }
}

/// sysfs wants the whole word in one write.
fn put(file: &Path, word: &str) -> io::Result<()> {
    let named = |err: io::Error| {
        io::Error::new(
            err.kind(),
            format!("cannot write {word:?} to {}: {err}", file.display()),
        )
    };
    let opened = fs::OpenOptions::new().write(true).open(file);
    opened
        .and_then(|mut file| file.write_all(word.as_bytes()))
        .map_err(named)
}

fn modprobe(modules: &[&str]) -> Result<()> {
    let output = Command::new("modprobe").arg("-a").args(modules).output();
    let output = output.context("cannot run modprobe")?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "modprobe {modules:?}: {}",
        words.trim()
    );
    Ok(())
}
