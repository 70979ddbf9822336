//! The directory through which host and guest talk during one run: the guest reads its orders from it and writes how
//! far it came. The console log and the contents of its disk and NVDIMMs are in it too.

use crate::kernels::Kernel;
use crate::{env, kmod, vm};
use anyhow::{Context, Result, ensure};
use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

const INIT: &str = include_str!("../guest/init.sh");
const UDEV_RULES: &str = include_str!("../guest/udev.rules");
const HOST_UDEV_RULES: &str = "/usr/lib/udev/rules.d";

/// One run's directory. Its leash removes it.
pub(crate) struct RunDir {
    /// Same path on both sides.
    pub(crate) path: PathBuf,
}

impl RunDir {
    /// An empty directory.
    pub(crate) fn empty() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("longpin-vm-{}-{number}", std::process::id());
        let home = std::env::temp_dir().canonicalize()?;
        ensure_room(&home)?;
        let path = home.join(name);
        std::fs::create_dir(&path).with_context(|| {
            format!(
                "cannot create {}: set TMPDIR to a writable directory",
                path.display()
            )
        })?;
        Ok(Self { path })
    }

    /// A directory with the orders of `guest`.
    pub(crate) fn with_orders(guest: &vm::Guest) -> Result<Self> {
        let dir = Self::empty()?;
        std::fs::write(dir.path.join("init.sh"), INIT)?;
        std::fs::write(dir.path.join("env"), dir.environment(guest)?)?;
        std::fs::write(dir.path.join("cmd"), command_line(&guest.cmd))?;
        std::fs::write(dir.path.join("keep"), dir.kept_paths()?)?;
        dir.write_masks()?;
        Ok(dir)
    }

    /// Directories of the host's that the guest gets replaced, as virtme-ng wants them: `guest=host`.
    pub(crate) fn masks(&self) -> [OsString; 2] {
        [
            (HOST_UDEV_RULES, "udev"),
            ("/usr/lib/tmpfiles.d", "tmpfiles"),
        ]
        .map(|(guest, host)| {
            let mut mask = OsString::from(guest);
            mask.push("=");
            mask.push(self.path.join(host));
            mask
        })
    }

    /// Of the host's udev rules, only those of the device mapper: its tools wait for them.
    fn write_masks(&self) -> Result<()> {
        std::fs::create_dir(self.path.join("tmpfiles"))?;
        let udev = self.path.join("udev");
        std::fs::create_dir(&udev)?;
        std::fs::write(udev.join("50-virtme.rules"), UDEV_RULES)?;
        for entry in std::fs::read_dir(HOST_UDEV_RULES).into_iter().flatten() {
            let entry = entry?;
            let name = entry.file_name();
            if name.to_string_lossy().contains("-dm") {
                std::fs::copy(entry.path(), udev.join(name))?;
            }
        }
        Ok(())
    }

    /// Whether the guest is ready and runs its command.
    pub(crate) fn is_ready(&self) -> bool {
        self.path.join("ready").exists()
    }

    /// The command's status, once it has ended.
    pub(crate) fn status(&self) -> Option<u8> {
        let text = std::fs::read_to_string(self.path.join("status")).ok()?;
        text.trim().parse().ok()
    }

    /// What the guest said before it gave up.
    pub(crate) fn failure(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.path.join("failed")).ok()?;
        Some(text.trim().to_owned())
    }

    /// The kernel's console so far.
    pub(crate) fn console(&self) -> String {
        let bytes = std::fs::read(self.console_path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What the tests told so far.
    pub(crate) fn report(&self) -> String {
        std::fs::read_to_string(self.report_path()).unwrap_or_default()
    }

    /// The file in which the tests tell what becomes of them.
    pub(crate) fn report_path(&self) -> PathBuf {
        self.path.join("report")
    }

    /// Why it may have gone wrong, if there is no room left on its disk.
    pub(crate) fn is_full(&self) -> Option<String> {
        let home = self.path.parent()?;
        (free_mib(home).ok()? < 16)
            .then(|| format!("the disk of {} is full: {REMEDY}", home.display()))
    }

    /// The file QEMU writes the console to.
    pub(crate) fn console_path(&self) -> PathBuf {
        self.path.join("console.log")
    }

    /// The guest's disk.
    pub(crate) fn disk_path(&self) -> PathBuf {
        self.path.join("disk")
    }

    fn environment(&self, guest: &vm::Guest) -> Result<Vec<u8>> {
        let mut text = Vec::new();
        for (name, value) in passed_through() {
            export(&mut text, &name, &value);
        }
        let release = env::target_dir()?.join("release");
        export(&mut text, "LONGPIN_RELEASE", release.as_os_str());
        let mut path = release.into_os_string();
        path.push(":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        export(&mut text, "PATH", &path);
        let Kernel { row, .. } = &guest.kernel;
        export(&mut text, "LONGPIN_GUEST", "1".as_ref());
        export(&mut text, "LONGPIN_KERNEL", row.name.as_ref());
        export(&mut text, "LONGPIN_ENFORCE", row.enforce.as_ref());
        export(&mut text, "LONGPIN_SHARED", vm::shared_dir()?.as_os_str());
        export(&mut text, "LONGPIN_REPORT", self.report_path().as_os_str());
        if let Some(module) = kmod::find(&guest.kernel)? {
            export(&mut text, "LONGPIN_KMOD", module.as_os_str());
        }
        if let Some(limit) = guest.test_limit {
            let seconds = limit.as_secs().to_string();
            export(&mut text, "LONGPIN_TEST_LIMIT", seconds.as_ref());
        }
        export(&mut text, "LONGPIN_SCRATCH_FS", guest.fs.as_str().as_ref());
        export(
            &mut text,
            "LONGPIN_CWD",
            std::env::current_dir()?.as_os_str(),
        );
        Ok(text)
    }

    /// Directories that must stay visible although the guest gets a fresh /tmp.
    fn kept_paths(&self) -> Result<Vec<u8>> {
        let paths = [
            self.path.clone(),
            std::env::current_dir()?,
            env::workspace()?,
            env::target_dir()?,
            env::cache_dir()?,
            vm::shared_dir()?,
        ];
        let lines = paths.iter().filter(|path| path.starts_with("/tmp"));
        Ok(lines.fold(Vec::new(), |mut text, path| {
            text.extend(path.as_os_str().as_bytes());
            text.push(b'\n');
            text
        }))
    }
}

/// A guest writes as much as this where temporary files are: to its disk and its NVDIMMs.
const ROOM_MIB: u64 = 1024;
const REMEDY: &str = "make room, or set TMPDIR to a directory on another disk";

/// Refused beforehand: a guest whose disk is full ends in ways that nobody understands.
fn ensure_room(home: &Path) -> Result<()> {
    let free = free_mib(home)?;
    let home = home.display();
    ensure!(
        free >= ROOM_MIB,
        "{free} MB are free in {home}, and a guest writes up to {ROOM_MIB} MB there: {REMEDY}"
    );
    Ok(())
}

fn free_mib(path: &Path) -> Result<u64> {
    let found = rustix::fs::statvfs(path).with_context(|| format!("statvfs {}", path.display()))?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize) >> 20)
}

/// Settings of the tests and of Rust programs; not the host's PATH or HOME, which mean other things in the guest.
fn passed_through() -> impl Iterator<Item = (String, OsString)> {
    let wanted = |name: &str| {
        ["LONGPIN_", "RUST_", "PROPTEST_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
            || ["CARGO_TARGET_DIR", "NO_COLOR"].contains(&name)
    };
    // The guest's output is never a terminal to the program: say what ours is.
    let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let colour = if colour { "CLICOLOR_FORCE" } else { "NO_COLOR" };
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(move |(name, _)| wanted(name))
        .chain([(colour.to_owned(), OsString::from("1"))])
}

fn export(text: &mut Vec<u8>, name: &str, value: &OsStr) {
    text.extend(format!("export {name}=").into_bytes());
    text.extend(quote(value).into_vec());
    text.push(b'\n');
}

/// A shell command that runs exactly these words.
fn command_line(words: &[OsString]) -> Vec<u8> {
    let mut line = b"exec".to_vec();
    for word in words {
        line.push(b' ');
        line.extend(quote(word).into_vec());
    }
    line.push(b'\n');
    line
}

/// The word in single quotes, as the shell wants it: nothing but the quote itself is special inside.
pub(crate) fn quote(word: &OsStr) -> OsString {
    let mut quoted = vec![b'\''];
    for &byte in word.as_bytes() {
        match byte {
            b'\'' => quoted.extend(br"'\''"),
            _ => quoted.push(byte),
        }
    }
    quoted.push(b'\'');
    OsString::from_vec(quoted)
}

/// A path as part of a QEMU option: QEMU wants commas doubled.
pub(crate) fn qemu_path(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn the_shell_gives_words_back_unchanged() {
        let words = [
            "printf",
            "%s\\n",
            "it's",
            "a  b",
            "",
            "$HOME `x` \\ \"",
            "new\nline",
            "*",
        ];
        let words = words.map(OsString::from);
        let line = OsString::from_vec(command_line(&words));
        let output = Command::new("sh").arg("-c").arg(line).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text, "it's\na  b\n\n$HOME `x` \\ \"\nnew\nline\n*\n");
    }
}
