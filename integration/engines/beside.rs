//! husk beside podman and docker: the same command lines to all three, and their answers compared.
//!
//! `beside/rows.txt` is the table. It says of each line whether a peer agrees, and where it does not, why husk is right; a
//! claim that does not hold fails the test, in either direction. The engines answer side by side, each in a thread; the
//! sections that are marked `quick` are run each time, the others with `HUSK_TEST_ALL=1`. The peers have their own runtime.
//! What this machine lacks of them is said, and the others are compared.

mod column;
mod table;

use std::fmt::Write as _;

use column::{Answer, Column};
use table::{Claim, Peer, Row, Section};

use super::docker::Docker;
use super::podman;
use super::site::Site;
use crate::support::needs::find_program;
use crate::support::scene::{RUN_VARIABLE, STORE_VARIABLE};
use crate::support::suite::kit;
use crate::support::{Need, Scene, Test, test};

pub(super) fn tests() -> Vec<Test> {
    let engine = |test: Test| test.root().needs(Need::Husk).needs(Need::Busybox).needs(Need::Program("runc"));
    vec![engine(test!(the_same_lines))]
}

/// As the lines name it.
const IMAGE: &str = "localhost/test";

const ROWS: &str = include_str!("beside/rows.txt");

/// What the lines use of busybox.
const APPLETS: [&str; 30] = [
    "cat", "cut", "df", "echo", "env", "false", "grep", "head", "hostname", "id", "ls", "mount", "nproc", "printenv",
    "ps", "pwd", "readlink", "rm", "sed", "sh", "sleep", "sort", "stat", "tail", "test", "touch", "tr", "true",
    "umask", "wc",
];

fn the_same_lines(scene: &Scene) {
    let is_all = std::env::var_os("HUSK_TEST_ALL").is_some();
    let sections: Vec<Section<'_>> =
        table::parse(ROWS).into_iter().filter(|section| is_all || section.is_quick).collect();
    let archive = super::image_with(scene, &APPLETS);
    scene.husk().args(["load", "--quiet", "--input"]).arg(&archive).run().success();
    let podman = has(Peer::Podman).then(|| podman::site(scene, &archive));
    let docker = has(Peer::Docker).then(|| Docker::with_own_runtime(scene, &archive));

    let directory = scene.tree("beside", &[]);
    let function = format!("e() {{ {} \"$@\"; }}", kit().husk.display());
    let husk = Column::prepare(&sections, None, &directory, &function, || {
        let mut shell = scene.program("/usr/bin/timeout");
        shell.env(STORE_VARIABLE, scene.store()).env(RUN_VARIABLE, scene.run_root());
        shell
    });
    let mut peers = Vec::new();
    if let Some(site) = &podman {
        let function = format!(
            "e() {{ case $1 in run|create) v=$1; shift; podman $v --cgroup-parent {} \"$@\";; *) podman \"$@\";; esac; }}",
            Site::cgroup()
        );
        let shell = || podman::configured(site, "timeout");
        peers.push((Peer::Podman, Column::prepare(&sections, Some(Peer::Podman), &directory, &function, shell)));
    }
    if let Some(docker) = &docker {
        let shell = || docker.client("timeout");
        let function = "e() { docker \"$@\"; }";
        peers.push((Peer::Docker, Column::prepare(&sections, Some(Peer::Docker), &directory, function, shell)));
    }
    let (own, others) = std::thread::scope(|scope| {
        let start = |(peer, column): (Peer, Column)| (peer, scope.spawn(|| column.answers()));
        let others: Vec<_> = peers.into_iter().map(start).collect();
        let finish = |(peer, thread): (Peer, std::thread::ScopedJoinHandle<'_, _>)| {
            (peer, thread.join().expect("a thread that asks"))
        };
        (husk.answers(), others.into_iter().map(finish).collect::<Vec<(Peer, Vec<Option<Answer>>)>>())
    });
    if let Some(site) = &podman {
        podman::configured(site, "podman").args(["rm", "--all", "--force", "--time", "0"]).run().success();
    }

    let rows: Vec<&Row<'_>> = sections.iter().flat_map(|section| &section.rows).collect();
    let mut problems = String::new();
    for (index, row) in rows.iter().enumerate() {
        let answer = own[index].as_ref().expect("husk is asked everything");
        if row.says.is_some_and(|text| !says(answer, text)) {
            _ = writeln!(problems, "$ {}\n  husk does not say {:?}\n{}", row.line, row.says, show("husk", answer));
        }
        for (peer, answers) in &others {
            let Some(other) = &answers[index] else { continue };
            let difference = difference(row, answer, other);
            let problem = match (row.claim(*peer), difference) {
                (Claim::Agrees, Some(what)) => format!("{} differs: {what}", peer.name()),
                (Claim::Differs(_), None) => format!("{} agrees, and is said to differ", peer.name()),
                _ => continue,
            };
            let (husks, others) = (show("husk", answer), show(peer.name(), other));
            _ = writeln!(problems, "$ {}\n  {problem}\n{husks}\n{others}", row.line);
        }
    }
    assert!(problems.is_empty(), "{} lines\n{problems}", rows.len());
}

/// Says whether a peer can take part, and else why not.
fn has(peer: Peer) -> bool {
    let programs: &[&str] = if peer == Peer::Podman { &["podman"] } else { &["dockerd", "docker"] };
    let missing = programs.iter().find(|program| find_program(program).is_none());
    if let Some(program) = missing {
        _ = std::io::Write::write_all(
            &mut std::io::stderr(),
            format!("beside::the_same_lines: no {program}, {} is not compared\n", peer.name()).as_bytes(),
        );
    }
    missing.is_none()
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
