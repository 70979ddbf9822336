//! One module a command.

mod check_config;
mod demo;
mod doctor;
mod guard;
mod ls;
mod progress;

use std::process::ExitCode;

use crate::cli::{Cli, Command};

pub(crate) fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    longpin::guard::set_verbose(cli.verbose);
    match &cli.command {
        Command::Demo => demo::run(),
        Command::Guard(command) => guard::run(command),
        Command::Ls(options) => ls::run(options),
        Command::Doctor { json } => doctor::run(*json),
    }
}
