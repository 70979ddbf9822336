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
    /// Debian's name of the build: the end of the metapackage's.
    pub(crate) flavour: String,
    /// How much the guard must enforce on it: `full` or `partial`.
    pub(crate) enforce: String,
    /// Which tests run there when no row is asked for.
    pub(crate) daily: Daily,
    /// Words for the kernel's command line.
    pub(crate) words: Vec<String>,
}

/// What is run on a row every day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Daily {
    /// All tests that are not long.
    Whole,
    /// A few, of everything.
    Smoke,
    /// No test.
    Nothing,
}

impl Daily {
    fn parse(text: &str) -> Result<Self> {
        match text {
            "whole" => Ok(Self::Whole),
            "smoke" => Ok(Self::Smoke),
            "none" => Ok(Self::Nothing),
            other => bail!("daily is whole, smoke or none, not {other}"),
        }
    }
}

impl Row {
    /// The package whose dependencies are the row's kernel.
    pub(crate) fn metapackage(&self) -> String {
        format!("linux-image-{}", self.flavour)
    }

    /// The words as people read them.
    pub(crate) fn words(&self) -> String {
        match self.words.is_empty() {
            true => "no words".to_owned(),
            false => self.words.join(" "),
        }
    }
}

/// Reads all rows, in the order of the file; `$LONGPIN_KERNELS` may name another one.
pub(crate) fn read() -> Result<Vec<Row>> {
    let path = match env::set("LONGPIN_KERNELS") {
        Some(path) => path.into(),
        None => env::workspace()?.join("KERNELS"),
    };
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
        format!("no row {name}: KERNELS has {}", known.join(", "))
    })
}

pub(crate) fn parse(text: &str) -> Result<Vec<Row>> {
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
    let [name, suite, flavour, enforce, daily, words @ ..] = &fields[..] else {
        bail!("a row is: name suite flavour enforce daily words");
    };
    if !matches!(*enforce, "full" | "partial") {
        bail!("enforce is full or partial, not {enforce}");
    }
    if words.is_empty() {
        bail!("no words for the kernel's command line: write - for none");
    }
    let words = if words == ["-"] { &[] } else { words };
    Ok(Row {
        name: (*name).to_owned(),
        suite: (*suite).to_owned(),
        flavour: (*flavour).to_owned(),
        enforce: (*enforce).to_owned(),
        daily: Daily::parse(daily)?,
        words: words.iter().map(|&word| word.to_owned()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_their_order_and_comments_are_dropped() {
        let text = "# name\n6.1 bookworm amd64 partial whole - # old\n\nrt sid rt-amd64 full none lsm=bpf quiet\n";
        let rows = parse(text).unwrap();
        let names: Vec<_> = rows.iter().map(|row| &*row.name).collect();
        assert_eq!(names, ["6.1", "rt"]);
        assert!(rows[0].words.is_empty());
        assert_eq!(rows[1].words, ["lsm=bpf", "quiet"]);
        assert_eq!(rows[1].daily, Daily::Nothing);
        assert_eq!(rows[1].metapackage(), "linux-image-rt-amd64");
    }

    #[test]
    fn a_row_that_lacks_something_is_refused_with_its_line_number() {
        let said = |text: &str| format!("{:#}", parse(text).unwrap_err());
        assert!(said("\n6.1\n").starts_with("line 2 of KERNELS"));
        assert!(said("6.1 bookworm amd64 full whole").contains("write - for none"));
        assert!(said("6.1 bookworm amd64 full often -").contains("not often"));
    }

    #[test]
    fn an_unknown_row_is_answered_with_the_known_ones() {
        let rows = parse("6.1 bookworm amd64 full whole -\n").unwrap();
        let said = find(&rows, "6.2").unwrap_err().to_string();
        assert_eq!(said, "no row 6.2: KERNELS has 6.1");
    }
}
