//! Where overlayfs and FUSE keep the files behind their own, and overlayfs the file systems of its layers: from the BTF of
//! their modules.

use crate::subvolumes::Types;

/// `OVERLAY_WORDS` of bpf/shared.h.
pub(crate) const OVERLAY_WORDS: usize = 8;

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
    Some([
        upper,
        lower,
        step,
        stack,
        count,
        flags,
        files.into(),
        layers,
    ])
}

/// Where the array lies, the number of its entries, and how large each is, in one word.
fn find_layers(types: &Types) -> Option<u32> {
    let layers = types.offset(c"ovl_fs", c"fs")?;
    let count = types.offset(c"ovl_fs", c"numfs")?;
    let size = types.size(c"ovl_sb")?;
    let is_first = types.offset(c"ovl_sb", c"sb")? == 0;
    let fits = is_first && layers < 1 << 12 && count < 1 << 12 && size < 1 << 8;
    fits.then_some(size << 24 | count << 12 | layers)
}

/// `NOT_THERE` of bpf/shared.h.
const NOT_THERE: u32 = 1;

/// `guard_state.fuse_passthrough`.
pub(crate) fn find_passthrough(types: &Types) -> Option<u32> {
    let found = types.offset(c"fuse_file", c"passthrough");
    Some(found.unwrap_or(NOT_THERE))
}
