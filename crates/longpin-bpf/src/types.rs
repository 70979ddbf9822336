//! What the programs and this crate both know, as the skeleton has it from the object's BTF: structures and enumerations of
//! `bpf/shared.h`. An enumeration is a number here: one that this build does not know is a value, too.
//! `Default` is the first that has a name; what is not filled in is `Zeroable::zeroed`, as in the kernel's tables.
#![allow(
    unsafe_code,
    reason = "that generated structures are plain bytes nobody else can promise"
)]

use bytemuck::{Pod, Zeroable};

pub(crate) use crate::skel::guard::types::*;

macro_rules! plain {
    ($($name:ident)*) => {$(
        // SAFETY: `repr(C)`, of numbers alone, and arrays and structures of them: 0 is a value of each.
        unsafe impl Zeroable for $name {}
        // SAFETY: as above, so is each other pattern of bits; and no byte is left out: `shared.h` is compiled with -Wpadded.
        unsafe impl Pod for $name {}
    )*};
}

plain! { answer event explicit_hold file_identity region_row row row_key rule sight stray suspect }
