//! What is made from the table of commands ([`longpin_linux::commands`]): the programs' switch, and docs/commands.md.

use std::fmt::Write;
use std::path::Path;

use longpin_linux::commands::{COMMANDS, Command, Layout, Owner, Scope};

const HEADER: &str = "\
/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Made from crates/longpin-linux/src/commands.rs by `LONGPIN_WRITE_DOCS=1 cargo test -p longpin-bpf documents`: which
 * commands take pages or blocks from a file, and in what words an active swap file refuses them.
 */
/* clang-format off */
";

const DOCUMENT: &str = "\
# Commands that are refused

What `ioctl(2)` asks of a file system or a driver that would take pages or blocks from a file: what is refused of pinned files
(any level), and what only at level swapfile, with the answer that an active swap file gives. What the words mean is in
[guarantee.md](guarantee.md) (C05, C06). Commands by which xfs exchanges ranges, clones and deduplication, preallocation and
encoded writes ask the hook that writes ask: they are judged there, as writes and copies are (C02, C03, C05).

Made from the table of commands by `LONGPIN_WRITE_DOCS=1 cargo test -p longpin-bpf documents`.

| command | number | who knows it | refused of pinned files | refused at level swapfile |
|---|---|---|---|---|
";

/// Rows that have the same cases, in the order of the table.
fn group<T: PartialEq>(of: impl Fn(&Command) -> Option<T>) -> Vec<(T, Vec<&'static Command>)> {
    let mut groups: Vec<(T, Vec<&Command>)> = Vec::new();
    for row in COMMANDS {
        let Some(key) = of(row) else { continue };
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, rows)) => rows.push(row),
            None => groups.push((key, vec![row])),
        }
    }
    groups
}

const fn layout(layout: Layout) -> &'static str {
    match layout {
        Layout::No => "LAYOUT_NO",
        Layout::File => "LAYOUT_FILE",
        Layout::FileSystem => "LAYOUT_FILE_SYSTEM",
        Layout::Flags => "LAYOUT_FLAGS",
        Layout::Key => "LAYOUT_KEY",
        Layout::Scrub => "LAYOUT_SCRUB",
    }
}

const fn scope(scope: Scope) -> &'static str {
    match scope {
        Scope::OneFile => "ONE_FILE",
        Scope::OneSubvolume => "ONE_SUBVOLUME",
        Scope::WholeFileSystem => "FILE_SYSTEM",
    }
}

fn cases(text: &mut String, rows: &[&Command], statements: &str) {
    for row in rows {
        writeln!(text, "\tcase {}:", row.name).unwrap();
    }
    writeln!(text, "\t\t{statements}").unwrap();
}

const fn is_driver(row: &Command) -> bool {
    matches!(row.owner, Owner::Driver(_))
}

fn header() -> String {
    let mut text = HEADER.to_owned();
    for row in COMMANDS {
        writeln!(text, "#define {} {:#x}", row.name, row.number).unwrap();
    }
    text.push_str("\nstatic __always_inline struct command command_of(u32 number)\n{\n");
    text.push_str("\tstruct command found = {};\n\n\tswitch (number) {\n");
    let meaning = |row: &Command| {
        let is_refused = row.layout != Layout::No || row.swapfile.is_some();
        (is_refused && !is_driver(row)).then_some((row.owner.magic(), row.layout, row.swapfile))
    };
    for ((magic, kind, strict), rows) in group(meaning) {
        let strict = strict.map_or_else(String::new, |(on, answer)| {
            format!(", .scope = {}, .answer = -{}", scope(on), answer.name())
        });
        let words = format!(
            "found = (struct command){{ .magic = {magic:#x}, .layout = {}{strict} }};\n\t\tbreak;",
            layout(kind)
        );
        cases(&mut text, &rows, &words);
    }
    text.push_str("\t}\n\treturn found;\n}\n");
    text.push_str("\n/* The major number of the devices that know it; 0: no driver's. */\n");
    text.push_str("static __always_inline u32 driver_of(u32 number)\n{\n\tswitch (number) {\n");
    let major = |row: &Command| match row.owner {
        Owner::Driver(major) => Some(major),
        _ => None,
    };
    for (major, rows) in group(major) {
        cases(&mut text, &rows, &format!("return {major};"));
    }
    text.push_str("\t}\n\treturn 0;\n}\n");
    text
}

const fn of_pinned(row: &Command) -> &'static str {
    match row.layout {
        Layout::No if row.swapfile.is_none() => "as a write",
        Layout::No => "",
        Layout::File => "yes",
        Layout::FileSystem => "while any file of the file system is",
        Layout::Flags => "where the flags drop its pages",
        Layout::Key => "while any file under the key is",
        Layout::Scrub => "where it repairs the block map",
    }
}

fn at_swapfile(row: &Command) -> String {
    let Some((on, answer)) = row.swapfile else {
        let as_pinned = matches!(row.layout, Layout::No);
        return if as_pinned { "as a write" } else { "the same" }.to_owned();
    };
    let on = match on {
        Scope::OneFile => "",
        Scope::OneSubvolume => ", while any file of the subvolume is held",
        Scope::WholeFileSystem => ", while any file of the file system is held",
    };
    format!("{}{on}", answer.name())
}

fn document() -> String {
    let mut text = DOCUMENT.to_owned();
    for row in COMMANDS {
        let cells = [
            format!("`{}`", row.name),
            format!("{:#x}", row.number),
            row.owner.name().to_owned(),
            of_pinned(row).to_owned(),
            at_swapfile(row),
        ];
        writeln!(text, "| {} |", cells.join(" | ")).unwrap();
    }
    text
}

/// Compare, or write where that is asked for.
fn must_be(path: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("LONGPIN_WRITE_DOCS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == text,
        "{} is not what the table says",
        path.display()
    );
}

#[test]
fn the_programs_and_documents_have_the_table_of_commands() {
    must_be("src/bpf/commands.gen.h", &header());
    must_be("../../docs/commands.md", &document());
}
