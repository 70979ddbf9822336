//! Which tests are run: chosen by name, by row, and in parts.

use crate::env;
use crate::rows::Daily;
use anyhow::{Context, Result, bail, ensure};
use std::path::Path;
use std::str::FromStr;

/// A test of the guest's program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) name: String,
    /// It runs every day.
    daily: bool,
    /// It is a long one, or goes on for longer with those.
    pub(crate) long: bool,
    /// It runs on rows of which a few tests are wanted.
    smoke: bool,
}

impl Listed {
    /// When it runs, for people.
    pub(crate) fn tier(&self) -> &'static str {
        match (self.daily, self.long) {
            (true, true) => "daily, and longer with --long",
            (true, false) => "daily",
            _ => "long",
        }
    }
}

/// What the program says that it has.
pub(crate) fn list(program: &Path) -> Result<Vec<Listed>> {
    let printed = env::output(std::process::Command::new(program).arg("longpin-test-list"))?;
    let tests: Vec<_> = printed.lines().filter_map(parse).collect();
    ensure!(!tests.is_empty(), "{} lists no test", program.display());
    Ok(tests)
}

fn parse(line: &str) -> Option<Listed> {
    let mut words = line.split(' ');
    let (name, tier, smoke) = (words.next()?, words.next()?, words.next()?);
    Some(Listed {
        name: name.to_owned(),
        daily: tier != "long",
        long: tier != "daily",
        smoke: smoke == "smoke",
    })
}

#[cfg(test)]
pub(crate) fn tests_of(lines: &str) -> Vec<Listed> {
    lines.lines().filter_map(parse).collect()
}

/// Those whose names have one of `names` in them; all if there are no names. `long`: of the long ones.
pub(crate) fn choose(list: &[Listed], names: &[String], long: bool) -> Result<Vec<Listed>> {
    let wanted: Vec<_> = list.iter().filter(|test| test.long || !long).collect();
    for name in names {
        if !wanted.iter().any(|test| test.name.contains(name)) {
            bail!("{}", no_such_test(list, name, long));
        }
    }
    let has = |test: &Listed| names.is_empty() || names.iter().any(|name| test.name.contains(name));
    Ok(wanted
        .into_iter()
        .filter(|test| has(test))
        .cloned()
        .collect())
}

fn no_such_test(list: &[Listed], name: &str, long: bool) -> String {
    let short = long && list.iter().any(|test| test.name.contains(name));
    let kind = if long { "long test" } else { "guest test" };
    let begin = format!("no {kind} has {name} in its name");
    if short {
        return format!("{begin}, but a daily one has: leave --long away");
    }
    let near = near(list, name);
    let near = match near.is_empty() {
        true => "`cargo xtask test --list` prints all".to_owned(),
        false => format!("near it: {}", near.join(", ")),
    };
    format!("{begin}; {near}. Host tests: `cargo test {name}`")
}

/// The names that have something like it in them, the nearest first.
fn near<'a>(list: &'a [Listed], name: &str) -> Vec<&'a str> {
    let limit = (name.chars().count() / 3).max(1);
    let mut found: Vec<_> = list
        .iter()
        .map(|test| (distance(&test.name, name), &*test.name))
        .filter(|(distance, _)| *distance <= limit)
        .collect();
    found.sort_unstable();
    found.into_iter().take(6).map(|(_, name)| name).collect()
}

/// How far the most similar piece of a name is.
fn distance(whole: &str, name: &str) -> usize {
    let whole: Vec<char> = whole.chars().collect();
    let len = name.chars().count();
    let pieces = (len.saturating_sub(1)..=len + 1).flat_map(|len| whole.windows(len.max(1)));
    let pieces = pieces.map(|piece| strsim::osa_distance(&piece.iter().collect::<String>(), name));
    pieces.min().unwrap_or(usize::MAX)
}

/// Those of every day, on a row of which so much is wanted.
pub(crate) fn daily(list: &[Listed], daily: Daily) -> Vec<Listed> {
    let wanted = |test: &&Listed| match daily {
        Daily::Whole => test.daily,
        Daily::Smoke => test.daily && test.smoke,
        Daily::Nothing => false,
    };
    list.iter().filter(wanted).cloned().collect()
}

/// `2/4`: the second of four parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    number: usize,
    of: usize,
}

impl FromStr for Part {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || format!("{text} is no part: write 2/4 for the second of four");
        let (number, of) = text.split_once('/').with_context(wrong)?;
        let (number, of) = (number.parse().ok(), of.parse().ok());
        let (number, of) = number.zip(of).with_context(wrong)?;
        ensure!((1..=of).contains(&number), "{}", wrong());
        Ok(Self { number, of })
    }
}

/// What is known of no test is taken to be as long as this.
const USUAL_SECONDS: f64 = 60.0;

impl Part {
    /// The tests of this part: longest first, each goes to the part that has least to do. All parts together have each test
    /// once. `turn` makes other parts the first to get one, row by row.
    pub(crate) fn of(
        self,
        tests: Vec<Listed>,
        turn: usize,
        seconds: impl Fn(&str) -> Option<f64>,
    ) -> Vec<Listed> {
        let lasts = |test: &Listed| seconds(&test.name).unwrap_or(USUAL_SECONDS);
        let mut sorted: Vec<_> = tests.iter().collect();
        sorted.sort_by(|one, two| {
            let by_time = lasts(two).total_cmp(&lasts(one));
            by_time.then_with(|| one.name.cmp(&two.name))
        });
        let mut sums = vec![0.0_f64; self.of];
        let mut own = Vec::new();
        for test in sorted {
            let turned = (0..self.of).map(|at| (at + turn) % self.of);
            let least = turned.min_by(|&one, &two| sums[one].total_cmp(&sums[two]));
            let least = least.unwrap_or(0);
            sums[least] += lasts(test);
            if least + 1 == self.number {
                own.push(test.name.clone());
            }
        }
        // In their order: some leave the guard for the next.
        tests
            .into_iter()
            .filter(|test| own.contains(&test.name))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tests() -> Vec<Listed> {
        let lines = "c01_truncate daily smoke\nc02_punch daily whole\nc09_flood both whole\nparity_ext4 long whole\nparity_xfs long whole\n";
        lines.lines().filter_map(parse).collect()
    }

    fn names(tests: &[Listed]) -> Vec<&str> {
        tests.iter().map(|test| &*test.name).collect()
    }

    #[test]
    fn a_name_matches_as_a_part_and_long_tests_come_with_it() {
        let chosen = choose(&tests(), &["c0".to_owned(), "xfs".to_owned()], false).unwrap();
        assert_eq!(
            names(&chosen),
            ["c01_truncate", "c02_punch", "c09_flood", "parity_xfs"]
        );
        let chosen = choose(&tests(), &[], true).unwrap();
        assert_eq!(names(&chosen), ["c09_flood", "parity_ext4", "parity_xfs"]);
        assert_eq!(names(&daily(&tests(), Daily::Whole)).len(), 3);
        assert_eq!(names(&daily(&tests(), Daily::Smoke)), ["c01_truncate"]);
    }

    #[test]
    fn no_match_is_answered_with_what_is_near() {
        let said = |name: &str, long| {
            let chosen = choose(&tests(), &[name.to_owned()], long);
            chosen.unwrap_err().to_string()
        };
        let words = said("trunctae", false);
        assert!(words.contains("near it: c01_truncate."), "{words}");
        assert!(said("zzzz", false).contains("--list"));
        assert!(said("c02", true).contains("leave --long away"));
    }

    #[test]
    fn parts_have_each_test_once_and_are_as_long_as_each_other() {
        let many: Vec<_> = (0..20)
            .filter_map(|number| parse(&format!("t{number:02} long whole")))
            .collect();
        let seconds = |name: &str| name[1..].parse().ok();
        let part = |number| Part { number, of: 3 }.of(many.clone(), 1, seconds);
        let mut all: Vec<_> = (1..=3).flat_map(part).collect();
        let sum = |number| {
            part(number)
                .iter()
                .filter_map(|test| seconds(&test.name))
                .sum::<f64>()
        };
        assert!((1..=3).all(|number| (sum(number) - 190.0 / 3.0).abs() < 8.0));
        all.sort_by(|one, two| one.name.cmp(&two.name));
        assert_eq!(all, many);
    }

    #[test]
    fn a_part_is_one_of_those_there_are() {
        assert_eq!("2/4".parse::<Part>().unwrap(), Part { number: 2, of: 4 });
        for wrong in ["0/4", "5/4", "2", "a/b", "1/0"] {
            assert!(wrong.parse::<Part>().is_err(), "{wrong}");
        }
    }
}
