//! Where overlayfs and FUSE keep the files behind their own, and overlayfs the file systems of its layers: from the BTF of
//! their modules.

use crate::subvolumes::Types;
use crate::types::{constant, overlay_word};

pub(crate) const OVERLAY_WORDS: usize = overlay_word::OVERLAY_WORDS.0 as usize;

/// `guard_state.overlay`.
pub(crate) fn find(types: &Types) -> Option<[u32; OVERLAY_WORDS]> {
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
    let layers = find_layers(types).unwrap_or(0);
    let mut words = [0; OVERLAY_WORDS];
    for (word, found) in [
        (overlay_word::OVERLAY_UPPER, upper),
        (overlay_word::OVERLAY_LOWER, lower),
        (overlay_word::OVERLAY_STEP, step),
        (overlay_word::OVERLAY_STACK, stack),
        (overlay_word::OVERLAY_COUNT, count),
        (overlay_word::OVERLAY_FLAGS, flags),
        (overlay_word::OVERLAY_FILES, files.into()),
        (overlay_word::OVERLAY_LAYERS, layers),
    ] {
        words[word.0 as usize] = found;
    }
    Some(words)
}

/// Where the array lies, the number of its entries, and how large each is, in one word.
fn find_layers(types: &Types) -> Option<u32> {
    let layers = types.offset(c"ovl_fs", c"fs")?;
    let count = types.offset(c"ovl_fs", c"numfs")?;
    let size = types.size(c"ovl_sb")?;
    let is_first = types.offset(c"ovl_sb", c"sb")? == 0;
    let (low, high) = (
        constant::LAYERS_COUNT_SHIFT.0,
        constant::LAYERS_SIZE_SHIFT.0,
    );
    let fits = layers >> low == 0 && count >> (high - low) == 0 && size.leading_zeros() >= high;
    (is_first && fits).then_some(size << high | count << low | layers)
}

/// `guard_state.fuse_passthrough`.
pub(crate) fn find_passthrough(types: &Types) -> Option<u32> {
    let found = types.offset(c"fuse_file", c"passthrough");
    Some(found.unwrap_or(constant::NOT_THERE.0))
}
