//! The judgement: facts and a stream of extents go in, reasons come out. It asks nobody.

use longpin_linux::arch;
use std::collections::BTreeMap;
use std::ops::Range;

use rustix::fs::IFlags;

use super::reason::{Name, Reason};
use super::{Facts, Policy};
use crate::extents::{BlockDevice, Extent, ExtentFlags, MapError, Place, Unlocated};
use crate::filesystem::Family;

/// ext4 journals the data of all files.
pub(super) const JOURNALS_ALL: &str = "by a mount option or the super block: all files";
/// Overlayfs, and a path that follows.
pub(super) const SHOWS: &str = "it shows ";
/// What reads all of a btrfs, and keeps the chunk that it reads from being written in place.
pub(super) const SCRUB: &str = "scrub";
/// btrfs, on a mount that may be written to.
pub(super) const SUBVOLUME: &str = "its subvolume is read-only";
/// Bytes of the smallest block that a device has.
const SECTOR: u64 = 512;

/// What is true of the whole file and speaks against it, under this policy.
pub(super) fn whole_file(policy: Policy, facts: &Facts) -> Vec<Reason> {
    let mut reasons: Vec<Reason> = file_system(policy, facts).into_iter().collect();
    let lends = policy != Policy::Pages;
    let swaps = policy == Policy::Swap;
    let attributes = facts.status.attributes;
    let mut add = |applies: bool, name: Name| {
        if applies {
            reasons.push(Reason::whole(name));
        }
    };
    add(facts.status.links == 0 && !facts.memfd, Name::Deleted);
    add(facts.active_swap, Name::ActiveSwap);
    add(lends && facts.status.read_only, Name::ReadOnly);
    add(swaps && attributes.immutable, Name::Immutable);
    add(swaps && attributes.append, Name::AppendOnly);
    add(swaps && attributes.dax, Name::Dax);
    add(lends && attributes.verity, Name::Verity);
    // Also for swap where an old kernel would write plain text there.
    add(lends && attributes.encrypted, Name::Encrypted);
    add(lends && attributes.compressed, Name::Compressed);
    add(lends && facts.copies_on_write(), Name::CopyOnWrite);
    add(lends && !swaps && facts.is_unpinned(), Name::NotPinned);
    add(lends && facts.log_structured, Name::LogStructured);
    add(
        lends && !swaps && facts.zeroing.is_some(),
        Name::Interrupted,
    );
    if facts.device_read_only {
        let read_only = reasons.iter_mut().filter(|r| r.name == Name::ReadOnly);
        read_only.for_each(|r| r.detail = Some("its block device is read-only".to_owned()));
    }
    if facts.read_only_subvolume {
        let read_only = reasons.iter_mut().filter(|r| r.name == Name::ReadOnly);
        read_only.for_each(|r| r.detail = Some(SUBVOLUME.to_owned()));
    }
    reasons.extend(more(policy, facts));
    reasons
}

/// What has something more to say.
fn more(policy: Policy, facts: &Facts) -> Vec<Reason> {
    let lends = policy != Policy::Pages;
    let swaps = policy == Policy::Swap;
    let mut reasons = Vec::new();
    if facts.journalled && lends && !swaps {
        let own = facts
            .flags
            .is_some_and(|flags| flags.contains(IFlags::JOURNALING));
        let by = if own { "chattr +j" } else { JOURNALS_ALL };
        reasons.push(Reason::whole(Name::Journalled).with(by));
    }
    if let Some(what) = facts.busy.as_ref().filter(|_| lends) {
        reasons.push(Reason::whole(Name::FileSystemBusy).with(what));
    }
    if facts.scrubbed && lends && !swaps {
        reasons.push(Reason::whole(Name::FileSystemBusy).with(SCRUB));
    }
    if let Some(what) = facts.mover.as_ref().filter(|_| lends && !swaps) {
        reasons.push(Reason::whole(Name::MovesData).with(what));
    }
    reasons
}

/// Swap files on blocks larger than a page: kernels whose page cache has a least folio size there refuse them, others
/// do not, and nothing but swapon(2) itself tells.
pub(super) fn large_blocks(facts: &Facts) -> Option<String> {
    let size = facts.status.block_size;
    let is_large = size > arch::page_size() && tells_block_size(facts.fs.family);
    is_large
        .then(|| format!("whether the kernel swaps to blocks of {size} bytes, more than a page"))
}

/// What others tell is the size of their clusters.
const fn tells_block_size(family: Family) -> bool {
    use Family::{Btrfs, Ext, F2fs, Xfs};
    matches!(family, Ext | Xfs | Btrfs | F2fs)
}

fn file_system(policy: Policy, facts: &Facts) -> Option<Reason> {
    let name = match facts.fs.family {
        Family::Mover => Name::MovesData,
        Family::Remote => Name::NotLocal,
        Family::Overlay => Name::Overlay,
        Family::Memory if policy != Policy::Pages => Name::NoBlocks,
        _ => return None,
    };
    Some(Reason::whole(name).with(facts.fs.to_string()))
}

/// Goes over the extents of a range, in the order of the file.
#[derive(Debug)]
pub(super) struct Walk<'facts> {
    policy: Policy,
    facts: &'facts Facts,
    range: Range<u64>,
    reasons: BTreeMap<Name, Reason>,
    /// First byte that no extent has covered yet.
    next: u64,
    extents: u64,
    device: Option<BlockDevice>,
    run: Run,
    usable_pages: u64,
    /// Where the last extent ended, in the file and on the device.
    last_end: Option<(u64, u64)>,
}

/// Extents that follow each other in the file and on the device: swap takes whole pages of these.
#[derive(Debug, Default)]
struct Run {
    physical: u64,
    length: u64,
}

impl Run {
    /// As the kernel counts them: from the first page boundary on the device to the last.
    fn pages(&self) -> u64 {
        let first = self.physical.div_ceil(arch::page_size());
        let end = (self.physical + self.length) / arch::page_size();
        end.saturating_sub(first)
    }
}

impl<'facts> Walk<'facts> {
    pub(super) fn new(policy: Policy, facts: &'facts Facts, range: Range<u64>) -> Self {
        Self {
            policy,
            facts,
            next: range.start,
            range,
            reasons: BTreeMap::new(),
            extents: 0,
            device: None,
            run: Run::default(),
            usable_pages: 0,
            last_end: None,
        }
    }

    /// All of a stream.
    pub(super) fn over(
        mut self,
        extents: impl Iterator<Item = Result<Extent, MapError>>,
    ) -> Result<(Vec<Reason>, u64), MapError> {
        for extent in extents {
            self.look(&extent?);
        }
        Ok(self.finish())
    }

    fn look(&mut self, extent: &Extent) {
        self.extents += 1;
        self.cover(extent);
        match extent.place {
            Place::Nowhere(why) => self.nowhere(extent, why),
            Place::On { device, physical } => self.on(extent, device, physical),
        }
        if self.refuses_unwritten(extent) {
            self.add(Name::Unwritten, extent);
        }
        if extent.flags.any(ExtentFlags::SHARED) {
            self.add(Name::Shared, extent);
        }
    }

    /// A gap before the extent is a hole.
    fn cover(&mut self, extent: &Extent) {
        if extent.logical > self.next {
            self.add_hole(self.next, extent.logical);
        }
        self.next = self.next.max(extent.logical.saturating_add(extent.length));
    }

    fn nowhere(&mut self, extent: &Extent, why: Unlocated) {
        let name = match why {
            // f2fs chooses the blocks when it activates.
            Unlocated::Delalloc if self.is_swap_on_f2fs() => return,
            // Counted as unwritten.
            Unlocated::Delalloc if self.refuses_unwritten(extent) => return,
            Unlocated::Inline => Name::Inline,
            Unlocated::Encoded => Name::Encoded,
            Unlocated::Delalloc => Name::Delalloc,
            Unlocated::Unknown | Unlocated::NoChunk => Name::UnknownLocation,
            Unlocated::Profile(profile) => {
                self.add(Name::Profile, extent);
                self.detail(Name::Profile, profile);
                return;
            }
        };
        self.add(name, extent);
    }

    fn refuses_unwritten(&self, extent: &Extent) -> bool {
        self.policy != Policy::Swap && extent.flags.any(ExtentFlags::UNWRITTEN)
    }

    fn is_swap_on_f2fs(&self) -> bool {
        self.policy == Policy::Swap && self.facts.fs.family == Family::F2fs
    }

    fn on(&mut self, extent: &Extent, device: BlockDevice, physical: u64) {
        if *self.device.get_or_insert(device) != device {
            self.add(Name::ForeignDevice, extent);
            self.detail(Name::ForeignDevice, &device.to_string());
        }
        if self.policy == Policy::Swap {
            self.count_pages(extent, physical);
        } else if extent.flags.any(ExtentFlags::NOT_ALIGNED) || physical % SECTOR != 0 {
            self.add(Name::Unaligned, extent);
        } else {
            self.look_at_sections(extent, physical);
        }
    }

    /// f2fs collects sections: where other files have blocks in the same one, it gives up in the end, and unpins.
    fn look_at_sections(&mut self, extent: &Extent, physical: u64) {
        let Some(sections) = self.facts.sections else {
            return;
        };
        let inside = |at: u64| at.saturating_sub(sections.main) % sections.section.max(1) != 0;
        let (start, end) = (extent.logical, extent.logical + extent.length);
        let last = self.last_end.replace((end, physical + extent.length));
        // What is before a range that begins inside of the file is not looked at.
        let cut = last.is_none() && start != 0;
        let left = last.is_some_and(|(_, last)| inside(last));
        if last != Some((start, physical)) && (left || !cut && inside(physical)) {
            self.add(Name::NotPinned, extent);
            self.detail(Name::NotPinned, "in sections that other files may share");
        }
    }

    fn count_pages(&mut self, extent: &Extent, physical: u64) {
        if self.run.physical + self.run.length == physical && self.run.length > 0 {
            self.run.length += extent.length;
            return;
        }
        self.usable_pages += self.run.pages();
        self.run = Run {
            physical,
            length: extent.length,
        };
    }

    fn add(&mut self, name: Name, extent: &Extent) {
        let entry = self.reasons.entry(name).or_insert_with(|| Reason {
            count: 0,
            first: Some(extent.logical),
            ..Reason::whole(name)
        });
        entry.count += 1;
        entry.bytes = entry.bytes.saturating_add(extent.length);
    }

    fn detail(&mut self, name: Name, detail: &str) {
        if let Some(reason) = self.reasons.get_mut(&name) {
            reason.detail.get_or_insert_with(|| detail.to_owned());
        }
    }

    fn add_hole(&mut self, start: u64, end: u64) {
        let hole = Extent {
            logical: start,
            length: end - start,
            flags: ExtentFlags::default(),
            place: Place::Nowhere(Unlocated::Unknown),
        };
        self.add(Name::Hole, &hole);
    }

    fn finish(mut self) -> (Vec<Reason>, u64) {
        if self.next < self.range.end {
            self.add_hole(self.next, self.range.end);
        }
        self.usable_pages += self.run.pages();
        let few = self.policy == Policy::Swap && self.usable_pages < 2 && self.reasons.is_empty();
        let mut reasons: Vec<Reason> = self.reasons.into_values().collect();
        if few && self.facts.fs.family != Family::F2fs {
            let pages = format!("{} whole pages on the device", self.usable_pages);
            reasons.push(Reason::whole(Name::TooSmall).with(pages));
        }
        (reasons, self.extents)
    }
}
