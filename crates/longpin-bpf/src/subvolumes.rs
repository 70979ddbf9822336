//! What file systems keep beside an inode, from the BTF of the kernel or of their modules: btrfs the number of a file's
//! subvolume (each numbers its files anew), ext4 and xfs the flags that they journal its data, or want it in DAX; and
//! what overlayfs and FUSE keep (`overlay.rs`).
//!
//! The programs cannot be told when they load: the module may come later.
#![allow(
    unsafe_code,
    reason = "libbpf-rs has no BTF of modules, which is split from the kernel's"
)]

use std::ffi::CStr;
use std::path::Path;
use std::ptr::NonNull;

use libbpf_rs::AsRawLibbpf;
use libbpf_rs::btf::Btf;
use libbpf_rs::libbpf_sys::{
    BTF_KIND_STRUCT, btf, btf__find_by_name_kind, btf__free, btf__load_module_btf,
    btf__name_by_offset, btf__type_by_id, btf_member, btf_type,
};

use crate::overlay::{self, OVERLAY_WORDS};
use crate::types::constant;

/// BTF of a module; freed on drop.
struct Own(NonNull<btf>);

impl Drop for Own {
    fn drop(&mut self) {
        // SAFETY: ours, and freed once.
        unsafe { btf__free(self.0.as_ptr()) }
    }
}

/// BTF of the kernel or of a module, as long as that lives.
pub(crate) struct Types(NonNull<btf>);

impl Types {
    fn structure(&self, name: &CStr) -> Option<*const btf_type> {
        let all = self.0.as_ptr();
        // SAFETY: BTF that is alive, and a name that ends.
        let id = unsafe { btf__find_by_name_kind(all, name.as_ptr(), BTF_KIND_STRUCT) };
        // SAFETY: as above; for a number that it has not it gives a null pointer.
        let found = unsafe { btf__type_by_id(all, u32::try_from(id).ok()?) };
        (!found.is_null()).then_some(found)
    }

    /// Bytes that this structure takes.
    pub(crate) fn size(&self, structure: &CStr) -> Option<u32> {
        let found = self.structure(structure)?;
        // SAFETY: a type that lives as long as the BTF.
        let found = unsafe { found.as_ref()? };
        // SAFETY: a structure has a size in this place.
        Some(unsafe { found.__bindgen_anon_1.size })
    }

    /// Bytes from the beginning of this structure to its member.
    pub(crate) fn offset(&self, structure: &CStr, member: &CStr) -> Option<u32> {
        let all = self.0.as_ptr();
        let found = self.structure(structure)?;
        // SAFETY: null, or a type that lives as long as the BTF.
        let info = unsafe { found.as_ref()? }.info;
        let first = found.wrapping_add(1).cast::<btf_member>();
        // SAFETY: the low 16 bits of `info` say how many members follow a structure.
        let members = unsafe { std::slice::from_raw_parts(first, (info & 0xffff) as usize) };
        let name = |it: &btf_member| {
            // SAFETY: an offset from this BTF; it gives a null pointer for one that it has not.
            let name = unsafe { btf__name_by_offset(all, it.name_off) };
            // SAFETY: a string that ends, and lives as long as the BTF.
            (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) })
        };
        let found = members.iter().find(|it| name(it) == Some(member))?;
        // With bit fields the upper bits are their width.
        let bits = if info >> 31 == 1 {
            found.offset & 0xff_ffff
        } else {
            found.offset
        };
        Some(bits / 8)
    }
}

const _: () = assert!(size_of::<btf_type>() == 12 && size_of::<btf_member>() == 12);

/// What the programs are told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BesideInodes {
    /// `guard_state.subvolumes` of bpf/shared.h; `None` where there is no btrfs, or no BTF of it.
    pub subvolumes: Option<u32>,
    /// `guard_state.subvolume_refs`; as `subvolumes`.
    pub subvolume_refs: Option<u32>,
    /// `guard_state.ext4_flags`; `None` where there is no ext4, or no BTF of it.
    pub ext4_flags: Option<u32>,
    /// `guard_state.xfs_flags`; `None` where there is no xfs, or no BTF of it.
    pub xfs_flags: Option<u32>,
    /// `guard_state.overlay`; `None` where there is no overlayfs, or no BTF of it.
    pub overlay: Option<[u32; OVERLAY_WORDS]>,
    /// `guard_state.fuse_passthrough`; `None` where there is no FUSE.
    pub fuse_passthrough: Option<u32>,
}

impl BesideInodes {
    /// Of the file systems that the kernel knows by now.
    pub(crate) fn find(kernel: &Btf<'_>) -> Self {
        Self {
            subvolumes: look(kernel, c"btrfs", find_subvolumes),
            subvolume_refs: look(kernel, c"btrfs", find_subvolume_refs),
            ext4_flags: look(kernel, c"ext4", find_ext4_flags),
            xfs_flags: look(kernel, c"xfs", find_xfs_flags),
            overlay: look(kernel, c"overlay", overlay::find),
            fuse_passthrough: look(kernel, c"fuse", overlay::find_passthrough),
        }
    }

    /// The same, where nobody has read the kernel's BTF.
    pub(crate) fn read() -> Self {
        Btf::from_vmlinux().map_or_else(|_| Self::default(), |kernel| Self::find(&kernel))
    }
}

/// Is one of these in the kernel's list of file systems? Of one that is not in it no file is open.
pub(crate) fn is_any_known<'a>(file_systems: impl IntoIterator<Item = &'a CStr>) -> bool {
    let mut wanted = file_systems.into_iter().peekable();
    if wanted.peek().is_none() {
        return false;
    }
    let list = std::fs::read_to_string(Path::new("/proc/filesystems")).unwrap_or_default();
    let names: Vec<&str> = list
        .lines()
        .filter_map(|line| line.split('\t').nth(1))
        .collect();
    wanted.any(|name| names.iter().any(|it| it.as_bytes() == name.to_bytes()))
}

/// Offsets that are the module's, or the kernel's where it is built in.
fn look<T>(kernel: &Btf<'_>, module: &CStr, find: impl FnOnce(&Types) -> Option<T>) -> Option<T> {
    if !is_any_known([module]) {
        return None;
    }
    let kernel = Types(kernel.as_libbpf_object());
    // SAFETY: a name that ends, and BTF that outlives the module's: it is borrowed.
    let own = unsafe { btf__load_module_btf(module.as_ptr(), kernel.0.as_ptr()) };
    let own = NonNull::new(own).map(Own);
    find(&own.as_ref().map_or(kernel, |own| Types(own.0)))
}

fn find_subvolumes(types: &Types) -> Option<u32> {
    let inode = types.offset(c"btrfs_inode", c"vfs_inode")?;
    let back = inode.checked_sub(types.offset(c"btrfs_inode", c"root")?)?;
    let key = types.offset(c"btrfs_root", c"root_key")?;
    pack(back, key + types.offset(c"btrfs_key", c"objectid")?)
}

/// How often a subvolume has a name, of which it has one until it is deleted.
fn find_subvolume_refs(types: &Types) -> Option<u32> {
    let item = types.offset(c"btrfs_root", c"root_item")?;
    Some(item + types.offset(c"btrfs_root_item", c"refs")?)
}

fn find_ext4_flags(types: &Types) -> Option<u32> {
    let inode = types.offset(c"ext4_inode_info", c"vfs_inode")?;
    inode.checked_sub(types.offset(c"ext4_inode_info", c"i_flags")?)
}

fn find_xfs_flags(types: &Types) -> Option<u32> {
    let inode = types.offset(c"xfs_inode", c"i_vnode")?;
    inode.checked_sub(types.offset(c"xfs_inode", c"i_diflags2")?)
}

/// Two offsets in one word.
fn pack(back: u32, number: u32) -> Option<u32> {
    let bits = constant::SUBVOLUME_SHIFT.0;
    let fits = back >> bits == 0 && number.leading_zeros() >= bits && back != 0 && number != 0;
    fits.then_some(number << bits | back)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_the_kernels_structures_are_found() {
        let Ok(kernel) = Btf::from_vmlinux() else {
            return println!("not tried: no BTF");
        };
        let kernel = Types(kernel.as_libbpf_object());
        assert_eq!(kernel.offset(c"list_head", c"next"), Some(0));
        assert_eq!(kernel.offset(c"list_head", c"prev"), Some(8));
        assert_eq!(kernel.size(c"list_head"), Some(16));
        assert_eq!(kernel.offset(c"list_head", c"none"), None);
        assert_eq!(kernel.offset(c"no_such_structure", c"next"), None);
    }

    #[test]
    fn offsets_are_packed_only_if_they_fit() {
        assert_eq!(pack(520, 503), Some(503 << 16 | 520));
        assert_eq!(pack(0, 503), None);
        assert_eq!(pack(520, 1 << 16), None);
    }
}
