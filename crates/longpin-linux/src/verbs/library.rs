//! libibverbs, loaded when it is first asked for, and never unloaded.
#![allow(unsafe_code, reason = "dlopen and dlsym")]

use std::ffi::{CStr, c_void};
use std::mem::{size_of, transmute_copy};
use std::ptr::NonNull;
use std::sync::OnceLock;

use super::VerbsError;
use super::abi::{
    AdviseMr, AllocPd, CloseDevice, DeallocPd, DeregMr, FreeDeviceList, GetDeviceList,
    GetDeviceName, OpenDevice, RegMr,
};

const NAME: &CStr = c"libibverbs.so.1";

/// The functions that are used.
#[derive(Debug)]
pub(super) struct Library {
    pub(super) get_device_list: GetDeviceList,
    pub(super) free_device_list: FreeDeviceList,
    pub(super) get_device_name: GetDeviceName,
    pub(super) open_device: OpenDevice,
    pub(super) close_device: CloseDevice,
    pub(super) alloc_pd: AllocPd,
    pub(super) dealloc_pd: DeallocPd,
    pub(super) reg_mr: RegMr,
    pub(super) dereg_mr: DeregMr,
    /// What drivers of rdma-core call themselves to give advice; absent where a version does not export it.
    pub(super) cmd_advise_mr: Option<AdviseMr>,
}

/// The library; loaded once.
pub(super) fn library() -> Result<&'static Library, VerbsError> {
    static LIBRARY: OnceLock<Result<Library, String>> = OnceLock::new();
    match LIBRARY.get_or_init(load) {
        Ok(library) => Ok(library),
        Err(said) => Err(VerbsError::NoLibrary { said: said.clone() }),
    }
}

#[expect(
    clippy::multiple_unsafe_ops_per_block,
    reason = "ten times the same: a name and its type"
)]
fn load() -> Result<Library, String> {
    // SAFETY: libibverbs's initialisers have no requirements.
    let handle = unsafe { libc::dlopen(NAME.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    let handle = NonNull::new(handle).ok_or_else(last_error)?;
    // SAFETY: of each name, the type is the one that <infiniband/verbs.h> declares.
    unsafe {
        Ok(Library {
            get_device_list: symbol(handle, c"ibv_get_device_list")?,
            free_device_list: symbol(handle, c"ibv_free_device_list")?,
            get_device_name: symbol(handle, c"ibv_get_device_name")?,
            open_device: symbol(handle, c"ibv_open_device")?,
            close_device: symbol(handle, c"ibv_close_device")?,
            alloc_pd: symbol(handle, c"ibv_alloc_pd")?,
            dealloc_pd: symbol(handle, c"ibv_dealloc_pd")?,
            reg_mr: symbol(handle, c"ibv_reg_mr")?,
            dereg_mr: symbol(handle, c"ibv_dereg_mr")?,
            cmd_advise_mr: symbol(handle, c"ibv_cmd_advise_mr").ok(),
        })
    }
}

/// # Safety
///
/// `F` is the type of the function of this name.
unsafe fn symbol<F>(handle: NonNull<c_void>, name: &CStr) -> Result<F, String> {
    const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
    // SAFETY: the handle is dlopen's, and the name ends in a zero byte.
    let found = unsafe { libc::dlsym(handle.as_ptr(), name.as_ptr()) };
    if found.is_null() {
        return Err(last_error());
    }
    // SAFETY: a function's address, as large as F, which the caller says is that function's type.
    Ok(unsafe { transmute_copy(&found) })
}

fn last_error() -> String {
    // SAFETY: no arguments.
    let said = unsafe { libc::dlerror() };
    if said.is_null() {
        return "no reason given".to_owned();
    }
    // SAFETY: dlerror's text ends in a zero byte, and stays until the next call of its kind in this thread.
    unsafe { CStr::from_ptr(said) }
        .to_string_lossy()
        .into_owned()
}
