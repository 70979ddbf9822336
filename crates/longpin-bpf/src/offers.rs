//! What a kernel's BTF offers, by name.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use libbpf_rs::ReferencesType;
use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::{Func, FuncProto, Typedef};

use crate::BpfError;
use crate::facts::MARKS;
use crate::hooks::{self, Offered};

/// A kernel's type information, with what is asked for by the table of hooks and by the facts.
#[derive(Debug)]
pub struct Offers {
    types: Btf<'static>,
    /// Of the functions that it knows.
    arguments: HashMap<String, usize>,
}

impl Offers {
    /// Read BTF, as a rule `/sys/kernel/btf/vmlinux`. No privilege is needed.
    ///
    /// # Errors
    ///
    /// [`BpfError::NoBtf`].
    pub fn read(path: &Path) -> Result<Self, BpfError> {
        Btf::from_path(path).map(Self::of).map_err(BpfError::NoBtf)
    }

    pub(crate) fn of_this_kernel() -> Result<Self, BpfError> {
        Btf::from_vmlinux().map(Self::of).map_err(BpfError::NoBtf)
    }

    /// Each name is looked up once: libbpf goes over all types for it.
    fn of(types: Btf<'static>) -> Self {
        let mut wanted: HashSet<String> = hooks::functions().collect();
        wanted.extend(MARKS.map(str::to_owned));
        let count = |name: &String| {
            let function: Func<'_> = types.type_by_name(name)?;
            let prototype: FuncProto<'_> = types.type_by_id(function.referenced_type_id())?;
            Some(prototype.len())
        };
        let counted = wanted.into_iter().filter_map(|name| {
            let arguments = count(&name)?;
            Some((name, arguments))
        });
        let arguments = counted.collect();
        Self { types, arguments }
    }

    pub(crate) const fn types(&self) -> &Btf<'static> {
        &self.types
    }
}

impl Offered for Offers {
    fn arguments(&self, function: &str) -> Option<usize> {
        self.arguments.get(function).copied()
    }

    fn has_tracepoint(&self, name: &str) -> bool {
        let name = format!("btf_trace_{name}");
        self.types.type_by_name::<Typedef<'_>>(&name).is_some()
    }
}
