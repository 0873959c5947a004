//! `--init`: a first process that is no workload, passes signals on, takes in orphans and ends as its child does.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;
use serde_json::Value;

use super::lifecycle::{Yard, soon};
use super::support::tty::Terminal;
use super::support::{Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    let engine = |test: Test| test.needs(Need::Husk).needs(Need::Busybox);
    [
        test!(it_ends_as_its_child_does).and_plain(),
        test!(it_takes_in_orphans_and_passes_signals_on).and_plain(),
        test!(it_is_nothing_of_the_hosts).and_plain(),
        test!(keys_are_for_its_child).and_plain(),
        test!(another_program_can_be_it).and_plain(),
    ]
    .into_iter()
    .map(engine)
    .collect()
}

fn it_ends_as_its_child_does(scene: &Scene) {
    let yard = Yard::new(scene);
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137)] {
        yard.sh(&["run", "--rm", "--init"], script).exits_with(code);
    }
    let mut missing = scene.husk();
    let missing = missing.args(["run", "--rm", "--init"]).arg(yard.layout.reference()).arg("/nowhere").run();
    missing.exits_with(127).says("/nowhere");
    // A script whose interpreter is not there is only met at the exec, by the child.
    let script = scene.tree("late", &[("script", "#!/nowhere\n")]).join("script");
    std::fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    let volume = format!("{}:/x", script.display());
    let mut late = scene.husk();
    let late = late.args(["run", "--rm", "--init", "-v", &volume]).arg(yard.layout.reference()).arg("/x").run();
    late.exits_with(126).says("exec /x");
}

fn it_takes_in_orphans_and_passes_signals_on(scene: &Scene) {
    let yard = Yard::new(scene);
    // The orphans' parent is gone at once; the trap's output tells that the signal came to process 2.
    let script = "trap 'echo told; exit 5' USR1; (sleep 0.01 & sleep 0.02 &) ; echo $$; while :; do sleep 0.01; done";
    for flags in [&["--init"][..], &["--init", "--pid", "host"]] {
        let name = if flags.len() == 1 { "alone" } else { "among" };
        let words = [&["run", "-d", "--name", name], flags].concat();
        yard.sh(&words, script).success();
        soon("it is up", || yard.husk(&["logs", name]).success().stdout.ends_with('\n'));
        if name == "among" {
            yard.husk(&["kill", "-s", "USR1", name]).success();
            assert_eq!(yard.husk(&["wait", name]).success().stdout, "5\n");
            continue;
        }
        let top = yard.husk(&["top", name]).success().stdout;
        let first = top.lines().nth(1).unwrap_or_default().to_owned();
        assert!(first.contains("/sbin/docker-init -- /bin/sh -c trap"), "{top}");
        soon("no orphan is left", || {
            let states = yard.husk(&["top", name, "-o", "stat,comm"]).stdout;
            !states.contains('Z')
        });
        yard.husk(&["kill", "-s", "USR1", name]).success();
        assert_eq!(yard.husk(&["wait", name]).success().stdout, "5\n");
        assert!(yard.husk(&["logs", name]).success().stdout.ends_with("told\n"));
    }
    let told: Value = serde_json::from_str(&yard.husk(&["inspect", "alone"]).success().stdout).unwrap();
    assert_eq!(told[0]["HostConfig"]["Init"], true);
    assert_eq!((&told[0]["Path"], &told[0]["Args"][0]), (&"/bin/sh".into(), &"-c".into()), "the workload, as typed");
    assert!(!yard.husk(&["ps", "-a"]).success().stdout.contains("docker-init"));
}

/// What the container reaches of its first process is a sealed file, and no descriptor but the standard streams
/// (CVE-2019-5736, CVE-2024-21626).
fn it_is_nothing_of_the_hosts(scene: &Scene) {
    let yard = Yard::new(scene);
    let script = "echo $$; busybox ls /proc/1/fd; busybox readlink /proc/1/exe; busybox cat /proc/1/comm; \
                  echo in the log > /proc/1/fd/1; \
                  (echo x > /proc/1/exe) 2> /dev/null && echo written; \
                  busybox chmod 777 /proc/1/exe 2> /dev/null; (echo x > /proc/1/exe) 2> /dev/null && echo written; \
                  busybox ls /sbin 2> /dev/null; busybox grep -c docker-init /proc/mounts";
    let found = yard.sh(&["run", "--rm", "--init", "--preserve-fds", "0"], script).stdout;
    let lines: Vec<&str> = found.lines().collect();
    assert_eq!(lines, ["2", "0", "1", "2", "/memfd:husk (deleted)", "docker-init", "in the log", "0"], "{found}");
}

fn keys_are_for_its_child(scene: &Scene) {
    let yard = Yard::new(scene);
    let terminal = Terminal::open(24, 80);
    let mut command = scene.husk();
    let script = "trap 'echo interrupted' INT; echo up; read a; read b; echo $b";
    command.args(["run", "--rm", "-it", "--init"]).arg(yard.layout.reference()).args(["/bin/sh", "-c", script]);
    let mut running = terminal.start(&mut command);
    running.line_with("up");
    terminal.send("\x03");
    running.line_with("interrupted");
    terminal.send("\nkeys\n");
    running.line_with("keys");
    running.finish().success();
    // Job control: a shell that is no leader of the foreground would be stopped, and say so.
    let mut command = scene.husk();
    command.args(["run", "--rm", "-it", "--init"]).arg(yard.layout.reference()).args(["/bin/sh", "-i"]);
    let mut running = terminal.start(&mut command);
    terminal.send("sleep 0 & wait; sleep 0; echo done $((1 + 1))\n");
    running.line_with("done 2");
    terminal.send("exit 3\n");
    let outcome = running.finish().exits_with(3);
    assert!(!outcome.stdout.contains("job control"), "it has the terminal");
    let mut command = scene.husk();
    command.args(["run", "--rm", "--init"]).arg(yard.layout.reference());
    let mut running =
        command.args(["/bin/sh", "-c", "trap 'exit 9' TERM; echo up; while :; do sleep 0.01; done"]).start();
    running.line_with("up");
    running.signal(Signal::TERM);
    running.finish().exits_with(9);
}

fn another_program_can_be_it(scene: &Scene) {
    let yard = Yard::new(scene);
    let init = scene
        .tree("bin", &[("init", "#!/bin/sh\necho init \"$@\"; echo x > /sbin/docker-init || shift && exec \"$@\"\n")]);
    let init = init.join("init");
    std::fs::set_permissions(&init, Permissions::from_mode(0o755)).unwrap();
    let path = init.display().to_string();
    let outcome = yard.sh(&["run", "--rm", "--init", "--init-path", &path], "echo the workload");
    assert_eq!(outcome.success().stdout, "init -- /bin/sh -c echo the workload\nthe workload\n");
    assert!(std::fs::read_to_string(&init).unwrap().starts_with("#!/bin/sh\n"), "nobody writes to it");
    yard.sh(&["run", "--rm", "--init-path", &path], "true").exits_with(125).says("goes with --init");
}
