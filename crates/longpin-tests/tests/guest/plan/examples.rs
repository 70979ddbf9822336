//! The examples, run as a user runs them: beside this program, where cargo puts them.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};
use longpin_tests::act::{ftruncate, truncate};
use longpin_tests::scratch::FsKind;

use super::dax_ground::{MAKERS, mount};
use crate::files::TestFile;
use crate::guard;
use crate::pin::{must_allow, must_allow_soon, must_refuse};

const LEN: u64 = 1 << 20;

fn path(name: &str) -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    let release = this.parent().and_then(Path::parent).context("no parent")?;
    let path = release.join("examples").join(name);
    let build = "cargo build --release --examples -p longpin -p longpin-rdma";
    ensure!(path.exists(), "{} is not built: {build}", path.display());
    Ok(path)
}

/// An example that goes on until its standard input ends.
struct Example {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Example {
    fn start(name: &str, arguments: &[&str]) -> Result<Self> {
        let mut child = Command::new(path(name)?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().context("no stdout")?;
        Ok(Self {
            stdin: child.stdin.take(),
            stdout: BufReader::new(stdout),
            child,
        })
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        Ok(line)
    }

    /// The first line has these words; otherwise its complaints are told.
    fn must_say(mut self, words: &str) -> Result<Self> {
        let line = self.line()?;
        if line.contains(words) {
            return Ok(self);
        }
        let (well, said) = self.end()?;
        anyhow::bail!("no {words:?} in {line:?}; ended well: {well}; {said}")
    }

    fn tell(&mut self, words: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("ended")?;
        Ok(writeln!(stdin, "{words}")?)
    }

    /// Whether it ended well, and its complaints.
    fn end(mut self) -> Result<(bool, String)> {
        drop(self.stdin.take());
        let mut said = String::new();
        let stderr = self.child.stderr.as_mut().context("no stderr")?;
        stderr.read_to_string(&mut said)?;
        Ok((self.child.wait()?.success(), said))
    }
}

fn must_end_well(example: Example) -> Result<()> {
    let (well, said) = example.end()?;
    ensure!(well, "it failed: {said}");
    Ok(())
}

fn can_fault() -> Result<bool> {
    Ok(longpin_rdma::Context::open("rxe0")?
        .capabilities()?
        .on_demand)
}

/// Pinned and held where the device cannot fault, else on demand and free.
pub(crate) fn example_weights() -> Result<()> {
    guard::on()?;
    let file = TestFile::new(FsKind::Ext4, LEN)?;
    let example = Example::start("weights", &["rxe0", &file.path.to_string_lossy()])?;
    let faults = can_fault()?;
    let kind = if faults { "on demand" } else { "pinned, held" };
    let example = example.must_say(&format!("length {LEN}: {kind}"))?;
    let rows = guard::holds_on(&file.path)?;
    if faults {
        ensure!(rows.is_empty(), "{rows:?}");
        must_allow("truncate", ftruncate(&file.file, LEN - 4096))?;
    } else {
        let own = rows.len() == 1 && rows[0]["pid"] == example.child.id();
        ensure!(own, "{rows:?}");
        must_refuse("truncate", ftruncate(&file.file, LEN - 4096))?;
    }
    must_end_well(example)?;
    must_allow_soon("truncate", || ftruncate(&file.file, 0))
}

/// Copies a file out of shared memory, byte for byte; what it may not pin it refuses by rule.
pub(crate) fn example_ring() -> Result<()> {
    guard::on()?;
    let file = TestFile::new(FsKind::Tmpfs, LEN)?;
    let disk = TestFile::new(FsKind::Ext4, LEN)?;
    let copy = disk.path.with_extension("copy");
    let (from, to) = (file.path.to_string_lossy(), copy.to_string_lossy());
    let example = Example::start("ring", &[&from, &to])?.must_say(": held")?;
    must_end_well(example)?;
    file.check(0, &std::fs::read(&copy)?)?;
    std::fs::remove_file(&copy)?;
    must_allow_soon("truncate", || ftruncate(&file.file, 0))?;
    let (well, said) = Example::start("ring", &[&disk.path.to_string_lossy(), &from])?.end()?;
    ensure!(!well && said.contains("Refused"), "a disk's file: {said}");
    Ok(())
}

/// Records are stored in the file and read by RDMA while nobody else can touch it, and are there after a remount.
pub(crate) fn example_log() -> Result<()> {
    guard::on()?;
    let dax = mount(MAKERS[1])?;
    let path = dax.path().join("log");
    let text = path.to_string_lossy();
    guard::must(&["prepare", &text, "--size", "1M"])?;
    let mut example = Example::start("log", &["rxe0", &text])?;
    if !can_fault()? {
        let line = example.line()?;
        let (well, said) = example.end()?;
        let refused = !well && said.contains("device-cannot-fault");
        ensure!(refused && line.is_empty(), "{line:?} {said}");
        must_allow("truncate", truncate(&path, 0))?;
        return crate::report::skip(super::NO_PAGING);
    }
    let mut example = example.must_say("on demand, held")?;
    example.tell("one")?;
    example.tell("two")?;
    ensure!(example.line()? == "4\n" && example.line()? == "8\n");
    must_refuse("truncate", truncate(&path, 0))?;
    must_refuse("a write", append(&path))?;
    let rows = guard::holds_on(&path)?;
    let own = rows.len() == 1 && rows[0]["pid"] == example.child.id();
    ensure!(own && rows[0]["level"] == "swapfile", "{rows:?}");
    must_end_well(example)?;
    dax.remount()?;
    let mut again = Example::start("log", &["rxe0", &text])?.must_say("on demand, held")?;
    again.tell("three")?;
    ensure!(again.line()? == "14\n", "the log begins anew");
    must_end_well(again)?;
    let bytes = std::fs::read(&path)?;
    ensure!(bytes.starts_with(b"one\ntwo\nthree\n\0"), "other records");
    must_allow("truncate", truncate(&path, 0))
}

fn append(path: &Path) -> longpin_tests::act::Outcome {
    let opened = std::fs::File::options().append(true).open(path);
    let written = opened.and_then(|mut file| file.write_all(b"x"));
    written.map_err(|err| rustix::io::Errno::from_io_error(&err).unwrap_or(rustix::io::Errno::IO))
}
