//! The terminal: a pty inside, the caller's in raw mode, given back as it was on every way out.

use rustix::process::Signal;
use serde_json::json;

use super::support::suite::{Flavour, kit};
use super::support::tty::Terminal;
use super::support::{Bundle, Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(the_process_has_a_terminal).and_plain(),
        test!(the_callers_is_raw_and_then_restored).and_plain().needs(Need::Busybox),
        test!(keys_arrive_as_typed).and_plain().needs(Need::Busybox),
        test!(an_interrupt_key_reaches_the_workload).and_plain(),
        test!(resizes_are_passed_on).and_plain().needs(Need::NotCrun),
        test!(restored_when_the_workload_is_killed).and_plain(),
        test!(restored_when_husk_is_asked_to_end).and_plain(),
        test!(restored_when_the_start_fails).and_plain().needs(Need::NotCrun),
        test!(all_output_is_kept).and_plain().needs(Need::Busybox),
    ]
}

fn bundle(scene: &Scene) -> Bundle<'_> {
    let mut bundle = scene.bundle();
    bundle.config["process"]["terminal"] = json!(true);
    bundle
}

fn the_process_has_a_terminal(scene: &Scene) {
    let terminal = Terminal::open(41, 123);
    let mut bundle = bundle(scene);
    bundle.probe(["--stat", "/dev/console", "--try", "open-write:/dev/tty"]);
    let mut running = terminal.start(&mut bundle.command());
    let report = running.report();
    running.finish().success();
    for number in 0..3 {
        let file = &report["stdio"][number];
        assert_eq!(file["kind"], "tty");
        // Pty slaves have the major numbers 136 to 143.
        let device = file["device"].as_u64().unwrap();
        assert!((136..=143).contains(&rustix::fs::major(device)), "{device:x}");
        assert_eq!(report["fds"][number.to_string()], "/dev/pts/0");
    }
    // runc and crun set the size when the process runs already.
    if kit().flavour == Flavour::Husk {
        assert_eq!(report["tty_size"], json!([41, 123]));
    }
    assert_eq!(report["sid"], report["pid"]);
    assert_eq!(report["tries"]["open-write:/dev/tty"], "ok", "the terminal controls the process");
    assert_eq!(report["stats"]["/dev/console"]["kind"], "char");
}

fn the_callers_is_raw_and_then_restored(scene: &Scene) {
    let terminal = Terminal::open(24, 80);
    let before = terminal.modes();
    let mut bundle = bundle(scene);
    bundle.args(["/bin/sh", "-c", "echo up; read line; echo got $line"]);
    let mut running = terminal.start(&mut bundle.command());
    running.line_with("up");
    assert!(terminal.is_raw(), "{}", terminal.modes());
    terminal.send("hello\r");
    running.line_with("got hello");
    running.finish().success();
    assert_eq!(terminal.modes(), before);
}

fn keys_arrive_as_typed(scene: &Scene) {
    let terminal = Terminal::open(24, 80);
    let mut bundle = bundle(scene);
    bundle.args(["/bin/sh", "-c", "stty raw -echo; echo up; dd bs=1 count=6 2>/dev/null | cat -v; echo"]);
    let mut running = terminal.start(&mut bundle.command());
    running.line_with("up");
    terminal.send("\x03\x04\x1a\x11\r\x7f");
    let line = running.line_with("^C");
    assert_eq!(line.trim(), "^C^D^Z^Q^M^?");
    running.finish().success();
}

fn an_interrupt_key_reaches_the_workload(scene: &Scene) {
    let terminal = Terminal::open(24, 80);
    let mut bundle = bundle(scene);
    bundle.args(["/probe", "--quiet", "--catch"]);
    let mut running = terminal.start(&mut bundle.command());
    running.line_with("ready");
    terminal.send("\x03");
    running.line_with("SIGINT");
    running.signal(Signal::TERM);
    running.line_with("SIGTERM");
    running.finish().success();
}

fn resizes_are_passed_on(scene: &Scene) {
    let terminal = Terminal::open(24, 80);
    let mut bundle = bundle(scene);
    bundle.args(["/probe", "--quiet", "--catch"]);
    let mut running = terminal.start(&mut bundle.command());
    running.line_with("ready");
    for (rows, columns) in [(55, 177), (20, 60)] {
        terminal.resize(rows, columns);
        running.line_with(&format!("SIGWINCH {rows}x{columns}"));
    }
    running.signal(Signal::TERM);
    running.finish().success();
}

fn restored_when_the_workload_is_killed(scene: &Scene) {
    let terminal = Terminal::open(24, 80);
    let before = terminal.modes();
    let mut bundle = bundle(scene);
    bundle.args(["/probe", "--quiet", "--echo", "up", "--block"]);
    let mut running = terminal.start(&mut bundle.command());
    running.line_with("up");
    scene.runtime().args(["kill", &bundle.id, "KILL"]).run().success();
    running.finish().exits_with(137);
    assert_eq!(terminal.modes(), before);
}

fn restored_when_husk_is_asked_to_end(scene: &Scene) {
    for (signal, name) in [(Signal::TERM, "SIGTERM"), (Signal::HUP, "SIGHUP")] {
        let terminal = Terminal::open(24, 80);
        let before = terminal.modes();
        let mut bundle = bundle(scene);
        bundle.args(["/probe", "--quiet", "--catch"]);
        let mut running = terminal.start(&mut bundle.command());
        running.line_with("ready");
        running.signal(signal);
        running.line_with(name);
        if signal != Signal::TERM {
            running.signal(Signal::TERM);
            running.line_with("SIGTERM");
        }
        running.finish().success();
        assert_eq!(terminal.modes(), before);
    }
}

fn restored_when_the_start_fails(scene: &Scene) {
    let terminal = Terminal::open(24, 80);
    let before = terminal.modes();
    let mut bundle = bundle(scene);
    bundle.args(["/no/such/program"]);
    let running = terminal.start(&mut bundle.command());
    let outcome = running.finish();
    assert_ne!(outcome.code(), 0);
    assert!(outcome.stdout.contains("/no/such/program"), "{}", outcome.stdout);
    assert_eq!(terminal.modes(), before);
}

/// What the workload wrote last must not be lost when it ends at once.
fn all_output_is_kept(scene: &Scene) {
    let terminal = Terminal::open(24, 80);
    let mut bundle = bundle(scene);
    bundle.args(["/bin/sh", "-c", "i=0; while [ $i -lt 3000 ]; do echo line $i of many; i=$((i+1)); done"]);
    let outcome = terminal.start(&mut bundle.command()).finish().success();
    let lines: Vec<&str> = outcome.stdout.lines().filter(|line| line.starts_with("line ")).collect();
    assert_eq!(lines.len(), 3000);
    assert_eq!(lines[2999].trim_end(), "line 2999 of many");
}
