//! The one door through which rules are looked up on this host; tests put another one there.

use std::cell::OnceCell;
use std::path::Path;

use longpin_linux::cgroups::{self, Cgroup, CgroupError};
use longpin_linux::code::Code;
use longpin_linux::identity::{self, Identity, IdentityError};
use longpin_linux::mounts::{self, Mount};
use longpin_linux::users;

/// What rules ask.
pub(super) trait Lookup {
    /// What is at this path?
    fn identify(&self, path: &str) -> Result<Identity, IdentityError>;
    /// The mounts below this directory.
    fn mounts_below(&self, path: &str) -> Vec<Mount>;
    /// This user's number.
    fn user(&self, name: &str) -> std::io::Result<Option<u32>>;
    /// This group, by its path below the mount.
    fn cgroup(&self, group: &str) -> Result<Option<Cgroup>, CgroupError>;
    /// Where the kernel's code lies.
    fn code(&self) -> Result<&Code, String>;
}

/// This host.
pub(super) struct Host {
    mounts: Vec<Mount>,
    code: OnceCell<Result<Code, String>>,
}

impl Host {
    pub(super) fn open() -> std::io::Result<Self> {
        Ok(Self {
            mounts: mounts::read_mounts()?,
            code: OnceCell::new(),
        })
    }
}

impl Lookup for Host {
    fn identify(&self, path: &str) -> Result<Identity, IdentityError> {
        identity::identify(Path::new(path), &self.mounts)
    }

    fn mounts_below(&self, path: &str) -> Vec<Mount> {
        // Mounts are listed by their real paths.
        let Ok(real) = std::fs::canonicalize(path) else {
            return Vec::new();
        };
        let below = |mount: &&Mount| {
            let point = Path::new(&mount.point);
            point != real && point.starts_with(&real)
        };
        self.mounts.iter().filter(below).cloned().collect()
    }

    fn user(&self, name: &str) -> std::io::Result<Option<u32>> {
        users::find_user(Path::new("/etc/passwd"), name)
    }

    fn cgroup(&self, group: &str) -> Result<Option<Cgroup>, CgroupError> {
        cgroups::find_cgroup(&self.mounts, group)
    }

    fn code(&self) -> Result<&Code, String> {
        let code = self.code.get_or_init(|| {
            let code = Code::read().map_err(|err| format!("/proc/kallsyms: {err}"))?;
            if code.is_hidden() {
                return Err("the kernel hides its addresses (/proc/kallsyms)".to_owned());
            }
            Ok(code)
        });
        code.as_ref().map_err(Clone::clone)
    }
}
