//! `mounts add` and `mounts remove`, crun's verb: mounts come to a container that runs, and go again.

use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use super::support::husk::Running;
use super::support::scene::write;
use super::support::{Bundle, Need, Outcome, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(mounts_come_and_go).root().needs(Need::Husk).needs(Need::Busybox),
        test!(destinations_stay_inside).root().needs(Need::Husk).needs(Need::Busybox),
        test!(what_cannot_be_is_refused).root().needs(Need::Husk).needs(Need::Busybox),
    ]
}

/// A container that says what it is asked for.
fn start(scene: &Scene) -> (Bundle<'_>, Running<'_>) {
    let mut bundle = scene.bundle();
    bundle.config["root"]["readonly"] = json!(false);
    symlink("/tmp", bundle.rootfs("inner")).unwrap();
    symlink(scene.sentinel(), bundle.rootfs("outside")).unwrap();
    symlink("/proc", bundle.rootfs("hidden")).unwrap();
    bundle.args(["/bin/sh", "-c", r#"echo done; while read -r line; do eval "$line" 2>&1; echo done; done"#]);
    let mut running = bundle.command().start();
    assert_eq!(running.line(), "done");
    (bundle, running)
}

fn ask(running: &mut Running<'_>, line: &str) -> Vec<String> {
    running.write(format!("{line}\n"));
    let mut answer = Vec::new();
    loop {
        match running.line() {
            line if line == "done" => return answer,
            line => answer.push(line),
        }
    }
}

fn change(scene: &Scene, action: &str, id: &str, mounts: &Value) -> Outcome {
    let file = scene.path().join("mounts.json");
    write(&file, mounts.to_string());
    scene.runtime().args(["mounts", action, id]).arg(&file).run()
}

fn mounts_come_and_go(scene: &Scene) {
    let source = scene.tree("source", &[("inside", "plugged"), ("alone", "single")]);
    let (bundle, mut running) = start(scene);
    let mounts = json!([
        { "destination": "/new/directory", "type": "bind", "source": source, "options": ["rbind", "ro"] },
        { "destination": "/new/file", "source": source.join("alone"), "options": ["bind"] },
        { "destination": "/new/tmpfs", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k", "ro"] },
    ]);
    change(scene, "add", &bundle.id, &mounts).success();
    assert_eq!(ask(&mut running, "cat /new/directory/inside; echo; cat /new/file; echo"), ["plugged", "single"]);
    let refused = ask(&mut running, "echo > /new/directory/x; echo > /new/tmpfs/x");
    assert!(refused.len() == 2 && refused.iter().all(|line| line.contains("Read-only")), "{refused:?}");
    change(scene, "remove", &bundle.id, &mounts).success();
    assert_eq!(ask(&mut running, "grep -c /new /proc/self/mounts"), ["0"]);
    change(scene, "remove", &bundle.id, &mounts).exits_with(1).says("unmount /new/directory").says("EINVAL");
    running.close_input();
    running.finish();
}

/// The container makes links where the mounts are to go.
fn destinations_stay_inside(scene: &Scene) {
    let source = scene.tree("source", &[("inside", "plugged")]);
    let (bundle, mut running) = start(scene);
    let mount = |destination: &str| json!([{ "destination": destination, "source": source, "options": ["bind"] }]);
    change(scene, "add", &bundle.id, &mount("/inner/made")).success();
    change(scene, "add", &bundle.id, &mount("/outside/directory")).success();
    change(scene, "add", &bundle.id, &mount("/../../../tmp/other")).success();
    let seen = ask(&mut running, "cat /tmp/made/inside /tmp/other/inside; echo");
    assert_eq!(seen, ["pluggedplugged"]);
    for destination in ["/hidden/self", "/proc/self", "/proc", "/"] {
        let outcome = change(scene, "add", &bundle.id, &mount(destination));
        outcome.exits_with(1).says_one_of(&["/proc", "the root"]);
    }
    running.close_input();
    running.finish();
}

fn what_cannot_be_is_refused(scene: &Scene) {
    let (bundle, mut running) = start(scene);
    change(scene, "add", &bundle.id, &json!({ "destination": "/x" })).exits_with(1).says("mounts must be an array");
    let proc = json!([{ "destination": "/sys", "type": "sysfs", "source": "sysfs" }]);
    change(scene, "add", &bundle.id, &proc).exits_with(1).says("not in a container that runs");
    let missing = json!([{ "destination": "/tmp", "source": "/no/such", "options": ["bind"] }]);
    change(scene, "add", &bundle.id, &missing).exits_with(1).says("/no/such").says("ENOENT");
    change(scene, "add", "no-such-container", &json!([])).exits_with(1).says("no-such-container");
    assert_eq!(ask(&mut running, "echo up"), ["up"]);
    running.close_input();
    running.finish();
}
