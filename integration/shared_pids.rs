//! A PID namespace that is joined: who is in it already sees the processes of a container that is being made, and with
//! CAP_SYS_PTRACE more of them than their names.

use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use super::support::husk::Running;
use super::support::scene::write;
use super::support::{Bundle, Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    let shared = |test: Test| test.root().needs(Need::Husk).needs(Need::Kernel(6, 17)).needs(Need::Busybox);
    vec![
        shared(test!(a_container_in_the_making_is_not_seen)),
        shared(test!(a_created_container_has_nothing_of_the_hosts)),
        shared(test!(proc_shows_the_namespace_that_is_joined)),
        shared(test!(the_terminal_is_the_workloads)),
        shared(test!(what_fails_late_leaves_nothing)),
        test!(nothing_is_shared_by_itself).and_plain().needs(Need::Husk),
    ]
}

/// A container with CAP_SYS_PTRACE that does what it is told, a line of shell each, and closes each answer with "done".
struct Prober<'a> {
    running: Running<'a>,
    scene: &'a Scene,
    id: String,
    namespace: std::path::PathBuf,
}

impl<'a> Prober<'a> {
    fn new(scene: &'a Scene) -> Self {
        let mut bundle = scene.bundle();
        for set in ["bounding", "effective", "permitted"] {
            bundle.config["process"]["capabilities"][set] = json!(["CAP_SYS_PTRACE", "CAP_KILL", "CAP_DAC_OVERRIDE"]);
        }
        bundle.config["process"]["capabilities"]["ambient"] = json!([]);
        bundle.args(["/bin/sh", "-c", r#"echo done; while read -r line; do eval "$line"; echo done; done"#]);
        let mut running = bundle.command().start();
        assert_eq!(running.line(), "done");
        let pid = state(scene, &bundle.id)["pid"].to_string();
        let namespace = Path::new("/proc").join(pid).join("ns/pid");
        Self { running, scene, id: bundle.id.clone(), namespace }
    }

    fn ask(&mut self, line: &str) -> Vec<String> {
        self.running.write(format!("{line}\n"));
        let mut answer = Vec::new();
        loop {
            match self.running.line() {
                line if line == "done" => return answer,
                line => answer.push(line),
            }
        }
    }

    /// Processes other than its own shell, whose pids it does not know before.
    fn others(&mut self) -> Vec<String> {
        let pids = self.ask("for p in /proc/[0-9]*; do echo ${p#/proc/}; done");
        pids.into_iter().filter(|pid| pid != "1").collect()
    }

    fn end(self) {
        self.scene.runtime().args(["kill", &self.id, "KILL"]).run().success();
        self.running.finish();
    }
}

fn state(scene: &Scene, id: &str) -> Value {
    let outcome = scene.runtime().args(["state", id]).run().success();
    serde_json::from_str(&outcome.stdout).unwrap()
}

/// A hook that says that it is reached, and waits to be let on.
fn stop_in_hook(bundle: &mut Bundle<'_>, moment: &str) -> (std::path::PathBuf, std::path::PathBuf) {
    let (reached, go) = (bundle.directory.join("reached"), bundle.directory.join("go"));
    for fifo in [&reached, &go] {
        rustix::fs::mkfifoat(rustix::fs::CWD, fifo, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    }
    let script = format!("echo > {}; cat {}", reached.display(), go.display());
    bundle.config["hooks"] = json!({ moment: [{ "path": "/bin/sh", "args": ["sh", "-c", script] }] });
    (reached, go)
}

/// While its root is still the host's, nobody in the shared namespace sees the process that is to be the container.
fn a_container_in_the_making_is_not_seen(scene: &Scene) {
    let sentinel = scene.sentinel();
    let mut prober = Prober::new(scene);
    for moment in ["prestart", "createRuntime", "createContainer"] {
        let mut bundle = scene.bundle();
        bundle.namespace("pid", Some(&prober.namespace));
        let (reached, go) = stop_in_hook(&mut bundle, moment);
        let running = bundle.command().start();
        std::fs::read(reached).unwrap();
        let others = prober.others();
        let roots = prober.ask(&format!(
            "for p in /proc/[0-9]*; do for d in root cwd fd/*; do ls -d $p/$d{0} $p/$d/1/root{0} 2>/dev/null; done; done",
            sentinel.display()
        ));
        write(&go, "");
        let report = running.finish().success().report();
        assert_eq!((others, roots), (Vec::<String>::new(), Vec::new()), "{moment}");
        assert!(report["pid"].as_u64().unwrap() > 1, "it is in the shared namespace");
    }
    prober.end();
}

/// From when it is seen it has the container's root, no descriptor that leads out of it, and no more rights than the
/// workload; also without noNewPrivileges, where the filter comes before the rights go.
fn a_created_container_has_nothing_of_the_hosts(scene: &Scene) {
    let sentinel = scene.sentinel();
    let mut prober = Prober::new(scene);
    for no_new_privileges in [true, false] {
        let mut bundle = scene.bundle();
        bundle.namespace("pid", Some(&prober.namespace));
        bundle.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        bundle.config["process"]["capabilities"] = json!({});
        bundle.config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 }],
        });
        bundle.write();
        let mut command = scene.runtime();
        command.args(["create", "--bundle"]).arg(&bundle.directory).arg(&bundle.id);
        command.start_with(Stdio::null(), Stdio::null(), Stdio::null()).finish().success();
        let others = prober.others();
        assert_eq!(others.len(), 1, "init and nothing else: {others:?}");
        let pid = &others[0];
        let links = prober.ask(&format!("for f in /proc/{pid}/fd/*; do readlink $f; done"));
        let roots =
            prober.ask(&format!("ls -d /proc/{pid}/root{0} /proc/{pid}/fd/*{0} 2>/dev/null", sentinel.display()));
        let inside = prober.ask(&format!("ls /proc/{pid}/root/etc"));
        let rights = prober.ask(&format!("grep CapPrm /proc/{pid}/status"));
        scene.runtime().args(["start", &bundle.id]).run().success();
        let pidfd = state(scene, &bundle.id)["pid"].as_i64().unwrap();
        scene.runtime().args(["delete", "--force", &bundle.id]).run().success();
        assert!(pidfd >= 0);
        assert_eq!(roots, Vec::<String>::new());
        assert!(inside.contains(&"passwd".to_owned()), "the root is the container's: {inside:?}");
        assert_eq!(rights, ["CapPrm:\t0000000000000000"]);
        let is_harmless =
            |link: &&String| link.starts_with("socket:") || link.as_str() == "/dev/null" || link.ends_with("exec.fifo");
        assert!(links.iter().all(|link| is_harmless(&link)), "descriptors lead elsewhere: {links:?}");
    }
    prober.end();
}

fn proc_shows_the_namespace_that_is_joined(scene: &Scene) {
    let prober = Prober::new(scene);
    let mut bundle = scene.bundle();
    bundle.namespace("pid", Some(&prober.namespace));
    bundle.probe(["--read", "/proc/1/comm", "--list", "/proc/self/ns"]);
    let report = bundle.report();
    assert_eq!(report["reads"]["/proc/1/comm"], "sh\n");
    assert!(report["lists"]["/proc/self/ns"].is_array(), "its own process is there: {report}");
    prober.end();
}

fn the_terminal_is_the_workloads(scene: &Scene) {
    let prober = Prober::new(scene);
    let mut bundle = scene.bundle();
    bundle.namespace("pid", Some(&prober.namespace));
    bundle.config["process"]["terminal"] = json!(true);
    bundle.args(["/bin/sh", "-c", "tty; echo > /dev/tty && echo controlled"]);
    let outcome = bundle.run().success();
    assert!(outcome.stdout.contains("controlled"), "{}", outcome.stdout);
    prober.end();
}

fn what_fails_late_leaves_nothing(scene: &Scene) {
    let mut prober = Prober::new(scene);
    for change in ["args", "hook", "mount"] {
        let mut bundle = scene.bundle();
        bundle.namespace("pid", Some(&prober.namespace));
        let named = match change {
            "args" => {
                bundle.args(["/no/such/program"]);
                "/no/such/program"
            }
            "hook" => {
                let hook = json!([{ "path": "/bin/false" }]);
                bundle.config["hooks"] = json!({ "createContainer": hook });
                "createContainer"
            }
            _ => {
                bundle.mount("/tmp", "bind", "/no/such/source", &["bind"]);
                "/no/such/source"
            }
        };
        bundle.run().exits_with(1).says(named);
        assert_eq!(prober.others(), Vec::<String>::new(), "{change}");
    }
    prober.end();
}

fn nothing_is_shared_by_itself(scene: &Scene) {
    assert_eq!(scene.bundle().report()["pid"], 1);
}
