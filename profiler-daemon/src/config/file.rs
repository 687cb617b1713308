//! The TOML layer: a file's text to settings with their lines, unknown keys and wrong types named.

use std::io::Read as _;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Origin, Problem};
use super::key::{self, Key, Shape};
use super::keys::KEYS;

/// Largest configuration file that is read: a wrong path must not fill the memory.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A key, the line that set it, and its texts.
pub(super) type Setting = (&'static Key, usize, Vec<String>);

/// Reads the file.
pub(super) fn read(path: &Path) -> Result<String, Problem> {
    let whole = |message: String| Problem::new(Origin::File { path: path.to_owned(), line: 0 }, message);
    let file = std::fs::File::open(path).map_err(|error| whole(format!("cannot be opened: {error}")))?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| whole(format!("cannot be read: {error}")))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(whole("is larger than 1 MiB; is this the configuration file?".to_owned()));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = line_of(error.as_bytes(), valid);
        Problem::new(Origin::File { path: path.to_owned(), line }, "is not valid UTF-8")
    })
}

/// All settings of the text in the order of their lines, and all that is wrong with it.
pub(super) fn settings(path: &Path, text: &str) -> Vec<Result<Setting, Problem>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut walk = Walk { path, text, found: Vec::new() };
    if errors.is_empty() {
        walk.table("", document.get_ref());
    }
    for error in errors {
        let line = error.span().map_or(0, |span| line_of(text.as_bytes(), span.start));
        let message = error.message().lines().collect::<Vec<_>>().join("; ");
        walk.found.push((line, Err(walk.problem(line, format!("not valid TOML: {message}")))));
    }
    walk.found.sort_by_key(|(line, _)| *line);
    walk.found.into_iter().map(|(_, found)| found).collect()
}

struct Walk<'a> {
    path: &'a Path,
    text: &'a str,
    found: Vec<(usize, Result<Setting, Problem>)>,
}

impl Walk<'_> {
    fn table(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let line = line_of(self.text.as_bytes(), name.span().start);
            let full = format!("{prefix}{}", name.get_ref());
            let section = format!("{full}.");
            if let Some(key) = KEYS.iter().find(|key| key.name == full) {
                let found = texts(key, value).map(|texts| (key, line, texts));
                let found = found.map_err(|message| self.problem(line, message));
                self.found.push((line, found));
            } else if KEYS.iter().any(|key| key.name.starts_with(&section)) {
                match value.get_ref() {
                    DeValue::Table(inner) => self.table(&section, inner),
                    other => {
                        let message = format!("[{full}] is a section, not {}", article(other.type_str()));
                        self.found.push((line, Err(self.problem(line, message))));
                    }
                }
            } else {
                let message = match key::nearest(&full, KEYS.iter().map(|key| key.name.to_owned())) {
                    Some(known) => format!("unknown key {full:?}; the nearest known key is {known:?}"),
                    None => format!("unknown key {full:?}"),
                };
                self.found.push((line, Err(self.problem(line, message))));
            }
        }
    }

    fn problem(&self, line: usize, message: String) -> Problem {
        Problem::new(Origin::File { path: self.path.to_owned(), line }, message)
    }
}

/// The value as text, if it has the key's shape.
fn texts(key: &Key, value: &Spanned<DeValue<'_>>) -> Result<Vec<String>, String> {
    let wrong = |found: &DeValue<'_>| {
        format!("{} wants {}, not {}", key.name, key.shape.name(), article(found.type_str()))
    };
    match (key.shape, value.get_ref()) {
        (Shape::Text, DeValue::String(text)) => Ok(vec![text.to_string()]),
        (Shape::Integer, DeValue::Integer(number)) if number.radix() == 10 => Ok(vec![number.to_string()]),
        (Shape::Boolean, DeValue::Boolean(truth)) => Ok(vec![truth.to_string()]),
        (Shape::List, DeValue::Array(items)) => items
            .iter()
            .map(|item| match item.get_ref() {
                DeValue::String(text) => Ok(text.to_string()),
                other => Err(format!("{} in its list", wrong(other))),
            })
            .collect(),
        (_, other) => Err(wrong(other)),
    }
}

fn article(name: &str) -> String {
    let vowel = name.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {name}", if vowel { "an" } else { "a" })
}

/// The line, from 1, that holds a byte.
pub(super) fn line_of(text: &[u8], offset: usize) -> usize {
    1 + text.iter().take(offset).filter(|&&byte| byte == b'\n').count()
}
