//! Signals and ends: what is forwarded, and what the exit status says.

use rustix::process::Signal;

use super::support::{Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(signals_are_forwarded).and_plain(),
        test!(exit_statuses_are_passed_on).and_plain(),
        test!(a_killed_workload_is_128_and_the_signal).and_plain(),
        test!(a_signal_of_the_workloads_own).and_plain().needs(Need::Busybox),
        test!(standard_files_are_passed_on).and_plain(),
        test!(standard_files_are_the_callers).and_plain().needs(Need::NotRunc),
        test!(closed_standard_files_are_survived).and_plain().needs(Need::Husk).needs(Need::Busybox),
        test!(orphans_do_not_outlive_the_container).and_plain().needs(Need::Busybox),
        test!(ignored_and_blocked_signals_are_reset).and_plain().needs(Need::Husk),
    ]
}

fn signals_are_forwarded(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.args(["/probe", "--quiet", "--catch"]);
    let mut running = bundle.command().start();
    assert_eq!(running.line(), "ready");
    let signals = [
        (Signal::HUP, "SIGHUP"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::USR1, "SIGUSR1"),
        (Signal::USR2, "SIGUSR2"),
        (Signal::CONT, "SIGCONT"),
        (Signal::TERM, "SIGTERM"),
    ];
    for (signal, name) in signals {
        running.signal(signal);
        assert_eq!(running.line(), name);
    }
    running.finish().exits_with(0);
}

fn exit_statuses_are_passed_on(scene: &Scene) {
    for status in ["0", "1", "2", "42", "125", "126", "127", "128", "255"] {
        let mut bundle = scene.bundle();
        bundle.args(["/probe", "--quiet", "--exit", status]);
        assert_eq!(bundle.run().code().to_string(), status);
    }
}

fn a_killed_workload_is_128_and_the_signal(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.args(["/probe", "--quiet", "--echo", "ready", "--block"]);
    let mut running = bundle.command().start();
    assert_eq!(running.line(), "ready");
    scene.runtime().args(["kill", &bundle.id, "KILL"]).run().success();
    running.finish().exits_with(128 + 9);
}

/// A process that isn't number 1 of its namespace dies of its own signals.
fn a_signal_of_the_workloads_own(scene: &Scene) {
    for signal in [6, 9, 15] {
        let mut bundle = scene.bundle();
        bundle.args(["/bin/sh", "-c", &format!("/probe --quiet --signal {signal}; exit $?")]);
        let outcome = bundle.run();
        assert_eq!(outcome.code(), 128 + signal);
    }
}

fn standard_files_are_passed_on(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.args(["/probe", "--quiet", "--error", "to the error", "--cat"]);
    let outcome = bundle.command().input("one\ntwo\0three").run().success();
    assert_eq!(outcome.stdout, "one\ntwo\0three");
    assert!(outcome.stderr.ends_with("to the error\n"), "{}", outcome.stderr);
}

/// The same files, neither copied through a pipe nor given to another owner (CVE-2026-88265).
fn standard_files_are_the_callers(scene: &Scene) {
    use std::os::unix::fs::MetadataExt;
    let path = scene.path().join("output");
    let file = std::fs::OpenOptions::new().read(true).append(true).create_new(true).open(&path).unwrap();
    let mut bundle = scene.bundle();
    bundle.config["process"]["user"] = serde_json::json!({ "uid": 0, "gid": 0 });
    let before = file.metadata().unwrap();
    let running = bundle.command().start_with(
        std::process::Stdio::null(),
        file.try_clone().unwrap().into(),
        file.try_clone().unwrap().into(),
    );
    running.finish().success();
    let report: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(report["stdio"][1]["inode"], before.ino());
    assert_eq!(report["stdio"][2]["inode"], before.ino());
    let after = file.metadata().unwrap();
    assert_eq!((after.uid(), after.gid(), after.mode()), (before.uid(), before.gid(), before.mode()));
}

/// A descriptor that husk opens must not land on a standard number and be taken for the caller's file.
fn closed_standard_files_are_survived(scene: &Scene) {
    use super::support::launch::Step;
    let mut bundle = scene.bundle();
    bundle.config["root"]["readonly"] = serde_json::json!(false);
    bundle.args(["/bin/sh", "-c", "ls -l /proc/self/fd > /files; /probe --quiet --echo done > /done"]);
    let mut command = bundle.command();
    command.step(Step::Close(0)).step(Step::Close(1)).step(Step::Close(2));
    command.run().success();
    assert_eq!(std::fs::read_to_string(bundle.rootfs("done")).unwrap(), "done\n");
    let files = std::fs::read_to_string(bundle.rootfs("files")).unwrap();
    assert!(!files.contains("husk") && !files.contains("state"), "{files}");
}

fn orphans_do_not_outlive_the_container(scene: &Scene) {
    let mut bundle = scene.bundle();
    let script = "/probe --fork --quiet --block < /dev/null > /dev/null 2>&1; /probe --quiet --fork --echo started";
    bundle.args(["/bin/sh", "-c", script]);
    bundle.run().success();
    // The leak check at the end of this test looks for the orphans.
}

fn ignored_and_blocked_signals_are_reset(scene: &Scene) {
    use super::support::launch::Step;
    let mut bundle = scene.bundle();
    bundle.probe(["--read", "/proc/self/status"]);
    let mut command = bundle.command();
    // SIGUSR1 is blocked: what the caller blocks, the workload would never see.
    let report = command.step(Step::Block(10)).step(Step::Ignore(12)).run().success().report();
    let status = report["reads"]["/proc/self/status"].as_str().unwrap();
    let mask = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap()
    };
    assert_eq!(mask("SigBlk"), 0, "blocked");
    // Rust programs ignore SIGPIPE (13) by themselves; SIGUSR2 (12) stays ignored as nohup's SIGHUP would; and glibc's
    // posix_spawn ignores its two signals of its own (32, 33) in a way that only a raw system call could take back.
    let bit = |signal: u32| 1_u64 << (signal - 1);
    assert_eq!(mask("SigIgn") & !(bit(12) | bit(13) | bit(32) | bit(33)), 0, "ignored");
}
