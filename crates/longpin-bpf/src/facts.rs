//! What the running kernel is like, as far as the programs differ by it: probed, not guessed from a
//! version number.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::ops::Range;

use libbpf_rs::ReferencesType;
use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::{Enum, Func, FuncProto};

use crate::BpfError;

/// `FOLL_LONGTERM` where it is a macro, which leaves no trace in BTF (before 6.3).
const FOLL_LONGTERM_MACRO: u32 = 0x1_0000;
/// Tracing programs can watch functions of at most this many arguments.
const MAX_ARGUMENTS: usize = 6;

/// The kernel's entry points for pins, as far as any supported kernel has them.
pub const PIN_FUNCTIONS: [&str; 5] = [
    "pin_user_pages",
    "pin_user_pages_fast",
    "pin_user_pages_remote",
    "pin_user_pages_unlocked",
    "memfd_pin_folios",
];

/// Functions without which the guard would enforce nothing worth the name.
const REQUIRED: [(&str, &str); 5] = [
    ("pin_user_pages_fast", "RDMA and io_uring pin with"),
    ("bpf_lsm_inode_setattr", "truncates are refused in"),
    ("bpf_lsm_file_permission", "hole punches are refused in"),
    ("vfs_fallocate", "hole punches go through"),
    ("bpf_lsm_inode_free_security", "tells that a file is gone"),
];

/// The facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Value of `FOLL_LONGTERM`.
    pub foll_longterm: u32,
    /// hugetlbfs indexes its page cache by huge page (before 6.7).
    pub hugetlb_by_huge_page: bool,
    /// The `inode_setattr` hook gets an idmap before the dentry (6.8 and later).
    pub setattr_has_idmap: bool,
    /// Where the code of `vfs_fallocate` lies.
    pub fallocate: Range<u64>,
    /// Pin functions that can be watched.
    pub watched: Vec<&'static str>,
    /// Pin functions that exist and cannot be watched: their pins are found only by walking every
    /// file.
    pub unwatched: Vec<&'static str>,
}

impl Facts {
    /// Probe the running kernel: its BTF and `/proc/kallsyms`.
    ///
    /// # Errors
    ///
    /// [`BpfError::NoBtf`], [`BpfError::MissingFunction`], [`BpfError::Kallsyms`] or
    /// [`BpfError::NoAddress`].
    pub fn probe() -> Result<Self, BpfError> {
        let btf = Btf::from_vmlinux().map_err(BpfError::NoBtf)?;
        for (function, purpose) in REQUIRED {
            if count_arguments(&btf, function).is_none() {
                return Err(BpfError::MissingFunction { function, purpose });
            }
        }
        let (watched, unwatched) = PIN_FUNCTIONS
            .into_iter()
            .filter(|name| count_arguments(&btf, name).is_some())
            .partition(|name| count_arguments(&btf, name) <= Some(MAX_ARGUMENTS));
        Ok(Self {
            foll_longterm: find_foll_longterm(&btf),
            hugetlb_by_huge_page: count_arguments(&btf, "hugetlb_basepage_index").is_some(),
            setattr_has_idmap: count_arguments(&btf, "bpf_lsm_inode_setattr") == Some(3),
            fallocate: find_code("vfs_fallocate")?,
            watched,
            unwatched,
        })
    }
}

/// How many arguments a kernel function takes; `None` when the kernel has no such function.
fn count_arguments(btf: &Btf<'_>, name: &str) -> Option<usize> {
    let function: Func<'_> = btf.type_by_name(name)?;
    let prototype: FuncProto<'_> = btf.type_by_id(function.referenced_type_id())?;
    Some(prototype.len())
}

/// The value of `FOLL_LONGTERM`: an enumerator since 6.3, a macro before.
fn find_foll_longterm(btf: &Btf<'_>) -> u32 {
    btf.type_by_kind::<Enum<'_>>()
        .find_map(|list| {
            list.iter()
                .find(|member| member.name.is_some_and(|name| name == "FOLL_LONGTERM"))
                .and_then(|member| u32::try_from(member.value).ok())
        })
        .unwrap_or(FOLL_LONGTERM_MACRO)
}

/// The addresses of a kernel function's code, from `/proc/kallsyms`.
fn find_code(symbol: &'static str) -> Result<Range<u64>, BpfError> {
    let file = File::open("/proc/kallsyms").map_err(BpfError::Kallsyms)?;
    let mut symbols = Vec::new();
    for line in BufReader::new(file).lines() {
        symbols.extend(parse_symbol(&line.map_err(BpfError::Kallsyms)?, symbol));
    }
    code_range(&symbols).ok_or(BpfError::NoAddress { symbol })
}

/// One line of kallsyms: its address, and whether it is the one wanted. Modules' symbols are left out.
fn parse_symbol(line: &str, wanted: &str) -> Option<(u64, bool)> {
    let mut words = line.split_ascii_whitespace();
    let address = u64::from_str_radix(words.next()?, 16).ok()?;
    let name = words.nth(1)?;
    words.next().is_none().then_some((address, name == wanted))
}

/// From the wanted symbol up to the next one.
fn code_range(symbols: &[(u64, bool)]) -> Option<Range<u64>> {
    let start = symbols.iter().find(|(_, wanted)| *wanted)?.0;
    let end = symbols.iter().map(|s| s.0).filter(|&a| a > start).min()?;
    (start != 0).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range_in(text: &str) -> Option<Range<u64>> {
        let symbols: Vec<_> = text
            .lines()
            .filter_map(|l| parse_symbol(l, "vfs_fallocate"))
            .collect();
        code_range(&symbols)
    }

    #[test]
    fn a_function_ends_where_the_next_begins() {
        let text = "ff10 T before\nff80 t after\nff20 T vfs_fallocate\nff30 t inside\t[module]\n";
        assert_eq!(range_in(text), Some(0xff20..0xff80));
    }

    #[test]
    fn hidden_addresses_are_no_addresses() {
        assert_eq!(range_in("0000 T a\n0000 T vfs_fallocate\n0000 T b\n"), None);
        assert_eq!(range_in("ff10 T a\n"), None);
    }
}
