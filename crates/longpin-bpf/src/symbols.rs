//! Where the kernel's functions and variables lie. A program asks for each; reading `/proc/kallsyms`, all of whose lines
//! the kernel writes anew for each reader, costs as much as a third of what a start may.

use std::mem::MaybeUninit;
use std::ops::Range;

use libbpf_rs::OpenObject;
use libbpf_rs::skel::{OpenSkel, SkelBuilder};

use crate::BpfError;
use crate::pinned::run;
use crate::shared::text;
use crate::skel::symbols::{SymbolsSkelBuilder, types};

/// What the kernel says of one symbol: its first address, and the first behind it.
type Place = (&'static str, Option<Range<u64>>);

/// The symbols that were asked for.
#[derive(Debug)]
pub(crate) struct Symbols(Vec<Place>);

impl Symbols {
    /// `bpf_kallsyms_lookup_name` for each of these (5.16), and `bpf_snprintf` for how far it goes.
    ///
    /// # Errors
    ///
    /// [`BpfError::Load`] or [`BpfError::Run`].
    pub(crate) fn find(names: impl IntoIterator<Item = &'static str>) -> Result<Self, BpfError> {
        let names: Vec<_> = names.into_iter().collect();
        let mut storage = MaybeUninit::<OpenObject>::uninit();
        let mut open = SymbolsSkelBuilder::default()
            .open(&mut storage)
            .map_err(BpfError::Load)?;
        if let Some(data) = open.maps.bss_data.as_deref_mut() {
            for (slot, name) in data.symbols.iter_mut().zip(&names) {
                write_name(slot, name);
            }
        }
        let skel = open.load().map_err(BpfError::Load)?;
        run(&skel.progs.find_symbols, "find_symbols", &[])?;
        let found = skel.maps.bss_data.as_deref();
        let places = found.map_or(&[][..], |data| &data.symbols);
        let places = names.into_iter().zip(places.iter().map(parse_place));
        Ok(Self(places.collect()))
    }

    fn place(&self, name: &str) -> Option<&Range<u64>> {
        let mut all = self.0.iter();
        all.find(|(known, _)| *known == name)?.1.as_ref()
    }

    /// Where it begins; `None`: there is no such symbol, or addresses are hidden.
    pub(crate) fn address(&self, name: &str) -> Option<u64> {
        self.place(name).map(|place| place.start)
    }

    /// From a symbol up to the next one.
    pub(crate) fn code(&self, name: &str) -> Option<Range<u64>> {
        let place = self.place(name)?;
        (!place.is_empty()).then(|| place.clone())
    }
}

fn write_name(slot: &mut types::symbol, name: &str) {
    // The last byte stays 0.
    let room = slot.name.len() - 1;
    for (to, from) in slot.name.iter_mut().take(room).zip(name.bytes()) {
        *to = i8::from_ne_bytes([from]);
    }
}

fn parse_place(symbol: &types::symbol) -> Option<Range<u64>> {
    let start = (symbol.address != 0).then_some(symbol.address)?;
    let len = parse_length(&text(&symbol.place)).unwrap_or(0);
    Some(start..start.saturating_add(len))
}

/// Of `name+0x0/0x330`.
fn parse_length(text: &str) -> Option<u64> {
    let (_, length) = text.rsplit_once("+0x0/0x")?;
    let end = length.find(|c: char| !c.is_ascii_hexdigit());
    u64::from_str_radix(&length[..end.unwrap_or(length.len())], 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_read_from_what_the_kernel_prints() {
        assert_eq!(parse_length("vfs_fallocate+0x0/0x330"), Some(0x330));
        assert_eq!(
            parse_length("vfs_fallocate+0x0/0x330 [module]"),
            Some(0x330)
        );
        for bad in [
            "",
            "0xffffffff81000000",
            "vfs_fallocate+0x10/0x330",
            "a+0x0/0x",
        ] {
            assert_eq!(parse_length(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_name_ends_and_hidden_addresses_are_no_addresses() {
        let mut symbol = types::symbol::default();
        write_name(&mut symbol, &"n".repeat(100));
        assert_eq!(symbol.name[63], 0);
        assert_eq!(parse_place(&symbol), None);
        let found = Symbols(vec![
            ("variable", Some(8..8)),
            ("function", Some(16..48)),
            ("none", None),
        ]);
        assert_eq!(found.address("variable"), Some(8));
        assert_eq!(found.code("variable"), None);
        assert_eq!(found.code("function"), Some(16..48));
        assert_eq!(found.address("none"), None);
    }
}
