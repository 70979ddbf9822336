//! linux/fscrypt.h

use std::marker::PhantomData;

use super::{READ, Request, WRITE, number};

/// `struct fscrypt_key_specifier`: type 2, then the identifier.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(in crate::operations) struct KeySpecifier {
    pub(in crate::operations) kind: u32,
    pub(in crate::operations) reserved: u32,
    pub(in crate::operations) identifier: [u8; 16],
    pub(in crate::operations) rest: [u64; 2],
}
/// `struct fscrypt_add_key_arg` with a key of 64 bytes.
#[repr(C)]
pub(in crate::operations) struct AddKey {
    pub(in crate::operations) specifier: KeySpecifier,
    pub(in crate::operations) size: u32,
    pub(in crate::operations) id: u32,
    pub(in crate::operations) reserved: [u32; 8],
    pub(in crate::operations) key: [u8; 64],
}
/// `FS_IOC_ADD_ENCRYPTION_KEY`; its number does not count the key.
pub(in crate::operations) const ADD_KEY: Request<AddKey> = Request {
    number: number(READ | WRITE, b'f', 23, 80),
    argument: PhantomData,
};
/// `struct fscrypt_policy_v2`.
#[repr(C)]
#[derive(Default)]
pub(in crate::operations) struct KeyPolicy {
    /// Version, modes of contents and of names, flags.
    pub(in crate::operations) head: [u8; 4],
    pub(in crate::operations) reserved: [u8; 4],
    pub(in crate::operations) identifier: [u8; 16],
}
/// `FS_IOC_SET_ENCRYPTION_POLICY`; its number counts the first version.
pub(in crate::operations) const SET_KEY_POLICY: Request<KeyPolicy> = Request {
    number: number(READ, b'f', 19, 12),
    argument: PhantomData,
};
/// `struct fscrypt_remove_key_arg`.
#[repr(C)]
#[derive(Default)]
pub(in crate::operations) struct RemoveKey {
    pub(in crate::operations) specifier: KeySpecifier,
    pub(in crate::operations) status: u32,
    pub(in crate::operations) reserved: [u32; 5],
}
/// `FS_IOC_REMOVE_ENCRYPTION_KEY`.
pub(in crate::operations) const REMOVE_KEY: Request<RemoveKey> =
    Request::new(READ | WRITE, b'f', 24);
