//! What the test, the server and the client say to each other.

use std::ops::Range;
use std::path::PathBuf;

use longpin_tests::history::{Found, Span};
use longpin_tests::rdma::Endpoint;
use serde::{Deserialize, Serialize};

/// To the server.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Register the file.
    Offer(Offer),
    /// Make a queue pair, connected to this one; the one before ends.
    Connect(Endpoint),
    /// End the registration.
    Withdraw,
}

/// How a file is offered.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Offer {
    pub(super) path: PathBuf,
    /// The client may write it, too.
    pub(super) writes: bool,
    /// Pinned; else on demand.
    pub(super) pinned: bool,
    /// Only if the guard holds it.
    pub(super) held: bool,
}

/// From the server.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    Offered(Window),
    Connected(Endpoint),
    Withdrawn,
    /// The plan is none; the rule.
    Refused(String),
    /// In words.
    Failed(String),
}

/// Where the client finds the file.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Window {
    pub(super) address: u64,
    pub(super) rkey: u32,
    pub(super) pages: u64,
}

/// To the client.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// Transfer without end.
    Begin(Traffic),
    /// The answer to [`Said::Connect`].
    Connected(Endpoint),
    /// Transfer no more.
    Stop,
}

/// What the client does.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Traffic {
    pub(super) window: Window,
    pub(super) writes: bool,
    /// The generation of its first write; each takes the next.
    pub(super) generation: u64,
}

/// From the client.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Said {
    /// Make a queue pair, connected to this one.
    Connect(Endpoint),
    Did(Transfer),
    Stopped,
}

/// One transfer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Transfer {
    pub(super) span: Span,
    pub(super) pages: Range<u64>,
    pub(super) did: Did,
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Did {
    /// What was found, page by page.
    Read(Vec<Found>),
    /// This generation was written, and the other end has said so.
    Wrote(u64),
    /// The other end refused, or did not answer.
    Failed {
        /// It was to write this generation.
        wrote: Option<u64>,
        /// By when nothing of it was under way any more: the client had another connection.
        settled: u64,
        /// The other end's device said that it cannot have the memory.
        refused: bool,
        /// In words.
        error: String,
    },
}
