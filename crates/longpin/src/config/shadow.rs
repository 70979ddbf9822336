//! Rules that do nothing, because an earlier one has it all, and rules that do very much.

use super::{Action, Config, Problem, Rule};

impl Config {
    /// What is allowed to be written, but probably not meant.
    #[must_use]
    pub fn warnings(&self) -> Vec<Problem> {
        let mut warnings = Vec::new();
        for (at, rule) in self.rules.iter().enumerate() {
            let earlier = self.rules.get(..at).unwrap_or_default();
            if let Some(first) = earlier.iter().find(|first| hides(first, rule)) {
                let what = format!(
                    "this rule never decides: line {} (`{first}`) comes first and covers it",
                    first.line
                );
                let remedy = "put it before that line, or remove it";
                warnings.push(Problem::warning(rule.line, what).try_this(remedy));
            }
            warnings.extend(too_much(rule));
        }
        warnings
    }
}

/// Does the first rule decide whatever the second one matches?
fn hides(first: &Rule, second: &Rule) -> bool {
    first.action.list() == second.action.list()
        && covers_names(first.path.as_deref(), second.path.as_deref())
        && covers_names(first.cgroup.as_deref(), second.cgroup.as_deref())
        && covers(first.user.as_ref(), second.user.as_ref())
        && covers(first.consumer.as_ref(), second.consumer.as_ref())
}

fn covers<T: PartialEq>(first: Option<&T>, second: Option<&T>) -> bool {
    first.is_none() || first == second
}

/// A directory covers what is below it. A first rule for a file covers only that: nothing is below a file.
fn covers_names(first: Option<&str>, second: Option<&str>) -> bool {
    match (first, second) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(first), Some(second)) => second
            .strip_prefix(first.trim_end_matches('/'))
            .is_some_and(|rest| first.is_empty() || rest.is_empty() || rest.starts_with('/')),
    }
}

/// A rule without conditions that ends processes, or protection, everywhere.
fn too_much(rule: &Rule) -> Option<Problem> {
    let everything = Rule::new(rule.line, rule.action) == *rule;
    let what = match rule.action {
        Action::Deny => "this kills every process that makes a long-term pin of any file",
        Action::Ignore => "no pin by anybody makes a hold: the guard refuses nothing",
        _ => return None,
    };
    let problem = Problem::warning(rule.line, what);
    everything
        .then(|| problem.try_this("add path=, uid=, cgroup= or consumer= if that is not meant"))
}

#[cfg(test)]
mod tests {
    use super::super::parse;

    fn warned(text: &str) -> Vec<usize> {
        let warnings = parse(text).unwrap().warnings();
        warnings.iter().map(|warning| warning.line).collect()
    }

    #[test]
    fn a_covered_rule_is_reported() {
        assert_eq!(warned("deny path=/srv\nallow path=/srv/a uid=0"), [2]);
        assert_eq!(warned("allow path=/srv/a uid=0\ndeny path=/srv"), [0; 0]);
        assert_eq!(warned("enforce\n\nignore consumer=rdma"), [3]);
        assert_eq!(warned("deny path=/srv\ndeny path=/srv2"), [0; 0]);
        assert_eq!(warned("allow path=/\ndeny path=/srv"), [2]);
        assert_eq!(warned("allow cgroup=/\ndeny cgroup=a/b"), [2]);
        assert_eq!(warned("deny uid=1\ndeny uid=2\ndeny uid=1 path=/a"), [3]);
        assert_eq!(warned("deny path=/a\ndeny uid=1"), [0; 0]);
    }

    #[test]
    fn lists_do_not_hide_each_other() {
        let text = "enforce\nlongterm consumer=nvidia\nexempt uid=0\nexempt uid=0 path=/a";
        assert_eq!(warned(text), [4]);
    }

    #[test]
    fn rules_about_everything_are_reported() {
        assert_eq!(warned("deny"), [1]);
        assert_eq!(warned("ignore"), [1]);
        assert_eq!(warned("enforce\n"), [0; 0]);
        assert_eq!(warned("deny uid=0"), [0; 0]);
    }
}
