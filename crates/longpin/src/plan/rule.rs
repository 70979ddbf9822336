//! The rules by which registrations are refused.

use rustix::io::Errno;

/// A rule, by the name that the command line and JSON use. New ones come last: C knows them by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// The file itself: see the reasons.
    FileUnfit,
    /// memfd_secret.
    SecretMemory,
    /// The file cannot be mapped for writing, and the device writes.
    NotWritable,
    /// io_uring is switched off for this process.
    IoUringDisabled,
    /// This device cannot fault pages in, and on demand was asked for.
    DeviceCannotFault,
    /// It can, but not for this access.
    AccessNotOnDemand,
    /// Long-term pins of DAX files.
    DaxLongterm,
    /// Long-term pins for writing of pages that are written back.
    DirtyTracking,
    /// io_uring takes tmpfs and hugetlbfs only.
    IoUringMemoryOnly,
    /// The RDMA core pins for writing, and the file cannot be mapped so.
    RdmaWrites,
    /// RLIMIT_MEMLOCK.
    Memlock,
    /// The device's largest region.
    DeviceLimit,
    /// io_uring's largest buffer.
    BufferLimit,
    /// The file's memory is not all there, and its file system has no room for the rest.
    NoRoom,
    /// The file's huge pages are not all there, and there are no free ones.
    NoHugePages,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::FileUnfit,
        Self::SecretMemory,
        Self::NotWritable,
        Self::IoUringDisabled,
        Self::DeviceCannotFault,
        Self::AccessNotOnDemand,
        Self::DaxLongterm,
        Self::DirtyTracking,
        Self::IoUringMemoryOnly,
        Self::RdmaWrites,
        Self::Memlock,
        Self::DeviceLimit,
        Self::BufferLimit,
        Self::NoRoom,
        Self::NoHugePages,
    ];

    /// Its number in C (`enum longpin_rule`): its place in [`Self::ALL`], counted from 1.
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32 + 1
    }

    /// The name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FileUnfit => "file-unfit",
            Self::SecretMemory => "secret-memory",
            Self::NotWritable => "not-writable",
            Self::IoUringDisabled => "io-uring-disabled",
            Self::DeviceCannotFault => "device-cannot-fault",
            Self::AccessNotOnDemand => "access-not-on-demand",
            Self::DaxLongterm => "dax-longterm",
            Self::DirtyTracking => "dirty-tracking",
            Self::IoUringMemoryOnly => "io-uring-memory-only",
            Self::RdmaWrites => "rdma-writes",
            Self::Memlock => "memlock",
            Self::DeviceLimit => "device-limit",
            Self::BufferLimit => "buffer-limit",
            Self::NoRoom => "no-room",
            Self::NoHugePages => "no-huge-pages",
        }
    }

    /// What it means, in words.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::FileUnfit => "the file itself is not fit for it",
            Self::SecretMemory => "memory of memfd_secret(2) is out of every device's reach",
            Self::NotWritable => {
                "the device would write, and the file cannot be mapped for writing"
            }
            Self::IoUringDisabled => "io_uring is switched off for this process",
            Self::DeviceCannotFault => {
                "this device cannot fault pages in, and on-demand paging was asked for"
            }
            Self::AccessNotOnDemand => {
                "this device faults pages in, but not for this access on reliable connections"
            }
            Self::DaxLongterm => {
                "the kernel pins no DAX files long-term: the file system could not free the blocks"
            }
            Self::DirtyTracking => {
                "the kernel lets no device write for long to pages that have to be written back: \
                 the file system would not learn of the writes"
            }
            Self::IoUringMemoryOnly => {
                "io_uring on this kernel takes files of tmpfs and hugetlbfs only"
            }
            Self::RdmaWrites => {
                "RDMA on this kernel pins for writing even what the device only reads, and the file \
                 cannot be mapped for writing"
            }
            Self::Memlock => "more than the limit of locked memory allows (RLIMIT_MEMLOCK)",
            Self::DeviceLimit => "larger than the device's largest region",
            Self::BufferLimit => "larger than io_uring's largest buffer",
            Self::NoRoom => {
                "the file is larger than the memory that its file system has left, or than its user's control group may have"
            }
            Self::NoHugePages => "the file needs more huge pages than are free",
        }
    }

    /// What the registration would answer; of several, which one depends on the driver. Empty: it is not tried.
    #[must_use]
    pub const fn errnos(self) -> &'static [Errno] {
        match self {
            Self::SecretMemory | Self::DirtyTracking | Self::RdmaWrites => &[Errno::FAULT],
            Self::BufferLimit | Self::NoRoom => &[Errno::FAULT],
            Self::NotWritable => &[Errno::ACCESS],
            Self::IoUringDisabled => &[Errno::PERM, Errno::NOSYS],
            Self::DeviceCannotFault => &[Errno::INVAL, Errno::OPNOTSUPP],
            Self::DaxLongterm | Self::IoUringMemoryOnly => &[Errno::OPNOTSUPP],
            Self::Memlock | Self::NoHugePages => &[Errno::NOMEM],
            Self::FileUnfit | Self::AccessNotOnDemand | Self::DeviceLimit => &[],
        }
    }

    /// The same as names.
    #[must_use]
    pub fn errno_names(self) -> Vec<&'static str> {
        let name = |errno: &Errno| match *errno {
            Errno::FAULT => "EFAULT",
            Errno::ACCESS => "EACCES",
            Errno::PERM => "EPERM",
            Errno::NOSYS => "ENOSYS",
            Errno::INVAL => "EINVAL",
            Errno::OPNOTSUPP => "EOPNOTSUPP",
            _ => "ENOMEM",
        };
        self.errnos().iter().map(name).collect()
    }
}
