//! A container's life: made, started, left to itself, stopped, removed; by whatever command, and whatever is killed meanwhile.

use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::support::image::{Image, Layout};
use super::support::scene::write;
use super::support::tar::Entry;
use super::support::tty::Terminal;
use super::support::{Need, Outcome, Scene, Test, Who, test};

pub(crate) fn tests() -> Vec<Test> {
    let engine = |test: Test| test.needs(Need::Husk).needs(Need::Busybox);
    [
        test!(from_its_making_to_its_removal).and_plain(),
        test!(left_to_itself).and_plain(),
        test!(it_holds_nothing_of_the_callers),
        test!(what_waits_is_told_the_status).and_plain(),
        test!(output_is_kept_and_passed_on).and_plain(),
        test!(a_log_is_followed_to_its_end).and_plain(),
        test!(who_is_slow_in_the_foreground_gets_all_of_it),
        test!(who_attaches_and_does_not_read_is_dropped),
        test!(several_attach).and_plain(),
        test!(a_terminal_is_left_and_come_back_to).and_plain(),
        test!(a_closed_pipe_reaches_the_workload),
        test!(stopping_outlives_the_command_that_asks).and_plain(),
        test!(a_stop_signal_of_the_containers_own),
        test!(what_runs_is_not_removed_without_force).and_plain(),
        test!(a_failed_start_is_on_record).and_plain(),
        test!(of_two_starts_one_wins),
        test!(of_a_start_and_a_removal_one_wins).and_plain(),
        test!(execs_see_the_container_and_its_users).and_plain(),
        test!(a_container_has_one_name_at_a_time),
    ]
    .into_iter()
    .map(engine)
    .collect()
}

/// More lines than every buffer on the way can hold.
const LINES: usize = 300_000;

/// Containers of one test, removed with it: nothing that is detached outlives a test that fails.
pub(crate) struct Yard<'a> {
    pub(crate) scene: &'a Scene,
    pub(crate) layout: Layout,
}

impl<'a> Yard<'a> {
    pub(crate) fn new(scene: &'a Scene) -> Self {
        let programs = ["cat", "echo", "id", "printf", "seq", "sleep", "stty", "yes"];
        let links: Vec<Entry> = programs.iter().map(|name| Entry::symlink(&format!("bin/{name}"), "busybox")).collect();
        Self { scene, layout: Image::busybox(scene).layer(&links).layout(scene, "layout") }
    }

    pub(crate) fn husk(&self, args: &[&str]) -> Outcome {
        self.scene.husk().args(args).run()
    }

    /// `husk VERB FLAGS IMAGE sh -c SCRIPT`.
    pub(crate) fn sh(&self, verb: &[&str], script: &str) -> Outcome {
        self.scene.husk().args(verb).arg(self.layout.reference()).args(["/bin/sh", "-c", script]).run()
    }

    pub(crate) fn status(&self, name: &str) -> String {
        let all = self.husk(&["ps", "-a", "--format", "{{.Names}} {{.Status}}"]).success().stdout;
        let line = all.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is not among {all}")).to_owned()
    }
}

impl Drop for Yard<'_> {
    fn drop(&mut self) {
        let mut all = self.scene.husk();
        let ids = all.args(["ps", "-aq", "--no-trunc"]).run().stdout;
        for id in ids.lines() {
            self.scene.husk().args(["rm", "-f", id]).run();
        }
    }
}

/// Asks until it is so.
#[track_caller]
pub(crate) fn soon(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < deadline, "not within ten seconds: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn from_its_making_to_its_removal(scene: &Scene) {
    let yard = Yard::new(scene);
    let id = yard.sh(&["create", "--name", "life"], "trap 'exit 7' TERM; echo hello; while :; do sleep 0.01; done");
    let id = id.success().stdout;
    assert_eq!(id.trim_end().len(), 64);
    assert_eq!(yard.status("life"), "Created");
    assert_eq!(yard.husk(&["ps", "-q"]).success().stdout, "", "it does not run");
    for _ in 0..2 {
        assert_eq!(yard.husk(&["start", "life"]).success().stdout, "life\n");
        assert!(yard.status("life").starts_with("Up "));
        assert_eq!(yard.husk(&["ps", "-q", "--no-trunc"]).success().stdout, id);
        soon("it writes", || yard.husk(&["logs", "life"]).success().stdout.contains("hello"));
        assert_eq!(yard.husk(&["start", "life"]).success().stdout, "life\n", "one that runs is left alone");
        assert_eq!(yard.husk(&["stop", &id[..12]]).success().stdout, format!("{}\n", &id[..12]));
        assert!(yard.status("life").starts_with("Exited (7) "));
        assert_eq!(yard.husk(&["stop", "life"]).success().stdout, "life\n", "one that has ended is left alone");
    }
    assert_eq!(yard.husk(&["logs", "life"]).success().stdout, "hello\nhello\n", "of both runs");
    yard.husk(&["restart", "life"]).success();
    soon("it is ready", || yard.husk(&["logs", "life"]).success().stdout == "hello\n".repeat(3));
    yard.husk(&["kill", "--signal", "TERM", "life"]).success();
    assert_eq!(yard.husk(&["wait", "life"]).success().stdout, "7\n");
    yard.husk(&["kill", "life"]).exits_with(1).says("container life is not running");
    assert_eq!(yard.husk(&["rm", "life"]).success().stdout, "life\n");
    yard.husk(&["rm", "life"]).exits_with(1).says("no such container: life");
    assert_eq!(yard.husk(&["rm", "-f", "life"]).success().stdout, "");
    assert_eq!(yard.husk(&["ps", "-aq"]).success().stdout, "");
}

fn left_to_itself(scene: &Scene) {
    let yard = Yard::new(scene);
    let run = yard.sh(&["run", "-d", "--name", "alone"], "echo up; sleep 1000");
    assert_eq!(run.success().stdout.trim_end().len(), 64);
    let rm = yard.sh(&["run", "-d", "--rm", "--name", "brief"], "sleep 1000");
    rm.success();
    assert!(yard.status("alone").starts_with("Up "));
    // Gone with its end, its name too.
    yard.husk(&["kill", "brief"]).success();
    soon("it is gone", || !yard.husk(&["ps", "-a", "--format", "{{.Names}}"]).stdout.contains("brief"));
    yard.sh(&["run", "--rm", "--name", "brief"], "true").success();
}

/// The pipe that a caller waits for, a descriptor that it has left open, and its directory.
fn it_holds_nothing_of_the_callers(scene: &Scene) {
    let yard = Yard::new(scene);
    let busy = scene.tree("busy", &[]);
    let mut invocation = scene.program("/bin/sh");
    let husk = super::support::suite::kit().husk.clone();
    let script = format!(
        "exec 9> {}/open; cd {}; exec {} run -d --name holder {} /bin/sleep 1000",
        busy.display(),
        busy.display(),
        husk.display(),
        yard.layout.reference()
    );
    invocation.args(["-c", &script]).env("HUSK_DATA_ROOT", scene.store()).env("HUSK_RUN_ROOT", scene.run_root());
    invocation.run().success();
    let monitor = monitor_of("holder");
    let open: Vec<_> = std::fs::read_dir(format!("/proc/{monitor}/fd"))
        .unwrap()
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .filter(|path| path.starts_with(&busy))
        .collect();
    assert!(open.is_empty(), "{open:?}");
    assert_eq!(std::fs::read_link(format!("/proc/{monitor}/cwd")).unwrap().to_str(), Some("/"));
}

/// The monitor of a container that was started with this name on its command line.
pub(crate) fn monitor_of(name: &str) -> i32 {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|pid| pid.parse::<i32>().ok()) else { continue };
        let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let title = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if title.starts_with("husk:[monitor") && words.split(|byte| *byte == 0).any(|word| word == name.as_bytes()) {
            found.push(pid);
        }
    }
    assert_eq!(found.len(), 1, "monitors of {name}: {found:?}");
    found[0]
}

fn what_waits_is_told_the_status(scene: &Scene) {
    let yard = Yard::new(scene);
    for flags in [&["run", "-d", "--name", "waited"][..], &["run", "-d", "--rm", "--name", "waited"]] {
        yard.sh(flags, "trap 'exit 9' TERM; echo up; while :; do sleep 0.01; done").success();
        soon("it runs", || yard.husk(&["logs", "waited"]).stdout.contains("up"));
        let mut waiting = scene.husk();
        let waiting = waiting.args(["wait", "waited"]).start();
        yard.husk(&["stop", "waited"]).success();
        let outcome = waiting.finish();
        // Who asks too late of one that is gone with its end is told that, by an error.
        if outcome.code() == 0 {
            assert_eq!(outcome.stdout, "9\n");
        } else {
            outcome.says("no such container");
        }
        yard.husk(&["rm", "-f", "waited"]).success();
    }
}

fn output_is_kept_and_passed_on(scene: &Scene) {
    let yard = Yard::new(scene);
    let script = "echo one; echo oh >&2; printf 'no end'";
    let outcome = yard.sh(&["run", "--name", "writer"], script).success();
    assert_eq!(outcome.stdout, "one\nno end");
    assert!(outcome.stderr.ends_with("oh\n"), "{}", outcome.stderr);
    let logs = yard.husk(&["logs", "writer"]).success();
    assert_eq!((logs.stdout.as_str(), logs.stderr.as_str()), ("one\nno end", "oh\n"));
    assert_eq!(yard.husk(&["logs", "--tail", "1", "writer"]).success().stdout, "no end");
    assert_eq!(yard.husk(&["logs", "-n", "0", "writer"]).success().stdout, "");
    assert_eq!(yard.husk(&["logs", "--since", "2001-01-01", "--until", "2001-01-02", "writer"]).success().stdout, "");
    let stamped = yard.husk(&["logs", "-t", "writer"]).success().stdout;
    let (time, rest) = stamped.split_once(' ').unwrap();
    assert_eq!((time.len(), &time[10..11], rest.lines().next().unwrap()), (30, "T", "one"), "{stamped}");
}

fn a_log_is_followed_to_its_end(scene: &Scene) {
    let yard = Yard::new(scene);
    let script = "echo first; read line; echo $line; echo last";
    yard.sh(&["run", "-d", "-i", "--name", "story"], script).success();
    let mut logs = scene.husk();
    let mut logs = logs.args(["logs", "-f", "story"]).start();
    assert_eq!(logs.line(), "first");
    let mut attach = scene.husk();
    let mut attach = attach.args(["attach", "story"]).start();
    attach.write("second\n");
    assert_eq!(logs.line(), "second");
    let outcome = logs.finish().success();
    assert!(outcome.stdout.ends_with("second\nlast\n"), "{}", outcome.stdout);
    attach.finish().success();
}

/// As in a pipeline: the workload waits, and not a byte is lost.
fn who_is_slow_in_the_foreground_gets_all_of_it(scene: &Scene) {
    let yard = Yard::new(scene);
    let mut invocation = scene.husk();
    invocation.args(["run", "--rm", &yard.layout.reference(), "/bin/sh", "-c", &format!("seq {LINES}")]);
    let mut child = invocation.spawn(Stdio::null(), Stdio::piped(), Stdio::inherit());
    let mut output = child.stdout.take().unwrap();
    // More than every buffer on the way can hold is not there until it is read.
    std::thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none(), "it has ended, with nobody reading");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut output, &mut text).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(text.lines().eq((1..=LINES).map(|number| number.to_string())), "{} bytes", text.len());
}

fn who_attaches_and_does_not_read_is_dropped(scene: &Scene) {
    let yard = Yard::new(scene);
    yard.sh(&["run", "-d", "-i", "--name", "loud"], &format!("read go; seq {LINES}; echo the end")).success();
    let mut silent = scene.husk();
    silent.args(["attach", "--no-stdin", "loud"]);
    let mut silent = silent.spawn(Stdio::null(), Stdio::piped(), Stdio::piped());
    let mut attach = scene.husk();
    // Its output goes where it is always taken.
    let mut attach = attach.args(["attach", "loud"]).start();
    attach.write("go\n");
    let outcome = attach.finish();
    soon("it ends, whoever reads", || yard.status("loud").starts_with("Exited (0)"));
    let log = yard.husk(&["logs", "--tail", "1", "loud"]).success().stdout;
    assert_eq!(log, "the end\n");
    let count = yard.husk(&["logs", "loud"]).success().stdout.lines().count();
    assert_eq!(count, LINES + 1, "the log has all of it");
    assert!(outcome.code() == 0 || outcome.stderr.contains("hung up"), "{}", outcome.stderr);
    silent.kill().unwrap();
    silent.wait().unwrap();
}

fn several_attach(scene: &Scene) {
    let yard = Yard::new(scene);
    yard.sh(&["run", "-d", "-i", "--name", "talk"], "while read line; do echo heard $line; done; exit 3").success();
    let (mut one, mut other) = (scene.husk(), scene.husk());
    let mut one = one.args(["attach", "talk"]).start();
    let mut other = other.args(["attach", "talk"]).start();
    one.write("x\n");
    // Who connects is heard in turn: what comes is complete for whom it reaches.
    assert_eq!(one.line(), "heard x");
    other.write("y\n");
    assert_eq!(other.line_with("heard y"), "heard y");
    assert_eq!(one.line_with("heard y"), "heard y");
    yard.husk(&["stop", "-t", "0", "talk"]).success();
    assert_eq!(one.finish().code(), 137);
    assert_eq!(other.finish().code(), 137);
}

fn a_terminal_is_left_and_come_back_to(scene: &Scene) {
    let yard = Yard::new(scene);
    let terminal = Terminal::open(24, 80);
    let before = terminal.modes();
    let mut run = scene.husk();
    run.args(["run", "-it", "--name", "shell", &yard.layout.reference(), "/bin/sh"]);
    let mut running = terminal.start(&mut run);
    terminal.send("stty size; echo in-$((40+2))\r");
    running.line_with("24 80");
    running.line_with("in-42");
    assert!(terminal.is_raw());
    terminal.send("\u{10}\u{11}");
    running.finish().success();
    assert_eq!(terminal.modes(), before, "as it was");
    assert!(yard.status("shell").starts_with("Up "), "it goes on");

    let terminal = Terminal::open(30, 90);
    let mut attach = scene.husk();
    attach.args(["attach", "--detach-keys", "ctrl-x,x", "shell"]);
    let mut running = terminal.start(&mut attach);
    terminal.send("stty size; echo on-$((40+2))\r");
    running.line_with("30 90");
    running.line_with("on-42");
    terminal.send("\u{18}x");
    running.finish().success();

    let terminal = Terminal::open(24, 80);
    let mut attach = scene.husk();
    let running = terminal.start(attach.args(["attach", "shell"]));
    terminal.send("exit 6\r");
    running.finish().exits_with(6);
    let log = yard.husk(&["logs", "shell"]).success().stdout;
    assert!(log.contains("in-42\r\n") && log.contains("on-42\r\n"), "{log:?}");
}

fn a_closed_pipe_reaches_the_workload(scene: &Scene) {
    let yard = Yard::new(scene);
    let mut invocation = scene.husk();
    invocation.args(["run", "--rm", &yard.layout.reference(), "/bin/yes"]);
    let mut child = invocation.spawn(Stdio::null(), Stdio::piped(), Stdio::null());
    let mut output = child.stdout.take().unwrap();
    let mut bytes = [0; 4];
    std::io::Read::read_exact(&mut output, &mut bytes).unwrap();
    drop(output);
    let deadline = Instant::now() + Duration::from_secs(10);
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "it goes on writing to nobody");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn stopping_outlives_the_command_that_asks(scene: &Scene) {
    let yard = Yard::new(scene);
    yard.sh(&["run", "-d", "--name", "stubborn"], "trap 'echo heard' TERM; echo up; while :; do sleep 0.01; done")
        .success();
    soon("it runs", || yard.husk(&["logs", "stubborn"]).stdout.contains("up"));
    let mut stop = scene.husk();
    let stop = stop.args(["stop", "-t", "1", "stubborn"]).start();
    soon("it was asked", || yard.husk(&["logs", "stubborn"]).stdout.contains("heard"));
    stop.signal(Signal::KILL);
    assert_eq!(stop.finish().code(), 137);
    soon("it is ended by its monitor", || yard.status("stubborn").starts_with("Exited (137)"));
}

fn a_stop_signal_of_the_containers_own(scene: &Scene) {
    let yard = Yard::new(scene);
    let script = "trap 'exit 5' USR1; trap 'exit 6' HUP; echo up; while :; do sleep 0.01; done";
    yard.sh(&["run", "-d", "--name", "signals"], script).success();
    soon("it runs", || yard.husk(&["logs", "signals"]).stdout.contains("up"));
    yard.husk(&["stop", "--signal", "SIGUSR1", "signals"]).success();
    assert!(yard.status("signals").starts_with("Exited (5)"));
    yard.husk(&["stop", "--signal", "nope", "signals"]).exits_with(125).says("invalid signal: nope");
}

fn what_runs_is_not_removed_without_force(scene: &Scene) {
    let yard = Yard::new(scene);
    yard.sh(&["run", "-d", "--name", "busy"], "sleep 1000").success();
    yard.husk(&["rm", "busy"]).exits_with(1).says("cannot remove container busy: it is running");
    assert!(yard.status("busy").starts_with("Up "));
    assert_eq!(yard.husk(&["rm", "-f", "busy"]).success().stdout, "busy\n");
    assert_eq!(yard.husk(&["ps", "-aq"]).success().stdout, "");
    let left = std::fs::read_dir(scene.run_root().join("oci")).unwrap().count();
    assert_eq!(left, 0, "of its state");

    // Nobody can tell what a container has whose record is a newer husk's: its volumes stay, and it goes by force.
    let id = yard.sh(&["create", "--name", "newer", "-v", "held:/v"], "true").success().stdout;
    let record = scene.store().join("containers").join(id.trim_end()).join("record.json");
    let text = std::fs::read_to_string(&record).unwrap();
    write(&record, text.replacen("\"format\":1", "\"format\":2", 1));
    yard.husk(&["volume", "rm", "held"]).exits_with(1).says("has format 2");
    yard.husk(&["rm", "-f", "newer"]).success();
    yard.sh(&["run", "--rm", "--name", "newer"], "true").success();
    yard.husk(&["volume", "rm", "held"]).success();
}

fn a_failed_start_is_on_record(scene: &Scene) {
    let yard = Yard::new(scene);
    for (command, status) in [("/no/such", 127), ("/etc", 126)] {
        let layout = yard.layout.reference();
        yard.husk(&["run", "--name", "broken", &layout, command]).exits_with(status);
        assert!(yard.status("broken").starts_with(&format!("Exited ({status}) ")), "{}", yard.status("broken"));
        yard.husk(&["start", "broken"]).exits_with(1);
        yard.husk(&["rm", "broken"]).success();
        yard.husk(&["run", "-d", "--rm", "--name", "broken", &layout, command]).exits_with(status);
        assert_eq!(yard.husk(&["ps", "-aq"]).success().stdout, "", "gone with its end");
    }
}

fn of_two_starts_one_wins(scene: &Scene) {
    let yard = Yard::new(scene);
    yard.sh(&["create", "--name", "wanted"], "echo once; sleep 1000").success();
    let mut starts: Vec<_> = (0..8).map(|_| scene.husk()).collect();
    let running: Vec<_> = starts.iter_mut().map(|start| start.args(["start", "wanted"]).start()).collect();
    for running in running {
        running.finish().success();
    }
    soon("it writes", || yard.husk(&["logs", "wanted"]).stdout.contains("once"));
    assert_eq!(yard.husk(&["logs", "wanted"]).success().stdout, "once\n");
}

fn of_a_start_and_a_removal_one_wins(scene: &Scene) {
    let yard = Yard::new(scene);
    for force in [&["rm"][..], &["rm", "-f"]].repeat(4) {
        yard.sh(&["create", "--name", "both"], "echo up; sleep 1000").success();
        let (mut start, mut remove) = (scene.husk(), scene.husk());
        let start = start.args(["start", "both"]).start();
        let remove = remove.args([force, &["both"]].concat()).start();
        let (started, removed) = (start.finish(), remove.finish());
        let is_there = yard.husk(&["container", "exists", "both"]).code() == 0;
        if removed.code() == 0 {
            assert!(!is_there, "{} {}", started.stderr, removed.stderr);
        } else {
            // It was started first, and is whole.
            assert!(is_there && started.code() == 0, "{} {}", started.stderr, removed.stderr);
            assert!(yard.status("both").starts_with("Up "));
            yard.husk(&["rm", "-f", "both"]).success();
        }
        assert_eq!(std::fs::read_dir(scene.store().join("containers")).unwrap().count(), 0);
        assert_eq!(std::fs::read_dir(scene.store().join("names")).unwrap().count(), 0);
    }
}

fn execs_see_the_container_and_its_users(scene: &Scene) {
    let yard = Yard::new(scene);
    yard.sh(&["run", "-d", "--name", "host", "-e", "A=1", "-w", "/tmp"], "sleep 1000").success();
    let sh = |flags: &[&str], script: &str| {
        let mut words = vec!["exec"];
        words.extend(flags);
        words.extend(["host", "/bin/sh", "-c", script]);
        yard.husk(&words)
    };
    assert_eq!(sh(&[], "pwd; echo $A; id -u").success().stdout, "/tmp\n1\n0\n");
    assert_eq!(sh(&["-w", "/etc", "-e", "A=2", "-e", "B=3"], "pwd; echo $A$B").success().stdout, "/etc\n23\n");
    if scene.who != Who::Plain {
        let script = "id -u; echo $HOME";
        assert_eq!(sh(&["-u", "1000"], script).success().stdout, "1000\n/\n", "HOME is the user's");
        assert_eq!(sh(&["-u", "1000", "-e", "HOME=/h"], script).success().stdout, "1000\n/h\n");
    }
    sh(&[], "exit 9").exits_with(9);
    sh(&[], "kill -9 $$").exits_with(137);
    yard.husk(&["exec", "host", "/no/such"]).exits_with(127);
    yard.husk(&["exec", "host", "/etc"]).exits_with(126);
    yard.husk(&["exec", "nobody", "true"]).exits_with(1).says("no such container: nobody");
    let mut cat = scene.husk();
    let cat = cat.args(["exec", "-i", "host", "/bin/cat"]).input("given\n").run();
    assert_eq!(cat.success().stdout, "given\n");
    assert_eq!(yard.husk(&["exec", "host", "/bin/cat"]).success().stdout, "", "not without -i");
    sh(&["-d"], "echo left > /tmp/left").success();
    soon("it was done", || sh(&[], "cat /tmp/left").stdout == "left\n");
    yard.husk(&["stop", "-t", "0", "host"]).success();
    sh(&[], "true").exits_with(1).says("container host is not running");
}

fn a_container_has_one_name_at_a_time(scene: &Scene) {
    let yard = Yard::new(scene);
    yard.sh(&["create", "--name", "first"], "true").success();
    yard.sh(&["create", "--name", "second"], "true").success();
    yard.husk(&["rename", "first", "second"]).exits_with(1).says("second");
    yard.husk(&["rename", "first", "third"]).success();
    yard.husk(&["start", "-a", "third"]).success();
    yard.husk(&["start", "first"]).exits_with(1).says("no such container: first");
    yard.sh(&["create", "--name", "first"], "true").success();
}
