//! `exec` with a terminal: the caller's own, or one that is sent to a socket.

use std::io::Read;

use rustix::process::Signal;
use serde_json::json;

use super::support::receiver::Receiver;
use super::support::scene::write;
use super::support::tty::Terminal;
use super::support::{Guest, Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(the_process_has_a_terminal).and_plain(),
        test!(also_for_another_user),
        test!(the_console_stays_the_containers).and_plain(),
        test!(an_interrupt_key_reaches_the_process).and_plain(),
        test!(resizes_are_passed_on).and_plain(),
        test!(the_callers_is_restored).and_plain(),
        test!(a_terminal_that_is_sent).and_plain(),
        test!(combinations_that_make_no_sense).and_plain(),
        test!(the_containers_terminal_is_not_the_processs).and_plain(),
        test!(all_output_is_kept).and_plain().needs(Need::Busybox),
    ]
}

fn the_process_has_a_terminal(scene: &Scene) {
    let guest = Guest::start(scene, scene.bundle());
    let terminal = Terminal::open(41, 123);
    let mut running = terminal.start(&mut guest.exec(&["--tty"], &["/probe", "--try", "open-write:/dev/tty"]));
    let report = running.report();
    running.finish().success();
    for number in 0..3 {
        assert_eq!(report["stdio"][number]["kind"], "tty");
        let path = report["fds"][number.to_string()].as_str().unwrap();
        assert!(path.starts_with("/dev/pts/"), "{path}");
    }
    assert_eq!(report["tty_size"], json!([41, 123]));
    assert_eq!(report["sid"], report["pid"]);
    assert_eq!(report["tries"]["open-write:/dev/tty"], "ok", "the terminal controls the process");
}

/// The terminal is the user's, to be opened again by its name.
fn also_for_another_user(scene: &Scene) {
    let guest = Guest::start(scene, scene.bundle());
    let terminal = Terminal::open(24, 80);
    let words = ["/probe", "--try", "open-write:/proc/self/fd/1"];
    let mut running = terminal.start(&mut guest.exec(&["-t", "-u", "1000:1000"], &words));
    let report = running.report();
    running.finish().success();
    assert_eq!(report["stdio"][1]["uid"], 1000);
    assert_eq!(report["tries"]["open-write:/proc/self/fd/1"], "ok");
}

/// `/dev/console` is the first process's, or nobody's.
fn the_console_stays_the_containers(scene: &Scene) {
    let guest = Guest::start(scene, scene.bundle());
    let look = || guest.report(&[], &["--stat", "/dev/console"]);
    let before = look();
    let terminal = Terminal::open(24, 80);
    terminal.start(&mut guest.exec(&["-t"], &["/probe", "--quiet"])).finish().success();
    let after = look();
    assert_eq!(before["stats"], after["stats"]);
    assert_eq!(before["mounts"], after["mounts"]);
}

fn an_interrupt_key_reaches_the_process(scene: &Scene) {
    let guest = Guest::start(scene, scene.bundle());
    let terminal = Terminal::open(24, 80);
    let mut running = terminal.start(&mut guest.exec(&["-t"], &["/probe", "--quiet", "--catch"]));
    running.line_with("ready");
    terminal.send("\x03");
    running.line_with("SIGINT");
    running.signal(Signal::TERM);
    running.line_with("SIGTERM");
    running.finish().success();
    assert_eq!(guest.state()["status"], "running", "it was for the process alone");
}

fn resizes_are_passed_on(scene: &Scene) {
    let guest = Guest::start(scene, scene.bundle());
    let terminal = Terminal::open(24, 80);
    let mut running = terminal.start(&mut guest.exec(&["-t"], &["/probe", "--quiet", "--catch"]));
    running.line_with("ready");
    terminal.resize(55, 177);
    running.line_with("SIGWINCH 55x177");
    running.signal(Signal::TERM);
    running.finish().success();
}

fn the_callers_is_restored(scene: &Scene) {
    let guest = Guest::start(scene, scene.bundle());
    let terminal = Terminal::open(24, 80);
    let before = terminal.modes();
    let mut running = terminal.start(&mut guest.exec(&["-t"], &["/probe", "--quiet", "--echo", "up", "--block"]));
    running.line_with("up");
    assert!(terminal.is_raw(), "{}", terminal.modes());
    running.signal(Signal::TERM);
    running.finish().exits_with(143);
    assert_eq!(terminal.modes(), before);
    terminal.start(&mut guest.exec(&["-t"], &["/no/such"])).finish().exits_with(255);
    assert_eq!(terminal.modes(), before);
}

fn a_terminal_that_is_sent(scene: &Scene) {
    let guest = Guest::start(scene, scene.bundle());
    let file = scene.path().join("process.json");
    let process = json!({
        "args": ["/probe", "--quiet", "--echo", "one", "--catch"], "cwd": "/", "user": {}, "terminal": true,
        "consoleSize": { "height": 33, "width": 99 },
    });
    write(&file, process.to_string());
    let receiver = Receiver::listen(scene, "console");
    let flags =
        ["--process", file.to_str().unwrap(), "--detach", "--console-socket", receiver.path().to_str().unwrap()];
    guest.exec(&flags, &[]).run().success();
    let (name, master) = receiver.receive();
    assert!(!name.is_empty());
    let size = rustix::termios::tcgetwinsize(&master).unwrap();
    assert_eq!((size.ws_row, size.ws_col), (33, 99));
    let mut master = std::fs::File::from(master);
    let mut seen = String::new();
    let mut buffer = [0; 256];
    while !seen.contains("ready\r\n") {
        let count = master.read(&mut buffer).unwrap();
        seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    // As with runc and crun, the terminal turns newlines into both: who relays it is raw.
    assert_eq!(seen, "one\r\nready\r\n");
    rustix::io::write(&master, b"\x03").unwrap();
    let count = master.read(&mut buffer).unwrap();
    assert!(String::from_utf8_lossy(&buffer[..count]).contains("^C"), "echo of the key");
}

fn combinations_that_make_no_sense(scene: &Scene) {
    let guest = Guest::start(scene, scene.bundle());
    let no_socket = "cannot allocate tty if runc will detach without setting console socket";
    let no_terminal = "cannot use console socket if runc will not detach or allocate tty";
    for (flags, text) in [
        (&["-t", "--detach"][..], no_socket),
        (&["--console-socket", "/no/such"], no_terminal),
        (&["--console-socket", "/no/such", "--detach"], no_terminal),
        (&["--console-socket", "/no/such", "-t"], no_terminal),
        (&["--console-socket", "/no/such", "-t", "--detach"], "/no/such"),
    ] {
        guest.exec(flags, &["/probe", "--quiet"]).run().exits_with(255).says(text);
    }
}

/// A container with a terminal does not give one to what is executed in it later.
fn the_containers_terminal_is_not_the_processs(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["process"]["terminal"] = json!(true);
    bundle.args(["/probe", "--quiet", "--echo", "up", "--block"]);
    let terminal = Terminal::open(24, 80);
    let mut running = terminal.start(&mut bundle.command());
    running.line_with("up");
    let outcome = scene.runtime().args(["exec", &bundle.id, "/probe"]).run();
    scene.runtime().args(["kill", &bundle.id, "KILL"]).run().success();
    running.finish().exits_with(137);
    assert_eq!(outcome.success().report()["stdio"][1]["kind"], "pipe");
}

fn all_output_is_kept(scene: &Scene) {
    let guest = Guest::start(scene, scene.bundle());
    let terminal = Terminal::open(24, 80);
    let script = "i=0; while [ $i -lt 3000 ]; do echo line $i of many; i=$((i+1)); done";
    let outcome = terminal.start(&mut guest.exec(&["-t"], &["/bin/sh", "-c", script])).finish().success();
    let lines: Vec<&str> = outcome.stdout.lines().filter(|line| line.starts_with("line ")).collect();
    assert_eq!(lines.len(), 3000);
    assert_eq!(lines[2999].trim_end(), "line 2999 of many");
}
