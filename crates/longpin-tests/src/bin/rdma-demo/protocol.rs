//! What the demo and its server say to each other: one line of JSON for each request, one for each reply.

use std::path::PathBuf;

use longpin_tests::rdma::Endpoint;
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Map the file and register it.
    Register(Registration),
    /// Make a queue pair, connected to this one.
    Connect(Endpoint),
    /// End the registration and the mapping.
    Deregister,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Registration {
    pub(crate) path: PathBuf,
    pub(crate) writable: bool,
    pub(crate) on_demand: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Registered(Window),
    Connected(Endpoint),
    Deregistered,
    /// What was asked for did not work, in words.
    Failed(String),
}

/// What the client needs to read the file over RDMA.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Window {
    pub(crate) addr: u64,
    pub(crate) rkey: u32,
    pub(crate) len: usize,
}
