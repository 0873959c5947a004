//! Advisories about cgroups, one test each: a container in the wrong one, paths that climb out of it, devices that should
//! be closed. (That the files are out of a container's reach is in `security`.)

use std::path::{Path, PathBuf};

use serde_json::json;

use super::support::husk::read_host;
use super::support::leak::{cgroup_v1, cgroup_v2};
use super::support::{Bundle, Guest, Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(a_process_in_another_cgroup_is_not_started).root().needs(Need::Husk),
        test!(a_process_that_joins_is_where_the_container_is).root(),
        test!(subgroups_do_not_climb).root().needs(Need::Husk),
        test!(a_subgroup_of_systemd_does_not_climb).root().needs(Need::Husk),
        test!(annotations_that_place_the_container_are_not_passed_over).root().needs(Need::Husk),
        test!(devices_are_closed_by_default).root(),
        test!(a_used_cgroup_is_not_shared).root().needs(Need::Husk),
    ]
}

/// A cgroup of the test's own, gone with it.
struct Made(PathBuf);

impl Made {
    fn new(path: PathBuf) -> Self {
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        _ = std::fs::remove_dir(&self.0);
    }
}

/// Hierarchies in which a container certainly has a cgroup.
fn hierarchies() -> Vec<PathBuf> {
    ["pids", "memory"].iter().filter_map(|name| cgroup_v1(name)).chain(cgroup_v2()).collect()
}

/// A16, CVE-2025-47291 (containerd), CVE-2023-6476 (cri-o): a container without an error, in a cgroup without its limits.
///
/// Where the path of its cgroup shows another one, entering succeeds, and only a look at the process tells.
fn a_process_in_another_cgroup_is_not_started(scene: &Scene) {
    let hierarchies = hierarchies();
    assert!(!hierarchies.is_empty());
    for hierarchy in hierarchies {
        let bundle = scene.bundle();
        let own = Made::new(hierarchy.join(&bundle.id));
        let other = Made::new(hierarchy.join(format!("{}-other", bundle.id)));
        rustix::mount::mount_bind(&other.0, &own.0).unwrap();
        let outcome = bundle.run();
        rustix::mount::unmount(&own.0, rustix::mount::UnmountFlags::DETACH).unwrap();
        outcome.exits_with(1).says("the process is in cgroup").says(&format!("instead of /{}", bundle.id));
    }
}

/// A16 for `exec`: the second process has the limits of the first.
fn a_process_that_joins_is_where_the_container_is(scene: &Scene) {
    let guest = Guest::start(scene, scene.bundle());
    let report = guest.report(&[], &[]);
    let first = read_host(format!("/proc/{}/cgroup", guest.pid()));
    for (controllers, path) in first.lines().map(fields) {
        if cgroup_v1(controllers.split(',').next().unwrap()).is_some() || controllers.is_empty() {
            let joined = report["cgroup"].as_str().unwrap().lines().map(fields).find(|line| line.0 == controllers);
            // In the container's cgroup namespace, where it has one, its own cgroup is the top.
            assert!(
                joined.is_some_and(|line| line.1 == path || line.1 == "/"),
                "{controllers}: {joined:?}, not {path}"
            );
        }
    }
}

fn fields(line: &str) -> (&str, &str) {
    line.split_once(':').unwrap().1.split_once(':').unwrap()
}

/// A15, runc 1.5.2 and crun 1.28: `exec --cgroup` into a cgroup that is not the container's.
fn subgroups_do_not_climb(scene: &Scene) {
    let guest = Guest::start(scene, scene.bundle());
    let id = &guest.bundle.id;
    // One whose name begins as the container's does, beside it.
    let siblings: Vec<Made> =
        hierarchies().into_iter().map(|hierarchy| Made::new(hierarchy.join(format!("{id}-sibling")))).collect();
    let beside = format!("../{id}-sibling");
    for path in ["..", "a/../../b", "../", &beside, "pids:..", "a/../.."] {
        guest
            .exec(&["--cgroup", path], &["/probe"])
            .run()
            .exits_with(255)
            .says_one_of(&["climbs", "adding pid to cgroup"]);
    }
    for path in ["-sibling", "/no/such", "a"] {
        guest.exec(&["--cgroup", path], &["/probe"]).run().exits_with(255).says("adding pid to cgroup");
    }
    for sibling in &siblings {
        assert_eq!(read_host(sibling.0.join("cgroup.procs")), "", "{}", sibling.0.display());
    }
    // The container's own top is no climb.
    guest.exec(&["--cgroup", "/"], &["/probe", "--quiet"]).run().success();
}

/// A15, crun 1.29: an annotation that names a cgroup below the scope, and climbs out of it. Found before systemd is asked.
fn a_subgroup_of_systemd_does_not_climb(scene: &Scene) {
    for (path, subgroup, said) in [
        (":husk:x", "../other", "climbs with `..`"),
        (":husk:x", "a/../../b", "climbs with `..`"),
        (":husk:../../x", "a", "is not a name for a systemd unit"),
        ("../x.slice:husk:x", "a", "invalid slice name"),
        ("/absolute", "a", "slice:prefix:name"),
    ] {
        let mut bundle = scene.bundle();
        bundle.config["linux"]["cgroupsPath"] = json!(path);
        bundle.config["annotations"] = json!({ "run.oci.systemd.subgroup": subgroup });
        let directory = bundle.write().to_owned();
        let mut command = scene.runtime();
        command.args(["--systemd-cgroup", "run", "--bundle"]).arg(directory).arg(&bundle.id);
        command.run().exits_with(1).says(said);
    }
}

/// A15: what husk does not do is no reason to do something else.
fn annotations_that_place_the_container_are_not_passed_over(scene: &Scene) {
    for name in ["run.oci.delegate-cgroup", "run.oci.systemd.force_cgroup_v1"] {
        let mut bundle = scene.bundle();
        bundle.config["annotations"] = json!({ name: "../x" });
        bundle.run().exits_with(1).says(name);
    }
}

/// The device cgroup is closed to what nobody opened: without it `mknod` makes the host's disks readable. (A container
/// made without rules of its own, and one whose rules are all about something else.)
fn devices_are_closed_by_default(scene: &Scene) {
    for rules in [json!([]), json!([{ "allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw" }])] {
        let mut bundle: Bundle<'_> = scene.bundle();
        bundle.config["linux"]["resources"]["devices"] = rules;
        for set in ["bounding", "permitted", "effective"] {
            bundle.config["process"]["capabilities"][set] = json!(["CAP_MKNOD"]);
        }
        let guest = Guest::start(scene, bundle);
        let rootfs = PathBuf::from(format!("/proc/{}/root", guest.pid()));
        // Made from outside: what counts is who opens it. The numbers are those of /dev/mem and /dev/null.
        for (name, device) in [("mem", (1, 1)), ("null", (1, 3))] {
            make_node(&rootfs.join("dev").join(format!("test-{name}")), device);
        }
        let report = guest.report(&[], &["--try", "open:/dev/test-mem", "--try", "open:/dev/test-null"]);
        assert_eq!(report["tries"]["open:/dev/test-mem"], "EPERM");
        assert_eq!(report["tries"]["open:/dev/test-null"], "ok");
    }
}

fn make_node(path: &Path, (major, minor): (u32, u32)) {
    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
    mknodat(CWD, path, FileType::CharacterDevice, Mode::from_raw_mode(0o666), makedev(major, minor)).unwrap();
}

/// runc issue 3132: two containers that share a cgroup share their limits, and the end of one is the end of both.
fn a_used_cgroup_is_not_shared(scene: &Scene) {
    let guest = Guest::start(scene, scene.bundle());
    let mut second = scene.bundle();
    second.config["linux"]["cgroupsPath"] = json!(format!("/{}", guest.bundle.id));
    second.run().exits_with(1).says("container's cgroup is not empty");
    assert_eq!(guest.state()["status"], "running");
}
