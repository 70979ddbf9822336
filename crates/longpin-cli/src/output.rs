//! What the user sees: tables that align, errors with the line that mends them, exit codes.

use std::path::PathBuf;
use std::process::ExitCode;

use longpin::activation::{CheckError, CheckReport};
use longpin::extents::MapError;
use longpin::guard::GuardError;
use longpin::plan::PlanError;
use longpin_linux::btrfs::BtrfsError;
use longpin_linux::file::Kind;
use longpin_rdma::DeviceError;

/// Refused: by the guard, or because the state does not allow it.
pub(crate) const REFUSED: u8 = 1;
/// The question could not be answered.
pub(crate) const CANNOT_TELL: u8 = 2;
/// The command line was wrong.
pub(crate) const USAGE: u8 = 16;
/// The system failed.
pub(crate) const SYSTEM: u8 = 8;

/// An error whose exit status and hints depend on the file.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(crate) struct Refusal {
    /// What, with the file's name.
    pub(crate) text: String,
    /// Exit status.
    pub(crate) status: u8,
    /// What to do about it.
    pub(crate) hints: Vec<String>,
    /// Why.
    #[source]
    pub(crate) source: Box<dyn std::error::Error + Send + Sync>,
}

/// Reasons of a report, as the causes of an error.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub(crate) struct Reasons(pub(crate) Vec<String>);

impl Reasons {
    pub(crate) fn of(report: &CheckReport) -> Self {
        let reasons = report.reasons.iter().map(|reason| visible(&reason.text()));
        let unknown = report
            .unknown
            .iter()
            .map(|text| format!("not known: {text}"));
        Self(reasons.chain(unknown).collect())
    }
}

/// The command is for regular files.
#[derive(Debug, thiserror::Error)]
#[error("{} is {}, and this is for regular files", path.display(), kind.name())]
pub(crate) struct NotRegular {
    /// Which.
    pub(crate) path: PathBuf,
    /// What it is.
    pub(crate) kind: Kind,
}

/// Names come from users: what would move the cursor or begin a line is shown as `\\xNN`.
pub(crate) fn visible(text: &str) -> String {
    let show = |c: char| {
        if c.is_control() {
            format!("\\x{:02x}", u32::from(c))
        } else {
            c.to_string()
        }
    };
    text.chars().map(show).collect()
}

/// A table: columns padded to their widest cell, numbers to the right.
pub(crate) fn print_table(headings: Option<&[&str]>, right: &[usize], rows: &[Vec<String>]) {
    let heading: Option<Vec<String>> =
        headings.map(|names| names.iter().map(|&name| name.to_owned()).collect());
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| visible(cell)).collect())
        .collect();
    let lines: Vec<&Vec<String>> = heading.iter().chain(&rows).collect();
    let columns = lines.iter().map(|line| line.len()).max().unwrap_or(0);
    let width = |column: usize| {
        lines
            .iter()
            .filter_map(|line| line.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns)
        .map(|column| width(column).unwrap_or(0))
        .collect();
    for line in &lines {
        anstream::println!("{}", format_line(line, &widths, right));
    }
}

/// One blank between cells, for scripts; blanks and control characters within them as `\\xNN`.
pub(crate) fn print_raw(headings: Option<&[&str]>, rows: &[Vec<String>]) {
    if let Some(headings) = headings {
        anstream::println!("{}", headings.join(" "));
    }
    for row in rows {
        let cells: Vec<_> = row.iter().map(|cell| escape(cell)).collect();
        anstream::println!("{}", cells.join(" "));
    }
}

fn escape(cell: &str) -> String {
    let mut out = String::new();
    for c in cell.chars() {
        if c == ' ' || c == '\\' || c.is_control() {
            out += &format!("\\x{:02x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

fn format_line(cells: &[String], widths: &[usize], right: &[usize]) -> String {
    let padded = cells
        .iter()
        .zip(widths)
        .enumerate()
        .map(|(column, (cell, &width))| {
            if right.contains(&column) {
                format!("{cell:>width$}")
            } else {
                format!("{cell:<width$}")
            }
        });
    padded.collect::<Vec<_>>().join(" ").trim_end().to_owned()
}

/// Whether a range that ends here goes to the end of its file, whatever the file's size.
pub(crate) const fn is_open(end: u64) -> bool {
    end > i64::MAX.unsigned_abs()
}

/// Bytes in the largest unit that divides them, as in `8M`.
pub(crate) fn human(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] = [
        (1 << 40, "T"),
        (1 << 30, "G"),
        (1 << 20, "M"),
        (1 << 10, "K"),
    ];
    UNITS
        .iter()
        .find(|(unit, _)| bytes != 0 && bytes % unit == 0)
        .map_or_else(
            || bytes.to_string(),
            |(unit, name)| format!("{}{name}", bytes / unit),
        )
}

/// Print what is wrong with the command line, or the help that was asked for; the exit status.
pub(crate) fn report_usage(err: &clap::Error) -> ExitCode {
    // Nobody is left to tell when the terminal is gone.
    let _ = err.print();
    if err.use_stderr() {
        ExitCode::from(USAGE)
    } else {
        ExitCode::SUCCESS
    }
}

/// Print an error, its causes and what to do about it; the exit status.
pub(crate) fn report(err: &anyhow::Error, verbose: bool) -> ExitCode {
    anstream::eprintln!("longpin: {err}");
    for cause in err.chain().skip(1) {
        anstream::eprintln!("  because: {cause}");
        if verbose {
            anstream::eprintln!("  {cause:?}");
        }
    }
    for hint in hints_of(err) {
        anstream::eprintln!("hint: {}", visible(&hint));
    }
    ExitCode::from(status_of(err))
}

/// The exit status for an error.
fn status_of(err: &anyhow::Error) -> u8 {
    if let Some(err) = err.downcast_ref::<GuardError>() {
        exit_code(err)
    } else if let Some(err) = err.downcast_ref::<MapError>() {
        match err {
            MapError::Ask { .. } | MapError::Btrfs(BtrfsError::NoPrivilege) => CANNOT_TELL,
            _ => REFUSED,
        }
    } else if let Some(err) = err.downcast_ref::<Refusal>() {
        err.status
    } else if err.is::<NotRegular>() {
        REFUSED
    } else if err.is::<CheckError>() || err.is::<PlanError>() || err.is::<DeviceError>() {
        CANNOT_TELL
    } else {
        SYSTEM
    }
}

/// What to do about it: lines to paste or to think about.
fn hints_of(err: &anyhow::Error) -> Vec<String> {
    let guard = err.downcast_ref::<GuardError>().map(GuardError::hints);
    let refusal = || err.downcast_ref::<Refusal>().map(|err| err.hints.clone());
    guard.or_else(refusal).unwrap_or_default()
}

fn exit_code(err: &GuardError) -> u8 {
    match err {
        GuardError::AlreadyRunning
        | GuardError::HoldsUnderAudit { .. }
        | GuardError::NotRunning
        | GuardError::Held { .. }
        | GuardError::Partial { .. }
        | GuardError::NoSuchHold { .. }
        | GuardError::Alive { .. } => REFUSED,
        GuardError::Probe { .. } | GuardError::Open { .. } => CANNOT_TELL,
        GuardError::NotRegular { .. } => USAGE,
        _ => SYSTEM,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_exact() {
        assert_eq!(human(0), "0");
        assert_eq!(human(8 << 20), "8M");
        assert_eq!(human((8 << 20) + 4096), "8196K");
        assert_eq!(human(4097), "4097");
    }

    #[test]
    fn names_cannot_forge_lines() {
        assert_eq!(visible("a\n\u{1b}[2Jb"), "a\\x0a\\x1b[2Jb");
    }

    #[test]
    fn raw_cells_have_no_blanks() {
        assert_eq!(escape("/a b\\c\n"), "/a\\x20b\\x5cc\\x0a");
    }

    #[test]
    fn columns_align() {
        let cells = |a: &str, b: &str| vec![a.to_owned(), b.to_owned()];
        let line = |a, b| format_line(&cells(a, b), &[4, 5], &[1]);
        assert_eq!(line("PATH", "PAGES"), "PATH PAGES");
        assert_eq!(line("/a", "7"), "/a       7");
    }
}
