//! The table, and whether it says what is promised.

use crate::command::Answer;
use crate::compare::Seen;
use crate::round::{Paging, Row, Short};

const HEAD: [&str; 7] = [
    "FILE SYSTEM",
    "GUARD",
    "TRUNCATE",
    "PUNCH",
    "CLIENT STILL READS THE FILE?",
    "AFTER DEREGISTRATION",
    "ON DEMAND (ODP)",
];

/// The rows as lines of aligned columns.
pub(crate) fn table(rows: &[Row]) -> Vec<String> {
    let head = HEAD.map(str::to_owned);
    let cells: Vec<_> = std::iter::once(head)
        .chain(rows.iter().map(cells))
        .collect();
    let mut widths = [0; HEAD.len()];
    for row in &cells {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    let line = |row: &[String; HEAD.len()]| {
        let padded = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    cells.iter().map(line).collect()
}

fn cells(row: &Row) -> [String; HEAD.len()] {
    [
        row.kind.name().to_owned(),
        if row.guarded { "on" } else { "off" }.to_owned(),
        row.truncate.to_string(),
        row.punch.to_string(),
        still_the_file(row.after_truncate, row.after_punch),
        format!("truncate: {}", row.released),
        paging(&row.paging),
    ]
}

fn still_the_file(truncate: Seen, punch: Seen) -> String {
    if truncate.is_the_file() && punch.is_the_file() {
        return "yes".to_owned();
    }
    let (one, other, pages) = (truncate.lost(), punch.lost(), truncate.pages);
    format!("NO: {one} and {other} of {pages} pages are not")
}

fn paging(paging: &Paging) -> String {
    let Paging::Tried {
        truncate,
        short,
        renewed,
    } = paging
    else {
        return "the device has none".to_owned();
    };
    let then = match short {
        Short::Told => "client gets an error".to_owned(),
        Short::Read(seen) if seen.stale == 0 => "client reads no old page".to_owned(),
        Short::Read(seen) => format!("client reads {} OLD pages", seen.stale),
    };
    let last = if renewed.is_the_file() {
        "then the new file".to_owned()
    } else {
        format!("then {} pages that are NOT the file's", renewed.lost())
    };
    format!("truncate: {truncate}; {then}, {last}")
}

/// What is not as promised; empty when all is well.
pub(crate) fn broken_promises(rows: &[Row]) -> Vec<String> {
    rows.iter().flat_map(broken).collect()
}

fn broken(row: &Row) -> Vec<String> {
    let whole = row.after_truncate.is_the_file() && row.after_punch.is_the_file();
    let pulled = !row.after_truncate.is_the_file() && !row.after_punch.is_the_file();
    let as_expected = |answer: &Answer| match row.guarded {
        true => answer.is_busy(),
        false => *answer == Answer::Done,
    };
    let checks = [
        (as_expected(&row.truncate), "truncate"),
        (as_expected(&row.punch), "punch"),
        (
            if row.guarded { whole } else { pulled },
            "what the client reads",
        ),
        (
            row.released == Answer::Done,
            "truncate after deregistration",
        ),
        (pages_well(&row.paging), "on-demand registration"),
    ];
    let state = if row.guarded { "guard on" } else { "guard off" };
    let failed = checks.iter().filter(|(good, _)| !good);
    failed
        .map(|(_, what)| format!("{}, {state}: {what}", row.kind))
        .collect()
}

fn pages_well(paging: &Paging) -> bool {
    match paging {
        Paging::Unsupported => true,
        Paging::Tried {
            truncate,
            short,
            renewed,
        } => {
            let fresh = !matches!(short, Short::Read(seen) if seen.stale > 0);
            *truncate == Answer::Done && fresh && renewed.is_the_file()
        }
    }
}

/// One sentence on what the table shows.
pub(crate) fn verdict(rows: &[Row]) -> String {
    let broken = broken_promises(rows);
    if !broken.is_empty() {
        return format!("NOT as promised: {}.", broken.join("; "));
    }
    let hazard = "Without the guard every truncate and punch went through, and the device went on reading pages that \
                  are no longer the file";
    if rows.iter().all(|row| !row.guarded) {
        return format!("{hazard}; the cure was not shown.");
    }
    format!(
        "{hazard}; with it both were refused (Text file busy), the device read the file throughout, and once it was \
         deregistered the truncate succeeded."
    )
}

#[cfg(test)]
mod tests {
    use longpin_tests::scratch::FsKind;

    use super::*;

    fn seen(stale: usize) -> Seen {
        Seen {
            pages: 2048,
            stale,
            zeroed: 0,
            foreign: 0,
        }
    }

    fn row(guarded: bool) -> Row {
        let busy = Answer::Refused("Text file busy".to_owned());
        let answer = if guarded { busy } else { Answer::Done };
        let lost = if guarded { 0 } else { 1024 };
        Row {
            kind: FsKind::Tmpfs,
            guarded,
            truncate: answer.clone(),
            after_truncate: seen(lost),
            punch: answer,
            after_punch: seen(lost),
            released: Answer::Done,
            paging: Paging::Unsupported,
        }
    }

    #[test]
    fn the_hazard_and_the_cure_are_as_promised() {
        assert_eq!(
            broken_promises(&[row(false), row(true)]),
            Vec::<String>::new()
        );
        assert!(verdict(&[row(false)]).ends_with("was not shown."));
    }

    #[test]
    fn each_cell_can_break_the_promise() {
        let breaks = |change: fn(&mut Row)| {
            let mut row = row(true);
            change(&mut row);
            broken_promises(&[row]).len()
        };
        assert_eq!(breaks(|row| row.truncate = Answer::Done), 1);
        assert_eq!(
            breaks(|row| row.punch = Answer::Refused("Permission denied".to_owned())),
            1
        );
        assert_eq!(breaks(|row| row.after_punch = seen(1)), 1);
        assert_eq!(breaks(|row| row.released = row.truncate.clone()), 1);
        assert_eq!(
            breaks(|row| row.paging = Paging::Tried {
                truncate: Answer::Done,
                short: Short::Read(seen(1)),
                renewed: seen(0),
            }),
            1
        );
    }

    #[test]
    fn columns_are_aligned() {
        let lines = table(&[row(false), row(true)]);
        let column = |line: &String, word: &str| line.find(word);
        assert_eq!(
            column(&lines[0], "PUNCH"),
            column(&lines[2], "Text file busy  yes")
        );
        assert_eq!(lines.len(), 3);
    }
}
