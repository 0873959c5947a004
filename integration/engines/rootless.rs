//! Podman as an ordinary user. Networks need /dev/net/tun, which not every machine opens to users: these have none.

use super::podman::{Podman, SERVICE, pod, wait_for_line};
use crate::support::{Need, Scene, Test, test};

pub(super) fn tests() -> Vec<Test> {
    let tests = vec![test!(run), test!(detached), test!(pods)];
    tests.into_iter().map(|test| test.user().needs(Need::Program("podman")).needs(Need::Busybox)).collect()
}

fn run(scene: &Scene) {
    let podman = Podman::start(scene);
    let outcome = podman.container("--rm", "echo $((6 * 7)) $(id -u); exit 3").exits_with(3);
    assert_eq!(outcome.stdout, "42 0\n");
    let outcome = podman.container("--rm --userns keep-id", "id -u; exit 0").success();
    assert_eq!(outcome.stdout, format!("{}\n", scene.account().uid));
    let outcome =
        podman.container("--rm --user 1000", "cat /proc/self/uid_map | head -n 2 | tr -s ' '; id -u").success();
    let (first, _) = scene.account().subordinate.expect("the user of these tests has ranges");
    assert!(
        outcome.stdout.contains(&format!(" 1 {first} ")) && outcome.stdout.ends_with("\n1000\n"),
        "{}",
        outcome.stdout
    );
    podman.run(&podman.run_words("--rm"), &["/nonexistent"]).exits_with(127);
}

fn detached(scene: &Scene) {
    let podman = Podman::start(scene);
    podman.container("--detach --name service", SERVICE).success();
    wait_for_line(&podman, "service", "up 42");
    let outcome = podman.run("exec service", &["sh", "-c", "echo $((7 * 8)); id -u; exit 5"]).exits_with(5);
    assert_eq!(outcome.stdout, "56\n0\n");
    podman.run("stop --time 10 service", &[]).success();
    assert_eq!(podman.inspect("service", "{{.State.Status}}{{.State.ExitCode}}"), "exited9");
    assert!(podman.run("logs service", &[]).success().stdout.ends_with("asked\n"));
    podman.run("rm service", &[]).success();
}

fn pods(scene: &Scene) {
    let podman = Podman::start(scene);
    pod(&podman, "");
}
