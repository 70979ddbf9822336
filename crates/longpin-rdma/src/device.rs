//! A device by its name: what it can do, and what the kernel does for it.

use longpin::plan::{Device, KernelRules, PlanError};
use longpin::registration::RegisterError;
use longpin_linux::verbs::{Context, VerbsError};

use crate::kernel_rules;

/// Why a device cannot be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// There is no such RDMA device, or no library for it.
    #[error(transparent)]
    Verbs(#[from] VerbsError),
    /// The kernel's rules cannot be probed with it.
    #[error(transparent)]
    Probe(#[from] RegisterError),
    /// The kernel's rules cannot be read.
    #[error(transparent)]
    Rules(#[from] PlanError),
}

/// `io_uring`, or the RDMA device of this name.
///
/// # Errors
///
/// [`DeviceError`].
pub fn find_device(name: &str) -> Result<(Device, KernelRules), DeviceError> {
    if name == Device::IoUring.name() {
        return Ok((Device::IoUring, KernelRules::probe()?));
    }
    let context = Context::open(name)?;
    let capabilities = context.capabilities()?;
    let rules = kernel_rules(&context.protection_domain()?)?;
    Ok((Device::Rdma(capabilities), rules))
}
