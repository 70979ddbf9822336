//! perftest: what other people's programs measure between two processes, without the guard, with it, and with the file of
//! their buffer held. They register before they begin and transfer past the kernel's files, so the goal is no difference.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use longpin_tests::programs::{Program, gid};
use longpin_tests::scratch::{FsKind, Scratch};

use crate::guard::Guard;
use crate::options::Asked;
use crate::table::{self, Table, progress};

const DEVICE: &str = "rxe0";
/// The address of the device.
const HERE: &str = "10.9.0.1";
/// Room for the buffer, which has twice the size of a message.
const FILE: u64 = 1 << 20;

/// One of the programs, and where its figure stands in the last line that it prints.
struct Tool {
    name: &'static str,
    unit: &'static str,
    arguments: &'static str,
    column: usize,
}

/// The machine that counts has one processor, and who polls there takes it from the device, which is a program itself. So they
/// run as idle ones do (`chrt --idle`), and sleep until a transfer is complete where they can (`-e`). `ib_write_lat` cannot,
/// at both ends: it would measure the scheduler, and `ib_send_lat` stands in for it.
const TOOLS: [Tool; 4] = [
    Tool {
        name: "ib_write_bw",
        unit: "MB/s",
        arguments: "-s 65536 -n 1000",
        column: 3,
    },
    Tool {
        name: "ib_read_bw",
        unit: "MB/s",
        arguments: "-e -s 65536 -n 1000",
        column: 3,
    },
    Tool {
        name: "ib_send_lat",
        unit: "µs",
        arguments: "-e -s 64 -n 1000",
        column: 4,
    },
    Tool {
        name: "ib_read_lat",
        unit: "µs",
        arguments: "-e -s 64 -n 1000",
        column: 4,
    },
];

/// The figures of one tool by what its server's buffer is (memory, a file) and whether the guard runs.
#[derive(Default)]
struct Figures([[Vec<f64>; 2]; 2]);

pub(crate) fn run(asked: &Asked) -> Result<()> {
    let scratch = Scratch::new(FsKind::Tmpfs, 4 * FILE)?;
    let path = scratch.dir().join("buffer");
    File::create_new(&path)?.set_len(FILE)?;
    let mut bench = Bench {
        path,
        gid: gid(DEVICE)?,
        port: 18700,
    };
    let mut figures = TOOLS.map(|_| Figures::default());
    for round in 1..=asked.rounds {
        progress(&format!("perftest, round {round} of {}", asked.rounds));
        bench.tools(&mut figures, 0)?;
        let guard = Guard::start()?;
        bench.tools(&mut figures, 1)?;
        must_have_held(&bench.path)?;
        guard.stop()?;
    }
    print(&figures);
    scratch.close()
}

struct Bench {
    path: PathBuf,
    gid: String,
    port: u16,
}

impl Bench {
    fn tools(&mut self, figures: &mut [Figures], state: usize) -> Result<()> {
        for (tool, figures) in TOOLS.iter().zip(figures) {
            for (buffer, states) in figures.0.iter_mut().enumerate() {
                states[state].push(self.measure(tool, buffer == 1)?);
            }
        }
        Ok(())
    }

    fn measure(&mut self, tool: &Tool, in_file: bool) -> Result<f64> {
        self.port += 1;
        let Tool {
            name, arguments, ..
        } = tool;
        let (gid, port) = (&self.gid, self.port);
        let line = format!("chrt --idle 0 {name} -d {DEVICE} -x {gid} -F {arguments} -p {port}");
        let server = match in_file {
            true => format!("{line} --mmap={}", self.path.display()),
            false => line.clone(),
        };
        let mut server = Program::start(&server)?;
        server.await_listener(port)?;
        let said = Program::start(&format!("{line} {HERE}"))?.must_end()?;
        server.must_end()?;
        let figure = figure(&said, tool.column);
        let figure = figure.with_context(|| format!("{name} printed {said}"))?;
        progress(&format!("{name}: {figure} {}", tool.unit));
        Ok(figure)
    }
}

/// The number in that column of the last line of numbers.
fn figure(said: &str, column: usize) -> Option<f64> {
    let numbers = |line: &&str| {
        let mut words = line.split_whitespace().peekable();
        words.peek().is_some() && words.all(|word| word.parse::<f64>().is_ok())
    };
    let line = said.lines().rfind(numbers)?;
    line.split_whitespace().nth(column)?.parse().ok()
}

/// The guard has seen the file held, and said so.
fn must_have_held(path: &Path) -> Result<()> {
    let watch = Command::new("longpin").args(["watch", "--last"]).output()?;
    let told = String::from_utf8_lossy(&watch.stdout).into_owned();
    let name = path.to_string_lossy();
    ensure!(told.contains(&*name), "no hold of {name} in: {told}");
    Ok(())
}

fn print(figures: &[Figures]) {
    let mut table = Table::new([
        "perftest",
        "memory, no guard",
        "nothing held",
        "ratio",
        "spread",
        "file, no guard",
        "the file held",
        "ratio",
        "spread",
    ]);
    for (tool, Figures(buffers)) in TOOLS.iter().zip(figures) {
        let mut cells = vec![format!("{}, {}", tool.name, tool.unit)];
        for [off, on] in buffers {
            let (without, with) = (middle(off), middle(on));
            cells.push(format!("{without:.2}"));
            cells.push(format!("{with:.2}"));
            cells.push(format!("{:.3}", with / without));
            cells.push(format!("{:.1} %", spread(off).max(spread(on))));
        }
        table.row(cells);
    }
    table::line("");
    table.print();
}

fn middle(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// From the least to the most, in percent of the middle one.
fn spread(figures: &[f64]) -> f64 {
    let least = figures.iter().copied().fold(f64::INFINITY, f64::min);
    let most = figures.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (most - least) * 100.0 / middle(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_numbers_is_read() {
        let said = " #bytes #iterations BW peak[MB/sec] BW average[MB/sec]\n 65536 500 1.46 1.40 0.01\n-----\n";
        assert_eq!(figure(said, 3), Some(1.4));
        assert_eq!(figure("nothing\n", 3), None);
    }

    #[test]
    fn a_spread_is_relative() {
        assert_eq!(middle(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(spread(&[3.0, 1.0, 2.0]), 100.0);
    }
}
