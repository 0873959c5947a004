//! The six hooks: where each runs, what it is told of the container, and what a failure leaves.

use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use super::support::husk::read_host;
use super::support::{Bundle, Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    [
        test!(each_has_its_place_and_its_state),
        test!(a_failure_ends_the_container),
        test!(a_failing_poststart_ends_what_was_started),
        test!(a_failing_poststop_is_passed_over),
        test!(the_first_that_fails_ends_the_series),
    ]
    .into_iter()
    .map(|test| test.needs(Need::Husk).needs(Need::Busybox))
    .collect()
}

/// Each moment, and what `state.status` is then (runtime-spec, "Lifecycle").
const MOMENTS: [(&str, &str); 6] = [
    ("prestart", "creating"),
    ("createRuntime", "creating"),
    ("createContainer", "creating"),
    ("startContainer", "created"),
    ("poststart", "running"),
    ("poststop", "stopped"),
];

/// Of a shell's script. The path is one that both the host and the container have.
fn hook(script: &str) -> Value {
    json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"] })
}

fn is_gone(scene: &Scene, bundle: &Bundle<'_>) {
    let known = scene.runtime().args(["list", "-q"]).run().success().stdout;
    assert!(!known.contains(&*bundle.id), "{known}");
}

fn each_has_its_place_and_its_state(scene: &Scene) {
    let place = scene.tree("hooks", &[]);
    let mut bundle = scene.bundle();
    bundle.mount("/tmp", "bind", &place, &["rbind", "rw"]);
    bundle.config["annotations"] = json!({ "a": "word" });
    for (moment, _) in MOMENTS {
        // From inside, the directory has another path.
        let directory = if moment == "startContainer" { Path::new("/tmp") } else { &place };
        let out = directory.join(moment);
        let script = format!(
            "cat > {0}.state; readlink /proc/self/ns/mnt > {0}.mounts; ls -d /probe > {0}.root 2>&1; true",
            out.display()
        );
        bundle.config["hooks"][moment] = json!([hook(&script)]);
    }
    bundle.probe(["--quiet"]);
    bundle.run().success();
    let read = |name: String| read_host(place.join(name)).trim().to_owned();
    let host = std::fs::read_link("/proc/self/ns/mnt").unwrap();
    let inside = read("startContainer.mounts".to_owned());
    assert_ne!(Path::new(&inside), host);
    for (moment, status) in MOMENTS {
        let state: Value = serde_json::from_str(&read(format!("{moment}.state"))).expect("a hook reads the state");
        assert_eq!((&state["status"], &state["id"]), (&json!(status), &json!(bundle.id)), "{moment}");
        assert_eq!((&state["bundle"], &state["annotations"]["a"]), (&json!(bundle.directory), &json!("word")));
        assert_eq!(state["ociVersion"].as_str().map(|version| version.starts_with("1.")), Some(true));
        let mounts = read(format!("{moment}.mounts"));
        let is_inside = matches!(moment, "createContainer" | "startContainer");
        assert_eq!(Path::new(&mounts), if is_inside { Path::new(&inside) } else { &host }, "{moment}");
        // Only the last that is inside has the container's root.
        let sees_probe = read(format!("{moment}.root")).lines().any(|line| line == "/probe");
        assert_eq!(sees_probe, moment == "startContainer", "{moment}");
    }
}

fn a_failure_ends_the_container(scene: &Scene) {
    for moment in ["prestart", "createRuntime", "createContainer", "startContainer"] {
        let ended = scene.tree(moment, &[]).join("ended");
        let mut bundle = scene.bundle();
        bundle.config["hooks"] = json!({
            moment: [hook("echo sorry >&2; exit 3")],
            "poststop": [hook(&format!("touch {}", ended.display()))],
        });
        let outcome = bundle.run().exits_with(1).says(&format!("error running {moment} hook #0"));
        assert!(outcome.stderr.contains("sorry") && outcome.stdout.is_empty(), "{}{}", outcome.stderr, outcome.stdout);
        assert!(ended.exists(), "poststop hooks run for what was begun");
        is_gone(scene, &bundle);
    }
}

fn a_failing_poststart_ends_what_was_started(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.args(["/probe", "--quiet", "--block"]);
    bundle.config["hooks"]["poststart"] = json!([hook("exit 3")]);
    bundle.run().exits_with(1).says("error running poststart hook #0");
    is_gone(scene, &bundle);
    let mut command = scene.runtime();
    command.arg("create").arg("--bundle").arg(bundle.write()).arg(&bundle.id);
    assert!(command.spawn(Stdio::null(), Stdio::null(), Stdio::null()).wait().unwrap().success());
    scene.runtime().args(["start", &bundle.id]).run().exits_with(1).says("error running poststart hook #0");
    // Who created it has it to delete (runtime-spec, "Lifecycle": it is stopped, and goes on with `delete`).
    assert!(scene.runtime().args(["state", &bundle.id]).run().success().stdout.contains("\"stopped\""));
    scene.runtime().args(["delete", &bundle.id]).run().success();
    is_gone(scene, &bundle);
}

fn a_failing_poststop_is_passed_over(scene: &Scene) {
    let last = scene.tree("last", &[]).join("ran");
    let mut bundle = scene.bundle();
    bundle.probe(["--quiet", "--exit", "7"]);
    bundle.config["hooks"]["poststop"] = json!([hook("exit 3"), hook(&format!("touch {}", last.display()))]);
    bundle.run().exits_with(7);
    assert!(last.exists(), "the next one runs all the same");
    is_gone(scene, &bundle);
}

fn the_first_that_fails_ends_the_series(scene: &Scene) {
    let place = scene.tree("series", &[]);
    let touch = |name: &str| hook(&format!("touch {}", place.join(name).display()));
    let mut bundle = scene.bundle();
    bundle.config["hooks"]["createRuntime"] = json!([touch("first"), hook("exit 3"), touch("third")]);
    bundle.run().exits_with(1).says("error running createRuntime hook #1");
    assert!(place.join("first").exists() && !place.join("third").exists());
}
