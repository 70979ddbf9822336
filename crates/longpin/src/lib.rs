//! Holds on files whose pages hardware has pinned.
//!
//! The promise is `docs/guarantee.md`; its claims are [`Claim`]. The guard ([`guard`]) lives in the
//! kernel: this library starts it, proves it, asks it, and stops it. [`listing`] says who holds what, [`config`]
//! reads the administrator's rules.
#![forbid(unsafe_code)]

pub mod activation;
pub mod admin;
mod claim;
pub mod config;
mod consumer;
pub mod doctor;
pub mod events;
pub mod extents;
pub mod filesystem;
pub mod fixed_buffer;
pub mod guard;
pub mod hold;
pub mod listing;

mod names;
pub mod on_demand;
pub mod plan;
pub mod preparation;
pub mod registration;
pub mod swapfile;
pub mod watchdog;

pub use claim::{Claim, Enforcement};
pub use hold::{Hold, Refusal};
