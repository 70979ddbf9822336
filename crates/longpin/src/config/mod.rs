//! `/etc/longpin/longpin.conf`: rules about who may hold what.
//!
//! Three steps, each for itself: [`parse`] reads text and knows nothing of the host, [`Config::warnings`]
//! finds rules that do nothing, [`resolve`] asks this host for the numbers that the kernel's programs
//! compare. [`load`] takes all three.
//!
//! A line is `ACTION [CONDITION...]`; for a pin the first rule of `enforce`, `ignore`, `deny` and
//! `allow` whose conditions all hold decides.

mod consumers;
mod lookup;
mod parse;
mod print;
mod problem;
#[cfg(test)]
mod properties;
mod read;
mod resolve;
#[cfg(test)]
mod resolve_tests;
mod shadow;
mod values;
mod words;

pub use consumers::MAX_RANGES;
pub use parse::parse;
pub use problem::{ConfigErrors, Problem, Severity};
pub use read::{LoadError, Missing, Source, load, read_source};
pub use resolve::{CgroupKey, FileKey, Resolved, ResolvedRule, resolve};

/// Where the rules are kept.
pub const DEFAULT_PATH: &str = "/etc/longpin/longpin.conf";
/// The kernel's programs walk no longer list than this.
pub const MAX_RULES: usize = longpin_bpf::rule::MAX_RULES;
/// Files that one user other than root may hold, unless `quota` says another number.
pub const DEFAULT_QUOTA: u32 = 4096;

/// What the file says, not yet looked up on any host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// The rules, in the order of their lines. At most [`MAX_RULES`].
    pub rules: Vec<Rule>,
    /// The `quota` line, if there is one.
    pub quota: Option<Quota>,
}

impl Config {
    /// Files that one user other than root may hold.
    #[must_use]
    pub fn files_per_user(&self) -> u32 {
        self.quota.map_or(DEFAULT_QUOTA, |quota| quota.files)
    }
}

/// `quota files=N`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// The line it stands in, from 1.
    pub line: usize,
    /// Files that one user other than root may hold.
    pub files: u32,
}

/// One rule: what happens to pins (or operations) for which all conditions hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The line it stands in, from 1.
    pub line: usize,
    /// What happens.
    pub action: Action,
    /// `path=`: absolute, without empty, `.` or `..` parts.
    pub path: Option<String>,
    /// `uid=`
    pub user: Option<User>,
    /// `cgroup=`: below the cgroup2 mount; empty for the root group.
    pub cgroup: Option<String>,
    /// `consumer=`
    pub consumer: Option<Consumer>,
}

impl Rule {
    /// A rule without conditions.
    #[must_use]
    pub fn new(line: usize, action: Action) -> Self {
        Self {
            line,
            action,
            path: None,
            user: None,
            cgroup: None,
            consumer: None,
        }
    }
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Hold, also when the pinning task could not write the file.
    Enforce,
    /// Its pins make no hold.
    Ignore,
    /// No long-term pins: the pinning process is killed (C15).
    Deny,
    /// As without rules: an exception before a broader rule.
    Allow,
    /// Pins of that consumer count as long-term though they do not say so.
    Longterm,
    /// Operations of these are never refused.
    Exempt,
    /// Files that are pinned are held at level layout.
    Layout,
    /// Files that are pinned are held at level swapfile.
    Swapfile,
}

impl Action {
    /// All actions.
    pub const ALL: [Self; 8] = [
        Self::Enforce,
        Self::Ignore,
        Self::Deny,
        Self::Allow,
        Self::Longterm,
        Self::Exempt,
        Self::Layout,
        Self::Swapfile,
    ];

    /// The word in the file.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Ignore => "ignore",
            Self::Deny => "deny",
            Self::Allow => "allow",
            Self::Longterm => "longterm",
            Self::Exempt => "exempt",
            Self::Layout => "layout",
            Self::Swapfile => "swapfile",
        }
    }

    /// The conditions that make sense for it.
    const fn conditions(self) -> &'static [&'static str] {
        match self {
            Self::Enforce
            | Self::Ignore
            | Self::Deny
            | Self::Allow
            | Self::Layout
            | Self::Swapfile => &["path", "uid", "cgroup", "consumer"],
            Self::Longterm => &["consumer"],
            Self::Exempt => &["path", "uid", "cgroup"],
        }
    }

    /// The actions of which the first match decides: each list for itself.
    const fn list(self) -> u8 {
        match self {
            Self::Enforce | Self::Ignore | Self::Deny | Self::Allow => 0,
            Self::Longterm => 1,
            Self::Exempt => 2,
            Self::Layout | Self::Swapfile => 3,
        }
    }
}

/// A user: number, or name to be looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum User {
    /// The number.
    Id(u32),
    /// A name of `/etc/passwd`.
    Name(String),
}

/// Who in the kernel asks for the pins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Consumer {
    /// RDMA memory registration.
    Rdma,
    /// io_uring's fixed buffers.
    IoUring,
    /// VFIO.
    Vfio,
    /// iommufd.
    Iommufd,
    /// udmabuf.
    Udmabuf,
    /// A module or a function of the kernel, by its name.
    Named(String),
}

impl Consumer {
    /// Those that longpin knows by name.
    pub const KNOWN: [Self; 5] = [
        Self::Rdma,
        Self::IoUring,
        Self::Vfio,
        Self::Iommufd,
        Self::Udmabuf,
    ];

    /// The word in the file.
    #[must_use]
    pub fn word(&self) -> &str {
        match self {
            Self::Rdma => "rdma",
            Self::IoUring => "io_uring",
            Self::Vfio => "vfio",
            Self::Iommufd => "iommufd",
            Self::Udmabuf => "udmabuf",
            Self::Named(name) => name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn repository(name: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../..")
            .join(name);
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn the_example_says_nothing_until_a_rule_is_uncommented() {
        let text = repository("data/longpin.conf");
        assert_eq!(parse(&text), Ok(Config::default()));
        // What is meant to be uncommented has no blank behind the `#`.
        let line = |line: &str| match line.strip_prefix('#') {
            Some(rule) if rule.starts_with(char::is_alphabetic) => format!("{rule}\n"),
            _ => format!("{line}\n"),
        };
        let config = parse(&text.lines().map(line).collect::<String>()).unwrap();
        assert_eq!((config.rules.len(), config.warnings()), (8, vec![]));
        let mut actions: Vec<_> = config.rules.iter().map(|rule| rule.action.word()).collect();
        actions.sort_unstable();
        assert_eq!(
            actions,
            [
                "allow", "deny", "enforce", "exempt", "ignore", "layout", "longterm", "swapfile"
            ]
        );
        assert!(config.quota.is_some());
    }

    #[test]
    fn the_examples_of_the_man_page_are_rules() {
        let page = repository("man/longpin.conf.5");
        let (_, examples) = page.split_once(".EX\n").unwrap();
        let config = parse(examples.split_once(".EE").unwrap().0).unwrap();
        assert_eq!((config.rules.len(), config.warnings()), (4, vec![]));
        for action in Action::ALL {
            assert!(page.contains(action.word()), "{action:?}");
        }
    }
}
