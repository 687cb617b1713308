//! Names found in a tree of files as the runtimes leave them.

use std::path::Path;

use super::*;

const A: &str = "3f29ab0e9e4c0dd6c5c9a7d2f0b1c8e7a6d5f4e3b2a190817263544536271809";
const B: &str = "b0b1c2d3e4f5061728394a5b6c7d8e9f0a1b2c3d4e5f60718293a4b5c6d7e8f9";
const UID: &str = "2b801b7a-5266-4386-864e-45ed71136371";

struct Host {
    root: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    fn write(&self, path: &str, text: &str) -> &Self {
        let path = self.root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    fn names(&self) -> Names {
        Names::below(fs::open(self.root.path(), OFlags::PATH, Mode::empty()).ok())
    }

    /// Container, pod and namespace of a cgroup path.
    fn place(&self, path: &str) -> [String; 3] {
        texts(&self.names().place(&Owner::of(path), Instant::now()))
    }
}

fn texts(place: &Place) -> [String; 3] {
    [&place.container, &place.pod, &place.namespace].map(|text| text.to_string())
}

#[test]
fn kubelet_names_containers_and_pods() {
    let host = Host::new();
    let logs = host.root.path().join("var/log/containers");
    std::fs::create_dir_all(&logs).unwrap();
    // The links dangle where only they are mounted.
    std::os::unix::fs::symlink("/gone", logs.join(format!("web-7d4_shop_nginx-proxy-{A}.log"))).unwrap();
    std::fs::write(logs.join("nonsense"), "").unwrap();
    std::fs::create_dir_all(host.root.path().join(format!("var/log/pods/shop_web-7d4_{UID}/nginx"))).unwrap();
    let place = |id: &str| host.place(&format!("/kubepods/burstable/pod{UID}/{id}"));
    assert_eq!(place(A), ["nginx-proxy", "web-7d4", "shop"]);
    // The pod's own sandbox has no log, but its pod has.
    assert_eq!(place(B), [&B[..12], "web-7d4", "shop"]);
}

#[test]
fn runtimes_name_their_containers() {
    let host = Host::new();
    host.write(
        &format!("var/lib/docker/containers/{A}/config.v2.json"),
        r#"{"Name": "/web", "Config": {"Labels": null}, "State": {}}"#,
    );
    assert_eq!(host.place(&format!("/docker/{A}")), ["web", "", ""]);
    host.write(
        &format!("var/lib/docker/containers/{A}/config.v2.json"),
        r#"{"Name": "/k8s_x", "Config": {"Labels": {"io.kubernetes.container.name": "web",
            "io.kubernetes.pod.name": "web-0", "io.kubernetes.pod.namespace": "shop"}}}"#,
    );
    assert_eq!(host.place(&format!("/docker/{A}")), ["web", "web-0", "shop"]);

    let host = Host::new();
    host.write(
        &format!("run/containerd/io.containerd.runtime.v2.task/k8s.io/{A}/config.json"),
        r#"{"ociVersion": "1.1.0", "annotations": {"io.kubernetes.cri.container-name": "db",
            "io.kubernetes.cri.sandbox-name": "db-0", "io.kubernetes.cri.sandbox-namespace": "shop"}}"#,
    );
    assert_eq!(host.place(&format!("/kubepods/pod{UID}/{A}")), ["db", "db-0", "shop"]);

    let host = Host::new();
    let list = format!(r#"[{{"id": "{B}", "names": []}}, {{"id": "{A}", "names": ["cache"]}}]"#);
    host.write("var/lib/containers/storage/overlay-containers/containers.json", &list);
    assert_eq!(host.place(&format!("/machine.slice/libpod-{A}.scope/container")), ["cache", "", ""]);
    assert_eq!(host.place(&format!("/machine.slice/libpod-{B}.scope")), [&B[..12], "", ""]);

    // Rootless: the list in the user's home. Nobody else's is asked.
    let host = Host::new();
    host.write("etc/passwd", "root:x:0:0::/root:/bin/sh\nme:x:1000:1000::/users/me:/bin/sh\n");
    host.write("users/me/.local/share/containers/storage/overlay-containers/containers.json", &list);
    let rootless =
        |user| format!("/user.slice/user-{user}.slice/user@{user}.service/user.slice/libpod-{A}.scope");
    assert_eq!(host.place(&rootless(1000)), ["cache", "", ""]);
    assert_eq!(host.place(&rootless(1001)), [&A[..12], "", ""]);
    // A directory that a user made with the id of a stranger's container gets no name of the system's.
    host.write(&format!("var/lib/docker/containers/{B}/config.v2.json"), r#"{"Name": "/payments"}"#);
    let foreign = format!("/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{B}.scope");
    assert_eq!(host.place(&foreign), [&B[..12], "", ""]);
    assert_eq!(host.place(&format!("/docker/{B}")), ["payments", "", ""]);
    assert_eq!(host.place("/lxc.payload.web-1/init.scope"), ["web-1", "", ""]);
}

#[test]
fn what_was_not_found_is_asked_again_and_what_was_is_not() {
    let host = Host::new();
    let mut names = host.names();
    let owner = Owner::of(&format!("/docker/{A}"));
    let begin = Instant::now();
    let first = names.place(&owner, begin);
    assert_eq!(&*first.container, &A[..12]);
    let file = format!("var/lib/docker/containers/{A}/config.v2.json");
    host.write(&file, r#"{"Name": "/web"}"#);
    assert!(Arc::ptr_eq(&first, &names.place(&owner, begin + ASK_AGAIN / 2)), "too early");
    let later = names.place(&owner, begin + ASK_AGAIN);
    assert_eq!(&*later.container, "web");
    // A container that is gone keeps its name.
    std::fs::remove_file(host.root.path().join(&file)).unwrap();
    assert!(Arc::ptr_eq(&later, &names.place(&owner, begin + ASK_AGAIN_MAX * 2)));
}

#[test]
fn hostile_files_give_no_names_and_no_harm() {
    let host = Host::new();
    let path = format!("var/lib/docker/containers/{A}/config.v2.json");
    for text in ["", "[]", "{\"Name\": 7}", "{\"Name\": \"/\"}", "\u{0}"] {
        host.write(&path, text);
        assert_eq!(host.place(&format!("/docker/{A}"))[0], A[..12], "{text:?}");
    }
    // A link does not lead out of the root; a FIFO does not hang.
    let file = host.root.path().join(&path);
    std::fs::remove_file(&file).unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("x"), r#"{"Name": "/stolen"}"#).unwrap();
    std::os::unix::fs::symlink(outside.path().join("x"), &file).unwrap();
    assert_eq!(host.place(&format!("/docker/{A}"))[0], A[..12]);
    std::fs::remove_file(&file).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &file, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
    assert_eq!(host.place(&format!("/docker/{A}"))[0], A[..12]);
    assert!(!Path::new(&file).is_file());
    assert_eq!(
        Names::below(None).place(&Owner::of(&format!("/docker/{A}")), Instant::now()).container[..],
        A[..12]
    );
}

#[test]
fn cgroups_are_found_by_the_names_of_what_runs_in_them() {
    use crate::procs::find::{NamedPlace, search_place};
    let (host, cgroups) = (Host::new(), tempfile::tempdir().unwrap());
    let other = UID.replace("2b80", "3c91");
    for (pod, uid, id) in [("web-7d4", UID, A), ("web-9x9", &*other, B)] {
        host.write(&format!("var/log/containers/{pod}_shop_nginx-{id}.log"), "");
        host.write(&format!("var/log/pods/shop_{pod}_{uid}/nginx/0.log"), "");
        std::fs::create_dir_all(cgroups.path().join(format!("kubepods/pod{uid}/{id}"))).unwrap();
    }
    let find = |wanted| search_place(cgroups.path(), &mut host.names(), wanted, 3).unwrap();
    let pod = NamedPlace { pod: Some("web-7d4"), ..NamedPlace::default() };
    assert_eq!(find(pod), [format!("/kubepods/pod{UID}")]);
    assert!(find(NamedPlace { namespace: Some("bank"), ..pod }).is_empty());
    let container = NamedPlace { container: Some("nginx"), ..NamedPlace::default() };
    assert_eq!(find(container).len(), 2, "two pods have one");
    let one = NamedPlace { pod: Some("web-9x9"), namespace: Some("shop"), ..container };
    assert_eq!(find(one), [format!("/kubepods/pod{other}/{B}")]);
}

#[test]
fn a_users_list_is_read_no_more_often_than_others() {
    let host = Host::new();
    host.write("etc/passwd", "me:x:1000:1000::/users/me:/bin/sh\n");
    let list = "users/me/.local/share/containers/storage/overlay-containers/containers.json";
    host.write(list, &format!(r#"[{{"id": "{A}", "names": ["cache"]}}]"#));
    let owner = |id| {
        Owner::of(&format!("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{id}.scope"))
    };
    let (mut names, begin) = (host.names(), Instant::now());
    assert_eq!(&*names.place(&owner(A), begin).container, "cache");
    host.write(list, &format!(r#"[{{"id": "{B}", "names": ["web"]}}]"#));
    assert_eq!(&*names.place(&owner(B), begin + LIST_EVERY / 2).container, &B[..12], "too early");
    assert_eq!(&*names.place(&owner(B), begin + 2 * LIST_EVERY).container, "web");
}
