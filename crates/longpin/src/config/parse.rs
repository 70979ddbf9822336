//! From text to rules. Knows nothing of the host; reports everything that is wrong, not the first.

use super::values::{self, Wrong, nearest};
use super::words::{self, Word};
use super::{Action, Config, ConfigErrors, MAX_RULES, Problem, Quota, Rule};

/// The word that begins a `quota` line.
const QUOTA: &str = "quota";
/// Every condition there is.
const CONDITIONS: [&str; 4] = ["path", "uid", "cgroup", "consumer"];

/// Read a configuration.
///
/// # Errors
///
/// All mistakes, in the order of the lines.
pub fn parse(text: &str) -> Result<Config, ConfigErrors> {
    let mut parser = Parser::default();
    for (number, line) in (1..).zip(text.lines()) {
        parser.line(number, line);
    }
    parser.check_count();
    ConfigErrors::check(parser.problems)?;
    Ok(parser.config)
}

#[derive(Default)]
struct Parser {
    config: Config,
    problems: Vec<Problem>,
}

impl Parser {
    fn line(&mut self, line: usize, text: &str) {
        let (words, mistake) = words::split(line, text);
        self.problems.extend(mistake);
        let Some((first, rest)) = words.split_first() else {
            return;
        };
        if first.value.is_some() {
            let what = format!("`{}` stands where an action must be", first.text());
            let remedy = format!("a line is ACTION [CONDITION...]; actions are {}", actions());
            self.problem(line, first, what, remedy);
        } else if first.name == QUOTA {
            self.quota(line, first, rest);
        } else if let Some(action) = Action::ALL.into_iter().find(|a| a.word() == first.name) {
            let rule = self.conditions(Rule::new(line, action), rest, action.conditions());
            self.check_needed(&rule, first);
            self.config.rules.push(rule);
        } else {
            self.unknown_action(line, first, rest);
        }
    }

    fn unknown_action(&mut self, line: usize, word: &Word, rest: &[Word]) {
        let known = Action::ALL.map(Action::word).into_iter().chain([QUOTA]);
        let meant = nearest(&word.name, known);
        let remedy = meant.map_or_else(
            || format!("actions are {}", actions()),
            |meant| format!("did you mean `{meant}`?"),
        );
        let what = format!("unknown action `{}`", word.name);
        self.problem(line, word, what, remedy);
        if meant != Some(QUOTA) {
            self.conditions(Rule::new(line, Action::Allow), rest, &CONDITIONS);
        }
    }

    /// The rule with the conditions that are right.
    fn conditions(&mut self, mut rule: Rule, words: &[Word], allowed: &[&str]) -> Rule {
        let mut seen: Vec<&str> = Vec::new();
        for word in words {
            let name = word.name.as_str();
            let Some(value) = self.value_of(rule.line, word, allowed) else {
                continue;
            };
            if seen.contains(&name) {
                let what = format!("a second `{name}=` in one rule");
                self.problem(rule.line, word, what, "write a line for each");
                continue;
            }
            seen.push(name);
            if let Err(Wrong { what, remedy }) = set(&mut rule, name, value) {
                self.problem(rule.line, word, what, remedy);
            }
        }
        rule
    }

    /// The value of a condition that may stand here.
    fn value_of<'a>(&mut self, line: usize, word: &'a Word, allowed: &[&str]) -> Option<&'a str> {
        let name = word.name.as_str();
        let takes = || format!("it takes {}=", allowed.join("=, "));
        let (what, remedy) = match word.value.as_deref() {
            _ if CONDITIONS.contains(&name) && !allowed.contains(&name) => (
                format!("`{name}=` is no condition for this action"),
                takes(),
            ),
            None => (format!("`{name}` is no condition"), likely(name)),
            Some(_) if !allowed.contains(&name) => {
                let meant = nearest(name, allowed.iter().copied());
                let remedy = meant.map_or_else(takes, |m| format!("did you mean `{m}=`?"));
                (format!("unknown condition `{name}=`"), remedy)
            }
            Some("") => (
                format!("`{name}=` has no value"),
                format!("write one, or leave `{name}=` out"),
            ),
            value => return value,
        };
        self.problem(line, word, what, remedy);
        None
    }

    fn check_needed(&mut self, rule: &Rule, word: &Word) {
        // A condition that is there and wrong has been reported already.
        let already = self
            .problems
            .iter()
            .any(|problem| problem.line == rule.line);
        let needed = match rule.action {
            Action::Longterm if rule.consumer.is_none() => "consumer=",
            Action::Exempt if rule.user.is_none() && rule.cgroup.is_none() => "uid= or cgroup=",
            _ => return,
        };
        if !already {
            let what = format!("`{}` says not whose", rule.action.word());
            self.problem(rule.line, word, what, format!("add {needed}"));
        }
    }

    fn quota(&mut self, line: usize, first: &Word, rest: &[Word]) {
        let before = self.problems.len();
        let mut files = None;
        for word in rest {
            match self.value_of(line, word, &["files"]) {
                Some(_) if files.is_some() => {
                    self.problem(line, word, "a second `files=`", "write it once");
                }
                Some(value) => match values::files(value) {
                    Ok(number) => files = Some(number),
                    Err(Wrong { what, remedy }) => self.problem(line, word, what, remedy),
                },
                None => {}
            }
        }
        if files.is_none() && self.problems.len() == before {
            let what = "`quota` says not how many";
            self.problem(line, first, what, "write quota files=4096, for example");
        }
        match self.config.quota {
            Some(Quota { line: other, .. }) => {
                let what = format!("a second `quota`, the first is in line {other}");
                self.problem(line, first, what, "write it once");
            }
            None => self.config.quota = files.map(|files| Quota { line, files }),
        }
    }

    fn check_count(&mut self) {
        let count = self.config.rules.len();
        if let Some(rule) = self.config.rules.get(MAX_RULES) {
            let what = format!("{count} rules, and at most {MAX_RULES} are possible");
            let problem = Problem::error(rule.line, what);
            self.problems
                .push(problem.try_this("name directories instead of files, or groups for users"));
        }
    }

    fn problem(
        &mut self,
        line: usize,
        word: &Word,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let problem = Problem::error(line, what).at(word.column).try_this(remedy);
        self.problems.push(problem);
    }
}

fn set(rule: &mut Rule, name: &str, value: &str) -> Result<(), Wrong> {
    match name {
        "path" => rule.path = Some(values::path(value)?),
        "uid" => rule.user = Some(values::user(value)?),
        "cgroup" => rule.cgroup = Some(values::cgroup(value)?),
        _ => rule.consumer = Some(values::consumer(value)?),
    }
    Ok(())
}

/// What a word without an equals sign was probably meant to be.
fn likely(word: &str) -> String {
    if word.starts_with('/') {
        format!("write path={word}, and a path with blanks in quotes")
    } else if super::Consumer::KNOWN
        .iter()
        .any(|known| known.word() == word)
    {
        format!("write consumer={word}")
    } else {
        "conditions are NAME=VALUE".to_owned()
    }
}

fn actions() -> String {
    let words: Vec<&str> = Action::ALL.iter().map(|action| action.word()).collect();
    format!("{}, {QUOTA}", words.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::{Consumer, User};
    use super::*;

    /// What is said, one line each, without the remedies.
    fn mistakes(text: &str) -> Vec<String> {
        let errors = parse(text).unwrap_err();
        errors.problems().iter().map(ToString::to_string).collect()
    }

    /// The one mistake of this line has all these words, and stands at this column.
    fn wrong(line: &str, column: usize, words: &[&str]) {
        let said = mistakes(line);
        let [one] = said.as_slice() else {
            panic!("{line}: {said:?}")
        };
        assert!(one.starts_with(&format!("1:{column}: error: ")), "{one}");
        for word in words {
            assert!(one.contains(word), "{line}: no {word:?} in {one}");
        }
    }

    #[test]
    fn every_condition_is_read() {
        let text = "# rules\n\n  deny path=\"/srv/my data\" uid=alice cgroup=/a.slice/b consumer=rdma\r\n\
                    exempt uid=0\nquota files=10\nlongterm consumer=nvidia-fs\n";
        let config = parse(text).unwrap();
        let rule = &config.rules[0];
        assert_eq!((rule.line, rule.action), (3, Action::Deny));
        assert_eq!(rule.path.as_deref(), Some("/srv/my data"));
        assert_eq!(rule.user, Some(User::Name("alice".into())));
        assert_eq!(rule.cgroup.as_deref(), Some("a.slice/b"));
        assert_eq!(rule.consumer, Some(Consumer::Rdma));
        assert_eq!(config.rules[1].user, Some(User::Id(0)));
        assert_eq!(
            config.rules[2].consumer,
            Some(Consumer::Named("nvidia-fs".into()))
        );
        assert_eq!(config.quota, Some(Quota { line: 5, files: 10 }));
        assert_eq!(parse("").unwrap().files_per_user(), 4096);
        assert_eq!(
            parse("enforce").unwrap().rules,
            [Rule::new(1, Action::Enforce)]
        );
    }

    #[test]
    fn a_wrong_action_is_told_the_right_one() {
        wrong(
            "enfroce uid=0",
            1,
            &["`enfroce`", "did you mean `enforce`?"],
        );
        wrong("quotas files=1", 1, &["did you mean `quota`?"]);
        wrong(
            "frobnicate",
            1,
            &["enforce, ignore, deny, allow, longterm, exempt, layout, swapfile, quota"],
        );
        wrong(" path=/srv deny", 2, &["stands where an action must be"]);
    }

    #[test]
    fn a_wrong_condition_is_told_the_right_one() {
        wrong("deny pth=/srv", 6, &["`pth=`", "did you mean `path=`?"]);
        wrong(
            "deny colour=red",
            6,
            &["`colour=`", "path=, uid=, cgroup=, consumer="],
        );
        wrong("deny /srv", 6, &["write path=/srv"]);
        wrong("deny rdma", 6, &["write consumer=rdma"]);
        wrong("deny uid", 6, &["NAME=VALUE"]);
        wrong("deny path=", 6, &["has no value"]);
        wrong("deny path=/a uid=1 path=/b", 20, &["a second `path=`"]);
        wrong(
            "longterm consumer=x path=/a",
            21,
            &["`path=`", "takes consumer="],
        );
        wrong(
            "exempt uid=0 consumer=rdma",
            14,
            &["`consumer=`", "path=, uid=, cgroup="],
        );
        wrong("quota files=1 uid=2", 15, &["`uid=`", "takes files="]);
    }

    #[test]
    fn a_wrong_value_is_told_what_would_be_right() {
        wrong("deny path=srv", 6, &["`srv`", "absolute", "path=/srv/srv"]);
        wrong(
            "deny uid=99999999999",
            6,
            &["`99999999999`", "0 to 4294967294"],
        );
        wrong(
            "deny consumer=io-uring",
            6,
            &["did you mean consumer=io_uring?"],
        );
        wrong("quota files=many", 7, &["`many`", "0 to 4294967295"]);
        wrong("deny path=\"/a", 11, &["not closed"]);
    }

    #[test]
    fn what_is_needed_must_be_there() {
        wrong("longterm", 1, &["add consumer="]);
        wrong("exempt path=/srv", 1, &["add uid= or cgroup="]);
        wrong("quota", 1, &["quota files=4096"]);
        wrong("quota files=1 files=2", 15, &["a second `files=`"]);
        let said = mistakes("quota files=1\nquota files=1");
        assert!(said[0].contains("the first is in line 1"), "{said:?}");
    }

    #[test]
    fn all_mistakes_are_reported() {
        let text = "deni path=x uid=-\nallow\nexempt consumer=rdma\ndeny uid=1 uid=2 path=\"";
        let said = mistakes(text);
        let places: Vec<&str> = said
            .iter()
            .filter_map(|line| line.split(" error").next())
            .collect();
        assert_eq!(
            places,
            ["1:1:", "1:6:", "1:13:", "3:8:", "4:12:", "4:23:"],
            "{said:#?}"
        );
    }

    #[test]
    fn there_is_a_last_rule() {
        let rules = "enforce uid=1\n".repeat(MAX_RULES);
        assert_eq!(
            parse(&format!("{rules}quota files=1")).unwrap().rules.len(),
            MAX_RULES
        );
        let said = mistakes(&format!("{rules}\nallow\nallow\n"));
        assert_eq!(said.len(), 1);
        assert!(
            said[0].starts_with("66: error: 66 rules, and at most 64"),
            "{said:?}"
        );
    }
}
