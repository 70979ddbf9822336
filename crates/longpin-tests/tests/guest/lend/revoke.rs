//! REVOKE (7.2 and later): no importer gets the pages any more, mappings of the dma-buf fault; who cannot be told, VFIO and a
//! camera that copies, keeps what it has.

use anyhow::{Context, Result, ensure};
use longpin_tests::PAGE;
use longpin_tests::act::outcome_name;
use longpin_tests::camera::Camera;
use longpin_tests::lend::{self, Lend, abi};
use longpin_tests::mapping::Mapping;
use longpin_tests::scratch::FsKind;
use longpin_tests::stores::{Access, Answer, in_child};
use rustix::io::Errno;

use super::ground::{Field, Held, LEN};
use super::vfio::{Assigned, must_read};

const PRIVATE: &[u8] = b"of this process alone";

pub(super) fn main() -> Result<()> {
    let field = Field::guarded(FsKind::Ext4)?;
    let mut held = field.held("revoked")?;
    only_reads(&held)?;
    let Assigned {
        pin,
        mapping,
        lend,
        device,
    } = Assigned::new(&held)?;
    mapping.touch();
    let private = Mapping::private(held.file()?, 0, PAGE)?;
    private.copy_in(0, PRIVATE);
    if lend::info()?.can & abi::CAN_REVOKE == 0 {
        let answer = lend.revoke();
        ensure!(answer == Err(Errno::OPNOTSUPP), "REVOKE: {answer:?}");
    } else {
        // VFIO first: what a camera writes nobody here knows.
        lend.revoke().context("REVOKE")?;
        must_read(&pin, &held).context("VFIO keeps it")?;
        must_be_revoked(&lend, &mapping)?;
    }
    let copied = private.copy_out(0..PRIVATE.len());
    ensure!(copied == PRIVATE, "the private copy is gone: {copied:?}");
    drop((private, pin, mapping, lend, device));
    filmed(&held)?;
    held.close_token();
    held.must_be_free("revoked")
}

/// An importer that copies by the CPU does not say whether it writes: it gets no lend for reading.
fn only_reads(held: &Held) -> Result<()> {
    let lend = held.lend(0, &[])?;
    let camera = Camera::open()?;
    camera.make_room(4)?;
    must_not_import(&camera, &lend, "for reading")
}

fn must_not_import(camera: &Camera, lend: &Lend, what: &str) -> Result<()> {
    let answer = camera.queue(0, lend, LEN);
    ensure!(
        answer == Err(Errno::FAULT),
        "a camera took a lend {what}: {}",
        outcome_name(answer)
    );
    Ok(())
}

fn must_be_revoked(lend: &Lend, mapping: &Mapping) -> Result<()> {
    let rows = lend::list()?;
    let flagged = rows.len() == 1 && rows[0].flags & abi::ROW_REVOKED != 0;
    ensure!(flagged, "LIST: {rows:?}");
    let fresh = lend.map(true).context("mmap")?;
    for (which, mapping) in [("an old", mapping), ("a new", &fresh)] {
        let answer = in_child(mapping, Access::Load)?;
        let wanted = Answer::Signal(libc::SIGBUS);
        ensure!(answer == wanted, "{which} mapping: {answer}, not {wanted}");
    }
    let camera = Camera::open()?;
    camera.make_room(4)?;
    must_not_import(&camera, lend, "that is revoked")
}

/// A camera that films is not told, and goes on; the lend stays until it ends.
fn filmed(held: &Held) -> Result<()> {
    let lend = held.lend(abi::WRITE, &[])?;
    let camera = Camera::open()?;
    camera.make_room(4)?;
    for index in 0..4 {
        camera.queue(index, &lend, LEN).context("VIDIOC_QBUF")?;
    }
    camera.start().context("VIDIOC_STREAMON")?;
    let first = camera.next_frame().context("VIDIOC_DQBUF")?;
    if lend::info()?.can & abi::CAN_REVOKE != 0 {
        lend.revoke().context("REVOKE while it films")?;
    }
    camera
        .queue(first, &lend, LEN)
        .context("the same buffer once more")?;
    for _ in 0..3 {
        camera.next_frame().context("VIDIOC_DQBUF")?;
    }
    drop(lend);
    held.must_stay_refused("only the camera has it")
}
