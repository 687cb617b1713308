//! Names of containers and pods, from what their runtimes leave on the node: no API, no token.
//!
//! - kubelet: links `/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log` and directories
//!   `/var/log/pods/NAMESPACE_POD_UID`.
//! - containerd and CRI-O: the annotations of a running container's OCI configuration.
//! - Docker: `Name` in the container's `config.v2.json`.
//! - podman: `names` in the list of its storage, the user's own for rootless containers.
//!
//! Everything is optional: what is not found is asked again later, and the id serves until then.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use rustix::fs::{self, Dir, Mode, OFlags, ResolveFlags};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::container::Owner;
use super::procdir::open_regular_below;

/// Most owners that are remembered.
const MAX_KNOWN: usize = 8192;
/// Most entries of a directory that are looked at.
const MAX_LISTED: usize = 16_384;
/// Largest file that is read, bytes.
const MAX_FILE: u64 = 4 << 20;
/// The directories of kubelet's are listed at most this often.
const LIST_EVERY: Duration = Duration::from_secs(5);
/// A container whose name is not known is asked for again after this long, and then ever less often.
const ASK_AGAIN: Duration = Duration::from_secs(2);
const ASK_AGAIN_MAX: Duration = Duration::from_secs(120);
/// Digits of an id that stand for a name, as the runtimes' own tools show it.
const SHORT_ID: usize = 12;

/// Where a process lives. Texts are empty where there is no such thing or it is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Name of the container; the first 12 digits of its id where it has none that we know.
    pub container: Arc<str>,
    /// Name of the pod; its uid where the name is not known.
    pub pod: Arc<str>,
    /// The pod's Kubernetes namespace.
    pub namespace: Arc<str>,
    /// The service or scope of systemd's.
    pub unit: Arc<str>,
}

/// The names found so far.
#[derive(Debug)]
pub(super) struct Names {
    /// The root directory of the host, where it can be had.
    root: Option<OwnedFd>,
    known: FxHashMap<Owner, Known>,
    listed: Option<Listed>,
    stored: Option<Stored>,
}

#[derive(Debug)]
struct Known {
    place: Arc<Place>,
    /// When to ask again; `None` where all is known.
    again: Option<(Instant, Duration)>,
}

/// What kubelet's directories say.
#[derive(Debug)]
struct Listed {
    at: Instant,
    containers: HashMap<String, Named>,
    pods: HashMap<String, Named>,
}

/// What podman's list of a user last said; the system's where there is no user.
#[derive(Debug)]
struct Stored {
    user: Option<u32>,
    at: Instant,
    /// By the containers' ids.
    names: HashMap<String, String>,
}

/// A name of a container, its pod, or both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Named {
    container: String,
    pod: String,
    namespace: String,
}

impl Names {
    /// Looks at the host's files also from inside a container, if that shares the host's pids.
    pub(super) fn new() -> Self {
        let open =
            |path: &str| fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        Self::below(open("/proc/1/root").or_else(|_| open("/")).ok())
    }

    fn below(root: Option<OwnedFd>) -> Self {
        Self { root, known: FxHashMap::default(), listed: None, stored: None }
    }

    /// The place of an owner: the same allocation as long as nothing new is known.
    pub(super) fn place(&mut self, owner: &Owner, now: Instant) -> Arc<Place> {
        if let Some(known) = self.known.get(owner)
            && known.again.is_none_or(|(at, _)| now < at)
        {
            return Arc::clone(&known.place);
        }
        let found = self.find(owner, now);
        let unnamed = (owner.container.is_some() && found.container.is_empty())
            || (owner.pod.is_some() && found.pod.is_empty());
        let place = place(owner, found);
        if self.known.len() >= MAX_KNOWN && !self.known.contains_key(owner) {
            self.known.clear();
        }
        let known = self.known.entry(owner.clone());
        let known = known.or_insert_with(|| Known { place: Arc::new(place.clone()), again: None });
        if *known.place != place {
            known.place = Arc::new(place);
        }
        let wait = known.again.map_or(ASK_AGAIN, |(_, waited)| (waited * 2).min(ASK_AGAIN_MAX));
        known.again = unnamed.then(|| (now + wait, wait));
        Arc::clone(&known.place)
    }

    fn find(&mut self, owner: &Owner, now: Instant) -> Named {
        let mut named = Named::default();
        // What is in a user's slice may carry the id of a stranger's container: only that user's own
        // files may give it a name.
        let by_user = owner.user.is_some_and(|user| user != 0);
        if !by_user && owner.pod.is_some() {
            let listed = self.listed(now);
            if let Some(known) = owner.container.as_ref().and_then(|id| listed.containers.get(id)) {
                named = known.clone();
            } else if let Some(known) = owner.pod.as_ref().and_then(|uid| listed.pods.get(uid)) {
                named = known.clone();
            }
        }
        if named.container.is_empty()
            && let Some(id) = &owner.container
        {
            let found = match (id.len(), by_user) {
                (64, true) => self.podman(id, owner.user, now).unwrap_or_default(),
                (64, false) => self.by_id(id, owner.user, now),
                _ => of_name(id),
            };
            named.container = found.container;
            if named.pod.is_empty() {
                (named.pod, named.namespace) = (found.pod, found.namespace);
            }
        }
        named
    }

    /// Asks the runtimes' own files. The id is hexadecimal, so that it is safe in a path.
    fn by_id(&mut self, id: &str, user: Option<u32>, now: Instant) -> Named {
        let oci = [
            format!("run/containerd/io.containerd.runtime.v2.task/k8s.io/{id}/config.json"),
            format!("run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io/{id}/config.json"),
            format!("run/containerd/io.containerd.runtime.v2.task/default/{id}/config.json"),
            format!("run/containers/storage/overlay-containers/{id}/userdata/config.json"),
        ];
        let docker = format!("var/lib/docker/containers/{id}/config.v2.json");
        let docker = || self.json::<DockerContainer>(&docker).map(DockerContainer::named);
        let oci = oci.iter().filter_map(|path| self.json::<OciConfig>(path)).map(OciConfig::named);
        let found = docker().into_iter().chain(oci).find(|named| !named.container.is_empty());
        found.or_else(|| self.podman(id, user, now)).unwrap_or_default()
    }

    /// The list is a user's own, of any length: it is read no more often than kubelet's directories.
    fn podman(&mut self, id: &str, user: Option<u32>, now: Instant) -> Option<Named> {
        let is_fresh = |stored: &Stored| stored.user == user && now.duration_since(stored.at) < LIST_EVERY;
        if !self.stored.as_ref().is_some_and(is_fresh) {
            let names = self.stored_names(user).unwrap_or_default();
            self.stored = Some(Stored { user, at: now, names });
        }
        let container = self.stored.as_ref()?.names.get(id)?.clone();
        Some(Named { container, ..Named::default() })
    }

    fn stored_names(&self, user: Option<u32>) -> Option<HashMap<String, String>> {
        let storage = match user {
            None => "var/lib/containers/storage".to_owned(),
            Some(user) => format!("{}/.local/share/containers/storage", self.home(user)?.trim_matches('/')),
        };
        let lists = ["volatile-containers.json", "containers.json"].iter().filter_map(|file| {
            self.json::<Vec<StoredContainer>>(&format!("{storage}/overlay-containers/{file}"))
        });
        Some(lists.flatten().filter_map(|one| Some((one.id, one.names.into_iter().next()?))).collect())
    }

    /// The home directory of a user (passwd(5)).
    fn home(&self, user: u32) -> Option<String> {
        let passwd = self.read("etc/passwd")?;
        String::from_utf8_lossy(&passwd).lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            (fields.get(2)?.parse() == Ok(user)).then(|| fields.get(5).map(|&home| home.to_owned()))?
        })
    }

    fn listed(&mut self, now: Instant) -> &Listed {
        let fresh = self.listed.take().filter(|listed| now.duration_since(listed.at) < LIST_EVERY);
        let listed = fresh.unwrap_or_else(|| {
            let logs = self.names_in("var/log/containers");
            let pods = self.names_in("var/log/pods");
            Listed {
                at: now,
                containers: logs.iter().filter_map(|name| of_log(name)).collect(),
                pods: pods.iter().filter_map(|name| of_pod_logs(name)).collect(),
            }
        });
        self.listed.insert(listed)
    }

    fn names_in(&self, directory: &str) -> Vec<String> {
        let Some(root) = &self.root else { return Vec::new() };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let stay = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let opened = fs::openat2(root, directory, flags, Mode::empty(), stay).and_then(Dir::new);
        let Ok(entries) = opened else { return Vec::new() };
        let names = entries.take(MAX_LISTED).filter_map(Result::ok);
        names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    fn json<T: DeserializeOwned>(&self, path: &str) -> Option<T> {
        serde_json::from_slice(&self.read(path)?).ok()
    }

    fn read(&self, path: &str) -> Option<Vec<u8>> {
        let fd = open_regular_below(self.root.as_ref()?, path.as_bytes(), OFlags::NOFOLLOW)?;
        let mut bytes = Vec::new();
        File::from(fd).take(MAX_FILE).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }
}

/// Ids where there are no names.
fn place(owner: &Owner, named: Named) -> Place {
    let or = |name: String, id: Option<&str>| {
        if name.is_empty() { id.unwrap_or_default().into() } else { name.into() }
    };
    let short =
        owner.container.as_deref().map(|id| id.get(..SHORT_ID).filter(|_| id.len() == 64).unwrap_or(id));
    Place {
        container: or(named.container, short),
        pod: or(named.pod, owner.pod.as_deref()),
        namespace: named.namespace.into(),
        unit: owner.unit.as_deref().unwrap_or_default().into(),
    }
}

/// LXC and systemd-nspawn have names in place of ids.
fn of_name(name: &str) -> Named {
    Named { container: name.to_owned(), ..Named::default() }
}

/// `POD_NAMESPACE_CONTAINER-ID.log`; names of Kubernetes objects hold no `_` (RFC 1123).
fn of_log(file: &str) -> Option<(String, Named)> {
    let (names, id) = file.strip_suffix(".log")?.rsplit_once('-')?;
    let mut parts = names.splitn(3, '_').map(str::to_owned);
    let (pod, namespace, container) = (parts.next()?, parts.next()?, parts.next()?);
    Some((id.to_owned(), Named { container, pod, namespace }))
}

/// `NAMESPACE_POD_UID`.
fn of_pod_logs(directory: &str) -> Option<(String, Named)> {
    let mut parts = directory.splitn(3, '_').map(str::to_owned);
    let (namespace, pod, uid) = (parts.next()?, parts.next()?, parts.next()?);
    Some((uid, Named { container: String::new(), pod, namespace }))
}

/// Docker's `config.v2.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerContainer {
    #[serde(default)]
    name: String,
    #[serde(default)]
    config: DockerConfig,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerConfig {
    #[serde(default)]
    labels: Option<HashMap<String, String>>,
}

impl DockerContainer {
    /// Through Kubernetes the labels have the names that people know.
    fn named(self) -> Named {
        let mut labels = self.config.labels.unwrap_or_default();
        let mut label = |name: &str| labels.remove(&format!("io.kubernetes.{name}")).unwrap_or_default();
        let (pod, namespace) = (label("pod.name"), label("pod.namespace"));
        let container = Some(label("container.name")).filter(|name| !name.is_empty());
        let own = || self.name.trim_start_matches('/').to_owned();
        Named { container: container.unwrap_or_else(own), pod, namespace }
    }
}

/// The OCI runtime configuration of a running container.
#[derive(Deserialize)]
struct OciConfig {
    #[serde(default)]
    annotations: HashMap<String, String>,
}

impl OciConfig {
    /// Annotations of containerd's CRI plugin, of CRI-O, of nerdctl.
    fn named(mut self) -> Named {
        let mut first =
            |names: &[&str]| names.iter().find_map(|name| self.annotations.remove(*name)).unwrap_or_default();
        Named {
            container: first(&[
                "io.kubernetes.cri.container-name",
                "io.kubernetes.container.name",
                "nerdctl/name",
            ]),
            pod: first(&["io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"]),
            namespace: first(&["io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace"]),
        }
    }
}

/// A container in podman's storage.
#[derive(Deserialize)]
struct StoredContainer {
    id: String,
    #[serde(default)]
    names: Vec<String>,
}

#[cfg(test)]
mod tests;
