//! crun's annotations that change what a runtime does.

use std::io::Read;
use std::os::fd::OwnedFd;

use serde_json::{Value, json};

use super::support::{Bundle, Need, Scene, Test, test};

/// A program that lets alarm(2) fail with ENOMSG and allows the rest, for x86-64: its number is looked at, and nothing else.
const NO_ALARM: &str = "IAAAAAAAAAAVAAABJQAAAAYAAAAqAAUABgAAAAAA/38=";

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(hooks_write_to_the_files_that_are_named).needs(Need::Husk),
        test!(the_callers_groups_can_stay).root().needs(Need::NotRunc),
        test!(the_pidfd_goes_to_its_receiver).needs(Need::NotRunc).needs(Need::NotCrun),
        test!(a_foreign_program_replaces_the_profile).and_plain().needs(Need::Husk),
        test!(unknown_calls_can_be_made_a_failure).needs(Need::Husk),
        test!(other_ways_to_run_a_container_are_refused).needs(Need::Husk),
        test!(what_nobody_knows_is_ignored).needs(Need::Husk),
    ]
}

fn with<'a>(scene: &'a Scene, name: &str, value: impl Into<Value>) -> Bundle<'a> {
    let mut bundle = scene.bundle();
    bundle.config["annotations"] = json!({ name: value.into() });
    bundle
}

/// In the order of the hooks, wherever they run.
fn hooks_write_to_the_files_that_are_named(scene: &Scene) {
    let place = scene.tree("hooks", &[]);
    let mut bundle = scene.bundle();
    bundle.config["annotations"] =
        json!({ "run.oci.hooks.stdout": place.join("out"), "run.oci.hooks.stderr": place.join("err") });
    let moments = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    for moment in moments {
        let script = format!("echo {moment}; echo {moment} failed >&2");
        bundle.config["hooks"][moment] = json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]);
    }
    bundle.run().success();
    let lines = |name: &str| -> Vec<String> {
        let text = std::fs::read_to_string(place.join(name)).expect("the hooks wrote");
        text.lines().map(ToOwned::to_owned).collect()
    };
    assert_eq!(lines("out"), moments);
    assert_eq!(lines("err"), moments.map(|moment| format!("{moment} failed")));
    let mut missing = with(scene, "run.oci.hooks.stdout", "/no/such/file");
    missing.config["hooks"]["poststop"] = json!([{ "path": "/bin/true" }]);
    missing.run().exits_with(1).says("open /no/such/file for hooks: no such file or directory (ENOENT)");
}

fn the_callers_groups_can_stay(scene: &Scene) {
    for (value, stays) in [("1", true), ("0", false)] {
        let mut bundle = with(scene, "run.oci.keep_original_groups", value);
        bundle.config["process"]["user"]["additionalGids"] = json!([77]);
        let mut command = bundle.command();
        let report = command.step(super::support::launch::Step::Group(4321)).run().success().report();
        assert_eq!(report["groups"], if stays { json!([4321]) } else { json!([77]) });
    }
}

fn the_pidfd_goes_to_its_receiver(scene: &Scene) {
    let path = scene.path().join("receiver");
    let socket = std::os::unix::net::UnixListener::bind(&path).expect("listen");
    scene.account().own(&path);
    let mut bundle = with(scene, "run.oci.pidfd_receiver", path.to_str());
    bundle.args(["/probe", "--quiet", "--cat"]);
    let mut running = bundle.command().start();
    let (stream, _) = socket.accept().expect("accept");
    let fd = super::support::agent::receive(&stream).1.expect("a descriptor");
    let pid = pid_of(&fd);
    let state = scene.runtime().args(["state", &bundle.id]).run().success();
    let state: Value = serde_json::from_str(&state.stdout).expect("JSON");
    assert_eq!(Some(pid), state["pid"].as_i64());
    running.close_input();
    running.finish().success();
}

fn pid_of(pidfd: &OwnedFd) -> i64 {
    let mut text = String::new();
    let path = format!("/proc/self/fdinfo/{}", std::os::fd::AsRawFd::as_raw_fd(pidfd));
    std::fs::File::open(path).and_then(|mut file| file.read_to_string(&mut text)).expect("read fdinfo");
    let line = text.lines().find_map(|line| line.strip_prefix("Pid:"));
    line.and_then(|pid| pid.trim().parse().ok()).expect("a pidfd")
}

fn a_foreign_program_replaces_the_profile(scene: &Scene) {
    if cfg!(not(target_arch = "x86_64")) {
        return;
    }
    for profile in [Value::Null, json!({ "defaultAction": "SCMP_ACT_KILL_PROCESS" })] {
        let mut bundle = with(scene, "run.oci.seccomp_bpf_data", NO_ALARM);
        bundle.config["linux"]["seccomp"] = profile;
        bundle.tries(["syscall:37:1", "mkdir:/dev/shm/x"]);
        assert_eq!(bundle.report()["tries"], json!({ "syscall:37:1": "ENOMSG", "mkdir:/dev/shm/x": "ok" }));
    }
    for (text, message) in [
        ("!", "run.oci.seccomp_bpf_data: not base64"),
        ("AAAA", "run.oci.seccomp_bpf_data: 3 bytes are not a program of 1 to 4096 instructions of 8 bytes"),
        // A jump out of the program.
        ("BQAAAP8AAAA=", "load the seccomp filter: invalid argument (EINVAL)"),
    ] {
        with(scene, "run.oci.seccomp_bpf_data", text).run().exits_with(1).says(message);
    }
}

fn unknown_calls_can_be_made_a_failure(scene: &Scene) {
    for (value, fails) in [("1", true), ("0", false)] {
        let mut bundle = with(scene, "run.oci.seccomp_fail_unknown_syscall", value);
        bundle.config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["call_of_the_future"], "action": "SCMP_ACT_ERRNO" }],
        });
        let outcome = bundle.run();
        if fails {
            outcome
                .exits_with(1)
                .says("linux.seccomp.syscalls[0].names: \"call_of_the_future\" is no system call of any architecture");
        } else {
            outcome.success();
        }
    }
}

fn other_ways_to_run_a_container_are_refused(scene: &Scene) {
    for (name, value) in
        [("run.oci.handler", "krun"), ("run.oci.handler", "wasm"), ("run.oci.seccomp.plugins", "/x.so")]
    {
        let bundle = with(scene, name, value);
        bundle.run().exits_with(1).says(&format!("annotations: {name}: \"{value}\": not supported: husk "));
    }
}

fn what_nobody_knows_is_ignored(scene: &Scene) {
    with(scene, "run.oci.of.the.future", "1").run().success();
}
