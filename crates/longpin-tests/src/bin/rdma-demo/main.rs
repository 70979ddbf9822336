//! `rdma-demo`: a file whose pages a device has pinned, truncated and punched, without the guard and with it.
//!
//! Run as root where a soft-RoCE (or any RoCE) device exists. It makes its own file systems, starts and stops the
//! guard, and undoes all of it, also when it is interrupted: see [`supervise`].

use std::io::Write;
use std::process::ExitCode;

mod client;
mod command;
mod compare;
mod guard;
mod options;
mod protocol;
mod remote;
mod report;
mod round;
mod server;
mod show;
mod supervise;

use options::Role;

/// Something that the demo needs is missing, or it was interrupted.
const CANNOT_TELL: u8 = 2;
/// The command line is wrong.
const USAGE: u8 = 16;

fn main() -> ExitCode {
    let role = match options::parse(std::env::args().skip(1)) {
        Ok(role) => role,
        Err(error) => return complain(&error, USAGE),
    };
    let result = match role {
        Role::Help => {
            show::line(options::HELP);
            Ok(ExitCode::SUCCESS)
        }
        Role::Serve { device } => server::serve(&device).map(|()| ExitCode::SUCCESS),
        Role::Supervise => supervise::run(),
        Role::Show(options) => show::demo(&options),
    };
    result.unwrap_or_else(|error| complain(&error, CANNOT_TELL))
}

pub(crate) fn complain(error: &anyhow::Error, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "rdma-demo: {error:#}");
    ExitCode::from(code)
}
