//! A line's words: blanks separate them, `#` at the beginning of one ends the line, and a value may
//! stand in double quotes.

use super::Problem;

/// `NAME` or `NAME=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    /// Of its first character, from 1.
    pub(super) column: usize,
    pub(super) name: String,
    /// Unquoted; `None` without an equals sign.
    pub(super) value: Option<String>,
}

impl Word {
    /// As it may be shown in a message.
    pub(super) fn text(&self) -> String {
        match &self.value {
            Some(value) => format!("{}={value}", self.name),
            None => self.name.clone(),
        }
    }
}

const BLANKS: [char; 2] = [' ', '\t'];

struct Cursor<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    line: usize,
    column: usize,
}

/// The words before the first mistake, and the mistake.
pub(super) fn split(line: usize, text: &str) -> (Vec<Word>, Option<Problem>) {
    let mut words = Vec::new();
    let mut cursor = Cursor {
        rest: text.chars().peekable(),
        line,
        column: 1,
    };
    loop {
        while cursor.next_if(|c| BLANKS.contains(&c)).is_some() {}
        if matches!(cursor.rest.peek(), None | Some('#')) {
            return (words, None);
        }
        match cursor.word() {
            Ok(word) => words.push(word),
            Err(problem) => return (words, Some(problem)),
        }
    }
}

impl Cursor<'_> {
    fn next_if(&mut self, wanted: impl Fn(char) -> bool) -> Option<char> {
        let found = self.rest.next_if(|&c| wanted(c))?;
        self.column += 1;
        Some(found)
    }

    fn word(&mut self) -> Result<Word, Problem> {
        let column = self.column;
        let name = self.plain(&['='])?;
        if self.next_if(|c| c == '=').is_none() {
            return Ok(Word {
                column,
                name,
                value: None,
            });
        }
        let value = if self.rest.peek() == Some(&'"') {
            self.quoted()?
        } else {
            self.plain(&[])?
        };
        Ok(Word {
            column,
            name,
            value: Some(value),
        })
    }

    /// Characters up to a blank or one of `ends`.
    fn plain(&mut self, ends: &[char]) -> Result<String, Problem> {
        let mut out = String::new();
        while let Some(found) = self.next_if(|c| !BLANKS.contains(&c) && !ends.contains(&c)) {
            self.check(found)?;
            if found == '"' {
                return Err(self
                    .wrong("a quote in the middle of a word")
                    .try_this("quote the whole value: path=\"/srv/my data\""));
            }
            out.push(found);
        }
        Ok(out)
    }

    /// What stands between quotes; `\"` and `\\` mean the second character.
    fn quoted(&mut self) -> Result<String, Problem> {
        let begin = self.column;
        self.next_if(|c| c == '"');
        let mut out = String::new();
        loop {
            match self.next_if(|_| true) {
                Some('"') => break,
                Some('\\') => match self.next_if(|c| c == '"' || c == '\\') {
                    Some(escaped) => out.push(escaped),
                    None => {
                        return Err(self
                            .wrong("a lone backslash in quotes")
                            .try_this("in quotes, write \\\\ for \\ and \\\" for \""));
                    }
                },
                Some(found) => {
                    self.check(found)?;
                    out.push(found);
                }
                None => {
                    let problem = Problem::error(self.line, "a quote that is not closed");
                    return Err(problem.at(begin).try_this("end the value with \""));
                }
            }
        }
        match self.rest.peek() {
            None => Ok(out),
            Some(c) if BLANKS.contains(c) => Ok(out),
            Some(_) => {
                self.column += 1;
                Err(self
                    .wrong("something right behind a closing quote")
                    .try_this("put a blank between"))
            }
        }
    }

    fn check(&self, found: char) -> Result<(), Problem> {
        if found.is_control() {
            let code = u32::from(found);
            return Err(self.wrong(format!("a control character (U+{code:04X})")));
        }
        Ok(())
    }

    /// The character just read is wrong.
    fn wrong(&self, what: impl Into<String>) -> Problem {
        Problem::error(self.line, what).at(self.column - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(line: &str) -> Vec<String> {
        let (words, problem) = split(1, line);
        assert_eq!(problem, None, "{line}");
        words.iter().map(Word::text).collect()
    }

    fn mistake(line: &str) -> (usize, String, usize) {
        let (words, problem) = split(1, line);
        let problem = problem.unwrap();
        (words.len(), problem.what, problem.column.unwrap())
    }

    #[test]
    fn blanks_separate_and_a_comment_ends() {
        assert_eq!(
            texts("  deny\tpath=/a#b  uid=0 # why=this"),
            ["deny", "path=/a#b", "uid=0"]
        );
        assert_eq!(texts("#deny"), [""; 0]);
        assert_eq!(texts(" \t "), [""; 0]);
    }

    #[test]
    fn a_quoted_value_may_hold_anything() {
        assert_eq!(
            texts(r#"deny path="/my data" uid=0"#),
            ["deny", "path=/my data", "uid=0"]
        );
        assert_eq!(texts(r#"path="/a\"b\\c # d=e""#), [r#"path=/a"b\c # d=e"#]);
        assert_eq!(texts(r"path=/a\b=c"), [r"path=/a\b=c"]);
        assert_eq!(texts(r#"path="""#), ["path="]);
    }

    #[test]
    fn a_mistake_is_shown_where_it_is() {
        assert_eq!(
            mistake(r#"deny path="/a b"#),
            (1, "a quote that is not closed".into(), 11)
        );
        assert_eq!(
            mistake(r#"deny path=/a"b"#),
            (1, "a quote in the middle of a word".into(), 13)
        );
        let (words, what, column) = mistake(r#"deny path="/a"b"#);
        assert_eq!((words, column), (1, 15));
        assert!(what.contains("behind a closing quote"));
        assert!(mistake(r#"x="a\n""#).1.contains("backslash"));
        assert_eq!(
            mistake("deny a\u{7}b"),
            (1, "a control character (U+0007)".into(), 7)
        );
    }
}
