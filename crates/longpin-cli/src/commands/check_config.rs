//! `longpin guard check-config`: what the rules mean on this host.

use std::path::Path;
use std::process::ExitCode;

use longpin::config::{
    self, Action, Config, ConfigErrors, LoadError, Missing, Problem, Resolved, ResolvedRule, Rule,
    User,
};

use crate::output::{CANNOT_TELL, REFUSED};

pub(crate) fn run(file: &Path) -> anyhow::Result<ExitCode> {
    let missing = match file == Path::new(config::DEFAULT_PATH) {
        true => Missing::NoRules,
        false => Missing::Error,
    };
    let source = match config::read_source(file, missing) {
        Err(LoadError::Wrong { errors, .. }) => return Ok(refuse(file, &errors)),
        Err(err @ LoadError::Unreadable { .. }) => {
            anstream::eprintln!("longpin: {:#}", anyhow::Error::from(err));
            return Ok(ExitCode::from(CANNOT_TELL));
        }
        source => source?,
    };
    let Some(text) = source.text else {
        anstream::println!("{}: there is no such file, so no rules", file.display());
        anstream::println!("{}", quota(config::DEFAULT_QUOTA));
        return Ok(ExitCode::SUCCESS);
    };
    let checked = config::parse(&text)
        .and_then(|config| config::resolve(&config).map(|resolved| (config, resolved)));
    let (config, resolved) = match checked {
        Ok(both) => both,
        Err(errors) => return Ok(refuse(file, &errors)),
    };
    show(file, &resolved.warnings);
    for rule in &config.rules {
        anstream::println!("{}: {}", rule.line, describe(rule, &resolved));
    }
    anstream::println!("{}", summary(&config, &resolved));
    Ok(believe(file, source.distrust.as_deref()))
}

fn show(file: &Path, problems: &[Problem]) {
    for problem in problems {
        anstream::eprintln!("{}:{problem}", file.display());
    }
}

fn refuse(file: &Path, errors: &ConfigErrors) -> ExitCode {
    show(file, errors.problems());
    ExitCode::from(if errors.cannot_tell() {
        CANNOT_TELL
    } else {
        REFUSED
    })
}

/// Rules that anybody could have written are not put into force; a draft may lie about anywhere.
fn believe(file: &Path, distrust: Option<&str>) -> ExitCode {
    let Some(why) = distrust else {
        return ExitCode::SUCCESS;
    };
    let name = file.display();
    if file == Path::new(config::DEFAULT_PATH) {
        anstream::eprintln!("{name}: error: {why}; chown root: {name} && chmod go-w {name}");
        return ExitCode::from(REFUSED);
    }
    anstream::eprintln!("{name}: warning: {why}; the guard would not use it where it is");
    ExitCode::SUCCESS
}

fn quota(files: u32) -> String {
    format!("a user other than root may hold {files} files")
}

fn summary(config: &Config, resolved: &Resolved) -> String {
    let (all, now) = (config.rules.len(), resolved.rules.len());
    let rules = match (all, all - now) {
        (1, 0) => "1 rule".to_owned(),
        (_, 0) => format!("{all} rules"),
        (_, without) => format!("{all} rules, {without} of them without effect now"),
    };
    format!("{rules}; {}", quota(resolved.files_per_user))
}

/// A rule in words, with the numbers that it was resolved to.
fn describe(rule: &Rule, resolved: &Resolved) -> String {
    let found = resolved.rules.iter().find(|other| other.line == rule.line);
    let whose = whose(rule, found);
    let words = match rule.action {
        Action::Enforce => {
            format!("pins{whose} hold, whether or not the process may write the file")
        }
        Action::Ignore => format!("pins{whose} make no hold"),
        Action::Deny => format!("long-term pins{whose} are forbidden: the process is killed"),
        Action::Allow => format!("pins{whose} are treated as without rules"),
        Action::Longterm => format!("pins{whose} count as long-term, though they do not say so"),
        Action::Exempt => format!("operations{whose} are never refused"),
        Action::Layout => format!("files that are pinned{whose} are held at level layout"),
        Action::Swapfile => format!("files that are pinned{whose} are held at level swapfile"),
    };
    let effect = if found.is_none() {
        " (no effect now)"
    } else {
        ""
    };
    format!("{}: {words}{effect}", rule.action.word())
}

fn whose(rule: &Rule, found: Option<&ResolvedRule>) -> String {
    let mut out = String::new();
    if let Some(path) = &rule.path {
        out += &format!(" of files at or below {path}");
        if let Some(file) = found.and_then(|found| found.file) {
            let (major, minor) = (file.dev >> 20, file.dev & 0xf_ffff);
            out += &format!(" (inode {} on {major}:{minor})", file.ino);
        }
    }
    match (&rule.user, found.and_then(|found| found.uid)) {
        (Some(User::Name(name)), Some(id)) => out += &format!(" by user {name} ({id})"),
        (Some(User::Name(name)), None) => out += &format!(" by user {name}"),
        (Some(User::Id(id)), _) => out += &format!(" by user {id}"),
        (None, _) => {}
    }
    if let Some(group) = &rule.cgroup {
        out += &format!(" in cgroup /{group}");
        if let Some(key) = found.and_then(|found| found.cgroup) {
            out += &format!(" (id {}, level {})", key.id, key.level);
        }
    }
    if let Some(consumer) = &rule.consumer {
        out += &format!(" through {}", consumer.word());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use longpin::config::{CgroupKey, FileKey};

    use crate::cli::{Cli, Command, Guard};

    #[test]
    fn the_file_is_the_one_that_the_guard_reads() {
        let cli = Cli::try_parse_from(["longpin", "guard", "check-config"]).unwrap();
        let Command::Guard(Guard::CheckConfig { file }) = cli.command else {
            panic!("{cli:?}")
        };
        assert_eq!(file, Path::new(config::DEFAULT_PATH));
    }

    #[test]
    fn a_rule_is_told_with_its_numbers() {
        let text = "deny path=/srv uid=alice cgroup=a.slice consumer=rdma\nexempt uid=0";
        let config = config::parse(text).unwrap();
        let first = ResolvedRule {
            line: 1,
            action: Action::Deny,
            file: Some(FileKey {
                dev: 8 << 20 | 17,
                ino: 12,
            }),
            uid: Some(1000),
            cgroup: Some(CgroupKey { id: 77, level: 1 }),
            consumer: None,
        };
        let resolved = Resolved {
            rules: vec![first],
            files_per_user: 7,
            warnings: Vec::new(),
        };
        assert_eq!(
            describe(&config.rules[0], &resolved),
            "deny: long-term pins of files at or below /srv (inode 12 on 8:17) by user alice (1000) \
             in cgroup /a.slice (id 77, level 1) through rdma are forbidden: the process is killed"
        );
        assert_eq!(
            describe(&config.rules[1], &resolved),
            "exempt: operations by user 0 are never refused (no effect now)"
        );
        assert_eq!(
            summary(&config, &resolved),
            "2 rules, 1 of them without effect now; a user other than root may hold 7 files"
        );
    }
}
