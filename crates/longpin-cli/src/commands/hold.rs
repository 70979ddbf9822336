//! `longpin hold`
use std::process::ExitCode;

use crate::cli::Hold;

pub(crate) fn run(_options: &Hold) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not yet")
}
