//! Podman as an ordinary user. Networks need /dev/net/tun, which not every machine opens to users: all but one have none.

use super::podman::{Podman, SERVICE, pod, wait_for_line};
use super::site::Site;
use super::{IMAGE, image, neighbours};
use crate::support::scene::{RUN_VARIABLE, STORE_VARIABLE};
use crate::support::stage::Tun;
use crate::support::{Need, Scene, Test, test};

pub(super) fn tests() -> Vec<Test> {
    let networks = test!(networks_of_both)
        .needs(Need::Husk)
        .needs(Need::Program("slirp4netns"))
        .needs(Need::SubordinateIds)
        .needs(Need::File("/dev/net/tun"))
        .needs(Need::Capability(caps::Capability::CAP_SYS_ADMIN));
    let tests = vec![test!(run), test!(detached), test!(pods), networks];
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

/// Podman's way out of a user's namespaces beside husk's: each serves, whoever of them is there, comes or goes.
fn networks_of_both(scene: &Scene) {
    let _tun = Tun::new(scene);
    let podman = Podman::with_networks(scene, &image(scene));
    let site = podman.site();
    let husk = |words: &[&str]| {
        let mut husk = site.command(site.runtime("husk"));
        husk.env(STORE_VARIABLE, scene.store()).env(RUN_VARIABLE, scene.run_root());
        husk.args(words).run().success()
    };
    let get = |port: u16| {
        let at = format!("http://127.0.0.1:{port}/a");
        site.command("busybox").args(["timeout", "2", "busybox", "wget", "-q", "-O-", &at]).run().stdout
    };
    let theirs = |word: &str| {
        let words = format!("run --detach --name theirs --network slirp4netns --publish 8081:80 {IMAGE}");
        podman.run(&words, &["sh", "-c", &neighbours::serve(word)]).success();
    };
    theirs("theirs");
    Site::wait_until("podman's serves", || get(8081) == "theirs\n");
    husk(&["load", "--quiet", "--input", &scene.path().join("image.tar").display().to_string()]);
    husk(&["network", "create", "front"]);
    let script = neighbours::serve("ours");
    husk(&["run", "-d", "--name", "ours", "--network", "front", "-p", "8082:80", IMAGE, "sh", "-c", &script]);
    Site::wait_until("husk's serves", || get(8082) == "ours\n");
    assert_eq!(get(8081), "theirs\n", "and podman's still does");
    podman.run("rm --force --time 0 theirs", &[]).success();
    assert_eq!(get(8082), "ours\n", "without podman's");
    theirs("again");
    Site::wait_until("podman's serves again", || get(8081) == "again\n");
    husk(&["rm", "-f", "ours"]);
    husk(&["network", "rm", "front"]);
    assert_eq!((get(8081).as_str(), get(8082).as_str()), ("again\n", ""));
    podman.run("rm --force --time 0 theirs", &[]).success();
}
