//! Development commands of the longpin workspace: the guest and its kernels, the test tiers, the demo, the costs.

mod apt;
mod bench;
mod build;
mod cli;
mod console;
mod demo;
mod docs;
mod env;
mod failures;
mod kernels;
mod kmod;
mod kvm;
mod leash;
mod lint;
mod outputs;
mod reboot;
mod rows;
mod rundir;
mod setup;
mod stall;
mod tally;
mod test;
mod ui;
mod vm;
mod weakened;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match cli.command.run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            ui::say(&format!("error: {error:#}"));
            ExitCode::from(vm::EXIT_NO_GUEST)
        }
    }
}
