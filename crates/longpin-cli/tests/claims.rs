//! What the documents say of commands and tests: that there are such.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory;

#[allow(
    dead_code,
    reason = "the definition is wanted here, not what it parses"
)]
#[path = "../src/cli.rs"]
mod cli;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Documents with what they say.
fn documents() -> Vec<(PathBuf, String)> {
    let root = repository();
    let listed = fs::read_dir(root.join("docs")).unwrap();
    let mut paths: Vec<PathBuf> = listed.map(|entry| entry.unwrap().path()).collect();
    paths.extend(["README.md", "SECURITY.md", "CHANGELOG.md"].map(|name| root.join(name)));
    paths.retain(|path| path.extension().is_some_and(|end| end == "md"));
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        (path, text)
    };
    paths.into_iter().map(read).collect()
}

/// What stands between back quotes on one line.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2))
}

fn add_sources(dir: &Path, all: &mut String) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            add_sources(&path, all);
        } else if path.extension().is_some_and(|end| end == "rs") {
            *all += &fs::read_to_string(path).unwrap();
        }
    }
}

/// Begins as the tests of a claim or a command do.
fn is_test(word: &str) -> bool {
    let bytes = word.as_bytes();
    let of_claim = bytes.len() > 4
        && bytes[0] == b'c'
        && bytes[1..3].iter().all(u8::is_ascii_digit)
        && bytes[3] == b'_';
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    of_claim && word.chars().all(plain)
}

#[test]
fn tests_that_are_named_are_there() {
    let mut sources = String::new();
    add_sources(
        &repository().join("crates/longpin-tests/tests/guest"),
        &mut sources,
    );
    let mut missing = BTreeSet::new();
    for (path, text) in documents() {
        for word in quoted(&text).filter(|word| is_test(word)) {
            if !sources.contains(&format!("\"{word}\"")) {
                missing.insert(format!("{}: {word}", path.display()));
            }
        }
    }
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
}

#[test]
fn commands_and_options_that_are_named_are_there() {
    let mut command = cli::Cli::command();
    command.build();
    let mut wrong = BTreeSet::new();
    for (path, text) in documents() {
        for words in quoted(&text).filter_map(|line| line.strip_prefix("longpin ")) {
            let words: Vec<&str> = words.split_whitespace().collect();
            if let Some(word) = unknown(&command, &words) {
                wrong.insert(format!("{}: {word:?} of longpin {words:?}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "no such commands or options: {wrong:#?}");
}

/// The first word that the command line does not know, up to the command that it runs.
fn unknown<'a>(command: &clap::Command, words: &[&'a str]) -> Option<&'a str> {
    let mut command = command;
    for &word in words {
        let word = word.trim_end_matches([',', ';', '.']);
        if word == "--" {
            return None;
        }
        if let Some(name) = word.strip_prefix("--") {
            let name = name.split(['=', '[']).next().unwrap_or_default();
            let known = command
                .get_arguments()
                .any(|known| known.get_long() == Some(name));
            if !known {
                return Some(word);
            }
        } else if let Some(found) = command.find_subcommand(word) {
            command = found;
        } else if command.has_subcommands() && word.chars().all(|c| c.is_ascii_lowercase()) {
            return Some(word);
        }
    }
    None
}
