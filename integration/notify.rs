//! sd_notify(3): the workload says that it is ready, and the service manager of husk's caller hears of it.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::support::{Bundle, Invocation, Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    [
        test!(a_detached_run_waits_until_it_is_ready).and_plain(),
        test!(start_waits_until_it_is_ready).and_plain(),
        test!(start_alone_has_no_socket).root(),
        test!(a_run_in_the_foreground_is_what_is_watched).and_plain(),
        test!(nothing_but_readiness_gets_out).and_plain(),
        test!(who_is_never_ready_ends_the_wait).and_plain(),
        test!(a_manager_that_is_gone_is_an_error).root(),
    ]
    .into_iter()
    .map(|test: Test| test.needs(Need::Husk))
    .collect()
}

/// A service manager that reads when it is told to.
struct Manager {
    socket: UnixDatagram,
    directory: PathBuf,
}

impl Manager {
    fn listen(scene: &Scene) -> Self {
        // The path of a socket has room for 107 bytes, which is less than a scene's.
        let directory = tempfile::Builder::new().prefix("hk").tempdir_in("/tmp").expect("make a directory").keep();
        let socket = UnixDatagram::bind(directory.join("manager")).expect("bind");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("set a time limit");
        scene.account().own(&directory);
        Self { socket, directory }
    }

    fn path(&self) -> PathBuf {
        self.directory.join("manager")
    }

    /// The next message. A descriptor that comes along is closed, which is systemd's answer to a barrier.
    #[track_caller]
    fn hear(&self) -> String {
        let mut buffer = [0; 256];
        let length = self.socket.recv(&mut buffer).expect("the manager hears something");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[track_caller]
    fn hears_nothing(&self) {
        self.socket.set_nonblocking(true).expect("ask without waiting");
        let answer = self.socket.recv(&mut [0; 256]).map_err(|error| error.kind());
        assert_eq!(answer, Err(std::io::ErrorKind::WouldBlock));
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn start(command: &Invocation<'_>) -> Child {
    command.spawn(Stdio::null(), Stdio::null(), Stdio::null())
}

fn verb<'a>(scene: &'a Scene, words: &[&str], bundle: &Bundle<'_>) -> Invocation<'a> {
    bundle.write();
    let mut command = scene.runtime();
    command.args(words).arg("--bundle").arg(&bundle.directory).arg(&bundle.id);
    command
}

fn pid(scene: &Scene, id: &str) -> Value {
    let state = scene.runtime().args(["state", id]).run().success();
    serde_json::from_str::<Value>(&state.stdout).unwrap()["pid"].clone()
}

/// Hears that the container is ready, and that the waiting command ends when that was read, and not before.
#[track_caller]
fn follow(manager: &Manager, waiting: &mut Child, main_pid: impl Fn() -> Value) {
    assert_eq!(manager.hear(), "READY=1\n");
    let word = manager.hear();
    assert_eq!(word, format!("MAINPID={}\n", main_pid()));
    assert_eq!(waiting.try_wait().unwrap(), None, "the barrier was not read yet");
    assert_eq!(manager.hear(), "BARRIER=1");
    assert!(waiting.wait().unwrap().success());
    manager.hears_nothing();
}

fn a_detached_run_waits_until_it_is_ready(scene: &Scene) {
    let manager = Manager::listen(scene);
    let mut bundle = scene.bundle();
    bundle.args(["/probe", "--quiet", "--notify", "STATUS=up", "--notify", "READY=1", "--block"]);
    let mut command = verb(scene, &["run", "--detach"], &bundle);
    let mut waiting = start(command.env("NOTIFY_SOCKET", manager.path()));
    follow(&manager, &mut waiting, || pid(scene, &bundle.id));
    scene.runtime().args(["delete", "--force", &bundle.id]).run().success();
}

fn start_waits_until_it_is_ready(scene: &Scene) {
    let manager = Manager::listen(scene);
    let mut bundle = scene.bundle();
    bundle.args(["/probe", "--quiet", "--notify", "READY=1", "--block"]);
    let mut command = verb(scene, &["create"], &bundle);
    assert!(start(command.env("NOTIFY_SOCKET", manager.path())).wait().unwrap().success());
    manager.hears_nothing();
    manager.socket.set_nonblocking(false).unwrap();
    let mut command = scene.runtime();
    let mut waiting = start(command.args(["start", &bundle.id]).env("NOTIFY_SOCKET", manager.path()));
    follow(&manager, &mut waiting, || pid(scene, &bundle.id));
    scene.runtime().args(["delete", "--force", &bundle.id]).run().success();
}

/// The socket's place is made by `create`: where nobody asked for it then, `start` leaves the container as it is.
fn start_alone_has_no_socket(scene: &Scene) {
    let manager = Manager::listen(scene);
    let bundle = scene.bundle();
    let command = verb(scene, &["create"], &bundle);
    assert!(start(&command).wait().unwrap().success());
    let mut command = scene.runtime();
    command.args(["start", &bundle.id]).env("NOTIFY_SOCKET", manager.path());
    command.run().exits_with(1).says("notify: no such file or directory");
    let state = scene.runtime().args(["state", &bundle.id]).run().success();
    assert!(state.stdout.contains("\"created\""), "{}", state.stdout);
    scene.runtime().args(["delete", &bundle.id]).run().success();
}

fn a_run_in_the_foreground_is_what_is_watched(scene: &Scene) {
    let manager = Manager::listen(scene);
    let mut bundle = scene.bundle();
    bundle.args(["/probe", "--quiet", "--notify", "READY=1", "--notify", "READY=1", "--catch", "--exit", "7"]);
    let mut command = bundle.command();
    let mut container = command.env("NOTIFY_SOCKET", manager.path()).start();
    container.line_with("ready");
    assert_eq!(manager.hear(), "READY=1\n");
    // It stays, and is the process to look after; there is no need for a barrier.
    assert_eq!(manager.hear(), format!("MAINPID={}\n", container.pid()));
    container.signal(rustix::process::Signal::TERM);
    container.finish().exits_with(7);
    manager.hears_nothing();
}

/// The manager's socket would be a way to rule over the service; the container has one of its own, and cannot move it.
fn nothing_but_readiness_gets_out(scene: &Scene) {
    let manager = Manager::listen(scene);
    let mut bundle = scene.bundle();
    bundle.config["process"]["env"].as_array_mut().unwrap().push(json!("NOTIFY_SOCKET=/elsewhere"));
    bundle.config["root"]["readonly"] = json!(false);
    bundle.probe(["--notify", "MAINPID=1", "--notify", "FDSTORE=1", "--notify", "XREADY=1"]);
    bundle.tries(["create:/run/notify/x", "unlink:/run/notify/notify.sock"]);
    let mut command = bundle.command();
    let report = command.env("NOTIFY_SOCKET", manager.path()).run().success().report();
    assert_eq!(report["env"]["NOTIFY_SOCKET"], "/run/notify/notify.sock");
    let tries = &report["tries"];
    assert_eq!(tries["notify MAINPID=1"], "ok");
    assert_eq!([&tries["create:/run/notify/x"], &tries["unlink:/run/notify/notify.sock"]], ["EROFS", "EROFS"]);
    manager.hears_nothing();
}

fn who_is_never_ready_ends_the_wait(scene: &Scene) {
    let manager = Manager::listen(scene);
    let mut bundle = scene.bundle();
    bundle.args(["/probe", "--quiet", "--notify", "STATUS=up"]);
    let mut command = verb(scene, &["run", "--detach"], &bundle);
    assert!(start(command.env("NOTIFY_SOCKET", manager.path())).wait().unwrap().success());
    manager.hears_nothing();
    scene.runtime().args(["delete", "--force", &bundle.id]).run().success();
}

fn a_manager_that_is_gone_is_an_error(scene: &Scene) {
    let bundle = scene.bundle();
    let mut command = bundle.command();
    command.env("NOTIFY_SOCKET", "/nonexistent/manager");
    command.run().exits_with(1).says("connect to NOTIFY_SOCKET /nonexistent/manager: no such file or directory");
}
