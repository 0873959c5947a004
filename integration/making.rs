//! Flags of `create` and `run`: what each gives the caller, and what it refuses.

use std::os::fd::OwnedFd;
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::support::husk::read_host;
use super::support::receiver::Receiver;
use super::support::scene::write;
use super::support::suite::kit;
use super::support::{Bundle, Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(a_pid_file_is_whole_before_the_start).and_plain(),
        test!(a_pidfd_is_sent).and_plain(),
        test!(a_terminal_of_the_size_asked_for_is_sent),
        test!(terminals_that_go_nowhere_are_refused),
        test!(a_container_is_kept).and_plain(),
        test!(another_configuration).and_plain().needs(Need::Husk),
        test!(orphans_are_nobodys_to_wait_for).and_plain().needs(Need::Husk),
        test!(the_callers_keyring_can_stay).root(),
    ]
}

/// `create` of a bundle, with flags; leaves the container waiting.
fn create(scene: &Scene, bundle: &Bundle<'_>, flags: &[&str]) {
    bundle.write();
    let mut command = scene.runtime();
    command.arg("create").arg("--bundle").arg(&bundle.directory).args(flags).arg(&bundle.id);
    command.current_directory(scene.path());
    // It would hold on to a pipe that is read to its end.
    let status = command.spawn(Stdio::null(), Stdio::null(), Stdio::null()).wait().unwrap();
    assert!(status.success(), "create {flags:?}: {status}");
}

fn state(scene: &Scene, id: &str) -> Value {
    serde_json::from_str(&scene.runtime().args(["state", id]).run().success().stdout).unwrap()
}

fn delete(scene: &Scene, id: &str) {
    scene.runtime().args(["delete", "--force", id]).run().success();
}

/// Relative to where the caller is, not to the bundle.
fn a_pid_file_is_whole_before_the_start(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.args(["/probe", "--quiet", "--block"]);
    write(&scene.path().join("init.pid"), "of another time, and longer than a pid");
    create(scene, &bundle, &["--pid-file", "init.pid"]);
    let state = state(scene, &bundle.id);
    assert_eq!(state["status"], "created");
    assert_eq!(read_host(scene.path().join("init.pid")), state["pid"].to_string());
    delete(scene, &bundle.id);
}

fn a_pidfd_is_sent(scene: &Scene) {
    let receiver = Receiver::listen(scene, "pidfd");
    let mut bundle = scene.bundle();
    bundle.args(["/probe", "--quiet", "--block"]);
    create(scene, &bundle, &["--pidfd-socket", receiver.path().to_str().unwrap()]);
    let (_, pidfd): (_, OwnedFd) = receiver.receive();
    rustix::process::pidfd_send_signal(&pidfd, Signal::KILL).unwrap();
    while state(scene, &bundle.id)["status"] != "stopped" {
        std::thread::yield_now();
    }
    delete(scene, &bundle.id);
}

fn a_terminal_of_the_size_asked_for_is_sent(scene: &Scene) {
    let receiver = Receiver::listen(scene, "console");
    let mut bundle = scene.bundle();
    bundle.args(["/probe", "--quiet", "--block"]);
    bundle.config["process"]["terminal"] = json!(true);
    bundle.config["process"]["consoleSize"] = json!({ "height": 33, "width": 99 });
    create(scene, &bundle, &["--console-socket", receiver.path().to_str().unwrap()]);
    let (name, master) = receiver.receive();
    assert!(!name.is_empty());
    let size = rustix::termios::tcgetwinsize(&master).unwrap();
    assert_eq!((size.ws_row, size.ws_col), (33, 99));
    delete(scene, &bundle.id);
}

fn terminals_that_go_nowhere_are_refused(scene: &Scene) {
    let no_socket = "cannot allocate tty if runc will detach without setting console socket";
    let no_terminal = "cannot use console socket if runc will not detach or allocate tty";
    for (has_terminal, words, text) in [
        (true, &["create"][..], no_socket),
        (true, &["run", "--detach"], no_socket),
        (false, &["create", "--console-socket", "/no/such"], no_terminal),
        (false, &["run", "--console-socket", "/no/such"], no_terminal),
        (true, &["run", "--console-socket", "/no/such"], no_terminal),
        (true, &["create", "--console-socket", "/no/such"], "/no/such"),
    ] {
        let mut bundle = scene.bundle();
        bundle.config["process"]["terminal"] = json!(has_terminal);
        let mut command = scene.runtime();
        command.args(words).arg("--bundle").arg(bundle.write()).arg(&bundle.id);
        command.run().exits_with(1).says(text);
    }
}

/// BuildKit reads the figures of what has ended, and deletes it then.
fn a_container_is_kept(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.args(["/probe", "--quiet", "--exit", "7"]);
    let mut command = scene.runtime();
    command.args(["run", "--keep", "--bundle"]).arg(bundle.write()).arg(&bundle.id).run().exits_with(7);
    let state = state(scene, &bundle.id);
    assert_eq!((&state["status"], &state["pid"]), (&json!("stopped"), &json!(0)));
    scene.runtime().args(["delete", &bundle.id]).run().success();
    scene.runtime().args(["state", &bundle.id]).run().exits_with(1).says("container does not exist");
}

/// crun's flag. The bundle's own is not even there.
fn another_configuration(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.args(["/probe", "--quiet", "--exit", "7"]);
    let directory = bundle.write();
    let other = scene.path().join("other.json");
    std::fs::rename(directory.join("config.json"), &other).unwrap();
    let run =
        |flag: &str| scene.runtime().args(["run", flag]).arg(&other).arg("-b").arg(directory).arg(&bundle.id).run();
    run("--config").exits_with(7);
    run("-f").exits_with(7);
}

/// crun's flag, which `create` has nothing to do for.
fn orphans_are_nobodys_to_wait_for(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.args(["/probe", "--quiet", "--block"]);
    create(scene, &bundle, &["--no-subreaper"]);
    delete(scene, &bundle.id);
}

fn the_callers_keyring_can_stay(scene: &Scene) {
    // keyctl(KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0)
    let call = if cfg!(target_arch = "x86_64") { "250:0:-3:0" } else { "219:0:-3:0" };
    let serial = |report: &Value| report["answers"][call].as_i64().expect("a serial number");
    // The probe wants to know its parent, which is not to be seen from a test's PID namespace.
    let mut outside = scene.program("/usr/bin/setsid");
    let outside = outside.arg("--wait").arg(&kit().launcher).args(["--probe", "--answer", call]);
    let outside = outside.run().success().report();
    let inside = |flags: &[&str]| {
        let mut bundle = scene.bundle();
        bundle.probe(["--answer", call]);
        let mut command = scene.runtime();
        command.arg("run").args(flags).arg("--bundle").arg(bundle.write()).arg(&bundle.id);
        command.run().success().report()
    };
    assert_eq!(serial(&inside(&["--no-new-keyring"])), serial(&outside));
    assert_ne!(serial(&inside(&[])), serial(&outside));
}
