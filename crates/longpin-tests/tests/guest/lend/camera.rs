//! Door 1: an importer of the dma-buf. vivid, a virtual camera, writes frames into the file.

use anyhow::{Context, Result, ensure};
use longpin_tests::PAGE;
use longpin_tests::act::truncate;
use longpin_tests::camera::Camera;
use longpin_tests::lend::{self, Lend, abi};
use longpin_tests::scratch::FsKind;

use super::ground::{Field, Held, LEN};
use crate::pin::must_refuse;

/// Buffers, each with room for a frame.
const BUFFERS: u32 = 4;
const EACH: usize = LEN / BUFFERS as usize;

/// A camera that has the file's four quarters.
pub(super) struct Filming {
    pub(super) camera: Camera,
    pub(super) lends: Vec<Lend>,
}

impl Filming {
    pub(super) fn new(held: &Held) -> Result<Self> {
        let camera = Camera::open()?;
        camera.make_room(BUFFERS)?;
        let mut lends = Vec::new();
        for index in 0..BUFFERS {
            let offset = u64::from(index) * EACH as u64;
            let lend = held.ask(offset, EACH, abi::WRITE, &[])?;
            let lend = lend.map_err(|errno| anyhow::anyhow!("LEND: {errno}"))?;
            camera.queue(index, &lend, EACH).context("VIDIOC_QBUF")?;
            lends.push(lend);
        }
        camera.start().context("VIDIOC_STREAMON")?;
        Ok(Self { camera, lends })
    }

    /// The next frame is in the file, as a whole, and nothing beside it has changed.
    pub(super) fn must_film(&self, held: &mut Held) -> Result<u32> {
        let index = self.camera.next_frame().context("VIDIOC_DQBUF")?;
        let frame = self.camera.frame();
        let bytes = std::fs::read(&held.path)?;
        let first = usize::try_from(index)? * EACH / PAGE;
        let pages = frame.div_ceil(PAGE);
        let mut new = 0;
        for page in first..first + pages {
            let found = &bytes[page * PAGE..(page + 1) * PAGE];
            new += usize::from(found != held.page(page));
            held.note(page, found);
        }
        ensure!(new == pages, "{new} of {pages} pages have a frame");
        let end = (first + EACH / PAGE) * PAGE;
        let behind = first + pages;
        held.must_be("behind the frame", behind, &bytes[behind * PAGE..end])?;
        Ok(index)
    }
}

pub(super) fn main() -> Result<()> {
    Field::on_each(main_on)
}

fn main_on(kind: FsKind) -> Result<()> {
    let field = Field::guarded(kind)?;
    let mut held = field.held("film")?;
    let Filming { camera, lends } = {
        let filming = Filming::new(&held)?;
        filming.must_film(&mut held)?;
        filming
    };
    let importers = lend::list().context("LIST")?;
    let importers: u32 = importers.iter().map(|row| row.importers).sum();
    ensure!(importers == BUFFERS, "{importers} importers");
    camera.stop().context("VIDIOC_STREAMOFF")?;
    // What it filmed meanwhile is not known here.
    let mut held = known_again(held)?;
    held.must_be_refused("filmed")?;
    held.close_file();
    held.close_token();
    drop(lends);
    held.must_stay_refused("only the camera has it")?;
    held.must_be_refused("only the camera has it")?;
    drop(camera);
    held.must_be_free("the camera closed")
}

/// The bytes as they are.
fn known_again(mut held: Held) -> Result<Held> {
    let bytes = std::fs::read(&held.path)?;
    for (page, bytes) in bytes.chunks(PAGE).enumerate() {
        held.note(page, bytes);
    }
    Ok(held)
}

/// The owner lets go in one order after the other, while the camera films.
pub(super) fn orders() -> Result<()> {
    for kind in Field::KINDS {
        let field = Field::guarded(kind)?;
        for token_first in [true, false] {
            order_on(&field, token_first).with_context(|| kind.name())?;
        }
    }
    Ok(())
}

fn order_on(field: &Field, token_first: bool) -> Result<()> {
    let mut held = field.held("order")?;
    let Filming { camera, mut lends } = Filming::new(&held)?;
    held.close_file();
    for step in [token_first, !token_first] {
        if step {
            held.close_token();
        } else {
            lends.clear();
        }
        camera.next_frame().context("VIDIOC_DQBUF")?;
        must_refuse("while it films", truncate(&held.path, 4096))?;
    }
    held.must_stay_refused("only the camera has it")?;
    drop(camera);
    held.must_be_free("order")
}
