//! `cargo xtask docs`: man pages and shell completions, from the command line's definition.

use crate::{build, env};
use anyhow::Result;

/// Makes them anew. The tests that compare them with the definition write them when told to.
pub(crate) fn run() -> Result<()> {
    let mut write = build::cargo(&["test", "--quiet", "-p", "longpin-cli", "--test", "docs"])?;
    env::run(write.env("LONGPIN_WRITE_DOCS", "1"))
}
