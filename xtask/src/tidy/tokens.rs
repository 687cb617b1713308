//! Cuts Rust source into words and signs, without comments and without what strings hold.

/// A word (identifier, keyword or number) or a sign, and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    /// Counted from 1.
    pub(super) line: usize,
    /// A word, `::`, or any other single character. A string literal is `"`.
    pub(super) text: &'a str,
}

/// The tokens of a source. Total: what is no Rust gives some tokens, too.
pub(super) fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = source;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let (length, is_token) = if let Some(comment) = comment_length(rest) {
            (comment, false)
        } else if let Some(string) = string_length(rest) {
            tokens.push(Token { line, text: "\"" });
            (string, false)
        } else if first == '\'' {
            (char_length(rest), false)
        } else if is_word(first) {
            (rest.find(|c| !is_word(c)).unwrap_or(rest.len()), true)
        } else if rest.starts_with("::") {
            (2, true)
        } else {
            (first.len_utf8(), !first.is_whitespace())
        };
        let (token, after) = rest.split_at(length);
        if is_token {
            tokens.push(Token { line, text: token });
        }
        line += token.matches('\n').count();
        rest = after;
    }
    tokens
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// Length of the comment a source starts with. Block comments nest.
fn comment_length(source: &str) -> Option<usize> {
    if source.starts_with("//") {
        return Some(source.find('\n').unwrap_or(source.len()));
    }
    if !source.starts_with("/*") {
        return None;
    }
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(next) = source[at..].find(['/', '*']) {
        at += next;
        let rest = &source[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth = depth.saturating_sub(1);
            at += 2;
            if depth == 0 {
                return Some(at);
            }
        } else {
            at += 1;
        }
    }
    Some(source.len())
}

/// Length of the string literal a source starts with, prefix included.
fn string_length(source: &str) -> Option<usize> {
    let prefix = ["br", "cr", "b", "c", "r", ""]
        .into_iter()
        .find(|prefix| source.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(['"', '#'])))?;
    let rest = &source[prefix.len()..];
    let hashes = rest.bytes().take_while(|byte| *byte == b'#').count();
    let body = rest[hashes..].strip_prefix('"')?;
    let before = prefix.len() + hashes + 1;
    if prefix.ends_with('r') {
        let end = format!("\"{}", "#".repeat(hashes));
        return Some(body.find(&end).map_or(source.len(), |at| before + at + end.len()));
    }
    if hashes > 0 {
        return None;
    }
    let mut escaped = false;
    for (at, c) in body.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(before + at + 1),
            _ => {}
        }
    }
    Some(source.len())
}

/// Length of the character literal a source starts with, or of the quote alone if it is a lifetime.
fn char_length(source: &str) -> usize {
    let body = &source[1..];
    if body.starts_with('\\') {
        // The character after the backslash may itself be a quote.
        let escape = body.char_indices().nth(2).map_or(body.len(), |(at, _)| at);
        return body[escape..].find('\'').map_or(source.len(), |at| 1 + escape + at + 1);
    }
    let mut chars = body.chars();
    match (chars.next(), chars.next()) {
        (Some(c), Some('\'')) => 1 + c.len_utf8() + 1,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> Vec<&str> {
        tokens(source).into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn comments_and_the_insides_of_literals_are_left_out() {
        assert_eq!(texts("a // b\nc /* d /* e */ f */ g"), ["a", "c", "g"]);
        assert_eq!(
            texts(r###"x("a\"b", r#"c"d"#, b"e", br##"f"#g"##) y"###).join(" "),
            "x ( \" , \" , \" , \" ) y"
        );
        assert_eq!(texts(r"['a', '\'', '\u{7f}', '{', b'x']").join(""), "[,,,,b]");
    }

    #[test]
    fn lifetimes_and_words_that_look_like_prefixes_stay() {
        assert_eq!(texts("&'a str").join(" "), "& a str");
        assert_eq!(texts("for b in r#crate::c").join(" "), "for b in r # crate :: c");
    }

    #[test]
    fn lines_are_counted_through_strings_and_comments() {
        let source = "a\n\"x\ny\" b\n/*\n*/ c";
        let lines: Vec<_> = tokens(source).iter().map(|token| (token.text, token.line)).collect();
        assert_eq!(lines, [("a", 1), ("\"", 2), ("b", 3), ("c", 5)]);
    }

    #[test]
    fn unfinished_source_ends_all_the_same() {
        for source in ["\"a", "r#\"a\"", "/* a", "'", "'\\", "b'", "r#"] {
            tokens(source);
        }
    }
}
