//! `login` and `logout`: what they ask, what they keep and what they never show. That a registry accepts a login is tested
//! with the registries.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::support::scene::write;
use super::support::tty::Terminal;
use super::support::{Invocation, Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    let engine = |test: Test| test.needs(Need::Husk);
    [
        test!(nobody_is_asked_without_a_terminal).and_plain(),
        test!(a_password_is_not_echoed).and_plain(),
        test!(an_interrupt_gives_the_terminal_back).and_plain(),
        test!(the_user_is_told).and_plain(),
        test!(logging_out_keeps_the_rest).and_plain(),
        test!(helpers_are_programs_by_name).and_plain(),
    ]
    .into_iter()
    .map(engine)
    .collect()
}

/// A registry that cannot be there.
const NOWHERE: &str = "127.0.0.1:1";

fn husk<'a>(scene: &'a Scene, words: &[&str]) -> Invocation<'a> {
    let mut command = scene.husk();
    command.env("REGISTRY_AUTH_FILE", file(scene)).args(words);
    command
}

fn file(scene: &Scene) -> PathBuf {
    scene.path().join("auth.json")
}

fn keep(scene: &Scene, document: &Value) {
    write(&file(scene), document.to_string());
    let path = file(scene);
    scene.account().own(&path);
}

fn nobody_is_asked_without_a_terminal(scene: &Scene) {
    husk(scene, &["login", NOWHERE])
        .run()
        .exits_with(125)
        .says("Cannot perform an interactive login from a non TTY device");
    let words = ["login", "--password-stdin", NOWHERE];
    husk(scene, &words).input("x").run().exits_with(125).says("Must provide --username with --password-stdin");
    let words = ["login", "-u", "a", "-p", "b", "--password-stdin", NOWHERE];
    husk(scene, &words).run().exits_with(125).says("cannot be used with");
    husk(scene, &["login", "-u", "a", "-p", "b", "http://"]).run().exits_with(125).says("registry \"http://\"");
    assert!(!file(scene).exists());
}

fn a_password_is_not_echoed(scene: &Scene) {
    let terminal = Terminal::open(24, 80);
    let before = terminal.modes();
    let running = terminal.start(&mut husk(scene, &["login", NOWHERE]));
    terminal.send("somebody\r");
    terminal.await_echo(false);
    terminal.send("hunter2\r");
    let outcome = running.finish();
    assert_eq!(terminal.modes(), before);
    assert!(outcome.stdout.contains("somebody") && outcome.stdout.contains("Password: "), "{}", outcome.stdout);
    assert!(!outcome.stdout.contains("hunter2"), "{}", outcome.stdout);
}

fn an_interrupt_gives_the_terminal_back(scene: &Scene) {
    let terminal = Terminal::open(24, 80);
    let before = terminal.modes();
    for interrupt in [
        |terminal: &Terminal, _: &super::support::Running| terminal.send("\x03"),
        |_: &Terminal, running: &super::support::Running| running.signal(Signal::TERM),
    ] {
        let running = terminal.start(&mut husk(scene, &["login", "-u", "somebody", NOWHERE]));
        terminal.await_echo(false);
        interrupt(&terminal, &running);
        let outcome = running.finish();
        assert!(outcome.code() > 128, "it ended by the signal");
        assert_eq!(terminal.modes(), before);
        assert!(!file(scene).exists());
    }
}

fn the_user_is_told(scene: &Scene) {
    // somebody:hunter2
    keep(scene, &json!({ "auths": { "quay.io": { "auth": "c29tZWJvZHk6aHVudGVyMg==" } } }));
    let outcome = husk(scene, &["login", "--get-login", "quay.io"]).run().success();
    assert_eq!((&outcome.stdout[..], &outcome.stderr[..]), ("somebody\n", ""));
    husk(scene, &["login", "--get-login", "other.io"]).run().exits_with(125).says("not logged into other.io");
    write(&file(scene), "{\"auths\":{\"quay.io\":{\"auth\":\"aHVudGVyMg==\"}}");
    let outcome = husk(scene, &["login", "--get-login", "quay.io"]).run().exits_with(125).says("not JSON at line 1");
    assert!(!outcome.stderr.contains("aHVudGVyMg"), "{}", outcome.stderr);
}

fn logging_out_keeps_the_rest(scene: &Scene) {
    let entry = json!({ "auth": "c29tZWJvZHk6aHVudGVyMg==" });
    keep(
        scene,
        &json!({ "auths": { "https://index.docker.io/v1/": entry, "quay.io": entry }, "currentContext": "default" }),
    );
    assert_eq!(husk(scene, &["logout"]).run().success().stdout, "Removing login credentials for docker.io\n");
    assert_eq!(husk(scene, &["logout"]).run().success().stdout, "Not logged in to docker.io\n");
    let read = || serde_json::from_slice::<Value>(&std::fs::read(file(scene)).unwrap()).unwrap();
    assert_eq!(read(), json!({ "auths": { "quay.io": entry }, "currentContext": "default" }));
    assert_eq!(std::fs::metadata(file(scene)).unwrap().permissions().mode() & 0o777, 0o600);
    husk(scene, &["logout", "--all"]).run().success();
    assert_eq!(read(), json!({ "auths": {}, "currentContext": "default" }));
}

fn helpers_are_programs_by_name(scene: &Scene) {
    let helper = scene.path().join("docker-credential-mine");
    write(
        &helper,
        "#!/bin/sh\nread server; echo \"{\\\"Username\\\":\\\"$1 $server\\\",\\\"Secret\\\":\\\"hunter2\\\"}\"\n",
    );
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", scene.path().display(), std::env::var("PATH").unwrap());
    let get = |host: &str| husk(scene, &["login", "--get-login", host]).env("PATH", &path).run();
    keep(scene, &json!({ "credHelpers": { "quay.io": "mine" } }));
    assert_eq!(get("quay.io").success().stdout, "get quay.io\n");
    get("other.io").exits_with(125).says("not logged into other.io");
    keep(scene, &json!({ "credHelpers": { "quay.io": helper } }));
    get("quay.io").exits_with(125).says("not a program's name");
}
