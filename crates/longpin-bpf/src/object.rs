//! The programs, compiled for kernels with `bpf_rdonly_cast` and for those without, and each of these for the guard and
//! for explicit holds alone.

use std::sync::atomic::{AtomicUsize, Ordering};

static OBJECTS: [&[u8]; 4] = [
    include_bytes!(concat!(env!("OUT_DIR"), "/plain.o")),
    include_bytes!(concat!(env!("OUT_DIR"), "/guard.o")),
    include_bytes!(concat!(env!("OUT_DIR"), "/plain-holds.o")),
    include_bytes!(concat!(env!("OUT_DIR"), "/holds.o")),
];

static CHOSEN: AtomicUsize = AtomicUsize::new(0);

/// Before an object is opened: has the running kernel the function, and are pins none of our business?
pub(crate) fn choose(has_cast: bool, only_holds: bool) {
    let chosen = usize::from(has_cast) | usize::from(only_holds) << 1;
    CHOSEN.store(chosen, Ordering::Relaxed);
}

/// What the skeleton opens.
pub(crate) fn chosen() -> &'static [u8] {
    OBJECTS[CHOSEN.load(Ordering::Relaxed) & 3]
}

/// All of them.
#[cfg(test)]
pub(crate) fn all() -> [&'static [u8]; 4] {
    OBJECTS
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Before Linux 6.7 the verifier goes through the function of a loop once, with what is known at its first call, and
    /// cuts out the branches that only later calls take. Of what a global function is given nothing is known, so what is
    /// below these stays whole.
    const GLOBAL: [&str; 7] = [
        "walk_pages",
        "walk_inodes",
        "next_interval",
        "leave_tree",
        "next_row",
        "find_slot",
        "find_pin_rule",
    ];
    const SYMTAB: u64 = 2;
    const GLOBAL_FUNCTION: u64 = 1 << 4 | 2;

    /// A little-endian number in an ELF file.
    fn number(object: &[u8], at: u64, len: usize) -> u64 {
        let at = usize::try_from(at).unwrap();
        let bytes = object[at..at + len].iter().rev();
        bytes.fold(0, |all, byte| all << 8 | u64::from(*byte))
    }

    fn name(object: &[u8], at: u64) -> String {
        let rest = &object[usize::try_from(at).unwrap()..];
        let len = rest.iter().position(|byte| *byte == 0).unwrap();
        String::from_utf8_lossy(&rest[..len]).into_owned()
    }

    /// Names of the functions that every part of the program may call: global, and not hidden (elf(5)).
    fn global_functions(object: &[u8]) -> Vec<String> {
        let (sections, size) = (number(object, 0x28, 8), number(object, 0x3a, 2));
        let header = |i: u64| sections + i * size;
        let count = number(object, 0x3c, 2);
        let table = (0..count).map(header);
        let table = table
            .into_iter()
            .find(|at| number(object, at + 4, 4) == SYMTAB)
            .expect("symbols");
        let names = number(object, header(number(object, table + 0x28, 4)) + 0x18, 8);
        let (start, len) = (
            number(object, table + 0x18, 8),
            number(object, table + 0x20, 8),
        );
        let symbols = (start..start + len).step_by(24);
        let wanted = symbols.filter(|at| {
            number(object, at + 4, 1) == GLOBAL_FUNCTION && number(object, at + 5, 1) == 0
        });
        wanted
            .map(|at| name(object, names + number(object, at, 4)))
            .collect()
    }

    #[test]
    fn what_older_verifiers_must_go_through_once_is_global() {
        for (i, object) in OBJECTS.iter().enumerate() {
            let found = global_functions(object);
            assert!(found.iter().any(|it| it == "file_permission"), "{found:?}");
            // Static, and called by one of them: so not all symbols count as global.
            assert!(!found.iter().any(|it| it == "look_at_inode"), "{found:?}");
            for wanted in GLOBAL {
                assert!(
                    found.iter().any(|it| it == wanted),
                    "object {i}: {wanted} is not global"
                );
            }
        }
    }
}
