//! Columns of `longpin ls`.

use clap::ValueEnum;

/// Columns of `ls`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Column {
    /// Number of the hold, for `release`
    Id,
    /// pin; explicit: asked for; broken: pages left the file while pinned; swap: an active swap file; on-demand: a
    /// region that the hardware faults in, without a pin
    Kind,
    /// What is refused: layout, swapfile, or none
    Level,
    /// The file, as seen from here
    Path,
    /// First pinned byte
    Start,
    /// First byte after the last pinned one
    End,
    /// Pages pinned now
    Pages,
    /// Process
    Pid,
    /// Its name
    Command,
    /// Who in the kernel pinned, or uses the region
    Consumer,
    /// cgroup v2 path
    Cgroup,
    /// Time of the first pin, or of the region's registration
    Since,
    /// User
    Uid,
    /// Pages that left the file while pinned
    Broken,
    /// Why it is a hold, or is none
    Why,
}

impl Column {
    pub(crate) const fn heading(self) -> &'static str {
        match self {
            Self::Id => "ID",
            Self::Kind => "KIND",
            Self::Level => "LEVEL",
            Self::Path => "PATH",
            Self::Start => "START",
            Self::End => "END",
            Self::Pages => "PAGES",
            Self::Pid => "PID",
            Self::Command => "COMMAND",
            Self::Consumer => "CONSUMER",
            Self::Cgroup => "CGROUP",
            Self::Since => "SINCE",
            Self::Uid => "UID",
            Self::Broken => "BROKEN",
            Self::Why => "WHY",
        }
    }
}
