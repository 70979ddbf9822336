use super::read::counts_more;
use super::*;
use crate::activation::Name;

const OLD: KernelRules = KernelRules {
    refuses_tracked_writes: false,
    io_uring_memory_only: true,
    rdma_always_writes: true,
    io_uring: true,
};
const NEW: KernelRules = KernelRules {
    refuses_tracked_writes: true,
    io_uring_memory_only: false,
    rdma_always_writes: false,
    io_uring: true,
};
const LAYOUT: Level = Level::Layout;

fn device(on_demand: bool) -> Device {
    let caps = TransportCaps(if on_demand { 0x1f } else { 0 });
    Device::Rdma(Capabilities {
        device: "rxe0".into(),
        on_demand,
        rc: caps,
        uc: TransportCaps::default(),
        ud: TransportCaps::default(),
        max_region: 1 << 40,
    })
}

fn question(medium: Medium, access: Access, device: Device, kernel: KernelRules) -> Question {
    Question {
        medium,
        sharing: Sharing::Shared,
        access,
        wish: Wish::Any,
        level: LAYOUT,
        fit_for_layout: false,
        device,
        kernel,
        may_write: true,
        bytes: 4096,
        memlock: None,
        lack: None,
        unfit: Vec::new(),
        blocks: None,
    }
}

fn pinned(writable_mapping: bool) -> Plan {
    let level = LAYOUT;
    Plan::Longterm(Longterm {
        level,
        writable_mapping,
    })
}

#[test]
fn the_measured_table() {
    use Medium::{Dax, HugePages, Memory, PageCache};
    let rdma = || device(false);
    let ring = || Device::IoUring;
    let (read, write) = (Access::READ, Access::READ_WRITE);
    let cells = [
        (Memory, read, rdma(), NEW, pinned(false)),
        (Memory, write, rdma(), NEW, pinned(true)),
        (HugePages, write, ring(), NEW, pinned(true)),
        (PageCache, read, rdma(), NEW, pinned(false)),
        (PageCache, read, rdma(), OLD, pinned(true)),
        (PageCache, write, rdma(), OLD, pinned(true)),
        (
            PageCache,
            write,
            rdma(),
            NEW,
            Plan::Refused(Rule::DirtyTracking),
        ),
        (
            PageCache,
            write,
            ring(),
            NEW,
            Plan::Refused(Rule::DirtyTracking),
        ),
        (
            PageCache,
            read,
            ring(),
            NEW,
            Plan::Refused(Rule::DirtyTracking),
        ),
        (
            PageCache,
            write,
            ring(),
            OLD,
            Plan::Refused(Rule::IoUringMemoryOnly),
        ),
        (Dax, read, rdma(), NEW, Plan::Refused(Rule::DaxLongterm)),
        (Dax, read, rdma(), OLD, Plan::Refused(Rule::DaxLongterm)),
        (
            Medium::Secret,
            read,
            device(true),
            NEW,
            Plan::Refused(Rule::SecretMemory),
        ),
    ];
    for (medium, access, device, kernel, plan) in cells {
        let question = question(medium, access, device, kernel);
        assert_eq!(decide(&question), plan, "{question:?}");
    }
    for medium in [Memory, HugePages, PageCache, Dax] {
        let question = question(medium, write, device(true), NEW);
        assert_eq!(decide(&question), Plan::OnDemand);
    }
}

#[test]
fn private_mappings_are_copies() {
    let mut asked = question(Medium::PageCache, Access::READ_WRITE, Device::IoUring, NEW);
    asked.sharing = Sharing::Private;
    asked.may_write = false;
    assert_eq!(decide(&asked), Plan::Copy);
    asked.kernel = OLD;
    assert_eq!(decide(&asked), Plan::Refused(Rule::IoUringMemoryOnly));
    asked.medium = Medium::Dax;
    asked.kernel = NEW;
    assert_eq!(decide(&asked), Plan::Refused(Rule::DaxLongterm));
}

#[test]
fn wishes_are_kept_or_refused() {
    let mut asked = question(Medium::Memory, Access::READ, device(true), NEW);
    asked.wish = Wish::Pin;
    assert_eq!(decide(&asked), pinned(false));
    asked.wish = Wish::OnDemand;
    asked.device = device(false);
    assert_eq!(decide(&asked), Plan::Refused(Rule::DeviceCannotFault));
    asked.device = Device::IoUring;
    assert_eq!(decide(&asked), Plan::Refused(Rule::DeviceCannotFault));
}

#[test]
fn a_device_that_faults_only_some_accesses_pins_for_the_others() {
    let mut caps = match device(true) {
        Device::Rdma(caps) => caps,
        Device::IoUring => unreachable!("an RDMA device"),
    };
    caps.rc = TransportCaps(TransportCaps::READ);
    let mut asked = question(Medium::Memory, Access::READ, Device::Rdma(caps), NEW);
    assert_eq!(decide(&asked), Plan::OnDemand);
    asked.access = Access::READ_WRITE;
    assert_eq!(decide(&asked), pinned(true));
    asked.wish = Wish::OnDemand;
    assert_eq!(decide(&asked), Plan::Refused(Rule::AccessNotOnDemand));
    assert!(Alternative::to(&asked).contains(&Alternative::ReadOnly));
    assert!(Alternative::to(&asked).contains(&Alternative::Pin));
}

#[test]
fn io_uring_may_count_more_than_it_pins() {
    let mut asked = question(Medium::Memory, Access::READ_WRITE, Device::IoUring, NEW);
    let of_limit = |asked: &mut Question, limit| {
        asked.memlock = limit;
        counts_more(asked, &(4096..8192)).is_some()
    };
    assert!(of_limit(&mut asked, Some(1 << 20)));
    assert!(!of_limit(&mut asked, Some(2 << 20)));
    assert!(!of_limit(&mut asked, None));
    asked.device = device(false);
    assert!(!of_limit(&mut asked, Some(1 << 20)));
}

#[test]
fn limits_bind_pins_only() {
    let mut asked = question(Medium::Memory, Access::READ, device(false), NEW);
    asked.memlock = Some(4095);
    assert_eq!(decide(&asked), Plan::Refused(Rule::Memlock));
    assert!(Alternative::to(&asked).contains(&Alternative::RaiseMemlock));
    asked.memlock = Some(4096);
    assert_eq!(decide(&asked), pinned(false));
    asked.memlock = Some(0);
    asked.device = device(true);
    assert_eq!(decide(&asked), Plan::OnDemand);
    asked.bytes = (1 << 40) + 1;
    assert_eq!(decide(&asked), Plan::Refused(Rule::DeviceLimit));
}

#[test]
fn who_may_not_write_gets_no_writing_device() {
    let mut asked = question(Medium::PageCache, Access::READ_WRITE, device(true), NEW);
    asked.may_write = false;
    assert_eq!(decide(&asked), Plan::Refused(Rule::NotWritable));
    assert_eq!(Alternative::to(&asked), [Alternative::ReadOnly]);
    asked.access = Access::READ;
    assert_eq!(decide(&asked), Plan::OnDemand);
    asked.device = device(false);
    assert_eq!(decide(&asked), pinned(false));
    // Before 6.2 a pin that reads needs a writable mapping, too.
    asked.kernel = OLD;
    assert_eq!(decide(&asked), Plan::Refused(Rule::RdmaWrites));
}

#[test]
fn advice_is_never_refused_advice() {
    let asked = question(Medium::PageCache, Access::READ_WRITE, Device::IoUring, NEW);
    let advice = Alternative::to(&asked);
    use Alternative::{FaultingDevice, MemoryFile, Rdma};
    assert_eq!(advice, [FaultingDevice, MemoryFile, Rdma]);
    let lent = Question {
        blocks: Some(true),
        ..asked.clone()
    };
    assert_eq!(decide(&lent), Plan::LendBlocks(Rule::DirtyTracking));
    assert!(Alternative::to(&lent).contains(&Alternative::LendBlocks));
    let unfit = Question {
        unfit: vec![Reason::whole(Name::Deleted)],
        ..asked
    };
    assert_eq!(decide(&unfit), Plan::Refused(Rule::FileUnfit));
    assert_eq!(Alternative::to(&unfit), []);
}

#[test]
fn level_swapfile_is_held_or_refused() {
    let mut asked = question(Medium::Dax, Access::READ_WRITE, device(true), NEW);
    asked.level = Level::Swapfile;
    assert_eq!(decide(&asked), Plan::HeldOnDemand);
    assert_eq!(decide(&asked).hold(), Some(Level::Swapfile));
    asked.sharing = Sharing::Private;
    assert_eq!(decide(&asked), Plan::OnDemand);
    assert_eq!(decide(&asked).hold(), None);
    asked.sharing = Sharing::Shared;
    asked.device = device(false);
    assert_eq!(decide(&asked), Plan::Refused(Rule::DaxLongterm));
    use Alternative::{DaxDevice, FaultingDevice, MemoryFile};
    let advice = [FaultingDevice, DaxDevice, MemoryFile];
    assert_eq!(Alternative::to(&asked), advice);
    asked.medium = Medium::PageCache;
    asked.access = Access::READ;
    assert_eq!(decide(&asked).hold(), Some(Level::Swapfile));
    asked.unfit = vec![Reason::whole(Name::CopyOnWrite)];
    assert_eq!(decide(&asked), Plan::Refused(Rule::FileUnfit));
    assert_eq!(Alternative::to(&asked), []);
    asked.fit_for_layout = true;
    assert_eq!(Alternative::to(&asked), [Alternative::LevelLayout]);
}

#[test]
fn a_dax_device_is_pinned_as_memory_is() {
    let mut asked = question(Medium::DaxDevice, Access::READ_WRITE, device(false), NEW);
    assert_eq!(decide(&asked), pinned(true));
    asked.device = Device::IoUring;
    assert_eq!(decide(&asked), pinned(true));
    asked.kernel = OLD;
    assert_eq!(decide(&asked), Plan::Refused(Rule::IoUringMemoryOnly));
}

#[test]
fn media_are_told_by_magic_and_dax() {
    let of = |magic, family| Medium::of(magic, family, false);
    assert_eq!(of(0x9584_58f6, Family::Memory), Medium::HugePages);
    assert_eq!(of(0x0102_1994, Family::Memory), Medium::Memory);
    assert_eq!(of(0x5345_434d, Family::Unknown), Medium::Secret);
    assert_eq!(of(0xef53, Family::Ext), Medium::PageCache);
    assert_eq!(Medium::of(0xef53, Family::Ext, true), Medium::Dax);
    assert_eq!(of(1, Family::Unknown), Medium::Unknown);
}

#[test]
fn what_is_lacking_is_named_and_can_be_cured() {
    let mut asked = question(Medium::Memory, Access::READ, Device::IoUring, NEW);
    asked.bytes = 3 << 30;
    asked.lack = Some(Lack {
        rule: Rule::BufferLimit,
        needed: 3 << 30,
        there: 1 << 30,
    });
    assert_eq!(decide(&asked), Plan::Refused(Rule::BufferLimit));
    assert!(Alternative::to(&asked).contains(&Alternative::Pieces));
    // More buffers than a table has.
    asked.bytes = (1 << 44) + 1;
    assert!(!Alternative::to(&asked).contains(&Alternative::Pieces));
    asked.lack = Some(Lack {
        rule: Rule::NoRoom,
        needed: 4096,
        there: 0,
    });
    assert_eq!(decide(&asked), Plan::Refused(Rule::NoRoom));
    // What is faulted in is not all needed at once.
    asked.bytes = 4096;
    asked.device = device(true);
    assert_eq!(decide(&asked), Plan::OnDemand);
}

#[test]
fn rules_have_different_names() {
    let names: std::collections::BTreeSet<_> = Rule::ALL.iter().map(|rule| rule.as_str()).collect();
    assert_eq!(names.len(), Rule::ALL.len());
}
