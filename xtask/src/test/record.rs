//! docs/long-tests.md: when each long test was last run, on which kernel, and what came of it.

use super::chosen::Listed;
use super::guests::Ran;
use super::report::Outcome;
use crate::env;
use anyhow::{Context, Result, ensure};
use std::path::Path;

/// Below the workspace's root.
pub(crate) const FILE: &str = "docs/long-tests.md";

const HEAD: &str = "\
# Long tests

What takes too long for every day, and when each was last run: parity with swap files, the swap oracle, third parties that go
on writing, races, floods. Nobody runs them for you: who changes what they cover runs them and commits this table.

```
make test-long                             # all of them on every row: hours
make test-long ROWS=latest PART=2/4        # the second of four parts, on one row
cargo xtask test --long --row 6.1 parity   # those with `parity` in their names, on one row
cargo xtask test --long --missing          # those that have no line here, or failed
```

Run all parts before you commit the table: the parts are divided by the seconds of the committed one. A run replaces the lines
of what it ran; a `+` behind the commit says that the tree had changes. Seconds are those of an emulated guest, which shared
its processors with others more or less. `make test-reboot` and `make test-weakened` are not in it.

| test | row | kernel | result | seconds | commit | date |
|---|---|---|---|---:|---|---|
";

/// A line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    test: String,
    row: String,
    kernel: String,
    result: String,
    seconds: String,
    commit: String,
    date: String,
}

impl Entry {
    fn of(cells: &[&str]) -> Option<Self> {
        let cells: Vec<_> = cells.iter().map(|cell| cell.trim().to_owned()).collect();
        let [test, row, kernel, result, seconds, commit, date] = cells.try_into().ok()?;
        Some(Self {
            test,
            row,
            kernel,
            result,
            seconds,
            commit,
            date,
        })
    }

    fn line(&self) -> String {
        let Self {
            test,
            row,
            kernel,
            result,
            seconds,
            commit,
            date,
        } = self;
        format!("| {test} | {row} | {kernel} | {result} | {seconds} | {commit} | {date} |\n")
    }
}

/// All lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record(Vec<Entry>);

impl Record {
    /// The file as it is; empty if there is none.
    pub(crate) fn read() -> Result<Self> {
        match std::fs::read_to_string(env::workspace()?.join(FILE)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            text => Ok(Self::parse(
                &text.with_context(|| format!("cannot read {FILE}"))?,
            )),
        }
    }

    /// As it was committed last, else as it is: what a run writes must not change how the next one divides the tests.
    pub(crate) fn committed() -> Result<Self> {
        let mut show = env::tool("git");
        show.current_dir(env::workspace()?);
        match env::output(show.args(["show", &format!("HEAD:{FILE}")])) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(_) => Self::read(),
        }
    }

    fn parse(text: &str) -> Self {
        let rows = text.lines().filter_map(|line| {
            let cells = line.strip_prefix('|')?.strip_suffix('|')?;
            Entry::of(&cells.split('|').collect::<Vec<_>>())
        });
        let is_entry = |entry: &Entry| entry.test != "test" && !entry.test.starts_with('-');
        Self(rows.filter(is_entry).collect())
    }

    /// Lines `TEST,ROW,KERNEL,RESULT,SECONDS,COMMIT,DATE`; a first one with these words is passed over.
    pub(crate) fn import(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let lines = text.lines().enumerate().filter(|(_, line)| {
            let line = line.trim();
            !line.is_empty() && !line.starts_with("test,") && !line.starts_with('#')
        });
        let entry = |(index, line): (usize, &str)| {
            let entry = Entry::of(&line.split(',').collect::<Vec<_>>());
            entry.with_context(|| format!("line {} of {}: {line}", index + 1, path.display()))
        };
        Ok(Self(lines.map(entry).collect::<Result<_>>()?))
    }

    /// What a row's guest has run.
    pub(crate) fn of(ran: &Ran, commit: &str, date: &str) -> Self {
        let entry = |test: &super::report::Tested| Entry {
            test: test.name.clone(),
            row: ran.row.clone(),
            kernel: ran.version.clone(),
            result: test.outcome.name().to_owned(),
            seconds: format!("{:.0}", test.seconds),
            commit: commit.to_owned(),
            date: date.to_owned(),
        };
        Self(ran.report.tests.iter().map(entry).collect())
    }

    /// How long the test took on this row.
    pub(crate) fn seconds(&self, test: &str, row: &str) -> Option<f64> {
        let entry = self
            .0
            .iter()
            .find(|entry| entry.test == test && entry.row == row)?;
        entry.seconds.parse().ok()
    }

    /// These lines instead of older ones; later ones of the same test and row win.
    pub(crate) fn replace(&mut self, new: Self) {
        for entry in new.0 {
            self.0
                .retain(|old| (&old.test, &old.row) != (&entry.test, &entry.row));
            self.0.push(entry);
        }
    }

    /// Sorted by test, and by row as KERNELS has them; what is no long test or no row any more goes.
    fn tidy(&mut self, tests: &[Listed], rows: &[String]) {
        let place = |row: &str| rows.iter().position(|known| known == row);
        let is_long = |name: &str| tests.iter().any(|test| test.long && test.name == name);
        self.0
            .retain(|entry| is_long(&entry.test) && place(&entry.row).is_some());
        self.0
            .sort_by_key(|entry| (entry.test.clone(), place(&entry.row)));
    }

    /// Writes the file, in one piece.
    pub(crate) fn write(mut self, tests: &[Listed], rows: &[String]) -> Result<()> {
        self.tidy(tests, rows);
        let lines: String = self.0.iter().map(Entry::line).collect();
        let path = env::workspace()?.join(FILE);
        let new = path.with_extension("md.new");
        std::fs::write(&new, format!("{HEAD}{lines}"))
            .and_then(|()| std::fs::rename(&new, &path))
            .with_context(|| format!("cannot write {FILE}"))
    }

    /// Whether the test has no line for the row, or one that says that it failed.
    pub(crate) fn lacks(&self, test: &str, row: &str) -> bool {
        let good = |entry: &&Entry| entry.result != Outcome::Failed.name();
        let mut good = self.0.iter().filter(good);
        !good.any(|entry| entry.test == test && entry.row == row)
    }

    /// Long tests and rows of which that is so.
    pub(crate) fn missing(&self, tests: &[Listed], rows: &[String]) -> Vec<String> {
        let long = tests.iter().filter(|test| test.long);
        let pairs = long.flat_map(|test| rows.iter().map(move |row| (&test.name, row)));
        pairs
            .filter(|(test, row)| self.lacks(test, row))
            .map(|(test, row)| format!("{test} on {row}"))
            .collect()
    }
}

/// The short hash of what is built, with a `+` if the tree has changes other than in the table itself.
pub(crate) fn commit() -> Result<String> {
    let git =
        |args: &[&str]| env::output(env::tool("git").current_dir(env::workspace()?).args(args));
    let hash = git(&["rev-parse", "--short", "HEAD"])?.trim().to_owned();
    ensure!(!hash.is_empty(), "git names no commit");
    let exclude = format!(":(exclude){FILE}");
    let changes = git(&["status", "--porcelain", "--", ".", &exclude])?;
    Ok(if changes.is_empty() { hash } else { hash + "+" })
}

/// Today.
pub(crate) fn date() -> Result<String> {
    Ok(env::output(env::tool("date").args(["-u", "+%F"]))?
        .trim()
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imported(lines: &str) -> Record {
        let path = std::env::temp_dir().join(format!(
            "longpin-record-{}-{}",
            std::process::id(),
            lines.len()
        ));
        std::fs::write(&path, lines).unwrap();
        let record = Record::import(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        record
    }

    #[test]
    fn the_table_is_read_as_it_is_written() {
        let record = imported(
            "test,row,kernel,result,seconds,commit,date\na,6.1,6.1.176-1,passed,12,abc+,2026-11-29\n",
        );
        let text = format!("{HEAD}{}", record.0[0].line());
        assert_eq!(Record::parse(&text), record);
        assert_eq!(record.seconds("a", "6.1"), Some(12.0));
        assert_eq!(record.seconds("a", "6.12"), None);
    }

    #[test]
    fn a_run_replaces_its_own_lines_and_keeps_the_others() {
        let mut record =
            imported("b,6.1,k,failed,1,old,d\na,6.12,k,passed,1,old,d\na,6.1,k,skipped,1,old,d\n");
        let tests = super::super::chosen::tests_of("a long whole\nb both whole\nc daily whole\n");
        let rows = ["6.1".to_owned(), "6.12".to_owned()];
        assert_eq!(record.missing(&tests, &rows), ["b on 6.1", "b on 6.12"]);
        record.replace(imported("b,6.1,k2,passed,2,new,d2\n"));
        record.tidy(&tests, &rows);
        let told: Vec<_> = record
            .0
            .iter()
            .map(|it| format!("{} {} {}", it.test, it.row, it.commit))
            .collect();
        assert_eq!(told, ["a 6.1 old", "a 6.12 old", "b 6.1 new"]);
        assert_eq!(record.missing(&tests, &rows), ["b on 6.12"]);
        record.tidy(&tests[..1], &rows[..1]);
        assert_eq!(record.0.len(), 1);
    }
}
