//! Cgroup paths: which container, pod and systemd unit a path belongs to.
//!
//! Only the path is read here. It is all that a process carries with it, and it is the same with
//! or without a container runtime that answers. Names come from `super::names`.

/// Who a cgroup belongs to, as far as its path says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The container: 64 hex digits with most runtimes, a name with LXC and systemd-nspawn. The
    /// innermost one where containers run in containers.
    pub container: Option<String>,
    /// The Kubernetes pod's uid with dashes, or the id of a pod of podman's.
    pub pod: Option<String>,
    /// The innermost service or scope of systemd's.
    pub unit: Option<String>,
    /// The user whose slice it is in: where to look for rootless containers.
    pub user: Option<u32>,
}

/// Prefixes of directories and scopes that hold one container, in front of its id.
const RUNTIMES: [&str; 6] = ["docker", "cri-containerd", "crio", "libpod", "libpod-payload", "nerdctl"];

/// Those that also run without root, under a user's own systemd; with LXC they name what is there.
const ROOTLESS: [&str; 4] = ["docker", "libpod", "libpod-payload", "nerdctl"];

impl Owner {
    /// Reads a `/proc/PID/cgroup` file (cgroups(7)). On hosts with both versions the v2 hierarchy
    /// often holds the service that started a container where v1 holds the container itself, so
    /// the line that names a container wins; else v2, else systemd's own v1 hierarchy.
    #[must_use]
    pub fn of_file(text: &str) -> Self {
        let lines = || text.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
        let v2 = lines().find(|(controllers, _)| controllers.is_empty()).map(|(_, path)| Self::of(path));
        let named = v2.clone().filter(|owner| owner.container.is_some());
        let named =
            named.or_else(|| lines().map(|(_, path)| Self::of(path)).find(|owner| owner.container.is_some()));
        let systemd = || lines().find(|(controllers, _)| *controllers == "name=systemd");
        named
            .or_else(|| v2.filter(|owner| *owner != Self::default()))
            .or_else(|| systemd().map(|(_, path)| Self::of(path)))
            .unwrap_or_default()
    }

    /// Reads one path.
    #[must_use]
    pub fn of(path: &str) -> Self {
        let mut owner = Self::default();
        let mut before = "";
        // Below the service of a user's own systemd that user makes directories of any name.
        let mut by_user = false;
        // containerd under systemd may leave `SLICE:cri-containerd:ID` as one name.
        for segment in path.split(['/', ':']).filter(|segment| !segment.is_empty()) {
            let container =
                if by_user { rootless_container_of(segment) } else { container_of(segment, before) };
            if let Some(container) = container {
                owner.container = Some(container);
            }
            if let Some(pod) = pod_of(segment).filter(|pod| !by_user || is_id(pod)) {
                owner.pod = Some(pod);
            }
            if segment.ends_with(".service") || segment.ends_with(".scope") {
                owner.unit = Some(segment.to_owned());
            }
            let user = segment.strip_prefix("user-").and_then(|rest| rest.strip_suffix(".slice"));
            if let Some(user) = user.and_then(|user| user.parse().ok()) {
                owner.user = Some(user);
            }
            by_user |= is_user_manager(segment);
            before = segment;
        }
        owner
    }
}

/// `user@1000.service`; root's own may do what it likes anyway.
fn is_user_manager(segment: &str) -> bool {
    let user = segment.strip_prefix("user@").and_then(|rest| rest.strip_suffix(".service"));
    user.is_some_and(|user| user != "0")
}

/// The container that a directory stands for which a user could make.
fn rootless_container_of(segment: &str) -> Option<String> {
    let bare = segment.strip_suffix(".scope").unwrap_or(segment);
    of_runtime(bare, &ROOTLESS).or_else(|| lxc_payload(segment))
}

fn of_runtime(bare: &str, runtimes: &[&str]) -> Option<String> {
    let id = |runtime: &&str| bare.strip_prefix(*runtime)?.strip_prefix('-').filter(|id| is_id(id));
    runtimes.iter().find_map(id).map(str::to_owned)
}

/// LXC and Incus: `lxc.payload.NAME`.
fn lxc_payload(segment: &str) -> Option<String> {
    segment.strip_prefix("lxc.payload.").filter(|name| !name.is_empty()).map(str::to_owned)
}

/// The container that a directory stands for; `before` is the directory above it.
fn container_of(segment: &str, before: &str) -> Option<String> {
    let bare = segment.strip_suffix(".scope").unwrap_or(segment);
    if is_id(bare) {
        return Some(bare.to_owned());
    }
    // `libpod-conmon-ID.scope` holds the monitor of a container, not the container: what follows
    // the prefix must be the id alone.
    if let Some(id) = of_runtime(bare, &RUNTIMES) {
        return Some(id);
    }
    // AWS Fargate: `/ecs/TASK/TASK-NUMBER`.
    if let Some((task, number)) = segment.split_once('-')
        && task == before
        && task.len() == 32
        && is_hex(task)
        && !number.is_empty()
        && number.bytes().all(|byte| byte.is_ascii_digit())
    {
        return Some(segment.to_owned());
    }
    if let Some(name) = lxc_payload(segment) {
        return Some(name);
    }
    // LXC: `/lxc/NAME`.
    if before == "lxc" {
        return Some(segment.to_owned());
    }
    // systemd-nspawn: `systemd-nspawn@NAME.service`, or `machine-NAME.scope` in machine.slice.
    let nspawn = segment.strip_prefix("systemd-nspawn@").and_then(|rest| rest.strip_suffix(".service"));
    let machine = segment.strip_prefix("machine-").and_then(|rest| rest.strip_suffix(".scope"));
    let machine = machine.filter(|name| before == "machine.slice" && !name.starts_with("qemu"));
    nspawn.or(machine).map(unescape)
}

/// The pod that a directory stands for: `podUID` or `kubepods-QOS-podUID.slice`, where systemd's
/// slices have `_` in place of `-`; `machine-libpod_pod_ID.slice` with podman.
fn pod_of(segment: &str) -> Option<String> {
    let bare = segment.strip_suffix(".slice").unwrap_or(segment);
    if let Some((_, id)) = bare.split_once("libpod_pod_") {
        return is_id(id).then(|| id.to_owned());
    }
    let uid = match bare.strip_prefix("pod") {
        Some(uid) => uid,
        None if segment.len() > bare.len() && bare.contains("kubepods") => bare.rsplit_once("-pod")?.1,
        None => return None,
    };
    let uid = uid.replace('_', "-");
    // Static pods have the hash of their file in place of a uid: 32 hex digits.
    let plain = uid.replace('-', "");
    (plain.len() == 32 && is_hex(&plain) && (uid.len() == 32 || is_uuid(&uid))).then_some(uid)
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && is_hex(text)
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_uuid(text: &str) -> bool {
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    lengths == [8, 4, 4, 4, 12]
}

/// systemd's `\x2d` (systemd.unit(5), "String escaping"): only the dash, which names hold.
fn unescape(name: &str) -> String {
    name.replace("\\x2d", "-")
}

#[cfg(test)]
mod tests;
