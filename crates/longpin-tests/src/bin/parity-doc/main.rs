//! `parity-doc KERNEL=OUTPUT…`: docs/parity.md, of what the tests `parity_*` printed on each kernel.

use std::fs;
use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

const HEAD: &str = include_str!("head.md");

/// What stands where nothing was tried.
const NOT_TRIED: &str = "-";

/// An operation on one file system: what was answered on the ordinary file, the swap file and the held file, kernel by
/// kernel.
struct Row {
    home: String,
    name: String,
    answers: [Vec<(String, String)>; 3],
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            // Nobody else can be told.
            let _ = writeln!(std::io::stderr(), "parity-doc: {err:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut rows = Vec::new();
    for argument in std::env::args().skip(1) {
        let (kernel, path) = argument.split_once('=').context("KERNEL=OUTPUT")?;
        let text = fs::read_to_string(path).with_context(|| path.to_owned())?;
        for line in text
            .lines()
            .filter_map(|line| line.strip_prefix("parity\t"))
        {
            enter(&mut rows, kernel, line)?;
        }
    }
    ensure!(!rows.is_empty(), "no line of a parity test");
    let mut out = std::io::stdout().lock();
    out.write_all(HEAD.as_bytes())?;
    let mut homes: Vec<&str> = Vec::new();
    for row in &rows {
        if !homes.contains(&row.home.as_str()) {
            homes.push(&row.home);
        }
    }
    for home in homes {
        let rows: Vec<_> = rows.iter().filter(|row| row.home == home).collect();
        write_table(&mut out, home, &rows)?;
    }
    Ok(())
}

fn write_table(out: &mut impl Write, home: &str, rows: &[&Row]) -> Result<()> {
    let [ordinary, swap, held] = [0, 1, 2].map(|column| kernels(rows, column));
    writeln!(out, "\n## {home}\n")?;
    writeln!(
        out,
        "Tried on Linux: ordinary file {ordinary}; active swap file {swap}; held file {held}.\n"
    )?;
    writeln!(
        out,
        "| operation | ordinary file | active swap file | held file |"
    )?;
    writeln!(out, "|---|---|---|---|")?;
    for row in rows {
        let [ordinary, swap, held] = row.answers.each_ref().map(|answers| cell(answers));
        writeln!(out, "| {} | {ordinary} | {swap} | {held} |", row.name)?;
    }
    Ok(())
}

fn enter(rows: &mut Vec<Row>, kernel: &str, line: &str) -> Result<()> {
    let fields: Vec<_> = line.split('\t').collect();
    let [home, name, answers @ ..] = &fields[..] else {
        anyhow::bail!("a line without fields: {line}")
    };
    ensure!(answers.len() == 3, "a line without answers: {line}");
    let is_it = |row: &&mut Row| row.home == *home && row.name == *name;
    if rows.iter_mut().find(is_it).is_none() {
        rows.push(Row {
            home: (*home).to_owned(),
            name: (*name).to_owned(),
            answers: [const { Vec::new() }; 3],
        });
    }
    let row = rows.iter_mut().find(is_it).context("just made")?;
    for (list, answer) in row.answers.iter_mut().zip(answers) {
        if *answer == NOT_TRIED {
            continue;
        }
        list.push((kernel.to_owned(), (*answer).to_owned()));
    }
    Ok(())
}

/// The kernels that gave the answers of a column.
fn kernels(rows: &[&Row], column: usize) -> String {
    let mut kernels: Vec<&str> = Vec::new();
    for (kernel, _) in rows.iter().flat_map(|row| &row.answers[column]) {
        if !kernels.contains(&kernel.as_str()) {
            kernels.push(kernel);
        }
    }
    match kernels.is_empty() {
        true => "none".to_owned(),
        false => kernels.join(", "),
    }
}

/// One answer, or one for each kernel where they differ.
fn cell(answers: &[(String, String)]) -> String {
    let mut different: Vec<(&str, Vec<&str>)> = Vec::new();
    for (kernel, answer) in answers {
        match different.iter_mut().find(|(other, _)| other == answer) {
            Some((_, kernels)) => kernels.push(kernel),
            None => different.push((answer, vec![kernel])),
        }
    }
    match &different[..] {
        [] => return NOT_TRIED.to_owned(),
        [(answer, _)] => return (*answer).to_owned(),
        _ => {}
    }
    let parts = different
        .iter()
        .map(|(answer, kernels)| format!("{}: {answer}", kernels.join(", ")));
    parts.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn kernels_that_agree_share_a_cell() {
        let mut rows = Vec::new();
        enter(&mut rows, "6.1", "ext4\twrite\tdone\tETXTBSY\t-").unwrap();
        enter(&mut rows, "7.2", "ext4\twrite\tdone\tEIO\t-").unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!(cell(&rows[0].answers[0]), "done");
        assert_eq!(cell(&rows[0].answers[1]), "6.1: ETXTBSY; 7.2: EIO");
        assert!(enter(&mut rows, "7.2", "ext4\twrite").is_err());
    }
}
