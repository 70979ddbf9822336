//! Verbs over one device, as little as the tests and the demo need: a region that pins a mapped file, and queue pairs
//! that read and write it from the other end.
//!
//! Nothing here waits for ever: a transfer that the device does not complete ends with [`CompletionError::Timeout`].
#![allow(
    unsafe_code,
    reason = "device attributes, of which the wrapping crate may leave parts unwritten"
)]

use std::error::Error as StdError;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::Arc;

use rdma_mummy_sys as sys;
use rustix::io::Errno;
use sideway::ibverbs::address::{Gid, GidEntry, GidType};
use sideway::ibverbs::device::{DeviceInfo, DeviceList};
use sideway::ibverbs::device_context::{DeviceContext, Mtu};
use sideway::ibverbs::protection_domain::ProtectionDomain as Domain;

mod queue_pair;
mod region;

pub use queue_pair::{CompletionError, Endpoint, QueuePair, loopback};
pub use region::{Access, DeregisterError, Region, RegisterError};

/// The port that is used; soft-RoCE has one.
const PORT: u8 = 1;

/// Why a device, or something on it, could not be had.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// No device has this name.
    #[error("no RDMA device {name}; there are: {present}")]
    NoDevice {
        /// The name asked for.
        name: String,
        /// The devices that exist, separated by commas.
        present: String,
    },
    /// RoCE v2 needs an IPv4 address on the network device below.
    #[error(
        "RDMA device {name} has no RoCE v2 GID with an IPv4 address: give its network device one"
    )]
    NoAddress {
        /// The device.
        name: String,
    },
    /// A verb failed.
    #[error("cannot {what}")]
    Verb {
        /// What was to be done.
        what: &'static str,
        /// The cause, in the words of the library below.
        #[source]
        cause: Box<dyn StdError + Send + Sync>,
    },
}

impl DeviceError {
    /// Wraps the error of one verb.
    fn verb<E: Into<Box<dyn StdError + Send + Sync>>>(what: &'static str) -> impl Fn(E) -> Self {
        move |cause| Self::Verb {
            what,
            cause: cause.into(),
        }
    }
}

/// An open device, with the GID through which its queue pairs talk.
#[derive(Debug, Clone)]
pub struct Device {
    context: Arc<DeviceContext>,
    gid: Gid,
    gid_index: u8,
    mtu: Mtu,
}

impl Device {
    /// `ibv_open_device` of the device with this name; picks its RoCE v2 GID with an IPv4 address.
    pub fn open(name: &str) -> Result<Self, DeviceError> {
        let list = DeviceList::new().map_err(DeviceError::verb("list the RDMA devices"))?;
        let device = list.iter().find(|device| device.name() == name);
        let device = device.ok_or_else(|| DeviceError::NoDevice {
            name: name.to_owned(),
            present: list
                .iter()
                .map(|device| device.name())
                .collect::<Vec<_>>()
                .join(", "),
        })?;
        let context = device
            .open()
            .map_err(DeviceError::verb("open the RDMA device"))?;
        let mtu = context
            .query_port(PORT)
            .map_err(DeviceError::verb("query the port"))?
            .active_mtu();
        let entries = context
            .query_gid_table()
            .map_err(DeviceError::verb("read the table of GIDs"))?;
        let (gid_index, gid) =
            entries
                .iter()
                .find_map(routable)
                .ok_or_else(|| DeviceError::NoAddress {
                    name: name.to_owned(),
                })?;
        Ok(Self {
            context,
            gid,
            gid_index,
            mtu,
        })
    }

    /// `ibv_query_device_ex`: whether a reliable connection can read regions that the device faults in on demand.
    ///
    /// A device or library without the extended query has no such regions: that is `false`, not an error.
    pub fn odp_supported(&self) -> Result<bool, DeviceError> {
        let mut attributes = MaybeUninit::<sys::ibv_device_attr_ex>::zeroed();
        // SAFETY: the context is open as long as `self`.
        let context = unsafe { self.context.context() };
        // SAFETY: the structure is ours, zeroed, and of the size that the call is told.
        let answer = unsafe {
            sys::ibv_query_device_ex(context.as_ptr(), ptr::null(), attributes.as_mut_ptr())
        };
        if answer != 0 {
            let cause = std::io::Error::from(Errno::from_raw_os_error(answer));
            return Err(DeviceError::verb("query the device")(cause));
        }
        // SAFETY: all integers, all initialised by `zeroed`; the call wrote into some of them.
        let odp = unsafe { attributes.assume_init() }.odp_caps;
        let general = u64::from(sys::ibv_odp_general_caps::IBV_ODP_SUPPORT.0);
        let read = sys::ibv_odp_transport_cap_bits::IBV_ODP_SUPPORT_READ.0;
        let connected = odp.per_transport_caps.rc_odp_caps;
        Ok(odp.general_caps & general != 0 && connected & read != 0)
    }

    /// `ibv_alloc_pd`.
    pub fn protection_domain(&self) -> Result<ProtectionDomain, DeviceError> {
        let domain = self
            .context
            .alloc_pd()
            .map_err(DeviceError::verb("allocate a protection domain"))?;
        Ok(ProtectionDomain {
            domain,
            device: self.clone(),
        })
    }
}

/// What regions and queue pairs must share to reach each other; freed with the last of them.
#[derive(Debug, Clone)]
pub struct ProtectionDomain {
    domain: Arc<Domain>,
    device: Device,
}

impl ProtectionDomain {
    /// The device that it is of.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The same domain, for the regions of `longpin-rdma`.
    pub fn for_longpin(&self) -> Result<longpin_rdma::ProtectionDomain, longpin_rdma::VerbsError> {
        // SAFETY: the domain lives as long as this value's owners, of which the region's domain keeps one.
        let raw = unsafe { self.domain.pd() };
        let name = self.device.context.name();
        let keep = Box::new(self.domain.clone());
        // SAFETY: a domain of this process's libibverbs, which `keep` keeps.
        unsafe { longpin_rdma::ProtectionDomain::from_raw(raw.cast(), &name, keep) }
    }
}

/// Index and GID, if it is RoCE v2 over IPv4 on our port.
fn routable(entry: &GidEntry) -> Option<(u8, Gid)> {
    let gid = entry.gid();
    let is_ipv4 = gid
        .raw
        .starts_with(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
    let fits = entry.gid_type() == GidType::RoceV2 && entry.port_num() == u32::from(PORT);
    let index = u8::try_from(entry.gid_index()).ok()?;
    (is_ipv4 && fits).then_some((index, gid))
}
