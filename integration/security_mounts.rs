//! What went wrong elsewhere with paths, mounts and the sockets of callers: one test a family of advisories, with a
//! sentinel on the host. The first of them are in `security`.

use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};

use super::support::scene::write;
use super::support::{Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(links_that_lead_into_proc).and_plain().needs(Need::Husk),
        test!(only_a_procfs_covers_proc).and_plain().needs(Need::Husk),
        test!(masks_and_read_only_paths_stay_inside).and_plain().needs(Need::Husk),
        test!(terminals_of_a_volume).needs(Need::Husk),
        test!(init_looks_nothing_up_in_proc).root().needs(Need::Husk).needs(Need::Program("strace")),
        test!(sockets_that_nobody_serves).root().needs(Need::Husk),
        test!(descriptors_that_are_not_there).and_plain().needs(Need::Husk),
    ]
}

/// A4, CVE-2019-16884: the destination does not say it, a link of the image does.
fn links_that_lead_into_proc(scene: &Scene) {
    let source = scene.tree("source", &[("attr/current", ""), ("file", "")]);
    for (link, target, destination) in [
        ("hidden", "/proc", "/hidden/self"),
        ("hidden", "/proc", "/hidden"),
        ("hidden", "../../proc/self/attr", "/hidden"),
        ("deep", "/hidden2", "/deep/sys"),
        ("top", "/", "/top"),
    ] {
        let mut bundle = scene.bundle();
        symlink("/proc", bundle.rootfs("hidden2")).unwrap();
        symlink(target, bundle.rootfs(link)).unwrap();
        bundle.mount(destination, "bind", &source, &["bind"]);
        bundle.run().exits_with(1).says("cannot be mounted because it is");
    }
}

/// A4: a bind on /proc (`--pid=host`) shows a procfs, or it is none.
fn only_a_procfs_covers_proc(scene: &Scene) {
    let source = scene.tree("source", &[("self/attr/current", "")]);
    let mut bundle = scene.bundle();
    bundle.without_mount("/proc").mount("/proc", "bind", &source, &["rbind"]);
    bundle.run().exits_with(1).says("not of type proc");
}

/// A5, CVE-2025-31133: what is to be covered is a link that leads to the host.
fn masks_and_read_only_paths_stay_inside(scene: &Scene) {
    let sentinel = scene.sentinel();
    let mut bundle = scene.bundle();
    bundle.config["root"]["readonly"] = json!(false);
    symlink(sentinel.join("secret"), bundle.rootfs("etc/masked")).unwrap();
    symlink(&sentinel, bundle.rootfs("etc/kept")).unwrap();
    symlink("/etc/inner", bundle.rootfs("etc/followed")).unwrap();
    write(&bundle.rootfs("etc/inner"), "hidden text");
    bundle.config["linux"]["maskedPaths"] = json!(["/etc/masked", "/etc/followed", "/../../etc/none"]);
    bundle.config["linux"]["readonlyPaths"] = json!(["/etc/kept", "/etc/../../../tmp"]);
    bundle.probe(["--read", "/etc/inner"]).tries(["create:/tmp/new"]);
    let report = bundle.report();
    assert_eq!(report["reads"]["/etc/inner"], "");
    assert_eq!(report["tries"]["create:/tmp/new"], "EROFS");
}

/// A6, CVE-2025-52565: /dev/pts is a volume, and what is called `0` and `ptmx` there leads elsewhere.
fn terminals_of_a_volume(scene: &Scene) {
    let sentinel = scene.sentinel();
    for name in ["ptmx", "0"] {
        let source = scene.tree(&format!("pts-{name}"), &[]);
        symlink(sentinel.join("secret"), source.join(name)).unwrap();
        let mut bundle = scene.bundle();
        bundle.config["process"]["terminal"] = json!(true);
        bundle.without_mount("/dev/pts").mount("/dev/pts", "bind", &source, &["bind"]);
        bundle.run().exits_with(1).says("/dev/pts/ptmx");
    }
}

/// A7, CVE-2019-19921, CVE-2025-52881: the container's /proc may be anybody's; init writes by a descriptor of the host's.
fn init_looks_nothing_up_in_proc(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["process"]["oomScoreAdj"] = json!(500);
    bundle.config["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1", "kernel.msgmax": "4096" });
    bundle.probe(["--read", "/proc/sys/net/ipv4/ip_forward", "--read", "/proc/self/oom_score_adj"]);
    bundle.write();
    let trace = scene.path().join("trace");
    let mut command = scene.program("/usr/bin/strace");
    command.args(["-f", "-q", "-e", "trace=open,openat,openat2,execveat", "-o"]).arg(&trace);
    command.arg(&super::support::suite::kit().runtime).arg("--root").arg(scene.state_root());
    let outcome = command.args(["run", "--bundle"]).arg(&bundle.directory).arg(&bundle.id).run().success();
    let reads = outcome.report()["reads"].clone();
    assert_eq!(reads, json!({ "/proc/sys/net/ipv4/ip_forward": "1\n", "/proc/self/oom_score_adj": "500\n" }));
    let text = std::fs::read_to_string(trace).unwrap();
    let parent = text.split_whitespace().next().unwrap().to_owned();
    let init: Vec<&str> =
        text.lines().filter(|line| !line.starts_with(&parent)).take_while(|line| !line.contains("execveat(")).collect();
    assert!(init.iter().any(|line| line.contains("ip_forward")), "the trace shows init");
    let by_path = |line: &&&str| line.contains("AT_FDCWD, \"/proc") || line.contains("open(\"/proc");
    let found: Vec<&&str> = init.iter().filter(by_path).collect();
    assert_eq!(found, Vec::<&&str>::new());
}

/// Sockets that callers name for the terminal and the pidfd: missing, no socket, of another kind, with nobody behind.
fn sockets_that_nobody_serves(scene: &Scene) {
    let place = |name: &str| -> PathBuf {
        let path = scene.path().join(name);
        match name {
            "file" => write(&path, ""),
            "datagram" => drop(UnixDatagram::bind(&path).unwrap()),
            "left" => drop(UnixListener::bind(&path).unwrap()),
            _ => {}
        }
        path
    };
    for (name, reason) in
        [("missing", "ENOENT"), ("file", "ECONNREFUSED"), ("datagram", "ECONNREFUSED"), ("left", "ECONNREFUSED")]
    {
        let path = place(name);
        for flag in ["--console-socket", "--pidfd-socket"] {
            let mut bundle = scene.bundle();
            bundle.config["process"]["terminal"] = json!(flag == "--console-socket");
            bundle.write();
            let mut command = scene.runtime();
            command.args(["create", flag]).arg(&path).arg("--bundle").arg(&bundle.directory).arg(&bundle.id);
            let outcome = command.start_with(Stdio::null(), Stdio::null(), Stdio::piped()).finish();
            outcome.exits_with(1).says(&path.display().to_string()).says(reason);
        }
        _ = std::fs::remove_file(&path);
    }
    // One that takes the connection and goes: the descriptor is lost, and nothing hangs.
    let path = scene.path().join("hasty");
    let listener = UnixListener::bind(&path).unwrap();
    let hasty = std::thread::spawn(move || drop(listener.accept().unwrap()));
    let bundle = scene.bundle();
    bundle.write();
    let mut command = scene.runtime();
    command.args(["create", "--pidfd-socket"]).arg(&path).arg("--bundle").arg(&bundle.directory).arg(&bundle.id);
    // Whether the peer has gone before the descriptor is sent decides which it is; a created container keeps its outputs.
    let outcome = command.start_with(Stdio::null(), Stdio::null(), Stdio::null()).finish();
    hasty.join().unwrap();
    assert!(matches!(outcome.code(), 0 | 1), "exit status {}", outcome.code());
    scene.runtime().args(["delete", "--force", &bundle.id]).run().success();
}

/// B1, CVE-2024-21626: a number that is not open would be one of the runtime's own by then. The words are runc's.
fn descriptors_that_are_not_there(scene: &Scene) {
    let bundle = scene.bundle();
    bundle.write();
    let run = |count: &str| {
        let mut command = scene.runtime();
        command.args(["run", "--preserve-fds", count, "--bundle"]).arg(&bundle.directory).arg(&bundle.id).run()
    };
    run("3").exits_with(1).says("unable to stat preserved-fd 0 (of 3)").says("EBADF");
    let value: Value = run("0").success().report();
    assert_eq!(value["fds"].as_object().unwrap().len(), 3);
}
