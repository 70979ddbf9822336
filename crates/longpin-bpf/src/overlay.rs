//! Where overlayfs and FUSE keep the files behind their own: from the BTF of their modules, which may come after the
//! programs.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::state::GuardState;
use crate::subvolumes::{Types, look};

/// `OVERLAY_WORDS` of bpf/shared.h.
pub(crate) const OVERLAY_WORDS: usize = 8;

/// `guard_state.overlay`; `None` where there is no overlayfs, or no BTF of it.
fn find() -> Option<[u32; OVERLAY_WORDS]> {
    look(c"overlay", places)
}

fn places(types: &Types) -> Option<[u32; OVERLAY_WORDS]> {
    let of = |member| types.offset(c"ovl_inode", member);
    let inode = of(c"vfs_inode")?;
    let upper = of(c"__upperdentry")?.checked_sub(inode)?;
    let flags = inode.checked_sub(of(c"flags")?)?;
    let dentry = types.offset(c"ovl_path", c"dentry")?;
    // Since 6.13 two files for each that is open.
    let files = types.offset(c"ovl_file", c"realfile").is_some();
    let [lower, step, stack, count] = match of(c"oe") {
        Some(list) => {
            let of = |member| types.offset(c"ovl_entry", member);
            let stack = of(c"__lowerstack")? + dentry;
            let step = types.size(c"ovl_path")?;
            [list.checked_sub(inode)?, step, stack, of(c"__numlower")?]
        }
        // Before 6.5 one.
        None => [of(c"lowerpath")?.checked_sub(inode)? + dentry, 0, 0, 0],
    };
    Some([upper, lower, step, stack, count, flags, files.into(), 0])
}

/// `NOT_THERE` of bpf/shared.h.
const NOT_THERE: u32 = 1;

/// `guard_state.fuse_passthrough`.
fn find_passthrough() -> u32 {
    look(c"fuse", |types| types.offset(c"fuse_file", c"passthrough")).unwrap_or(NOT_THERE)
}

fn is_there(module: &str) -> bool {
    Path::new("/sys/module").join(module).exists()
}

/// Let the programs know, if they do not and the kernel has overlayfs, or FUSE.
pub(crate) fn learn(state: &GuardState) {
    learn_into(&state.overlay, &state.fuse_passthrough);
}

fn learn_into(known: &[AtomicU32; OVERLAY_WORDS], passthrough: &AtomicU32) {
    if passthrough.load(Ordering::Acquire) == 0 && is_there("fuse") {
        passthrough.store(find_passthrough(), Ordering::Release);
    }
    if known[0].load(Ordering::Acquire) != 0 || !is_there("overlay") {
        return;
    }
    // The first one last: it says that the others are there.
    for (slot, word) in known.iter().zip(find().unwrap_or_default()).rev() {
        slot.store(word, Ordering::Release);
    }
}

/// What is known when the programs load.
pub(crate) fn known() -> ([u32; OVERLAY_WORDS], u32) {
    let known = [const { AtomicU32::new(0) }; OVERLAY_WORDS];
    let passthrough = AtomicU32::new(0);
    learn_into(&known, &passthrough);
    (known.map(AtomicU32::into_inner), passthrough.into_inner())
}
