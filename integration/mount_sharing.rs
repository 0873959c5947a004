//! Who sees whose mounts: `linux.rootfsPropagation` and the propagation of single mounts, as Kubernetes uses them, from
//! both sides; and whose ids a mount shows.

use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use serde_json::{Value, json};

use super::bind_flags::with_user_namespace;
use super::mounts::find;
use super::support::husk::Running;
use super::support::{Bundle, Need, Scene, Test, Who, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(bidirectional).root().needs(Need::NotCrun).needs(Need::Busybox),
        test!(host_to_container).root().needs(Need::NotCrun).needs(Need::Busybox),
        test!(nothing_reaches_the_host_unasked).root().needs(Need::Husk).needs(Need::Busybox),
        test!(a_mount_keeps_its_own_propagation).root().needs(Need::NotRunc),
        test!(maps_of_the_containers_user_namespace).root().needs(Need::Husk).needs(Need::Kernel(5, 19)),
        test!(maps_of_a_user_namespace_that_is_joined).root().needs(Need::Husk).needs(Need::Kernel(5, 19)),
        test!(maps_in_an_option).root().needs(Need::Husk).needs(Need::Kernel(5, 19)),
        test!(maps_of_mounts_below).root().needs(Need::Husk).needs(Need::Kernel(5, 19)),
        test!(maps_in_the_callers_user_namespace).user().needs(Need::Husk).needs(Need::Kernel(6, 3)),
        test!(maps_without_rights).users().needs(Need::Husk),
        test!(closed_sources_are_opened_for_the_container).root().needs(Need::Husk),
    ]
}

/// A shared mount of the host's, with the directory that containers are told of in it.
struct Shared(PathBuf);

impl Shared {
    fn new(scene: &Scene) -> Self {
        let place = scene.tree("shared", &[]);
        rustix::mount::mount("tmpfs", &place, "tmpfs", MountFlags::empty(), c"mode=777").unwrap();
        rustix::mount::mount_change(&place, MountPropagationFlags::SHARED).unwrap();
        for name in ["volume", "volume/inner", "volume/outer"] {
            std::fs::create_dir(place.join(name)).unwrap();
        }
        Self(place)
    }

    /// What is mounted below it on the host.
    fn below(&self) -> Vec<String> {
        let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let below = format!("{}/", self.0.display());
        let targets = text.lines().filter_map(|line| line.split(' ').nth(4));
        targets.filter_map(|target| target.strip_prefix(&below)).map(str::to_owned).collect()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// A container that mounts a tmpfs in the volume, says so, and waits to be asked what it sees.
fn mounting<'a>(scene: &'a Scene, root: Option<&str>, option: &str, volume: &Path) -> Bundle<'a> {
    let mut bundle = scene.bundle();
    bundle.mount("/tmp", "bind", volume, &["rbind", option]);
    if let Some(word) = root {
        bundle.config["linux"]["rootfsPropagation"] = json!(word);
    }
    for set in ["bounding", "effective", "permitted"] {
        bundle.config["process"]["capabilities"][set] = json!(["CAP_SYS_ADMIN"]);
    }
    bundle.config["process"]["capabilities"]["ambient"] = json!([]);
    let script =
        "mount -t tmpfs none /tmp/inner && echo mounted; read line; ls /tmp/outer; read line; umount /tmp/inner";
    bundle.args(["/bin/sh", "-c", script]);
    bundle
}

fn start<'a>(bundle: &Bundle<'a>) -> Running<'a> {
    let mut running = bundle.command().start();
    assert_eq!(running.line(), "mounted");
    running
}

/// Mounts a tmpfs with a file in the volume on the host.
fn mount_outside(shared: &Shared) {
    let place = shared.0.join("volume/outer");
    rustix::mount::mount("tmpfs", &place, "tmpfs", MountFlags::empty(), None).unwrap();
    std::fs::create_dir(place.join("seen")).unwrap();
}

/// What a CSI driver in a container mounts, the kubelet and other containers see: and it goes when the container unmounts
/// it.
fn bidirectional(scene: &Scene) {
    for root in ["rshared", "shared"] {
        let shared = Shared::new(scene);
        let bundle = mounting(scene, Some(root), "rshared", &shared.0.join("volume"));
        let mut running = start(&bundle);
        assert_eq!(shared.below(), ["volume/inner"], "{root}");
        mount_outside(&shared);
        running.write("\n");
        assert_eq!(running.line(), "seen", "{root}");
        running.write("\n");
        running.finish().success();
        assert_eq!(shared.below(), ["volume/outer"], "{root}: nothing else of the container's");
    }
}

fn host_to_container(scene: &Scene) {
    let shared = Shared::new(scene);
    let bundle = mounting(scene, Some("rslave"), "rslave", &shared.0.join("volume"));
    let mut running = start(&bundle);
    assert_eq!(shared.below(), [""; 0]);
    mount_outside(&shared);
    running.write("\n");
    assert_eq!(running.line(), "seen");
    running.write("\n");
    running.finish().success();
}

/// A root file system on a shared mount, as on every host with systemd; with a user namespace, too, where the parent may
/// have to open the tree.
fn nothing_reaches_the_host_unasked(scene: &Scene) {
    for (word, in_user_namespace, closed) in [
        (None, false, false),
        (Some("shared"), false, false),
        (Some("unbindable"), false, false),
        (None, true, true),
        (Some("shared"), true, true),
    ] {
        let shared = Shared::new(scene);
        let closed_directory = shared.0.join("closed");
        std::fs::create_dir(&closed_directory).unwrap();
        let mut bundle = scene.bundle();
        let moved = if closed { closed_directory.join("rootfs") } else { shared.0.join("rootfs") };
        let copied = scene.program("/bin/cp").arg("-a").arg(bundle.rootfs("/")).arg(&moved).run();
        copied.success();
        if closed {
            std::fs::set_permissions(&closed_directory, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        }
        bundle.config["root"]["path"] = json!(moved);
        bundle.config["root"]["readonly"] = json!(false);
        bundle.mount("/tmp", "tmpfs", "tmpfs", &[]);
        bundle.mount("/var", "bind", closed_directory.parent().unwrap().join("volume"), &["rbind"]);
        bundle.mount("/var/inner", "tmpfs", "tmpfs", &[]);
        if word.is_some_and(|word| word.ends_with("shared")) {
            // Asked for: what is mounted in a bind of a shared mount is shared.
            bundle.without_mount("/var/inner");
        }
        if let Some(word) = word {
            bundle.config["linux"]["rootfsPropagation"] = json!(word);
        }
        if in_user_namespace {
            with_user_namespace(&mut bundle);
        }
        bundle.args(["/bin/sh", "-c", "echo mounted; read line"]);
        let mut running = start(&bundle);
        let below = shared.below();
        running.write("\n");
        running.finish().success();
        assert_eq!(below, [""; 0], "{word:?}, user namespace {in_user_namespace}, closed {closed}");
    }
}

/// The propagation of the root is not that of the mounts in it.
fn a_mount_keeps_its_own_propagation(scene: &Scene) {
    for (root, option, prefix) in [
        ("rprivate", "rshared", "shared:"),
        ("private", "runbindable", "unbindable"),
        ("rslave", "rshared", "shared:"),
        ("slave", "rslave", "master:"),
    ] {
        let shared = Shared::new(scene);
        let mut bundle = scene.bundle();
        bundle.config["linux"]["rootfsPropagation"] = json!(root);
        bundle.mount("/tmp", "bind", &shared.0, &["rbind", option]);
        let report = bundle.report();
        let tags = find(&report, "/tmp")["propagation"].as_array().unwrap();
        let found = tags.iter().any(|tag: &Value| tag.as_str().unwrap().starts_with(prefix));
        assert!(found, "{root}, {option}: {tags:?}");
    }
}

/// The owner that a container sees of a file, which belongs to 100:211 on the host.
fn owner(scene: &Scene, change: impl FnOnce(&mut Bundle<'_>, &Path)) -> (Value, Value) {
    let source = scene.tree("source", &[("inside", "")]);
    std::os::unix::fs::chown(source.join("inside"), Some(100), Some(211)).unwrap();
    let mut bundle = scene.bundle();
    bundle.probe(["--stat", "/tmp/inside"]);
    change(&mut bundle, &source);
    let file = bundle.report()["stats"]["/tmp/inside"].clone();
    (file["uid"].clone(), file["gid"].clone())
}

const SEEN: (u32, u32) = (100, 211);

fn as_json((uid, gid): (u32, u32)) -> (Value, Value) {
    (json!(uid), json!(gid))
}

/// `idmap` alone: files show the owners that they have on the host.
fn maps_of_the_containers_user_namespace(scene: &Scene) {
    for option in ["idmap", "ridmap"] {
        let seen = owner(scene, |bundle, source| {
            with_user_namespace(bundle);
            bundle.mount("/tmp", "bind", source, &["rbind", option]);
        });
        assert_eq!(seen, as_json(SEEN), "{option}");
    }
    let unmapped = owner(scene, |bundle, source| {
        with_user_namespace(bundle);
        bundle.mount("/tmp", "bind", source, &["rbind"]);
    });
    assert_eq!(unmapped, as_json((65_534, 65_534)));
    let mut bundle = scene.bundle();
    bundle.mount("/tmp", "bind", scene.path(), &["rbind", "idmap"]);
    bundle.run().exits_with(1).says("id-mapped mounts must have both uid and gid mappings specified");
    let mut bundle = scene.bundle();
    bundle.mount("/tmp", "tmpfs", "tmpfs", &["idmap"]);
    bundle.run().exits_with(1).says("id-mapped mounts are only supported for bind-mounts");
}

fn maps_of_a_user_namespace_that_is_joined(scene: &Scene) {
    let mut first = scene.bundle();
    with_user_namespace(&mut first);
    first.args(["/probe", "--report", "--catch"]);
    let mut running = first.command().start();
    running.report();
    let state = scene.runtime().args(["state", &first.id]).run().success();
    let state: Value = serde_json::from_str(&state.stdout).unwrap();
    let namespace = Path::new("/proc").join(state["pid"].to_string()).join("ns/user");
    let seen = owner(scene, |bundle, source| {
        bundle.namespace("user", Some(&namespace));
        bundle.mount("/tmp", "bind", source, &["rbind", "idmap"]);
    });
    scene.runtime().args(["kill", &first.id, "KILL"]).run().success();
    running.finish();
    assert_eq!(seen, as_json(SEEN));
}

/// crun's grammar, with and without `@`.
fn maps_in_an_option(scene: &Scene) {
    for (option, user_namespace, expected) in [
        ("idmap=uids=0-1000-200;gids=0-2000-300", false, (1100, 2211)),
        ("ridmap=uids=100-7-1;gids=0-0-1#211-8-1", false, (7, 8)),
        ("idmap=uids=@100-5-1;gids=@211-6-1", true, (5, 6)),
        ("idmap=uids=100-100007-1;gids=@211-6-1", true, (7, 6)),
    ] {
        let seen = owner(scene, |bundle, source| {
            if user_namespace {
                with_user_namespace(bundle);
            }
            bundle.mount("/tmp", "bind", source, &["bind", option]);
        });
        assert_eq!(seen, as_json(expected), "{option}");
    }
    let mut bundle = scene.bundle();
    bundle.mount("/tmp", "bind", scene.path(), &["bind", "idmap=uids=@0-0-1;gids=@0-0-1"]);
    bundle.run().exits_with(1).says("specified a relative mapping without user namespace mappings");
}

/// `idmap` is for one mount, `ridmap` for those below, too.
fn maps_of_mounts_below(scene: &Scene) {
    for (option, inner) in [("idmap", 0), ("ridmap", 4321)] {
        let source = scene.tree("source", &[("sub/x", "")]);
        rustix::mount::mount("tmpfs", source.join("sub"), "tmpfs", MountFlags::empty(), None).unwrap();
        let mut bundle = scene.bundle();
        bundle.mount("/tmp", "bind", &source, &["rbind", option]).probe(["--stat", "/tmp", "--stat", "/tmp/sub"]);
        let map = json!([{ "containerID": 0, "hostID": 4321, "size": 1 }]);
        let mount = bundle.config["mounts"].as_array_mut().unwrap().last_mut().unwrap();
        mount["uidMappings"] = map.clone();
        mount["gidMappings"] = map;
        let outcome = bundle.run();
        rustix::mount::unmount(source.join("sub"), UnmountFlags::DETACH).unwrap();
        let stats = outcome.success().report()["stats"].clone();
        assert_eq!((&stats["/tmp"]["uid"], &stats["/tmp/sub"]["uid"]), (&json!(4321), &json!(inner)), "{option}");
    }
}

/// Where the kernel lets an ordinary user: on a file system that was mounted in a user namespace of its own.
fn maps_in_the_callers_user_namespace(scene: &Scene) {
    let source = scene.tree("source", &[]);
    let mut bundle = scene.bundle();
    bundle.mount("/tmp", "bind", &source, &["bind", "idmap=uids=0-0-1;gids=0-0-1"]).probe(["--stat", "/tmp/inside"]);
    // Already root of a user namespace: the container needs none of its own.
    bundle.without_namespace("user");
    bundle.config["linux"].as_object_mut().unwrap().remove("uidMappings");
    bundle.config["linux"].as_object_mut().unwrap().remove("gidMappings");
    bundle.without_mount("/sys").without_mount("/sys/fs/cgroup").without_mount("/dev/pts");
    bundle.write();
    let script = r#"mount -t tmpfs tmpfs "$1" && echo > "$1/inside" && shift && exec "$@""#;
    let mut command = scene.program("/usr/bin/unshare");
    command.args(["--user", "--map-root-user", "--mount", "--net", "sh", "-c", script, "sh"]).arg(&source);
    command.arg(&super::support::suite::kit().runtime).arg("--root").arg(scene.state_root());
    command.args(["--rootless", "true", "run", "--bundle"]).arg(&bundle.directory).arg(&bundle.id);
    let report = command.run().success().report();
    assert_eq!(report["stats"]["/tmp/inside"]["uid"], 0);
}

fn maps_without_rights(scene: &Scene) {
    let source = scene.tree("source", &[]);
    let mut bundle = scene.bundle();
    bundle.mount("/tmp", "bind", &source, &["bind", "idmap"]);
    bundle.run().exits_with(1).says("id-mapped mounts are not supported for rootless containers").says("EPERM");
}

/// A directory that the container's root may not pass, as volumes of root's lie in one.
fn closed_sources_are_opened_for_the_container(scene: &Scene) {
    assert_eq!(scene.who, Who::Root);
    let source = scene.tree("closed", &[("volume/inside", "bound")]);
    std::fs::set_permissions(&source, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let mut bundle = scene.bundle();
    with_user_namespace(&mut bundle);
    bundle.mount("/tmp", "bind", source.join("volume"), &["rbind", "ro"]).probe(["--read", "/tmp/inside"]);
    assert_eq!(bundle.report()["reads"]["/tmp/inside"], "bound");
}
