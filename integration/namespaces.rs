//! Namespaces: made, left, joined.

use std::path::Path;

use serde_json::{Value, json};

use super::support::{Need, Scene, Test, Who, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(listed_ones_are_new).and_plain(),
        test!(unlisted_ones_are_the_callers).root(),
        test!(the_process_is_number_one).and_plain(),
        test!(joined_by_path).root(),
        test!(joined_cgroup_namespace_of_a_container).root(),
        test!(joined_pid_namespace_of_a_container).root(),
        test!(user_namespace_with_maps).root(),
        test!(time_offsets).root().needs(Need::NotRunc).needs(Need::NotCrun).needs(Need::File("/proc/self/ns/time")),
        test!(time_offsets_need_a_time_namespace).root().needs(Need::Husk),
        test!(a_duplicate_is_refused).needs(Need::NotCrun),
        test!(an_unknown_type_is_refused),
        test!(a_missing_path_is_named).root(),
        test!(a_path_of_another_kind_is_refused).root().needs(Need::Husk),
    ]
}

/// The namespace of this process, as the probe shows its own.
fn ours(kind: &str) -> Value {
    json!(std::fs::read_link(Path::new("/proc/self/ns").join(kind)).unwrap())
}

fn listed_ones_are_new(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.namespace("cgroup", None);
    let report = bundle.report();
    for kind in ["pid", "net", "ipc", "uts", "mnt", "cgroup"] {
        let theirs = &report["namespaces"][kind];
        assert!(theirs.is_string(), "{kind} is not shown");
        assert_ne!(*theirs, ours(kind), "{kind}");
    }
    assert_eq!(report["namespaces"]["user"] != ours("user"), scene.who != Who::Root);
}

fn unlisted_ones_are_the_callers(scene: &Scene) {
    let mut bundle = scene.bundle();
    for kind in ["network", "ipc", "uts"] {
        bundle.without_namespace(kind);
    }
    bundle.config.as_object_mut().unwrap().remove("hostname");
    let report = bundle.report();
    for kind in ["net", "ipc", "uts", "user", "cgroup"] {
        assert_eq!(report["namespaces"][kind], ours(kind), "{kind}");
    }
}

fn the_process_is_number_one(scene: &Scene) {
    let report = scene.bundle().report();
    assert_eq!((&report["pid"], &report["ppid"]), (&json!(1), &json!(0)));
}

fn joined_by_path(scene: &Scene) {
    let script = "hostname joined-host; echo ready; read line";
    let mut holder = scene.program("/usr/bin/unshare").args(["--net", "--uts", "--ipc", "sh", "-c", script]).start();
    holder.line_with("ready");
    let mut bundle = scene.bundle();
    let namespaces = Path::new("/proc").join(holder.pid().to_string()).join("ns");
    for (kind, file) in [("network", "net"), ("uts", "uts"), ("ipc", "ipc")] {
        bundle.namespace(kind, Some(&namespaces.join(file)));
    }
    bundle.config.as_object_mut().unwrap().remove("hostname");
    let report = bundle.report();
    for kind in ["net", "uts", "ipc"] {
        assert_eq!(report["namespaces"][kind], json!(std::fs::read_link(namespaces.join(kind)).unwrap()), "{kind}");
    }
    assert_eq!(report["hostname"], "joined-host");
    holder.finish();
}

fn joined_pid_namespace_of_a_container(scene: &Scene) {
    let mut first = scene.bundle();
    first.args(["/probe", "--report", "--catch"]);
    let mut running = first.command().start();
    let holder = running.report();
    let state: Value =
        serde_json::from_str(&scene.runtime().args(["state", &first.id]).run().success().stdout).unwrap();
    let mut second = scene.bundle();
    second.namespace("pid", Some(&Path::new("/proc").join(state["pid"].to_string()).join("ns/pid")));
    let report = second.report();
    assert_eq!(report["namespaces"]["pid"], holder["namespaces"]["pid"]);
    assert!(report["pid"].as_u64().unwrap() > 1);
    scene.runtime().args(["kill", &first.id, "TERM"]).run().success();
    running.finish().success();
}

/// From inside it the container's own cgroup has another name than from where husk looks, and is verified all the same.
fn joined_cgroup_namespace_of_a_container(scene: &Scene) {
    for user in [false, true] {
        let mut first = scene.bundle();
        first.args(["/probe", "--report", "--catch"]).namespace("cgroup", None);
        let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 1000 }]);
        if user {
            first.namespace("user", None);
            first.config["linux"]["uidMappings"] = map.clone();
            first.config["linux"]["gidMappings"] = map;
        }
        let mut running = first.command().start();
        let holder = running.report();
        let state = scene.runtime().args(["state", &first.id]).run().success().stdout;
        let state: Value = serde_json::from_str(&state).unwrap();
        let namespaces = Path::new("/proc").join(state["pid"].to_string()).join("ns");
        let mut second = scene.bundle();
        second.namespace("cgroup", Some(&namespaces.join("cgroup")));
        if user {
            second.namespace("user", Some(&namespaces.join("user")));
        }
        assert_eq!(second.report()["namespaces"]["cgroup"], holder["namespaces"]["cgroup"]);
        scene.runtime().args(["kill", &first.id, "TERM"]).run().success();
        running.finish().success();
    }
}

fn user_namespace_with_maps(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.namespace("user", None);
    let map = json!([
        { "containerID": 0, "hostID": 100_000, "size": 1000 },
        { "containerID": 1000, "hostID": 300_000, "size": 10 },
    ]);
    bundle.config["linux"]["uidMappings"] = map.clone();
    bundle.config["linux"]["gidMappings"] = map;
    let report = bundle.report();
    assert_ne!(report["namespaces"]["user"], ours("user"));
    assert_eq!(report["uid_map"], json!([[0, 100_000, 1000], [1000, 300_000, 10]]));
    assert_eq!(report["gid_map"], report["uid_map"]);
    assert_eq!(report["uid"], json!([0, 0, 0, 0]));
}

fn time_offsets(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.namespace("time", None);
    bundle.config["linux"]["timeOffsets"] =
        json!({ "monotonic": { "secs": 172_800, "nanosecs": 5 }, "boottime": { "secs": 604_800 } });
    bundle.probe(["--read", "/proc/self/timens_offsets"]);
    let report = bundle.report();
    assert_ne!(report["namespaces"]["time"], ours("time"));
    let offsets = report["reads"]["/proc/self/timens_offsets"].as_str().unwrap();
    let offsets: Vec<Vec<&str>> = offsets.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(offsets, [["monotonic", "172800", "5"], ["boottime", "604800", "0"]]);
}

fn time_offsets_need_a_time_namespace(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 1 } });
    bundle.run().exits_with(1).says("timeOffsets");
}

fn a_duplicate_is_refused(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "pid" }));
    bundle.run().exits_with(1).says("pid");
}

fn an_unknown_type_is_refused(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.namespace("galaxy", None);
    bundle.run().exits_with(1).says("galaxy");
}

fn a_missing_path_is_named(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.namespace("network", Some(Path::new("/proc/self/ns/absent")));
    bundle.run().exits_with(1).says("/proc/self/ns/absent");
}

fn a_path_of_another_kind_is_refused(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.namespace("network", Some(Path::new("/proc/self/ns/uts")));
    bundle.run().exits_with(1).says("/proc/self/ns/uts");
}
