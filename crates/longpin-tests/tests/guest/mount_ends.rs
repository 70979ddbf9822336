//! C08: the ways in which a mount ends, with nothing but a pin, or a hold, in its file system.

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use longpin_linux::{FixedBuffer, PinnedMemory};
use longpin_tests::PATIENCE;
use longpin_tests::act::{Outcome, outcome_name};
use longpin_tests::mapping::Mapping;
use longpin_tests::scratch::load_module;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, OpenTreeFlags, UnmountFlags, mount, mount_bind, open_tree, unmount,
};

use crate::hard::rounds;
use crate::{Test, guard};

mod broken;
pub(crate) mod far;
mod left_memory;

pub(crate) const TESTS: &[Test] = &[
    ("c08_two_umounts", two_umounts),
    ("c08_other_ends", other_ends),
    ("c08_layers", layers),
    ("c08_far_ends", far::far_ends),
    ("c08_many_layers", far::many_layers),
    ("c08_broken_holds", broken::broken_holds),
];

/// Slow: file systems are made, and memory is emptied.
pub(crate) const LONG_TESTS: &[Test] = &[
    ("c08_file_has_left_memory", left_memory::is_named),
    ("c13_subvolume_goes", left_memory::subvolume_goes),
];

const LEN: usize = 16_384;
const PLAIN: UnmountFlags = UnmountFlags::empty();

/// Directories to mount on; unmounted lazily and removed on drop, whatever a failed test has left.
struct Places(PathBuf);

impl Places {
    fn new() -> Result<Self> {
        let root = tempfile::Builder::new()
            .prefix("longpin-ends-")
            .permissions(Permissions::from_mode(0o755))
            .tempdir_in("/run")?
            .keep();
        // What is mounted here stays in the namespace in which it was.
        mount_bind(&root, &root)?;
        rustix::mount::mount_change(&root, rustix::mount::MountPropagationFlags::PRIVATE)?;
        Ok(Self(root))
    }

    fn make(&self, name: &str) -> Result<PathBuf> {
        let dir = self.0.join(name);
        fs::create_dir(&dir)?;
        Ok(dir)
    }

    /// One with a tmpfs.
    fn mounted(&self, name: &str) -> Result<PathBuf> {
        let dir = self.make(name)?;
        mount("none", &dir, "tmpfs", MountFlags::empty(), c"mode=777")?;
        Ok(dir)
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        let mut left = Command::new("umount");
        let _ = left.args(["-R", "-l"]).arg(&self.0).status();
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A new file of which nothing is left but its name and a pin.
fn pinned(path: &Path) -> Result<PinnedMemory> {
    fs::write(path, [1; LEN])?;
    let file = File::options().read(true).write(true).open(path)?;
    let mapping = Mapping::shared(&file, 0, LEN, true)?;
    Ok(FixedBuffer::register_memory(mapping.addr(), LEN)?)
}

fn must_be_busy(what: &str, answer: Outcome) -> Result<()> {
    let said = outcome_name(answer);
    ensure!(answer == Err(Errno::BUSY), "{what}: {said}, not EBUSY");
    Ok(())
}

/// It goes when the kernel has dropped the pins, and whoever had begun has ended.
fn must_go_soon(what: &str, act: impl Fn() -> Outcome) -> Result<()> {
    let begin = Instant::now();
    loop {
        match act() {
            Err(Errno::BUSY) if begin.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(20));
            }
            answer => {
                ensure!(answer.is_ok(), "{what}: {}", outcome_name(answer));
                return Ok(());
            }
        }
    }
}

/// Nothing was lost meanwhile.
struct Losses(u64);

impl Losses {
    fn mark() -> Result<Self> {
        Ok(Self(guard::count("broken-pages")?))
    }

    fn none(&self) -> Result<()> {
        let lost = guard::count("broken-pages")? - self.0;
        ensure!(lost == 0, "{lost} pinned folios left their file");
        Ok(())
    }
}

/// Two mounts of one file system, and an umount of each at the same time: one stays.
fn two_umounts() -> Result<()> {
    guard::on()?;
    let losses = Losses::mark()?;
    let places = Places::new()?;
    let (one, two) = (places.mounted("one")?, places.make("two")?);
    mount_bind(&one, &two)?;
    let pin = pinned(&one.join("file"))?;
    let (mut first, mut second, mut neither) = (0, 0, 0);
    let rounds = rounds(40, 400);
    for round in 0..rounds {
        match both(&one, &two) {
            (Ok(()), Ok(())) => anyhow::bail!("both went in round {round}"),
            (Ok(()), _) => {
                first += 1;
                mount_bind(&two, &one)?;
            }
            (_, Ok(())) => {
                second += 1;
                mount_bind(&one, &two)?;
            }
            _ => neither += 1,
        }
        ensure!(one.join("file").exists(), "round {round}");
    }
    println!("went: the first {first}, the second {second}, neither {neither}");
    ensure!(first + second > rounds / 2, "hardly any went");
    failed_ones(&one, &two)?;
    losses.none()?;
    must_be_busy("the last", unmount(&one, PLAIN))?;
    drop(pin);
    must_go_soon("unpinned", || unmount(&one, PLAIN))
}

fn both(one: &Path, two: &Path) -> (Outcome, Outcome) {
    let begin = Barrier::new(2);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            begin.wait();
            unmount(two, PLAIN)
        });
        begin.wait();
        let answer = unmount(one, PLAIN);
        (answer, other.join().unwrap_or(Err(Errno::IO)))
    })
}

/// An umount that the kernel refuses is over: the mount counts again. Whatever its task does then, if it only computes.
fn failed_ones(one: &Path, two: &Path) -> Result<()> {
    let user = File::open(one.join("file"))?;
    let (tried, done) = (Barrier::new(2), std::sync::atomic::AtomicBool::new(false));
    std::thread::scope(|scope| {
        let idler = scope.spawn(|| {
            let answer = unmount(one, PLAIN);
            tried.wait();
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                std::hint::spin_loop();
            }
            answer
        });
        tried.wait();
        let went = must_go_soon("the other after one failed", || unmount(two, PLAIN));
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        must_be_busy("a mount in use", idler.join().unwrap_or(Err(Errno::IO)))?;
        went
    })?;
    drop(user);
    Ok(())
}

/// A mount namespace of its own, until it is dropped.
struct Elsewhere(Child);

impl Elsewhere {
    /// With a tmpfs at this place.
    fn mount(place: &Path) -> Result<Self> {
        Self::start(&format!("mount -t tmpfs none {}", place.display()))
    }

    fn start(line: &str) -> Result<Self> {
        let line = format!("{line} && echo ready && exec sleep 1000");
        let mut child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", &line])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut said = String::new();
        let stdout = child.stdout.take().context("no output")?;
        BufReader::new(stdout).read_line(&mut said)?;
        ensure!(said.trim() == "ready", "the namespace said {said:?}");
        Ok(Self(child))
    }

    /// A path as it is seen there.
    fn path(&self, path: &Path) -> Result<PathBuf> {
        let below = path.strip_prefix("/")?;
        Ok(Path::new(&format!("/proc/{}/root", self.0.id())).join(below))
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        // Already dead is fine.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn io(answer: std::io::Result<()>) -> Outcome {
    answer.map_err(|err| Errno::from_io_error(&err).unwrap_or(Errno::IO))
}

fn other_ends() -> Result<()> {
    guard::on()?;
    let losses = Losses::mark()?;
    its_place_goes().context("the place goes")?;
    one_place_goes().context("one place of two goes")?;
    by_a_descriptor().context("open_tree")?;
    detached_before().context("detached before")?;
    below_itself().context("below itself")?;
    below_another().context("below another")?;
    losses.none()
}

/// rmdir and rename of the place in a namespace in which nothing is mounted there.
fn its_place_goes() -> Result<()> {
    let places = Places::new()?;
    let (place, other) = (places.make("place")?, places.make("other")?);
    for dir in [&places.0, &place, &other] {
        chown(dir, Some(1000), Some(1000))?;
    }
    let elsewhere = Elsewhere::mount(&place)?;
    let pin = pinned(&elsewhere.path(&place)?.join("file"))?;
    must_be_busy("rmdir", io(fs::remove_dir(&place)))?;
    must_be_busy("rename over", io(fs::rename(&other, &place)))?;
    for who in [&[][..], &["unshare", "-Urm"]] {
        let mut rmdir = Command::new("setpriv");
        rmdir.args(["--reuid=1000", "--regid=1000", "--clear-groups"]);
        let said = rmdir.args(who).arg("rmdir").arg(&place).output()?;
        let words = String::from_utf8_lossy(&said.stderr);
        ensure!(words.contains("busy"), "rmdir by a user, {who:?}: {words}");
    }
    // Names change, and the place stays.
    let exchange = || renameat_with(CWD, &place, CWD, &other, RenameFlags::EXCHANGE);
    exchange().and_then(|()| exchange()).context("exchange")?;
    drop(pin);
    must_go_soon("rmdir, unpinned", || io(fs::remove_dir(&place)))?;
    Ok(())
}

/// The file system is mounted elsewhere, too: then the place may go, and after it the other mount may not.
fn one_place_goes() -> Result<()> {
    let places = Places::new()?;
    let (place, other) = (places.mounted("place")?, places.make("other")?);
    let pin = pinned(&place.join("file"))?;
    let line = format!("mount --bind {} {}", place.display(), other.display());
    let beside = Elsewhere::start(&line)?;
    fs::remove_dir(&other).context("one of two places")?;
    // The namespace has its own copy of the first mount, at the same place: no other mount.
    must_be_busy("the other", unmount(&place, PLAIN))?;
    drop((beside, pin));
    must_go_soon("unpinned", || unmount(&place, PLAIN))
}

/// What only a descriptor leads to ends when that is closed, and nobody is asked.
fn by_a_descriptor() -> Result<()> {
    let places = Places::new()?;
    let place = places.mounted("place")?;
    let pin = pinned(&place.join("file"))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree: OwnedFd = open_tree(CWD, &place, flags)?;
    must_be_busy("umount", unmount(&place, PLAIN))?;
    must_be_busy("lazy umount", unmount(&place, UnmountFlags::DETACH))?;
    drop(tree);
    drop(pin);
    must_go_soon("unpinned", || unmount(&place, PLAIN))
}

/// A mount that was detached lazily, and is in use, ends with its user, and nobody is asked.
fn detached_before() -> Result<()> {
    let places = Places::new()?;
    let (place, other) = (places.mounted("place")?, places.make("other")?);
    mount_bind(&place, &other)?;
    let pin = pinned(&place.join("file"))?;
    let user = File::open(&other)?;
    unmount(&other, UnmountFlags::DETACH).context("one of two")?;
    must_be_busy("the other", unmount(&place, PLAIN))?;
    drop((user, pin));
    must_go_soon("unpinned", || unmount(&place, PLAIN))
}

/// The second mount lies below the first, and goes with it.
fn below_itself() -> Result<()> {
    let places = Places::new()?;
    let place = places.mounted("place")?;
    let below = place.join("below");
    fs::create_dir(&below)?;
    mount_bind(&place, &below)?;
    let pin = pinned(&place.join("file"))?;
    must_be_busy("lazy umount", unmount(&place, UnmountFlags::DETACH))?;
    drop(pin);
    must_go_soon("unpinned", || unmount(&place, UnmountFlags::DETACH))
}

/// A file system below one that is detached lazily.
fn below_another() -> Result<()> {
    let places = Places::new()?;
    let parent = places.mounted("parent")?;
    let child = parent.join("child");
    fs::create_dir(&child)?;
    mount("none", &child, "tmpfs", MountFlags::empty(), c"")?;
    let pin = pinned(&child.join("file"))?;
    must_be_busy("the parent", unmount(&parent, UnmountFlags::DETACH))?;
    drop(pin);
    must_go_soon("unpinned", || unmount(&parent, UnmountFlags::DETACH))
}

/// Where the layers of an overlay lie, and the overlay.
fn overlay(places: &Places) -> Result<(PathBuf, PathBuf)> {
    let (layers, merged) = (places.mounted("layers")?, places.make("merged")?);
    for name in ["upper", "work", "lower"] {
        fs::create_dir(layers.join(name))?;
    }
    let at = layers.display();
    let options = format!("lowerdir={at}/lower,upperdir={at}/upper,workdir={at}/work");
    let options = std::ffi::CString::new(options)?;
    mount("none", &merged, "overlay", MountFlags::empty(), &*options)?;
    Ok((layers, merged))
}

/// An overlay keeps private mounts of its layers' file systems: they are no mounts that stay, and go with it.
fn layers() -> Result<()> {
    load_module("overlay");
    guard::on()?;
    // Where the guard is older than the module, a sweep learns of it.
    guard::must(&["guard", "sweep"])?;
    let losses = Losses::mark()?;
    let places = Places::new()?;
    let (layers, merged) = overlay(&places)?;
    let pin = pinned(&merged.join("file"))?;
    must_be_busy("the layers", unmount(&layers, PLAIN))?;
    drop(pin);
    must_go_soon("the layers, unpinned", || unmount(&layers, PLAIN))?;
    let pin = pinned(&merged.join("other"))?;
    must_be_busy("the overlay", unmount(&merged, PLAIN))?;
    must_be_busy("lazily", unmount(&merged, UnmountFlags::DETACH))?;
    losses.none()?;
    drop(pin);
    must_go_soon("the overlay, unpinned", || unmount(&merged, PLAIN))
}
