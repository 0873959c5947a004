//! The exact words of those who call a runtime: containerd's shim, CRI-O, BuildKit and buildah. What each does with the
//! answers is in `engines`, where it is among Debian's packages; here is every word that it may say.

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};

use super::support::husk::read_host;
use super::support::scene::write;
use super::support::suite::kit;
use super::support::{Bundle, Need, Outcome, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    [
        test!(containerds_words).root(),
        test!(crios_words).root(),
        test!(buildkits_words).and_plain(),
        test!(buildahs_words).and_plain(),
        test!(dockerds_words).and_plain(),
    ]
    .into_iter()
    .map(|test| test.needs(Need::Husk).needs(Need::Busybox))
    .collect()
}

/// Somebody who calls the runtime with the same words before each verb.
struct Caller<'a> {
    scene: &'a Scene,
    global: Vec<String>,
    bundle: Bundle<'a>,
    /// A process for `exec`, as a document.
    process: PathBuf,
}

impl<'a> Caller<'a> {
    /// The words are taken apart at spaces; ROOT and LOG stand for a directory and a file.
    fn new(scene: &'a Scene, global: &str) -> Self {
        let mut bundle = scene.bundle();
        bundle.args(["sleep", "1000"]);
        bundle.write();
        let process = scene.path().join("process.json");
        let mut document = bundle.config["process"].clone();
        document["args"] = json!(["sh", "-c", "exit 5"]);
        write(&process, document.to_string());
        let mut caller = Self { scene, global: Vec::new(), bundle, process };
        caller.global = caller.words(global);
        caller
    }

    fn words(&self, text: &str) -> Vec<String> {
        let path = |path: PathBuf| path.to_str().expect("paths of tests are UTF-8").to_owned();
        text.split(' ')
            .filter(|word| !word.is_empty())
            .map(|word| {
                word.replace("ROOT", &path(self.scene.state_root()))
                    .replace("LOG", &path(self.scene.path().join("log.json")))
                    .replace("BUNDLE", &path(self.bundle.directory.clone()))
                    .replace("PROCESS", &path(self.process.clone()))
                    .replace("DIR", &path(self.scene.path().to_owned()))
                    .replace("ID", &self.bundle.id)
            })
            .collect()
    }

    fn say(&self, text: &str) -> Outcome {
        self.say_with(text, "")
    }

    fn say_with(&self, text: &str, input: &str) -> Outcome {
        self.scene.program(&kit().runtime).args(&self.global).args(self.words(text)).input(input).run()
    }

    /// What leaves a process behind, which would hold on to the pipes of a caller that reads.
    fn leave(&self, text: &str) {
        let mut command = self.scene.program(&kit().runtime);
        command.args(&self.global).args(self.words(text));
        let status = command.spawn(Stdio::null(), Stdio::null(), Stdio::null()).wait().unwrap();
        assert!(status.success(), "{text}: {status}");
    }

    fn state(&self) -> Value {
        serde_json::from_str(&self.say("state ID").success().stdout).expect("the state is JSON")
    }

    fn wait_for(&self, status: &str) {
        while self.state()["status"] != status {
            std::thread::yield_now();
        }
    }

    fn number_in(&self, file: &str) -> i64 {
        read_host(self.scene.path().join(file)).parse().expect("a pid and nothing else")
    }

    /// The last record of an error, which containerd takes for the reason.
    fn last_error(&self) -> String {
        let log = read_host(self.scene.path().join("log.json"));
        let mut records =
            log.lines().rev().map(|line| serde_json::from_str::<Value>(line).expect("a line is a record"));
        let last = records.find(|record| record["level"] == "error").expect("an error was logged");
        last["msg"].as_str().expect("a record has a message").to_owned()
    }
}

fn containerds_words(scene: &Scene) {
    let caller = Caller::new(scene, "--root ROOT --log LOG --log-format json");
    caller.leave("create --bundle BUNDLE --pid-file DIR/init.pid ID");
    caller.say("start ID").success();
    caller.leave("exec --process PROCESS --detach --pid-file DIR/exec.pid ID");
    let pid = caller.number_in("init.pid");
    assert_ne!(caller.number_in("exec.pid"), pid);
    let listed: Vec<i64> = serde_json::from_str(&caller.say("ps --format json ID").success().stdout).unwrap();
    assert!(listed.contains(&pid), "{listed:?}");
    caller.say("pause ID").success();
    assert_eq!(caller.state()["status"], "paused");
    caller.say("resume ID").success();
    caller.say_with("update --resources=- ID", r#"{"cpu": {"shares": 512}}"#).success();
    caller.say("checkpoint --image-path DIR/images --work-path DIR/work nosuch").exits_with(1);
    caller.say("restore --detach -no-subreaper --bundle DIR/none --image-path DIR/images nosuch").exits_with(1);
    caller.say("kill --all ID 9").success();
    caller.wait_for("stopped");
    caller.say("kill ID 9").exits_with(1);
    assert_eq!(caller.last_error(), "container not running");
    caller.say("delete ID").success();
    caller.say("delete ID").exits_with(1);
    assert!(caller.last_error().contains("does not exist"));
    caller.say("delete --force ID").success();
}

fn crios_words(scene: &Scene) {
    let caller = Caller::new(scene, "--root ROOT");
    caller.leave("create --bundle BUNDLE --pid-file DIR/pidfile ID");
    caller.say("start ID").success();
    assert_eq!(caller.state()["pid"], caller.number_in("pidfile"));
    caller.say("exec --process PROCESS ID").exits_with(5);
    caller.say_with("update --resources - ID", r#"{"cpu": {"shares": 512}}"#).success();
    caller.say("pause ID").success();
    caller.say("resume ID").success();
    caller.say("kill ID WINCH").success();
    caller.say("kill -a ID KILL").success();
    caller.wait_for("stopped");
    caller.say("delete --force ID").success();
    caller.say("state ID").exits_with(1).says("does not exist");
}

fn buildkits_words(scene: &Scene) {
    let caller = Caller::new(scene, "--log LOG --log-format json --root ROOT");
    let mut command = scene.program(&kit().runtime);
    command.args(&caller.global).args(caller.words("run --bundle BUNDLE --keep ID"));
    let mut step = command.spawn(Stdio::null(), Stdio::null(), Stdio::null());
    while caller.say("state ID").code() != 0 || caller.state()["status"] != "running" {
        std::thread::yield_now();
    }
    caller.say("exec --process PROCESS --pid-file DIR/exec.pid ID").exits_with(5);
    caller.say("kill ID 9").success();
    assert_eq!(step.wait().unwrap().code(), Some(137));
    assert_eq!(caller.state()["status"], "stopped");
    caller.say("delete ID").success();
}

fn buildahs_words(scene: &Scene) {
    let caller = Caller::new(scene, "--root ROOT");
    caller.leave("create --bundle BUNDLE --pid-file DIR/pid --no-new-keyring ID");
    caller.say("start ID").success();
    assert_eq!(caller.state()["pid"], caller.number_in("pid"));
    caller.say("kill ID SIGKILL").success();
    caller.wait_for("stopped");
    caller.say("delete ID").success();
}

fn dockerds_words(scene: &Scene) {
    let caller = Caller::new(scene, "");
    let text = caller.say("--version").success().stdout;
    assert!(text.starts_with("runc version 1."), "{text}");
    for word in ["\ncommit: ", "\nspec: 1."] {
        assert!(text.contains(word), "{text}");
    }
    let features: Value = serde_json::from_str(&caller.say("features").success().stdout).unwrap();
    // What every container of theirs has where the kernel knows it.
    assert!(features["linux"]["namespaces"].as_array().unwrap().contains(&json!("time")));
}
