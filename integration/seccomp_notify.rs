//! Filters that ask: SCMP_ACT_NOTIFY, and an agent that answers.
//!
//! Without `noNewPrivileges` the filter wants a capability that then goes: what can go wrong is different, so most is tried
//! with both.

use serde_json::{Value, json};

use super::support::{Agent, Answer, Bundle, Guest, Need, Scene, Test, test};

/// Numbers of x86-64.
const MKDIR: i32 = 83;
const ENOMEDIUM: i32 = 123;

pub(crate) fn tests() -> Vec<Test> {
    if cfg!(not(target_arch = "x86_64")) {
        return Vec::new();
    }
    [
        test!(an_agent_decides).and_plain(),
        test!(the_document_is_the_specifications).and_plain(),
        test!(every_call_of_ours_may_be_asked_for).and_plain(),
        test!(sendmsg_may_be_asked_for).and_plain(),
        test!(a_created_container_waits_under_its_filter).and_plain(),
        test!(without_an_agent_calls_are_unknown),
        test!(hooks_inside_get_no_descriptor),
        test!(exec_has_an_agent_too).and_plain(),
        test!(the_wait_can_be_made_killable),
        test!(the_agent_may_be_named_as_crun_does),
        test!(an_abstract_name_is_no_path),
        test!(a_foreign_program_asks_too),
        test!(an_agent_that_is_missing_is_named),
        test!(what_cannot_be_asked_for_is_refused),
        test!(a_path_without_questions_is_nothing),
    ]
    .map(|test| test.needs(Need::Husk))
    .into()
}

/// A bundle whose filter asks the agent about some calls and allows the rest.
fn asking<'a>(scene: &'a Scene, agent: &Agent, names: &[&str]) -> Bundle<'a> {
    let mut bundle = scene.bundle();
    bundle.config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": agent.path(),
        "listenerMetadata": "who",
        "syscalls": [{ "names": names, "action": "SCMP_ACT_NOTIFY" }],
    });
    bundle
}

fn set_no_new_privileges(bundle: &mut Bundle<'_>, value: bool) {
    bundle.config["process"]["noNewPrivileges"] = json!(value);
}

fn an_agent_decides(scene: &Scene) {
    for no_new_privileges in [true, false] {
        let agent = Agent::start(scene, Answer::Error(ENOMEDIUM));
        let mut bundle = asking(scene, &agent, &["mkdir"]);
        set_no_new_privileges(&mut bundle, no_new_privileges);
        bundle.tries(["mkdir:/dev/shm/x", "create:/dev/shm/y"]);
        let report = bundle.report();
        assert_eq!(report["tries"], json!({ "mkdir:/dev/shm/x": "ENOMEDIUM", "create:/dev/shm/y": "ok" }));
        // Neither the listener nor anything of the way that it went.
        assert_eq!(report["fds"].as_object().map(serde_json::Map::len), Some(3), "{}", report["fds"]);
        assert_eq!(agent.finish(), [MKDIR]);
    }
}

fn the_document_is_the_specifications(scene: &Scene) {
    let agent = Agent::start(scene, Answer::Continue);
    let mut bundle = asking(scene, &agent, &["mkdir"]);
    bundle.config["annotations"] = json!({ "a": "b" });
    bundle.report();
    let mut document = agent.document();
    let pid = document["pid"].clone();
    assert!(pid.as_i64().is_some_and(|pid| pid > 0), "{pid}");
    assert_eq!(document["state"]["pid"], pid);
    document["pid"] = json!(0);
    document["state"]["pid"] = json!(0);
    let state = json!({
        "ociVersion": "1.3.0", "id": bundle.id, "status": "creating", "pid": 0, "bundle": bundle.directory,
        "annotations": { "a": "b" },
    });
    let expected = json!({
        "ociVersion": "1.3.0", "fds": ["seccompFd"], "pid": 0, "metadata": "who", "state": state,
    });
    assert_eq!(document, expected);
    agent.finish();
}

/// Everything that husk does behind the loading of the filter: it would wait for ever for an agent that it has not
/// handed the listener to (runc issue 4328).
fn every_call_of_ours_may_be_asked_for(scene: &Scene) {
    let names = "read close fcntl open openat openat2 execve execveat recvmsg sendto recvfrom memfd_create pwrite64 \
        prctl prlimit64 close_range chdir fchdir getcwd setgroups setresuid setresgid setuid setgid capset capget stat \
        newfstatat statx access faccessat faccessat2 fchown fstat fstatfs umask mmap munmap exit_group";
    let names: Vec<&str> = names.split_whitespace().collect();
    for no_new_privileges in [true, false] {
        let agent = Agent::start(scene, Answer::Continue);
        let mut bundle = asking(scene, &agent, &names);
        set_no_new_privileges(&mut bundle, no_new_privileges);
        bundle.config["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 100 }]);
        assert_eq!(bundle.report()["seccomp"], 2);
        assert!(agent.finish().contains(&59), "execve is asked for");
    }
}

fn sendmsg_may_be_asked_for(scene: &Scene) {
    for no_new_privileges in [true, false] {
        let agent = Agent::start(scene, Answer::Continue);
        let mut bundle = asking(scene, &agent, &["sendmsg", "mkdir"]);
        set_no_new_privileges(&mut bundle, no_new_privileges);
        bundle.tries(["mkdir:/dev/shm/x"]);
        assert_eq!(bundle.report()["tries"]["mkdir:/dev/shm/x"], "ok");
        assert_eq!(agent.finish(), [MKDIR]);
    }
}

/// The command that makes it has gone by then: the listener must be handed over before that.
fn a_created_container_waits_under_its_filter(scene: &Scene) {
    for no_new_privileges in [true, false] {
        let agent = Agent::start(scene, Answer::Error(ENOMEDIUM));
        let mut bundle = asking(scene, &agent, &["mkdir"]);
        set_no_new_privileges(&mut bundle, no_new_privileges);
        bundle.tries(["mkdir:/dev/shm/x"]).write();
        let mut command = scene.runtime();
        command.arg("create").arg("--bundle").arg(&bundle.directory).arg(&bundle.id);
        let mut creating = command.start();
        creating.wait();
        assert_eq!(agent.document()["state"]["status"], "creating");
        scene.runtime().args(["start", &bundle.id]).run().success();
        assert_eq!(creating.report()["tries"]["mkdir:/dev/shm/x"], "ENOMEDIUM");
        creating.finish().success();
        scene.runtime().args(["delete", "--force", &bundle.id]).run().success();
        assert_eq!(agent.finish(), [MKDIR]);
    }
}

fn without_an_agent_calls_are_unknown(scene: &Scene) {
    let agent = Agent::start(scene, Answer::Leave);
    let mut bundle = asking(scene, &agent, &["mkdir"]);
    // By the time that a first word was read and answered, the agent has gone.
    bundle.probe(["--echo", "up", "--cat"]).tries(["mkdir:/dev/shm/x"]);
    let mut running = bundle.command().start();
    running.line_with("up");
    agent.finish();
    running.close_input();
    assert_eq!(running.report()["tries"]["mkdir:/dev/shm/x"], "ENOSYS");
    running.finish().success();
}

/// startContainer comes when the filter is loaded, and inherits it.
fn hooks_inside_get_no_descriptor(scene: &Scene) {
    let agent = Agent::start(scene, Answer::Continue);
    let mut bundle = asking(scene, &agent, &["mkdir"]);
    bundle.mount("/out", "bind", scene.tree("out", &[]), &["bind", "rw"]);
    bundle.config["hooks"]["startContainer"] = json!([{ "path": "/bin/sh", "args":
        ["sh", "-c", "test $(ls /proc/self/fd | wc -l) = 4 && mkdir /out/made"] }]);
    bundle.run().success();
    assert!(scene.path().join("out/made").exists());
    assert_eq!(agent.finish(), [MKDIR]);
}

fn exec_has_an_agent_too(scene: &Scene) {
    for no_new_privileges in [true, false] {
        let agent = Agent::start(scene, Answer::Error(ENOMEDIUM));
        let mut bundle = asking(scene, &agent, &["mkdir"]);
        set_no_new_privileges(&mut bundle, no_new_privileges);
        let guest = Guest::start(scene, bundle);
        let first = agent.document();
        // One agent takes one listener; another takes its place at the socket.
        let other = Agent::start(scene, Answer::Error(ENOMEDIUM));
        std::fs::rename(other.path(), agent.path()).expect("move the socket");
        let report = guest.report(&[], &["--try", "mkdir:/dev/shm/x"]);
        assert_eq!(report["tries"]["mkdir:/dev/shm/x"], "ENOMEDIUM");
        let second = other.document();
        assert_eq!((&second["state"]["status"], &second["state"]["pid"]), (&json!("running"), &first["pid"]));
        assert_ne!(second["pid"], first["pid"]);
        assert_eq!(other.finish(), [MKDIR]);
        drop(guest);
        agent.finish();
    }
}

fn the_wait_can_be_made_killable(scene: &Scene) {
    let agent = Agent::start(scene, Answer::Continue);
    let mut bundle = asking(scene, &agent, &["mkdir"]);
    let flags = ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG"];
    bundle.config["linux"]["seccomp"]["flags"] = json!(flags);
    bundle.tries(["mkdir:/dev/shm/x"]);
    assert_eq!(bundle.report()["tries"]["mkdir:/dev/shm/x"], "ok");
    agent.finish();
}

fn the_agent_may_be_named_as_crun_does(scene: &Scene) {
    for by_annotation in [true, false] {
        let agent = Agent::start(scene, Answer::Error(ENOMEDIUM));
        let mut bundle = asking(scene, &agent, &["mkdir"]);
        bundle.config["linux"]["seccomp"]["listenerPath"] = json!("");
        bundle.tries(["mkdir:/dev/shm/x"]);
        if by_annotation {
            bundle.config["annotations"] = json!({ "run.oci.seccomp.receiver": agent.path() });
        }
        let mut command = bundle.command();
        if !by_annotation {
            command.env("RUN_OCI_SECCOMP_RECEIVER", agent.path());
        }
        assert_eq!(command.run().success().report()["tries"]["mkdir:/dev/shm/x"], "ENOMEDIUM");
        assert_eq!(agent.finish(), [MKDIR]);
    }
}

fn an_abstract_name_is_no_path(scene: &Scene) {
    let agent = Agent::start(scene, Answer::Continue);
    let mut bundle = asking(scene, &agent, &["mkdir"]);
    bundle.config["linux"]["seccomp"]["listenerPath"] = json!("@husk-test-nobody-listens-here");
    bundle.run().exits_with(1).says("failed to connect with seccomp agent").says("ECONNREFUSED");
}

/// The program of crun's annotation asks about mkdir; the profile beside it kills for it.
fn a_foreign_program_asks_too(scene: &Scene) {
    let agent = Agent::start(scene, Answer::Error(ENOMEDIUM));
    let mut bundle = asking(scene, &agent, &[]);
    bundle.config["linux"]["seccomp"]["syscalls"] = json!([{ "names": ["mkdir"], "action": "SCMP_ACT_KILL_PROCESS" }]);
    bundle.config["annotations"] =
        json!({ "run.oci.seccomp_bpf_data": "IAAAAAAAAAAVAAABUwAAAAYAAAAAAMB/BgAAAAAA/38=" });
    bundle.tries(["mkdir:/dev/shm/x"]);
    assert_eq!(bundle.report()["tries"]["mkdir:/dev/shm/x"], "ENOMEDIUM");
    agent.finish();
}

fn an_agent_that_is_missing_is_named(scene: &Scene) {
    for no_new_privileges in [true, false] {
        let mut bundle = scene.bundle();
        set_no_new_privileges(&mut bundle, no_new_privileges);
        bundle.config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": scene.path().join("nobody"),
            "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }],
        });
        bundle
            .run()
            .exits_with(1)
            .says("linux.seccomp.listenerPath: ")
            .says("failed to connect with seccomp agent specified in the seccomp profile: no such file or directory");
    }
}

fn what_cannot_be_asked_for_is_refused(scene: &Scene) {
    let notify = |names: Value| json!([{ "names": names, "action": "SCMP_ACT_NOTIFY" }]);
    let path = json!("/run/agent");
    for (default, rules, path, message) in [
        ("ALLOW", notify(json!(["read", "write"])), &path, "SCMP_ACT_NOTIFY cannot be used for the write syscall"),
        ("NOTIFY", json!([]), &path, "SCMP_ACT_NOTIFY cannot be the default"),
        ("ALLOW", notify(json!(["mkdir"])), &json!(""), "seccomp listenerPath is not set"),
        ("ALLOW", notify(json!(["mkdir"])), &Value::Null, "seccomp listenerPath is not set"),
    ] {
        let mut bundle = scene.bundle();
        bundle.config["linux"]["seccomp"] =
            json!({ "defaultAction": format!("SCMP_ACT_{default}"), "syscalls": rules, "listenerPath": path });
        bundle.run().exits_with(1).says(message);
    }
}

fn a_path_without_questions_is_nothing(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["linux"]["seccomp"] =
        json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/no/such", "listenerMetadata": "x" });
    bundle.run().success();
}
