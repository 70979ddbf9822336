//! `/proc/kallsyms`: which kernel function an address belongs to.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};

/// A kernel function's name and its module (`None`: the kernel itself).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Symbol {
    /// The function.
    pub name: String,
    /// The module it belongs to.
    pub module: Option<String>,
}

/// The functions of the running kernel, by address.
#[derive(Debug, Default)]
pub struct Kallsyms {
    functions: BTreeMap<u64, Symbol>,
}

impl Kallsyms {
    /// Read `/proc/kallsyms`. Without privilege all addresses read as zero and the table is empty.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn read() -> std::io::Result<Self> {
        Self::parse(BufReader::new(File::open("/proc/kallsyms")?))
    }

    fn parse(input: impl BufRead) -> std::io::Result<Self> {
        let mut functions = BTreeMap::new();
        for line in input.lines() {
            functions.extend(parse_line(&line?));
        }
        Ok(Self { functions })
    }

    /// The function that contains an address.
    #[must_use]
    pub fn function_at(&self, address: u64) -> Option<&Symbol> {
        self.functions
            .range(..=address)
            .next_back()
            .map(|(_, symbol)| symbol)
    }
}

/// Whether the running kernel has a function of this name. Names are told without privilege, too.
///
/// # Errors
///
/// The file cannot be read, or tells no names.
pub fn has_function(name: &str) -> std::io::Result<bool> {
    find_name(BufReader::new(File::open("/proc/kallsyms")?), name)
}

fn find_name(input: impl BufRead, name: &str) -> std::io::Result<bool> {
    let mut names = 0;
    for line in input.lines() {
        let line = line?;
        match line.split_ascii_whitespace().nth(2) {
            Some(found) if found == name => return Ok(true),
            found => names += usize::from(found.is_some()),
        }
    }
    match names {
        0 => Err(std::io::Error::other("/proc/kallsyms is empty")),
        _ => Ok(false),
    }
}

fn parse_line(line: &str) -> Option<(u64, Symbol)> {
    let mut words = line.split_ascii_whitespace();
    let address = u64::from_str_radix(words.next()?, 16)
        .ok()
        .filter(|&a| a != 0)?;
    let kind = words.next()?;
    let name = words.next()?.to_owned();
    let module = words.next().map(|m| m.trim_matches(['[', ']']).to_owned());
    matches!(kind, "t" | "T" | "w" | "W").then_some((address, Symbol { name, module }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_without_addresses() {
        let text = "0 T first\n0 t second\t[module]\n";
        let found = |name| find_name(text.as_bytes(), name).unwrap();
        assert!(found("first") && found("second") && !found("sec"));
        assert!(find_name(&b""[..], "first").is_err(), "unknown, not absent");
    }

    #[test]
    fn an_address_belongs_to_the_function_before_it() {
        let text = "1000 T first\n1800 d data\n2000 t ib_umem_get\t[ib_uverbs]\n0 T hidden\n";
        let symbols = Kallsyms::parse(text.as_bytes()).unwrap();
        let at = |address| symbols.function_at(address).map(|s| s.name.as_str());
        assert_eq!(at(0x1fff), Some("first"));
        assert_eq!(at(0x2004), Some("ib_umem_get"));
        assert_eq!(at(0xfff), None);
        assert_eq!(
            symbols.function_at(0x2004).unwrap().module.as_deref(),
            Some("ib_uverbs")
        );
    }
}
