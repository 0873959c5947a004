//! Containers in a mount namespace that others live in: the caller's, or one that is joined. They are their root file system
//! and no more, and nothing is mounted for them that would stay.

use std::process::Stdio;

use serde_json::{Value, json};

use super::support::husk::read_host;
use super::support::{Bundle, Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(a_container_in_the_callers_is_its_root).needs(Need::Husk),
        test!(a_container_in_a_joined_one_sees_its_mounts).root().needs(Need::Husk).needs(Need::Program("unshare")),
        test!(what_would_be_mounted_is_refused).root().needs(Need::Husk),
    ]
}

fn plain_bundle(scene: &Scene) -> Bundle<'_> {
    let mut bundle = scene.bundle();
    bundle.config["mounts"] = json!([]);
    bundle.config["root"]["readonly"] = json!(false);
    bundle.config["linux"]["maskedPaths"] = json!([]);
    bundle.config["linux"]["readonlyPaths"] = json!([]);
    bundle.without_namespace("mount");
    bundle
}

fn names(report: &Value, path: &str) -> Vec<String> {
    let names = report["lists"][path].as_array().expect("a list").iter();
    names.map(|name| name.as_str().unwrap().to_owned()).collect()
}

/// The root of the namespace is the host's: `exec` enters the container's all the same.
fn a_container_in_the_callers_is_its_root(scene: &Scene) {
    let before = read_host("/proc/self/mountinfo");
    let mut bundle = plain_bundle(scene);
    bundle.args(["/probe", "--list", "/", "--report", "--block"]);
    let mut container = bundle.command().start();
    let inside = names(&container.report(), "/");
    assert!(inside.contains(&"probe".to_owned()) && !inside.contains(&"boot".to_owned()), "{inside:?}");
    let exec = scene.runtime().args(["exec", &bundle.id, "/probe", "--list", "/", "--list", "/.."]).run().success();
    let report = exec.report();
    assert_eq!([names(&report, "/"), names(&report, "/..")], [inside.clone(), inside]);
    scene.runtime().args(["delete", "--force", &bundle.id]).run().success();
    container.wait();
    assert_eq!(read_host("/proc/self/mountinfo"), before);
}

fn a_container_in_a_joined_one_sees_its_mounts(scene: &Scene) {
    let mut bundle = plain_bundle(scene);
    let place = bundle.rootfs("/tmp");
    let script = "mount -t tmpfs none \"$1\" && : > \"$1/mark\" && echo up && cat";
    let mut holder = scene.program("unshare");
    holder.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]).arg(&place);
    let mut holder = holder.start();
    holder.line_with("up");
    let namespace = format!("/proc/{}/ns/mnt", holder.pid());
    bundle.namespace("mount", Some(namespace.as_ref()));
    bundle.args(["/probe", "--list", "/tmp", "--report", "--block"]);
    let mut container = bundle.command().start();
    assert_eq!(names(&container.report(), "/tmp"), ["mark"]);
    let exec = scene.runtime().args(["exec", &bundle.id, "/probe", "--list", "/", "--list", "/tmp"]).run().success();
    assert_eq!(names(&exec.report(), "/tmp"), ["mark"]);
    assert!(names(&exec.report(), "/").contains(&"probe".to_owned()));
    scene.runtime().args(["delete", "--force", &bundle.id]).run().success();
    container.wait();
    holder.close_input();
    holder.wait();
}

fn what_would_be_mounted_is_refused(scene: &Scene) {
    let before = read_host("/proc/self/mountinfo");
    for (pointer, value) in [
        ("mounts", json!([{"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}])),
        ("root.readonly", json!(true)),
        ("linux.maskedPaths", json!(["/tmp"])),
        ("linux.readonlyPaths", json!(["/tmp"])),
        ("linux.rootfsPropagation", json!("shared")),
    ] {
        let mut bundle = plain_bundle(scene);
        let mut field = &mut bundle.config;
        for key in pointer.split('.') {
            field = &mut field[key];
        }
        *field = value;
        let outcome = bundle.command().start_with(Stdio::null(), Stdio::piped(), Stdio::piped()).finish();
        outcome.exits_with(1).says(&format!("{pointer}: needs a"));
    }
    assert_eq!(read_host("/proc/self/mountinfo"), before);
}
