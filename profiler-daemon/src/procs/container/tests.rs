//! Cgroup paths as hosts have them, and who they belong to.

use super::*;

/// Stands for a container's id in the tables below: `{A}` and `{B}`.
const A: &str = "3f29ab0e9e4c0dd6c5c9a7d2f0b1c8e7a6d5f4e3b2a190817263544536271809";
const B: &str = "b0b1c2d3e4f5061728394a5b6c7d8e9f0a1b2c3d4e5f60718293a4b5c6d7e8f9";
const UID: &str = "2b801b7a-5266-4386-864e-45ed71136371";

/// Path, container, pod, unit; `""` for none.
const PATHS: &[(&str, &str, &str, &str)] = &[
    // Nothing to tell.
    ("", "", "", ""),
    ("/", "", "", ""),
    ("/../..", "", "", ""),
    ("/init", "", "", ""),
    // systemd.
    ("/init.scope", "", "", "init.scope"),
    ("/system.slice/nginx.service", "", "", "nginx.service"),
    ("/system.slice/system-getty.slice/getty@tty1.service", "", "", "getty@tty1.service"),
    (
        "/system.slice/system-postgresql.slice/postgresql@15-main.service",
        "",
        "",
        "postgresql@15-main.service",
    ),
    ("/system.slice/containerd.service", "", "", "containerd.service"),
    ("/system.slice/systemd-udevd.service/udev", "", "", "systemd-udevd.service"),
    ("/user.slice/user-1000.slice/session-3.scope", "", "", "session-3.scope"),
    ("/user.slice/user-1000.slice/user@1000.service/init.scope", "", "", "init.scope"),
    (
        r"/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome-org.gnome.Terminal\x2d42.scope",
        "",
        "",
        r"app-gnome-org.gnome.Terminal\x2d42.scope",
    ),
    // Docker: cgroupfs and systemd drivers, rootless, in a group of its own, docker in docker.
    ("/docker/{A}", "{A}", "", ""),
    ("/docker/{A}/init", "{A}", "", ""),
    ("/system.slice/docker-{A}.scope", "{A}", "", "docker-{A}.scope"),
    ("/system.slice/docker.service/docker/{A}", "{A}", "", "docker.service"),
    (
        "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{A}.scope",
        "{A}",
        "",
        "docker-{A}.scope",
    ),
    ("/actions_job/{A}", "{A}", "", ""),
    ("/docker/{A}/docker/{B}", "{B}", "", ""),
    ("/docker/{A}/system.slice/nginx.service", "{A}", "", "nginx.service"),
    ("/../{A}", "{A}", "", ""),
    // AWS ECS: on EC2, and on Fargate.
    ("/ecs/4c1ab0d4a2f54a5bb1b53c5a3b9a3f60/{A}", "{A}", "", ""),
    (
        "/ecs/4c1ab0d4a2f54a5bb1b53c5a3b9a3f60/4c1ab0d4a2f54a5bb1b53c5a3b9a3f60-2532057544",
        "4c1ab0d4a2f54a5bb1b53c5a3b9a3f60-2532057544",
        "",
        "",
    ),
    // containerd without Kubernetes.
    ("/default/{A}", "{A}", "", ""),
    ("/system.slice/nerdctl-{A}.scope", "{A}", "", "nerdctl-{A}.scope"),
    (
        "/user.slice/user-1000.slice/user@1000.service/user.slice/nerdctl-{A}.scope",
        "{A}",
        "",
        "nerdctl-{A}.scope",
    ),
    // Kubernetes, cgroupfs driver, each QoS class; static pods have a hash as uid.
    ("/kubepods/pod{U}/{A}", "{A}", "{U}", ""),
    ("/kubepods/burstable/pod{U}/{A}", "{A}", "{U}", ""),
    ("/kubepods/besteffort/pod{U}/{A}", "{A}", "{U}", ""),
    (
        "/kubepods/burstable/pod9fd5d2b2f4d6e2a1f3e4c5b6a7988776/{A}",
        "{A}",
        "9fd5d2b2f4d6e2a1f3e4c5b6a7988776",
        "",
    ),
    ("/kubepods/besteffort/pod{U}/crio-{A}", "{A}", "{U}", ""),
    ("/kubepods/besteffort/pod{U}/crio-conmon-{A}", "", "{U}", ""),
    ("/kubepods/burstable/pod{U}", "", "{U}", ""),
    // Kubernetes, systemd driver.
    (
        "/kubepods.slice/kubepods-pod{u}.slice/cri-containerd-{A}.scope",
        "{A}",
        "{U}",
        "cri-containerd-{A}.scope",
    ),
    (
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{u}.slice/cri-containerd-{A}.scope",
        "{A}",
        "{U}",
        "cri-containerd-{A}.scope",
    ),
    (
        "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{u}.slice/crio-{A}.scope",
        "{A}",
        "{U}",
        "crio-{A}.scope",
    ),
    (
        "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{u}.slice/crio-{A}.scope/container",
        "{A}",
        "{U}",
        "crio-{A}.scope",
    ),
    (
        "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{u}.slice/crio-conmon-{A}.scope",
        "",
        "{U}",
        "crio-conmon-{A}.scope",
    ),
    (
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{u}.slice/docker-{A}.scope",
        "{A}",
        "{U}",
        "docker-{A}.scope",
    ),
    (
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod9fd5d2b2f4d6e2a1f3e4c5b6a7988776.slice/{A}.scope",
        "{A}",
        "9fd5d2b2f4d6e2a1f3e4c5b6a7988776",
        "{A}.scope",
    ),
    // containerd told to use systemd while runc uses cgroupfs.
    (
        "/system.slice/containerd.service/kubepods-burstable-pod{u}.slice:cri-containerd:{A}",
        "{A}",
        "{U}",
        "containerd.service",
    ),
    // kind: a node that is a container.
    ("/docker/{A}/kubelet/kubepods/burstable/pod{U}/{B}", "{B}", "{U}", ""),
    (
        "/docker/{A}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/\
         kubelet-kubepods-burstable-pod{u}.slice/cri-containerd-{B}.scope",
        "{B}",
        "{U}",
        "cri-containerd-{B}.scope",
    ),
    // As a process in its own cgroup namespace sees its neighbours.
    ("/../../pod{U}/{A}", "{A}", "{U}", ""),
    (
        "/../../kubepods-burstable-pod{u}.slice/cri-containerd-{A}.scope",
        "{A}",
        "{U}",
        "cri-containerd-{A}.scope",
    ),
    // podman: root, rootless, cgroupfs, in a pod, its monitor.
    ("/machine.slice/libpod-{A}.scope/container", "{A}", "", "libpod-{A}.scope"),
    ("/machine.slice/libpod-conmon-{A}.scope", "", "", "libpod-conmon-{A}.scope"),
    (
        "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{A}.scope/container",
        "{A}",
        "",
        "libpod-{A}.scope",
    ),
    ("/libpod_parent/libpod-{A}", "{A}", "", ""),
    ("/libpod_parent/libpod-{A}/ctr", "{A}", "", ""),
    ("/machine.slice/machine-libpod_pod_{B}.slice/libpod-{A}.scope", "{A}", "{B}", "libpod-{A}.scope"),
    // podman through Quadlet: the container is in its service, beside its monitor.
    ("/system.slice/web.service/libpod-payload-{A}", "{A}", "", "web.service"),
    ("/system.slice/web.service/supervisor", "", "", "web.service"),
    // LXC, systemd-nspawn, virtual machines.
    ("/lxc/web/system.slice/nginx.service", "web", "", "nginx.service"),
    ("/lxc.payload.web-1/init.scope", "web-1", "", "init.scope"),
    ("/lxc.monitor.web-1", "", "", ""),
    (
        r"/machine.slice/systemd-nspawn@web\x2d1.service/payload",
        "web-1",
        "",
        r"systemd-nspawn@web\x2d1.service",
    ),
    ("/machine.slice/machine-debian.scope", "debian", "", "machine-debian.scope"),
    (r"/machine.slice/machine-qemu\x2d1\x2dvm.scope", "", "", r"machine-qemu\x2d1\x2dvm.scope"),
    // Names that only look like it.
    ("/docker/{A}0", "", "", ""),
    ("/docker/short", "", "", ""),
    ("/system.slice/docker-registry.service", "", "", "docker-registry.service"),
    ("/podcasts/abc", "", "", ""),
    ("/system.slice/podman.service", "", "", "podman.service"),
    ("/pod2b801b7a_5266_4386/x", "", "", ""),
];

#[test]
fn paths_of_all_runtimes() {
    let fill = |text: &str| {
        text.replace("{A}", A).replace("{B}", B).replace("{U}", UID).replace("{u}", &UID.replace('-', "_"))
    };
    for &(path, container, pod, unit) in PATHS {
        let owner = Owner::of(&fill(path));
        let got = [owner.container, owner.pod, owner.unit].map(Option::unwrap_or_default);
        assert_eq!(got, [container, pod, unit].map(fill), "{path}");
    }
}

#[test]
fn rootless_containers_name_their_user() {
    let of = |path: &str| Owner::of(path).user;
    assert_eq!(of("/user.slice/user-1000.slice/user@1000.service/user.slice/x.scope"), Some(1000));
    assert_eq!(of("/user.slice/user-.slice/session-1.scope"), None);
    assert_eq!(of("/system.slice/nginx.service"), None);
}

#[test]
fn of_several_hierarchies_the_one_with_the_container_wins() {
    // Docker with the cgroupfs driver on a hybrid host: v2 only has the shim's service.
    let hybrid = format!(
        "12:cpu,cpuacct:/docker/{A}\n1:name=systemd:/docker/{A}\n0::/system.slice/containerd.service\n"
    );
    assert_eq!(Owner::of_file(&hybrid).container.as_deref(), Some(A));
    let v2 = Owner::of_file("0::/system.slice/nginx.service\n");
    assert_eq!((v2.container, v2.unit.as_deref()), (None, Some("nginx.service")));
    let v1 = "4:memory:/system.slice\n1:name=systemd:/system.slice/ssh.service\n";
    assert_eq!(Owner::of_file(v1).unit.as_deref(), Some("ssh.service"));
    let empty_v2 = "1:name=systemd:/system.slice/ssh.service\n0::/\n";
    assert_eq!(Owner::of_file(empty_v2).unit.as_deref(), Some("ssh.service"));
    assert_eq!(Owner::of_file(""), Owner::default());
    assert_eq!(Owner::of_file("nonsense\n:::\n"), Owner::default());
}

#[test]
fn a_user_cannot_make_the_directory_of_somebody_elses_container() {
    let id = "a".repeat(64);
    let of = |rest: &str| {
        let rest = rest.replace("ID", &id);
        Owner::of(&format!("/user.slice/user-1000.slice/user@1000.service/{rest}"))
    };
    let foreign = [
        "cri-containerd-ID.scope",
        "crio-ID.scope",
        "ID",
        "lxc/payments",
        "systemd-nspawn@payments.service",
        "kubepods-pod11111111_2222_3333_4444_555555555555.slice/cri-containerd-ID.scope",
    ];
    for path in foreign {
        let owner = of(path);
        assert_eq!((owner.container, owner.pod, owner.user), (None, None, Some(1000)), "{path}");
    }
    assert_eq!(of("user.slice/libpod-ID.scope/container").container, Some(id.clone()));
    assert_eq!(of("user.slice/user-libpod_pod_ID.slice/libpod-ID.scope").pod, Some(id.clone()));
    let root = Owner::of(&format!("/user.slice/user-0.slice/user@0.service/cri-containerd-{id}.scope"));
    assert_eq!(root.container, Some(id));
}
