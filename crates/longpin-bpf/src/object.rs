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
