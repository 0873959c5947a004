//! `husk why`: each way to fail or die has its cause named; what runs or is fine is not called a failure.

use serde_json::Value;

use super::support::image::{Image, Layout};
use super::support::tar::Entry;
use super::support::{Need, Outcome, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    let engine = |test: Test| test.needs(Need::Husk).needs(Need::Busybox);
    [
        test!(a_program_that_cannot_start).and_plain(),
        test!(a_program_of_another_library).needs(Need::Program("true")),
        test!(an_end_of_its_own).and_plain(),
        test!(what_has_not_failed).and_plain(),
        test!(who_ended_it).and_plain(),
        test!(a_lost_supervisor).and_plain(),
        test!(closed_directories_of_the_host).root(),
        test!(too_much_memory).root(),
        test!(a_second_run_tells_what_its_filter_refuses).and_plain(),
        test!(it_is_one_object_for_programs).and_plain(),
    ]
    .into_iter()
    .map(engine)
    .collect()
}

/// Containers that are to be asked about, removed with the test.
struct Ward<'a> {
    scene: &'a Scene,
    layout: Layout,
}

impl<'a> Ward<'a> {
    fn new(scene: &'a Scene, files: &[Entry]) -> Self {
        let mut entries: Vec<Entry> =
            ["sleep", "tail"].iter().map(|name| Entry::symlink(&format!("bin/{name}"), "busybox")).collect();
        entries.extend_from_slice(files);
        Self { scene, layout: Image::busybox(scene).layer(&entries).layout(scene, "layout") }
    }

    fn husk(&self, args: &[&str]) -> Outcome {
        self.scene.husk().args(args).run()
    }

    /// `husk VERB FLAGS IMAGE COMMAND`.
    fn on_image(&self, words: &[&str], command: &[&str]) -> Outcome {
        self.scene.husk().args(words).arg(self.layout.reference()).args(command).run()
    }

    /// Runs a command to its end, and asks about it.
    #[track_caller]
    fn after(&self, flags: &[&str], command: &[&str]) -> Value {
        self.on_image(&[&["run", "--name", "patient"], flags].concat(), command);
        let report = self.why("patient");
        self.husk(&["rm", "-f", "patient"]).success();
        report
    }

    #[track_caller]
    fn why(&self, name: &str) -> Value {
        let text = self.husk(&["why", "--format", "json", name]).success().stdout;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }
}

impl Drop for Ward<'_> {
    fn drop(&mut self) {
        for id in self.husk(&["ps", "-aq", "--no-trunc"]).stdout.lines() {
            self.husk(&["rm", "-f", id]);
        }
    }
}

#[track_caller]
fn check(report: &Value, cause: &str, words: &str) {
    assert_eq!(report["cause"], cause, "{report}");
    assert!(report.to_string().contains(words), "{words:?} is not in {report}");
}

/// The head of a program for another machine: s390x, which nobody tests husk on.
fn foreign() -> Vec<u8> {
    let mut head = vec![0; 128];
    head[..7].copy_from_slice(b"\x7fELF\x02\x02\x01");
    head[17] = 2;
    head[19] = 22;
    head[23] = 1;
    head
}

fn a_program_that_cannot_start(scene: &Scene) {
    let ward = Ward::new(
        scene,
        &[
            Entry::program("bin/script", "#!/bin/bash -e\n"),
            Entry::program("bin/windows", "#!/bin/sh\r\necho\r\n"),
            Entry::program("bin/text", "echo hello\n"),
            Entry::program("bin/nothing", ""),
            Entry::file("bin/data", "#!/bin/sh\n"),
            Entry::program("bin/foreign", foreign()),
        ],
    );
    for (command, cause, words) in [
        ("none", "program-missing", "PATH=/bin:/usr/bin"),
        ("/bin/none", "program-missing", "there is no /bin/none in it"),
        ("/bin", "not-executable", "/bin is no file"),
        ("script", "interpreter-missing", "/bin/bash, which is not there"),
        ("windows", "interpreter-missing", "as on Windows"),
        ("text", "not-a-program", "neither a program nor a script"),
        ("nothing", "not-a-program", "/bin/nothing is empty"),
        ("data", "not-executable", "its mode is 0644"),
        ("foreign", "wrong-architecture", "a program for s390x"),
    ] {
        let report = ward.after(&[], &[command]);
        check(&report, cause, words);
        assert_eq!(report["certainty"], "certain", "{report}");
        assert!(!report["remedies"].as_array().unwrap().is_empty(), "{report}");
    }
    let tools = scene.tree("tools", &[("run", "#!/bin/none\n")]);
    let mode: std::fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(tools.join("run"), mode).unwrap();
    let volume = format!("{}:/tools", tools.display());
    check(&ward.after(&["-v", &volume], &["/tools/run"]), "interpreter-missing", "/bin/none");
}

fn a_program_of_another_library(scene: &Scene) {
    let program = super::support::needs::find_program("true").unwrap();
    let ward = Ward::new(scene, &[Entry::program("bin/dynamic", std::fs::read(program).unwrap())]);
    check(&ward.after(&[], &["dynamic"]), "loader-missing", "wants the loader /lib");
}

fn an_end_of_its_own(scene: &Scene) {
    let ward = Ward::new(scene, &[]);
    for (flags, script, cause, words) in [
        (&[][..], "exit 0", "success", "it ended by itself, with status 0"),
        (&[], "exit 3", "own-failure", "with status 3"),
        (&[], "none", "program-missing", "with status 127"),
        (&[], "sh -c 'kill -9 $$'; exit $?", "signal", "waited for was ended by SIGKILL"),
        (&[], "echo 'bind: Address already in use' >&2; exit 1", "port-taken", "another process listens"),
        (&["--read-only"], "echo x > /x", "read-only", "(--read-only)"),
        (&["--cap-drop", "ALL"], "busybox hostname x", "not-permitted", "takes a capability"),
    ] {
        check(&ward.after(flags, &["sh", "-c", script]), cause, words);
    }
    let report = ward.after(&[], &["sh", "-c", "echo first; printf '\\033[31mlast'; exit 4"]);
    assert_eq!(report["log"], serde_json::json!(["first", "[31mlast"]), "{report}");
}

fn what_has_not_failed(scene: &Scene) {
    let ward = Ward::new(scene, &[]);
    ward.on_image(&["create", "--name", "new"], &["true"]).success();
    check(&ward.why("new"), "never-started", "husk start new");
    ward.on_image(&["run", "-d", "--name", "alive"], &["sleep", "1000"]).success();
    check(&ward.why("alive"), "runs", "nothing is wrong");
    if ward.husk(&["pause", "alive"]).code() == 0 {
        check(&ward.why("alive"), "paused", "husk unpause alive");
        ward.husk(&["unpause", "alive"]).success();
    }
    let outcome = ward.husk(&["why", "nobody"]).exits_with(1);
    outcome.says("no such container: nobody");
}

fn who_ended_it(scene: &Scene) {
    let ward = Ward::new(scene, &[]);
    let begin = |flags: &[&str], script: &str| {
        let words = [&["run", "-d", "--name", "patient"], flags].concat();
        ward.on_image(&words, &["sh", "-c", script]).success();
    };
    let end = |words: &[&str], cause: &str, said: &str| {
        ward.husk(words).success();
        ward.husk(&["wait", "patient"]).success();
        check(&ward.why("patient"), cause, said);
        ward.husk(&["rm", "-f", "patient"]).success();
    };
    let heeds = "trap 'exit 7' TERM; while :; do sleep 0.01; done";
    begin(&["--stop-signal", "KILL"], heeds);
    end(&["stop", "patient"], "stopped", "it got SIGKILL and ended by SIGKILL");
    begin(&[], heeds);
    end(&["kill", "patient"], "stopped", "husk stop, restart, kill or rm -f");
    begin(&[], "trap '' TERM; while :; do sleep 0.01; done");
    end(&["stop", "-t", "0", "patient"], "stopped", "SIGKILL");

    // The command in the foreground is killed; its monitor sees that.
    let mut command = scene.husk();
    let running = command.args(["run", "--name", "patient"]).arg(ward.layout.reference());
    let mut running = running.args(["sh", "-c", "echo up; sleep 1000"]).start();
    running.line_with("up");
    running.signal(rustix::process::Signal::KILL);
    running.wait();
    end(&["wait", "patient"], "abandoned", "runs with -d");
}

fn a_lost_supervisor(scene: &Scene) {
    let ward = Ward::new(scene, &[]);
    // With a terminal: that is the monitor's, and goes with it.
    ward.on_image(&["run", "-dt", "--restart", "always", "--name", "orphan"], &["sleep", "1000"]).success();
    let monitor = super::lifecycle::monitor_of("orphan");
    rustix::process::kill_process(rustix::process::Pid::from_raw(monitor).unwrap(), rustix::process::Signal::KILL)
        .unwrap();
    super::lifecycle::soon("it is known", || ward.why("orphan")["cause"] == "supervisor-lost");
    check(&ward.why("orphan"), "supervisor-lost", "husk start --boot");
}

fn closed_directories_of_the_host(scene: &Scene) {
    let ward = Ward::new(scene, &[]);
    let data = scene.tree("data", &[]);
    let volume = format!("{}:/data", data.display());
    let report = ward.after(&["-u", "33", "-v", &volume], &["sh", "-c", "echo x > /data/x"]);
    check(&report, "permission", &format!("/data ({} on the host) belongs to user 0", data.display()));
    check(&report, "permission", &format!("-v {}:/data:U", data.display()));
}

fn too_much_memory(scene: &Scene) {
    let ward = Ward::new(scene, &[]);
    let report = ward.after(&["-m", "16m", "--memory-swap", "16m"], &["tail", "/dev/zero"]);
    check(&report, "out-of-memory", "the kernel killed it for its memory limit of 16MiB");
    check(&report, "out-of-memory", "1 process killed");
}

fn it_is_one_object_for_programs(scene: &Scene) {
    let ward = Ward::new(scene, &[]);
    ward.on_image(&["run", "--name", "patient"], &["sh", "-c", "echo bye; exit 3"]).exits_with(3);
    let report = ward.why("patient");
    let keys: Vec<&String> = report.as_object().unwrap().keys().collect();
    assert_eq!(keys.len(), 8, "{keys:?}");
    for key in ["id", "name", "cause", "certainty", "summary", "evidence", "remedies", "log"] {
        assert!(report.get(key).is_some(), "{key} is missing");
    }
    let words = ward.husk(&["why", "patient"]).success().stdout;
    assert!(words.starts_with("patient: it ended by itself with status 3"), "{words}");
    assert!(
        words.contains("\nEvidence:\n  exit status 3, less than a second ago after less than a second\n"),
        "{words}"
    );
    assert!(words.contains("\nLast lines of its log:\n  bye\n"), "{words}");
}

/// A copy runs, is refused what the container is refused, and is gone.
fn a_second_run_tells_what_its_filter_refuses(scene: &Scene) {
    let image = Image::busybox(scene).layout(scene, "layout").reference();
    let husk = |words: &[&str]| scene.husk().args(words).run();
    let script = "busybox mount -t tmpfs x /proc; busybox mount -t tmpfs x /proc; exit 3";
    husk(&["run", "--name", "refused", &image, "/bin/busybox", "sh", "-c", script]).exits_with(3);
    let told = husk(&["why", "--rerun", "--format", "json", "refused"]).success().stdout;
    let report: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&report["name"], &report["status"]), (&"refused".into(), &3.into()), "{report}");
    let refused = report["refused"].as_array().unwrap();
    let mount = refused.iter().find(|refused| refused["call"] == "mount").expect("mount is refused");
    assert_eq!((&mount["answer"], &mount["count"]), (&"EPERM".into(), &2.into()), "{report}");
    let remedies: Vec<_> = mount["remedies"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(remedies.contains(&"--cap-add SYS_ADMIN"), "{remedies:?}");
    assert!(remedies.iter().any(|remedy| remedy.contains(r#"{"names": ["mount"], "action": "SCMP_ACT_ALLOW"}"#)));
    let words = husk(&["why", "--rerun", "refused"]).success().stdout;
    assert!(words.contains("\nmount: EPERM, 2 times\n  mount(0x") && words.contains("ended with status 3"), "{words}");
    assert_eq!(husk(&["ps", "-aq", "--no-trunc"]).success().stdout.lines().count(), 1);

    husk(&["create", "--name", "forever", &image, "/bin/busybox", "sleep", "1000"]).success();
    let words = husk(&["why", "--rerun", "--time", "1", "forever"]).success().stdout;
    assert!(words.contains("refused no system call") && words.contains("its time was over"), "{words}");
    let flags = ["--security-opt", "seccomp=unconfined"];
    scene.husk().args(["create", "--name", "open"]).args(flags).args([&image, "/bin/busybox", "true"]).run().success();
    husk(&["why", "--rerun", "open"]).exits_with(1).says("it has no filter");
}
