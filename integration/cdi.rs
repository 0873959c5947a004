//! `--device vendor.com/class=name` and `--gpus`: what a vendor's specification says comes to be in the container.

use serde_json::{Value, json};

use super::support::image::{Image, Layout};
use super::support::{Need, Outcome, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    let engine = |test: Test| test.needs(Need::Husk).needs(Need::Busybox);
    [test!(a_device_is_all_that_its_specification_says).and_plain(), test!(what_is_wrong_is_named).and_plain()]
        .into_iter()
        .map(engine)
        .collect()
}

fn run(scene: &Scene, layout: &Layout, flags: &[&str], script: &str) -> Outcome {
    let mut command = scene.husk();
    let directories = format!("{0}/low:{0}/high", scene.path().join("cdi").display());
    command.env("HUSK_CDI_DIRECTORIES", directories).args(["run", "--rm"]).args(flags).arg(layout.reference());
    command.args(["/bin/busybox", "sh", "-c", script]).run()
}

fn specification(kind: &str, name: &str, edits: &Value) -> String {
    let document = json!({"cdiVersion": "0.7.0", "kind": kind, "devices": [{"name": name, "containerEdits": edits}]});
    document.to_string()
}

fn a_device_is_all_that_its_specification_says(scene: &Scene) {
    let layout = Image::busybox(scene).layout(scene, "layout");
    let library = scene.tree("driver", &[("library", "code\n")]).join("library");
    let witness = scene.path().join("witness");
    let edits = json!({
        "env": ["DRIVER=1", "PATH=/driver/bin:/bin"],
        "deviceNodes": [{"path": "/dev/vendor0", "hostPath": "/dev/null", "permissions": "rw"}],
        "mounts": [{"hostPath": library, "containerPath": "/driver/library", "options": ["ro", "nosuid", "bind"]}],
        "hooks": [{
            "hookName": "createRuntime", "path": "/bin/sh",
            "args": ["sh", "-c", format!("echo $FROM > {}", witness.display())], "env": ["FROM=hook"],
        }],
        "additionalGids": [4242],
    });
    let vendor = specification("vendor.com/gadget", "zero", &edits);
    let low = specification("vendor.com/gadget", "zero", &json!({"env": ["DRIVER=low"]}));
    let gpu = specification("nvidia.com/gpu", "0", &json!({"env": ["GPU=first"]}));
    scene.tree("cdi/high", &[("vendor.json", &vendor), ("gpu.json", &gpu), ("other.yaml", "cdiVersion: 0.7.0\n")]);
    scene.tree("cdi/low", &[("vendor.json", &low)]);
    let script = "echo $DRIVER $PATH; echo x > /dev/vendor0 && busybox cat /dev/vendor0; busybox cat /driver/library; \
                  echo x > /driver/library || echo refused";
    let found = run(scene, &layout, &["--device", "vendor.com/gadget=zero", "-e", "DRIVER=user"], script);
    let found: Vec<&str> = found.stdout.lines().collect();
    assert_eq!(found, ["1 /driver/bin:/bin", "code", "refused"]);
    assert_eq!(std::fs::read_to_string(&witness).unwrap(), "hook\n");
    for gpus in ["1", "device=0"] {
        assert_eq!(run(scene, &layout, &["--gpus", gpus], "echo $GPU").success().stdout, "first\n");
    }
    run(scene, &layout, &["--gpus", "2"], "true").exits_with(125).says("nvidia.com/gpu=1: unresolvable CDI device");
}

fn what_is_wrong_is_named(scene: &Scene) {
    let layout = Image::busybox(scene).layout(scene, "layout");
    let env = |entry: &str| json!({"env": [entry]});
    let fine = specification("vendor.com/gadget", "zero", &env("A=b"));
    let bad = specification("vendor.com/gadget", "one", &env("A"));
    let rdt = specification("vendor.com/gadget", "rdt", &json!({"intelRdt": {}}));
    let node = specification("vendor.com/gadget", "node", &json!({"deviceNodes": [{"path": "/dev/nowhere"}]}));
    let hook = json!({"hooks": [{"hookName": "createRuntime", "path": "/nowhere/hook"}]});
    let hook = specification("vendor.com/gadget", "hook", &hook);
    let files: [(&str, &str); 7] = [
        ("a.json", &fine),
        ("b.json", &fine),
        ("bad.json", &bad),
        ("rdt.json", &rdt),
        ("node.json", &node),
        ("hook.json", &hook),
        ("one.yaml", "kind: vendor.com/gadget\n"),
    ];
    scene.tree("cdi/high", &files);
    for (name, cause) in [
        ("zero", "high/b.json have it"),
        ("one", "env: \"A\" is not NAME=value"),
        ("one", "one.yaml: YAML is not supported"),
        ("rdt", "rdt.json: devices: rdt: containerEdits: intelRdt is not supported"),
        ("node", "node.json: deviceNodes: /dev/nowhere"),
        ("hook", "/nowhere/hook"),
    ] {
        run(scene, &layout, &["--device", &format!("vendor.com/gadget={name}")], "true").exits_with(125).says(cause);
    }
}
