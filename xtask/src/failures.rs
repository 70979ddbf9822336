//! What failed, in a line each, read from the output of test programs: the end of a long log must say it.

/// Characters kept of what a test said.
const KEPT: usize = 300;

/// The failed tests, and the one that was running when the program died.
pub(crate) fn read(output: &str) -> Vec<String> {
    let lines: Vec<&str> = output.lines().map(str::trim_end).collect();
    let mut failures: Vec<String> = Vec::new();
    let mut running = None;
    for (number, line) in lines.iter().enumerate() {
        if let Some(name) = header(line) {
            let said = lines.get(number + 1..).unwrap_or_default();
            failures.push(format!("{name}: {}", summary(said)));
        } else if let Some((name, _)) = line
            .strip_prefix("test ")
            .and_then(|line| line.split_once(" ... "))
        {
            running = Some((number, name.trim_end()));
        } else if line.starts_with("test result: ") {
            running = None;
        }
    }
    if let Some((number, name)) = running {
        let said = lines.get(number..).unwrap_or_default().join(" ");
        failures.push(format!("{name}: did not end: {}", cut(&said)));
    }
    failures
}

/// `---- name ----`, and `---- name stdout ----` where the compiler's own harness wrote it.
fn header(line: &str) -> Option<&str> {
    let name = line.strip_prefix("---- ")?.strip_suffix(" ----")?;
    Some(name.strip_suffix(" stdout").unwrap_or(name))
}

/// What follows, up to the next test.
fn summary(lines: &[&str]) -> String {
    let own = lines
        .iter()
        .skip_while(|line| line.is_empty())
        .take_while(|line| header(line).is_none() && **line != "failures:");
    cut(&own.copied().collect::<Vec<_>>().join(" "))
}

fn cut(text: &str) -> String {
    text.trim().chars().take(KEPT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_tests_are_told_with_what_they_said() {
        let output = "running 2 tests\ntest a      ... ok\ntest b_c    ... FAILED\n\nfailures:\n\n\
            ---- b_c ----\nno hold\non /tmp/x\n\nfailures:\n    b_c\n\n\
            test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n";
        assert_eq!(read(output), ["b_c: no hold on /tmp/x"]);
        let own = "---- tests::x stdout ----\nthread panicked\n";
        assert_eq!(read(own), ["tests::x: thread panicked"]);
    }

    #[test]
    fn the_test_that_was_running_is_told() {
        let output = "running 2 tests\ntest a ... ok\ntest b ... round 5\nround 6\n";
        assert_eq!(read(output), ["b: did not end: test b ... round 5 round 6"]);
        assert!(read("test result: ok. 1 passed; 0 failed; 0 ignored\n").is_empty());
    }
}
