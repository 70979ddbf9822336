//! The table of commands, and the numbers by which the tests ask.

use longpin_linux::commands::COMMANDS;

/// The line of a constant below the comment that names a request.
fn line_of(name: &str) -> Option<&'static str> {
    let source = include_str!("../requests.rs");
    let comment = format!("/// `{name}`");
    let (_, rest) = source.split_once(&comment)?;
    rest.lines().nth(1).filter(|line| line.contains("::new("))
}

/// The numbers by which the parity tests ask are of the kernel's headers; the table's are the same.
#[test]
fn the_table_of_commands_has_the_same_numbers() {
    let mut compared = 0;
    for row in COMMANDS {
        let Some(line) = line_of(row.name) else {
            continue;
        };
        let (kind, number) = (row.number >> 8 & 0xff, row.number & 0xff);
        let letter = char::from(u8::try_from(kind).unwrap());
        let forms = [
            format!("b'{letter}', {number})"),
            format!("{kind:#x}, {number})"),
        ];
        assert!(
            forms.iter().any(|form| line.contains(form)),
            "{}: {line}",
            row.name
        );
        compared += 1;
    }
    assert!(compared >= 20, "{compared}");
}
