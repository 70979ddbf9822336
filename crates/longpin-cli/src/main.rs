//! `longpin`: holds on files whose pages hardware has pinned.

mod cli;
mod commands;
mod output;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(err) => return output::report_usage(&err),
    };
    // Then such a write ends it, as ever.
    let _ = longpin_linux::relay::outlive_size_limit();
    match commands::run(&cli) {
        Ok(code) => code,
        Err(err) => output::report(&err, cli.verbose),
    }
}
