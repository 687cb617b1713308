//! Mangled names to readable ones: only names that carry a mangling prefix, and only in bounds.

use std::fmt::{self, Write};
use std::panic::catch_unwind;

use cpp_demangle::{BorrowedSymbol, DemangleOptions, ParseOptions};

// Names are cut there: templates can nest without end.
use super::wire::MAX_NAME;

/// Mangled names longer than this stay as they are.
const MAX_MANGLED: usize = 4096;
/// Depth of the C++ grammar that is followed; the library's own default.
const MAX_DEPTH: u32 = 96;

/// The readable form of a symbol's name. Only `_R`, `_ZN..17h..E` (Rust) and `_Z` (C++) names are
/// changed: a C function called `a` is not `signed char`.
pub(super) fn demangle(name: &str) -> String {
    // The names are strangers', and the libraries are sure of more than they can know.
    let readable = catch_unwind(|| readable(name)).unwrap_or_default();
    readable.unwrap_or_else(|| cut(name, MAX_NAME).to_owned())
}

fn readable(name: &str) -> Option<String> {
    if name.len() > MAX_MANGLED {
        None
    } else if name.starts_with("_R") || is_legacy_rust(name) {
        rust(name)
    } else if name.starts_with("_Z") {
        cpp(name)
    } else {
        None
    }
}

/// Rust's legacy mangling ends in a path element of 17 characters: `h` and a 64-bit hash.
fn is_legacy_rust(name: &str) -> bool {
    let hash = || {
        let at = name.rfind("17h")?;
        let digits = name.get(at + 3..at + 19)?;
        Some(digits.bytes().all(|byte| byte.is_ascii_hexdigit()) && name.get(at + 19..)?.starts_with('E'))
    };
    name.starts_with("_ZN") && hash().unwrap_or(false)
}

fn rust(name: &str) -> Option<String> {
    let mut out = Bounded::default();
    let demangled = rustc_demangle::try_demangle(name).ok()?;
    // The alternate form leaves the hash out.
    write!(out, "{demangled:#}").ok().filter(|()| !out.text.is_empty())?;
    Some(out.text)
}

fn cpp(name: &str) -> Option<String> {
    let parsing = ParseOptions::default().recursion_limit(MAX_DEPTH);
    let symbol = BorrowedSymbol::new_with_options(name.as_bytes(), &parsing).ok()?;
    let mut out = Bounded::default();
    let options = DemangleOptions::new().recursion_limit(MAX_DEPTH);
    symbol.structured_demangle(&mut out, &options).ok().filter(|()| !out.text.is_empty())?;
    Some(out.text)
}

/// The beginning of a text, at most so many bytes.
pub(super) fn cut(name: &str, max: usize) -> &str {
    let mut end = name.len().min(max);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.get(..end).unwrap_or_default()
}

/// Refuses to grow beyond [`MAX_NAME`]: a short mangled name can stand for a huge one.
#[derive(Default)]
struct Bounded {
    text: String,
}

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.text.len() + text.len() > MAX_NAME {
            return Err(fmt::Error);
        }
        self.text.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rust_and_cpp_names_become_readable() {
        assert_eq!(
            demangle("_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE"),
            "core::fmt::Write::write_fmt"
        );
        assert_eq!(demangle("_RNvCskwGfYPst2Cb_3foo16example_function"), "foo::example_function");
        assert_eq!(demangle("_ZN3foo3barEi"), "foo::bar(int)");
        assert_eq!(
            demangle("_ZNSt6vectorIiSaIiEE9push_backERKi"),
            "std::vector<int, std::allocator<int> >::push_back(int const&)"
        );
    }

    #[test]
    fn plain_names_stay() {
        for name in ["a", "main", "i", "_start", "f.part.0", "_Rubbish", "_Zrubbish", "__libc_start_main"] {
            assert_eq!(demangle(name), name);
        }
    }

    #[test]
    fn a_name_that_unfolds_without_end_stays_mangled() {
        // Each parameter is a template of the one before, eight times: a<int>, b<a<int>, ...>, ...
        let bomb = |parameters: u32| {
            let mut name = "_Z1f1aIiE".to_owned();
            for number in 1..parameters {
                let letter = char::from_u32(u32::from('a') + number).unwrap();
                let earlier = format!("S{}_", 2 * number - 2);
                name.push_str(&format!("1{letter}I{}E", earlier.repeat(8)));
            }
            name
        };
        let small = demangle(&bomb(2));
        assert!(small.starts_with("f(a<int>, b<a<int>, a<int>, ") && small.len() < 100, "{small}");
        // 8^5 times `a<int>` would be a quarter of a megabyte.
        assert_eq!(demangle(&bomb(6)), bomb(6));
        assert!(demangle(&"x".repeat(100_000)).len() <= MAX_NAME);
        assert!(demangle(&"é".repeat(100_000)).len() <= MAX_NAME);
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(tail in "[A-Za-z0-9_]{0,80}") {
            for prefix in ["_R", "_Z", "_ZN", ""] {
                let readable = demangle(&[prefix, &tail].concat());
                prop_assert!(readable.len() <= MAX_NAME);
            }
        }
    }
}
