//! What a monitor does beside waiting: restart policies, health checks, time limits, logs in files of their own size.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use caps::Capability;
use serde_json::Value;

use super::lifecycle::{Yard, monitor_of, soon};
use super::support::scene::write;
use super::support::{Need, Scene, Test, test};
use super::upkeep::{Small, used};

pub(crate) fn tests() -> Vec<Test> {
    let engine = |test: Test| test.needs(Need::Husk).needs(Need::Busybox);
    [
        test!(failures_are_restarted_so_often).and_plain(),
        test!(what_is_asked_to_end_stays_ended).and_plain(),
        test!(a_restart_joins_who_is_there_now).and_plain(),
        test!(between_two_runs_it_can_be_stopped_and_removed),
        test!(a_check_makes_healthy_and_unhealthy).and_plain(),
        test!(an_unhealthy_container_is_acted_upon),
        test!(a_check_that_hangs_is_ended),
        test!(a_check_that_shouts_is_cut),
        test!(a_run_has_its_time_limit),
        test!(logs_are_bounded_and_in_the_format_asked_for).and_plain(),
        test!(a_full_disk_is_no_end_and_what_it_cost_is_said).root().needs(Need::Capability(Capability::CAP_SYS_ADMIN)),
        test!(an_end_is_on_record_however_full_the_disk).root().needs(Need::Capability(Capability::CAP_SYS_ADMIN)),
        test!(a_flood_that_nobody_reads_stays_out_of_memory),
        test!(without_a_log_the_streams_are_the_commands),
    ]
    .into_iter()
    .map(engine)
    .collect()
}

pub(crate) fn folder(yard: &Yard<'_>, name: &str) -> PathBuf {
    let store = yard.scene.store();
    store.join("containers").join(std::fs::read_link(store.join("names").join(name)).unwrap())
}

fn health(yard: &Yard<'_>, name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(folder(yard, name).join("health.json")).unwrap()).unwrap()
}

fn failures_are_restarted_so_often(scene: &Scene) {
    let yard = Yard::new(scene);
    yard.sh(&["run", "-d", "--restart", "on-failure:2", "--name", "thrice"], "echo run; exit 3").success();
    soon("it gives up", || yard.status("thrice").starts_with("Exited (3)"));
    assert_eq!(yard.husk(&["logs", "thrice"]).success().stdout, "run\n".repeat(3));
    yard.sh(&["run", "-d", "--restart", "on-failure", "--name", "once"], "echo run").success();
    soon("it ends", || yard.status("once").starts_with("Exited (0)"));
    assert_eq!(yard.husk(&["logs", "once"]).success().stdout, "run\n", "that was no failure");
    yard.sh(&["run", "--rm", "--restart", "always"], "true").exits_with(125).says("--restart and --rm");
}

fn what_is_asked_to_end_stays_ended(scene: &Scene) {
    let yard = Yard::new(scene);
    let script = "trap 'exit 4' TERM; echo run; while :; do sleep 0.01; done";
    for policy in ["always", "unless-stopped"] {
        for end in [&["stop", "phoenix"][..], &["kill", "phoenix"], &["kill", "-s", "TERM", "phoenix"]] {
            yard.sh(&["run", "-d", "--restart", policy, "--name", "phoenix"], script).success();
            soon("it runs", || yard.husk(&["logs", "phoenix"]).stdout == "run\n");
            // Not asked for through husk: it comes back.
            yard.husk(&["exec", "phoenix", "/bin/sh", "-c", "kill -TERM 1"]);
            soon("it is back", || yard.husk(&["logs", "phoenix"]).stdout == "run\nrun\n");
            yard.husk(end).success();
            soon("it has ended", || yard.status("phoenix").starts_with("Exited"));
            assert_eq!(yard.husk(&["ps", "-q"]).success().stdout, "");
            yard.husk(&["rm", "phoenix"]).success();
        }
    }
}

/// The pid by which a configuration names another container's namespaces is of its last start but one, by then.
fn a_restart_joins_who_is_there_now(scene: &Scene) {
    let yard = Yard::new(scene);
    let wait = "trap 'exit 0' TERM; while :; do sleep 0.01; done";
    yard.sh(&["run", "-d", "--name", "owner"], wait).success();
    yard.sh(&["run", "-d", "--name", "guest", "--uts", "container:owner", "--restart", "always"], wait).success();
    let pid = |name: &str| yard.husk(&["inspect", "--format", "{{.State.Pid}}", name]).success().stdout;
    let namespace = |name: &str| std::fs::read_link(format!("/proc/{}/ns/uts", pid(name).trim())).ok();
    assert_eq!(namespace("guest"), namespace("owner"));
    yard.husk(&["restart", "owner"]).success();
    let before = pid("guest");
    yard.husk(&["exec", "guest", "/bin/sh", "-c", "kill -TERM 1"]);
    soon("it is back", || !["0\n", &before].contains(&pid("guest").as_str()) && namespace("guest").is_some());
    assert_eq!(namespace("guest"), namespace("owner"));
    yard.husk(&["stop", "owner"]).success();
    yard.husk(&["exec", "guest", "/bin/sh", "-c", "kill -TERM 1"]);
    soon("it fails", || yard.status("guest").starts_with("Exited (128)"));
    let error = yard.husk(&["inspect", "--format", "{{.State.Error}}", "guest"]).success().stdout;
    assert!(error.contains(" is not running"), "{error}");
}

fn between_two_runs_it_can_be_stopped_and_removed(scene: &Scene) {
    let yard = Yard::new(scene);
    for end in [&["stop", "weak"][..], &["rm", "-f", "weak"]] {
        yard.sh(&["run", "-d", "--restart", "always", "--name", "weak"], "exit 1").success();
        // By the fourth run the pauses are long enough to be met.
        soon("it rests", || yard.status("weak").starts_with("Restarting (1)"));
        let begun = Instant::now();
        yard.husk(end).success();
        assert!(begun.elapsed() < Duration::from_secs(5), "its rest is cut short");
        if end[0] == "stop" {
            assert!(yard.status("weak").starts_with("Exited (1)"));
            yard.husk(&["rm", "weak"]).success();
        }
        assert_eq!(yard.husk(&["ps", "-aq"]).success().stdout, "");
    }
}

fn a_check_makes_healthy_and_unhealthy(scene: &Scene) {
    let yard = Yard::new(scene);
    let flags = [
        "run",
        "-d",
        "--name",
        "patient",
        "--health-cmd",
        "echo looked; cat /tmp/fine",
        "--health-interval",
        "50ms",
        "--health-retries",
        "2",
    ];
    yard.sh(&flags, "mkdir /tmp; sleep 1000").success();
    soon("it is ill", || health(&yard, "patient")["Status"] == "unhealthy");
    let found = health(&yard, "patient");
    assert!(found["FailingStreak"].as_u64().unwrap() >= 2);
    let last = &found["Log"][0];
    assert_eq!(last["ExitCode"], 1);
    assert!(last["Output"].as_str().unwrap().starts_with("looked\n"), "{last}");
    yard.husk(&["exec", "patient", "/bin/sh", "-c", "echo > /tmp/fine"]).success();
    soon("it is well", || health(&yard, "patient")["Status"] == "healthy");
    assert_eq!(health(&yard, "patient")["FailingStreak"], 0);
}

fn an_unhealthy_container_is_acted_upon(scene: &Scene) {
    let yard = Yard::new(scene);
    let run = |name: &str, action: &str| {
        let check = ["--health-cmd", "exit 1", "--health-interval", "50ms", "--health-retries", "1"];
        let mut flags = vec!["run", "-d", "--name", name, "--health-on-failure", action];
        flags.extend(check);
        yard.sh(&flags, "trap 'exit 6' TERM; echo run; while :; do sleep 0.01; done").success();
    };
    run("killed", "kill");
    soon("it is killed", || yard.status("killed").starts_with("Exited (137)"));
    run("stopped", "stop");
    soon("it is stopped", || yard.status("stopped").starts_with("Exited (6)"));
    run("again", "restart");
    soon("it is started again", || yard.husk(&["logs", "again"]).stdout.lines().count() >= 2);
}

fn a_check_that_hangs_is_ended(scene: &Scene) {
    let yard = Yard::new(scene);
    let check = ["--health-cmd", "sleep 1000", "--health-interval", "50ms", "--health-timeout", "100ms"];
    let mut flags = vec!["run", "-d", "--name", "slow"];
    flags.extend(check);
    yard.sh(&flags, "sleep 1000").success();
    soon("it is noticed", || !health(&yard, "slow")["Log"].as_array().unwrap().is_empty());
    let first = &health(&yard, "slow")["Log"][0];
    assert_eq!(first["ExitCode"], -1);
    assert_eq!(first["Output"], "Health check exceeded timeout (100ms)");
}

fn a_check_that_shouts_is_cut(scene: &Scene) {
    let yard = Yard::new(scene);
    let check = ["--health-cmd", "seq 100000", "--health-interval", "50ms"];
    let mut flags = vec!["run", "-d", "--name", "loud"];
    flags.extend(check);
    yard.sh(&flags, "sleep 1000").success();
    soon("it is well", || health(&yard, "loud")["Status"] == "healthy");
    let output = health(&yard, "loud")["Log"][0]["Output"].as_str().unwrap().to_owned();
    assert_eq!(output.len(), 4096);
    assert!(output.starts_with("1\n2\n3\n"));
}

fn a_run_has_its_time_limit(scene: &Scene) {
    let yard = Yard::new(scene);
    yard.sh(&["run", "--rm", "--timeout", "1"], "sleep 1000").exits_with(137);
}

fn logs_are_bounded_and_in_the_format_asked_for(scene: &Scene) {
    let yard = Yard::new(scene);
    let options = ["--log-driver", "k8s-file", "--log-opt", "max-size=1k", "--log-opt", "max-file=2"];
    let mut flags = vec!["run", "--name", "long"];
    flags.extend(options);
    yard.sh(&flags, "seq 1000").success();
    let folder = folder(&yard, "long");
    let size = |name: &str| std::fs::metadata(folder.join(name)).unwrap().len();
    assert!(size("log") <= 1024 && size("log.1") <= 1024);
    assert!(!folder.join("log.2").exists());
    let text = std::fs::read_to_string(folder.join("log")).unwrap();
    assert!(
        text.lines().all(|line| line[30..].starts_with("+00:00 stdout F ") || line.contains(" stdout F ")),
        "{text}"
    );
    let options = [
        "--log-opt",
        "tag={{.Name}}/{{.ID}}",
        "--log-opt",
        "labels=a,b",
        "--log-opt",
        "env=C",
        "-l",
        "a=1",
        "-e",
        "C=3",
    ];
    let mut flags = vec!["run", "--name", "tagged"];
    flags.extend(options);
    yard.sh(&flags, "echo x").success();
    let id = std::fs::read_link(scene.store().join("names/tagged")).unwrap();
    let id = &id.to_str().unwrap()[..12];
    let shown = yard.husk(&["logs", "--details", "tagged"]).success().stdout;
    assert_eq!(shown, format!("C=3,a=1,tag=tagged/{id} x\n"));
    let last = yard.husk(&["logs", "--tail", "2", "long"]).success().stdout;
    assert_eq!(last, "999\n1000\n");
}

fn a_full_disk_is_no_end_and_what_it_cost_is_said(scene: &Scene) {
    const LINES: usize = 20_000;
    let small = Small::mount(scene.store(), c"mode=700,size=16m");
    let yard = Yard::new(scene);
    let script = format!("read go; seq {LINES}; echo done; read more; echo after; read end");
    yard.sh(&["run", "-d", "-i", "--name", "full"], &script).success();
    let mut attach = scene.husk();
    let mut attach = attach.args(["attach", "full"]).start();
    let ballast = scene.store().join("ballast");
    let length = (16 << 20) - (300 << 10) - used(&scene.store());
    write(&ballast, vec![0; usize::try_from(length).unwrap()]);
    attach.write("go\n");
    attach.line_with("done");
    std::fs::remove_file(&ballast).unwrap();
    attach.write("more\n");
    attach.line_with("after");
    soon("it is logged", || yard.husk(&["logs", "--tail", "1", "full"]).success().stdout == "after\n");
    let logs = yard.husk(&["logs", "full"]).success();
    // Each time that there was room again.
    let notices = logs.stderr.lines().map(|line| line.strip_prefix("husk: ").and_then(|line| line.split(' ').next()));
    let lost: usize = notices.map(|count| count.and_then(|count| count.parse::<usize>().ok()).expect("a notice")).sum();
    let kept = logs.stdout.lines().count();
    assert!(kept > 1000, "as many as there was room for: {kept}");
    assert!(lost > 0 && kept + lost == LINES + 2, "{kept} kept and {lost} lost");
    yard.husk(&["rm", "-f", "full"]).success();
    drop(small);
}

/// Room for the record of an end is set aside at the start; without it, the status still reaches who waits for it.
fn an_end_is_on_record_however_full_the_disk(scene: &Scene) {
    let small = Small::mount(scene.store(), c"mode=700,size=8m");
    let yard = Yard::new(scene);
    let on_signal = |status: u8| format!("trap 'exit {status}' USR1; echo ready; while :; do sleep 0.01; done");
    let is_ready = |name: &str, runs: usize| {
        soon("it is ready", || yard.husk(&["logs", name]).stdout == "ready\n".repeat(runs));
    };
    yard.sh(&["run", "-d", "--name", "once"], &on_signal(7)).success();
    yard.sh(&["run", "-d", "--restart", "on-failure:1", "--log-opt", "max-size=1m", "--name", "twice"], &on_signal(5))
        .success();
    yard.sh(&["run", "-d", "--restart", "always", "--name", "weak"], "exit 1").success();
    let attended: Vec<_> = ["kept", "unkept"]
        .map(|name| {
            let mut run = scene.husk();
            run.args(["run", "--name", name, &yard.layout.reference(), "/bin/sh", "-c", &on_signal(9)]);
            let child = run.spawn(Stdio::null(), Stdio::piped(), Stdio::piped());
            is_ready(name, 1);
            child
        })
        .into();
    is_ready("once", 1);
    is_ready("twice", 1);
    let reserved = |name: &str| folder(&yard, name).join("exit.next");
    assert_eq!(std::fs::metadata(reserved("once")).unwrap().len(), 2048);
    std::fs::remove_file(reserved("unkept")).unwrap();
    soon("it rests for longer", || yard.husk(&["inspect", "-f", "{{.RestartCount}}", "weak"]).stdout.as_str() >= "3\n");
    let mut ballast = std::fs::File::create_new(scene.store().join("ballast")).unwrap();
    let mut fill = || while std::io::Write::write(&mut ballast, &[0; 4096]).is_ok() {};
    fill();
    assert_eq!(rustix::fs::statvfs(scene.store()).unwrap().f_bfree, 0);

    let mut wait = scene.husk();
    let waiting = wait.args(["wait", "once"]).spawn(Stdio::null(), Stdio::piped(), Stdio::piped());
    yard.husk(&["kill", "-s", "USR1", "once"]).success();
    assert_eq!(waiting.wait_with_output().unwrap().stdout, b"7\n");
    assert!(yard.status("once").starts_with("Exited (7)"));
    yard.husk(&["kill", "-s", "USR1", "twice"]).success();
    let restarts = || yard.husk(&["inspect", "-f", "{{.RestartCount}} {{.State.Running}}", "twice"]).stdout;
    soon("the policy brings it back", || restarts() == "1 true\n");
    soon("and it ends for good", || {
        yard.husk(&["kill", "-s", "USR1", "twice"]);
        yard.status("twice").starts_with("Exited (5)")
    });
    // What is on record is corrected: it would have been started again.
    soon("it rests", || yard.status("weak").starts_with("Restarting (1)"));
    yard.husk(&["stop", "weak"]).success();
    assert!(yard.status("weak").starts_with("Exited (1)"));
    for (child, name) in attended.into_iter().zip(["kept", "unkept"]) {
        // Others have ended, and left some room.
        fill();
        yard.husk(&["kill", "-s", "USR1", name]).success();
        let outcome = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&outcome.stderr).into_owned();
        assert_eq!(outcome.status.code(), Some(9), "{said}");
        if name == "kept" {
            assert_eq!((said.as_str(), yard.status(name).split(' ').nth(1)), ("", Some("(9)")));
        } else {
            assert!(said.contains("write exit.json: no space left on device (ENOSPC)"), "{said}");
        }
    }
    drop(small);
}

/// 64 MB, to three who attend and do not read.
fn a_flood_that_nobody_reads_stays_out_of_memory(scene: &Scene) {
    let yard = Yard::new(scene);
    let script = "read go; seq 8000000; echo > /done; read end";
    yard.sh(&["run", "-d", "-i", "--name", "flood", "--log-driver", "none"], script).success();
    let monitor = monitor_of("flood");
    let kilobytes = |what: &str| -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{monitor}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
        line.split_ascii_whitespace().next().unwrap().parse().unwrap()
    };
    let silent: Vec<_> = (0..3)
        .map(|_| {
            let mut silent = scene.husk();
            silent.args(["attach", "--no-stdin", "flood"]);
            silent.spawn(Stdio::null(), Stdio::piped(), Stdio::piped())
        })
        .collect();
    let mut attach = scene.husk();
    attach.args(["attach", "flood"]);
    let attach = attach.spawn(Stdio::piped(), Stdio::piped(), Stdio::piped());
    let before = kilobytes("VmRSS:");
    std::io::Write::write_all(&mut attach.stdin.as_ref().unwrap(), b"go\n").unwrap();
    soon("all of it was written", || yard.husk(&["exec", "flood", "/bin/sh", "-c", "test -e /done"]).code() == 0);
    let most = kilobytes("VmHWM:");
    assert!(most < before.max(8 << 10) + (4 << 10), "{before} kB became {most} kB");
    for mut child in silent.into_iter().chain([attach]) {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// A file as standard output is a file to the workload.
fn without_a_log_the_streams_are_the_commands(scene: &Scene) {
    let yard = Yard::new(scene);
    yard.sh(&["run", "--name", "mute", "--log-driver", "none"], "echo seen").success();
    yard.husk(&["logs", "mute"]).exits_with(1).says("container mute keeps no log");
    let file = scene.path().join("output");
    let output = std::fs::File::create_new(&file).unwrap();
    let mut invocation = scene.husk();
    let script = "echo one; seek() { echo two; }; seek; ls -l /proc/self/fd/1";
    invocation.args(["run", "--rm", "--log-driver", "none", &yard.layout.reference(), "/bin/sh", "-c", script]);
    let mut child = invocation.spawn(Stdio::null(), output.into(), Stdio::inherit());
    assert!(child.wait().unwrap().success());
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("one\ntwo\n") && text.contains("output"), "{text}");
}
