//! apt with a configuration of its own: packages of another suite, without touching the machine's own lists.

use crate::{env, setup};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// An apt whose lists, state and cache are below one directory, with a few suites as its only sources.
pub(crate) struct Apt {
    config: PathBuf,
    dir: PathBuf,
}

impl Apt {
    /// Writes the configuration below `dir` and reads the suites' package lists.
    pub(crate) fn open(dir: &Path, suites: &[&str]) -> Result<Self> {
        for sub in ["lists/partial", "cache/archives/partial", "state", "debs"] {
            std::fs::create_dir_all(dir.join(sub))?;
        }
        let archive = archive_uri()?;
        let source =
            |suite| format!("deb [arch=amd64 signed-by={KEYRING}] {archive} {suite} main\n");
        let sources: String = suites.iter().map(source).collect();
        std::fs::write(dir.join("sources.list"), sources)?;
        std::fs::write(dir.join("state/status"), "")?;
        let apt = Self {
            config: dir.join("apt.conf"),
            dir: dir.to_path_buf(),
        };
        std::fs::write(&apt.config, configuration(dir))?;
        env::output(apt.command("apt-get").args(["-q", "update"]))
            .with_context(|| format!("cannot read the package lists of {}", suites.join(", ")))?;
        Ok(apt)
    }

    /// The packages that make up the current kernel: what the metapackage depends on, by name.
    pub(crate) fn kernel_packages(&self, metapackage: &str) -> Result<Vec<String>> {
        let mut depends = self.command("apt-cache");
        depends.args(["depends", "--recurse", "--no-recommends", "--no-suggests"]);
        depends.args(["--no-conflicts", "--no-breaks", "--no-replaces"]);
        depends.args(["--no-enhances", metapackage]);
        let text = env::output(&mut depends)?;
        let mut names: Vec<_> = text
            .lines()
            .filter(|name| is_kernel(name))
            .map(str::to_owned)
            .collect();
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// The archive file names of these packages: they carry the version, so a change means something newer.
    pub(crate) fn archive_names(&self, packages: &[String]) -> Result<Vec<String>> {
        let mut download = self.command("apt-get");
        download.args(["download", "--print-uris"]).args(packages);
        let text = env::output(&mut download)?;
        let names = text.lines().filter_map(|line| line.split(' ').nth(1));
        Ok(names.map(str::to_owned).collect())
    }

    /// The archive file names of what these packages need on a machine that has nothing, without kernels to boot.
    pub(crate) fn needed(&self, packages: &[&str]) -> Result<Vec<String>> {
        let mut install = self.command("apt-get");
        install.args(["install", "--print-uris", "-y", "--no-install-recommends"]);
        let text = env::output(install.args(packages))?;
        // 'ADDRESS' NAME SIZE HASH
        let lines = text.lines().filter(|line| line.starts_with('\''));
        let names = lines.filter_map(|line| line.split(' ').nth(1));
        let wanted = names.filter(|name| !is_kernel(name));
        Ok(wanted.map(str::to_owned).collect())
    }

    /// Downloads the packages and returns the archives' paths.
    pub(crate) fn download(&self, packages: &[String]) -> Result<Vec<PathBuf>> {
        let debs = self.dir.join("debs");
        let mut download = self.command("apt-get");
        download.args(["-q", "download"]).args(packages);
        env::output(download.current_dir(&debs))?;
        let entries = std::fs::read_dir(&debs)?;
        entries.map(|entry| Ok(entry?.path())).collect()
    }

    fn command(&self, name: &str) -> Command {
        let mut command = env::tool(name);
        command.arg("-c").arg(&self.config).env("LC_ALL", "C");
        command
    }
}

/// Given with -c, so that it is read last and wins; the machine's own proxy and transport settings stay.
fn configuration(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        r#"Dir::Etc::SourceList "{dir}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State "{dir}/state";
Dir::State::Lists "{dir}/lists";
Dir::State::status "{dir}/state/status";
Dir::Cache "{dir}/cache";
APT::Architecture "amd64";
APT::Sandbox::User "";
Acquire::Languages "none";
APT::Update::Error-Mode "any";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"#
    )
}

/// A package that carries a kernel itself, not a metapackage: a version number follows the prefix.
fn is_kernel(name: &str) -> bool {
    ["linux-image-", "linux-binary-", "linux-modules-"]
        .iter()
        .filter_map(|prefix| name.strip_prefix(prefix))
        .any(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
}

/// The Debian archive this machine itself installs from. A machine whose lists were thrown away (a container
/// image) does not know what its sources are: they are read once more then.
fn archive_uri() -> Result<String> {
    if let Some(uri) = find_archive()? {
        return Ok(uri);
    }
    setup::apt_get(&["-q", "update"])?;
    find_archive()?.context(
        "no Debian archive among this machine's apt sources: add one to /etc/apt/sources.list.d",
    )
}

fn find_archive() -> Result<Option<String>> {
    let mut targets = env::tool("apt-get");
    targets.args(["indextargets", "--format"]);
    targets.args([
        "$(ORIGIN)|$(LABEL)|$(COMPONENT)|$(REPO_URI)",
        "Created-By: Packages",
    ]);
    let text = env::output(&mut targets)?;
    let uri = text
        .lines()
        .find_map(|line| line.strip_prefix("Debian|Debian|main|"));
    Ok(uri.map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::is_kernel;

    #[test]
    fn metapackages_and_indented_dependencies_are_not_kernels() {
        assert!(is_kernel("linux-image-6.1.0-50-amd64"));
        assert!(is_kernel("linux-modules-7.2.13+deb14-amd64"));
        assert!(!is_kernel("linux-image-amd64"));
        assert!(!is_kernel("  Depends: linux-image-6.1.0-50-amd64"));
        assert!(!is_kernel("linux-base"));
    }
}
