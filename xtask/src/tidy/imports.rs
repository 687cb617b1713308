//! Who may import whom among the modules of `profiler-daemon`: the table of ARCHITECTURE.md.

use super::tokens::Token;
use super::{File, Finding};

/// Where the modules lie.
const MODULES: &str = "profiler-daemon/src/";

/// A module, and what of ours it may use beside itself. Tests in it are bound by it, too.
const ALLOWED: [(&str, &[&str]); 19] = [
    ("model", &[]),
    ("proto", &[]),
    ("config", &["model"]),
    ("kernel", &["model", "config", "profiler_common"]),
    ("decode", &["model", "profiler_common"]),
    ("procs", &["model"]),
    ("unwind", &["model", "procs", "profiler_common"]),
    ("symbolize", &["model", "procs"]),
    ("aggregate", &["model", "config"]),
    ("store", &["model", "config"]),
    ("render", &["model", "proto"]),
    ("capture", &["model", "config", "store"]),
    ("bundle", &["model", "store", "render", "capture"]),
    ("trigger", &["model", "config", "procs", "store", "capture", "bundle"]),
    ("api", &["model", "config", "store", "capture", "render", "proto", "bundle", "trigger"]),
    ("telemetry", &["model"]),
    ("client", &["model", "render", "proto", "cli"]),
    ("cli", &["model", "render"]),
    (
        "agent",
        &[
            "model",
            "proto",
            "config",
            "kernel",
            "decode",
            "procs",
            "unwind",
            "symbolize",
            "aggregate",
            "store",
            "render",
            "capture",
            "bundle",
            "trigger",
            "api",
            "telemetry",
            "cli",
            "profiler_common",
        ],
    ),
];

/// The crate shared with the kernel side, as an entry of [`ALLOWED`].
const COMMON: &str = "profiler_common";

/// The crates of aya: only this module may name one.
const AYA: [&str; 3] = ["aya", "aya_log", "aya_obj"];
const AYA_MODULE: &str = "kernel";

/// Checks one file; those outside `profiler-daemon/src` are free, and so are its crate roots.
pub(super) fn check(file: &File, tokens: &[Token<'_>], findings: &mut Vec<Finding>) {
    let Some(path) = file.path.strip_prefix(MODULES).and_then(|path| path.strip_suffix(".rs")) else {
        return;
    };
    let mut place: Vec<&str> = path.split('/').collect();
    if place.last() == Some(&"mod") {
        place.pop();
    }
    let Some(&module) = place.first() else { return };
    if place == ["main"] || place == ["lib"] {
        return;
    }
    let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == module) else {
        findings.push(Finding::new(file, 1, format!("module `{module}` is not in the table of imports")));
        return;
    };
    for Use { line, name } in uses(tokens, place.len()) {
        let known = name == COMMON || ALLOWED.iter().any(|(module, _)| *module == name);
        if AYA.contains(&name) && module != AYA_MODULE {
            findings.push(Finding::new(file, line, format!("only `{AYA_MODULE}` may use `{name}`")));
        } else if !known && !AYA.contains(&name) {
            findings.push(Finding::new(
                file,
                line,
                format!("`crate::{name}` is not in the table of imports"),
            ));
        } else if known && name != module && !allowed.contains(&name) {
            findings.push(Finding::new(file, line, format!("`{module}` may not use `{name}`")));
        }
    }
}

/// Something of ours that is used at a place.
#[derive(Debug, PartialEq, Eq)]
struct Use<'a> {
    line: usize,
    /// What follows `crate::`, or the name of a crate of interest.
    name: &'a str,
}

/// Everything that paths from the crate's root lead to, in a file `depth` modules below it.
fn uses<'a>(tokens: &[Token<'a>], depth: usize) -> Vec<Use<'a>> {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    let mut uses = Vec::new();
    // For each open brace, whether it is that of a module.
    let mut braces = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let starts_path = at == 0 || text(at - 1) != "::";
        match token.text {
            "{" => braces.push(at >= 2 && text(at - 2) == "mod"),
            "}" => _ = braces.pop(),
            "crate" if text(at + 1) == "::" => heads(tokens, at + 2, &mut uses),
            "super" if starts_path || text(at.wrapping_sub(2)) == "self" => {
                let mut supers = 1;
                while text(at + 2 * supers - 1) == "::" && text(at + 2 * supers) == "super" {
                    supers += 1;
                }
                let depth = depth + braces.iter().filter(|is_module| **is_module).count();
                if supers >= depth && text(at + 2 * supers - 1) == "::" {
                    heads(tokens, at + 2 * supers, &mut uses);
                }
            }
            name if AYA.contains(&name) || name == COMMON => uses.push(Use { line: token.line, name }),
            _ => {}
        }
    }
    uses
}

/// The first names of what stands at `at`: one path, or a group of them in braces.
fn heads<'a>(tokens: &[Token<'a>], at: usize, uses: &mut Vec<Use<'a>>) {
    let Some(first) = tokens.get(at) else { return };
    if first.text != "{" {
        uses.push(Use { line: first.line, name: first.text });
        return;
    }
    let mut depth = 0_usize;
    let mut starts_path = false;
    for token in &tokens[at..] {
        match token.text {
            "{" => {
                depth += 1;
                starts_path = depth == 1;
            }
            "}" => {
                depth -= 1;
                if depth == 0 {
                    return;
                }
            }
            "," => starts_path = depth == 1,
            name => {
                if starts_path {
                    uses.push(Use { line: token.line, name });
                }
                starts_path = false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::findings;

    fn in_module(path: &str, code: &str) -> Vec<String> {
        findings(&format!("profiler-daemon/src/{path}"), &format!("//! Doc.\n{code}"))
    }

    #[test]
    fn what_the_table_allows_passes() {
        assert!(in_module("render/svg.rs", "use crate::model::Profile;\nuse super::folded;").is_empty());
        assert!(
            in_module("kernel/ring.rs", "use aya::maps::RingBuf;\nuse profiler_common::record;").is_empty()
        );
        assert!(in_module("procs/mod.rs", "use crate::procs::table;\nfn f() { model::x() }").is_empty());
        assert!(in_module("main.rs", "use profiler_daemon::agent;").is_empty());
        assert!(
            in_module("store.rs", "// crate::kernel::x\nconst S: &str = \"crate::kernel::x\";").is_empty()
        );
    }

    #[test]
    fn what_it_does_not_allow_is_found() {
        assert_eq!(
            in_module("render/svg.rs", "use crate::store::Store;"),
            ["2: `render` may not use `store`"]
        );
        assert_eq!(
            in_module("model/id.rs", "\nfn f() -> crate::procs::X {}"),
            ["3: `model` may not use `procs`"]
        );
        assert_eq!(
            in_module("client.rs", "use profiler_common::x;"),
            ["2: `client` may not use `profiler_common`"]
        );
    }

    #[test]
    fn groups_are_looked_into() {
        let code = "use crate::{\n    model::{Frame, store},\n    store::{self, x},\n    kernel,\n};";
        assert_eq!(
            in_module("render.rs", code),
            ["4: `render` may not use `store`", "5: `render` may not use `kernel`"]
        );
    }

    #[test]
    fn super_may_not_leave_the_module_for_one_that_is_not_allowed() {
        let found = ["2: `render` may not use `store`"];
        assert_eq!(in_module("render.rs", "use super::store::X;"), found);
        assert_eq!(in_module("render/mod.rs", "use super::{model, store};"), found);
        assert_eq!(in_module("render/svg.rs", "use super::super::store::X;"), found);
        assert_eq!(in_module("render/svg.rs", "use self::super::super::store::X;"), found);
        assert_eq!(in_module("render.rs", "mod tests { use super::super::store::X; }"), found);
        assert!(in_module("render.rs", "mod tests { use super::store; }\npub(super) fn f() {}").is_empty());
        assert!(in_module("render/svg.rs", "use super::store::X;").is_empty());
    }

    #[test]
    fn tests_are_bound_by_the_table() {
        let code = "#[cfg(test)]\nmod tests {\n    use crate::agent::x;\n}";
        assert_eq!(in_module("store/tests.rs", code), ["4: `store` may not use `agent`"]);
    }

    #[test]
    fn only_the_kernel_module_knows_aya() {
        assert_eq!(in_module("agent/mod.rs", "use aya::Ebpf;"), ["2: only `kernel` may use `aya`"]);
        assert_eq!(
            in_module("agent.rs", "aya_log::EbpfLogger::init()"),
            ["2: only `kernel` may use `aya_log`"]
        );
    }

    #[test]
    fn unknown_modules_are_found_where_they_are_and_where_they_are_used() {
        assert_eq!(in_module("misc/mod.rs", ""), ["1: module `misc` is not in the table of imports"]);
        assert_eq!(
            in_module("store.rs", "use crate::misc::x;"),
            ["2: `crate::misc` is not in the table of imports"]
        );
        assert_eq!(in_module("store.rs", "use crate::*;"), ["2: `crate::*` is not in the table of imports"]);
    }
}
