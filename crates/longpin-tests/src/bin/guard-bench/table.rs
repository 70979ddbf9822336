//! Output: Markdown tables whose columns line up, so that they can be read as they are.

use std::io::Write;

/// One line. A reader who has gone away does not stop the measurement.
pub(crate) fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}

/// What is being done, for whoever waits.
pub(crate) fn progress(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Rows of cells under a heading; the first column is words, the others are numbers.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<S: Into<String>>(head: impl IntoIterator<Item = S>) -> Self {
        Self {
            rows: vec![head.into_iter().map(Into::into).collect()],
        }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    pub(crate) fn print(&self) {
        for text in self.lines() {
            line(&text);
        }
    }

    fn lines(&self) -> Vec<String> {
        let columns = self.rows.first().map_or(0, Vec::len);
        let widths: Vec<usize> = (0..columns)
            .map(|at| {
                self.rows
                    .iter()
                    .filter_map(move |row| row.get(at))
                    .map(|cell| cell.chars().count())
            })
            .map(|widths| widths.max().unwrap_or(0).max(3))
            .collect();
        let mut lines: Vec<_> = self.rows.iter().map(|row| one_line(row, &widths)).collect();
        let rule = widths.iter().enumerate().map(|(at, width)| match at {
            0 => "-".repeat(*width),
            _ => format!("{}:", "-".repeat(width - 1)),
        });
        let rule: Vec<_> = rule.collect();
        lines.insert(1, one_line(&rule, &widths));
        lines
    }
}

fn one_line(cells: &[String], widths: &[usize]) -> String {
    let padded = cells.iter().zip(widths).enumerate();
    let padded = padded.map(|(at, (cell, &width))| match at {
        0 => format!("{cell:<width$}"),
        _ => format!("{cell:>width$}"),
    });
    format!("| {} |", padded.collect::<Vec<_>>().join(" | "))
}

/// 1234567 as `1,234,567`.
pub(crate) fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// What `value` is above `base`: `+17`, `-3`, `0`.
pub(crate) fn above(value: u64, base: u64) -> String {
    match value.cmp(&base) {
        std::cmp::Ordering::Equal => "0".to_owned(),
        std::cmp::Ordering::Greater => format!("+{}", number(value - base)),
        std::cmp::Ordering::Less => format!("-{}", number(base - value)),
    }
}

/// `part` of `whole` in percent, with two decimals.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    let hundredths = u128::from(part) * 10_000 / u128::from(whole.max(1));
    format!("{}.{:02} %", hundredths / 100, hundredths % 100)
}

/// A number of bytes: `4 KiB`, `1 GiB`.
pub(crate) fn bytes(value: u64) -> String {
    match value {
        v if v >= 1 << 30 && v % (1 << 30) == 0 => format!("{} GiB", v >> 30),
        v if v >= 1 << 20 && v % (1 << 20) == 0 => format!("{} MiB", v >> 20),
        v => format!("{} KiB", v >> 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(["act", "no guard"]);
        table.row(vec!["pread".to_owned(), number(5304)]);
        assert_eq!(
            table.lines(),
            [
                "| act   | no guard |",
                "| ----- | -------: |",
                "| pread |    5,304 |"
            ]
        );
    }

    #[test]
    fn numbers_are_for_people() {
        assert_eq!(number(0), "0");
        assert_eq!(number(1_234_567), "1,234,567");
        assert_eq!((above(5, 3), above(3, 5)), ("+2".into(), "-2".into()));
        assert_eq!(percent(1, 8), "12.50 %");
        assert_eq!(
            (bytes(4096), bytes(1 << 30)),
            ("4 KiB".into(), "1 GiB".into())
        );
    }
}
