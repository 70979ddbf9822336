//! What a person sees while a command works: single lines on standard error, and a spinner on a terminal.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// Prints one line on standard error. A closed standard error is nobody's problem, so it is not an error here.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// A step that takes more than a second: a spinner on a terminal, one line elsewhere.
pub(crate) struct Step {
    spinner: Option<ProgressBar>,
}

impl Step {
    /// Announces the step.
    pub(crate) fn begin(what: &str) -> Self {
        if !std::io::stderr().is_terminal() {
            say(what);
            return Self { spinner: None };
        }
        let spinner = ProgressBar::new_spinner().with_message(what.to_owned());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            spinner.set_style(style);
        }
        spinner.enable_steady_tick(Duration::from_millis(100));
        Self {
            spinner: Some(spinner),
        }
    }

    /// Takes the spinner away, so that other output is not drawn over. May be called again without harm.
    pub(crate) fn end(&mut self) {
        if let Some(spinner) = self.spinner.take() {
            spinner.finish_and_clear();
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.end();
    }
}
