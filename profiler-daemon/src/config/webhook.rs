//! What the webhook is told: its token, and which alert labels name whose time to capture.

use std::fmt;
use std::str::FromStr;

/// A token that is shown to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Shortest token: what can be guessed is no token.
    const MIN: usize = 16;
    const MAX: usize = 4096;

    /// The token itself. Compare it in constant time.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = String;

    /// Blanks and line ends around it do not belong to it.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if !(Self::MIN..=Self::MAX).contains(&text.len()) {
            return Err(format!(
                "a token has {} to {} characters; this has {}",
                Self::MIN,
                Self::MAX,
                text.len()
            ));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("a token is made of visible ASCII characters, without blanks".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(...)")
    }
}

/// `LABEL=KIND`: an alert's label that names whose time to capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelTarget {
    /// The alert's label.
    pub label: String,
    /// What its value names.
    pub kind: LabelKind,
}

/// What a label's value can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelKind {
    /// A process by its pid on the host.
    Pid,
    /// All processes whose name (`comm`) it is.
    Comm,
    /// A cgroup by its path below the cgroup v2 mount.
    Cgroup,
    /// A cgroup by the id of the container, which is part of the directory's name, or by its name.
    Container,
    /// A cgroup by the uid of the Kubernetes pod, which is part of the directory's name, or by its
    /// name. The alert's labels `pod` and `namespace` tell equal names apart.
    Pod,
}

impl LabelKind {
    const TABLE: [(Self, &'static str); 5] = [
        (Self::Pid, "pid"),
        (Self::Comm, "comm"),
        (Self::Cgroup, "cgroup"),
        (Self::Container, "container"),
        (Self::Pod, "pod"),
    ];

    /// The name used in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::TABLE.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }
}

impl FromStr for LabelTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is not LABEL=KIND with the kind pid, comm, cgroup, container or pod");
        let (label, kind) = text.split_once('=').ok_or_else(wrong)?;
        let (label, kind) = (label.trim(), kind.trim());
        let kind = LabelKind::TABLE.iter().find(|(_, name)| *name == kind).map(|(kind, _)| *kind);
        match kind {
            Some(kind) if !label.is_empty() => Ok(Self { label: label.to_owned(), kind }),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for LabelTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.label, self.kind.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        let secret: Secret = " 0123456789abcdef\n".parse().expect("long enough");
        assert_eq!(secret.expose(), "0123456789abcdef");
        assert!(!format!("{secret:?}").contains("0123"));
        assert!("short".parse::<Secret>().is_err_and(|error| error.contains("16 to 4096")));
        assert!("0123456789 abcdef".parse::<Secret>().is_err_and(|error| error.contains("blanks")));
    }

    #[test]
    fn mappings() {
        let target: LabelTarget = "process_id = pid".parse().expect("valid");
        assert_eq!(target.to_string(), "process_id=pid");
        for text in ["pid", "=pid", "a=b"] {
            let error = text.parse::<LabelTarget>().expect_err(text);
            assert!(error.contains(text) && error.contains("container or pod"), "{error}");
        }
    }
}
