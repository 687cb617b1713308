//! Rules for every file: nothing in it depends on the machine it was written on.

use super::{File, Finding};

/// Directories of a developer's machine. Built from pieces, so that this file passes.
const DIRECTORIES: [&str; 3] = [concat!("/", "root/"), concat!("/", "home/"), concat!("/", "work/")];

/// Hosts of package registries and mirrors: where packages come from is a setting of each machine.
const REGISTRIES: [&str; 8] = [
    concat!("crates", ".io"),
    concat!("deb.debian", ".org"),
    concat!("security.debian", ".org"),
    concat!("archive.ubuntu", ".com"),
    concat!("registry.npmjs", ".org"),
    concat!("proxy.golang", ".org"),
    concat!("pypi", ".org"),
    concat!("pythonhosted", ".org"),
];

/// Written by cargo, which names its default registry in it on every machine.
const LOCK_FILE: &str = "Cargo.lock";

/// Checks one file, whether it is text or not.
pub(super) fn check(file: &File, findings: &mut Vec<Finding>) {
    for directory in DIRECTORIES {
        for at in occurrences(&file.content, directory) {
            if begins_path(&file.content[..at]) {
                let message = format!("`{directory}` is a directory of one machine");
                findings.push(Finding::new(file, line_of(&file.content, at), message));
            }
        }
    }
    if file.path.rsplit('/').next() == Some(LOCK_FILE) {
        return;
    }
    for host in REGISTRIES {
        for at in occurrences(&file.content, host) {
            let message = format!("`{host}` is the host of a package registry");
            findings.push(Finding::new(file, line_of(&file.content, at), message));
        }
    }
}

/// Where `needle` occurs. The content may be an object or an image: bytes, not text.
fn occurrences(content: &[u8], needle: &str) -> impl Iterator<Item = usize> {
    content
        .windows(needle.len())
        .enumerate()
        .filter(move |(_, window)| *window == needle.as_bytes())
        .map(|(at, _)| at)
}

/// Whether a slash after this is the first of an absolute path. In `/proc/PID/root/`,
/// `/proc/<pid>/root/` and `/proc/{pid}/root/` it is not.
fn begins_path(before: &[u8]) -> bool {
    !before.last().is_some_and(|byte| byte.is_ascii_alphanumeric() || b"_-.*>})]".contains(byte))
}

/// Line of a position, counted from 1.
fn line_of(content: &[u8], at: usize) -> usize {
    1 + content[..at].iter().filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::super::testing::findings;
    use super::{DIRECTORIES, REGISTRIES};

    #[test]
    fn directories_of_one_machine_are_found() {
        for directory in DIRECTORIES {
            let found = [format!("2: `{directory}` is a directory of one machine")];
            assert_eq!(findings("README.md", &format!("# Title\ncd {directory}x\n")), found);
            assert_eq!(findings("deploy/some.yaml", &format!("a:\n  - \"{directory}x\"\n")), found);
        }
    }

    #[test]
    fn directories_below_others_are_not_meant() {
        for before in ["/proc/PID", "/proc/{pid}", "/proc/<pid>", "/proc/*", "src/my-", "."] {
            let text = DIRECTORIES.map(|directory| format!("{before}{directory}x\n")).concat();
            assert!(findings("README.md", &text).is_empty(), "{text}");
        }
    }

    #[test]
    fn hosts_of_registries_are_found_but_for_the_lock_file() {
        for host in REGISTRIES {
            let text = format!("see https://{host}/x\n");
            assert_eq!(
                findings("README.md", &text),
                [format!("1: `{host}` is the host of a package registry")]
            );
            assert!(findings("Cargo.lock", &text).is_empty());
            assert!(findings("tests/fuzz/Cargo.lock", &text).is_empty());
        }
    }
}
