//! `cargo xtask tidy`: the house rules that no compiler checks.

mod architecture;
mod imports;
mod rust;
mod text;
mod tokens;

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::run::workspace;

/// A file of the workspace.
#[derive(Debug)]
struct File {
    /// Relative to the workspace, with `/` between names.
    path: String,
    content: Vec<u8>,
}

impl File {
    /// The content, unless it is no text.
    fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.content).ok()
    }
}

/// One breach of a rule. Sorts by place.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    /// Counted from 1.
    line: usize,
    message: String,
}

impl Finding {
    fn new(file: &File, line: usize, message: impl Into<String>) -> Self {
        Self { path: file.path.clone(), line, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// Checks every file of the workspace and prints what breaks a rule.
///
/// # Errors
///
/// When something does, or a file cannot be read.
pub(crate) fn run() -> Result<()> {
    let workspace = workspace()?;
    let mut files = Vec::new();
    collect(&workspace, "", &mut files)?;
    let findings = check(&files);
    for finding in &findings {
        eprintln!("{finding}");
    }
    ensure!(findings.is_empty(), "tidy: {} findings in {} files", findings.len(), files.len());
    eprintln!("tidy: {} files, nothing found", files.len());
    Ok(())
}

/// Every finding of every rule, in the order of their places.
fn check(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        text::check(file, &mut findings);
        if let Some(text) = file.text().filter(|_| file.path.ends_with(".rs")) {
            let tokens = tokens::tokens(text);
            rust::check(file, text, &tokens, &mut findings);
            imports::check(file, &tokens, &mut findings);
        }
        architecture::check(file, files, &mut findings);
    }
    findings.sort();
    findings
}

/// Reads all files below a directory, but for what builds and git leave there.
fn collect(workspace: &Path, directory: &str, files: &mut Vec<File>) -> Result<()> {
    let whole = workspace.join(directory);
    for entry in fs::read_dir(&whole).with_context(|| format!("cannot read {}", whole.display()))? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if matches!(name.as_str(), "target" | ".git") {
            continue;
        }
        let path = if directory.is_empty() { name } else { format!("{directory}/{name}") };
        let kind = entry.file_type()?;
        if kind.is_dir() {
            collect(workspace, &path, files)?;
        } else if kind.is_file() {
            let content = fs::read(entry.path()).with_context(|| format!("cannot read {path}"))?;
            files.push(File { path, content });
        }
    }
    Ok(())
}

#[cfg(test)]
mod testing {
    //! What the tests of the rules share.

    use super::{File, check};

    /// `LINE: MESSAGE` of each finding in one file.
    pub(super) fn findings(path: &str, content: &str) -> Vec<String> {
        findings_among(&[(path, content)])
    }

    /// `LINE: MESSAGE` of each finding in several files.
    pub(super) fn findings_among(files: &[(&str, &str)]) -> Vec<String> {
        let files: Vec<File> = files
            .iter()
            .map(|(path, content)| File { path: (*path).into(), content: content.as_bytes().into() })
            .collect();
        check(&files).into_iter().map(|finding| format!("{}: {}", finding.line, finding.message)).collect()
    }
}
