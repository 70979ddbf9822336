//! `cargo xtask bench`: what the guard costs, counted in instructions, on real kernels.

use crate::kernels::{self, Kernel};
use crate::vm::{self, End, Guest};
use crate::{build, env, rows, ui};
use anyhow::{Context, Result};
use clap::Args;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Where `--write` puts the tables, below the workspace's root.
const DOCUMENT: &str = "docs/benchmarks.md";
/// For a file of 4 GiB and the kernel around it.
const MEMORY_MIB: u32 = 6144;
/// An emulated guest that counts is slow; so long it may take.
const LIMIT: Duration = Duration::from_secs(3 * 3600);

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Rows of KERNELS. Without rows: latest
    #[arg(value_name = "ROW")]
    rows: Vec<String>,
    /// Every row
    #[arg(long, conflicts_with = "rows")]
    all: bool,
    /// Put the tables into docs/benchmarks.md
    #[arg(long)]
    write: bool,
    /// Arguments of guard-bench; `--help` shows them
    #[arg(last = true, value_name = "ARG")]
    arguments: Vec<String>,
}

impl BenchArgs {
    /// Builds, then boots each row with its instructions counted, and prints tables.
    pub(crate) fn run(&self) -> Result<u8> {
        build::release()?;
        let program = build::guard_bench()?;
        let names = match (self.all, self.rows.is_empty()) {
            (true, _) => Vec::new(),
            (false, true) => vec!["latest".to_owned()],
            (false, false) => self.rows.clone(),
        };
        for row in rows::select(&names)? {
            let code = self.measure(kernels::ensure(&row)?, &program)?;
            if code != 0 {
                return Ok(code);
            }
        }
        Ok(0)
    }

    fn measure(&self, kernel: Kernel, program: &Path) -> Result<u8> {
        let arguments: Vec<_> = self.arguments.iter().map(String::as_str).collect();
        let (name, seen) = (kernel.row.name.clone(), kernel.in_words());
        let mut guest = Guest::new(kernel, vm::words(program, &arguments));
        guest.icount = true;
        guest.memory_mib = MEMORY_MIB;
        guest.timeout = LIMIT;
        let run = guest.run()?;
        if self.write && run.end == End::Status(0) {
            let path = env::workspace()?.join(DOCUMENT);
            let text = fs::read_to_string(&path).with_context(|| format!("no {DOCUMENT}"))?;
            let part = format!("{seen}.\n\n{}", run.stdout.trim());
            let place = place(&name, &arguments);
            fs::write(&path, replace(&text, &place, &part)?)?;
            ui::say(&format!("{DOCUMENT}: {place} written"));
        }
        Ok(run.end.code())
    }
}

/// The name of the marks: a part that is measured alone has its own, beside those of the row.
fn place(row: &str, arguments: &[&str]) -> String {
    let mut after = arguments.iter().skip_while(|word| **word != "--only");
    match after.nth(1) {
        Some(part) => format!("{row} {part}"),
        None => row.to_owned(),
    }
}

/// The text, with what stands between the marks of this row replaced.
fn replace(text: &str, row: &str, part: &str) -> Result<String> {
    let (begin, end) = marks(row);
    let found = text.split_once(&begin).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(&end)?;
        Some(format!("{before}{begin}\n{part}\n{end}{after}"))
    });
    found.with_context(|| format!("{DOCUMENT} has no lines {begin} and {end}"))
}

fn marks(row: &str) -> (String, String) {
    (
        format!("<!-- {row}: measured -->"),
        format!("<!-- {row}: end -->"),
    )
}

#[cfg(test)]
mod tests {
    use super::{place, replace};

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let text = "# A\n<!-- 6.1: measured -->\nold\n<!-- 6.1: end -->\nB\n";
        let new = "# A\n<!-- 6.1: measured -->\nnew\n<!-- 6.1: end -->\nB\n";
        assert_eq!(replace(text, "6.1", "new").unwrap(), new);
        assert_eq!(replace(new, "6.1", "new").unwrap(), new);
        assert!(replace(text, "latest", "new").is_err());
    }

    #[test]
    fn a_part_that_is_measured_alone_has_marks_of_its_own() {
        assert_eq!(
            place("6.1", &["--only", "start", "--rounds", "1"]),
            "6.1 start"
        );
        assert_eq!(place("6.1", &["--rounds", "1"]), "6.1");
    }
}
