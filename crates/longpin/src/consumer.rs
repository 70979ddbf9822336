//! Who in the kernel asked for a pin: told from the kernel stack of the pin call.

use longpin_bpf::hooks::pin_functions;
use longpin_linux::kallsyms::{Kallsyms, Symbol};

/// The subsystem behind a stack (innermost frame first), or the function's name where it is none of
/// the known ones.
pub(crate) fn name_consumer(symbols: &Kallsyms, stack: &[u64]) -> Option<String> {
    stack
        .iter()
        .take_while(|&&address| address != 0)
        .filter_map(|&address| symbols.function_at(address))
        .find(|symbol| !is_machinery(symbol))
        .map(|symbol| known(symbol).map_or_else(|| symbol.name.clone(), str::to_owned))
}

/// The guard's own programs, their trampoline, and the pin functions.
fn is_machinery(symbol: &Symbol) -> bool {
    symbol.name.starts_with("bpf_")
        || symbol.module.as_deref() == Some("bpf")
        || pin_functions().contains(&symbol.name.as_str())
}

/// The driver behind an on-demand region, by the function with which it gives pages back: the subsystem where it is
/// known, else its module, else the function.
pub(crate) fn name_driver(symbols: &Kallsyms, function: u64) -> Option<String> {
    let symbol = symbols.function_at(function)?;
    let other = symbol.module.as_ref().unwrap_or(&symbol.name);
    Some(known(symbol).map_or_else(|| other.clone(), str::to_owned))
}

fn known(symbol: &Symbol) -> Option<&'static str> {
    match symbol.module.as_deref() {
        // The drivers that have on-demand regions of their own.
        Some("mlx5_ib") => Some("rdma"),
        Some(module) if module.starts_with("ib_") || module.starts_with("rdma_") => Some("rdma"),
        Some(module) if module.starts_with("vfio") => Some("vfio"),
        Some("iommufd") => Some("iommufd"),
        Some("udmabuf") => Some("udmabuf"),
        None if symbol.name.starts_with("io_") => Some("io_uring"),
        None if symbol.name.starts_with("udmabuf_") => Some("udmabuf"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbol(name: &str, module: Option<&str>) -> Symbol {
        Symbol {
            name: name.into(),
            module: module.map(str::to_owned),
        }
    }

    #[test]
    fn subsystems_are_known_by_module_or_prefix() {
        assert_eq!(
            known(&symbol("ib_umem_get", Some("ib_uverbs"))),
            Some("rdma")
        );
        assert_eq!(
            known(&symbol("rxe_ib_invalidate_range", Some("rdma_rxe"))),
            Some("rdma")
        );
        assert_eq!(
            known(&symbol("mlx5_ib_invalidate_range", Some("mlx5_ib"))),
            Some("rdma")
        );
        assert_eq!(known(&symbol("io_pin_pages", None)), Some("io_uring"));
        assert_eq!(known(&symbol("nvidia_p2p_get", Some("nvidia"))), None);
        assert!(is_machinery(&symbol("bpf_trampoline_6442", Some("bpf"))));
        assert!(is_machinery(&symbol("pin_user_pages_fast", None)));
    }
}
