//! From names to the numbers that the kernel's programs compare, on this host and at this moment.

use std::ops::Range;

use longpin_linux::identity::{FileKind, Identity, IdentityError};

use super::consumers::find_consumer;
use super::lookup::{Host, Lookup};
use super::{Action, Config, ConfigErrors, Problem, Rule, User};

/// A configuration as the kernel's programs want it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolved {
    /// The rules that can match, in their order. A rule whose group or module is not there now is left
    /// out, with a warning.
    pub rules: Vec<ResolvedRule>,
    /// Files that one user other than root may hold.
    pub files_per_user: u32,
    /// What works otherwise than somebody may think.
    pub warnings: Vec<Problem>,
}

/// A rule in numbers. `None` means any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedRule {
    /// The line it stands in, from 1.
    pub line: usize,
    /// What happens.
    pub action: Action,
    /// This file, or all files below this directory in its file system.
    pub file: Option<FileKey>,
    /// The user that pins (or acts), in the initial user namespace.
    pub uid: Option<u32>,
    /// The group, and all below it.
    pub cgroup: Option<CgroupKey>,
    /// Kernel code: at least one range, at most [`MAX_RANGES`](super::MAX_RANGES).
    pub consumer: Option<Vec<Range<u64>>>,
}

/// A file or directory by its inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileKey {
    /// `s_dev` of its super block, as the kernel encodes it (major << 20 | minor).
    pub dev: u32,
    /// Its inode number.
    pub ino: u64,
}

/// A group of cgroup v2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CgroupKey {
    /// Its id: a task is in it when its ancestor group at `level` has this id.
    pub id: u64,
    /// Its depth; the root has 0.
    pub level: u32,
}

/// Look up the names of a configuration on this host.
///
/// # Errors
///
/// All that the host does not know.
pub fn resolve(config: &Config) -> Result<Resolved, ConfigErrors> {
    match Host::open() {
        Ok(host) => resolve_on(&host, config),
        // Without rules there is nothing to look up.
        Err(_) if config.rules.is_empty() => Ok(Resolved {
            files_per_user: config.files_per_user(),
            ..Resolved::default()
        }),
        Err(err) => {
            let line = config.rules.first().map_or(1, |rule| rule.line);
            let what = format!("/proc/self/mountinfo cannot be read: {err}");
            Err(ConfigErrors::of(Problem::cannot_tell(line, what)))
        }
    }
}

pub(super) fn resolve_on(host: &dyn Lookup, config: &Config) -> Result<Resolved, ConfigErrors> {
    let mut problems = config.warnings();
    let rules: Vec<_> = config
        .rules
        .iter()
        .filter_map(|rule| resolve_rule(host, rule, &mut problems))
        .collect();
    problems.sort_by_key(|problem| (problem.line, problem.column));
    ConfigErrors::check(problems.clone())?;
    Ok(Resolved {
        rules,
        files_per_user: config.files_per_user(),
        warnings: problems,
    })
}

/// A condition that is looked up: not there, cannot match now, or the number.
pub(super) enum Found<T> {
    Any,
    Nothing,
    This(T),
}

impl<T> Found<T> {
    /// `None` when the rule cannot match.
    fn condition(self) -> Option<Option<T>> {
        match self {
            Self::Any => Some(None),
            Self::Nothing => None,
            Self::This(found) => Some(Some(found)),
        }
    }
}

fn resolve_rule(
    host: &dyn Lookup,
    rule: &Rule,
    problems: &mut Vec<Problem>,
) -> Option<ResolvedRule> {
    // All four are looked up before any of them ends the rule: every problem is reported.
    let file = find_file(host, rule, problems);
    let uid = find_user(host, rule, problems);
    let cgroup = find_cgroup(host, rule, problems);
    let consumer = find_consumer(host, rule, problems);
    Some(ResolvedRule {
        line: rule.line,
        action: rule.action,
        file: file.condition()?,
        uid: uid.condition()?,
        cgroup: cgroup.condition()?,
        consumer: consumer.condition()?,
    })
}

fn find_file(host: &dyn Lookup, rule: &Rule, problems: &mut Vec<Problem>) -> Found<FileKey> {
    let Some(path) = &rule.path else {
        return Found::Any;
    };
    let line = rule.line;
    let found = match host.identify(path) {
        Ok(found) => found,
        Err(err) => {
            problems.push(no_file(line, path, err));
            return Found::Nothing;
        }
    };
    if let Some(problem) = unusable_file(line, path, &found) {
        problems.push(problem);
        return Found::Nothing;
    }
    problems.extend(half_usable_file(host, line, path, &found));
    let (major, minor) = found.mount.device;
    Found::This(FileKey {
        dev: major << 20 | minor,
        ino: found.ino,
    })
}

fn no_file(line: usize, path: &str, err: IdentityError) -> Problem {
    match err {
        IdentityError::Missing if path.contains(['*', '?', '[']) => {
            Problem::error(line, format!("nothing is called `{path}`"))
                .try_this("there are no patterns; a directory means all files below it")
        }
        IdentityError::Missing => Problem::error(line, format!("nothing is at `{path}`"))
            .try_this("make it first, or name a directory above it"),
        IdentityError::Denied => {
            Problem::cannot_tell(line, format!("`{path}`: {err}")).try_this("run this as root")
        }
        other => Problem::cannot_tell(line, format!("`{path}`: {other}")),
    }
}

fn unusable_file(line: usize, path: &str, found: &Identity) -> Option<Problem> {
    if found.mount.kind == "overlay" {
        let layers: Vec<&str> = found.mount.options.split(',').collect();
        let dirs = layers.into_iter().filter(|option| {
            ["upperdir=", "lowerdir="]
                .iter()
                .any(|name| option.starts_with(name))
        });
        let dirs: Vec<&str> = dirs.collect();
        let what = format!(
            "`{path}` is on overlayfs (mounted at {}), where pages belong to the file of a layer below",
            found.mount.point
        );
        let remedy = format!("name the path in the layer: {}", dirs.join(", "));
        return Some(Problem::error(line, what).try_this(remedy));
    }
    let what = format!("`{path}` is neither a file nor a directory");
    (found.kind == FileKind::Other)
        .then(|| Problem::error(line, what).try_this("only files' pages are held"))
}

/// Rules that are right, and cover less or more than their path says.
fn half_usable_file(host: &dyn Lookup, line: usize, path: &str, found: &Identity) -> Vec<Problem> {
    let mut warnings = Vec::new();
    if found.mount.kind == "btrfs" {
        let what = format!(
            "`{path}` is on btrfs, where each subvolume numbers its files anew: the rule also \
             covers inode {} of other subvolumes",
            found.ino
        );
        warnings.push(Problem::warning(line, what));
    }
    if found.kind == FileKind::Directory {
        let points: Vec<String> = host
            .mounts_below(path)
            .into_iter()
            .filter(|mount| !PSEUDO.contains(&mount.kind.as_str()))
            .map(|mount| mount.point)
            .collect();
        if let [first, rest @ ..] = points.as_slice() {
            let more = match rest.len() {
                0 => String::new(),
                count => format!(" and {count} more"),
            };
            let what = format!("`{path}` does not cover what is mounted below it: {first}{more}");
            let problem = Problem::warning(line, what);
            warnings.push(problem.try_this("write a rule for that, too, if it is meant"));
        }
    }
    warnings
}

/// File systems without files whose pages a device could pin.
const PSEUDO: [&str; 21] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "mqueue",
    "nfsd",
    "nsfs",
    "proc",
    "pstore",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "sysfs",
    "tracefs",
];

fn find_user(host: &dyn Lookup, rule: &Rule, problems: &mut Vec<Problem>) -> Found<u32> {
    let name = match &rule.user {
        None => return Found::Any,
        Some(User::Id(id)) => return Found::This(*id),
        Some(User::Name(name)) => name,
    };
    let problem = match host.user(name) {
        Ok(Some(id)) => return Found::This(id),
        Ok(None) => Problem::error(rule.line, format!("no user `{name}` in /etc/passwd")).try_this(
            format!("write the number of a user from elsewhere: `id -u {name}`"),
        ),
        Err(err) => Problem::cannot_tell(rule.line, format!("/etc/passwd: {err}")),
    };
    problems.push(problem);
    Found::Nothing
}

fn find_cgroup(host: &dyn Lookup, rule: &Rule, problems: &mut Vec<Problem>) -> Found<CgroupKey> {
    let Some(group) = &rule.cgroup else {
        return Found::Any;
    };
    let problem = match host.cgroup(group) {
        Ok(Some(found)) => {
            return Found::This(CgroupKey {
                id: found.id,
                level: found.level,
            });
        }
        Ok(None) => {
            let what = format!("there is no cgroup `{group}` now: the rule has no effect");
            Problem::warning(rule.line, what)
                .try_this("reload when it is there; a slice outlives the services in it")
        }
        Err(err) => Problem::cannot_tell(rule.line, format!("cgroup `{group}`: {err}")),
    };
    problems.push(problem);
    Found::Nothing
}
