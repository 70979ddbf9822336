//! The list of what is skipped, by row and test: a skip that is not in it fails, and so does one in it that was run.

use super::report::{Outcome, Report, Tested};
use crate::env;
use anyhow::{Context, Result, ensure};

/// Below the workspace's root.
pub(crate) const FILE: &str = "crates/longpin-tests/skips";

/// A line of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Skip {
    row: String,
    test: String,
    part: Option<String>,
    line: usize,
}

/// Reads the list.
pub(crate) fn read() -> Result<Vec<Skip>> {
    let path = env::workspace()?.join(FILE);
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {FILE}"))?;
    parse(&text)
}

/// `ROW[,ROW] TEST[/PART] REASON`
fn parse(text: &str) -> Result<Vec<Skip>> {
    let mut skips = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let words: Vec<_> = line.split_whitespace().collect();
        let [rows, test, reason @ ..] = &words[..] else {
            ensure!(words.is_empty(), "line {} of {FILE}: {line}", index + 1);
            continue;
        };
        ensure!(
            !reason.is_empty(),
            "line {} of {FILE}: no reason",
            index + 1
        );
        let (test, part) = match test.split_once('/') {
            Some((test, part)) => (test, Some(part.to_owned())),
            None => (*test, None),
        };
        skips.extend(rows.split(',').map(|row| Skip {
            row: row.to_owned(),
            test: test.to_owned(),
            part: part.clone(),
            line: index + 1,
        }));
    }
    Ok(skips)
}

/// What the list names that is not there.
pub(crate) fn unknown(skips: &[Skip], rows: &[String], tests: &[String]) -> Vec<String> {
    let stray = |skip: &&Skip| !rows.contains(&skip.row) || !tests.contains(&skip.test);
    let say = |skip: &Skip| {
        let Skip { row, test, .. } = skip;
        format!(
            "line {} of {FILE}: no row {row} or no test {test}",
            skip.line
        )
    };
    skips.iter().filter(stray).map(say).collect()
}

/// Makes failures of what the list does not know, and of what it knows otherwise.
pub(crate) fn judge(skips: &[Skip], row: &str, report: &mut Report) {
    for test in &mut report.tests {
        let own: Vec<_> = skips
            .iter()
            .filter(|skip| skip.row == row && skip.test == test.name)
            .collect();
        if let Some(wrong) = wrong(&own, row, test) {
            test.outcome = Outcome::Failed;
            test.words = wrong;
        }
    }
}

fn wrong(own: &[&Skip], row: &str, test: &Tested) -> Option<String> {
    let listed = |part: Option<&str>| own.iter().find(|skip| skip.part.as_deref() == part);
    let stray = test
        .parts
        .iter()
        .find(|(part, _)| listed(Some(part)).is_none());
    if let Some((part, reason)) = stray {
        let name = &test.name;
        return Some(format!(
            "part {part} was skipped ({reason}), and {FILE} has no line `{row} {name}/{part}`"
        ));
    }
    match (test.outcome, listed(None)) {
        (Outcome::Skipped, None) => Some(format!(
            "skipped ({}), and {FILE} has no line `{row} {}`",
            test.words, test.name
        )),
        (Outcome::Passed, Some(skip)) => Some(format!(
            "it ran, and line {} of {FILE} says that it is skipped",
            skip.line
        )),
        (Outcome::Passed, None) => {
            let ran = |skip: &&&Skip| {
                !test
                    .parts
                    .iter()
                    .any(|(part, _)| skip.part.as_ref() == Some(part))
            };
            let skip = own.iter().find(ran)?;
            let part = skip.part.as_deref().unwrap_or_default();
            Some(format!(
                "part {part} ran, and line {} of {FILE} says that it is skipped",
                skip.line
            ))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(list: &str, outcome: &str, parts: &str) -> (Outcome, String) {
        let told = format!(
            "{{\"event\":\"begin\",\"test\":\"a\"}}\n{parts}\n\
             {{\"event\":\"end\",\"test\":\"a\",\"result\":\"{outcome}\",\"words\":\"no a\"}}\n"
        );
        let mut report = Report::read(&told);
        judge(&parse(list).unwrap(), "6.1", &mut report);
        let test = report.tests.remove(0);
        (test.outcome, test.words)
    }

    const PART: &str = r#"{"event":"part","part":"p","reason":"no p"}"#;

    #[test]
    fn a_skip_that_is_not_listed_fails() {
        let (outcome, words) = judged("6.12 a why", "skipped", "");
        assert_eq!(outcome, Outcome::Failed);
        assert_eq!(
            words,
            "skipped (no a), and crates/longpin-tests/skips has no line `6.1 a`"
        );
        assert_eq!(judged("6.12,6.1 a why", "skipped", "").0, Outcome::Skipped);
        let (outcome, words) = judged("", "passed", PART);
        assert_eq!(outcome, Outcome::Failed);
        assert!(words.contains("`6.1 a/p`"), "{words}");
        assert_eq!(judged("6.1 a/p why", "passed", PART).0, Outcome::Passed);
    }

    #[test]
    fn what_is_listed_and_runs_fails() {
        let (outcome, words) = judged("\n6.1 a why", "passed", "");
        assert_eq!(outcome, Outcome::Failed);
        assert!(words.starts_with("it ran, and line 2 of"), "{words}");
        let (outcome, words) = judged("6.1 a/p why", "passed", "");
        assert_eq!(outcome, Outcome::Failed);
        assert!(words.starts_with("part p ran"), "{words}");
        // A test that failed did not come to its parts.
        assert_eq!(judged("6.1 a/p why", "failed", "").1, "no a");
    }

    #[test]
    fn lines_without_a_reason_and_strangers_are_told() {
        assert!(parse("6.1 a").is_err());
        let rows = ["6.1".to_owned()];
        let skips = parse("# nothing\n6.2 a why\n6.1 b why\n6.1 a why").unwrap();
        let told = unknown(&skips, &rows, &["a".to_owned()]);
        assert_eq!(told.len(), 2);
        assert!(told[0].starts_with("line 2 of"));
    }
}
