//! One module a command.

mod check;
mod check_config;
mod demo;
mod doctor;
mod extents;
mod files;
mod guard;
mod hold;
mod ls;
mod on_demand;
mod plan;
mod prepare;
mod progress;
mod swap;
mod swap_header;
mod verify;
mod watch;

use std::process::ExitCode;

use longpin_linux::kallsyms;

use crate::cli::{Cli, Command};

pub(crate) fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    longpin::guard::set_verbose(cli.verbose);
    let _symbols = (!goes_on(&cli.command)).then(kallsyms::keep);
    match &cli.command {
        Command::Demo => demo::run(),
        Command::Guard(command) => guard::run(command),
        Command::Ls(options) => ls::run(options),
        Command::Why(options) => files::why(options),
        Command::Watch(options) => watch::run(options),
        Command::Deny(file) => files::deny(file),
        Command::Allow(file) => files::allow(file),
        Command::Release(options) => files::release(options),
        Command::Doctor { json } => doctor::run(*json),
        Command::Check(options) => check::run(options),
        Command::TryPin(options) => plan::try_pin(options),
        Command::Prepare(options) => prepare::run(options),
        Command::Swapon(options) => swap::on(options),
        Command::Swapoff(file) => swap::off(file),
        Command::Hold(options) => hold::run(options),
        Command::Extents(options) => extents::run(options),
    }
}

/// Commands that live as long as somebody wants them: modules may come and go meanwhile.
fn goes_on(command: &Command) -> bool {
    matches!(
        command,
        Command::Watch(_) | Command::Hold(_) | Command::Demo
    )
}
