//! `cargo xtask demo`: an RDMA device, a truncated file, and what longpin does about it, on a real kernel.

use crate::vm::{self, Guest};
use crate::{build, kernels, rows};
use anyhow::Result;

/// Builds, fetches the newest kernel if need be, and runs the demonstration in it.
pub(crate) fn run() -> Result<u8> {
    build::release()?;
    let program = build::rdma_demo()?;
    let kernel = kernels::ensure(&rows::named("latest")?)?;
    let run = Guest::new(kernel, vm::words(&program, &[])).run()?;
    Ok(run.end.code())
}
