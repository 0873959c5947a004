//! What goes wrong at one moment, and not at the next: a network that cannot be had while a container is started again, ports that two
//! want, and what containers leave whose monitors were killed.

use rustix::process::Signal;
use serde_json::Value;

use super::support::stage::{Stage, husk, image, inspect, start, wait_until};
use super::support::{Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    let network = |test: Test| {
        test.root().needs(Need::Husk).needs(Need::Busybox).needs(Need::Program("ip")).needs(Need::Program("nft"))
    };
    vec![network(test!(a_restart_that_cannot_begin_is_tried_again))]
}

fn a_restart_that_cannot_begin_is_tried_again(scene: &Scene) {
    let _stage = Stage::new();
    let layout = image(scene);
    husk(scene, &["network", "create", "away"]).success();
    start(scene, &layout, &["--name", "phoenix", "--network", "away", "--restart", "always"], "exec sleep 1000");
    let state = |field: &str| inspect(scene, "phoenix")["State"][field].clone();
    let pid = || i32::try_from(state("Pid").as_i64().expect("a pid")).expect("a pid");
    // Nobody gets the leases, until it has been tried twice.
    let lock = scene.run_root().join("networks/away/lock");
    std::fs::remove_file(&lock).expect("take the lock away");
    std::fs::create_dir(&lock).expect("make a directory");
    let first = pid();
    let first = rustix::process::Pid::from_raw(first).expect("a pid");
    let before = state("StartedAt");
    rustix::process::kill_process(first, Signal::KILL).expect("kill it");
    let tried = |than: &Value| state("StartedAt") != *than;
    wait_until("it is started again", || tried(&before));
    let once = state("StartedAt");
    wait_until("it is tried once more", || tried(&once));
    std::fs::remove_dir(&lock).expect("remove the directory");
    wait_until("it runs", || state("Running") == Value::Bool(true) && pid() > 0 && pid() != first.as_raw_pid());
    husk(scene, &["exec", "phoenix", "/bin/busybox", "true"]).success();
    husk(scene, &["rm", "-f", "phoenix"]).success();
}
