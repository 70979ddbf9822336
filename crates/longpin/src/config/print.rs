//! Rules as text, which reads back as the same rules.

use std::fmt::{self, Write};

use super::{Config, Quota, Rule, User};

/// Each rule in its own line, with empty lines between, so that line numbers stay what they are.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = self.rules.iter().map(|rule| (rule.line, rule.to_string()));
        let quota = self
            .quota
            .iter()
            .map(|quota| (quota.line, quota.to_string()));
        let mut lines: Vec<(usize, String)> = rules.chain(quota).collect();
        lines.sort_by_key(|(number, _)| *number);
        let mut at = 1;
        for (number, line) in lines {
            while at < number {
                f.write_char('\n')?;
                at += 1;
            }
            f.write_str(&line)?;
        }
        f.write_char('\n')
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "quota files={}", self.files)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.action.word())?;
        if let Some(path) = &self.path {
            write!(f, " path={}", quote(path))?;
        }
        match &self.user {
            Some(User::Id(id)) => write!(f, " uid={id}")?,
            Some(User::Name(name)) => write!(f, " uid={}", quote(name))?,
            None => {}
        }
        match self.cgroup.as_deref() {
            Some("") => f.write_str(" cgroup=/")?,
            Some(group) => write!(f, " cgroup={}", quote(group))?,
            None => {}
        }
        match &self.consumer {
            Some(consumer) => write!(f, " consumer={}", consumer.word()),
            None => Ok(()),
        }
    }
}

/// The value, in quotes where it needs them.
fn quote(value: &str) -> String {
    if !value.contains([' ', '\t', '"']) {
        return value.to_owned();
    }
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}
