//! `longpin`: holds on files whose pages hardware has pinned.

mod cli;
mod commands;
mod output;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match commands::run(&cli) {
        Ok(code) => code,
        Err(err) => output::report(&err, cli.verbose),
    }
}
