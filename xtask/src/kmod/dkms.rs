//! The module as DKMS builds it on a user's machine, by `kmod/dkms.conf`.

use super::tree::Tree;
use crate::kernels::Kernel;
use crate::{env, ui};
use anyhow::{Context, Result, ensure};

/// Adds the sources to DKMS and builds them. Its root directory is a scratch one: nothing stays.
const BUILD: &str = r#"
set -e
mkdir -p /usr/src
version=$(sed -n 's/^PACKAGE_VERSION="\(.*\)"$/\1/p' /src/dkms.conf)
mkdir -p /var/tmp/sources
cp /src/* /var/tmp/sources/
dkms add /var/tmp/sources --sourcetree /var/tmp --dkmstree /var/lib/dkms
dkms build longpin-lend/"$version" -k "$1" --kernelsourcedir "$2" --sourcetree /var/tmp --dkmstree /var/lib/dkms \
    --no-depmod || { cat /var/lib/dkms/longpin-lend/*/build/make.log; exit 1; }
ls /var/lib/dkms/longpin-lend/"$version"/"$1"/*/module/
"#;

/// `dkms add`, `dkms build` in the kernel's build tree: it must make the module.
pub(crate) fn build(kernel: &Kernel) -> Result<()> {
    let dir = super::row_dir(&kernel.row)?.join("dkms");
    env::remove_dir(&dir)?;
    super::lay_out(&dir)?;
    let tree = Tree::ensure(kernel)?;
    let headers = tree.headers(kernel);
    let words = ["bash", "-c", BUILD, "dkms", &kernel.release, &headers];
    let said = tree.enter(&dir, &words).context("as DKMS builds it")?;
    let made = said.lines().any(|line| line.starts_with("longpin_lend.ko"));
    ensure!(
        made,
        "DKMS built no longpin_lend.ko: look at kmod/dkms.conf; it said\n{said}"
    );
    ui::say(&format!("kmod {}: DKMS builds it, too", kernel.row.name));
    Ok(())
}
