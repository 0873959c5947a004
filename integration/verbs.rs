//! The runtime's verbs and global flags: what they print to the byte, what they say, and the statuses they end with.
//!
//! Where Debian's runc is there, its own answers are what is compared with.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};

use super::support::husk::{Invocation, Outcome};
use super::support::suite::kit;
use super::support::{Bundle, Need, Scene, Test, Who, test};

pub(crate) fn tests() -> Vec<Test> {
    let runc = Need::Program("runc");
    let husk = |test: Test| test.needs(Need::Husk);
    [
        test!(a_life_in_runcs_words).and_plain(),
        test!(documents_are_runcs_to_the_byte).root().needs(runc),
        test!(specs_are_runcs_to_the_byte).and_plain().needs(runc),
        test!(under_the_name_crun_it_speaks_as_crun).root(),
        test!(processes_are_listed).and_plain(),
        test!(pausing_and_resuming).root(),
        test!(an_update_changes_what_it_names).root().needs(Need::CgroupV1("memory")).needs(Need::CgroupV1("pids")),
        test!(events_end_with_the_container).root(),
        test!(an_oom_is_an_event).root().needs(Need::CgroupV1("memory")),
        test!(features_are_what_callers_look_for).and_plain(),
        test!(the_log_has_one_record).and_plain(),
        test!(a_created_container_ends_at_a_signal).and_plain().needs(Need::Busybox),
        test!(logs_of_the_system).root().needs(Need::Program("unshare")),
        test!(debug_records_go_to_the_log).and_plain(),
        test!(wrong_words).and_plain(),
        test!(one_dash_is_as_good_as_two).and_plain(),
        test!(regular_expressions_choose_containers).root(),
        test!(a_kill_reaches_all_where_pids_are_shared).root().needs(Need::Busybox),
        test!(podmans_bare_words_under_the_plain_name).users(),
        test!(a_container_in_creating_is_its_makers).root(),
        test!(what_a_killed_maker_left_blocks_nobody).root(),
    ]
    .into_iter()
    .map(husk)
    .collect()
}

/// A bundle whose process waits for its end, silent.
fn waiting(scene: &Scene) -> Bundle<'_> {
    let mut bundle = scene.bundle();
    bundle.args(["/probe", "--quiet", "--block"]);
    bundle
}

/// A container that was created and not started.
fn create(bundle: &Bundle<'_>, scene: &Scene) {
    bundle.write();
    let mut command = scene.runtime();
    command.arg("create").arg("--bundle").arg(&bundle.directory).arg(&bundle.id);
    detached(&command);
}

/// Runs what leaves a container behind, which would hold on to the pipes of a caller that reads.
fn detached(command: &Invocation<'_>) {
    let status = command.spawn(Stdio::null(), Stdio::null(), Stdio::null()).wait().unwrap();
    assert!(status.success(), "{status}");
}

fn verb(scene: &Scene, words: &[&str]) -> Outcome {
    scene.runtime().args(words).run()
}

fn state(scene: &Scene, id: &str) -> Value {
    serde_json::from_str(&verb(scene, &["state", id]).success().stdout).unwrap()
}

fn wait_until_stopped(scene: &Scene, id: &str) {
    while state(scene, id)["status"] != "stopped" {
        std::thread::yield_now();
    }
}

/// The executable under another name.
fn named(scene: &Scene, name: &str) -> PathBuf {
    let link = scene.path().join(name);
    if !link.exists() {
        std::os::unix::fs::symlink(&kit().husk, &link).unwrap();
    }
    link
}

fn crun<'a>(scene: &'a Scene, words: &[&str]) -> Outcome {
    let mut command: Invocation<'a> = scene.program(named(scene, "crun"));
    command.arg("--root").arg(scene.state_root()).args(words).run()
}

fn a_life_in_runcs_words(scene: &Scene) {
    let bundle = waiting(scene);
    let id = &*bundle.id;
    verb(scene, &["state", id]).exits_with(1).says("container does not exist");
    verb(scene, &["kill", id, "9"]).exits_with(1).says("container does not exist");
    verb(scene, &["delete", id]).exits_with(1).says("container does not exist");
    verb(scene, &["delete", "--force", id]).success();
    create(&bundle, scene);
    assert_eq!(state(scene, id)["status"], "created");
    scene
        .runtime()
        .arg("create")
        .arg("-b")
        .arg(&bundle.directory)
        .arg(id)
        .run()
        .exits_with(1)
        .says("container with given ID already exists");
    verb(scene, &["start", id]).success();
    assert_eq!(state(scene, id)["status"], "running");
    verb(scene, &["start", id]).exits_with(1).says("cannot start an already running container");
    verb(scene, &["delete", id])
        .exits_with(1)
        .says(&format!("cannot delete container {id} that is not stopped: running"));
    verb(scene, &["kill", id, "0"]).success();
    verb(scene, &["kill", id, "NOSUCH"]).exits_with(1).says("unknown signal");
    verb(scene, &["kill", id, "SIGKILL"]).success();
    wait_until_stopped(scene, id);
    assert_eq!(state(scene, id)["pid"], 0);
    verb(scene, &["kill", id]).exits_with(1).says("container not running");
    verb(scene, &["kill", "--all", id, "9"]).success();
    verb(scene, &["start", id]).exits_with(1).says("cannot start a container that has stopped");
    verb(scene, &["pause", id]).exits_with(1).says("container not running");
    verb(scene, &["resume", id]).exits_with(1).says("container not paused");
    verb(scene, &["update", "--pids-limit", "9", id]).exits_with(1).says("container not running");
    verb(scene, &["events", "--stats", id]).exits_with(1).says(&format!("container with id {id} is not running"));
    verb(scene, &["delete", id]).success();
}

/// Replaces what differs between two containers.
fn settled(text: &str, state: &Value) -> String {
    let mut text = text.to_owned();
    for (what, with) in [("created", "CREATED"), ("pid", "PID"), ("ociVersion", "VERSION")] {
        let value = state[what].as_str().map_or_else(|| state[what].to_string(), str::to_owned);
        text = text.replace(&value, with);
    }
    text
}

fn documents_are_runcs_to_the_byte(scene: &Scene) {
    let mut bundle = waiting(scene);
    bundle.config["annotations"] = json!({"z": "<last> & least", "a": "first"});
    bundle.write();
    let answers = |program: &Path, root: &str| -> Vec<String> {
        let run = |words: &[&str]| -> Outcome {
            scene.program(program).arg("--root").arg(scene.path().join(root)).args(words).run()
        };
        let id = &*bundle.id;
        let mut command = scene.program(program);
        command.arg("--root").arg(scene.path().join(root)).args(["create", "--bundle"]).arg(&bundle.directory).arg(id);
        detached(&command);
        let state: Value = serde_json::from_str(&run(&["state", id]).success().stdout).unwrap();
        let mut answers = Vec::new();
        for words in
            [&["state", id][..], &["list"], &["list", "-f", "json"], &["list", "-q"], &["ps", "-f", "json", id]]
        {
            answers.push(settled(&run(words).success().stdout, &state));
        }
        run(&["delete", "--force", id]).success();
        for words in [&["list"][..], &["list", "--format", "json"], &["list", "--quiet"]] {
            answers.push(run(words).success().stdout);
        }
        answers
    };
    let theirs = answers(Path::new("/usr/sbin/runc"), "theirs");
    let ours = answers(&kit().runtime, "ours");
    // A time without its last zeros moves what is after it.
    let squeezed = |texts: Vec<String>| -> Vec<String> {
        texts.iter().map(|text| text.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")).collect()
    };
    assert_eq!(ours[0].len(), ours[0].trim_end().len(), "no newline after the state");
    assert_eq!(squeezed(ours), squeezed(theirs));
}

fn specs_are_runcs_to_the_byte(scene: &Scene) {
    let flags: &[&str] = if scene.who == Who::Root { &[] } else { &["--rootless"] };
    let write = |program: &Path, name: &str| {
        let directory = scene.tree(name, &[]);
        scene.program(program).arg("spec").args(flags).arg("--bundle").arg(&directory).run().success();
        let mut text = std::fs::read_to_string(directory.join("config.json")).unwrap();
        // Since 1.2 runc gives no ambient capabilities; Debian 12 has an older one.
        if let Some(start) = text.find(",\n\t\t\t\"ambient\": [") {
            let length = text[start..].find(']').unwrap() + 1;
            text.replace_range(start..start + length, "");
        }
        text.lines().filter(|line| !line.contains("ociVersion")).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(write(&kit().runtime, "ours"), write(Path::new("/usr/sbin/runc"), "theirs"));
    let again = scene.runtime().arg("spec").arg("-b").arg(scene.path().join("ours")).run();
    again.exits_with(1).says("File config.json exists. Remove it first");
    // crun's flag.
    let spec = || scene.runtime().arg("spec").args(["-f", "other.json", "-b"]).arg(scene.path().join("ours")).run();
    spec().success();
    spec().exits_with(1).says("File other.json exists");
}

fn under_the_name_crun_it_speaks_as_crun(scene: &Scene) {
    assert_eq!(crun(scene, &["--root", "/nonexistent/husk", "--version"]).success().stdout.lines().next().unwrap(), {
        concat!("crun version ", env!("CARGO_PKG_VERSION"))
    });
    let bundle = waiting(scene);
    create(&bundle, scene);
    let id = &*bundle.id;
    let pid = state(scene, id)["pid"].to_string();
    let text = crun(scene, &["state", id]).success().stdout;
    assert!(text.starts_with("{\n  \"ociVersion\": \"1.0.0\",\n  \"id\": ") && text.ends_with("\n}\n"), "{text}");
    assert!(text.contains("\"owner\": \"root\""), "{text}");
    assert_eq!(crun(scene, &["ps", id]).success().stdout, format!("PID\n{pid}\n"));
    assert_eq!(crun(scene, &["ps", "-f", "json", id]).success().stdout, format!("[\n  {pid}\n]\n"));
    let table = crun(scene, &["list"]).success().stdout;
    let width = id.len() + 1;
    let header =
        format!("{:<width$}{:<10}{:<8} {:<39} {:<30} OWNER\n", "NAME", "PID", "STATUS", "BUNDLE PATH", "CREATED");
    assert!(table.starts_with(&header), "{table}");
    crun(scene, &["nosuch"]).exits_with(1).says("unknown command nosuch");
    crun(scene, &[]).exits_with(1).says("please specify a command");
    crun(scene, &["state"]).exits_with(1).says("`state` requires a minimum of 1 arguments");
    crun(scene, &["delete", "--force", id]).success();
    assert_eq!(crun(scene, &["list", "-f", "json"]).success().stdout, "[\n\n]\n");
}

fn processes_are_listed(scene: &Scene) {
    let bundle = waiting(scene);
    create(&bundle, scene);
    let id = &*bundle.id;
    let pid = state(scene, id)["pid"].to_string();
    let listed = verb(scene, &["ps", "--format", "json", id]).success().stdout;
    // Without a cgroup of its own, which not every user can have, nobody is known.
    if scene.who == Who::Root {
        assert_eq!(listed, format!("[{pid}]\n"));
        let table = verb(scene, &["ps", id]).success().stdout;
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines.len() == 2 && lines[0].starts_with("UID ") && lines[1].contains(&pid), "{table}");
        let table = verb(scene, &["ps", id, "-e", "-x"]).success().stdout;
        assert!(table.lines().next().unwrap().contains("PID TTY"), "{table}");
        // Where the program is not there, husk makes the table.
        let own = scene.runtime().env("PATH", "/nonexistent").args(["ps", id]).run().success().stdout;
        let columns = |line: &str| line.split_ascii_whitespace().take(3).map(str::to_owned).collect::<Vec<_>>();
        let of_ps = verb(scene, &["ps", id]).success().stdout;
        assert_eq!(columns(&own), columns(&of_ps));
        let rows = [&own, &of_ps].map(|table| columns(table.lines().nth(1).unwrap()));
        assert_eq!(rows[0], rows[1], "{own}{of_ps}");
        verb(scene, &["ps", id, "-o", "comm"]).exits_with(1).says("couldn't find PID field in ps output");
    } else {
        assert!(listed == "null\n" || listed == format!("[{pid}]\n"), "{listed}");
    }
    verb(scene, &["ps", "-f", "yaml", id]).exits_with(1).says("invalid format option");
    verb(scene, &["delete", "--force", id]).success();
}

fn pausing_and_resuming(scene: &Scene) {
    let bundle = waiting(scene);
    create(&bundle, scene);
    let id = &*bundle.id;
    verb(scene, &["start", id]).success();
    verb(scene, &["resume", id]).exits_with(1).says("container not paused");
    verb(scene, &["pause", id]).success();
    assert_eq!(state(scene, id)["status"], "paused");
    verb(scene, &["pause", id]).exits_with(1).says("container not running");
    verb(scene, &["start", id]).exits_with(1).says("cannot start a container in the paused state");
    verb(scene, &["delete", id]).exits_with(1).says("not stopped: paused");
    verb(scene, &["resume", id]).success();
    assert_eq!(state(scene, id)["status"], "running");
    verb(scene, &["pause", id]).success();
    // Who is frozen is killed all the same.
    verb(scene, &["kill", id, "KILL"]).success();
    wait_until_stopped(scene, id);
    verb(scene, &["delete", id]).success();
}

fn an_update_changes_what_it_names(scene: &Scene) {
    let bundle = waiting(scene);
    create(&bundle, scene);
    let id = &*bundle.id;
    let read = |controller: &str, file: &str| {
        let path = format!("/sys/fs/cgroup/{controller}/{id}/{file}");
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}")).trim().to_owned()
    };
    verb(scene, &["update", "--memory", "64M", "--pids-limit", "20", id]).success();
    assert_eq!(read("memory", "memory.limit_in_bytes"), "67108864");
    assert_eq!(read("pids", "pids.max"), "20");
    verb(scene, &["update", "--memory-reservation", "33554432", id]).success();
    assert_eq!(read("memory", "memory.soft_limit_in_bytes"), "33554432");
    assert_eq!(read("memory", "memory.limit_in_bytes"), "67108864", "what is not named stays");
    let mut command = scene.runtime();
    command.args(["update", "--resources=-", id]).input(r#"{"pids": {"limit": 30}, "cpu": {"shares": 512}}"#);
    command.run().success();
    assert_eq!((read("pids", "pids.max"), read("cpu", "cpu.shares")), ("30".to_owned(), "512".to_owned()));
    let file = scene.tree("limits", &[("limits.json", r#"{"memory": {"limit": -1}}"#)]).join("limits.json");
    scene.runtime().arg("update").arg("-r").arg(file).arg(id).run().success();
    assert!(read("memory", "memory.limit_in_bytes").len() > 15);
    verb(scene, &["update", "--pids-limit", "-1", id]).success();
    assert_eq!(read("pids", "pids.max"), "max");
    verb(scene, &["update", "--kernel-memory", "1g", id]).success().says("Kernel memory settings are ignored");
    verb(scene, &["update", "--cpu-quota", "much", id]).exits_with(1).says("invalid value for cpu-quota");
    verb(scene, &["update", "--l3-cache-schema", "L3:0=f", id]).exits_with(1).says("Intel RDT/CAT");
    verb(scene, &["delete", "--force", id]).success();
}

fn events_end_with_the_container(scene: &Scene) {
    let bundle = waiting(scene);
    create(&bundle, scene);
    let id = &*bundle.id;
    let line = verb(scene, &["events", "--stats", id]).success().stdout;
    assert!(
        line.starts_with(&format!("{{\"type\":\"stats\",\"id\":\"{id}\",\"data\":{{\"cpu\":{{\"usage\":{{")),
        "{line}"
    );
    let event: Value = serde_json::from_str(&line).unwrap();
    let parts: Vec<&String> = event["data"].as_object().unwrap().keys().collect();
    let expected = ["blkio", "cpu", "cpuset", "hugetlb", "intel_rdt", "memory", "network_interfaces", "pids"];
    assert_eq!(parts, expected);
    assert_eq!(event["data"]["pids"]["current"], 1);
    verb(scene, &["events", "--interval", "0s", id]).exits_with(1).says("duration interval must be greater than 0");
    let mut running = scene.runtime().args(["events", "--interval", "10ms", id]).start();
    for _ in 0..2 {
        assert!(running.line().starts_with("{\"type\":\"stats\""));
    }
    verb(scene, &["delete", "--force", id]).success();
    running.finish().success();
}

fn an_oom_is_an_event(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.args(["/bin/sh", "-c", "read line; tail /dev/zero"]);
    bundle.config["linux"]["resources"]["memory"] = json!({"limit": 16 << 20, "swap": 16 << 20});
    bundle.write();
    let mut workload = bundle.command().start();
    while verb(scene, &["state", &bundle.id]).code() != 0 || state(scene, &bundle.id)["status"] != "running" {
        std::thread::yield_now();
    }
    let mut events = scene.runtime().args(["events", "--interval", "20ms", &bundle.id]).start();
    assert!(events.line().starts_with("{\"type\":\"stats\""));
    workload.write("go\n");
    let told = events.finish().success().stdout;
    assert!(told.lines().any(|line| line == format!("{{\"type\":\"oom\",\"id\":\"{}\"}}", bundle.id)), "{told}");
    workload.finish();
}

fn features_are_what_callers_look_for(scene: &Scene) {
    let text = verb(scene, &["features"]).success().stdout;
    assert!(text.starts_with("{\n    \"ociVersionMin\": \"1.0.0\",\n    \"ociVersionMax\": \"1.3.0\",\n"), "{text}");
    let features: Value = serde_json::from_str(&text).unwrap();
    let has = |list: &Value, word: &str| list.as_array().unwrap().contains(&json!(word));
    // What CRI-O looks for.
    assert!(has(&features["mountOptions"], "rro"));
    assert_eq!(features["linux"]["mountExtensions"]["idmap"]["enabled"], true);
    assert!(has(&features["linux"]["namespaces"], "time"));
    assert!(has(&features["linux"]["seccomp"]["actions"], "SCMP_ACT_ERRNO"));
    assert!(has(&features["hooks"], "createRuntime"));
    assert_eq!(features["linux"]["capabilities"].as_array().unwrap().len(), 41);
    let annotations = features["annotations"].as_object().unwrap();
    assert!(annotations.contains_key("org.opencontainers.runc.version"));
    assert!(!annotations.contains_key("org.opencontainers.runc.commit"), "that is for runc alone");
    // Engines ask for it without a word before it.
    assert_eq!(scene.husk().arg("features").run().success().stdout, text);
}

fn the_log_has_one_record(scene: &Scene) {
    let log = scene.path().join("log.json");
    let mut command = scene.runtime();
    command.arg("--log").arg(&log).args(["--log-format", "json", "state", "nosuch"]);
    let outcome = command.run().exits_with(1);
    // Podman reads all of it as one document.
    let record: Value = serde_json::from_str(&std::fs::read_to_string(&log).unwrap()).unwrap();
    assert_eq!(record["level"], "error");
    assert!(record["msg"].as_str().unwrap().starts_with("container does not exist"), "{record}");
    assert!(outcome.stderr.contains("container does not exist") && !outcome.stderr.contains('{'), "{}", outcome.stderr);
    // Another is added, in crun's words for the place as well, and a success adds none.
    let mut place = std::ffi::OsString::from("file:");
    place.push(&log);
    scene.runtime().arg("--log").arg(&place).args(["--log-format=json", "nosuch"]).run().exits_with(3);
    scene.runtime().arg("--log").arg(&log).arg("features").run().success();
    assert_eq!(std::fs::read_to_string(&log).unwrap().lines().count(), 2);
    let outcome = scene.runtime().arg("--log").arg(scene.path().join("no/such")).arg("features").run();
    outcome.exits_with(1).says("no such file or directory");
}

/// crun's words for the journal and syslog. Both are stood in for, in a mount namespace where nothing else is.
fn logs_of_the_system(scene: &Scene) {
    let journal = "/run/systemd/journal/socket";
    let heard = |log: &str, directory: &str, place: &str| {
        let name = tempfile::Builder::new().prefix("hk").tempdir_in("/tmp").unwrap();
        let path = name.path().join("socket");
        let listener = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        let script = "mount -t tmpfs tmpfs \"$1\" && mkdir -p \"${2%/*}\" && : > \"$2\" && mount --bind \"$3\" \"$2\" && \
                      shift 3 && exec \"$@\"";
        let mut command = scene.program("/usr/bin/unshare");
        command.args(["--mount", "sh", "-c", script, "sh", directory, place]).arg(&path).arg(&kit().runtime);
        command.arg("--root").arg(scene.state_root()).args(["--log", log, "state", "nosuch"]);
        command.run().exits_with(1).says("container does not exist");
        listener.set_nonblocking(true).unwrap();
        let mut buffer = [0; 1024];
        let length = listener.recv(&mut buffer).expect("a record was sent");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let record = heard("journald:web", "/run", journal);
    assert!(record.starts_with("MESSAGE=container does not exist"), "{record}");
    assert!(record.ends_with("\nPRIORITY=3\nSYSLOG_IDENTIFIER=web\n"), "{record}");
    let record = heard("syslog:web", "/dev", "/dev/log");
    assert!(record.starts_with("<27>web[") && record.contains("]: container does not exist"), "{record}");
}

/// It is the first process of a PID namespace, to which the kernel sends no signal that it has no handler for.
fn a_created_container_ends_at_a_signal(scene: &Scene) {
    for signal in ["TERM", "INT", "HUP", "QUIT"] {
        for hooks in [json!({}), json!({ "startContainer": [{ "path": "/bin/true" }] })] {
            let mut bundle = waiting(scene);
            bundle.config["hooks"] = hooks;
            create(&bundle, scene);
            verb(scene, &["kill", &bundle.id, signal]).success();
            wait_until_stopped(scene, &bundle.id);
            verb(scene, &["delete", &bundle.id]).success();
        }
    }
}

fn debug_records_go_to_the_log(scene: &Scene) {
    let bundle = scene.bundle();
    bundle.write();
    let log = scene.path().join("log");
    let run = |flags: &[&str]| {
        let mut command = scene.runtime();
        command.arg("--log").arg(&log).args(flags).arg("run").arg("-b").arg(&bundle.directory).arg(&bundle.id);
        command.run().success()
    };
    run(&[]);
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "");
    let outcome = run(&["--debug"]);
    assert!(!outcome.stderr.contains("level=debug"), "{}", outcome.stderr);
    let text = std::fs::read_to_string(&log).unwrap();
    // What runc's own tests look for.
    for words in ["nsexec container setup", "child process in init()", "init: closing the pipe to signal completion"] {
        assert!(text.lines().any(|line| line.contains(" level=debug msg=") && line.contains(words)), "{words}: {text}");
    }
    std::fs::remove_file(&log).unwrap();
    run(&["--log-format", "json", "--log-level", "debug"]);
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.lines().all(|line| line.contains(r#""level":"debug""#)), "{text}");
}

fn wrong_words(scene: &Scene) {
    let runtime = |words: &[&str]| scene.program(&kit().runtime).args(words).run();
    runtime(&["--root", "/", "list"]).exits_with(1).says("Option --root argument should not be set to /");
    runtime(&["--root", "/a/../..", "list"]).exits_with(1).says("should not be set to /");
    runtime(&["--log-format", "xml", "list"]).exits_with(1).says("invalid log-format: xml");
    runtime(&["--log-level", "loud", "list"]).exits_with(1).says("unknown verbosity `loud` specified");
    runtime(&["--rootless", "maybe", "list"]).exits_with(1).says("--rootless");
    runtime(&["--root", "/nonexistent/husk", "list"]).exits_with(1).says("/nonexistent/husk");
    scene.runtime().args(["--criu", "/no/such", "list"]).run().success();
    runtime(&["nosuch", "-h"]).exits_with(3).says("No help topic for 'nosuch'");
    runtime(&["state"]).exits_with(1).says("requires exactly 1 argument(s)");
    runtime(&["state", "a", "b"]).exits_with(1).says("requires exactly 1 argument(s)");
    runtime(&["kill", "a", "9", "b"]).exits_with(1).says("requires a maximum of 2 argument(s)");
    runtime(&["list", "--nosuch"]).exits_with(1).says("flag provided but not defined: -nosuch");
    // Podman asks so whether a checkpoint can be restored with a label.
    runtime(&["restore", "--lsm-mount-context"]).exits_with(1).says("flag needs an argument");
    scene.husk().args(["restore", "--lsm-mount-context"]).run().exits_with(1).says("flag needs an argument");
    scene.husk().args(["checkpoint", "--help"]).run().success();
    let help = runtime(&["--help"]).success().stdout;
    assert!(help.starts_with("NAME:\n   "), "{help}");
    assert_eq!(runtime(&[]).success().stdout, help);
    for verb in
        ["create", "delete", "events", "exec", "features", "kill", "list", "pause", "ps", "resume", "run", "spec"]
    {
        assert!(help.contains(verb), "{verb}: {help}");
        let text = runtime(&[verb, "-h"]).success().stdout;
        assert!(text.lines().nth(1).unwrap().contains(verb), "{text}");
        assert_eq!(runtime(&["help", verb]).success().stdout.lines().nth(1), text.lines().nth(1));
    }
}

/// go-runc passes `-no-subreaper`.
fn one_dash_is_as_good_as_two(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.args(["/probe", "--quiet", "--exit", "7"]);
    bundle.write();
    let mut command = scene.program(&kit().runtime);
    command.arg("-root").arg(scene.state_root()).args(["run", "-no-subreaper", "-bundle"]).arg(&bundle.directory);
    command.arg(&bundle.id).run().exits_with(7);
}

fn regular_expressions_choose_containers(scene: &Scene) {
    let bundles = [waiting(scene), waiting(scene), waiting(scene)];
    for bundle in &bundles {
        create(bundle, scene);
    }
    let ids: Vec<&str> = bundles.iter().map(|bundle| &*bundle.id).collect();
    crun(scene, &["kill", "--regex", &format!("^({}|{})$", ids[0], ids[1]), "KILL"]).success();
    for id in &ids[..2] {
        wait_until_stopped(scene, id);
    }
    assert_eq!(state(scene, ids[2])["status"], "created");
    crun(scene, &["delete", "-r", "("]).exits_with(1).says("invalid regular expression (");
    crun(scene, &["delete", "--regex", "--force", "-root-"]).exits_with(1);
    crun(scene, &["delete", "--regex", "--force", "[0-9]+$"]).success();
    assert_eq!(verb(scene, &["list", "-q"]).success().stdout, "");
}

/// Where the end of the first process is not that of the others, KILL is for every process of the cgroup.
fn a_kill_reaches_all_where_pids_are_shared(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.without_namespace("pid");
    bundle.args(["sh", "-c", "sleep 1000 & exec sleep 1000"]);
    create(&bundle, scene);
    let id = &*bundle.id;
    verb(scene, &["start", id]).success();
    let count = || {
        let listed: Value = serde_json::from_str(&verb(scene, &["ps", "-f", "json", id]).success().stdout).unwrap();
        listed.as_array().map_or(0, Vec::len)
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    let wait_for = |number: usize| {
        while count() != number {
            assert!(std::time::Instant::now() < deadline, "{} processes, not {number}", count());
        }
    };
    wait_for(2);
    verb(scene, &["kill", id, "KILL"]).success();
    wait_for(0);
    wait_until_stopped(scene, id);
    verb(scene, &["delete", id]).success();
}

/// Podman calls the runtime that it is given by path, without any flag before the verb. Root's states would be in the
/// machine's own `/run`, so it is done as a user.
fn podmans_bare_words_under_the_plain_name(scene: &Scene) {
    let bundle = waiting(scene);
    bundle.write();
    let id = &*bundle.id;
    let named = || {
        let mut command = scene.husk();
        command.env("XDG_RUNTIME_DIR", scene.path());
        command
    };
    let husk = |words: &[&str]| named().args(words).run();
    let pid_file = scene.path().join("pid");
    let directory = bundle.directory.to_str().unwrap();
    let mut command = named();
    command.args(["create", "--bundle", directory, "--pid-file"]).arg(&pid_file).arg(id);
    detached(&command);
    let state = |status: &str| {
        let document: Value = serde_json::from_str(&husk(&["state", id]).success().stdout).unwrap();
        assert_eq!(document["status"], status);
    };
    state("created");
    husk(&["start", id]).success();
    state("running");
    husk(&["resume", id]).exits_with(1).says("container not paused");
    let limits = scene.tree("limits", &[("limits.json", "{}")]).join("limits.json");
    husk(&["update", &format!("--resources={}", limits.display()), id]).success();
    husk(&["kill", id, "0"]).success();
    husk(&["kill", id, "9"]).success();
    while !husk(&["state", id]).success().stdout.contains("stopped") {
        std::thread::yield_now();
    }
    husk(&["delete", "--force", id]).success();
    assert!(husk(&["--version"]).success().stdout.starts_with("husk version "));
}

/// A container whose making waits in a hook until the file is gone.
fn stuck(scene: &Scene) -> (Bundle<'_>, PathBuf) {
    let mut bundle = waiting(scene);
    let here = scene.path().join("here");
    let script = format!("touch {here}; while [ -e {here} ]; do sleep 0.01; done", here = here.display());
    bundle.config["hooks"] = json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]});
    bundle.write();
    (bundle, here)
}

fn begin(scene: &Scene, bundle: &Bundle<'_>, here: &Path) -> std::process::Child {
    let mut command = scene.runtime();
    command.arg("create").arg("-b").arg(&bundle.directory).arg(&bundle.id);
    let child = command.spawn(Stdio::null(), Stdio::null(), Stdio::null());
    while !here.exists() {
        std::thread::yield_now();
    }
    child
}

fn a_container_in_creating_is_its_makers(scene: &Scene) {
    let (bundle, here) = stuck(scene);
    let id = &*bundle.id;
    let mut maker = begin(scene, &bundle, &here);
    assert_eq!(state(scene, id)["status"], "creating");
    let words = format!("cannot delete container {id} that is not stopped: creating");
    verb(scene, &["delete", id]).exits_with(1).says(&words);
    verb(scene, &["start", id]).exits_with(1).says("cannot start a container in the creating state");
    scene.runtime().arg("create").arg("-b").arg(&bundle.directory).arg(id).run().exits_with(1).says("already exists");
    std::fs::remove_file(&here).unwrap();
    assert!(maker.wait().unwrap().success());
    assert_eq!(state(scene, id)["status"], "created");
    verb(scene, &["delete", id]).success();
}

fn what_a_killed_maker_left_blocks_nobody(scene: &Scene) {
    let (bundle, here) = stuck(scene);
    let id = &*bundle.id;
    let kill_maker = || {
        let mut maker = begin(scene, &bundle, &here);
        maker.kill().unwrap();
        maker.wait().unwrap();
        // The hook is nobody's now.
        std::fs::remove_file(&here).unwrap();
    };
    kill_maker();
    verb(scene, &["delete", id]).success();
    verb(scene, &["state", id]).exits_with(1).says("container does not exist");
    kill_maker();
    // The same id again, without a delete between.
    let mut maker = begin(scene, &bundle, &here);
    std::fs::remove_file(&here).unwrap();
    assert!(maker.wait().unwrap().success());
    assert_eq!(state(scene, id)["status"], "created");
    verb(scene, &["delete", "--force", id]).success();
}
