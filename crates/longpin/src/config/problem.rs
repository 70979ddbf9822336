//! What is wrong with a configuration: where, what, and what would be right.

use std::fmt;

/// How bad a problem is: what the reader of a configuration has to decide by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration works, but not as somebody may think.
    Warning,
    /// The host did not answer; it may do so when asked by root.
    CannotTell,
    /// The configuration is wrong.
    Error,
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The line, from 1.
    pub line: usize,
    /// The character in the line, from 1; `None` where it is the whole line.
    pub column: Option<usize>,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, with the word in question.
    pub what: String,
    /// What would be right.
    pub remedy: Option<String>,
}

impl Problem {
    fn new(severity: Severity, line: usize, what: impl Into<String>) -> Self {
        Self {
            line,
            column: None,
            severity,
            what: what.into(),
            remedy: None,
        }
    }

    pub(super) fn error(line: usize, what: impl Into<String>) -> Self {
        Self::new(Severity::Error, line, what)
    }

    pub(super) fn warning(line: usize, what: impl Into<String>) -> Self {
        Self::new(Severity::Warning, line, what)
    }

    pub(super) fn cannot_tell(line: usize, what: impl Into<String>) -> Self {
        Self::new(Severity::CannotTell, line, what)
    }

    pub(super) fn at(mut self, column: usize) -> Self {
        self.column = Some(column);
        self
    }

    pub(super) fn try_this(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

/// `LINE:COLUMN: error: WHAT; REMEDY`, to be written behind the file's name and a colon.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.line)?;
        if let Some(column) = self.column {
            write!(f, "{column}:")?;
        }
        let severity = match self.severity {
            Severity::Warning => "warning",
            Severity::CannotTell => "cannot tell",
            Severity::Error => "error",
        };
        write!(f, " {severity}: {}", self.what)?;
        match &self.remedy {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

/// Everything that keeps a configuration from being used, in the order of the lines. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(Vec<Problem>);

impl ConfigErrors {
    /// The problems as they are; `Ok` when there are none but warnings.
    pub(super) fn check(mut problems: Vec<Problem>) -> Result<(), Self> {
        problems.retain(|problem| problem.severity > Severity::Warning);
        if problems.is_empty() {
            return Ok(());
        }
        problems.sort_by_key(|problem| (problem.line, problem.column));
        Err(Self(problems))
    }

    /// One problem alone.
    pub(super) fn of(problem: Problem) -> Self {
        Self(vec![problem])
    }

    /// The problems.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }

    /// Nothing is known to be wrong, the host just did not answer.
    #[must_use]
    pub fn cannot_tell(&self) -> bool {
        self.0.iter().all(|p| p.severity == Severity::CannotTell)
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(|p| format!("line {p}")).collect();
        write!(f, "{}", lines.join("\n"))
    }
}

impl std::error::Error for ConfigErrors {}
