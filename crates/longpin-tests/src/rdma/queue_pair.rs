//! Reliable connections, and the reads and writes of the end that asks.
#![allow(
    unsafe_code,
    reason = "a work request names memory by address; the wrapping crate leaves its validity to us"
)]

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sideway::ibverbs::AccessFlags;
use sideway::ibverbs::address::{AddressHandleAttribute, Gid};
use sideway::ibverbs::completion::{
    BasicCompletionQueue, GenericCompletionQueue, WorkCompletionStatus,
};
use sideway::ibverbs::queue_pair::{
    BasicQueuePair, PostSendGuard, QueuePair as Verbs, QueuePairAttribute, QueuePairState,
    SetScatterGatherEntry, WorkRequestFlags,
};

use super::{Access, Device, DeviceError, PORT, ProtectionDomain, Region};
use crate::mapping::Mapping;

/// The most that one work request moves; a longer transfer is several.
const CHUNK: usize = 1 << 20;
/// How long one work request may take. The device gives up earlier, after its own retries.
const PATIENCE: Duration = Duration::from_secs(20);
/// The first packet's number, on both ends; any 24-bit number does.
const FIRST_PACKET: u32 = 0x1000;
/// What the local buffer holds before a read, so that data which never arrived is not taken for old data.
const POISON: u8 = 0xa5;

/// Where a queue pair is reached; what the two ends tell each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Number of the queue pair on its device.
    pub qp_number: u32,
    /// Address of the device.
    pub gid: [u8; 16],
}

/// Why a transfer did not complete.
#[derive(Debug, thiserror::Error)]
pub enum CompletionError {
    /// The device, this one or the other, answered with an error. The connection is broken afterwards.
    #[error("the device answered {status:?}, {done} bytes in")]
    Status {
        /// `ibv_wc_status`.
        status: WorkCompletionStatus,
        /// The bytes that were transferred before.
        done: usize,
    },
    /// Neither success nor error within the time allowed. The connection is given up.
    #[error("no completion within {after:?}")]
    Timeout {
        /// How long it was waited for.
        after: Duration,
    },
    /// An earlier transfer broke the connection: make a new queue pair.
    #[error("the connection broke in an earlier transfer")]
    Broken,
    /// The verbs themselves failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

impl CompletionError {
    /// Whether the other end's device refused access, as it does when a page cannot be faulted in.
    pub fn is_remote_refusal(&self) -> bool {
        use WorkCompletionStatus::{RemoteAccessError, RemoteOperationError};
        matches!(
            self,
            Self::Status {
                status: RemoteAccessError | RemoteOperationError,
                ..
            }
        )
    }
}

#[derive(Clone, Copy)]
enum Direction {
    Read,
    Write,
}

/// One end of a reliable connection, with a registered buffer of its own for what it moves.
///
/// The order of the fields is the order of their end: the device stops before its buffer goes.
#[derive(Debug)]
pub struct QueuePair {
    verbs: BasicQueuePair,
    completions: Arc<BasicCompletionQueue>,
    region: Region,
    buffer: Mapping,
    device: Device,
    broken: bool,
}

impl QueuePair {
    /// `ibv_create_qp`, and the first state, INIT: it can be found, and is not connected.
    pub fn new(domain: &ProtectionDomain) -> Result<Self, DeviceError> {
        let buffer = Mapping::anonymous(CHUNK)
            .map_err(|errno| DeviceError::verb("map a buffer")(std::io::Error::from(errno)))?;
        let access = Access {
            local_write: true,
            ..Access::default()
        };
        let region = Region::register(domain, &buffer, 0..CHUNK, access)
            .map_err(DeviceError::verb("register a buffer"))?;
        let device = domain.device.clone();
        let completions = device
            .context
            .create_cq_builder()
            .setup_cqe(16)
            .build()
            .map_err(DeviceError::verb("create a completion queue"))?;
        let queue = GenericCompletionQueue::Basic(Arc::clone(&completions));
        let mut verbs = domain
            .domain
            .create_qp_builder()
            .setup_send_cq(queue.clone())
            .setup_recv_cq(queue)
            .build()
            .map_err(DeviceError::verb("create a queue pair"))?;
        initialise(&mut verbs)?;
        Ok(Self {
            verbs,
            completions,
            region,
            buffer,
            device,
            broken: false,
        })
    }

    /// What the other end has to know.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint {
            qp_number: self.verbs.qp_number(),
            gid: self.device.gid.raw,
        }
    }

    /// `ibv_modify_qp` to RTR and RTS: connected to the other end, which has to do the same.
    pub fn connect(&mut self, peer: &Endpoint) -> Result<(), DeviceError> {
        let mut route = AddressHandleAttribute::new();
        route
            .setup_port(PORT)
            .setup_service_level(0)
            .setup_grh_src_gid_index(self.device.gid_index)
            .setup_grh_dest_gid(&Gid { raw: peer.gid })
            .setup_grh_hop_limit(64);
        let mut receive = QueuePairAttribute::new();
        receive
            .setup_state(QueuePairState::ReadyToReceive)
            .setup_path_mtu(self.device.mtu)
            .setup_dest_qp_num(peer.qp_number)
            .setup_rq_psn(FIRST_PACKET)
            .setup_max_dest_read_atomic(1)
            .setup_min_rnr_timer(12)
            .setup_address_vector(&route);
        self.verbs
            .modify(&receive)
            .map_err(DeviceError::verb("make the queue pair ready to receive"))?;
        let mut send = QueuePairAttribute::new();
        // 4.096 us * 2^17 is half a second a try; a slow guest may well need that long for one chunk.
        send.setup_state(QueuePairState::ReadyToSend)
            .setup_sq_psn(FIRST_PACKET)
            .setup_timeout(17)
            .setup_retry_cnt(7)
            .setup_rnr_retry(7)
            .setup_max_read_atomic(1);
        self.verbs
            .modify(&send)
            .map_err(DeviceError::verb("make the queue pair ready to send"))
    }

    /// RDMA READ: what the other end's device finds in its memory now.
    pub fn read(&mut self, addr: u64, rkey: u32, len: usize) -> Result<Vec<u8>, CompletionError> {
        let mut data = Vec::with_capacity(len);
        while data.len() < len {
            let size = CHUNK.min(len - data.len());
            self.buffer.copy_in(0, &vec![POISON; size]);
            let from = addr + data.len() as u64;
            self.transfer(Direction::Read, from, rkey, size, data.len())?;
            data.extend(self.buffer.copy_out(0..size));
        }
        Ok(data)
    }

    /// RDMA WRITE: into the other end's memory, past its processor.
    pub fn write(&mut self, addr: u64, rkey: u32, data: &[u8]) -> Result<(), CompletionError> {
        for (chunk, done) in data.chunks(CHUNK).zip((0..).step_by(CHUNK)) {
            self.buffer.copy_in(0, chunk);
            let to = addr + done as u64;
            self.transfer(Direction::Write, to, rkey, chunk.len(), done)?;
        }
        Ok(())
    }

    fn transfer(
        &mut self,
        direction: Direction,
        addr: u64,
        rkey: u32,
        len: usize,
        done: usize,
    ) -> Result<(), CompletionError> {
        if self.broken {
            return Err(CompletionError::Broken);
        }
        self.post(direction, addr, rkey, len)?;
        match self.await_completion() {
            Ok(WorkCompletionStatus::Success) => Ok(()),
            Ok(status) => {
                self.broken = true;
                Err(CompletionError::Status { status, done })
            }
            Err(error) => {
                self.give_up();
                Err(error)
            }
        }
    }

    fn post(
        &mut self,
        direction: Direction,
        addr: u64,
        rkey: u32,
        len: usize,
    ) -> Result<(), DeviceError> {
        let size = u32::try_from(len).map_err(DeviceError::verb("fit a work request"))?;
        let (lkey, local) = (self.region.lkey(), self.region.addr());
        let mut guard = self.verbs.start_post_send();
        let request = guard.construct_wr(0, WorkRequestFlags::Signaled);
        let request = match direction {
            Direction::Read => request.setup_read(rkey, addr),
            Direction::Write => request.setup_write(rkey, addr),
        };
        // SAFETY: the buffer is registered, at least CHUNK >= len long, and outlives the queue pair.
        unsafe { request.setup_sge(lkey, local, size) };
        guard
            .post()
            .map_err(DeviceError::verb("post a work request"))
    }

    fn await_completion(&self) -> Result<WorkCompletionStatus, CompletionError> {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            let completion = self
                .completions
                .start_poll()
                .ok()
                .and_then(|mut poll| poll.next());
            if let Some(completion) = completion {
                return Ok(completion.status().into());
            }
            sleep(Duration::from_micros(200));
        }
        Err(CompletionError::Timeout { after: PATIENCE })
    }

    /// Moves the queue pair to the error state, in which the device no longer touches the buffer.
    fn give_up(&mut self) {
        self.broken = true;
        let mut error = QueuePairAttribute::new();
        error.setup_state(QueuePairState::Error);
        // Should this fail too, the buffer is still ours until the queue pair is destroyed.
        let _ = self.verbs.modify(&error);
    }
}

/// Two connected queue pairs in this process.
pub fn loopback(domain: &ProtectionDomain) -> Result<(QueuePair, QueuePair), DeviceError> {
    let mut one = QueuePair::new(domain)?;
    let mut other = QueuePair::new(domain)?;
    one.connect(&other.endpoint())?;
    other.connect(&one.endpoint())?;
    Ok((one, other))
}

fn initialise(verbs: &mut BasicQueuePair) -> Result<(), DeviceError> {
    let mut attributes = QueuePairAttribute::new();
    attributes
        .setup_state(QueuePairState::Init)
        .setup_pkey_index(0)
        .setup_port(PORT)
        .setup_access_flags(
            AccessFlags::LocalWrite | AccessFlags::RemoteRead | AccessFlags::RemoteWrite,
        );
    verbs
        .modify(&attributes)
        .map_err(DeviceError::verb("initialise the queue pair"))
}
