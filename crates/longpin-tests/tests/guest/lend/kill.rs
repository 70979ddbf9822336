//! kill -9 of the owner while the device works: the file is never anybody's before the device has let go, and always
//! afterwards. Under `longpin hold FILE -- CMD`: CMD lends, and is killed.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use longpin_tests::act::{outcome_name, truncate};
use longpin_tests::camera::Camera;
use longpin_tests::lend::{Lend, Wish, abi};
use longpin_tests::mapping::Mapping;
use longpin_tests::pattern::Pattern;
use longpin_tests::rdma::{Access, Device as RdmaDevice, Region, loopback};
use longpin_tests::vfio::{Access as VfioAccess, Device as VfioDevice, VfioPin};
use longpin_tests::{PAGE, PATIENCE};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use super::ground::{Field, LEN, REGISTRABLE, must_have_no_lend};
use super::ring;
use crate::plan::sh;
use crate::{child, report};

/// Rounds of every day, and of long runs.
const ROUNDS: (u64, u64) = (3, 100);

pub(super) fn vfio() -> Result<()> {
    rounds("vfio", || {
        let busy = Errno::BUSY.raw_os_error();
        for entry in std::fs::read_dir("/dev/vfio")? {
            let entry = entry?;
            let group = entry.file_name().to_string_lossy().parse::<u32>();
            let opened = group.map(|_| File::options().read(true).write(true).open(entry.path()));
            let held = opened.is_ok_and(|it| it.is_err_and(|err| err.raw_os_error() == Some(busy)));
            ensure!(!held, "{} is still open", entry.path().display());
        }
        Ok(())
    })
}

pub(super) fn rdma() -> Result<()> {
    rounds("rdma", || {
        let regions = sh("rdma resource show mr")?;
        ensure!(
            !regions.contains("mrn"),
            "there still are regions: {regions}"
        );
        Ok(())
    })
}

pub(super) fn ring() -> Result<()> {
    if ring::has_own_rule()? {
        return report::skip(ring::OWN_RULE);
    }
    // Nobody tells of a ring's buffers but the pages.
    rounds("ring", || Ok(()))
}

pub(super) fn camera() -> Result<()> {
    rounds("camera", || {
        // One at a time has the camera's buffers.
        Camera::open()?.make_room(4).context("it is still in use")
    })
}

/// On both file systems; `gone`: the device cannot reach the file any more.
fn rounds(door: &str, gone: impl Fn() -> Result<()>) -> Result<()> {
    let long = std::env::var_os("LONGPIN_LONG").is_some();
    let count = if long { ROUNDS.1 } else { ROUNDS.0 };
    for kind in Field::KINDS {
        let field = Field::guarded(kind)?;
        let mut took = Vec::new();
        for round in 0..count.div_ceil(2) {
            let freed = kill_one(&field, door, round, &gone);
            took.push(freed.with_context(|| format!("{kind}, round {round}"))?);
        }
        let sum: Duration = took.iter().sum();
        println!(
            "{kind}: {} killed, free after {:.2?}, at most {:.2?}",
            took.len(),
            sum / u32::try_from(took.len())?,
            took.iter().max().copied().unwrap_or_default()
        );
    }
    Ok(())
}

/// How long it took until the file was free.
fn kill_one(
    field: &Field,
    door: &str,
    round: u64,
    gone: &impl Fn() -> Result<()>,
) -> Result<Duration> {
    let path = field.file("victim")?;
    let mut victim = Victim::start(door, &path)?;
    // At another moment of its work each time.
    std::thread::sleep(Duration::from_millis(round * 137 % 300));
    let answer = truncate(&path, 4096);
    ensure!(
        answer == Err(Errno::TXTBSY),
        "while it works: {}",
        outcome_name(answer)
    );
    let begin = Instant::now();
    kill_process(victim.pid, Signal::KILL)?;
    loop {
        match truncate(&path, 4096) {
            Ok(()) => break,
            Err(Errno::TXTBSY) => {}
            other => bail!("truncate answered {}", outcome_name(other)),
        }
        ensure!(begin.elapsed() < PATIENCE, "never free");
        std::thread::sleep(Duration::from_millis(1));
    }
    let took = begin.elapsed();
    gone().context("freed under the device")?;
    victim.must_have_read_the_file()?;
    must_have_no_lend()?;
    std::fs::remove_file(&path)?;
    Ok(took)
}

/// `longpin hold FILE -- CMD`, whose CMD lends the file and works on it.
struct Victim {
    longpin: Child,
    said: BufReader<std::process::ChildStdout>,
    pid: Pid,
}

impl Victim {
    fn start(door: &str, path: &Path) -> Result<Self> {
        let mut longpin = Command::new("longpin")
            .arg("hold")
            .arg(path)
            .arg("--")
            .arg(std::env::current_exe()?)
            .args([child::WORD, "lend", door])
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("longpin is not on PATH")?;
        let mut said = BufReader::new(longpin.stdout.take().context("no stdout")?);
        let mut line = String::new();
        said.read_line(&mut line)?;
        let pid = line.trim().strip_prefix("works ");
        let pid = pid.and_then(|pid| Pid::from_raw(pid.parse().ok()?));
        match pid {
            Some(pid) => Ok(Self { longpin, said, pid }),
            None => {
                let _ = longpin.kill();
                let _ = longpin.wait();
                bail!("the owner said {line:?}")
            }
        }
    }

    /// It would have said otherwise.
    fn must_have_read_the_file(&mut self) -> Result<()> {
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        ensure!(line.is_empty(), "the owner said {line:?}");
        let status = self.longpin.wait()?;
        ensure!(status.code() == Some(137), "longpin ended with {status}");
        Ok(())
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // Dead already, but where the test has failed.
        let _ = kill_process(self.pid, Signal::KILL);
        let _ = self.longpin.kill();
        let _ = self.longpin.wait();
    }
}

/// `lend DOOR PATH`, with the token of `longpin hold`: lend, let the device work, say so, and go on until killed.
pub(crate) fn victim(arguments: &[String]) -> Result<()> {
    let [door, path] = arguments else {
        bail!("lend DOOR PATH")
    };
    let file = File::options().read(true).write(true).open(path)?;
    match door.as_str() {
        "other" => super::rdma::register_as_other(&file),
        "vfio" => film_vfio(&file),
        "rdma" => film_rdma(&file),
        "ring" => film_ring(&file),
        "camera" => film_camera(&file),
        "keep" => keep(&file),
        other => bail!("no door {other}"),
    }
}

/// The token that this process has inherited, by its name.
fn token() -> Result<File> {
    let name = std::env::var("LONGPIN_EXTENTS").context("no token: `longpin hold` runs this")?;
    Ok(File::options().read(true).open(name)?)
}

fn lend(
    file: &File,
    offset: u64,
    len: usize,
    flags: u32,
    device: Option<&VfioDevice>,
) -> Result<Lend> {
    let token = token()?;
    let groups: Vec<_> = device.map(|it| it.group().as_fd()).into_iter().collect();
    let asked = Lend::ask(&Wish {
        file: file.as_fd(),
        token: token.as_fd(),
        offset,
        len,
        flags,
        groups: &groups,
    });
    asked.map_err(|errno| anyhow::anyhow!("LEND: {}", outcome_name(Err(errno))))
}

fn say_works() -> Result<()> {
    println!("works {}", std::process::id());
    Ok(std::io::stdout().flush()?)
}

/// Works once, says so, and goes on.
fn work(mut once: impl FnMut(usize) -> Result<()>) -> Result<()> {
    once(0)?;
    say_works()?;
    for round in 1.. {
        once(round)?;
    }
    Ok(())
}

fn must_be(first: usize, bytes: &[u8]) -> Result<()> {
    Ok(Pattern::new(1).check(first as u64, bytes)?)
}

fn film_vfio(file: &File) -> Result<()> {
    let device = VfioDevice::open()?;
    let lend = lend(file, 0, LEN, abi::WRITE, Some(&device))?;
    let mapping = lend.map(true)?;
    let pin = device.map(&mapping, VfioAccess::ReadWrite)?;
    work(|round| {
        let page = round * 9 % (LEN / PAGE);
        let seen = pin.read_as_device(page * PAGE, VfioPin::MAX_READ)?;
        must_be(page, &seen)?;
        pin.write_as_device(page * PAGE, &seen)
    })
}

fn film_rdma(file: &File) -> Result<()> {
    let _lend = lend(file, 0, LEN, REGISTRABLE, None)?;
    let mapping = Mapping::shared(file, 0, LEN, true)?;
    let domain = RdmaDevice::open("rxe0")?.protection_domain()?;
    let (mut near, _far) = loopback(&domain)?;
    let region = Region::register(&domain, &mapping, 0..LEN, Access::READ_WRITE)?;
    work(|round| {
        let page = round * 9 % (LEN / PAGE - 16);
        let at = region.addr() + (page * PAGE) as u64;
        let seen = near.read(at, region.rkey(), 16 * PAGE)?;
        must_be(page, &seen)?;
        Ok(near.write(at, region.rkey(), &seen)?)
    })
}

fn film_ring(file: &File) -> Result<()> {
    let _lend = lend(file, 0, LEN, REGISTRABLE, None)?;
    let mapping = Mapping::shared(file, 0, LEN, true)?;
    let mut ring = ring::register(&mapping)?;
    work(|_| must_be(0, &ring.read_as_device()?))
}

fn film_camera(file: &File) -> Result<()> {
    const EACH: usize = LEN / 4;
    let camera = Camera::open()?;
    camera.make_room(4)?;
    let mut lends = Vec::new();
    for index in 0..4 {
        let lend = lend(file, u64::from(index) * EACH as u64, EACH, abi::WRITE, None)?;
        camera.queue(index, &lend, EACH)?;
        lends.push(lend);
    }
    camera.start()?;
    work(|_| {
        let index = camera.next_frame()?;
        let lend = lends
            .get(usize::try_from(index)?)
            .context("no such buffer")?;
        Ok(camera.queue(index, lend, EACH)?)
    })
}

/// Lends all whole pages of it, and waits for the end of standard input.
fn keep(file: &File) -> Result<()> {
    let len = usize::try_from(file.metadata()?.len())? / PAGE * PAGE;
    let _lend = lend(file, 0, len, abi::WRITE, None)?;
    println!("held");
    std::io::stdout().flush()?;
    std::io::stdin().lines().for_each(drop);
    Ok(())
}
