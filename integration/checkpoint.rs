//! `checkpoint` and `restore`: what comes back is what was saved, and nothing of the host comes with it.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode};
use serde_json::{Value, json};

use super::support::husk::read_host;
use super::support::scene::write;
use super::support::{Bundle, Invocation, Need, Outcome, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    let with_criu = |test: Test| test.root().needs(Need::Husk).needs(Need::Criu).needs(Need::Busybox);
    let mut tests: Vec<Test> = [
        test!(a_container_comes_back_with_its_memory),
        test!(processes_of_exec_come_back_too),
        test!(it_goes_on_where_it_was_left_running),
        test!(mounts_come_back_as_they_were),
        test!(places_for_mounts_are_made_again),
        test!(a_new_cgroup_is_entered),
        test!(the_exit_status_is_the_restored_ones),
        test!(a_restore_that_fails_leaves_nothing),
        test!(what_criu_would_lose_is_not_saved),
        test!(a_configuration_for_criu_comes_over_ours),
    ]
    .into_iter()
    .map(with_criu)
    .collect();
    tests.extend([
        test!(landlock_is_not_lost).root().needs(Need::Husk).needs(Need::Busybox).needs(Need::Landlock(1)),
        test!(without_criu_one_line_says_so).root().needs(Need::Husk).needs(Need::Busybox),
        test!(only_what_runs_is_saved).root().needs(Need::Husk),
        test!(what_a_killed_restore_left_is_removed).root().needs(Need::Husk),
        test!(wrong_words_are_refused).needs(Need::Husk),
    ]);
    tests
}

/// A container that keeps a word in memory, and answers it with what comes through a fifo.
struct Keeper<'a> {
    scene: &'a Scene,
    bundle: Bundle<'a>,
}

const SCRIPT: &str =
    "word=kept; while read line; do echo $word $line >> /tmp/out; [ $line = end ] && exit 7; done <> /tmp/in";

impl<'a> Keeper<'a> {
    fn new(scene: &'a Scene) -> Self {
        let mut bundle = scene.bundle();
        bundle.args(["/bin/sh", "-c", SCRIPT]);
        bundle.config["root"]["readonly"] = json!(false);
        rustix::fs::mknodat(CWD, bundle.rootfs("/tmp/in"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        write(&bundle.rootfs("/tmp/out"), "");
        Self { scene, bundle }
    }

    fn command(&self, words: &[&str]) -> Invocation<'a> {
        let mut command = self.scene.runtime();
        command.args(words).arg(&self.bundle.id).current_directory(&self.bundle.directory);
        command
    }

    /// Starts the container on files that are no host's.
    fn start(&self) {
        self.bundle.write();
        let mut command = self.command(&["run", "--detach"]);
        command.start_with(Stdio::null(), Stdio::null(), Stdio::null()).finish().success();
        self.answers("first");
    }

    fn checkpoint(&self) -> Outcome {
        self.command(&["checkpoint"]).run()
    }

    /// The restored process has the files that it was saved with, so it keeps none of these open.
    fn restore(&self) -> Outcome {
        self.command(&["restore", "--detach"]).run()
    }

    fn delete(&self) {
        self.command(&["delete", "--force"]).run().success();
    }

    /// Says something and waits for the answer, which has the word in it that only memory has.
    fn answers(&self, line: &str) {
        let fifo = std::fs::OpenOptions::new().read(true).write(true).open(self.bundle.rootfs("/tmp/in")).unwrap();
        std::io::Write::write_all(&mut &fifo, format!("{line}\n").as_bytes()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let expected = format!("kept {line}\n");
        while !read_host(self.bundle.rootfs("/tmp/out")).ends_with(&expected) {
            assert!(Instant::now() < deadline, "no answer to {line}");
            std::thread::yield_now();
        }
    }

    fn state(&self) -> Value {
        let outcome = self.scene.runtime().args(["state", &self.bundle.id]).run().success();
        serde_json::from_str(&outcome.stdout).unwrap()
    }

    fn proc(&self, file: &str) -> PathBuf {
        Path::new("/proc").join(self.state()["pid"].to_string()).join(file)
    }

    /// Root, place and options of each mount, which are the same for the same mount.
    fn mounts(&self) -> Vec<String> {
        let table = read_host(self.proc("mountinfo"));
        let mut mounts: Vec<String> =
            table.lines().map(|line| line.split(' ').skip(3).take(3).collect::<Vec<_>>().join(" ")).collect();
        mounts.sort();
        mounts
    }
}

fn a_container_comes_back_with_its_memory(scene: &Scene) {
    let keeper = Keeper::new(scene);
    keeper.start();
    let created = keeper.state();
    for round in ["second", "third"] {
        keeper.checkpoint().success();
        scene.runtime().args(["state", &keeper.bundle.id]).run().exits_with(1).says("does not exist");
        keeper.restore().success();
        assert_eq!(keeper.state()["status"], "running");
        keeper.answers(round);
    }
    assert_eq!(keeper.state()["bundle"], created["bundle"]);
    let descriptors = read_host(keeper.bundle.directory.join("checkpoint/descriptors.json"));
    assert_eq!(descriptors, r#"["/tmp/in","/dev/null","/dev/null"]"#);
    keeper.delete();
}

/// CRIU restores into a time namespace, and saves no processes that are in different ones.
fn processes_of_exec_come_back_too(scene: &Scene) {
    let keeper = Keeper::new(scene);
    keeper.start();
    keeper.checkpoint().success();
    keeper.restore().success();
    let script = "sleep 1000 < /dev/null > /dev/null 2>&1 & echo $!";
    let outcome = scene.runtime().args(["exec", &keeper.bundle.id, "/bin/sh", "-c", script]).run().success();
    let time = |file: &str| std::fs::read_link(keeper.proc(file)).unwrap();
    let report = scene.runtime().args(["exec", &keeper.bundle.id, "/probe"]).run().success().report();
    assert_eq!(report["namespaces"]["time"], time("ns/time").to_str().unwrap());
    keeper.checkpoint().success();
    keeper.restore().success();
    let process = format!("/proc/{}", outcome.stdout.trim());
    scene.runtime().args(["exec", &keeper.bundle.id, "/bin/ls", "-d", &process]).run().success();
    keeper.delete();
}

fn it_goes_on_where_it_was_left_running(scene: &Scene) {
    let keeper = Keeper::new(scene);
    keeper.start();
    let pid = keeper.state()["pid"].clone();
    keeper.command(&["checkpoint", "--leave-running", "--image-path", "images", "--work-path", "work"]).run().success();
    assert_eq!(keeper.state()["pid"], pid);
    assert!(keeper.bundle.directory.join("work/dump.log").exists() && keeper.bundle.directory.join("images").exists());
    keeper.answers("second");
    keeper.delete();
}

/// runc CVE-2026-119101, crun CVE-2026-115520: a destination that an image made a link, or that reads as two words to
/// CRIU, was restored as something else.
fn mounts_come_back_as_they_were(scene: &Scene) {
    let mut keeper = Keeper::new(scene);
    let source = scene.path().join("source");
    std::fs::create_dir(&source).unwrap();
    let bundle = &mut keeper.bundle;
    std::fs::create_dir_all(bundle.rootfs("/real/conf")).unwrap();
    symlink("/real/conf", bundle.rootfs("/conf")).unwrap();
    for (name, options) in [
        ("/conf", &["bind", "ro"][..]),
        ("/a]:b", &["bind", "ro", "nosuid"]),
        ("/x:y", &["bind", "rw"]),
        ("/with space", &["rbind", "ro", "noexec"]),
    ] {
        let source = source.join(name.trim_start_matches('/'));
        std::fs::create_dir(&source).unwrap();
        bundle.mount(name, "bind", &source, options);
    }
    keeper.start();
    let before = keeper.mounts();
    assert!(before.iter().any(|line| line.contains(" /real/conf ro")), "{before:#?}");
    keeper.checkpoint().success();
    keeper.restore().success();
    assert_eq!(keeper.mounts(), before);
    keeper.delete();
}

fn places_for_mounts_are_made_again(scene: &Scene) {
    let mut keeper = Keeper::new(scene);
    let (outer, inner) = (scene.path().join("outer"), scene.path().join("inner"));
    for directory in [&outer, &inner] {
        std::fs::create_dir(directory).unwrap();
    }
    keeper.bundle.mount("/test", "bind", &outer, &["bind"]).mount("/test/for/nested", "bind", &inner, &["bind"]);
    keeper.start();
    keeper.checkpoint().success();
    std::fs::remove_dir_all(outer.join("for")).unwrap();
    keeper.restore().success();
    keeper.answers("second");
    keeper.delete();
}

fn a_new_cgroup_is_entered(scene: &Scene) {
    let mut keeper = Keeper::new(scene);
    keeper.start();
    keeper.command(&["checkpoint", "--manage-cgroups-mode", "ignore"]).run().success();
    let path = format!("/{}-elsewhere", keeper.bundle.id);
    keeper.bundle.config["linux"]["cgroupsPath"] = json!(path);
    keeper.bundle.write();
    let words = ["restore", "--detach", "--manage-cgroups-mode", "ignore", "--pid-file", "pid"];
    keeper.command(&words).run().success();
    assert_eq!(read_host(keeper.bundle.directory.join("pid")), keeper.state()["pid"].to_string());
    let cgroups = read_host(keeper.proc("cgroup"));
    assert!(cgroups.lines().all(|line| line.ends_with(&path)), "{cgroups}");
    keeper.delete();
}

fn the_exit_status_is_the_restored_ones(scene: &Scene) {
    let keeper = Keeper::new(scene);
    keeper.start();
    keeper.checkpoint().success();
    let running = keeper.command(&["restore"]).start();
    keeper.answers("second");
    keeper.answers("end");
    running.finish().exits_with(7);
    scene.runtime().args(["state", &keeper.bundle.id]).run().exits_with(1);
}

fn a_restore_that_fails_leaves_nothing(scene: &Scene) {
    let keeper = Keeper::new(scene);
    keeper.start();
    keeper.checkpoint().success();
    write(&keeper.bundle.directory.join("checkpoint/inventory.img"), "no image");
    keeper.restore().exits_with(1).says("criu restore");
    scene.runtime().args(["state", &keeper.bundle.id]).run().exits_with(1).says("does not exist");
}

fn what_criu_would_lose_is_not_saved(scene: &Scene) {
    let mut keeper = Keeper::new(scene);
    let source = scene.path().join("source");
    std::fs::create_dir(&source).unwrap();
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 1000 }]);
    keeper.bundle.mount("/mapped", "bind", &source, &["bind"]);
    let mounts = keeper.bundle.config["mounts"].as_array_mut().unwrap();
    let mount = mounts.last_mut().unwrap();
    mount["uidMappings"] = map.clone();
    mount["gidMappings"] = map;
    keeper.start();
    keeper.checkpoint().exits_with(1).says("id maps of mounts (/mapped)");
    keeper.answers("second");
    keeper.delete();
}

/// The kernel shows nobody what a process has put on itself, so a restored one would be without it.
/// The annotation `org.criu.config`, by which engines let their users choose.
fn a_configuration_for_criu_comes_over_ours(scene: &Scene) {
    let file = scene.tree("criu", &[("own.conf", "log-file=own.log\n")]).join("own.conf");
    let mut keeper = Keeper::new(scene);
    keeper.bundle.config["annotations"] = json!({ "org.criu.config": file });
    keeper.start();
    keeper.command(&["checkpoint", "--network-lock", "skip"]).run().success();
    assert!(keeper.bundle.directory.join("checkpoint/own.log").exists());
    keeper.command(&["restore", "--detach", "--network-lock", "skip", "--tcp-close"]).run().success();
    keeper.answers("second");
    keeper.delete();
}

fn landlock_is_not_lost(scene: &Scene) {
    let mut keeper = Keeper::new(scene);
    // Nobody makes block devices.
    let rules = json!({ "handledAccessFs": 1 << 11, "rules": [] });
    keeper.bundle.config["annotations"] = json!({ "org.husk.landlock": rules.to_string() });
    keeper.start();
    for words in [&["checkpoint"][..], &["checkpoint", "--leave-running"], &["checkpoint", "--pre-dump"]] {
        keeper.command(words).run().exits_with(1).says("does not save Landlock's rules (org.husk.landlock)");
    }
    keeper.answers("second");
    keeper.delete();
}

fn without_criu_one_line_says_so(scene: &Scene) {
    let keeper = Keeper::new(scene);
    keeper.start();
    let outcome = keeper.command(&["checkpoint"]).env("PATH", scene.path()).run().exits_with(1);
    let outcome = outcome.says("the program criu is not in PATH");
    assert_eq!(outcome.stderr.lines().filter(|line| !line.starts_with("hint: ")).count(), 1, "{}", outcome.stderr);
    keeper.answers("second");
    keeper.delete();
}

fn only_what_runs_is_saved(scene: &Scene) {
    let bundle = scene.bundle();
    bundle.write();
    let mut command = scene.runtime();
    command.arg("create").arg("--bundle").arg(&bundle.directory).arg(&bundle.id);
    command.start_with(Stdio::null(), Stdio::null(), Stdio::null()).finish().success();
    let outcome = scene.runtime().args(["checkpoint", &bundle.id]).run();
    outcome.exits_with(1).says("Container cannot be checkpointed in created state");
    scene.runtime().args(["checkpoint", "nobody"]).run().exits_with(1).says("container does not exist");
    scene.runtime().args(["delete", "--force", &bundle.id]).run().success();
}

/// What a SIGKILL during `restore` leaves, in its worst form: the root file system is still mounted in the state.
fn what_a_killed_restore_left_is_removed(scene: &Scene) {
    let bundle = scene.bundle();
    let place = scene.state_root().join(&bundle.id).join("criu-root");
    std::fs::create_dir_all(&place).unwrap();
    rustix::mount::mount_bind(bundle.rootfs("/"), &place).unwrap();
    scene.runtime().args(["delete", "--force", &bundle.id]).run().success();
    assert!(!scene.state_root().join(&bundle.id).exists());
    assert!(bundle.rootfs("/probe").exists(), "what was mounted is unmounted, not removed");
}

fn wrong_words_are_refused(scene: &Scene) {
    for verb in ["checkpoint", "restore"] {
        scene.runtime().args([verb, "--help"]).run().success();
        scene.runtime().args([verb, "--manage-cgroups-mode", "hard", "x"]).run().exits_with(1);
        scene.runtime().args([verb, "--empty-ns", "pid", "x"]).run().exits_with(1);
        scene.runtime().args([verb, "--network-lock", "door", "x"]).run().exits_with(1).says("network-lock");
    }
    for words in [["--parent-path", "/absolute"], ["--parent-path", "missing"], ["--page-server", "nobody"]] {
        scene.runtime().arg("checkpoint").args(words).arg("x").run().exits_with(1).says(words[0]);
    }
    // Podman takes this for the sign that there is the flag.
    scene.runtime().args(["restore", "--lsm-mount-context"]).run().exits_with(1).says("--lsm-mount-context");
}
