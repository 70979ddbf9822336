//! `/proc/kallsyms`, the other way round: where the code of a function or a module lies.

use std::io::BufRead;
use std::ops::Range;

/// The kernel's symbols, by address.
#[derive(Debug, Default)]
pub struct Code {
    symbols: Vec<Symbol>,
    hidden: bool,
}

#[derive(Debug)]
struct Symbol {
    address: u64,
    text: bool,
    name: Box<str>,
    module: Option<Box<str>>,
}

/// The last function of a module ends where the next symbol begins; there may be none.
const LAST_LEN: u64 = 4096;

impl Code {
    /// Read `/proc/kallsyms`.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn read() -> std::io::Result<Self> {
        Self::parse(crate::kallsyms::open()?)
    }

    /// The same from a table of that form.
    ///
    /// # Errors
    ///
    /// The input cannot be read.
    pub fn parse(input: impl BufRead) -> std::io::Result<Self> {
        let mut code = Self::default();
        for line in input.lines() {
            match parse_line(&line?) {
                Some(symbol) if symbol.address == 0 => code.hidden = true,
                Some(symbol) => code.symbols.push(symbol),
                None => {}
            }
        }
        code.hidden &= code.symbols.is_empty();
        code.symbols.sort_by_key(|symbol| symbol.address);
        Ok(code)
    }

    /// The kernel shows no addresses to this process.
    #[must_use]
    pub fn is_hidden(&self) -> bool {
        self.hidden
    }

    /// The code of the functions of this name: one range each, and one for each part that the compiler
    /// has cut off or made a variant of (`NAME.cold`, `NAME.isra.0`).
    #[must_use]
    pub fn function(&self, name: &str) -> Vec<Range<u64>> {
        self.runs(|symbol| {
            let rest = symbol.name.strip_prefix(name);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    }

    /// The code of a loaded module: empty when it is not loaded (or built in). One range, as a rule.
    #[must_use]
    pub fn module(&self, name: &str) -> Vec<Range<u64>> {
        self.runs(|symbol| symbol.module.as_deref() == Some(name))
    }

    /// The code of the kernel's own functions whose names begin so, one range for each run of
    /// neighbours.
    #[must_use]
    pub fn kernel_prefix(&self, prefix: &str) -> Vec<Range<u64>> {
        self.runs(|symbol| symbol.module.is_none() && symbol.name.starts_with(prefix))
    }

    /// The names of the modules that have code.
    #[must_use]
    pub fn modules(&self) -> Vec<&str> {
        let text = self.symbols.iter().filter(|symbol| symbol.text);
        let mut names: Vec<&str> = text.filter_map(|symbol| symbol.module.as_deref()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Code of the wanted functions; neighbours are one range.
    fn runs(&self, wanted: impl Fn(&Symbol) -> bool) -> Vec<Range<u64>> {
        let text: Vec<&Symbol> = self.symbols.iter().filter(|symbol| symbol.text).collect();
        let mut runs: Vec<Range<u64>> = Vec::new();
        let mut goes_on = false;
        // One place may have several names.
        for names in text.chunk_by(|a, b| a.address == b.address) {
            let ours = names.iter().any(|symbol| wanted(symbol));
            let start = names.first().map_or(0, |symbol| symbol.address);
            match runs.last_mut().filter(|_| goes_on) {
                Some(run) if ours => run.end = self.end_of(start),
                _ if ours => runs.push(start..self.end_of(start)),
                _ => {}
            }
            goes_on = ours;
        }
        runs
    }

    fn end_of(&self, start: u64) -> u64 {
        let next = self
            .symbols
            .partition_point(|symbol| symbol.address <= start);
        let next = self.symbols.get(next).map(|symbol| symbol.address);
        next.unwrap_or(start.saturating_add(LAST_LEN))
    }
}

fn parse_line(line: &str) -> Option<Symbol> {
    let mut words = line.split_ascii_whitespace();
    let address = u64::from_str_radix(words.next()?, 16).ok()?;
    let kind = words.next()?;
    let name = words.next()?;
    Some(Symbol {
        address,
        text: matches!(kind, "t" | "T" | "w" | "W"),
        // The room that compilers leave in front of a function has a name of its own.
        name: name.strip_prefix("__pfx_").unwrap_or(name).into(),
        module: words.next().map(|m| m.trim_matches(['[', ']']).into()),
    })
}

#[cfg(test)]
#[allow(
    clippy::single_range_in_vec_init,
    reason = "one range is what is meant"
)]
mod tests {
    use super::*;

    const TABLE: &str = "\
        1000 T io_pin_pages\n1000 T io_pin_alias\n1100 T other\n1200 t udmabuf_create\n\
        12f0 t __pfx_udmabuf_ioctl\n1300 t udmabuf_ioctl\n1400 T after\n1500 t io_pin_pages.cold\n1600 d data\n\
        9000 t ib_umem_get\t[ib_uverbs]\n9100 t ib_umem_release\t[ib_uverbs]\n9180 d ib_data\t[ib_uverbs]\n\
        a000 t last\t[vfio]\n";

    fn code(text: &str) -> Code {
        Code::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_function_is_its_range_and_its_cold_part() {
        let code = code(TABLE);
        assert_eq!(
            code.function("io_pin_pages"),
            [0x1000..0x1100, 0x1500..0x1600]
        );
        assert_eq!(code.function("io_pin_alias"), [0x1000..0x1100]);
        assert_eq!(code.function("io_pin"), []);
        assert_eq!(code.function("data"), []);
        assert_eq!(code.function("last"), [0xa000..0xb000]);
    }

    #[test]
    fn a_module_ends_where_its_data_or_somebody_else_begins() {
        let code = code(TABLE);
        assert_eq!(code.module("ib_uverbs"), [0x9000..0x9180]);
        assert_eq!(code.module("ib_core"), []);
        assert_eq!(code.modules(), ["ib_uverbs", "vfio"]);
    }

    #[test]
    fn neighbours_of_one_prefix_are_one_range() {
        assert_eq!(code(TABLE).kernel_prefix("udmabuf_"), [0x1200..0x1400]);
        assert_eq!(code(TABLE).kernel_prefix("ib_"), []);
    }

    #[test]
    fn hidden_addresses_are_not_missing_functions() {
        let hidden = code("0000 T io_pin_pages\n0000 T other\n");
        assert!(hidden.is_hidden());
        assert_eq!(hidden.function("io_pin_pages"), []);
        assert!(!code(TABLE).is_hidden());
        assert!(!code("").is_hidden());
    }

    #[test]
    fn the_order_of_lines_does_not_matter() {
        let mut lines: Vec<&str> = TABLE.lines().collect();
        lines.reverse();
        let code = code(&lines.join("\n"));
        assert_eq!(code.module("ib_uverbs"), [0x9000..0x9180]);
        assert_eq!(code.kernel_prefix("udmabuf_"), [0x1200..0x1400]);
    }
}
