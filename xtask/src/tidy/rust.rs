//! Rules for each Rust file: how it opens, how long it is, and what must not be in it.

use super::tokens::Token;
use super::{File, Finding};

/// Most lines of a file, its tests included.
const MAX_LINES: usize = 500;

/// Macros that stand for unfinished work.
const UNFINISHED: [&str; 3] = ["dbg", "todo", "unimplemented"];

/// Checks one Rust file.
pub(super) fn check(file: &File, text: &str, tokens: &[Token<'_>], findings: &mut Vec<Finding>) {
    if !text.starts_with("//! ") {
        findings.push(Finding::new(
            file,
            1,
            "the first line must say in one sentence, after `//!`, what the file's job is",
        ));
    }
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() > MAX_LINES {
        let message = format!("{} lines; split what is more than {MAX_LINES}", lines.len());
        findings.push(Finding::new(file, MAX_LINES + 1, message));
    }
    for (at, token) in tokens.iter().enumerate() {
        let next = |ahead: usize| tokens.get(at + ahead).map_or("", |token| token.text);
        let previous = at.checked_sub(1).map_or("", |before| tokens[before].text);
        match token.text {
            name if UNFINISHED.contains(&name) && next(1) == "!" && next(2) != "=" => {
                findings.push(Finding::new(file, token.line, format!("`{name}!` must not stay")));
            }
            "ignore" if previous == "[" => {
                findings.push(Finding::new(file, token.line, "a test runs or is deleted; it is not ignored"));
            }
            "allow"
                if matches!(previous, "[" | ",") && next(1) == "(" && !gives_reason(&tokens[at + 1..]) =>
            {
                let message = "use `#[expect(..., reason = \"...\")]` in place of a bare `allow`";
                findings.push(Finding::new(file, token.line, message));
            }
            "unsafe" if next(1) == "{" && !is_justified(&lines, token.line, tokens) => {
                findings.push(Finding::new(
                    file,
                    token.line,
                    "an unsafe block needs a `// SAFETY:` comment above it",
                ));
            }
            _ => {}
        }
    }
}

/// Whether there is a `reason` within the parentheses that open here.
fn gives_reason(tokens: &[Token<'_>]) -> bool {
    tokens.iter().take_while(|token| token.text != ")").any(|token| token.text == "reason")
}

/// Whether a comment with `SAFETY:` stands above the statement that holds the block of this line.
fn is_justified(lines: &[&str], block: usize, tokens: &[Token<'_>]) -> bool {
    // `line` counts from 1, so the line above it has the index `line - 2`.
    for line in (1..block).rev() {
        let text = lines.get(line - 1).map_or("", |text| text.trim());
        if text.starts_with("//") {
            if text.contains("SAFETY:") {
                return true;
            }
            continue;
        }
        let last = tokens.iter().rev().find(|token| token.line <= line);
        let ends_statement = last.is_none_or(|last| last.line < line || matches!(last.text, ";" | "{" | "}"));
        if ends_statement {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::super::testing::findings;

    fn in_file(code: &str) -> Vec<String> {
        findings("xtask/src/some.rs", &format!("//! Doc.\n{code}"))
    }

    #[test]
    fn a_file_opens_with_its_job() {
        assert_eq!(findings("xtask/src/a.rs", "use std::fs;\n").len(), 1);
        assert_eq!(findings("xtask/src/a.rs", "//!\n//! Late.\n").len(), 1);
        assert!(findings("xtask/src/a.rs", "//! Job.\n").is_empty());
    }

    #[test]
    fn a_file_is_at_most_500_lines() {
        assert!(in_file(&"\n".repeat(499)).is_empty());
        assert_eq!(in_file(&"\n".repeat(500)), ["501: 501 lines; split what is more than 500"]);
    }

    #[test]
    fn unfinished_work_is_found_in_code_only() {
        assert_eq!(in_file("fn f() { todo!() }"), ["2: `todo!` must not stay"]);
        assert_eq!(in_file("\nunimplemented!();\ndbg!(1);").len(), 2);
        assert!(
            in_file("// todo!()\nconst A: &str = \"dbg!()\";\nfn todo() {}\nlet a = todo != b;").is_empty()
        );
    }

    #[test]
    fn ignored_tests_are_found() {
        let found = ["3: a test runs or is deleted; it is not ignored"];
        assert_eq!(in_file("#[test]\n#[ignore]\nfn f() {}"), found);
        assert_eq!(in_file("#[test]\n#[ignore = \"slow\"]\nfn f() {}"), found);
        assert!(in_file("fn ignore(ignore: u8) {}").is_empty());
    }

    #[test]
    fn a_bare_allow_is_found() {
        let found = ["2: use `#[expect(..., reason = \"...\")]` in place of a bare `allow`"];
        assert_eq!(in_file("#[allow(dead_code)]\nfn f() {}"), found);
        assert_eq!(in_file("#![allow(dead_code)]"), found);
        assert_eq!(in_file("#[cfg_attr(test, allow(dead_code))]"), found);
        assert!(in_file("#[expect(dead_code, reason = \"x\")]\nfn f() { allow(1) }").is_empty());
        assert!(in_file("#[allow(dead_code, reason = \"x\")]\nfn f() {}").is_empty());
    }

    #[test]
    fn an_unsafe_block_says_why_it_is_sound() {
        let bare = "fn f() {\n    // Not why.\n    let a = unsafe { g() };\n}";
        assert_eq!(in_file(bare), ["4: an unsafe block needs a `// SAFETY:` comment above it"]);
        assert!(
            in_file("fn f() {\n    // SAFETY: it is,\n    // very much.\n    let a = unsafe { g() };\n}")
                .is_empty()
        );
        assert!(
            in_file("fn f() {\n    // SAFETY: it is.\n    let a =\n        unsafe { g() };\n}").is_empty()
        );
        assert!(in_file("#[unsafe(no_mangle)]\nunsafe fn f() {}").is_empty());
    }

    #[test]
    fn one_justification_serves_one_statement() {
        let second = "fn f() {\n    // SAFETY: it is.\n    unsafe { g() };\n    unsafe { h() };\n}";
        assert_eq!(in_file(second).len(), 1);
        let far = "// SAFETY: it is.\n\nfn f() {\n    unsafe { g() }\n}";
        assert_eq!(in_file(far).len(), 1);
    }
}
