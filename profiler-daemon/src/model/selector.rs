//! Label selectors: `comm="nginx",pid!="1",exe=~"/usr/.*"`, as Prometheus writes them.

use std::fmt;

use regex::Regex;

use super::Labels;

/// A conjunction of label matchers; empty matches everything.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    matchers: Vec<Matcher>,
}

#[derive(Clone, Debug)]
struct Matcher {
    label: &'static str,
    /// `!=` and `!~`.
    negated: bool,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    Equal(String),
    /// Anchored at both ends, as in Prometheus.
    Matches(Regex),
}

/// What is wrong with a selector, and at which character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectorError {
    /// The selector as given.
    pub text: String,
    /// Byte offset of the offending place.
    pub at: usize,
    /// What is wrong there.
    pub problem: String,
}

impl fmt::Display for SelectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let column = self.text.get(..self.at).map_or(self.at, |before| before.chars().count()) + 1;
        write!(f, "selector {:?}, character {column}: {}", self.text, self.problem)
    }
}

impl std::error::Error for SelectorError {}

impl Selector {
    /// Parses `label OP "value"` terms joined by commas; braces around all of it are allowed.
    ///
    /// # Errors
    /// Says at which character the text stops being a selector.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut parser = Parser { text, at: 0 };
        parser.spaces();
        let braced = parser.eat("{");
        let mut matchers = Vec::new();
        loop {
            parser.spaces();
            if parser.rest().is_empty() || (braced && parser.rest().starts_with('}')) {
                break;
            }
            matchers.push(parser.matcher()?);
            parser.spaces();
            if !parser.eat(",") {
                break;
            }
        }
        if braced && !parser.eat("}") {
            return Err(parser.error("expected , or }"));
        }
        parser.spaces();
        if parser.rest().is_empty() {
            Ok(Self { matchers })
        } else {
            Err(parser.error("expected a comma or the end"))
        }
    }

    /// Whether it matches everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.matchers.is_empty()
    }

    /// Whether all matchers accept these labels.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.matchers.iter().all(|matcher| {
            let value = labels.get(matcher.label).unwrap_or_default();
            let hit = match &matcher.test {
                Test::Equal(wanted) => *wanted == *value,
                Test::Matches(regex) => regex.is_match(&value),
            };
            hit != matcher.negated
        })
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn spaces(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn eat(&mut self, token: &str) -> bool {
        let hit = self.rest().starts_with(token);
        if hit {
            self.at += token.len();
        }
        hit
    }

    fn error(&self, problem: impl Into<String>) -> SelectorError {
        SelectorError { text: self.text.to_owned(), at: self.at, problem: problem.into() }
    }

    fn matcher(&mut self) -> Result<Matcher, SelectorError> {
        let length =
            self.rest().find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(self.rest().len());
        let name = &self.rest()[..length];
        let Some(&label) = Labels::NAMES.iter().find(|known| **known == name) else {
            let problem = if name.is_empty() {
                "expected a label name".to_owned()
            } else {
                format!("unknown label {name:?}")
            };
            return Err(self.error(format!("{problem}; known are {}", Labels::NAMES.join(", "))));
        };
        self.at += length;
        self.spaces();
        let (negated, regex) = if self.eat("=~") {
            (false, true)
        } else if self.eat("!~") {
            (true, true)
        } else if self.eat("!=") {
            (true, false)
        } else if self.eat("=") {
            (false, false)
        } else {
            return Err(self.error("expected =, !=, =~ or !~"));
        };
        self.spaces();
        let start = self.at;
        let value = self.quoted()?;
        let test = if regex {
            let anchored = format!("^(?:{value})$");
            let regex = Regex::new(&anchored).map_err(|error| SelectorError {
                text: self.text.to_owned(),
                at: start,
                problem: format!("not a regular expression: {}", last_line(&error.to_string())),
            })?;
            Test::Matches(regex)
        } else {
            Test::Equal(value)
        };
        Ok(Matcher { label, negated, test })
    }

    /// A double-quoted string with `\"`, `\\` and `\n`; any other backslash stays, for regexes.
    fn quoted(&mut self) -> Result<String, SelectorError> {
        if !self.eat("\"") {
            return Err(self.error("expected a value in double quotes"));
        }
        let mut value = String::new();
        let mut characters = self.rest().char_indices();
        while let Some((offset, c)) = characters.next() {
            match c {
                '"' => {
                    self.at += offset + 1;
                    return Ok(value);
                }
                '\\' => match characters.next() {
                    Some((_, '"')) => value.push('"'),

                    Some((_, 'n')) => value.push('\n'),
                    Some((_, other)) => value.extend(['\\', other]),
                    None => break,
                },
                c => value.push(c),
            }
        }
        Err(self.error("the value's closing quote is missing"))
    }
}

fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or(text).trim_start_matches("error: ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Pid;

    fn check(selector: &str, matches: &[(&str, u32, bool)]) {
        let selector = Selector::parse(selector).expect("a valid selector");
        for &(comm, pid, expected) in matches {
            let labels = Labels { pid: Pid(pid), comm: comm.into(), ..Labels::default() };
            assert_eq!(selector.matches(&labels), expected, "{comm} {pid}");
        }
    }

    #[test]
    fn operators() {
        check("", &[("a", 1, true)]);
        check(r#"comm="nginx""#, &[("nginx", 1, true), ("nginx2", 1, false)]);
        check(
            r#"{comm=~"web-.*", pid!="7"}"#,
            &[("web-1", 1, true), ("web-1", 7, false), ("my-web-1", 1, false)],
        );
        check(r#"comm!~"a|b""#, &[("a", 1, false), ("ab", 1, true)]);
        check(r#"comm="a\"b""#, &[("a\"b", 1, true)]);
        check(r#"comm=~"\d+""#, &[("42", 1, true), ("x", 1, false)]);
    }

    #[test]
    fn errors_point_at_the_character() {
        let at = |text: &str| Selector::parse(text).expect_err("must fail").at;
        assert_eq!(at(r#"comm="a",host="b""#), 9);
        assert_eq!(at("comm"), 4);
        assert_eq!(at("comm=a"), 5);
        assert_eq!(at(r#"comm="a"#), 6);
        assert_eq!(at(r#"comm=~"(""#), 6);
        assert_eq!(at(r#"{comm="a""#), 9);
        assert_eq!(at(r#"comm="a" pid="1""#), 9);
    }
}
