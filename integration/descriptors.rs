//! Open files: the workload has those it was given, and no other.

use serde_json::{Value, json};

use super::support::launch::Step;
use super::support::{Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(none_but_the_standard_three).and_plain(),
        test!(the_callers_are_not_passed_on).and_plain(),
        test!(asked_for_ones_are_passed_on).and_plain(),
        test!(a_managers_are_passed_on_with_their_names).and_plain().needs(Need::Husk),
        test!(of_a_created_container).root().needs(Need::NotCrun),
        test!(with_few_to_spare).and_plain().needs(Need::Husk),
    ]
}

/// The numbers of the open files, sorted.
fn numbers(report: &Value) -> Vec<u32> {
    let mut numbers: Vec<u32> = report["fds"].as_object().unwrap().keys().map(|key| key.parse().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

fn none_but_the_standard_three(scene: &Scene) {
    let mut bundle = scene.bundle();
    assert_eq!(numbers(&bundle.report()), [0, 1, 2]);
    // A filter leaves a descriptor while it is installed; it may not stay.
    bundle.id = scene.id();
    bundle.config["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW" });
    assert_eq!(numbers(&bundle.report()), [0, 1, 2]);
}

fn the_callers_are_not_passed_on(scene: &Scene) {
    let bundle = scene.bundle();
    let report = bundle.command().step(Step::LeakDescriptors(50)).run().success().report();
    assert_eq!(numbers(&report), [0, 1, 2]);
}

fn asked_for_ones_are_passed_on(scene: &Scene) {
    let bundle = scene.bundle();
    bundle.write();
    let mut command = scene.runtime();
    command.args(["run", "--preserve-fds", "2", "--bundle"]).arg(&bundle.directory).arg(&bundle.id);
    let report = command.step(Step::LeakDescriptors(10)).run().success().report();
    assert_eq!(numbers(&report), [0, 1, 2, 3, 4]);
}

/// The three variables of sd_listen_fds_with_names(3), for the workload and for nobody else's pid.
fn a_managers_are_passed_on_with_their_names(scene: &Scene) {
    let mut bundle = scene.bundle();
    let env = bundle.config["process"]["env"].as_array_mut().unwrap();
    env.extend([json!("LISTEN_FDS=7"), json!("LISTEN_PID=9"), json!("A=1")]);
    bundle.write();
    let mut command = scene.runtime();
    command.args(["run", "--preserve-fds", "1", "--bundle"]).arg(&bundle.directory).arg(&bundle.id);
    command.step(Step::LeakDescriptors(10)).step(Step::Activate(2, "web:db"));
    let report = command.run().success().report();
    assert_eq!(numbers(&report), [0, 1, 2, 3, 4, 5], "two of the manager's, and one of the caller's");
    let variable = |name: &str| report["env"][name].clone();
    assert_eq!([variable("LISTEN_FDS"), variable("LISTEN_PID"), variable("LISTEN_FDNAMES")], ["2", "1", "web:db"]);
    assert_eq!(variable("A"), "1");
    // Meant for another process: none is passed on, and the configuration's own words stay.
    bundle.id = scene.id();
    let mut command = bundle.command();
    command.env("LISTEN_FDS", "2").env("LISTEN_PID", "1").env("LISTEN_FDNAMES", "web:db");
    let report = command.step(Step::LeakDescriptors(10)).run().success().report();
    assert_eq!(numbers(&report), [0, 1, 2]);
    assert_eq!([&report["env"]["LISTEN_FDS"], &report["env"]["LISTEN_FDNAMES"]], [&json!("7"), &Value::Null]);
}

/// While the init waits to be started, what it holds open is what a container could reach through /proc.
fn of_a_created_container(scene: &Scene) {
    let bundle = scene.bundle();
    bundle.write();
    let mut command = scene.runtime();
    command.arg("create").arg("--bundle").arg(&bundle.directory).arg(&bundle.id);
    let null = std::process::Stdio::null;
    let outcome = command.step(Step::LeakDescriptors(20)).start_with(null(), null(), null()).finish();
    outcome.success();
    let state = scene.runtime().args(["state", &bundle.id]).run().success();
    let state: Value = serde_json::from_str(&state.stdout).unwrap();
    assert_eq!(state["status"], "created");
    let directory = format!("/proc/{}/fd", state["pid"]);
    let mut targets: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .flatten()
        .filter_map(|entry| Some(std::fs::read_link(entry.path()).ok()?.display().to_string()))
        .collect();
    scene.runtime().args(["delete", "--force", &bundle.id]).run().success();
    targets.retain(|target| target != "/dev/null" && !target.contains("exec.fifo"));
    // Sockets and pipes to the parent, event files: nothing that has a path on the host.
    let has_path = |target: &&String| target.starts_with('/') && !target.starts_with("/memfd:");
    let reachable: Vec<&String> = targets.iter().filter(has_path).collect();
    assert_eq!(reachable, Vec::<&String>::new(), "of {targets:?}");
}

fn with_few_to_spare(scene: &Scene) {
    let bundle = scene.bundle();
    let mut command = bundle.command();
    let outcome = command.step(Step::OpenFiles(10)).run();
    // Enough, or an error that says what ran out; never a hang or a panic.
    if outcome.code() != 0 {
        outcome.exits_with(1).says("EMFILE");
    }
}
