//! Containers that outlive their monitors: the next command gives them another, and nothing of what they wrote is lost or
//! doubled.

use std::process::Stdio;

use rustix::process::{Pid, Signal};

use super::lifecycle::{Yard, monitor_of, soon};
use super::support::{Need, Scene, Test, Who, test};

pub(crate) fn tests() -> Vec<Test> {
    let engine = |test: Test| test.needs(Need::Husk).needs(Need::Busybox);
    [
        test!(a_writer_loses_no_line),
        test!(stopping_and_policy_go_on),
        test!(of_many_that_meet_it_one_looks_after_it),
        test!(what_is_typed_and_checked_goes_on).and_plain(),
        test!(streams_are_the_users_to_open).and_plain(),
        test!(an_end_that_nobody_saw_is_on_record),
        test!(with_a_terminal_it_ends),
        test!(a_rest_is_taken_over).and_plain(),
        test!(a_stop_outlives_who_asked_and_who_was_asked),
        test!(a_follower_gives_it_another_monitor),
    ]
    .into_iter()
    .map(engine)
    .collect()
}

fn kill_monitor(name: &str) {
    let monitor = Pid::from_raw(monitor_of(name)).unwrap();
    rustix::process::kill_process(monitor, Signal::KILL).unwrap();
    soon("it is dead", || has_ended(monitor));
}

/// Whether or not somebody has reaped it.
pub(crate) fn has_ended(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}

fn a_writer_loses_no_line(scene: &Scene) {
    let yard = Yard::new(scene);
    // Lines in two pieces, so that there is a half one at any time.
    let script = "n=0; while [ ! -e /end ]; do n=$((n+1)); printf \"line \"; echo $n; done; echo last $n";
    yard.sh(&["run", "-d", "--name", "writer", "--log-opt", "max-size=20k", "--log-opt", "max-file=1000"], script)
        .success();
    for _ in 0..3 {
        let lines = || yard.husk(&["logs", "writer"]).success().stdout.lines().count();
        let before = lines();
        soon("it writes", || lines() > before + 100);
        kill_monitor("writer");
        // Half of the times by another command.
        if before % 2 == 0 {
            yard.husk(&["ps"]).success();
        }
    }
    assert!(yard.status("writer").starts_with("Up "));
    yard.husk(&["exec", "writer", "/bin/sh", "-c", "echo > /end"]).success();
    assert_eq!(yard.husk(&["wait", "writer"]).success().stdout, "0\n");
    let log = yard.husk(&["logs", "writer"]).success().stdout;
    let count = log.lines().count();
    for (number, line) in log.lines().enumerate() {
        let number = number + 1;
        let expected = if number == count { format!("last {}", count - 1) } else { format!("line {number}") };
        assert_eq!(line, expected, "of {count} lines");
    }
}

fn stopping_and_policy_go_on(scene: &Scene) {
    let yard = Yard::new(scene);
    let script = "trap 'exit 7' TERM; echo run; while :; do sleep 0.01; done";
    yard.sh(&["run", "-d", "--restart", "on-failure:2", "--name", "guarded"], script).success();
    let runs = |count| {
        soon("it runs", || yard.husk(&["logs", "guarded"]).success().stdout == "run\n".repeat(count));
        let restarts = yard.husk(&["inspect", "--format", "{{.RestartCount}}", "guarded"]).success().stdout;
        assert_eq!(restarts, format!("{}\n", count - 1));
    };
    let fail = || yard.husk(&["exec", "guarded", "/bin/sh", "-c", "kill -TERM 1"]);
    runs(1);
    kill_monitor("guarded");
    fail();
    runs(2);
    kill_monitor("guarded");
    fail();
    runs(3);
    kill_monitor("guarded");
    yard.husk(&["rm", "guarded"]).exits_with(1).says("cannot remove container guarded: it is running");
    fail();
    soon("it is not started a third time", || yard.status("guarded").starts_with("Exited (7)"));
    assert_eq!(yard.husk(&["logs", "guarded"]).success().stdout, "run\n".repeat(3));
    // The status is the kernel's to tell, whoever was its parent.
    for (verb, status, starts) in [(&["stop", "guarded"][..], 7, 4), (&["kill", "guarded"], 137, 5)] {
        yard.husk(&["start", "guarded"]).success();
        soon("it is ready", || yard.husk(&["logs", "guarded"]).success().stdout == "run\n".repeat(starts));
        kill_monitor("guarded");
        yard.husk(verb).success();
        soon("it has ended", || yard.status("guarded").starts_with(&format!("Exited ({status})")));
    }
    yard.sh(&["run", "-d", "--rm", "--name", "brief"], "sleep 1000").success();
    kill_monitor("brief");
    yard.husk(&["rm", "-f", "brief"]).success();
    assert!(!yard.husk(&["ps", "-a"]).success().stdout.contains("brief"));
}

fn of_many_that_meet_it_one_looks_after_it(scene: &Scene) {
    let yard = Yard::new(scene);
    yard.sh(&["run", "-d", "--name", "found"], "echo up; sleep 1000").success();
    soon("it runs", || yard.husk(&["logs", "found"]).stdout == "up\n");
    kill_monitor("found");
    let mut commands: Vec<_> = (0..8).map(|_| scene.husk()).collect();
    let running: Vec<_> = commands
        .iter_mut()
        .zip([["ps", "-a"], ["logs", "found"], ["inspect", "found"], ["start", "found"]].into_iter().cycle())
        .map(|(command, words)| command.args(words).start())
        .collect();
    for running in running {
        running.finish().success();
    }
    // One it is, or this fails.
    monitor_of("found");
    assert_eq!(yard.husk(&["logs", "found"]).success().stdout, "up\n");
}

fn what_is_typed_and_checked_goes_on(scene: &Scene) {
    let yard = Yard::new(scene);
    let check = ["--health-cmd", "test -e /fine", "--health-interval", "50ms", "--health-retries", "1"];
    let mut flags = vec!["run", "-d", "-i", "--name", "listener", "--timeout", "600"];
    flags.extend(check);
    yard.sh(&flags, "while read line; do echo heard $line; done").success();
    let health = |word: &str| {
        let format = "{{.State.Health.Status}}";
        soon(word, || yard.husk(&["inspect", "--format", format, "listener"]).success().stdout.trim_end() == word);
    };
    health("unhealthy");
    kill_monitor("listener");
    let mut attach = scene.husk();
    let mut attach = attach.args(["attach", "listener"]).start();
    attach.write("x\n");
    assert_eq!(attach.line(), "heard x");
    yard.husk(&["exec", "listener", "/bin/sh", "-c", "echo > /fine"]).success();
    health("healthy");
    yard.husk(&["kill", "listener"]).success();
    assert_eq!(attach.finish().code(), 137);
    assert_eq!(yard.husk(&["logs", "listener"]).success().stdout, "heard x\n");
}

/// As with pipes: whoever the container's user is opens `/dev/stdout` anew, and it is no file.
fn streams_are_the_users_to_open(scene: &Scene) {
    let yard = Yard::new(scene);
    let script = "test -p /dev/stdout && echo one > /dev/stdout; echo two > /proc/self/fd/2; echo three >> /dev/stdout";
    for user in ["0", "1", "12345"] {
        if scene.who == Who::Plain && user != "0" {
            continue;
        }
        yard.sh(&["run", "-d", "--name", "opener", "--user", user], script).success();
        soon("it ends", || yard.status("opener").starts_with("Exited"));
        let logs = yard.husk(&["logs", "opener"]).success();
        assert_eq!((logs.stdout.as_str(), logs.stderr.as_str()), ("one\nthree\n", "two\n"), "user {user}");
        assert!(yard.status("opener").starts_with("Exited (0)"));
        yard.husk(&["rm", "opener"]).success();
    }
}

fn an_end_that_nobody_saw_is_on_record(scene: &Scene) {
    let yard = Yard::new(scene);
    yard.sh(&["run", "-d", "--name", "lonely"], "printf half; sleep 1000").success();
    let pid = yard.husk(&["inspect", "--format", "{{.State.Pid}}", "lonely"]).success().stdout;
    let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    // What has no end of line is in no log yet.
    let folder = scene.store().join("containers").join(std::fs::read_link(scene.store().join("names/lonely")).unwrap());
    soon("it was read", || std::fs::read(folder.join("unlogged.output")).is_ok_and(|bytes| bytes == b"half"));
    kill_monitor("lonely");
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    soon("it has ended", || has_ended(pid));
    assert!(yard.status("lonely").starts_with("Exited (255)"));
    let error = yard.husk(&["inspect", "--format", "{{.State.Error}}", "lonely"]).success().stdout;
    assert_eq!(error, "how it ended is unknown: its monitor was killed before\n");
    assert_eq!(yard.husk(&["logs", "lonely"]).success().stdout, "half");
    let left: Vec<_> = std::fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_str().unwrap().starts_with("unlogged") || name == "output"), "{left:?}");
}

/// The other side of its terminal was the monitor's.
fn with_a_terminal_it_ends(scene: &Scene) {
    let yard = Yard::new(scene);
    yard.sh(&["run", "-dt", "--name", "shown"], "echo up; sleep 1000").success();
    soon("it runs", || yard.husk(&["logs", "shown"]).stdout.contains("up"));
    kill_monitor("shown");
    soon("its end is on record", || yard.status("shown").starts_with("Exited (255)"));
    yard.husk(&["start", "shown"]).success();
    soon("it runs again", || yard.husk(&["logs", "shown"]).stdout == "up\r\nup\r\n");
}

/// Killed between two runs: who meets it starts it again, as it would have been.
fn a_rest_is_taken_over(scene: &Scene) {
    let yard = Yard::new(scene);
    yard.sh(&["run", "-d", "--restart", "on-failure:6", "--name", "weak"], "echo run; exit 4").success();
    let restarts = || yard.husk(&["inspect", "--format", "{{.RestartCount}}", "weak"]).success().stdout;
    soon("its rests are long", || restarts() == "3\n" && yard.status("weak").starts_with("Restarting (4)"));
    kill_monitor("weak");
    soon("it goes on", || restarts().as_str() >= "4\n");
    soon("and gives up when it would have", || yard.status("weak").starts_with("Exited (4)"));
    assert_eq!(restarts(), "6\n");
    assert_eq!(yard.husk(&["logs", "weak"]).success().stdout, "run\n".repeat(7));
}

fn a_stop_outlives_who_asked_and_who_was_asked(scene: &Scene) {
    let yard = Yard::new(scene);
    let script = "trap 'echo asked' TERM; echo up; while :; do sleep 0.01; done";
    yard.sh(&["run", "-d", "--restart", "unless-stopped", "--name", "deaf"], script).success();
    soon("it is up", || yard.husk(&["logs", "deaf"]).success().stdout == "up\n");
    let mut stop = scene.husk();
    let mut stop = stop.args(["stop", "-t", "2", "deaf"]).spawn(Stdio::null(), Stdio::null(), Stdio::null());
    soon("it was asked", || yard.husk(&["logs", "deaf"]).success().stdout.contains("asked"));
    stop.kill().unwrap();
    stop.wait().unwrap();
    kill_monitor("deaf");
    assert!(yard.status("deaf").starts_with("Up "));
    soon("it is killed", || yard.status("deaf").starts_with("Exited (137)"));
    let why = yard.husk(&["inspect", "--format", "{{.State.Status}} {{.RestartCount}}", "deaf"]).success().stdout;
    assert_eq!(why, "exited 0\n", "its policy leaves it at that");
    // A start begins with nothing asked for.
    yard.husk(&["start", "deaf"]).success();
    kill_monitor("deaf");
    assert!(yard.status("deaf").starts_with("Up "));
    yard.husk(&["rm", "-f", "deaf"]).success();
}

fn a_follower_gives_it_another_monitor(scene: &Scene) {
    let yard = Yard::new(scene);
    let script = "echo one; while ! test -e /go; do sleep 0.01; done; echo two";
    yard.sh(&["run", "-d", "--name", "read"], script).success();
    let mut follower = scene.husk();
    let mut follower = follower.args(["logs", "-f", "read"]).start();
    assert_eq!(follower.line(), "one");
    kill_monitor("read");
    let container = Pid::from_raw(monitor_soon("read")).unwrap();
    assert!(!has_ended(container));
    yard.husk(&["exec", "read", "/bin/sh", "-c", "echo > /go"]).success();
    assert_eq!(follower.line(), "two");
    follower.finish().success();
    assert!(yard.status("read").starts_with("Exited (0)"));
}

/// The monitor that somebody gives a container, which nobody else has asked about.
fn monitor_soon(name: &str) -> i32 {
    let is_there = || {
        std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let title = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            title.starts_with("husk:[monitor") && words.split(|byte| *byte == 0).any(|word| word == name.as_bytes())
        })
    };
    soon("the follower looks after it", is_there);
    monitor_of(name)
}
