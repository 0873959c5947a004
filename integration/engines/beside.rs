//! husk beside podman and docker: the same command lines to both, and their answers compared; beside podman as an ordinary
//! user, too.
//!
//! `beside/rows.txt` is the table. It says of each line whether a peer agrees, and where it does not, why husk is right; a
//! claim that does not hold fails the test, in either direction. The two engines answer side by side, each in a thread; the
//! sections that are marked `quick` are run each time, the others with `HUSK_TEST_ALL=1`. The peers have their own runtime,
//! and a test each: one that this machine lacks is counted under its name.
//!
//! `beside/networks.txt` is another such table, of networks: there, all have their bridges, each in a network namespace of its own.

mod column;
mod table;

use std::fmt::Write as _;
use std::path::PathBuf;

use column::{Answer, Column};
use table::{Claim, Peer, Row, Section};

use super::docker::Docker;
use super::podman::Podman;
use super::site::Site;
use crate::support::scene::{RUN_VARIABLE, STORE_VARIABLE};
use crate::support::suite::kit;
use crate::support::{Invocation, Need, Scene, Test, test};

pub(super) fn tests() -> Vec<Test> {
    let engine = |test: Test| test.needs(Need::Husk).needs(Need::Busybox).needs(Need::Program("runc"));
    let needs_podman = |test: Test| engine(test).needs(Need::Program("podman"));
    let needs_docker = |test: Test| engine(test).needs(Need::Program("dockerd")).needs(Need::Program("docker"));
    vec![
        needs_podman(test!(podman)).root(),
        needs_docker(test!(docker)).root(),
        needs_podman(test!(networks_beside_podman)).root().needs(Need::File("/usr/lib/podman/netavark")),
        needs_docker(test!(networks_beside_docker)).root(),
        needs_podman(test!(rootless_podman)).user().needs(Need::SubordinateIds).needs(Need::Overlay),
    ]
}

/// As the lines name it.
const IMAGE: &str = "localhost/test";

const ROWS: &str = include_str!("beside/rows.txt");
const NETWORKS: &str = include_str!("beside/networks.txt");

/// What the lines use of busybox.
const APPLETS: [&str; 30] = [
    "cat", "cut", "df", "echo", "env", "false", "grep", "head", "hostname", "id", "ls", "mount", "nproc", "printenv",
    "ps", "pwd", "readlink", "rm", "sed", "sh", "sleep", "sort", "stat", "tail", "test", "touch", "tr", "true",
    "umask", "wc",
];

fn podman(scene: &Scene) {
    let podman = Podman::by_itself(scene, &archive(scene));
    let problems =
        compare(scene, ROWS, Peer::Podman, &below_cgroup(&podman.words()), plain(scene), || podman.program("timeout"));
    podman.run("rm --all --force --time 0", &[]).success();
    assert!(problems.is_empty(), "{problems}");
}

fn docker(scene: &Scene) {
    let docker = Docker::with_own_runtime(scene, &archive(scene));
    let problems =
        compare(scene, ROWS, Peer::Docker, "e() { docker \"$@\"; }", plain(scene), || docker.client("timeout"));
    assert!(problems.is_empty(), "{problems}");
}

fn networks_beside_podman(scene: &Scene) {
    let podman = Podman::with_networks(scene, &archive(scene));
    let site = Site::open(scene);
    let husk = networked(scene, &site);
    // It warns of the name server that it lacks here.
    let function = below_cgroup(&format!("{} --log-level error", podman.words()));
    let problems = compare(scene, NETWORKS, Peer::Podman, &function, husk, || podman.program("timeout"));
    podman.run("rm --all --force --time 0", &[]).success();
    assert!(problems.is_empty(), "{problems}");
}

fn networks_beside_docker(scene: &Scene) {
    let docker = Docker::with_networks(scene, &archive(scene));
    let site = Site::open(scene);
    let husk = networked(scene, &site);
    let problems = compare(scene, NETWORKS, Peer::Docker, "e() { docker \"$@\"; }", husk, || docker.client("timeout"));
    assert!(problems.is_empty(), "{problems}");
}

/// A shell where husk has the machine for itself.
fn networked<'a>(scene: &'a Scene, site: &Site<'a>) -> impl Fn() -> Invocation<'a> {
    move || {
        let mut shell = site.command("/usr/bin/timeout");
        shell.env(STORE_VARIABLE, scene.store()).env(RUN_VARIABLE, scene.run_root()).env("HUSK_NETWORK", "bridge");
        shell
    }
}

/// A shell where the suite is, without a network.
fn plain<'a>(scene: &'a Scene) -> impl Fn() -> Invocation<'a> {
    || {
        let mut shell = scene.program("/usr/bin/timeout");
        shell.env(STORE_VARIABLE, scene.store()).env(RUN_VARIABLE, scene.run_root());
        shell
    }
}

/// Podman's words, by which its containers are where the leak check looks.
fn below_cgroup(podman: &str) -> String {
    format!(
        "e() {{ case $1 in run|create) v=$1; shift; {podman} $v --cgroup-parent {} \"$@\";; *) {podman} \"$@\";; esac; }}",
        Site::cgroup(),
    )
}

fn rootless_podman(scene: &Scene) {
    let podman = Podman::by_itself(scene, &archive(scene));
    let function = format!("e() {{ {} \"$@\"; }}", podman.words());
    let problems = compare(scene, ROWS, Peer::Rootless, &function, plain(scene), || podman.program("timeout"));
    podman.run("rm --all --force --time 0", &[]).success();
    assert!(problems.is_empty(), "{problems}");
}

/// Makes the image of all engines, and gives it to husk.
fn archive(scene: &Scene) -> PathBuf {
    let archive = super::image_with(scene, &APPLETS);
    scene.husk().args(["load", "--quiet", "--input"]).arg(&archive).run().success();
    archive
}

/// Asks husk and a peer side by side, holds their answers against the table, and tells what does not fit.
fn compare<'a>(
    scene: &'a Scene,
    table: &str,
    peer: Peer,
    function: &str,
    husk: impl Fn() -> Invocation<'a>,
    shell: impl Fn() -> Invocation<'a>,
) -> String {
    let is_all = std::env::var_os("HUSK_TEST_ALL").is_some();
    let sections: Vec<Section<'_>> =
        table::parse(table).into_iter().filter(|section| is_all || section.quick.contains(&peer)).collect();
    let directory = scene.tree("beside", &[]);
    let husks = format!("e() {{ {} \"$@\"; }}", kit().husk.display());
    let husk = Column::prepare(&sections, None, &directory, &husks, husk);
    let other = Column::prepare(&sections, Some(peer), &directory, function, shell);
    scene.account().own(&directory);
    let (husk, other) = std::thread::scope(|scope| {
        let thread = scope.spawn(|| other.answers());
        (husk.answers(), thread.join().expect("a thread that asks"))
    });

    let rows: Vec<&Row<'_>> = sections.iter().flat_map(|section| &section.rows).collect();
    let mut problems = String::new();
    for ((row, husk), other) in rows.iter().zip(&husk).zip(&other) {
        let (Some(husk), Some(other)) = (husk, other) else { continue };
        if row.says.is_some_and(|text| !says(husk, text)) {
            _ = writeln!(problems, "$ {}\n  husk does not say {:?}\n{}", row.line, row.says, show("husk", husk));
        }
        let problem = match (row.claim(peer), difference(row, husk, other)) {
            (Claim::Agrees, Some(what)) => format!("{} differs: {what}", peer.name()),
            (Claim::Differs(_), None) => format!("{} agrees, and is said to differ", peer.name()),
            _ => continue,
        };
        let (husks, others) = (show("husk", husk), show(peer.name(), other));
        _ = writeln!(problems, "$ {}\n  {problem}\n{husks}\n{others}", row.line);
    }
    problems
}

/// In what two answers differ. Words on standard error are each engine's own; that there are some is not.
fn difference(row: &Row<'_>, husk: &Answer, other: &Answer) -> Option<String> {
    if husk.status != other.status {
        return Some(format!("status {} and {}", husk.status, other.status));
    }
    if husk.stdout != other.stdout {
        return Some("the output".to_owned());
    }
    if husk.stderr.is_empty() != other.stderr.is_empty() {
        return Some("whether there is a message".to_owned());
    }
    row.says.filter(|text| !says(other, text)).map(|text| format!("it does not say {text:?}"))
}

fn says(answer: &Answer, text: &str) -> bool {
    answer.stderr.to_lowercase().contains(&text.to_lowercase())
}

fn show(name: &str, answer: &Answer) -> String {
    let cut = |text: &str| text.chars().take(400).collect::<String>();
    format!("    {name}: {} {:?} {:?}", answer.status, cut(&answer.stdout), cut(&answer.stderr))
}
