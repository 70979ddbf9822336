//! Programs that others wrote go on working under the guard, and what they pin of files is held, and listed as theirs.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use longpin_tests::act::{ftruncate, punch};
use longpin_tests::scratch::FsKind;
use serde_json::Value;

use crate::files::TestFile;
use crate::guard;
use crate::pin::{must_allow_soon, must_refuse};

const LEN: u64 = 1 << 20;
/// How long an emulated program may take to begin.
const PATIENCE: Duration = Duration::from_secs(90);
/// The address of the device below rxe0.
const HERE: &str = "10.9.0.1";

/// A program that is killed if the test ends before it.
struct Client(Option<Child>);

impl Client {
    fn start(line: &str) -> Result<Self> {
        let mut words = line.split(' ');
        let program = words.next().context("no program")?;
        let child = Command::new(program)
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        Ok(Self(Some(child.with_context(|| line.to_owned())?)))
    }

    fn pid(&self) -> u32 {
        self.0.as_ref().map_or(0, Child::id)
    }

    fn has_ended(&mut self) -> Result<bool> {
        let child = self.0.as_mut().context("ended")?;
        Ok(child.try_wait()?.is_some())
    }

    fn end(&mut self) -> Result<Output> {
        let child = self.0.take().context("ended")?;
        Ok(child.wait_with_output()?)
    }

    /// It ends well: what it printed.
    fn must_end(mut self) -> Result<String> {
        let Output {
            status,
            stdout,
            stderr,
        } = self.end()?;
        let said = String::from_utf8_lossy(&stdout).into_owned();
        let complained = String::from_utf8_lossy(&stderr);
        ensure!(status.success(), "{status}: {said} {complained}");
        Ok(said)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            // Already dead is fine.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Waits until somebody listens on a TCP port, where the two ends of a test meet.
fn await_listener(port: u16) -> Result<()> {
    let wanted = format!(":{port:04X}");
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
            let listens = |line: &str| {
                let words: Vec<_> = line.split_whitespace().take(4).collect();
                matches!(words[..], [_, local, _, "0A"] if local.ends_with(&wanted))
            };
            if std::fs::read_to_string(table)?.lines().any(listens) {
                return Ok(());
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    bail!("nobody listens on port {port}")
}

/// The index of the RoCE v2 address of rxe0.
fn gid() -> Result<String> {
    let dir = Path::new("/sys/class/infiniband/rxe0/ports/1");
    for index in 0..16 {
        let read = |of: &str| std::fs::read_to_string(dir.join(format!("{of}/{index}")));
        let kind = read("gid_attrs/types").unwrap_or_default();
        if kind.starts_with("RoCE v2") && read("gids")?.contains(":ffff:") {
            return Ok(index.to_string());
        }
    }
    bail!("rxe0 has no RoCE v2 address")
}

/// Waits until the client has pinned: its row.
fn row(client: &mut Client, file: &TestFile) -> Result<Value> {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        let mut rows = guard::holds_on(&file.path)?;
        if let Some(row) = rows.pop() {
            ensure!(rows.is_empty(), "several: {row} {rows:?}");
            return Ok(row);
        }
        if client.has_ended()? {
            let said = client.end()?;
            bail!("it has ended without a pin that is listed: {said:?}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    bail!("it pinned nothing that is listed")
}

fn must_be_of(row: &Value, command: &str, consumer: &str, bytes: u64) -> Result<()> {
    let end = row["end"].as_u64().unwrap_or(0);
    let whole = row["start"] == 0 && (bytes..=LEN).contains(&end);
    let theirs = row["command"] == command && row["consumer"] == consumer;
    ensure!(whole && theirs && row["enforced"] == true, "{row}");
    Ok(())
}

/// rdma-core's own: memory without a file goes through the guard's hooks, and nothing is held.
pub(crate) fn client_pingpong() -> Result<()> {
    guard::on()?;
    let held = guard::all_holds()?.len();
    let line = format!("ibv_rc_pingpong -d rxe0 -g {} -n 300 -c", gid()?);
    let server = Client::start(&line)?;
    await_listener(18515)?;
    let client = Client::start(&format!("{line} {HERE}"))?;
    for end in [client, server] {
        let said = end.must_end()?;
        ensure!(said.contains("300 iters"), "{said}");
    }
    ensure!(guard::all_holds()?.len() == held, "something is held");
    Ok(())
}

/// fio's registered buffers in a shared file.
pub(crate) fn client_fio() -> Result<()> {
    guard::on()?;
    let buffers = TestFile::new(FsKind::Tmpfs, LEN)?;
    let data = TestFile::new(FsKind::Ext4, LEN)?;
    let line = format!(
        "fio --name=longpin --ioengine=io_uring --fixedbufs --thread --rw=read --bs=64k --iodepth=4 --verify=0 \
         --filename={} --mem=mmapshared:{} --time_based --runtime=25",
        data.path.display(),
        buffers.path.display()
    );
    let mut fio = Client::start(&line.replace("  ", " "))?;
    let row = row(&mut fio, &buffers)?;
    must_be_of(&row, "fio", "io_uring", 4 * 65536)?;
    ensure!(row["pid"] == fio.pid(), "{row}");
    must_refuse("truncate", ftruncate(&buffers.file, 4096))?;
    must_refuse("punch", punch(&buffers.file, 65536, 4096))?;
    let said = fio.must_end()?;
    ensure!(said.contains("err= 0"), "{said}");
    data.check_all()?;
    must_allow_soon("truncate", || ftruncate(&buffers.file, 0))
}

/// perftest's server, whose memory is a file that the other end writes.
pub(crate) fn client_write_bw() -> Result<()> {
    guard::on()?;
    let file = TestFile::new(FsKind::Tmpfs, LEN)?;
    let line = format!(
        "ib_write_bw -d rxe0 -x {} -F -s 65536 -D 12 -p 18600",
        gid()?
    );
    let mut server = Client::start(&format!("{line} --mmap={}", file.path.display()))?;
    await_listener(18600)?;
    let client = Client::start(&format!("{line} {HERE}"))?;
    let row = row(&mut server, &file)?;
    must_be_of(&row, "ib_write_bw", "rdma", 65536)?;
    ensure!(row["pid"] == server.pid(), "{row}");
    must_refuse("truncate", ftruncate(&file.file, 0))?;
    client.must_end()?;
    server.must_end()?;
    must_allow_soon("truncate", || ftruncate(&file.file, 0))
}
