//! What must hold for every text and every configuration.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::{Action, Config, Consumer, MAX_RULES, Quota, Rule, User, parse};

/// Letters that mean something here, and some that do not.
fn letters() -> impl Strategy<Value = String> {
    let words = [
        "deny",
        "allow",
        "exempt",
        "longterm",
        "quota",
        "path=",
        "uid=",
        "cgroup=",
        "consumer=",
        "files=",
        "/",
        "..",
        ".",
        "a",
        "9",
        "\"",
        "\\",
        "=",
        "#",
        " ",
        "\t",
        "\n",
        "\r",
        "\u{0}",
        "é",
        "\u{202e}",
    ];
    vec(proptest::sample::select(words.to_vec()), 0..40).prop_map(|parts| parts.concat())
}

fn name() -> impl Strategy<Value = String> {
    "[a-z \"\\\\#=é.]{0,5}[a-z]"
}

fn path() -> impl Strategy<Value = String> {
    vec(name(), 0..4).prop_map(|names| format!("/{}", names.join("/")))
}

fn user() -> impl Strategy<Value = User> {
    prop_oneof![
        (0..u32::MAX).prop_map(User::Id),
        "[a-zé_][a-z0-9_.-]{0,8}".prop_map(User::Name),
    ]
}

fn consumer() -> impl Strategy<Value = Consumer> {
    prop_oneof![
        proptest::sample::select(Consumer::KNOWN.to_vec()),
        "nv[a-z_.-]{0,8}".prop_map(Consumer::Named),
    ]
}

fn rule() -> impl Strategy<Value = Rule> {
    let conditions = (
        option::of(path()),
        option::of(user()),
        option::of(vec(name(), 0..3)),
        option::of(consumer()),
    );
    (proptest::sample::select(Action::ALL.to_vec()), conditions).prop_map(|(action, conditions)| {
        let (path, user, cgroup, consumer) = conditions;
        let mut rule = Rule::new(0, action);
        match action {
            Action::Longterm => rule.consumer = consumer.or(Some(Consumer::Vfio)),
            Action::Exempt => {
                (rule.path, rule.user) = (path, user.or(Some(User::Id(0))));
            }
            _ => {
                (rule.path, rule.user, rule.consumer) = (path, user, consumer);
                rule.cgroup = cgroup.map(|names| names.join("/"));
            }
        }
        rule
    })
}

prop_compose! {
    fn config()(
        rules in vec((rule(), 1..4_usize), 0..MAX_RULES),
        quota in option::of(any::<u32>()),
        gap in 1..4_usize,
    ) -> Config {
        let mut config = Config::default();
        let mut line = 0;
        for (mut rule, gap) in rules {
            line += gap;
            rule.line = line;
            config.rules.push(rule);
        }
        config.quota = quota.map(|files| Quota { line: line + gap, files });
        config
    }
}

proptest! {
    #[test]
    fn what_is_printed_reads_back_the_same(config in config()) {
        prop_assert_eq!(parse(&config.to_string()), Ok(config));
    }

    #[test]
    fn no_text_makes_it_panic(text in prop_oneof![letters(), any::<String>()]) {
        match parse(&text) {
            Ok(config) => prop_assert_eq!(parse(&config.to_string()), Ok(config)),
            Err(errors) => {
                let lines = text.lines().count();
                prop_assert!(!errors.problems().is_empty());
                for problem in errors.problems() {
                    prop_assert!((1..=lines).contains(&problem.line), "{}", problem);
                    prop_assert!(!problem.to_string().contains('\n'), "{}", problem);
                }
            }
        }
    }

    #[test]
    fn a_spoilt_line_is_the_only_one_that_is_reported(config in config(), at in any::<prop::sample::Index>()) {
        prop_assume!(!config.rules.is_empty());
        let text = config.to_string();
        let spoilt = config.rules[at.index(config.rules.len())].line;
        let lines: Vec<String> = (1..).zip(text.lines()).map(|(number, line)| {
            if number == spoilt { format!("{line} oops") } else { line.to_owned() }
        }).collect();
        let errors = parse(&lines.join("\n")).unwrap_err();
        let places: Vec<usize> = errors.problems().iter().map(|problem| problem.line).collect();
        prop_assert_eq!(places, vec![spoilt]);
    }

    #[test]
    fn warnings_name_lines_that_are_there(config in config()) {
        for warning in config.warnings() {
            prop_assert!(config.rules.iter().any(|rule| rule.line == warning.line));
        }
    }
}
