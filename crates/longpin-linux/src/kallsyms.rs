//! `/proc/kallsyms`: which kernel function an address belongs to.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::pseudo;

/// The list, while somebody keeps it.
#[derive(Debug)]
struct Kept {
    keepers: usize,
    text: Option<Arc<[u8]>>,
}

static KEPT: Mutex<Kept> = Mutex::new(Kept {
    keepers: 0,
    text: None,
});

fn kept() -> MutexGuard<'static, Kept> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As long as this lives the list is read once at most.
#[derive(Debug)]
#[must_use]
pub struct Keeper(());

/// The kernel writes its 200,000 lines anew for each reader, which costs more than most commands do besides. Who knows
/// that several parts will ask keeps the list meanwhile. Modules that come later are not in it, so a command that goes
/// on for long keeps nothing.
pub fn keep() -> Keeper {
    kept().keepers += 1;
    Keeper(())
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let mut kept = kept();
        kept.keepers -= 1;
        if kept.keepers == 0 {
            kept.text = None;
        }
    }
}

/// The lines of `/proc/kallsyms`.
///
/// # Errors
///
/// The file cannot be read.
pub fn open() -> io::Result<Box<dyn BufRead>> {
    open_with(&mut kept(), || {
        let path = "/proc/kallsyms";
        File::open(path).map_err(|err| match pseudo::is_absent(path.as_ref()) {
            Ok(()) => err,
            Err(hidden) => hidden,
        })
    })
}

fn open_with<F: io::Read + 'static>(
    kept: &mut Kept,
    open: impl FnOnce() -> io::Result<F>,
) -> io::Result<Box<dyn BufRead>> {
    if let Some(text) = &kept.text {
        return Ok(Box::new(Cursor::new(Arc::clone(text))));
    }
    let mut file = open()?;
    if kept.keepers == 0 {
        return Ok(Box::new(BufReader::with_capacity(1 << 16, file)));
    }
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    let text: Arc<[u8]> = text.into();
    kept.text = Some(Arc::clone(&text));
    Ok(Box::new(Cursor::new(text)))
}

/// A kernel function's name and its module (`None`: the kernel itself).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Symbol {
    /// The function.
    pub name: String,
    /// The module it belongs to.
    pub module: Option<String>,
}

/// The functions of the running kernel at some addresses.
#[derive(Debug, Default)]
pub struct Kallsyms {
    functions: HashMap<u64, Symbol>,
}

impl Kallsyms {
    /// Look these addresses up: one pass over `/proc/kallsyms` for all of them, none for none. Without privilege
    /// all addresses read as zero, and nothing is found.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn look_up(addresses: impl IntoIterator<Item = u64>) -> io::Result<Self> {
        let wanted = Wanted::new(addresses);
        if wanted.addresses.is_empty() {
            return Ok(Self::default());
        }
        wanted.find(open()?)
    }

    /// The function that contains one of the addresses.
    #[must_use]
    pub fn function_at(&self, address: u64) -> Option<&Symbol> {
        self.functions.get(&address)
    }
}

/// Whether the running kernel has a function of this name. Names are told without privilege, too.
///
/// # Errors
///
/// The file cannot be read, or tells no names.
pub fn has_function(name: &str) -> io::Result<bool> {
    find_name(open()?, name)
}

fn find_name(input: impl BufRead, name: &str) -> io::Result<bool> {
    let mut names = 0;
    for line in input.lines() {
        let line = line?;
        match line.split_ascii_whitespace().nth(2) {
            Some(found) if found == name => return Ok(true),
            found => names += usize::from(found.is_some()),
        }
    }
    match names {
        0 => Err(io::Error::other("/proc/kallsyms is empty")),
        _ => Ok(false),
    }
}

/// The addresses in question, in order. The table has some 200,000 lines and is not in order: of each gap between
/// two addresses the last function is kept, and only its line.
struct Wanted {
    addresses: Vec<u64>,
    last: Vec<Option<(u64, Symbol)>>,
}

impl Wanted {
    fn new(addresses: impl IntoIterator<Item = u64>) -> Self {
        let mut addresses: Vec<u64> = addresses.into_iter().filter(|&a| a != 0).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let last = vec![None; addresses.len()];
        Self { addresses, last }
    }

    fn find(mut self, mut input: impl BufRead) -> io::Result<Kallsyms> {
        let mut line = Vec::new();
        while input.read_until(b'\n', &mut line)? > 0 {
            self.note(&line);
            line.clear();
        }
        let mut functions = HashMap::new();
        let mut before: Option<(u64, Symbol)> = None;
        for (address, found) in self.addresses.into_iter().zip(self.last) {
            before = found.or(before);
            functions.extend(before.clone().map(|(_, symbol)| (address, symbol)));
        }
        Ok(Kallsyms { functions })
    }

    fn note(&mut self, line: &[u8]) {
        let Some((start, rest)) = split_address(line) else {
            return;
        };
        let gap = self.addresses.partition_point(|&address| address < start);
        let Some(last) = self.last.get_mut(gap) else {
            return;
        };
        // Of several names of one place the one that is listed last counts.
        if last.as_ref().is_none_or(|(known, _)| *known <= start) {
            if let Some(symbol) = parse_function(rest) {
                *last = Some((start, symbol));
            }
        }
    }
}

/// The address, and what follows it; `None` where it is hidden.
fn split_address(line: &[u8]) -> Option<(u64, &[u8])> {
    let end = line.iter().position(u8::is_ascii_whitespace)?;
    let digits = std::str::from_utf8(line.get(..end)?).ok()?;
    let address = u64::from_str_radix(digits, 16).ok()?;
    (address != 0).then_some((address, line.get(end..)?))
}

/// Data is no function.
fn parse_function(rest: &[u8]) -> Option<Symbol> {
    let mut words = std::str::from_utf8(rest).ok()?.split_ascii_whitespace();
    let kind = words.next()?;
    let name = words.next()?.to_owned();
    let module = words.next().map(|m| m.trim_matches(['[', ']']).to_owned());
    matches!(kind, "t" | "T" | "w" | "W").then_some(Symbol { name, module })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "3000 T third\n1000 T first\n1800 d data\n2000 t ib_umem_get\t[ib_uverbs]\n0 T hidden\n";

    fn name_at(address: u64, all: &[u64]) -> Option<String> {
        let found = Wanted::new(all.iter().copied()).find(TEXT.as_bytes());
        found
            .unwrap()
            .function_at(address)
            .map(|symbol| symbol.name.clone())
    }

    #[test]
    fn names_are_told_without_addresses() {
        let text = "0 T first\n0 t second\t[module]\n";
        let found = |name| find_name(text.as_bytes(), name).unwrap();
        assert!(found("first") && found("second") && !found("sec"));
        assert!(find_name(&b""[..], "first").is_err(), "unknown, not absent");
    }

    #[test]
    fn an_address_belongs_to_the_function_before_it() {
        let all = [0x1fff, 0x2004, 0xfff, 0x1000, 0x2008, 0, 0x2004];
        assert_eq!(name_at(0x1fff, &all).as_deref(), Some("first"));
        assert_eq!(name_at(0x1000, &all).as_deref(), Some("first"));
        assert_eq!(name_at(0x2004, &all).as_deref(), Some("ib_umem_get"));
        assert_eq!(name_at(0x2008, &all).as_deref(), Some("ib_umem_get"));
        assert_eq!(name_at(0xfff, &all), None);
    }

    #[test]
    fn data_is_no_function_and_modules_have_names() {
        let found = Wanted::new([0x1900, 0x2004]).find(TEXT.as_bytes()).unwrap();
        assert_eq!(found.function_at(0x1900).unwrap().name, "first");
        assert_eq!(
            found.function_at(0x2004).unwrap().module.as_deref(),
            Some("ib_uverbs")
        );
    }

    #[test]
    fn the_list_is_read_once_while_it_is_kept_and_anew_when_nobody_does() {
        let mut kept = Kept {
            keepers: 1,
            text: None,
        };
        let mut opened = 0;
        let mut read = |kept: &mut Kept| {
            let input = open_with(kept, || {
                opened += 1;
                Ok(TEXT.as_bytes())
            });
            let found = Wanted::new([0x1000]).find(input.unwrap()).unwrap();
            assert_eq!(found.function_at(0x1000).unwrap().name, "first");
            opened
        };
        assert_eq!((read(&mut kept), read(&mut kept)), (1, 1));
        let mut nobody = Kept {
            keepers: 0,
            text: None,
        };
        assert_eq!((read(&mut nobody), read(&mut nobody)), (2, 3));
        assert!(nobody.text.is_none());
    }

    #[test]
    fn what_is_kept_goes_with_the_last_keeper() {
        let (one, two) = (keep(), keep());
        let _ = open().unwrap();
        drop(one);
        assert!(kept().text.is_some());
        drop(two);
        assert!(kept().text.is_none());
    }

    #[test]
    fn nothing_wanted_is_nothing_read() {
        assert!(Kallsyms::look_up([0]).unwrap().functions.is_empty());
    }
}
