//! Programs that others wrote go on working under the guard, and what they pin of files is held, and listed as theirs.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use longpin_tests::PATIENCE;
use longpin_tests::act::{ftruncate, punch};
use longpin_tests::programs::{Program, gid};
use longpin_tests::scratch::FsKind;
use serde_json::Value;

use crate::files::TestFile;
use crate::guard;
use crate::pin::{must_allow_soon, must_refuse};

const LEN: u64 = 1 << 20;
/// The address of the device below rxe0.
const HERE: &str = "10.9.0.1";

/// Waits until the client has pinned: its row.
fn row(client: &mut Program, file: &TestFile) -> Result<Value> {
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
    let line = format!("ibv_rc_pingpong -d rxe0 -g {} -n 300 -c", gid("rxe0")?);
    let mut server = Program::start(&line)?;
    server.await_listener(18515)?;
    let client = Program::start(&format!("{line} {HERE}"))?;
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
    let mut fio = Program::start(&line.replace("  ", " "))?;
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
        "ib_write_bw -d rxe0 -x {} -F -s 65536 -D 25 -p 18600",
        gid("rxe0")?
    );
    let mut server = Program::start(&format!("{line} --mmap={}", file.path.display()))?;
    server.await_listener(18600)?;
    let client = Program::start(&format!("{line} {HERE}"))?;
    let row = row(&mut server, &file)?;
    must_be_of(&row, "ib_write_bw", "rdma", 65536)?;
    ensure!(row["pid"] == server.pid(), "{row}");
    must_refuse("truncate", ftruncate(&file.file, 0))?;
    client.must_end()?;
    server.must_end()?;
    must_allow_soon("truncate", || ftruncate(&file.file, 0))
}
