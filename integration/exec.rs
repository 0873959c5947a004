//! `exec`: another process in a container that runs, with each of its flags.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::process::{PidfdFlags, Signal};
use serde_json::{Value, json};

use super::support::husk::read_host;
use super::support::launch::Step;
use super::support::receiver::Receiver;
use super::support::scene::write;
use super::support::{Bundle, Guest, Need, Scene, Test, Who, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(the_status_is_the_commands).and_plain(),
        test!(a_failure_has_a_status_and_no_pid_file).and_plain(),
        test!(a_detached_process_has_a_pid_file).and_plain(),
        test!(the_process_is_where_the_containers_is).and_plain(),
        test!(namespaces_that_are_the_hosts_stay_so).root(),
        test!(a_namespace_that_was_given).root().needs(Need::Program("unshare")),
        test!(a_user_namespace_of_the_container).root(),
        test!(a_time_namespace).needs(Need::Kernel(5, 6)),
        test!(one_namespace_after_the_other).and_plain().needs(Need::Program("strace")),
        test!(the_defaults_are_the_containers),
        test!(flags_change_the_process),
        test!(flags_end_at_the_container).and_plain(),
        test!(a_process_in_a_file),
        test!(a_process_in_a_file_is_completed).and_plain(),
        test!(the_bundle_may_be_gone).and_plain(),
        test!(users_are_numbers),
        test!(standard_streams).and_plain(),
        test!(descriptors_that_are_passed_on).and_plain(),
        test!(a_pidfd_is_sent).and_plain(),
        test!(signals_are_passed_on).and_plain(),
        test!(a_created_container).and_plain(),
        test!(a_stopped_container).and_plain(),
        test!(a_container_of_another_time).and_plain(),
        test!(many_at_once),
        test!(processors_before_and_after).root(),
        test!(processors_are_not_the_callers).and_plain(),
        test!(debug_records).and_plain().needs(Need::Husk),
        test!(under_the_plain_name).and_plain().needs(Need::Husk),
        test!(under_the_name_of_crun).needs(Need::Husk),
    ]
}

const NET_RAW: u64 = 1 << 13;
const TRUE: [&str; 2] = ["/probe", "--quiet"];

fn the_status_is_the_commands(scene: &Scene) {
    let guest = Guest::start(scene, scene.bundle());
    for (words, status) in [
        (&["--quiet"][..], 0),
        (&["--quiet", "--exit", "7"], 7),
        (&["--quiet", "--exit", "255"], 255),
        (&["--quiet", "--signal", "9"], 137),
        (&["--quiet", "--signal", "15"], 143),
    ] {
        let words: Vec<&str> = ["/probe"].into_iter().chain(words.iter().copied()).collect();
        guest.exec(&[], &words).run().exits_with(status);
    }
}

fn a_failure_has_a_status_and_no_pid_file(scene: &Scene) {
    let guest = Guest::start(scene, scene.bundle());
    let pid_file = scene.path().join("pid");
    let flags = ["--detach", "--pid-file", pid_file.to_str().unwrap()];
    for (words, text) in [
        (&["nope"][..], "executable file not found in $PATH"),
        (&["/no/such"], "no such file or directory"),
        (&["/etc"], "permission denied"),
        (&["/etc/passwd"], "permission denied"),
    ] {
        guest.exec(&flags, words).run().exits_with(255).says(text);
        assert!(!pid_file.exists());
    }
    guest.exec(&flags, &[]).run().exits_with(255).says("exec args cannot be empty");
    let unknown = scene.id();
    scene.runtime().args(["exec", &unknown, "/probe"]).run().exits_with(255).says("container does not exist");
}

fn a_detached_process_has_a_pid_file(scene: &Scene) {
    let guest = Guest::start(scene, scene.bundle());
    let (pid_file, process) = (scene.path().join("pid"), scene.path().join("process.json"));
    let document = json!({ "args": ["/probe", "--quiet", "--block"], "cwd": "/", "user": { "uid": 0, "gid": 0 } });
    write(&process, document.to_string());
    let flags = ["--process", process.to_str().unwrap(), "--detach", "--pid-file", pid_file.to_str().unwrap()];
    // Its output stays open as long as the process runs.
    let null = std::process::Stdio::null;
    guest.exec(&flags, &[]).start_with(null(), null(), null()).finish().success();
    let pid = std::fs::read_to_string(&pid_file).unwrap();
    let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert_eq!(command, "/probe\0--quiet\0--block\0");
}

#[track_caller]
fn assert_same_namespaces(report: &Value, pid: i32) {
    for name in ["mnt", "pid", "net", "ipc", "uts", "user", "cgroup", "time"] {
        let theirs = std::fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
        assert_eq!(report["namespaces"][name], theirs.to_str().unwrap(), "{name}");
    }
}

fn the_process_is_where_the_containers_is(scene: &Scene) {
    let guest = Guest::start(scene, scene.bundle());
    let report = guest.report(&[], &[]);
    assert_same_namespaces(&report, guest.pid());
    assert_ne!(report["pid"], 1);
    assert_eq!(report["ppid"], 0, "its parent is outside");
    assert_eq!(report["sid"], report["pid"]);
    assert_eq!(report["cwd"], "/");
    assert_eq!(report["hostname"], "runc");
}

fn namespaces_that_are_the_hosts_stay_so(scene: &Scene) {
    let mut bundle = scene.bundle();
    for kind in ["network", "ipc", "uts", "pid"] {
        bundle.without_namespace(kind);
    }
    bundle.config.as_object_mut().unwrap().remove("hostname");
    bundle.without_mount("/sys").without_mount("/dev/mqueue");
    let guest = Guest::start(scene, bundle);
    assert_same_namespaces(&guest.report(&[], &[]), guest.pid());
}

fn a_namespace_that_was_given(scene: &Scene) {
    let script = "echo ready; read line";
    let mut holder = scene.program("/usr/bin/unshare").args(["--net", "--ipc", "sh", "-c", script]).start();
    holder.line_with("ready");
    let namespaces = Path::new("/proc").join(holder.pid().to_string()).join("ns");
    let mut bundle = scene.bundle();
    bundle.namespace("network", Some(&namespaces.join("net"))).namespace("ipc", Some(&namespaces.join("ipc")));
    let guest = Guest::start(scene, bundle);
    // The path is somebody else's by now; the container is still where it was.
    holder.close_input();
    holder.finish();
    assert_same_namespaces(&guest.report(&[], &[]), guest.pid());
}

/// A user namespace for root's containers, as engines with remapped users have them.
pub(crate) fn remap(bundle: &mut Bundle<'_>) {
    bundle.namespace("user", None);
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
    bundle.config["linux"]["uidMappings"] = map.clone();
    bundle.config["linux"]["gidMappings"] = map;
}

fn a_user_namespace_of_the_container(scene: &Scene) {
    let mut bundle = scene.bundle();
    remap(&mut bundle);
    let guest = Guest::start(scene, bundle);
    let report = guest.report(&[], &[]);
    assert_same_namespaces(&report, guest.pid());
    assert_eq!(report["uid"], json!([0, 0, 0, 0]));
    assert_eq!(report["uid_map"], json!([[0, 100_000, 65_536]]));
    assert_eq!(report["groups"], json!([]));
    let report = guest.report(&["--user", "1000:1001"], &[]);
    assert_eq!((&report["uid"], &report["gid"]), (&json!([1000, 1000, 1000, 1000]), &json!([1001, 1001, 1001, 1001])));
}

fn a_time_namespace(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.namespace("time", None);
    bundle.config["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 604_800 } });
    let guest = Guest::start(scene, bundle);
    let report = guest.report(&[], &["--read", "/proc/uptime"]);
    assert_same_namespaces(&report, guest.pid());
    let uptime: f64 = report["reads"]["/proc/uptime"].as_str().unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(uptime > 604_800.0, "{uptime}");
}

/// A kernel before 5.8 knows no pidfd in setns(2).
fn one_namespace_after_the_other(scene: &Scene) {
    let guest = Guest::start(scene, scene.bundle());
    let trace = scene.path().join("trace");
    let mut command = scene.program("/usr/bin/strace");
    // The first call of each process is the one with the pidfd.
    command.args(["-f", "-q", "-e", "trace=setns", "-e", "inject=setns:error=EINVAL:when=1", "-o"]).arg(&trace);
    command.arg(&super::support::suite::kit().runtime).arg("--root").arg(scene.state_root());
    command.args(["exec", &guest.bundle.id, "/probe"]);
    let report = command.run().success().report();
    assert_same_namespaces(&report, guest.pid());
    let trace = std::fs::read_to_string(trace).unwrap();
    assert!(trace.contains("(INJECTED)") && trace.matches("setns(").count() > 5, "{trace}");
}

fn the_defaults_are_the_containers(scene: &Scene) {
    let mut bundle = scene.bundle();
    let process = &mut bundle.config["process"];
    process["user"] = json!({ "uid": 1000, "gid": 1001, "additionalGids": [50], "umask": 0o027 });
    process["env"] = json!(["PATH=/bin", "A=1"]);
    process["cwd"] = json!("/tmp");
    process["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 321, "hard": 654 }]);
    process["oomScoreAdj"] = json!(77);
    let guest = Guest::start(scene, bundle);
    let report = guest.report(&[], &[]);
    assert_eq!(report["uid"], json!([1000, 1000, 1000, 1000]));
    assert_eq!(report["gid"], json!([1001, 1001, 1001, 1001]));
    assert_eq!(report["groups"], json!([50]));
    assert_eq!(report["umask"], "27");
    assert_eq!(report["env"], json!({ "PATH": "/bin", "A": "1", "HOME": "/home/alice" }));
    assert_eq!(report["cwd"], "/tmp");
    assert_eq!(report["rlimits"]["RLIMIT_NOFILE"], json!([321, 654]));
    assert_eq!(report["oom_score_adj"], 77);
    assert_eq!(report["no_new_privs"], true);
}

/// One of the probe's capability sets.
pub(crate) fn set(report: &Value, name: &str) -> u64 {
    u64::from_str_radix(report["caps"][name].as_str().unwrap(), 16).unwrap()
}

fn flags_change_the_process(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["process"]["noNewPrivileges"] = json!(false);
    bundle.config["process"]["env"] = json!(["PATH=/bin", "A=1", "B=2"]);
    let guest = Guest::start(scene, bundle);
    let report = guest.report(
        &["--cwd", "/tmp", "-e", "A=3", "--env", "C=4,5", "--user", "1000:50", "-g", "29", "--additional-gids", "30"],
        &[],
    );
    assert_eq!(report["cwd"], "/tmp");
    assert_eq!(report["env"], json!({ "PATH": "/bin", "A": "3", "B": "2", "C": "4,5", "HOME": "/home/alice" }));
    assert_eq!(report["uid"], json!([1000, 1000, 1000, 1000]));
    assert_eq!(report["gid"], json!([50, 50, 50, 50]));
    assert_eq!(report["groups"], json!([29, 30]));
    assert_eq!(report["no_new_privs"], false);
    let report = guest.report(&["--no-new-privs"], &[]);
    assert_eq!(report["no_new_privs"], true);

    let bounding = |report: &Value| set(report, "bounding");
    assert_eq!(bounding(&report) & NET_RAW, 0);
    let report = guest.report(&["--cap", "CAP_NET_RAW"], &[]);
    assert_eq!(bounding(&report) & NET_RAW, NET_RAW);
    assert_eq!(set(&report, "inheritable"), 0);
    guest.exec(&["--cap", "CAP_NOPE"], &TRUE).run().exits_with(255).says("CAP_NOPE");
    guest.exec(&["--cwd", "/no/such"], &TRUE).run().exits_with(255).says("/no/such");
    guest.exec(&["--cwd", "relative"], &TRUE).run().exits_with(255).says("Cwd must be an absolute path");
    guest.exec(&["--env", "NONSENSE"], &TRUE).run().exits_with(255).says("NONSENSE");
}

/// What follows the id is the command's, whatever it looks like.
fn flags_end_at_the_container(scene: &Scene) {
    let guest = Guest::start(scene, scene.bundle());
    let outcome = guest.exec(&[], &["/probe", "--quiet", "--echo", "-t"]).run().success();
    assert_eq!(outcome.stdout, "-t\n");
    guest.exec(&[], &["-t", "/probe"]).run().exits_with(255).says_one_of(&["\"-t\"", "\\\"-t\\\""]);
    guest.exec(&[], &["--", "/probe", "--quiet"]).run().success();
}

fn document(scene: &Scene, process: &Value) -> String {
    let file = scene.path().join("process.json");
    write(&file, process.to_string());
    file.to_str().unwrap().to_owned()
}

fn a_process_in_a_file(scene: &Scene) {
    let guest = Guest::start(scene, scene.bundle());
    let file = document(
        scene,
        &json!({
            "args": ["probe"], "cwd": "/tmp", "env": ["PATH=/bin:/", "D=5"],
            "user": { "uid": 1000, "gid": 1001, "additionalGids": [29], "umask": 0o077 },
            "capabilities": { "bounding": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"] },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 }],
            "noNewPrivileges": false, "oomScoreAdj": 99,
        }),
    );
    // The flags are for a process that is not given whole.
    let outcome = guest.exec(&["--process", &file, "--user", "0", "--cwd", "/"], &[]).run().success();
    let report = outcome.report();
    assert_eq!(report["cwd"], "/tmp");
    assert_eq!(report["env"], json!({ "PATH": "/bin:/", "D": "5", "HOME": "/home/alice" }));
    assert_eq!(report["uid"], json!([1000, 1000, 1000, 1000]));
    assert_eq!(report["groups"], json!([29]));
    assert_eq!(report["umask"], "77");
    assert_eq!(set(&report, "bounding"), 1);
    assert_eq!(report["rlimits"]["RLIMIT_NOFILE"], json!([100, 200]));
    assert_eq!(report["no_new_privs"], false);
    assert_eq!(report["oom_score_adj"], 99);
    for (process, text) in [
        (json!({ "args": ["/probe"], "user": {} }), "process.cwd"),
        (json!({ "cwd": "/", "user": {} }), "args must not be empty"),
        (json!({ "args": ["/probe"], "cwd": "x", "user": {} }), "Cwd must be an absolute path"),
        (json!([]), "process"),
    ] {
        let file = document(scene, &process);
        guest.exec(&["--process", &file], &[]).run().exits_with(255).says(text);
    }
    guest.exec(&["--process", "/no/such"], &[]).run().exits_with(255).says("/no/such");
}

/// Nobody gets more by saying less.
fn a_process_in_a_file_is_completed(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 321, "hard": 654 }]);
    bundle.config["process"]["capabilities"] = json!({ "bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"] });
    let guest = Guest::start(scene, bundle);
    let file = document(scene, &json!({ "args": ["/probe"], "cwd": "/", "user": { "uid": 0, "gid": 0 } }));
    let report = guest.exec(&["-p", &file], &[]).run().success().report();
    assert_eq!(report["rlimits"]["RLIMIT_NOFILE"], json!([321, 654]));
    assert_eq!(set(&report, "bounding"), 1 << 5);
    assert_eq!(report["env"], json!({ "HOME": "/root" }));
}

fn the_bundle_may_be_gone(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["process"]["env"] = json!(["A=1"]);
    let guest = Guest::start(scene, bundle);
    let config = guest.bundle.directory.join("config.json");
    write(&config, r#"{"process":{"env":["A=2"],"user":{"uid":5}}}"#);
    assert_eq!(guest.report(&[], &[])["env"]["A"], "1");
    std::fs::remove_file(config).unwrap();
    assert_eq!(guest.report(&[], &[])["env"]["A"], "1");
}

/// CVE-2026-30892: what is no number is nobody, and never root.
fn users_are_numbers(scene: &Scene) {
    let guest = Guest::start(scene, scene.bundle());
    for user in ["", "1abc", "root", "-1", "1:", ":1", "4294967295", "4294967296", "0x1", " 1", "1:2:3"] {
        let outcome = guest.exec(&[&format!("--user={user}")], &TRUE).run().exits_with(255);
        assert!(outcome.stderr.contains("bad uid") || outcome.stderr.contains("bad gid"), "{}", outcome.stderr);
    }
    for gid in ["-1", "x", "4294967295"] {
        guest.exec(&["-g", gid], &TRUE).run().exits_with(255).says("additional-gids");
    }
}

fn standard_streams(scene: &Scene) {
    let guest = Guest::start(scene, scene.bundle());
    let outcome = guest
        .exec(&[], &["/probe", "--quiet", "--cat", "--error", "to the error", "--echo", "to the output"])
        .input("from the input\n")
        .run()
        .success();
    assert_eq!(outcome.stdout, "from the input\nto the output\n");
    assert_eq!(outcome.stderr, "to the error\n");
}

/// CVE-2024-21626: the caller's descriptors are not the process's.
fn descriptors_that_are_passed_on(scene: &Scene) {
    let guest = Guest::start(scene, scene.bundle());
    let numbers = |report: &Value| -> Vec<u32> {
        let mut numbers: Vec<u32> = report["fds"].as_object().unwrap().keys().map(|key| key.parse().unwrap()).collect();
        numbers.sort_unstable();
        numbers
    };
    let mut command = guest.exec(&[], &["/probe"]);
    let report = command.step(Step::LeakDescriptors(10)).run().success().report();
    assert_eq!(numbers(&report), [0, 1, 2]);
    let mut command = guest.exec(&["--preserve-fds", "2"], &["/probe"]);
    let report = command.step(Step::LeakDescriptors(10)).run().success().report();
    assert_eq!(numbers(&report), [0, 1, 2, 3, 4]);
    guest.exec(&["--preserve-fds", "20"], &TRUE).run().exits_with(255).says("unable to stat preserved-fd");
}

fn a_pidfd_is_sent(scene: &Scene) {
    let guest = Guest::start(scene, scene.bundle());
    let receiver = Receiver::listen(scene, "pidfd");
    let mut command =
        guest.exec(&["--pidfd-socket", receiver.path().to_str().unwrap()], &["/probe", "--quiet", "--catch"]);
    let mut running = command.start();
    let (_, pidfd) = receiver.receive();
    running.line_with("ready");
    rustix::process::pidfd_send_signal(&pidfd, Signal::TERM).unwrap();
    running.line_with("SIGTERM");
    running.finish().success();
}

fn signals_are_passed_on(scene: &Scene) {
    let guest = Guest::start(scene, scene.bundle());
    let mut running = guest.exec(&[], &["/probe", "--quiet", "--catch"]).start();
    running.line_with("ready");
    for (signal, name) in [(Signal::INT, "SIGINT"), (Signal::HUP, "SIGHUP"), (Signal::USR1, "SIGUSR1")] {
        running.signal(signal);
        running.line_with(name);
    }
    running.signal(Signal::TERM);
    running.line_with("SIGTERM");
    running.finish().success();
    // One that does not catch it ends by it.
    let mut running = guest.exec(&[], &["/probe", "--quiet", "--echo", "up", "--block"]).start();
    running.line_with("up");
    running.signal(Signal::INT);
    running.finish().exits_with(130);
}

/// Creates a container that waits for `start`.
fn create(scene: &Scene) -> Bundle<'_> {
    let bundle = scene.bundle();
    bundle.write();
    let mut command = scene.runtime();
    command.arg("create").arg("--bundle").arg(&bundle.directory).arg(&bundle.id);
    let null = std::process::Stdio::null;
    command.start_with(null(), null(), null()).finish().success();
    bundle
}

fn a_created_container(scene: &Scene) {
    let bundle = create(scene);
    let outcome = scene.runtime().args(["exec", &bundle.id, "/probe"]).run();
    let state = scene.runtime().args(["state", &bundle.id]).run();
    scene.runtime().args(["delete", "--force", &bundle.id]).run().success();
    assert_eq!(outcome.success().report()["hostname"], "runc");
    assert!(state.stdout.contains("\"created\""), "{}", state.stdout);
}

fn a_stopped_container(scene: &Scene) {
    let bundle = create(scene);
    let state: Value = serde_json::from_str(&scene.runtime().args(["state", &bundle.id]).run().stdout).unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(state["pid"].as_i64().unwrap()).unwrap()).unwrap();
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).unwrap();
    scene.runtime().args(["kill", &bundle.id, "KILL"]).run().success();
    let limit = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
    let mut wait = [rustix::event::PollFd::from_borrowed_fd(pidfd.as_fd(), rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut wait, Some(&limit)).unwrap();
    let outcome = scene.runtime().args(["exec", &bundle.id, "/probe"]).run();
    scene.runtime().args(["delete", &bundle.id]).run().success();
    outcome.exits_with(255).says("cannot exec in a stopped container");
}

/// A process that has got the number of the container's first one is not it.
fn a_container_of_another_time(scene: &Scene) {
    let guest = Guest::start(scene, scene.bundle());
    let file = scene.state_root().join(&guest.bundle.id).join("state.json");
    let text = std::fs::read_to_string(&file).unwrap();
    let mut state: Value = serde_json::from_str(&text).unwrap();
    let start = state["init_process_start"].as_u64().unwrap();
    state["init_process_start"] = json!(start - 1);
    write(&file, state.to_string());
    let outcome = guest.exec(&[], &TRUE).run();
    write(&file, text);
    outcome.exits_with(255).says("cannot exec in a stopped container");
}

fn many_at_once(scene: &Scene) {
    let guest = Guest::start(scene, scene.bundle());
    let mut running: Vec<_> = (0..50)
        .map(|number: i32| {
            let status = (number % 7).to_string();
            (number % 7, guest.exec(&[], &["/probe", "--quiet", "--exit", &status]).start())
        })
        .collect();
    for (status, running) in running.drain(..) {
        running.finish().exits_with(status);
    }
    assert_eq!(guest.state()["status"], "running");
}

/// What runc's own tests look for.
fn debug_records(scene: &Scene) {
    let guest = Guest::start(scene, scene.bundle());
    let log = scene.path().join("log");
    let document = json!({ "args": TRUE, "cwd": "/", "execCPUAffinity": { "initial": "0" } });
    let process = scene.path().join("process.json");
    write(&process, document.to_string());
    let exec = |flags: &[&str]| {
        let mut command = scene.runtime();
        command.arg("--log").arg(&log).args(flags).arg("exec").arg("-p").arg(&process).arg(&guest.bundle.id);
        let outcome = command.run().success();
        assert!(!outcome.stderr.contains("level=debug"), "{}", outcome.stderr);
        std::fs::read_to_string(&log).unwrap()
    };
    assert_eq!(exec(&[]), "");
    let text = exec(&["--debug"]);
    for words in
        ["nsexec: affinity: 0x1\"", "nsexec container setup", "child process in init()", "setns_init: about to exec"]
    {
        assert!(text.lines().any(|line| line.contains(" level=debug msg=") && line.contains(words)), "{words}: {text}");
    }
}

/// Runtime-spec 1.3, `process.execCPUAffinity`.
fn processors_before_and_after(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["process"]["execCPUAffinity"] = json!({ "initial": "0", "final": "0" });
    let guest = Guest::start(scene, bundle);
    let report = guest.report(&[], &["--read", "/proc/self/status"]);
    let status = report["reads"]["/proc/self/status"].as_str().unwrap();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    assert_eq!(allowed.trim(), "0");
    let file = document(
        scene,
        &json!({ "args": ["/probe"], "cwd": "/", "user": {}, "execCPUAffinity": { "initial": "99999" } }),
    );
    guest.exec(&["-p", &file], &[]).run().exits_with(255).says("execCPUAffinity");
}

/// Engines may be tied to some processors by their unit (`CPUAffinity=`), and their containers are not.
fn processors_are_not_the_callers(scene: &Scene) {
    const STATUS: &str = "/proc/self/status";
    let allowed = |status: &str| {
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        list.expect("a list of processors").trim().to_owned()
    };
    let every = allowed(&read_host(STATUS));
    let first = every.split(['-', ',']).next().and_then(|number| number.parse().ok()).expect("a processor");
    let mut bundle = scene.bundle();
    bundle.probe(["--read", STATUS]);
    let report = bundle.command().step(Step::Processor(first)).run().success().report();
    assert_eq!(allowed(report["reads"][STATUS].as_str().unwrap()), every);
    let guest = Guest::start(scene, scene.bundle());
    let report = guest.exec(&[], &["/probe", "--read", STATUS]).step(Step::Processor(first)).run().success().report();
    assert_eq!(allowed(report["reads"][STATUS].as_str().unwrap()), every);
}

/// Callers of a runtime that were given husk by its own name.
fn under_the_plain_name(scene: &Scene) {
    let guest = Guest::start(scene, scene.bundle());
    let file = document(scene, &json!({ "args": ["/probe", "--quiet", "--exit", "3"], "cwd": "/", "user": {} }));
    let mut command = scene.husk();
    command.arg("--root").arg(scene.state_root()).args(["exec", "--process", &file, &guest.bundle.id]);
    command.run().exits_with(3);
    let mut command = scene.husk();
    command.args(["oci", "--root"]).arg(scene.state_root()).args(["exec", &guest.bundle.id, "nope"]);
    command.run().exits_with(255);
    // Without the runtime's flags before it, by `--process` alone: its own state root knows no such container.
    let mut command = scene.husk();
    command.args(["exec", "--pid-file", "/no/such", "--process", &file, &guest.bundle.id]);
    command.run().exits_with(255).says("container does not exist");
}

fn under_the_name_of_crun(scene: &Scene) {
    assert_ne!(scene.who, Who::Plain);
    let guest = Guest::start(scene, scene.bundle());
    let crun = scene.path().join("crun");
    std::os::unix::fs::symlink(&super::support::suite::kit().husk, &crun).unwrap();
    let run = |words: &[&str]| {
        let mut command = scene.program(&crun);
        command.arg("--root").arg(scene.state_root()).args(["exec", &guest.bundle.id]).args(words).run()
    };
    run(&["/probe", "--quiet", "--exit", "9"]).exits_with(9);
    run(&["nope"]).exits_with(1).says("executable file");
}
