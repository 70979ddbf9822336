//! The programs, compiled for kernels with `bpf_rdonly_cast` and for those without.

use std::sync::atomic::{AtomicBool, Ordering};

static CAST: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/guard.o"));
static PLAIN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/plain.o"));

static HAS_CAST: AtomicBool = AtomicBool::new(false);

/// Before an object is opened: has the running kernel the function?
pub(crate) fn choose(has_cast: bool) {
    HAS_CAST.store(has_cast, Ordering::Relaxed);
}

/// What the skeleton opens.
pub(crate) fn chosen() -> &'static [u8] {
    if HAS_CAST.load(Ordering::Relaxed) {
        CAST
    } else {
        PLAIN
    }
}
