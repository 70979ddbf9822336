//! What the guard costs, in instructions: `cargo xtask bench` boots a guest that counts them and runs this there.
//!
//! Prints one Markdown document part; nothing here decides whether a figure is good.

mod bpf;
mod commands;
mod count;
mod disk;
mod folios;
mod guard;
mod held;
mod hold;
mod hot;
mod kprobe;
mod memory;
mod options;
mod perftest;
mod register;
mod stages;
mod start;
mod table;
mod walk;

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let asked = match options::parse(std::env::args().skip(1)) {
        Ok(Some(asked)) => asked,
        Ok(None) => {
            table::line(options::HELP);
            return ExitCode::SUCCESS;
        }
        Err(error) => return complain(&error, 16),
    };
    let measured = if asked.disk {
        disk::run(&asked)
    } else {
        stages::run(&asked)
    };
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error, 2),
    }
}

fn complain(error: &anyhow::Error, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "guard-bench: {error:#}");
    ExitCode::from(code)
}
