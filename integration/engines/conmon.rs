//! conmon by itself, with the words that CRI-O gives it. CRI-O is not among Debian's packages: this is how it calls the
//! runtime (features: create and exec through conmon; start, state, kill, delete, update by itself).

use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde_json::{Value, json};

use super::ON_TERMINAL;
use super::podman::HUNGRY;
use super::site::Site;
use crate::support::scene::write;
use crate::support::{Bundle, Invocation, Need, Outcome, Scene, Test, test};

pub(super) fn tests() -> Vec<Test> {
    let tests = vec![
        test!(a_containers_life),
        test!(attach),
        test!(terminal),
        test!(exec),
        test!(out_of_memory),
        test!(failure_is_reported),
    ];
    tests.into_iter().map(|test| test.root().needs(Need::Program("conmon")).needs(Need::Busybox)).collect()
}

/// The directories that CRI-O shares with conmon, and a bundle.
struct Crio<'a> {
    site: Site<'a>,
    bundle: Bundle<'a>,
}

impl<'a> Crio<'a> {
    fn start(scene: &'a Scene, script: &str) -> Self {
        let site = Site::open(scene);
        for name in ["exits", "persist", "sockets", "root"] {
            std::fs::create_dir(site.outside(name)).expect("make a directory of the site");
        }
        let mut bundle = scene.bundle();
        bundle.args(["sh", "-c", script]);
        Self { site, bundle }
    }

    /// The runtime as CRI-O calls it by itself.
    fn runtime(&self, words: &[&str]) -> Outcome {
        let mut command = self.site.command(self.site.runtime("runc"));
        command.arg("--root").arg(self.site.path("root")).args(words).run()
    }

    /// conmon with what `create` and `exec` have in common, and what it says on its pipe to CRI-O in a file.
    fn conmon(&self, log: &str, pid_file: &str, sync: &str) -> Invocation<'a> {
        let mut conmon = self.site.command("sh");
        let redirect = format!("exec conmon \"$@\" 3>{} 4</dev/null", self.site.path(sync).display());
        conmon.env("_OCI_SYNCPIPE", "3").env("_OCI_STARTPIPE", "4").arg("-c").arg(redirect).arg("conmon");
        conmon.args(["-c", &self.bundle.id, "-n", "name", "-u", &self.bundle.id, "--log-level", "debug"]);
        conmon.arg("-b").arg(&self.bundle.directory).arg("-l").arg(self.site.path(log));
        conmon.arg("-p").arg(self.site.path(pid_file)).arg("-r").arg(self.site.runtime("runc"));
        conmon.arg("--runtime-arg").arg(format!("--root={}", self.site.path("root").display()));
        conmon.arg("--socket-dir-path").arg(self.site.path("sockets"));
        conmon
    }

    /// Creates the container and gives what conmon told CRI-O: the pid, or what went wrong.
    fn create(&self, flags: &[&str]) -> Value {
        self.bundle.write();
        let mut conmon = self.conmon("log", "pidfile", "sync");
        conmon.arg("--exit-dir").arg(self.site.path("exits")).arg("--persist-dir").arg(self.site.path("persist"));
        conmon.arg("-P").arg(self.site.path("conmon-pidfile")).arg("--syslog").args(flags).run();
        self.told("sync")
    }

    /// Waits for what conmon writes to its pipe to CRI-O.
    fn told(&self, sync: &str) -> Value {
        Site::wait_until("conmon has told CRI-O", || self.read(sync).ends_with('\n'));
        serde_json::from_str(&self.read(sync)).expect("conmon speaks JSON")
    }

    /// A file of the site; empty as long as there is none.
    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.site.outside(name)).unwrap_or_default()
    }

    /// The exit status in the file that CRI-O watches for.
    fn exit_status(&self) -> String {
        let file = format!("exits/{}", self.bundle.id);
        Site::wait_until("conmon has written the exit status", || !self.read(&file).is_empty());
        self.read(&file)
    }

    fn status(&self) -> Value {
        let state = self.runtime(&["state", &self.bundle.id]).success().stdout;
        let state: Value = serde_json::from_str(&state).expect("the state is JSON");
        state["status"].clone()
    }

    fn delete(&self) {
        self.runtime(&["delete", "--force", &self.bundle.id]).success();
        // conmon outlives the container until its pipes are read and the exit file is written.
        let pid = self.read("conmon-pidfile");
        Site::wait_until("conmon has ended", || !Path::new("/proc").join(pid.trim()).join("fd/0").exists());
    }

    fn attach(&self) -> Attached {
        let path = self.site.outside("sockets").join(&self.bundle.id).join("attach");
        Attached::connect(&path)
    }
}

/// A client of conmon's attach socket: packets whose first byte names the stream.
struct Attached(rustix::fd::OwnedFd);

impl Attached {
    fn connect(path: &PathBuf) -> Self {
        let kind = SocketType::SEQPACKET;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).expect("make a socket");
        let address = SocketAddrUnix::new(path).expect("the path is short");
        rustix::net::connect(&socket, &address).expect("connect to conmon");
        Self(socket)
    }

    fn send(&self, text: &str) {
        rustix::io::write(&self.0, text.as_bytes()).expect("write to conmon");
    }

    /// Reads packets until those of one stream contain a text.
    fn wait_for(&self, stream: u8, text: &str) {
        let (mut seen, mut buffer) = (String::new(), [0; 8193]);
        while !seen.contains(text) {
            let timeout = rustix::event::Timespec { tv_sec: 20, tv_nsec: 0 };
            let mut fds = [rustix::event::PollFd::new(&self.0, rustix::event::PollFlags::IN)];
            let ready = rustix::event::poll(&mut fds, Some(&timeout)).expect("poll conmon's socket");
            let count = if ready == 0 { 0 } else { rustix::io::read(&self.0, &mut buffer).expect("read from conmon") };
            assert!(count > 0, "conmon closed or stayed silent before {text:?}: {seen:?}");
            if buffer[0] == stream {
                seen.push_str(&String::from_utf8_lossy(&buffer[1..count]));
            }
        }
    }
}

const STDOUT: u8 = 2;
const STDERR: u8 = 3;

fn a_containers_life(scene: &Scene) {
    let crio = Crio::start(scene, "echo $((6 * 7)); echo $((6 * 8)) >&2; printf $((6 * 9)); exit 3");
    let told = crio.create(&[]);
    let pid = told["pid"].as_i64().unwrap_or(-1);
    assert!(pid > 0, "conmon says {told}");
    assert_eq!(crio.read("pidfile"), pid.to_string());
    assert_eq!(crio.status(), "created");
    crio.runtime(&["start", &crio.bundle.id]).success();
    assert_eq!(crio.exit_status(), "3");
    let log = crio.read("log");
    let lines: Vec<_> = log.lines().map(|line| line.split_once(' ').unwrap_or_default().1).collect();
    for line in ["stdout F 42", "stderr F 48", "stdout P 54"] {
        assert!(lines.contains(&line), "no {line:?} in {log}");
    }
    assert_eq!(crio.status(), "stopped");
    crio.runtime(&["delete", &crio.bundle.id]).success();
    crio.runtime(&["state", &crio.bundle.id]).exits_with(1).says("does not exist");
    crio.delete();
}

fn attach(scene: &Scene) {
    let script = "read line; echo \"got $line $((6 * 7))\"; echo $((6 * 8)) >&2; read line; exit $((1 + 1))";
    let crio = Crio::start(scene, script);
    crio.create(&["-i"]);
    let attached = crio.attach();
    crio.runtime(&["start", &crio.bundle.id]).success();
    attached.send("this\n");
    attached.wait_for(STDOUT, "got this 42");
    attached.wait_for(STDERR, "48");
    attached.send("\n");
    assert_eq!(crio.exit_status(), "2");
    crio.delete();
}

fn terminal(scene: &Scene) {
    let mut crio = Crio::start(scene, ON_TERMINAL);
    crio.bundle.config["process"]["terminal"] = json!(true);
    crio.create(&["-t", "-i"]);
    let attached = crio.attach();
    // Height and width; conmon passes them to the terminal's master.
    write(&crio.bundle.directory.join("ctl"), "1 31 97\n");
    crio.runtime(&["start", &crio.bundle.id]).success();
    attached.send("typed\n");
    attached.wait_for(STDOUT, "typed9\r\n");
    assert_eq!(crio.exit_status(), "4");
    assert!(crio.read("log").contains("31 97"), "{}", crio.read("log"));
    crio.delete();
}

fn exec(scene: &Scene) {
    let crio = Crio::start(scene, "sleep 1000");
    crio.create(&[]);
    crio.runtime(&["start", &crio.bundle.id]).success();
    let mut process = crio.bundle.config["process"].clone();
    process["args"] = json!(["sh", "-c", "echo $((7 * 8)); exit 5"]);
    let process = crio.site.file("process.json", &process.to_string());
    let mut conmon = crio.conmon("exec-log", "exec-pidfile", "exec-sync");
    conmon.arg("-e").arg("--sync").arg("--exec-process-spec").arg(process).run();
    assert_eq!(crio.told("exec-sync")["exit_code"], 5);
    assert!(crio.read("exec-log").ends_with(" stdout F 56\n"), "{}", crio.read("exec-log"));
    // A command that does not exist: the runtime fails, and its words are the message.
    let mut process = crio.bundle.config["process"].clone();
    process["args"] = json!(["/nonexistent"]);
    let process = crio.site.file("missing.json", &process.to_string());
    let mut conmon = crio.conmon("missing-log", "missing-pidfile", "missing-sync");
    conmon.arg("-e").arg("--sync").arg("--exec-process-spec").arg(process).run();
    let told = crio.told("missing-sync");
    assert!(told["exit_code"].as_i64() < Some(0) && told.to_string().contains("/nonexistent"), "{told}");
    assert!(!crio.site.outside("missing-pidfile").exists(), "a pid file says that the command was started");
    crio.runtime(&["kill", &crio.bundle.id, "KILL"]).success();
    assert_eq!(crio.exit_status(), "137");
    crio.delete();
}

fn out_of_memory(scene: &Scene) {
    let mut crio = Crio::start(scene, &format!("{HUNGRY}; read line; exit $((2 + 3))"));
    crio.bundle.config["linux"]["resources"]["memory"] = json!({ "limit": 16 << 20, "swap": 16 << 20 });
    crio.create(&["-i"]);
    let attached = crio.attach();
    crio.runtime(&["start", &crio.bundle.id]).success();
    attached.wait_for(STDOUT, "killed by 9");
    Site::wait_until("conmon tells that memory ran out", || crio.site.outside("persist/oom").exists());
    attached.send("\n");
    assert_eq!(crio.exit_status(), "5");
    crio.delete();
}

fn failure_is_reported(scene: &Scene) {
    let mut crio = Crio::start(scene, "");
    crio.bundle.args(["/nonexistent"]);
    let told = crio.create(&[]);
    assert!(told["pid"].as_i64() < Some(0), "{told}");
    let message = told["message"].as_str().unwrap_or_default();
    assert!(message.contains("/nonexistent") && message.contains("no such file or directory"), "{message}");
    crio.runtime(&["state", &crio.bundle.id]).exits_with(1).says("does not exist");
}
