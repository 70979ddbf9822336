//! The judgement on made-up extents, and on files of this host.

use super::judge::large_blocks;
use super::*;
use crate::extents::{BlockDevice, Extent, ExtentFlags, Place, Unlocated};
use crate::filesystem::FileSystem;
use longpin_linux::arch;
use longpin_linux::file::Attributes;
use rustix::fs::IFlags;

const DISK: BlockDevice = BlockDevice(8, 1);

fn facts(magic: u64) -> Facts {
    let file = tempfile::tempfile().unwrap();
    let mut status = file::status(&file).unwrap();
    status.links = 1;
    status.size = 1 << 20;
    status.magic = magic;
    status.read_only = false;
    status.attributes = Attributes::default();
    Facts {
        fs: FileSystem::of_magic(magic),
        status,
        memfd: false,
        active_swap: false,
        flags: Some(IFlags::empty()),
        busy: None,
        mover: None,
        sections: None,
        log_structured: false,
        journalled: false,
        device_read_only: false,
        read_only_subvolume: false,
        scrubbed: false,
        zoned: false,
        gaps: Vec::new(),
        zeroing: None,
    }
}

const EXT4: u64 = 0xef53;
const BTRFS: u64 = 0x9123_683e;
const F2FS: u64 = 0xf2f5_2010;
const TMPFS: u64 = 0x0102_1994;

fn extent(logical: u64, length: u64, flags: ExtentFlags) -> Extent {
    let place = Place::On {
        device: DISK,
        physical: (1 << 30) + logical,
    };
    Extent {
        logical,
        length,
        flags,
        place,
    }
}

fn names_of(policy: Policy, magic: u64, extents: &[Extent]) -> Vec<&'static str> {
    let facts = facts(magic);
    let walk = Walk::new(policy, &facts, 0..1 << 20);
    let (reasons, _) = walk.over(extents.iter().copied().map(Ok)).unwrap();
    reasons.iter().map(|reason| reason.name.as_str()).collect()
}

const PLAIN: ExtentFlags = ExtentFlags(0);

#[test]
fn one_written_extent_is_fit_for_everything() {
    let all = [extent(0, 1 << 20, PLAIN)];
    for policy in [Policy::Swap, Policy::Blocks, Policy::Dax] {
        assert_eq!(names_of(policy, EXT4, &all), [""; 0]);
    }
}

#[test]
fn swap_takes_unwritten_extents_and_a_device_does_not() {
    let all = [extent(0, 1 << 20, ExtentFlags::UNWRITTEN)];
    assert_eq!(names_of(Policy::Swap, EXT4, &all), [""; 0]);
    assert_eq!(names_of(Policy::Blocks, EXT4, &all), ["unwritten"]);
    assert_eq!(names_of(Policy::Dax, EXT4, &all), ["unwritten"]);
}

#[test]
fn holes_are_counted_before_between_and_behind() {
    let facts = facts(EXT4);
    let walk = Walk::new(Policy::Blocks, &facts, 4096..1 << 20);
    let extents = [extent(8192, 4096, PLAIN), extent(16384, 4096, PLAIN)];
    let (reasons, count) = walk.over(extents.into_iter().map(Ok)).unwrap();
    assert_eq!((reasons.len(), count), (1, 2));
    let hole = &reasons[0];
    assert_eq!((hole.name, hole.count), (Name::Hole, 3));
    assert_eq!(hole.first, Some(4096));
    assert_eq!(hole.bytes, (1 << 20) - 4096 - 8192);
}

#[test]
fn each_flag_has_its_name() {
    let half = 1 << 19;
    let nowhere = |why| Extent {
        place: Place::Nowhere(why),
        ..extent(half, half, PLAIN)
    };
    let with = |second| [extent(0, half, PLAIN), second];
    let blocks = |second| names_of(Policy::Blocks, EXT4, &with(second));
    assert_eq!(blocks(extent(half, half, ExtentFlags::SHARED)), ["shared"]);
    let unaligned = extent(half, half, ExtentFlags::NOT_ALIGNED);
    assert_eq!(blocks(unaligned), ["unaligned"]);
    assert_eq!(blocks(nowhere(Unlocated::Inline)), ["inline"]);
    assert_eq!(blocks(nowhere(Unlocated::Encoded)), ["encoded"]);
    assert_eq!(blocks(nowhere(Unlocated::Delalloc)), ["delalloc"]);
    assert_eq!(blocks(nowhere(Unlocated::Unknown)), ["unknown-location"]);
    let profile = nowhere(Unlocated::Profile("dup"));
    assert_eq!(blocks(profile), ["profile"]);
    let mut elsewhere = extent(half, half, PLAIN);
    elsewhere.place = Place::On {
        device: BlockDevice(8, 2),
        physical: 0,
    };
    assert_eq!(blocks(elsewhere), ["foreign-device"]);
}

#[test]
fn swap_needs_whole_pages_on_the_device() {
    let at = |logical: u64, physical: u64, length: u64| Extent {
        place: Place::On {
            device: DISK,
            physical,
        },
        ..extent(logical, length, PLAIN)
    };
    // Blocks of 1 KiB, none beside its neighbour: no page is whole.
    let scattered: Vec<_> = (0..1024).map(|i| at(i << 10, i << 13, 1024)).collect();
    assert_eq!(names_of(Policy::Swap, EXT4, &scattered), ["too-small"]);
    assert_eq!(names_of(Policy::Blocks, EXT4, &scattered), [""; 0]);
    // The same, all side by side.
    let close: Vec<_> = (0..1024).map(|i| at(i << 10, i << 10, 1024)).collect();
    assert_eq!(names_of(Policy::Swap, EXT4, &close), [""; 0]);
}

#[test]
fn promised_blocks_are_for_f2fs_to_choose() {
    let promised = [Extent {
        place: Place::Nowhere(Unlocated::Delalloc),
        ..extent(0, 1 << 20, ExtentFlags::UNWRITTEN)
    }];
    assert_eq!(names_of(Policy::Swap, F2FS, &promised), [""; 0]);
    assert_eq!(names_of(Policy::Swap, EXT4, &promised), ["delalloc"]);
    assert_eq!(names_of(Policy::Blocks, F2FS, &promised), ["unwritten"]);
}

fn whole(policy: Policy, facts: &Facts) -> Vec<&'static str> {
    let reasons = whole_file(policy, facts);
    reasons.iter().map(|reason| reason.name.as_str()).collect()
}

#[test]
fn file_systems_are_refused_by_name() {
    let of = |policy, magic| whole(policy, &facts(magic));
    assert_eq!(of(Policy::Pages, TMPFS), [""; 0]);
    assert_eq!(of(Policy::Blocks, TMPFS), ["no-blocks"]);
    assert_eq!(of(Policy::Swap, BTRFS), ["copy-on-write"]);
    assert_eq!(of(Policy::Pages, BTRFS), [""; 0]);
    assert_eq!(of(Policy::Blocks, F2FS), ["not-pinned"]);
    assert_eq!(of(Policy::Swap, F2FS), [""; 0]);
    for policy in [Policy::Pages, Policy::Swap, Policy::Blocks, Policy::Dax] {
        assert_eq!(of(policy, 0xca45_1a4e), ["moves-data"]);
        assert_eq!(of(policy, 0x6969), ["not-local"]);
        assert_eq!(of(policy, 0x6573_5546), ["not-local"]);
        assert_eq!(of(policy, 0x794c_7630), ["overlay"]);
    }
}

#[test]
fn attributes_speak_where_they_matter() {
    let mut facts = facts(EXT4);
    facts.status.attributes.immutable = true;
    facts.status.read_only = true;
    assert_eq!(whole(Policy::Swap, &facts), ["read-only", "immutable"]);
    assert_eq!(whole(Policy::Blocks, &facts), ["read-only"]);
    assert_eq!(whole(Policy::Pages, &facts), [""; 0]);
    facts.status.links = 0;
    assert_eq!(whole(Policy::Pages, &facts), ["deleted"]);
    facts.memfd = true;
    assert_eq!(whole(Policy::Pages, &facts), [""; 0]);
}

#[test]
fn what_moves_data_later_matters_where_blocks_are_lent() {
    let mut facts = facts(BTRFS);
    facts.flags = Some(IFlags::NOCOW);
    facts.mover = Some("mount option autodefrag".into());
    assert_eq!(whole(Policy::Blocks, &facts), ["moves-data"]);
    assert_eq!(whole(Policy::Swap, &facts), [""; 0]);
    facts.busy = Some("balance".into());
    assert_eq!(whole(Policy::Swap, &facts), ["file-system-busy"]);
}

#[test]
fn f2fs_leaves_only_files_in_place_that_share_no_section() {
    const SECTION: u64 = 2 << 20;
    let mut facts = facts(F2FS);
    facts.sections = Some(longpin_linux::f2fs::Layout {
        main: 1 << 20,
        section: SECTION,
        many_devices: false,
    });
    let names = |policy, range: Range<u64>, pieces: &[(u64, u64, u64)]| {
        let at = |&(logical, physical, length): &(u64, u64, u64)| {
            let device = DISK;
            let physical = (1 << 20) + physical;
            let place = Place::On { device, physical };
            Ok(Extent {
                place,
                ..extent(logical, length, PLAIN)
            })
        };
        let walk = Walk::new(policy, &facts, range);
        let (reasons, _) = walk.over(pieces.iter().map(at)).unwrap();
        let names: Vec<_> = reasons.iter().map(|it| it.name.as_str()).collect();
        names
    };
    let all = 0..SECTION + 8192;
    let tail = (SECTION, 8 * SECTION, 8192);
    let whole = [(0, 4 * SECTION, SECTION), tail];
    assert_eq!(names(Policy::Blocks, all.clone(), &whole), [""; 0]);
    // One run in two extents.
    let halves = [(0, 0, 8192), (8192, 8192, SECTION - 8192), tail];
    assert_eq!(names(Policy::Blocks, all.clone(), &halves), [""; 0]);
    let inside = [(0, 4 * SECTION + 4096, SECTION), tail];
    assert_eq!(names(Policy::Blocks, all.clone(), &inside), ["not-pinned"]);
    assert_eq!(names(Policy::Swap, all.clone(), &inside), [""; 0]);
    let left = [(0, 0, 8192), (8192, 8 * SECTION, SECTION)];
    assert_eq!(names(Policy::Blocks, all, &left), ["not-pinned"]);
    // A part of a file says nothing of what is before it.
    let part = [(4096, 4 * SECTION + 4096, 4096)];
    assert_eq!(names(Policy::Blocks, 4096..8192, &part), [""; 0]);
}

#[test]
fn ranges_do_not_wrap() {
    let range = |offset, len| range_of(Some(ByteRange { offset, len }), 8192);
    assert_eq!(range(4096, 4096), Ok(4096..8192));
    assert_eq!(range(4096, 4097), Err(Name::BeyondEnd));
    assert_eq!(range(u64::MAX, 2), Err(Name::Overflow));
    assert_eq!(range(1 << 62, 1 << 62), Err(Name::Overflow));
    assert_eq!(range_of(None, 8192), Ok(0..8192));
}

#[test]
fn no_unknown_is_a_yes() {
    let mut report = not_regular(Path::new("/"), Policy::Pages, Kind::Directory);
    assert_eq!(report.verdict(), CheckVerdict::Refused);
    report.reasons.clear();
    assert_eq!(report.verdict(), CheckVerdict::Yes);
    report.unknown = Some("something".into());
    assert_eq!(report.verdict(), CheckVerdict::CannotTell);
}

#[test]
fn files_of_this_host_are_judged() {
    let pages = |path: &str| check(Path::new(path), Policy::Pages, None).unwrap();
    assert_eq!(pages("/dev/null").verdict(), CheckVerdict::Refused);
    assert_eq!(pages("/").reasons[0].name, Name::NotRegular);
    let file = tempfile::NamedTempFile::new().unwrap();
    let fresh = check(file.path(), Policy::Pages, None).unwrap();
    assert_eq!(fresh.reasons, [Reason::whole(Name::Empty)]);
    std::fs::write(file.path(), [1; 10_000]).unwrap();
    let wanted = Some(ByteRange {
        offset: 4096,
        len: 10_000,
    });
    let beyond = check(file.path(), Policy::Pages, wanted).unwrap();
    assert_eq!(beyond.reasons, [Reason::whole(Name::BeyondEnd)]);
}

/// Somebody writes to the file each time that it is looked at: no verdict but that one.
#[test]
fn a_file_that_changes_is_refused() {
    use std::os::unix::fs::FileExt;
    let named = tempfile::NamedTempFile::new().unwrap();
    let file = named.as_file();
    file.write_all_at(&[1; 1 << 16], 0).unwrap();
    let mut looks = 0;
    let mut check = |changes: u64| {
        looks = 0;
        let mut meanwhile = || {
            looks += 1;
            if looks <= changes {
                // Longer than a tick, which is as fine as older kernels tell times.
                std::thread::sleep(std::time::Duration::from_millis(20));
                file.write_all_at(b"x", looks).unwrap();
            }
        };
        let report = attempt(file, named.path(), Policy::Blocks, None, &mut meanwhile);
        let report = report.unwrap();
        let changed = |reason: &Reason| reason.name == Name::Changed;
        (report.reasons.iter().any(changed), looks)
    };
    assert_eq!(check(0), (false, 1));
    assert_eq!(check(1), (false, 2));
    assert_eq!(check(u64::MAX), (true, ATTEMPTS as u64));
}

proptest::proptest! {
    /// Whatever the extents are: what is hole and what is not makes up the range.
    #[test]
    fn every_byte_is_an_extents_or_a_holes(runs in proptest::collection::vec((0_u64..4, 1_u64..4), 0..40)) {
        let mut at = 0;
        let mut covered = 0;
        let mut extents = Vec::new();
        for (gap, length) in runs {
            at += gap * arch::page_size();
            extents.push(extent(at, length * arch::page_size(), PLAIN));
            at += length * arch::page_size();
            covered += length * arch::page_size();
        }
        let facts = facts(EXT4);
        let walk = Walk::new(Policy::Blocks, &facts, 0..1 << 20);
        let (reasons, _) = walk.over(extents.into_iter().map(Ok)).unwrap();
        let holes: u64 = reasons.iter().map(|reason| reason.bytes).sum();
        proptest::prop_assert_eq!(holes + covered, 1 << 20);
    }
}

#[test]
fn what_is_not_known_is_no_yes() {
    let mut facts = facts(EXT4);
    let gap = |swap| Gap {
        swap,
        what: "whether".into(),
    };
    facts.gaps = vec![gap(false)];
    assert_eq!((facts.gap(false), facts.gap(true)), (Some("whether"), None));
    facts.gaps = vec![gap(true)];
    assert_eq!(facts.gap(true), Some("whether"));
}

#[test]
fn a_scrub_speaks_against_lending_and_of_large_blocks_swap_cannot_tell() {
    let mut facts = facts(BTRFS);
    facts.flags = Some(IFlags::NOCOW);
    facts.scrubbed = true;
    let names = |policy, facts: &Facts| {
        let reasons = whole_file(policy, facts).into_iter();
        reasons
            .map(|reason| reason.name.as_str())
            .collect::<Vec<_>>()
    };
    facts.status.block_size = 4096;
    assert_eq!(large_blocks(&facts), None);
    assert_eq!(names(Policy::Blocks, &facts), ["file-system-busy"]);
    assert_eq!(names(Policy::Swap, &facts), [""; 0]);
    facts.status.block_size = 16384;
    assert!(large_blocks(&facts).unwrap().contains("16384 bytes"));
    facts.zoned = true;
    assert!(names(Policy::Blocks, &facts).contains(&"copy-on-write"));
}
