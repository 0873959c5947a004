//! The executable itself: static, whole, and quick to start.

use std::path::Path;

use super::support::launch::Step;
use super::support::needs::is_static;
use super::support::scene::{RUN_VARIABLE, STORE_VARIABLE};
use super::support::stage::{Stage, image, wait_until};
use super::support::suite::kit;
use super::support::{Guest, Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(asks_for_no_interpreter_and_no_library).root().needs(Need::Husk),
        test!(ldd_and_file_agree).root().needs(Need::Husk).needs(Need::Program("file")).needs(Need::Program("ldd")),
        test!(runs_in_an_empty_chroot).root().needs(Need::Husk),
        test!(shows_its_version).and_plain().needs(Need::Husk),
        test!(a_closed_pipe_ends_quietly).and_plain().needs(Need::Husk),
        test!(start_path_of_a_bundle).root().needs(Need::Husk).needs(Need::Program("strace")),
        test!(start_path_of_exec).root().needs(Need::Husk).needs(Need::Program("strace")),
        test!(start_path_with_limits_and_a_filter).root().needs(Need::Husk).needs(Need::Program("strace")),
        test!(what_a_network_adds)
            .root()
            .needs(Need::Husk)
            .needs(Need::Busybox)
            .needs(Need::Program("strace"))
            .needs(Need::Program("ip")),
    ]
}

fn asks_for_no_interpreter_and_no_library(_: &Scene) {
    assert!(is_static(&std::fs::read(&kit().husk).unwrap()));
}

fn ldd_and_file_agree(scene: &Scene) {
    let outcome = scene.program("/usr/bin/ldd").arg(&kit().husk).run();
    let said = outcome.stdout + &outcome.stderr;
    assert!(said.contains("not a dynamic executable") || said.contains("statically linked"), "{said}");
    let outcome = scene.program("/usr/bin/file").arg(&kit().husk).run().success();
    assert!(outcome.stdout.contains("static"), "{}", outcome.stdout);
}

fn runs_in_an_empty_chroot(scene: &Scene) {
    let root = scene.tree("empty", &[]);
    std::fs::copy(&kit().husk, root.join("husk")).unwrap();
    for word in ["--version", "--help"] {
        scene.program("/husk").arg(word).current_directory("/").step(Step::Chroot(root.clone())).run().success();
    }
    // What needs more than the executable fails with a message.
    let mut command = scene.program("/husk");
    command.args(["run", "--rm", "host:", "true"]).current_directory("/").step(Step::Chroot(root.clone()));
    let outcome = command.run();
    assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
    assert_ne!(outcome.code(), 0);
}

fn shows_its_version(scene: &Scene) {
    let outcome = scene.husk().arg("--version").run().success();
    assert!(outcome.stdout.contains(env!("CARGO_PKG_VERSION")), "{}", outcome.stdout);
    let outcome = scene.program(&kit().runtime).arg("--version").run().success();
    // podman and containerd parse the first line, go-runc the others by their first word.
    for (line, start) in outcome.stdout.lines().zip(["runc version ", "commit: ", "spec: "]) {
        assert!(line.strip_prefix(start).is_some_and(|rest| !rest.is_empty()), "{}", outcome.stdout);
    }
}

fn a_closed_pipe_ends_quietly(scene: &Scene) {
    let script = format!("'{}' run --help | true", kit().husk.display());
    let outcome = scene.program("/bin/sh").args(["-c", &script]).run().success();
    assert_eq!(outcome.stderr, "");
}

/// Most system calls and processes between the exec of husk and the exec of the workload. They may only go down.
const BUNDLE_CALLS: usize = 590;
const FULL_BUNDLE_CALLS: usize = 665;
const EXEC_CALLS: usize = 250;
const PROCESSES: usize = 2;
/// One more for `exec`: what is seen in the container's PID namespace is cloned there by the stub, for safety's sake.
const EXEC_PROCESSES: usize = 3;

/// What a network adds to `husk run --rm`, from its begin to the end of all processes: the default one, and one with names, of
/// which a process of its own is started.
const BRIDGE_CALLS: usize = 285;
const NAMES_CALLS: usize = 530;

/// Counts, by strace, from the exec of the runtime to the exec of the workload.
fn count(scene: &Scene, bundle: &super::support::Bundle<'_>) -> (usize, usize) {
    bundle.write();
    let trace = scene.path().join("trace");
    let mut command = scene.program("/usr/bin/strace");
    command.args(["-f", "-q", "-o"]).arg(&trace).arg(&kit().runtime).arg("--root").arg(scene.state_root());
    command.args(["run", "--bundle"]).arg(&bundle.directory).arg(&bundle.id).run().success();
    count_trace(&trace)
}

fn count_trace(trace: &Path) -> (usize, usize) {
    let text = String::from_utf8_lossy(&std::fs::read(trace).unwrap()).into_owned();
    // Up to the workload's exec, whether by path or by descriptor; not counting lines that only finish an earlier call.
    let is_workload =
        |line: &str| (line.contains("execve(\"/probe\"") || line.contains("execveat(")) && line.contains("/probe");
    let end = text.lines().position(is_workload).expect("the workload's exec is in the trace");
    let before: Vec<&str> = text.lines().take(end + 1).collect();
    let calls = before.iter().filter(|line| is_call(line));
    let mut processes: Vec<&str> = before.iter().filter_map(|line| line.split_whitespace().next()).collect();
    processes.sort_unstable();
    processes.dedup();
    (calls.count(), processes.len())
}

fn is_call(line: &str) -> bool {
    // A build with debug assertions asks of every descriptor that is closed whether it was open; releases do not.
    let extra = ["resumed>", "---", "fcntl", "+++"];
    line.contains('(') && !extra.iter().any(|word| line.contains(word))
}

fn what_a_network_adds(scene: &Scene) {
    let _stage = Stage::new();
    let layout = image(scene);
    scene.husk().args(["network", "create", "named"]).run().success();
    let trace = scene.path().join("trace");
    let calls = |network: &str| {
        let reference = layout.reference();
        let words = ["run", "--rm", "--network", network, &reference, "/bin/busybox", "true"];
        // The first makes the bridge, the tables and whatever else stays.
        scene.husk().args(words).run().success();
        let in_use = scene.run_root().join("networks").join(network).join("leases.json");
        let is_over = || std::fs::read(&in_use).map_or(true, |leases| leases == b"{}");
        wait_until("what it had is given back", is_over);
        let mut command = scene.program("/usr/bin/strace");
        command.args(["-f", "-q", "-o"]).arg(&trace).arg(&kit().husk).args(words);
        command.env(STORE_VARIABLE, scene.store()).env(RUN_VARIABLE, scene.run_root()).run().success();
        let text = String::from_utf8_lossy(&std::fs::read(&trace).unwrap()).into_owned();
        text.lines().filter(|line| is_call(line)).count()
    };
    let none = calls("none");
    for (network, most) in [("bridge", BRIDGE_CALLS), ("named", NAMES_CALLS)] {
        let added = calls(network).saturating_sub(none);
        scene.note(format!("{network}: {added} system calls more than the {none} of none"));
        assert!(added <= most, "network {network} adds {added} system calls, at most {most} allowed");
    }
}

fn start_path_of_a_bundle(scene: &Scene) {
    let bundle = scene.bundle();
    let (calls, processes) = count(scene, &bundle);
    scene.note(format!("{calls} system calls, {processes} processes"));
    assert!(calls <= BUNDLE_CALLS, "{calls} system calls on the start path, at most {BUNDLE_CALLS} allowed");
    assert!(processes <= PROCESSES, "{processes} processes on the start path, at most {PROCESSES} allowed");
}

fn start_path_of_exec(scene: &Scene) {
    let guest = Guest::start(scene, scene.bundle());
    let trace = scene.path().join("trace");
    let mut command = scene.program("/usr/bin/strace");
    command.args(["-f", "-q", "-o"]).arg(&trace).arg(&kit().runtime).arg("--root").arg(scene.state_root());
    command.args(["exec", &guest.bundle.id, "/probe", "--quiet"]).run().success();
    let (calls, processes) = count_trace(&trace);
    scene.note(format!("{calls} system calls, {processes} processes"));
    assert!(calls <= EXEC_CALLS, "{calls} system calls on the way of exec, at most {EXEC_CALLS} allowed");
    assert!(processes <= EXEC_PROCESSES, "{processes} processes on the way of exec, at most {EXEC_PROCESSES} allowed");
}

fn start_path_with_limits_and_a_filter(scene: &Scene) {
    use serde_json::json;
    let mut bundle = scene.bundle();
    bundle.config["linux"]["resources"]["memory"] = json!({ "limit": 268_435_456 });
    bundle.config["linux"]["resources"]["cpu"] = json!({ "shares": 512, "quota": 50_000, "period": 100_000 });
    bundle.config["linux"]["resources"]["pids"] = json!({ "limit": 100 });
    bundle.config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["keyctl", "add_key", "bpf"], "action": "SCMP_ACT_ERRNO" }],
    });
    let source = scene.tree("source", &[]);
    for name in ["one", "two", "three"] {
        bundle.mount(&format!("/tmp/{name}"), "bind", &source, &["rbind", "ro"]);
    }
    std::fs::create_dir_all(bundle.rootfs("tmp")).unwrap();
    let (calls, processes) = count(scene, &bundle);
    scene.note(format!("{calls} system calls, {processes} processes"));
    assert!(calls <= FULL_BUNDLE_CALLS, "{calls} system calls on the start path, at most {FULL_BUNDLE_CALLS} allowed");
    assert!(processes <= PROCESSES, "{processes} processes on the start path, at most {PROCESSES} allowed");
}
