//! Changing the root: pivot_root, and `--no-pivot` for root file systems that can't.

use serde_json::{Value, json};

use super::support::{Bundle, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![test!(no_pivot_shows_the_same_root), test!(no_pivot_hides_the_host), test!(no_way_out_by_chroot).and_plain()]
}

fn without_pivot(scene: &Scene, bundle: &Bundle<'_>) -> Value {
    bundle.write();
    let mut command = scene.runtime();
    command.args(["run", "--no-pivot", "--bundle"]).arg(&bundle.directory).arg(&bundle.id);
    command.run().success().report()
}

fn no_pivot_shows_the_same_root(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.probe(["--list", "/", "--list", "/.."]).tries(["create:/new"]);
    let report = without_pivot(scene, &bundle);
    assert_eq!(report["lists"]["/"], report["lists"]["/.."]);
    assert!(report["lists"]["/"].as_array().unwrap().contains(&json!("probe")));
    assert_eq!(report["tries"]["create:/new"], "EROFS");
    assert_eq!(report["cwd"], "/");
}

/// runc: "run --no-pivot must not expose bare /proc": the host's mounts below the new root must not be reachable.
fn no_pivot_hides_the_host(scene: &Scene) {
    let mut bundle = scene.bundle();
    for set in ["bounding", "permitted", "effective"] {
        bundle.config["process"]["capabilities"][set] = json!(["CAP_SYS_ADMIN", "CAP_SYS_CHROOT"]);
    }
    bundle.tries(["unmount:/proc", "write:/proc/sysrq-trigger"]).probe(["--list", "/proc"]);
    let report = without_pivot(scene, &bundle);
    let names = report["lists"]["/proc"].as_array().unwrap();
    let pids = names.iter().filter(|name| name.as_str().unwrap().parse::<u32>().is_ok()).count();
    assert!(pids <= 1, "the host's processes are seen in {names:?}");
}

fn no_way_out_by_chroot(scene: &Scene) {
    let mut bundle = scene.bundle();
    for set in ["bounding", "permitted", "effective"] {
        bundle.config["process"]["capabilities"][set] = json!(["CAP_SYS_CHROOT"]);
    }
    let up = "../".repeat(32);
    bundle.tries(["chroot:/tmp", &format!("chdir:{up}")]).probe(["--list", "."]);
    let report = bundle.report();
    assert!(report["lists"]["."].as_array().unwrap().contains(&json!("probe")), "{}", report["lists"]);
}
