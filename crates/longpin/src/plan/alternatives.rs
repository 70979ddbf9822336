//! What would work instead: found by asking again with one thing changed, so that no advice is given that is refused, too.

use longpin_linux::ring_limits;

use super::{
    Access, Capabilities, Device, Lack, Level, Medium, Question, Rule, TransportCaps, Wish, decide,
};

/// Something else that would not be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Alternative {
    /// Hold pages and blocks only, not the contents.
    LevelLayout,
    /// Let the device only read.
    ReadOnly,
    /// Take a pin instead of on-demand paging.
    Pin,
    /// Take a device that can fault pages in.
    FaultingDevice,
    /// Take the persistent memory without a file system.
    DaxDevice,
    /// Keep the file on tmpfs or hugetlbfs.
    MemoryFile,
    /// Take RDMA instead of io_uring.
    Rdma,
    /// Raise the limit of locked memory.
    RaiseMemlock,
    /// Several buffers, each a piece of it.
    Pieces,
    /// Lend the blocks.
    LendBlocks,
}

impl Alternative {
    const ALL: [Self; 10] = [
        Self::LevelLayout,
        Self::ReadOnly,
        Self::Pin,
        Self::FaultingDevice,
        Self::DaxDevice,
        Self::MemoryFile,
        Self::Rdma,
        Self::RaiseMemlock,
        Self::Pieces,
        Self::LendBlocks,
    ];

    /// Those that help with this question, easiest first; none for what is not refused.
    #[must_use]
    pub fn to(question: &Question) -> Vec<Self> {
        if decide(question).refusal().is_none() {
            return Vec::new();
        }
        let helps = |other: &Self| match other.change(question) {
            Some(changed) => decide(&changed).refusal().is_none(),
            None => *other == Self::LendBlocks && question.blocks == Some(true),
        };
        Self::ALL.into_iter().filter(helps).collect()
    }

    /// The question that it is; `None` where it is none.
    fn change(self, question: &Question) -> Option<Question> {
        let mut changed = question.clone();
        match self {
            Self::LevelLayout if question.level == Level::Layout || !question.fit_for_layout => {
                return None;
            }
            Self::LevelLayout => {
                changed.level = Level::Layout;
                changed.unfit = Vec::new();
            }
            Self::ReadOnly => changed.access = Access::READ,
            Self::Pin => changed.wish = Wish::Pin,
            Self::FaultingDevice => changed.device = Device::Rdma(faulting(question)),
            Self::DaxDevice if question.medium == Medium::Dax => {
                changed.medium = Medium::DaxDevice;
                changed.level = Level::Layout;
            }
            // There it lies, or there is no room for it.
            Self::MemoryFile if question.medium == Medium::Memory => return None,
            Self::MemoryFile => {
                changed.medium = Medium::Memory;
                changed.lack = question.lack.filter(|lack| lack.rule == Rule::BufferLimit);
            }
            Self::Rdma if question.device == Device::IoUring => {
                let caps = Capabilities {
                    on_demand: false,
                    ..faulting(question)
                };
                changed.device = Device::Rdma(caps);
                changed.lack = without(question, Rule::BufferLimit);
                changed.access = Access::READ;
            }
            Self::RaiseMemlock => changed.memlock = None,
            Self::Pieces => {
                changed.bytes = piece(question)?;
                changed.lack = None;
            }
            Self::DaxDevice | Self::Rdma | Self::LendBlocks => return None,
        }
        Some(changed).filter(|changed| changed != question)
    }

    /// The name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LevelLayout => "level-layout",
            Self::ReadOnly => "read-only",
            Self::Pin => "pin",
            Self::FaultingDevice => "faulting-device",
            Self::DaxDevice => "dax-device",
            Self::MemoryFile => "memory-file",
            Self::Rdma => "rdma",
            Self::RaiseMemlock => "raise-memlock",
            Self::Pieces => "pieces",
            Self::LendBlocks => "lend-blocks",
        }
    }

    /// What to do, as a command; the path is quoted for a shell.
    #[must_use]
    pub fn hint(self, path: &str, device: &str) -> String {
        let again = format!("longpin check {path} --device");
        match self {
            Self::LevelLayout => {
                format!("{again} {device} --level layout   # pages stay, contents may change")
            }
            Self::ReadOnly => format!("{again} {device} --access read   # it only reads"),
            Self::Pin => format!("{again} {device} --registration pin   # a pin instead"),
            Self::FaultingDevice => {
                "ibv_devinfo -v | grep -A1 -e hca_id -e general_odp_caps   # has one on-demand paging?".into()
            }
            Self::DaxDevice => {
                "ndctl create-namespace -m devdax   # a DAX device of free persistent memory, without a file system"
                    .into()
            }
            Self::MemoryFile => format!("cp {path} /dev/shm/   # keep it in memory"),
            Self::Rdma => format!("{again} NAME --access read   # an RDMA device may read it"),
            Self::RaiseMemlock => "ulimit -l unlimited   # or LimitMEMLOCK= of the service".into(),
            Self::Pieces => format!(
                "{again} {device} --range 0+{}   # in pieces of 1 GiB, each a buffer: {} at most",
                ring_limits::LEAST,
                ring_limits::BUFFERS
            ),
            Self::LendBlocks => format!("longpin check {path} --for blocks   # lend its blocks"),
        }
    }
}

/// Bytes of one of several buffers, if a ring takes so many.
fn piece(question: &Question) -> Option<u64> {
    let lack = question
        .lack
        .filter(|lack| lack.rule == Rule::BufferLimit)?;
    let pieces = question.bytes.div_ceil(lack.there.max(1));
    (pieces <= ring_limits::BUFFERS).then_some(lack.there)
}

/// What else is lacking.
fn without(question: &Question, rule: Rule) -> Option<Lack> {
    question.lack.filter(|lack| lack.rule != rule)
}

/// A device that can do everything.
fn faulting(question: &Question) -> Capabilities {
    let all = TransportCaps(u32::MAX);
    Capabilities {
        device: question.device.name().to_owned(),
        on_demand: true,
        rc: all,
        uc: all,
        ud: all,
        max_region: u64::MAX,
    }
}
