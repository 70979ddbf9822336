//! Processes that pin and can be killed: this program again, told what to do by its arguments.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};
use longpin_linux::FixedBuffer;

pub(crate) const WORD: &str = "longpin-test-child";

/// Are we the child? Then act as one and say how it went.
pub(crate) fn run_if_asked() -> Option<ExitCode> {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).map(String::as_str) != Some(WORD) {
        return None;
    }
    let acted = match arguments.get(2).map(String::as_str) {
        Some("pin") => pin_and_wait(&arguments[3..]),
        Some("pin-as") => pin_as(&arguments[3..]),
        Some("map") => crate::hold::map_and_store(&arguments[3..]),
        Some("leaderless") => crate::acquire::map_and_end_main(&arguments[3..]),
        Some("slow-read") => crate::acquire::slow_read(&arguments[3..]),
        Some("churn") => churn(&arguments[3..]),
        Some("actor") => crate::hard::actor::act(&arguments[3..]),
        Some("break") => crate::hard::break_page(&arguments[3..]),
        Some("register") => crate::shutdown::register_and_wait(&arguments[3..]),
        #[cfg(feature = "rdma")]
        Some("on-demand") => crate::on_demand::register_and_wait(&arguments[3..]),
        #[cfg(feature = "rdma")]
        Some("dax") => crate::plan::dax_and_wait(&arguments[3..]),
        #[cfg(feature = "rdma")]
        Some("persist-write") => crate::plan::persist_write(&arguments[3..]),
        #[cfg(feature = "rdma")]
        Some("persist-read") => crate::plan::persist_read(&arguments[3..]),
        #[cfg(feature = "rdma")]
        Some("hosts-server") => crate::hosts::act_as_server(&arguments[3..]),
        #[cfg(feature = "rdma")]
        Some("hosts-client") => crate::hosts::act_as_client(&arguments[3..]),
        #[cfg(feature = "rdma")]
        Some("lend") => crate::lend::victim(&arguments[3..]),
        other => Err(anyhow::anyhow!("unknown child {other:?}")),
    };
    Some(match acted {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            println!("failed: {err:#}");
            ExitCode::FAILURE
        }
    })
}

/// `pin PATH OFFSET LEN`: pin with io_uring, say so, keep it until standard input ends.
fn pin_and_wait(arguments: &[String]) -> Result<()> {
    let [path, offset, len] = arguments else {
        anyhow::bail!("pin PATH OFFSET LEN")
    };
    let file = File::options().read(true).write(true).open(path)?;
    let _buffer = FixedBuffer::register(&file, offset.parse()?, len.parse()?)?;
    println!("pinned");
    std::io::stdout().flush()?;
    std::io::stdin().lines().for_each(drop);
    Ok(())
}

/// `pin-as UID[:userns] PATH OFFSET LEN`: open as root, then become the user, for good, and pin.
fn pin_as(arguments: &[String]) -> Result<()> {
    let [who, rest @ ..] = arguments else {
        anyhow::bail!("pin-as UID[:userns] PATH OFFSET LEN")
    };
    let [path, offset, len] = rest else {
        anyhow::bail!("pin-as UID[:userns] PATH OFFSET LEN")
    };
    let file = File::options().read(true).write(true).open(path)?;
    let (uid, in_namespace) = match who.strip_suffix(":userns") {
        Some(uid) => (uid.parse()?, true),
        None => (who.parse()?, false),
    };
    longpin_tests::act::become_user(uid, in_namespace)?;
    let _buffer = FixedBuffer::register(&file, offset.parse()?, len.parse()?)?;
    println!("pinned");
    std::io::stdout().flush()?;
    std::io::stdin().lines().for_each(drop);
    Ok(())
}

/// `churn PATH LEN`: pin and unpin until standard input ends.
fn churn(arguments: &[String]) -> Result<()> {
    let [path, len] = arguments else {
        anyhow::bail!("churn PATH LEN")
    };
    let file = File::options().read(true).write(true).open(path)?;
    let len = len.parse()?;
    println!("pinned");
    std::io::stdout().flush()?;
    let ended = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flag = ended.clone();
    std::thread::spawn(move || {
        std::io::stdin().lines().for_each(drop);
        flag.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    while !ended.load(std::sync::atomic::Ordering::Relaxed) {
        FixedBuffer::register(&file, 0, len)?.unregister()?;
    }
    Ok(())
}

/// A child that has pinned; killed on drop.
pub(crate) struct Pinner {
    child: Child,
    // Closing it ends the child in an orderly way.
    _stdin: ChildStdin,
}

impl Pinner {
    pub(crate) fn pin(path: &Path, offset: u64, len: usize) -> Result<Self> {
        Self::start(&[
            "pin",
            &path.to_string_lossy(),
            &offset.to_string(),
            &len.to_string(),
        ])
    }

    /// As [`Self::pin`], by a user other than root: `1000`, or `1000:userns` for one who is root in a user
    /// namespace of its own.
    pub(crate) fn pin_as(who: &str, path: &Path, offset: u64, len: usize) -> Result<Self> {
        let (offset, len) = (offset.to_string(), len.to_string());
        Self::start(&["pin-as", who, &path.to_string_lossy(), &offset, &len])
    }

    pub(crate) fn churn(path: &Path, len: usize) -> Result<Self> {
        Self::start(&["churn", &path.to_string_lossy(), &len.to_string()])
    }

    pub(crate) fn start(arguments: &[&str]) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(WORD)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take().context("no stdin")?;
        let stdout = child.stdout.take().context("no stdout")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(line.trim() == "pinned", "the child said {line:?}");
        Ok(Self {
            child,
            _stdin: stdin,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// kill -9, and wait for the corpse.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Pinner {
    fn drop(&mut self) {
        // Already dead is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
