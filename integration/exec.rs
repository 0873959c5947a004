//! `exec`: another process in a container that runs, with each of its flags.

use serde_json::json;

use super::support::{Guest, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(the_status_is_the_commands).and_plain(),
        test!(a_failure_has_a_status_and_no_pid_file).and_plain(),
        test!(a_detached_process_has_a_pid_file).and_plain(),
        test!(the_process_is_where_the_containers_is).and_plain(),
    ]
}

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
    let unknown = scene.id();
    scene.runtime().args(["exec", &unknown, "/probe"]).run().exits_with(255).says("container does not exist");
}

fn a_detached_process_has_a_pid_file(scene: &Scene) {
    let guest = Guest::start(scene, scene.bundle());
    let (pid_file, process) = (scene.path().join("pid"), scene.path().join("process.json"));
    let document = json!({ "args": ["/probe", "--quiet", "--block"], "cwd": "/", "user": { "uid": 0, "gid": 0 } });
    super::support::scene::write(&process, document.to_string());
    let flags = ["--process", process.to_str().unwrap(), "--detach", "--pid-file", pid_file.to_str().unwrap()];
    // Its output stays open as long as the process runs.
    let null = std::process::Stdio::null;
    guest.exec(&flags, &[]).start_with(null(), null(), null()).finish().success();
    let pid = std::fs::read_to_string(&pid_file).unwrap();
    let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert_eq!(command, "/probe\0--quiet\0--block\0");
}

fn the_process_is_where_the_containers_is(scene: &Scene) {
    let guest = Guest::start(scene, scene.bundle());
    let report = guest.report(&[], &[]);
    let first = format!("/proc/{}/ns", guest.pid());
    for name in ["mnt", "pid", "net", "ipc", "uts", "user", "cgroup", "time"] {
        let theirs = std::fs::read_link(format!("{first}/{name}")).unwrap();
        assert_eq!(report["namespaces"][name], theirs.to_str().unwrap(), "{name}");
    }
    assert_ne!(report["pid"], 1);
    assert_eq!(report["sid"], report["pid"]);
    assert_eq!(report["cwd"], "/");
}
