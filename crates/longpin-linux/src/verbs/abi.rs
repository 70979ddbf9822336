//! What of `<infiniband/verbs.h>` is used, laid out as rdma-core has it since its version 1.1 (2012). A test beside the
//! ones that need RDMA compares it with rdma-core's own header.

use std::ffi::{c_char, c_int, c_uint, c_void};

/// `IBV_ACCESS_LOCAL_WRITE`.
pub const LOCAL_WRITE: c_int = 1;
/// `IBV_ACCESS_REMOTE_WRITE`.
pub const REMOTE_WRITE: c_int = 1 << 1;
/// `IBV_ACCESS_REMOTE_READ`.
pub const REMOTE_READ: c_int = 1 << 2;
/// `IBV_ACCESS_ON_DEMAND`.
pub const ON_DEMAND: c_int = 1 << 6;

/// `struct ibv_context`.
#[repr(C)]
#[allow(missing_docs, reason = "the header's names")]
pub struct Context {
    pub device: *mut c_void,
    pub ops: [*mut c_void; 32],
    pub cmd_fd: c_int,
    pub async_fd: c_int,
    pub num_comp_vectors: c_int,
    pub mutex: libc::pthread_mutex_t,
    pub abi_compat: *mut c_void,
}

/// Members of `struct verbs_context` lie before its `context`, and grow away from it: so many words before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// `sz`, the bytes of the whole structure.
    Size = 1,
    /// `query_device_ex`.
    QueryDeviceEx = 13,
    /// `advise_mr`.
    AdviseMr = 39,
}

/// `struct ibv_pd`.
#[repr(C)]
#[allow(missing_docs, reason = "the header's names")]
pub struct Pd {
    pub context: *mut Context,
    pub handle: u32,
}

/// `struct ibv_mr`.
#[repr(C)]
#[allow(missing_docs, reason = "the header's names")]
pub struct Mr {
    pub context: *mut Context,
    pub pd: *mut Pd,
    pub addr: *mut c_void,
    pub length: usize,
    pub handle: u32,
    pub lkey: u32,
    pub rkey: u32,
}

/// `struct ibv_sge`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
#[allow(missing_docs, reason = "the header's names")]
pub struct Sge {
    pub addr: u64,
    pub length: u32,
    pub lkey: u32,
}

/// The beginning of `struct ibv_device_attr_ex`, up to `odp_caps`: the call is told how much is wanted.
#[repr(C)]
#[allow(missing_docs, reason = "the header's names")]
pub struct DeviceAttributes {
    pub before: [u64; 10],
    pub max_mr_size: u64,
    pub behind: [u64; 18],
    pub comp_mask: u32,
    pub odp_general: u64,
    pub odp_rc: u32,
    pub odp_uc: u32,
    pub odp_ud: u32,
}

pub(super) type GetDeviceList = unsafe extern "C" fn(*mut c_int) -> *mut *mut c_void;
pub(super) type FreeDeviceList = unsafe extern "C" fn(*mut *mut c_void);
pub(super) type GetDeviceName = unsafe extern "C" fn(*mut c_void) -> *const c_char;
pub(super) type OpenDevice = unsafe extern "C" fn(*mut c_void) -> *mut Context;
pub(super) type CloseDevice = unsafe extern "C" fn(*mut Context) -> c_int;
pub(super) type AllocPd = unsafe extern "C" fn(*mut Context) -> *mut Pd;
pub(super) type DeallocPd = unsafe extern "C" fn(*mut Pd) -> c_int;
pub(super) type RegMr = unsafe extern "C" fn(*mut Pd, *mut c_void, usize, c_int) -> *mut Mr;
pub(super) type DeregMr = unsafe extern "C" fn(*mut Mr) -> c_int;
pub(super) type QueryDeviceEx =
    unsafe extern "C" fn(*mut Context, *const c_void, *mut DeviceAttributes, usize) -> c_int;
pub(super) type AdviseMr = unsafe extern "C" fn(*mut Pd, c_uint, u32, *mut Sge, u32) -> c_int;
