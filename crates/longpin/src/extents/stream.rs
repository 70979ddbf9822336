//! From what FIEMAP tells to extents with places: cut to a range, translated, joined.

use std::ops::Range;

use longpin_linux::btrfs::Profile;
use longpin_linux::fiemap::RawExtent;

use super::{Extent, ExtentFlags, MapError, Place, Scheme, Unlocated};

/// Extents, with those joined that go on.
pub(super) struct Joined<I> {
    pending: Option<Extent>,
    pieces: I,
}

impl<I> Joined<I> {
    pub(super) const fn new(pieces: I) -> Self {
        Self {
            pending: None,
            pieces,
        }
    }
}

impl<I: Iterator<Item = Result<Extent, MapError>>> Iterator for Joined<I> {
    type Item = Result<Extent, MapError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let next = match self.pieces.next() {
                Some(Ok(next)) => next,
                Some(Err(err)) => return Some(Err(err)),
                None => return self.pending.take().map(Ok),
            };
            match self.pending.take() {
                None => self.pending = Some(next),
                Some(pending) => match join(&pending, &next) {
                    Some(both) => self.pending = Some(both),
                    None => {
                        self.pending = Some(next);
                        return Some(Ok(pending));
                    }
                },
            }
        }
    }
}

/// Both as one, if the second goes on where the first ends.
fn join(first: &Extent, second: &Extent) -> Option<Extent> {
    let ends = ExtentFlags::LAST.with(ExtentFlags::MERGED);
    let kind = |extent: &Extent| extent.flags.0 & !ends.0;
    let goes_on = first.logical.checked_add(first.length) == Some(second.logical);
    let place = match (first.place, second.place) {
        (
            Place::On { device, physical },
            Place::On {
                device: then,
                physical: at,
            },
        ) => device == then && physical.checked_add(first.length) == Some(at),
        (one, other) => one == other,
    };
    (goes_on && place && kind(first) == kind(second)).then(|| Extent {
        length: first.length + second.length,
        flags: first.flags.with(second.flags),
        ..*first
    })
}

/// What one raw extent becomes.
pub(super) enum Pieces<'map> {
    Of(PieceIter<'map>),
    Failed(Option<MapError>),
}

impl Iterator for Pieces<'_> {
    type Item = Result<Extent, MapError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Of(pieces) => pieces.next().map(Ok),
            Self::Failed(err) => err.take().map(Err),
        }
    }
}

/// A raw extent, cut where a chunk of btrfs ends.
pub(super) struct PieceIter<'map> {
    scheme: &'map Scheme,
    rest: Option<RawExtent>,
}

impl<'map> PieceIter<'map> {
    pub(super) const fn new(scheme: &'map Scheme, extent: RawExtent) -> Self {
        Self {
            scheme,
            rest: Some(extent),
        }
    }
}

impl Iterator for PieceIter<'_> {
    type Item = Extent;

    fn next(&mut self) -> Option<Extent> {
        let raw = self.rest.take()?;
        let (place, length) = place(self.scheme, &raw);
        let flags = match is_seeds(self.scheme, &raw) {
            true => raw.flags.with(ExtentFlags::SHARED),
            false => raw.flags,
        };
        if length < raw.length {
            self.rest = Some(RawExtent {
                logical: raw.logical + length,
                physical: raw.physical + length,
                length: raw.length - length,
                flags: raw.flags,
            });
        }
        Some(Extent {
            logical: raw.logical,
            length,
            flags,
            place,
        })
    }
}

/// btrfs shares a seed device's blocks with all that grew from it, and writes what changes elsewhere; FIEMAP does not say so.
fn is_seeds(scheme: &Scheme, raw: &RawExtent) -> bool {
    match scheme {
        Scheme::Linear(_) => false,
        Scheme::Btrfs { chunks, seeds, .. } => {
            unlocated(raw).is_none()
                && chunks
                    .find(raw.physical)
                    .is_some_and(|chunk| seeds.contains(&chunk.stripe.0))
        }
    }
}

/// Where the extent begins to lie, and how many of its bytes lie there.
fn place(scheme: &Scheme, raw: &RawExtent) -> (Place, u64) {
    if let Some(why) = unlocated(raw) {
        return (Place::Nowhere(why), raw.length);
    }
    let (chunks, devices) = match scheme {
        Scheme::Linear(device) => {
            let (device, physical) = (*device, raw.physical);
            return (Place::On { device, physical }, raw.length);
        }
        Scheme::Btrfs {
            chunks, devices, ..
        } => (chunks, devices),
    };
    let Some(chunk) = chunks.find(raw.physical) else {
        return (Place::Nowhere(Unlocated::NoChunk), raw.length);
    };
    let inside = raw.physical - chunk.start;
    let length = raw.length.min(chunk.length - inside);
    let (number, start) = chunk.stripe;
    let place = match (chunk.profile, devices.get(&number)) {
        (Profile::Other(name), _) => Place::Nowhere(Unlocated::Profile(name)),
        (Profile::Single, Some(&device)) => Place::On {
            device,
            physical: start.saturating_add(inside),
        },
        (Profile::Single, None) => Place::Nowhere(Unlocated::NoChunk),
    };
    (place, length)
}

fn unlocated(raw: &RawExtent) -> Option<Unlocated> {
    let encoded = ExtentFlags::ENCODED.with(ExtentFlags::DATA_ENCRYPTED);
    let inline = ExtentFlags::DATA_INLINE.with(ExtentFlags::DATA_TAIL);
    let flags = raw.flags;
    if flags.any(ExtentFlags::DELALLOC) {
        Some(Unlocated::Delalloc)
    } else if flags.any(inline) {
        Some(Unlocated::Inline)
    } else if flags.any(encoded) {
        Some(Unlocated::Encoded)
    } else if flags.any(ExtentFlags::UNKNOWN) {
        Some(Unlocated::Unknown)
    } else if flags.any(ExtentFlags::UNWRITTEN) && raw.physical == 0 {
        // f2fs: space is promised, and no block chosen. No file's data lies at address 0.
        Some(Unlocated::Delalloc)
    } else {
        None
    }
}

pub(super) fn cut(extent: RawExtent, range: &Range<u64>) -> Option<RawExtent> {
    let start = extent.logical.max(range.start);
    let end = (extent.logical + extent.length).min(range.end);
    (start < end).then(|| RawExtent {
        logical: start,
        physical: extent.physical.saturating_add(start - extent.logical),
        length: end - start,
        flags: extent.flags,
    })
}

#[cfg(test)]
mod tests {
    use super::super::BlockDevice;
    use super::*;

    fn raw(physical: u64, length: u64, flags: ExtentFlags) -> RawExtent {
        RawExtent {
            logical: 0,
            physical,
            length,
            flags,
        }
    }

    #[test]
    fn a_range_cuts_what_it_touches() {
        let extent = raw(1000, 100, ExtentFlags::default());
        let found = cut(extent, &(30..50)).unwrap();
        assert_eq!(
            (found.logical, found.physical, found.length),
            (30, 1030, 20)
        );
        assert_eq!(cut(extent, &(100..200)), None);
    }

    #[test]
    fn only_what_goes_on_is_joined() {
        let device = BlockDevice(8, 1);
        let extent = |logical, physical, flags| Extent {
            logical,
            length: 10,
            flags,
            place: Place::On { device, physical },
        };
        let plain = ExtentFlags::default();
        let first = extent(0, 100, plain);
        let both = join(&first, &extent(10, 110, ExtentFlags::LAST)).unwrap();
        assert_eq!((both.logical, both.length), (0, 20));
        assert_eq!(both.flags, ExtentFlags::LAST);
        assert_eq!(join(&first, &extent(11, 111, plain)), None);
        assert_eq!(join(&first, &extent(10, 111, plain)), None);
        assert_eq!(join(&first, &extent(10, 110, ExtentFlags::UNWRITTEN)), None);
        let mut elsewhere = extent(10, 110, plain);
        elsewhere.place = Place::Nowhere(Unlocated::Inline);
        assert_eq!(join(&first, &elsewhere), None);
    }

    #[test]
    fn what_has_no_place_is_named() {
        let why = |flags| unlocated(&raw(4096, 4096, flags));
        assert_eq!(why(ExtentFlags::default()), None);
        assert_eq!(why(ExtentFlags::UNWRITTEN), None);
        assert_eq!(why(ExtentFlags::SHARED), None);
        assert_eq!(why(ExtentFlags::DATA_INLINE), Some(Unlocated::Inline));
        assert_eq!(why(ExtentFlags::ENCODED), Some(Unlocated::Encoded));
        let both = ExtentFlags::DELALLOC.with(ExtentFlags::UNKNOWN);
        assert_eq!(why(both), Some(Unlocated::Delalloc));
        let promised = raw(0, 4096, ExtentFlags::UNWRITTEN);
        assert_eq!(unlocated(&promised), Some(Unlocated::Delalloc));
    }
}
