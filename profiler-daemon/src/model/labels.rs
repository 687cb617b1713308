//! Who a sample belongs to.

use std::borrow::Cow;
use std::sync::Arc;

use super::Pid;

/// Who a sample belongs to. Every stack of a profile carries one. Texts are made when the sample
/// is, so that a stored window keeps the names of what is long gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Labels {
    /// The process id.
    pub pid: Pid,
    /// The thread's name, the root of its stacks. Selectors ask for it as `thread`.
    pub comm: Arc<str>,
    /// The process's name, that is its main thread's; empty where it was not readable. Selectors
    /// ask for it as `comm` and get the thread's name in its place where it is empty.
    pub process: Arc<str>,
    /// Path of the process's executable; empty for kernel threads and where it was not readable.
    pub exe: Arc<str>,
    /// Path of the cgroup; empty where unknown.
    pub cgroup: Arc<str>,
    /// The container's name, or the first 12 digits of its id; empty outside of containers.
    pub container: Arc<str>,
    /// The pod's name, or its uid; empty outside of pods.
    pub pod: Arc<str>,
    /// The pod's Kubernetes namespace; empty where unknown.
    pub namespace: Arc<str>,
    /// The service or scope of systemd's; empty outside of units.
    pub unit: Arc<str>,
}

impl Labels {
    /// Names a selector may ask for.
    pub const NAMES: &'static [&'static str] =
        &["comm", "pid", "exe", "thread", "container", "pod", "namespace", "unit", "cgroup"];

    /// The value of a label; `None` for a name that is not in [`Self::NAMES`].
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(match name {
            "comm" => self.process_name(),
            "thread" => &*self.comm,
            "exe" => &*self.exe,
            "container" => &*self.container,
            "pod" => &*self.pod,
            "namespace" => &*self.namespace,
            "unit" => &*self.unit,
            "cgroup" => &*self.cgroup,
            "pid" => return Some(Cow::Owned(self.pid.to_string())),
            _ => return None,
        }))
    }

    /// The process's name, or the thread's where that is not known.
    #[must_use]
    pub fn process_name(&self) -> &Arc<str> {
        if self.process.is_empty() { &self.comm } else { &self.process }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_value_of_its_own() {
        let labels = Labels {
            pid: Pid(7),
            comm: "worker".into(),
            process: "web".into(),
            exe: "/bin/web".into(),
            cgroup: "/c".into(),
            container: "nginx".into(),
            pod: "web-0".into(),
            namespace: "shop".into(),
            unit: "web.service".into(),
        };
        let values: Vec<_> = Labels::NAMES.iter().filter_map(|name| labels.get(name)).collect();
        let expected = ["web", "7", "/bin/web", "worker", "nginx", "web-0", "shop", "web.service", "/c"];
        assert_eq!(values, expected);
        let unknown = Labels { process: "".into(), ..labels };
        assert_eq!(unknown.get("comm").as_deref(), Some("worker"));
        assert_eq!(unknown.get("host"), None);
    }
}
