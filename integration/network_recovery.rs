//! What goes wrong at one moment, and not at the next: a network that cannot be had while a container is started again, ports that two
//! want, and what containers leave whose monitors were killed.

use std::process::Stdio;

use rustix::process::Signal;
use serde_json::{Map, Value};

use super::lifecycle::monitor_of;
use super::support::scene::write;
use super::support::stage::{Stage, husk, image, inspect, leases, run, start, wait_until};
use super::support::{Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    let network = |test: Test| {
        test.root().needs(Need::Husk).needs(Need::Busybox).needs(Need::Program("ip")).needs(Need::Program("nft"))
    };
    vec![
        network(test!(a_restart_that_cannot_begin_is_tried_again)),
        network(test!(a_port_that_no_socket_holds_is_one_container_s)),
        network(test!(whoever_looks_clears_what_the_killed_have_left)),
    ]
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

fn a_port_that_no_socket_holds_is_one_container_s(scene: &Scene) {
    let _stage = Stage::new();
    let layout = image(scene);
    // Nobody has its turn at the tables until all of them are about to.
    husk(scene, &["run", "--rm", "--network", "bridge", &layout.reference(), "/bin/busybox", "true"]).success();
    let turn = std::fs::File::options().write(true).open(scene.run_root().join("networks/.firewall"));
    let turn = turn.expect("open the lock of the tables");
    turn.lock().expect("take the turn");
    let names = ["one", "two", "three", "four"];
    let begun = names.map(|name| {
        let mut command = scene.husk();
        command.args(["run", "-d", "--network", "bridge", "--name", name, "-p", "7000:7000/sctp"]);
        command.arg(layout.reference()).args(["/bin/busybox", "sleep", "1000"]);
        command.spawn(Stdio::null(), Stdio::null(), Stdio::piped())
    });
    wait_until("all have an address", || leases(scene, "bridge").as_object().map_or(0, Map::len) == names.len());
    turn.unlock().expect("give the turn away");
    let ended = begun.map(|child| child.wait_with_output().expect("wait for a command"));
    let owner = std::iter::zip(names, &ended).find(|(_, output)| output.status.success()).expect("one has it").0;
    let refused = format!("publish 0.0.0.0:7000/sctp: port is already allocated\nhint: container {owner} has it\n");
    for (name, output) in std::iter::zip(names, &ended).filter(|(name, _)| *name != owner) {
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.ends_with(&refused), "{name}: {error}");
    }
    // Also for who gets a way to callers later.
    husk(scene, &["network", "create", "--internal", "cut"]).success();
    start(scene, &layout, &["--name", "late", "--network", "cut", "-p", "7000:7000/sctp"], "sleep 1000");
    let late = husk(scene, &["network", "connect", "bridge", "late"]);
    assert!(late.stderr.contains("7000/sctp") && late.stderr.contains(owner), "{}", late.stderr);
    husk(scene, &["rm", "-f", owner]).success();
    husk(scene, &["network", "disconnect", "bridge", "late"]);
    wait_until("it is free", || husk(scene, &["network", "connect", "bridge", "late"]).code() == 0);
    for name in ["late", "one", "two", "three", "four"] {
        husk(scene, &["rm", "-f", name]);
    }
}

fn whoever_looks_clears_what_the_killed_have_left(scene: &Scene) {
    let _stage = Stage::new();
    let layout = image(scene);
    husk(scene, &["network", "create", "left"]).success();
    let has_none = || leases(scene, "left").as_object().is_some_and(Map::is_empty);
    // With its monitor: the next that meets it clears what it had, at once.
    start(scene, &layout, &["--name", "web", "--network", "left"], "exec sleep 1000");
    let pid = i32::try_from(inspect(scene, "web")["State"]["Pid"].as_i64().expect("a pid")).expect("a pid");
    for killed in [monitor_of("web"), pid] {
        let killed = rustix::process::Pid::from_raw(killed).expect("a pid");
        rustix::process::kill_process(killed, Signal::KILL).expect("kill it");
    }
    wait_until("it has ended", || !std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert!(!has_none());
    husk(scene, &["ps"]).success();
    assert!(has_none(), "{}", leases(scene, "left"));
    assert!(!run("nft", "list ruleset").contains("\"hv"), "nor are there rules for it");
    // Without: nobody knows of it but its lease, and who has just ended gives back by itself.
    for look in [&["ps"][..], &["network", "ls"], &["network", "inspect", "left"], &["network", "prune", "-f"]] {
        let lease = serde_json::json!({ "f".repeat(64): { "addresses": ["172.30.0.9"], "mac": "02:42:00:00:00:09" } });
        let path = scene.run_root().join("networks/left/leases.json");
        write(&path, lease.to_string());
        let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(10);
        let file = std::fs::File::options().write(true).open(&path).expect("open the leases");
        file.set_modified(long_ago).expect("set a time");
        husk(scene, look).success();
        assert!(has_none(), "{look:?}: {}", leases(scene, "left"));
    }
}
