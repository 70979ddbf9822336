//! Power-off with live pins: what systemd does then, in its order, played on file systems in images.
//! What is in the images afterwards must be clean file systems, and the right bytes. With
//! LONGPIN_KEEP_IMAGES the images are kept in LONGPIN_SHARED for a look from outside.
//!
//! The images lie on a tmpfs: a loop device on the shared folder (9p) trips over the kernel's own bugs.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use longpin_tests::PATIENCE;
use longpin_tests::act::{outcome_name, truncate};
use longpin_tests::pattern::Pattern;
use longpin_tests::scratch::{FsKind, check_image, load_module, write_pattern};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use crate::child::Pinner;
use crate::pin::must_refuse;
use crate::{Test, guard};

pub(crate) const TESTS: &[Test] = &[
    ("c08_shutdown_in_order", shutdown_in_order),
    ("c08_shutdown_guard_left", shutdown_guard_left),
];

const KINDS: [FsKind; 4] = [FsKind::Ext4, FsKind::Xfs, FsKind::Btrfs, FsKind::F2fs];
const LEN: usize = 1 << 20;
/// Where the images lie.
const STORE: &str = "/run/longpin-shutdown";

/// A file system in an image.
struct Disk {
    kind: FsKind,
    image: PathBuf,
    point: PathBuf,
}

impl Disk {
    fn make(kind: FsKind) -> Result<Self> {
        let name = kind.name();
        let disk = Self {
            kind,
            image: Path::new(STORE).join(format!("{name}.image")),
            point: PathBuf::from(format!("/run/longpin-shutdown-{name}")),
        };
        std::fs::create_dir_all(&disk.point)?;
        let image = File::create(&disk.image)?;
        image.set_len(kind.least_size())?;
        load_module("loop");
        load_module(name);
        let maker = kind.maker().context("no maker")?;
        run(Command::new(maker[0]).args(&maker[1..]).arg(&disk.image))?;
        disk.mount("loop")?;
        Ok(disk)
    }

    fn mount(&self, options: &str) -> Result<()> {
        let mut mount = Command::new("mount");
        mount.args(["-t", self.kind.name(), "-o", options]);
        run(mount.args([&self.image, &self.point])).map(drop)
    }

    fn file(&self) -> PathBuf {
        self.point.join("weights")
    }

    fn unmount(&self) -> Result<(), Errno> {
        unmount(&self.point, UnmountFlags::empty())
    }

    /// The file system comes off as soon as nobody uses it any more.
    fn must_unmount_soon(&self) -> Result<()> {
        let begin = Instant::now();
        loop {
            match self.unmount() {
                Err(Errno::BUSY) if begin.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                outcome => {
                    let said = outcome_name(outcome);
                    ensure!(outcome.is_ok(), "umount of {}: {said}", self.kind);
                    return Ok(());
                }
            }
        }
    }

    /// What is in the image when the machine is off: a clean file system, and the bytes of this pattern.
    fn must_be_whole(&self, pattern: Pattern) -> Result<()> {
        rustix::fs::sync();
        let damage = check_image(self.kind, &self.image)?;
        ensure!(damage.is_none(), "{}: {damage:?}", self.kind);
        self.keep()?;
        self.mount("loop,ro")?;
        let bytes = std::fs::read(self.file())?;
        let found = pattern.check(0, &bytes);
        self.must_unmount_soon()?;
        ensure!(bytes.len() == LEN, "{}: {} bytes", self.kind, bytes.len());
        found.with_context(|| format!("{} after the power-off", self.kind))
    }

    fn keep(&self) -> Result<()> {
        if std::env::var_os("LONGPIN_KEEP_IMAGES").is_none() {
            return Ok(());
        }
        let shared = std::env::var_os("LONGPIN_SHARED").context("no LONGPIN_SHARED")?;
        let kept = Path::new(&shared).join(format!("shutdown-{}.image", self.kind.name()));
        std::fs::copy(&self.image, kept)?;
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What a failed test left: the next one makes its own.
        let _ = unmount(&self.point, UnmountFlags::DETACH);
        let _ = std::fs::remove_file(&self.image);
    }
}

fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    ensure!(
        output.status.success(),
        "{program}: {}: {said}",
        output.status
    );
    Ok(said)
}

/// A process that has registered the whole file with the RDMA device. `mapped`: it keeps file and
/// mapping; otherwise nothing but the pin is left of it.
fn registered(file: &Path, mapped: bool) -> Result<Pinner> {
    let how = if mapped { "mapped" } else { "unmapped" };
    Pinner::start(&["register", &file.to_string_lossy(), &LEN.to_string(), how])
}

/// The child's part: `register PATH LEN mapped|unmapped`.
#[cfg(feature = "rdma")]
pub(crate) fn register_and_wait(arguments: &[String]) -> Result<()> {
    use std::io::Write;

    use longpin_tests::mapping::Mapping;
    use longpin_tests::rdma::{Access, Device, Region};

    let [path, len, how] = arguments else {
        anyhow::bail!("register PATH LEN mapped|unmapped")
    };
    let len = len.parse()?;
    let file = File::options().read(true).write(true).open(path)?;
    let domain = Device::open("rxe0")?.protection_domain()?;
    let map = |writable| {
        let mapping = Mapping::shared(&file, 0, len, writable)?;
        mapping.touch();
        anyhow::Ok(mapping)
    };
    let register = |mapping: &Mapping| Region::register(&domain, mapping, 0..len, Access::READ);
    let mut mapping = map(false)?;
    // Before 6.2 the RDMA core pins for writing whatever was asked.
    let region = match register(&mapping) {
        Err(err) if err.errno == Errno::FAULT => {
            mapping = map(true)?;
            register(&mapping)
        }
        other => other,
    }?;
    let kept = if how == "mapped" {
        Some(file)
    } else {
        let other = rustix::fs::memfd_create("other", rustix::fs::MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&other, len as u64)?;
        mapping.replace(0, &other, 0, len)?;
        drop(file);
        None
    };
    println!("pinned");
    std::io::stdout().flush()?;
    std::io::stdin().lines().for_each(drop);
    drop((region, kept));
    Ok(())
}

#[cfg(not(feature = "rdma"))]
pub(crate) fn register_and_wait(_: &[String]) -> Result<()> {
    anyhow::bail!("built without the feature rdma")
}

/// Fresh disks, each with a file of known bytes.
fn disks() -> Result<Vec<Disk>> {
    if !Path::new(STORE).exists() {
        std::fs::create_dir(STORE)?;
        let size = KINDS.iter().map(|kind| kind.least_size()).sum::<u64>() + (64 << 20);
        let options = format!("size={size}");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none", STORE]))?;
    }
    let make = |kind: FsKind| {
        let disk = Disk::make(kind).with_context(|| kind.name())?;
        write_pattern(&disk.file(), LEN, Pattern::new(1))?;
        Ok(disk)
    };
    KINDS.into_iter().map(make).collect()
}

/// New bytes under a pin, still in memory when the shutdown begins.
fn write_in_place(disk: &Disk, pattern: Pattern) -> Result<()> {
    let file = File::options().write(true).open(disk.file())?;
    Ok(file.write_all_at(&pattern.bytes(LEN), 0)?)
}

fn must_be_held(disk: &Disk) -> Result<()> {
    let holds = guard::holds_on(&disk.file())?;
    ensure!(!holds.is_empty(), "{}: nothing is held", disk.kind);
    must_refuse("before the shutdown", truncate(&disk.file(), 0))
}

/// Services stop, the guard stops, file systems that can be unmounted are; then the rest is killed, and
/// the last file systems go. One process is no service, and keeps its pin all the time.
fn shutdown_in_order() -> Result<()> {
    guard::on()?;
    let disks = disks()?;
    let mut services = Vec::new();
    let mut others = Vec::new();
    for disk in &disks {
        services.push(registered(&disk.file(), false)?);
        others.push(registered(&disk.file(), true)?);
        must_be_held(disk)?;
        write_in_place(disk, Pattern::new(2))?;
    }
    services.into_iter().try_for_each(Pinner::kill)?;
    disks.iter().try_for_each(must_be_held)?;
    let said = guard::must(&["guard", "stop", "--force"])?;
    ensure!(said.contains("ended with it"), "no hold was live: {said}");
    for disk in &disks {
        let said = disk.unmount();
        ensure!(
            said == Err(Errno::BUSY),
            "{}: {}",
            disk.kind,
            outcome_name(said)
        );
    }
    others.into_iter().try_for_each(Pinner::kill)?;
    disks.iter().try_for_each(Disk::must_unmount_soon)?;
    let whole = |disk: &Disk| disk.must_be_whole(Pattern::new(2));
    disks.iter().try_for_each(whole)
}

/// Nobody stops the guard, and the pins are all that is left of the mappings: nothing but the guard keeps
/// the file systems busy, until the processes are killed.
fn shutdown_guard_left() -> Result<()> {
    guard::on()?;
    let claims = guard::status()?["enforces"].clone();
    let claims = claims.as_array().context("no claims")?;
    let keeps_mounts = claims.iter().any(|claim| claim == "C08");
    for disk in disks()? {
        let holder = registered(&disk.file(), false)?;
        must_be_held(&disk)?;
        write_in_place(&disk, Pattern::new(3))?;
        let said = disk.unmount();
        let expected = if keeps_mounts {
            Err(Errno::BUSY)
        } else {
            Ok(())
        };
        ensure!(said == expected, "{}: {}", disk.kind, outcome_name(said));
        holder.kill()?;
        if keeps_mounts {
            disk.must_unmount_soon()?;
        }
        disk.must_be_whole(Pattern::new(3))?;
    }
    Ok(())
}
