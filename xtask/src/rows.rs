//! The file `KERNELS`: one row per supported kernel.

use crate::env;
use anyhow::{Context, Result, bail};

/// One row of `KERNELS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// What the command line calls it.
    pub(crate) name: String,
    /// Debian suite the kernel comes from.
    pub(crate) suite: String,
    /// How much the guard must enforce on it: `full` or `partial`.
    pub(crate) enforce: String,
}

/// Reads all rows, in the order of the file.
pub(crate) fn read() -> Result<Vec<Row>> {
    let path = env::workspace()?.join("KERNELS");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text)
}

/// The rows of these names, or all rows if there are no names.
pub(crate) fn select(names: &[String]) -> Result<Vec<Row>> {
    let rows = read()?;
    if names.is_empty() {
        return Ok(rows);
    }
    names.iter().map(|name| find(&rows, name)).collect()
}

/// The row of this name.
pub(crate) fn named(name: &str) -> Result<Row> {
    find(&read()?, name)
}

fn find(rows: &[Row], name: &str) -> Result<Row> {
    let found = rows.iter().find(|row| row.name == name).cloned();
    found.with_context(|| {
        let known: Vec<_> = rows.iter().map(|row| row.name.as_str()).collect();
        format!("no kernel {name}: KERNELS has {}", known.join(", "))
    })
}

fn parse(text: &str) -> Result<Vec<Row>> {
    let lines = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.split('#').next().unwrap_or_default().trim()));
    lines
        .filter(|(_, line)| !line.is_empty())
        .map(|(number, line)| {
            parse_row(line).with_context(|| format!("line {number} of KERNELS: {line}"))
        })
        .collect()
}

fn parse_row(line: &str) -> Result<Row> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let [name, suite, enforce] = fields[..] else {
        bail!("a row is: name suite enforce");
    };
    if !matches!(enforce, "full" | "partial") {
        bail!("enforce is full or partial, not {enforce}");
    }
    Ok(Row {
        name: name.to_owned(),
        suite: suite.to_owned(),
        enforce: enforce.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_their_order_and_comments_are_dropped() {
        let rows = parse("# name suite enforce\n6.1 bookworm partial # old\n\nlatest sid full\n");
        let names: Vec<_> = rows.unwrap().into_iter().map(|row| row.name).collect();
        assert_eq!(names, ["6.1", "latest"]);
    }

    #[test]
    fn a_row_without_suite_is_refused_with_its_line_number() {
        let error = parse("\n6.1\n").unwrap_err();
        assert!(format!("{error:#}").starts_with("line 2 of KERNELS"));
    }
}
