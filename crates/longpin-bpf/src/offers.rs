//! What the running kernel's BTF offers, by name: for those who ask before anything is loaded.

use std::path::Path;

use libbpf_rs::ReferencesType;
use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::{Func, FuncProto, Typedef};

use crate::BpfError;

/// A kernel's type information.
#[derive(Debug)]
pub struct Offers(Btf<'static>);

impl Offers {
    /// Read BTF, as a rule `/sys/kernel/btf/vmlinux`. No privilege is needed.
    ///
    /// # Errors
    ///
    /// [`BpfError::NoBtf`].
    pub fn read(path: &Path) -> Result<Self, BpfError> {
        Btf::from_path(path).map(Self).map_err(BpfError::NoBtf)
    }

    /// How many arguments a kernel function takes; `None` when BTF does not know the function.
    #[must_use]
    pub fn arguments(&self, function: &str) -> Option<usize> {
        let function: Func<'_> = self.0.type_by_name(function)?;
        let prototype: FuncProto<'_> = self.0.type_by_id(function.referenced_type_id())?;
        Some(prototype.len())
    }

    /// Does the kernel have a tracepoint of this name, with its arguments typed?
    #[must_use]
    pub fn has_tracepoint(&self, name: &str) -> bool {
        let typed = self
            .0
            .type_by_name::<Typedef<'_>>(&format!("btf_trace_{name}"));
        typed.is_some()
    }
}
