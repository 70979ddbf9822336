//! The plan: a question goes in, an answer comes out. It asks nobody.

use super::{
    Access, Capabilities, Device, Level, Longterm, Medium, Plan, Question, Rule, TransportCaps,
    Wish,
};
use longpin_linux::memory::Sharing;

/// What will happen.
#[must_use]
pub fn decide(question: &Question) -> Plan {
    let refused = match refuse_always(question) {
        Some(rule) => rule,
        None => match (question.wish, on_demand(question)) {
            (Wish::Any | Wish::OnDemand, Ok(())) => return fault(question),
            (Wish::OnDemand, Err(rule)) => rule,
            (Wish::Any | Wish::Pin, _) => match refuse_pin(question) {
                None => return pin(question),
                Some(rule) => rule,
            },
        },
    };
    match question.blocks {
        Some(true) if matches!(refused, Rule::DaxLongterm | Rule::DirtyTracking) => {
            Plan::LendBlocks(refused)
        }
        _ => Plan::Refused(refused),
    }
}

/// A private mapping is not the file's memory: there is nothing to hold.
fn fault(question: &Question) -> Plan {
    match (question.level, question.sharing) {
        (Level::Swapfile, Sharing::Shared) => Plan::HeldOnDemand,
        _ => Plan::OnDemand,
    }
}

fn pin(question: &Question) -> Plan {
    match question.sharing {
        Sharing::Private => Plan::Copy,
        Sharing::Shared => Plan::Longterm(Longterm {
            level: question.level,
            writable_mapping: writes(question) || pins_for_writing(question),
        }),
    }
}

/// io_uring has no other access.
fn writes(question: &Question) -> bool {
    matches!(question.device, Device::IoUring) || question.access.writes()
}

/// The kernel's pin is one for writing, whatever the device does.
fn pins_for_writing(question: &Question) -> bool {
    let by_rdma = matches!(question.device, Device::Rdma(_));
    writes(question) || by_rdma && question.kernel.rdma_always_writes
}

/// Neither on demand nor pinned.
fn refuse_always(question: &Question) -> Option<Rule> {
    let too_large = match &question.device {
        Device::Rdma(caps) => question.bytes > caps.max_region,
        Device::IoUring => false,
    };
    let switched_off = question.device == Device::IoUring && !question.kernel.io_uring;
    // A private mapping is writable whatever the file allows.
    let needs_file = question.sharing == Sharing::Shared && writes(question);
    let rules = [
        (!question.unfit.is_empty(), Rule::FileUnfit),
        (question.medium == Medium::Secret, Rule::SecretMemory),
        (switched_off, Rule::IoUringDisabled),
        (needs_file && !question.may_write, Rule::NotWritable),
        (too_large, Rule::DeviceLimit),
        (lacks(question, Rule::NoHugePages), Rule::NoHugePages),
    ];
    rules.iter().find(|(applies, _)| *applies).map(|(_, r)| *r)
}

/// Huge pages are set aside when the file is mapped, for whomever.
fn lacks(question: &Question, rule: Rule) -> bool {
    question.lack.is_some_and(|lack| lack.rule == rule)
}

fn on_demand(question: &Question) -> Result<(), Rule> {
    match &question.device {
        Device::Rdma(caps) if caps.on_demand => faults(caps, question.access),
        _ => Err(Rule::DeviceCannotFault),
    }
}

/// Whether the device does this access without a pin, on a reliable connection.
fn faults(caps: &Capabilities, access: Access) -> Result<(), Rule> {
    let received = access.local_write && !access.remote_write;
    let sent = !access.remote_read && !access.writes();
    let needed = [
        (access.remote_read, TransportCaps::READ),
        (access.remote_write, TransportCaps::WRITE),
        (received, TransportCaps::RECV),
        (sent, TransportCaps::SEND),
    ];
    let has = |(wanted, bit): &(bool, u32)| !wanted || caps.rc.has(*bit);
    match needed.iter().all(has) {
        true => Ok(()),
        false => Err(Rule::AccessNotOnDemand),
    }
}

fn refuse_pin(question: &Question) -> Option<Rule> {
    let shared = question.sharing == Sharing::Shared;
    let on_disk = matches!(
        question.medium,
        Medium::PageCache | Medium::Dax | Medium::DaxDevice
    );
    let by_ring = question.device == Device::IoUring;
    let kernel = &question.kernel;
    let tracked = shared && question.medium == Medium::PageCache && pins_for_writing(question);
    let mapped_so = !shared || question.may_write;
    let lack = question.lack.as_ref().map(|lack| lack.rule);
    let rules = [
        (question.medium == Medium::Dax, Rule::DaxLongterm),
        (
            by_ring && kernel.io_uring_memory_only && on_disk,
            Rule::IoUringMemoryOnly,
        ),
        (
            kernel.refuses_tracked_writes && tracked,
            Rule::DirtyTracking,
        ),
        (pins_for_writing(question) && !mapped_so, Rule::RdmaWrites),
        (
            question.memlock.is_some_and(|left| question.bytes > left),
            Rule::Memlock,
        ),
    ];
    let refused = rules.iter().find(|(applies, _)| *applies).map(|(_, r)| *r);
    refused.or(lack)
}
