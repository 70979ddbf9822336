//! Man pages and completions are made from the command line's definition, and kept in the repository.
//! These tests fail when they are not what the definition says; `cargo xtask docs` makes them anew.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::builder::Resettable;
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

#[allow(
    dead_code,
    reason = "the definition is wanted here, not what it parses"
)]
#[path = "../src/cli.rs"]
mod cli;

/// Contents by file name.
type Files = BTreeMap<String, Vec<u8>>;

/// Set by `cargo xtask docs`: write instead of comparing.
const WRITE: &str = "LONGPIN_WRITE_DOCS";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A page for the command and one for each below it.
fn add_pages(command: &Command, pages: &mut Files) {
    let subcommands = command.get_subcommands();
    for subcommand in subcommands.filter(|sub| !sub.is_hide_set()) {
        add_pages(subcommand, pages);
    }
    let plain = command.clone().after_help(Resettable::Reset);
    let man = Man::new(plain)
        .section("8")
        .source(format!("longpin {}", env!("CARGO_PKG_VERSION")))
        .manual("longpin");
    let mut page = Vec::new();
    man.render(&mut page).unwrap();
    // clap_mangen would set these as one paragraph.
    let after = command.get_after_help().map(ToString::to_string);
    page.extend(sections(&after.unwrap_or_default()).into_bytes());
    pages.insert(man.get_filename(), page);
}

/// What stands behind the help text: `Examples:` as they are, everything else as a sentence.
fn sections(text: &str) -> String {
    let escape = |text: &str| text.replace('\\', "\\e").replace('-', "\\-");
    let blocks = text.split("\n\n").filter_map(|block| block.split_once(':'));
    let made = blocks.map(|(title, body)| {
        let (title, body) = (title.to_uppercase(), escape(body.trim_matches('\n')));
        match title.as_str() {
            "EXAMPLES" => format!(".SH {title}\n.EX\n{body}\n.EE\n"),
            _ => format!(".SH {title}\n{}\n", body.trim()),
        }
    });
    made.collect()
}

fn pages() -> Files {
    let mut command = cli::Cli::command().disable_help_subcommand(true);
    command.build();
    let mut pages = Files::new();
    add_pages(&command, &mut pages);
    for page in pages.values_mut() {
        page.extend(b".SH SEE ALSO\n.BR longpin (8),\n.BR longpin.conf (5)\n");
    }
    pages
}

fn completions() -> Files {
    let shells = [
        (Shell::Bash, "longpin.bash"),
        (Shell::Zsh, "_longpin"),
        (Shell::Fish, "longpin.fish"),
    ];
    let made = shells.map(|(shell, name)| {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut cli::Cli::command(), "longpin", &mut script);
        (name.to_owned(), script)
    });
    made.into_iter().collect()
}

/// Compare with what is in the directory, or write it there.
fn check(dir: &Path, files: &Files, by_hand: &[&str]) {
    let names = std::fs::read_dir(dir).unwrap();
    let mut stale: Vec<String> = names
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| !files.contains_key(name) && !by_hand.contains(&name.as_str()))
        .collect();
    if std::env::var_os(WRITE).is_some() {
        for name in stale {
            std::fs::remove_file(dir.join(name)).unwrap();
        }
        for (name, contents) in files {
            std::fs::write(dir.join(name), contents).unwrap();
        }
        return;
    }
    let differ = files
        .iter()
        .filter(|(name, contents)| std::fs::read(dir.join(name)).ok().as_ref() != Some(contents));
    stale.extend(differ.map(|(name, _)| name.clone()));
    assert!(
        stale.is_empty(),
        "run `cargo xtask docs`: {stale:?} in {} are stale",
        dir.display()
    );
}

#[test]
fn man_pages_are_those_of_the_command() {
    check(&repository().join("man"), &pages(), &["longpin.conf.5"]);
}

#[test]
fn completions_are_those_of_the_command() {
    check(&repository().join("data/completions"), &completions(), &[]);
}
