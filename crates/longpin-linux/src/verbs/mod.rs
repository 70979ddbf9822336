//! RDMA verbs, as far as memory regions need them. libibverbs is loaded at run time: without it,
//! [`VerbsError::NoLibrary`].
#![allow(
    unsafe_code,
    reason = "calls into libibverbs, and its structures behind pointers"
)]

pub mod abi;
mod library;
mod region;

use std::any::Any;
use std::ffi::{CStr, c_void};
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use rustix::io::Errno;

use abi::{Before, DeviceAttributes};
use library::{Library, library};

pub use region::{Region, RegionAccess};

/// Why a device could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerbsError {
    /// libibverbs is not there.
    #[error("libibverbs.so.1 cannot be loaded: {said}")]
    NoLibrary {
        /// What the loader said.
        said: String,
    },
    /// No device has this name.
    #[error("no RDMA device {name}; there are: {}", present.join(", "))]
    NoDevice {
        /// The name asked for.
        name: String,
        /// Those that exist.
        present: Vec<String>,
    },
    /// A verb failed.
    #[error("{device}: cannot {what}")]
    Verb {
        /// The device.
        device: String,
        /// What was to be done.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// `ibv_odp_transport_cap_bits`: what a transport can do without a pin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TransportCaps(pub u32);

impl TransportCaps {
    /// `IBV_ODP_SUPPORT_SEND`.
    pub const SEND: u32 = 1;
    /// `IBV_ODP_SUPPORT_RECV`.
    pub const RECV: u32 = 1 << 1;
    /// `IBV_ODP_SUPPORT_WRITE`.
    pub const WRITE: u32 = 1 << 2;
    /// `IBV_ODP_SUPPORT_READ`.
    pub const READ: u32 = 1 << 3;
    /// `IBV_ODP_SUPPORT_ATOMIC`.
    pub const ATOMIC: u32 = 1 << 4;

    /// All of these.
    #[must_use]
    pub const fn has(self, bits: u32) -> bool {
        self.0 & bits == bits
    }
}

/// What `ibv_query_device_ex` tells of regions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// The device's name.
    pub device: String,
    /// `IBV_ODP_SUPPORT`: the device faults pages in.
    pub on_demand: bool,
    /// Without a pin, over reliable connections.
    pub rc: TransportCaps,
    /// Over unreliable connections.
    pub uc: TransportCaps,
    /// Over datagrams.
    pub ud: TransportCaps,
    /// Bytes of the largest region.
    pub max_region: u64,
}

/// `struct ibv_context`: an open device, closed with its last owner.
#[derive(Debug)]
pub struct Context {
    raw: NonNull<abi::Context>,
    name: String,
    library: &'static Library,
}

// SAFETY: libibverbs locks for itself (ibv_* are documented as thread-safe).
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    /// `ibv_get_device_list`, `ibv_open_device`.
    ///
    /// # Errors
    ///
    /// [`VerbsError`].
    pub fn open(name: &str) -> Result<Arc<Self>, VerbsError> {
        let library = library()?;
        let list = List::read(library).map_err(failed(name, "list the RDMA devices"))?;
        let names = list.names();
        let found = names.iter().position(|(_, own)| own == name);
        let Some(at) = found else {
            return Err(VerbsError::NoDevice {
                name: name.to_owned(),
                present: names.into_iter().map(|(_, name)| name).collect(),
            });
        };
        // SAFETY: a device of the list, which lives until the end of this function.
        let opened = unsafe { (library.open_device)(names[at].0) };
        let raw = NonNull::new(opened)
            .ok_or_else(|| failed(name, "open the device")(io::Error::last_os_error()))?;
        Ok(Arc::new(Self {
            raw,
            name: name.to_owned(),
            library,
        }))
    }

    /// The device's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `ibv_query_device_ex`. A driver without the extended query has no on-demand paging.
    ///
    /// # Errors
    ///
    /// [`VerbsError::Verb`].
    pub fn capabilities(&self) -> Result<Capabilities, VerbsError> {
        // SAFETY: the context is open as long as `self`.
        let found = unsafe { query(self.raw) };
        let found = found.map_err(|err| failed(&self.name, "query the device")(err.into()))?;
        let is_known = found.odp_general & 1 != 0;
        let caps = |bits: u32| TransportCaps(if is_known { bits } else { 0 });
        Ok(Capabilities {
            device: self.name.clone(),
            on_demand: is_known,
            rc: caps(found.odp_rc),
            uc: caps(found.odp_uc),
            ud: caps(found.odp_ud),
            // 0: an older query, which does not say.
            max_region: match found.max_mr_size {
                0 => u64::MAX,
                bytes => bytes,
            },
        })
    }

    /// `ibv_alloc_pd`.
    ///
    /// # Errors
    ///
    /// [`VerbsError::Verb`].
    pub fn protection_domain(self: &Arc<Self>) -> Result<ProtectionDomain, VerbsError> {
        // SAFETY: the context is open as long as `self`.
        let made = unsafe { (self.library.alloc_pd)(self.raw.as_ptr()) };
        let raw = NonNull::new(made).ok_or_else(|| {
            failed(&self.name, "allocate a protection domain")(io::Error::last_os_error())
        })?;
        let owner = Owner::Own(self.clone());
        let library = self.library;
        Ok(ProtectionDomain(Arc::new(Domain {
            raw,
            owner,
            library,
        })))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: ours, open, and closed once; domains keep the context, so none is left.
        let _ = unsafe { (self.library.close_device)(self.raw.as_ptr()) };
    }
}

/// `struct ibv_pd`: what regions and queue pairs must share; freed with its last owner.
#[derive(Debug, Clone)]
pub struct ProtectionDomain(Arc<Domain>);

#[derive(Debug)]
struct Domain {
    raw: NonNull<abi::Pd>,
    owner: Owner,
    library: &'static Library,
}

// SAFETY: as for Context; what a foreign owner keeps is Send and Sync itself.
unsafe impl Send for Domain {}
// SAFETY: as above.
unsafe impl Sync for Domain {}

#[derive(Debug)]
enum Owner {
    Own(Arc<Context>),
    Other(String, #[allow(dead_code, reason = "kept alive")] Keep),
}

/// Whatever keeps a foreign domain alive.
struct Keep(#[allow(dead_code, reason = "kept alive")] Box<dyn Any + Send + Sync>);

impl std::fmt::Debug for Keep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keep")
    }
}

impl ProtectionDomain {
    /// A domain that another library made, with the name of its device; `keep` is what keeps it alive.
    ///
    /// # Errors
    ///
    /// [`VerbsError::NoLibrary`].
    ///
    /// # Safety
    ///
    /// `raw` is a `struct ibv_pd *` of this process's libibverbs.so.1, and is not freed before `keep` is dropped.
    pub unsafe fn from_raw(
        raw: NonNull<c_void>,
        device: &str,
        keep: Box<dyn Any + Send + Sync>,
    ) -> Result<Self, VerbsError> {
        Ok(Self(Arc::new(Domain {
            raw: raw.cast(),
            owner: Owner::Other(device.to_owned(), Keep(keep)),
            library: library()?,
        })))
    }

    /// The `struct ibv_pd *`, for other users of libibverbs: valid as long as this value or a clone lives.
    #[must_use]
    pub fn as_raw(&self) -> NonNull<c_void> {
        self.0.raw.cast()
    }

    /// The device's name.
    #[must_use]
    pub fn device(&self) -> &str {
        match &self.0.owner {
            Owner::Own(context) => context.name(),
            Owner::Other(name, _) => name,
        }
    }

    /// [`Context::capabilities`] of its device.
    ///
    /// # Errors
    ///
    /// [`VerbsError::Verb`].
    pub fn capabilities(&self) -> Result<Capabilities, VerbsError> {
        Context::open(self.device())?.capabilities()
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        if matches!(self.owner, Owner::Own(_)) {
            // SAFETY: ours, and freed once; regions keep the domain, so none of ours is left.
            let _ = unsafe { (self.library.dealloc_pd)(self.raw.as_ptr()) };
        }
    }
}

fn failed(device: &str, what: &'static str) -> impl Fn(io::Error) -> VerbsError {
    let device = device.to_owned();
    move |source| VerbsError::Verb {
        device: device.clone(),
        what,
        source,
    }
}

/// `ibv_get_device_list`, freed on drop.
struct List {
    devices: NonNull<*mut c_void>,
    count: usize,
    library: &'static Library,
}

impl List {
    fn read(library: &'static Library) -> io::Result<Self> {
        let mut count = 0;
        // SAFETY: the count is ours to be written.
        let devices = unsafe { (library.get_device_list)(&raw mut count) };
        Ok(Self {
            devices: NonNull::new(devices).ok_or_else(io::Error::last_os_error)?,
            count: usize::try_from(count).unwrap_or(0),
            library,
        })
    }

    fn names(&self) -> Vec<(*mut c_void, String)> {
        let name = |at: usize| {
            // SAFETY: the list has `count` devices.
            let device = unsafe { self.devices.as_ptr().wrapping_add(at).read() };
            // SAFETY: a device of the list.
            let name = unsafe { (self.library.get_device_name)(device) };
            // SAFETY: the name ends in a zero byte, and lives as long as the list.
            let name = unsafe { CStr::from_ptr(name) };
            (device, name.to_string_lossy().into_owned())
        };
        (0..self.count).map(name).collect()
    }
}

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: the library's own list, freed once.
        unsafe { (self.library.free_device_list)(self.devices.as_ptr()) };
    }
}

/// A member of `struct verbs_context`, a function's address; `None` where this library or driver has none.
///
/// # Safety
///
/// The context is open.
unsafe fn extended(context: NonNull<abi::Context>, member: Before) -> Option<NonNull<c_void>> {
    // SAFETY: an open context.
    let is_extended = unsafe { (*context.as_ptr()).abi_compat.addr() == usize::MAX };
    if !is_extended {
        return None;
    }
    let word = |member: Before| {
        context
            .cast::<usize>()
            .as_ptr()
            .wrapping_sub(member as usize)
    };
    // SAFETY: before an extended context lies its size.
    let size = unsafe { word(Before::Size).read() };
    let needed = member as usize * size_of::<usize>() + size_of::<abi::Context>();
    if size < needed {
        return None;
    }
    // SAFETY: the structure is long enough to have this member, as its size says.
    NonNull::new(unsafe { word(member).cast::<*mut c_void>().read() })
}

/// # Safety
///
/// The context is open.
unsafe fn query(context: NonNull<abi::Context>) -> Result<DeviceAttributes, Errno> {
    let mut attributes = MaybeUninit::<DeviceAttributes>::zeroed();
    // SAFETY: the context is open.
    let function = unsafe { extended(context, Before::QueryDeviceEx) };
    if let Some(function) = function {
        // SAFETY: the member of this name has this type.
        let function: abi::QueryDeviceEx = unsafe { std::mem::transmute(function.as_ptr()) };
        let size = size_of::<DeviceAttributes>();
        // SAFETY: the structure is ours, and of the size that the call is told.
        let answer =
            unsafe { function(context.as_ptr(), ptr::null(), attributes.as_mut_ptr(), size) };
        if answer != 0 && answer != libc::EOPNOTSUPP && answer != libc::ENOSYS {
            return Err(Errno::from_raw_os_error(answer.abs()));
        }
    }
    // SAFETY: all integers, all initialised by `zeroed`; the call wrote into some of them.
    Ok(unsafe { attributes.assume_init() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_not_there_is_named() {
        match Context::open("no-such-device") {
            // Without RDMA packages, or where /dev/infiniband is out of reach.
            Err(VerbsError::NoLibrary { said }) => assert!(said.contains("libibverbs")),
            Err(VerbsError::NoDevice { name, .. }) => assert_eq!(name, "no-such-device"),
            Err(VerbsError::Verb { what, .. }) => assert_eq!(what, "list the RDMA devices"),
            Ok(_) => panic!("opened"),
        }
    }
}
