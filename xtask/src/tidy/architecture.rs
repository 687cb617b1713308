//! ARCHITECTURE.md names nothing that does not exist.

use super::{File, Finding};

const PAGE: &str = "ARCHITECTURE.md";

/// Title of the first column of the table of modules.
const COLUMN: &str = "module";

/// Checks the table of modules, if this file is the page: what its first column names in
/// backticks is a file or a directory of the workspace, with or without `.rs`.
pub(super) fn check(file: &File, files: &[File], findings: &mut Vec<Finding>) {
    if file.path != PAGE {
        return;
    }
    let mut in_table = false;
    for (at, line) in file.text().unwrap_or_default().lines().enumerate() {
        let Some(first) = line.strip_prefix('|').and_then(|row| row.split('|').next()) else {
            in_table = false;
            continue;
        };
        in_table |= first.trim() == COLUMN;
        if !in_table {
            continue;
        }
        // Every second piece lies between backticks.
        for name in first.split('`').skip(1).step_by(2) {
            if !exists(name.trim_end_matches('/'), files) {
                findings.push(Finding::new(file, at + 1, format!("`{name}` does not exist")));
            }
        }
    }
}

fn exists(path: &str, files: &[File]) -> bool {
    files.iter().any(|file| match file.path.strip_prefix(path) {
        Some(rest) => rest.is_empty() || rest == ".rs" || rest.starts_with('/'),
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::findings_among;

    #[test]
    fn what_the_table_of_modules_names_must_exist() {
        let page = "`gone` in prose\n\n\
                    | module | one job |\n| --- | --- |\n\
                    | `a/src/dir` | x |\n| `a/src/file` + `a/src/file.rs` | `gone` |\n\
                    | `a/src/fil` | x |\n\n\
                    | new | goes to |\n| --- | --- |\n| `gone` | x |\n";
        let files =
            [("ARCHITECTURE.md", page), ("a/src/dir/mod.rs", "//! Doc.\n"), ("a/src/file.rs", "//! Doc.\n")];
        assert_eq!(findings_among(&files), ["7: `a/src/fil` does not exist"]);
    }
}
