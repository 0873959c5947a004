//! A hundred creates and deletes at once, a tenth of them killed at random, again and again: no leak, no wrong state, no
//! hang. `make test` does a smaller crowd, `make sweep` ten rounds of a hundred.

use std::collections::BTreeMap;
use std::io::{Read, Seek};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

use super::support::{Bundle, Need, Scene, Test, leak, test};
use super::sweep;

/// Of so many processes, one is killed.
const KILLED_ONE_IN: u64 = 10;
/// The most that a crowd may take: only a hang may meet it.
const PATIENCE: Duration = Duration::from_mins(2);

pub(crate) fn tests() -> Vec<Test> {
    vec![test!(a_crowd_of_which_some_are_killed).and_plain().needs(Need::Husk)]
}

/// A command of the crowd, on its way.
struct Member {
    id: String,
    child: Child,
    errors: std::fs::File,
    /// When it is to be killed, if it is one of the unlucky.
    dies_at: Option<Instant>,
    killed: bool,
}

/// How a command of the crowd ended.
struct End {
    id: String,
    succeeded: bool,
    /// A signal came before the end, or nearly so: then either is right.
    killed: bool,
    errors: String,
}

/// Numbers by chance, from a seed that a failure shows.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn a_crowd_of_which_some_are_killed(scene: &Scene) {
    let (size, rounds) = if sweep::takes_all() { (100, 10) } else { (16, 2) };
    let mut chance = Chance(sweep::seed());
    scene.note(format!("seed {}", chance.0));
    let bundles: Vec<Bundle<'_>> = (0..size)
        .map(|_| {
            let mut bundle = scene.bundle();
            bundle.args(["/probe", "--quiet", "--block"]);
            bundle.config["process"]["noNewPrivileges"] = json!(true);
            bundle.write();
            bundle
        })
        .collect();
    let ids: Vec<&str> = bundles.iter().map(|bundle| bundle.id.as_str()).collect();
    let mounts = leak::mounts();
    for round in 0..rounds {
        let place = |what: &str| format!("round {round}, {what}");
        let created = crowd(scene, &mut chance, &bundles, |bundle| {
            let directory = bundle.directory.display().to_string();
            vec!["create".to_owned(), "--bundle".to_owned(), directory, bundle.id.clone()]
        });
        for end in created.iter().filter(|end| !end.killed) {
            assert!(end.succeeded, "{}: {}: {}", place("create"), end.id, end.errors);
        }
        let known = list(scene);
        for end in &created {
            let status = known.get(end.id.as_str()).map(String::as_str);
            let right = match (end.succeeded, end.killed) {
                (true, _) => status == Some("created"),
                // How far it came, nobody knows; a container that runs it can't be.
                (false, true) => matches!(status, None | Some("creating" | "created" | "stopped")),
                (false, false) => status.is_none(),
            };
            assert!(right, "{}: {} is {status:?}", place("list"), end.id);
        }
        let deleted = crowd(scene, &mut chance, &bundles, |bundle| {
            vec!["delete".to_owned(), "--force".to_owned(), bundle.id.clone()]
        });
        for end in deleted.iter().filter(|end| !end.killed) {
            assert!(end.succeeded, "{}: {}: {}", place("delete"), end.id, end.errors);
        }
        for end in deleted.iter().filter(|end| end.killed) {
            scene.runtime().args(["delete", "--force", &end.id]).run().success();
        }
        assert_eq!(list(scene), BTreeMap::new(), "{}", place("after the deletes"));
        for id in &ids {
            assert_eq!(leak::cgroups_named(id), Vec::<std::path::PathBuf>::new(), "{}", place("cgroups"));
        }
        assert_eq!(leak::mounts(), mounts, "{}", place("mounts"));
        let left: Vec<_> = std::fs::read_dir(scene.state_root()).unwrap().flatten().collect();
        assert!(left.is_empty(), "{}: {left:?}", place("states"));
    }
}

/// Starts a verb for every bundle at once, kills some, and waits for all.
fn crowd(
    scene: &Scene,
    chance: &mut Chance,
    bundles: &[Bundle<'_>],
    words: impl Fn(&Bundle<'_>) -> Vec<String>,
) -> Vec<End> {
    let deadline = Instant::now() + PATIENCE;
    let mut members: Vec<Member> = bundles
        .iter()
        .map(|bundle| {
            let errors = tempfile::tempfile().expect("make a file for the standard error");
            let mut command = scene.runtime();
            command.args(words(bundle));
            let theirs = errors.try_clone().expect("share a file").into();
            let child = command.spawn(Stdio::null(), Stdio::null(), theirs);
            let delay = Duration::from_micros(chance.below(60_000));
            let dies_at = (chance.below(KILLED_ONE_IN) == 0).then(|| Instant::now() + delay);
            Member { id: bundle.id.clone(), child, errors, dies_at, killed: false }
        })
        .collect();
    let mut ends = Vec::new();
    while !members.is_empty() {
        assert!(Instant::now() < deadline, "{} commands hang, the first for {}", members.len(), members[0].id);
        for index in (0..members.len()).rev() {
            let member = &mut members[index];
            if let Some(status) = member.child.try_wait().expect("wait for our child") {
                let Member { id, mut errors, killed, .. } = members.swap_remove(index);
                let mut text = String::new();
                errors.rewind().and_then(|()| errors.read_to_string(&mut text)).expect("read the standard error");
                ends.push(End { id, succeeded: status.success(), killed, errors: text });
            } else if member.dies_at.is_some_and(|at| at <= Instant::now()) {
                member.dies_at = None;
                member.killed = true;
                let pid = Pid::from_child(&member.child);
                rustix::process::kill_process(pid, Signal::KILL).expect("kill our child, which is not yet waited for");
            }
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    ends
}

/// Each container that is known, with its status.
fn list(scene: &Scene) -> BTreeMap<String, String> {
    let text = scene.runtime().args(["list", "--format", "json"]).run().success().stdout;
    let list: Option<Vec<Value>> = serde_json::from_str(&text).expect("list prints JSON");
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    list.unwrap_or_default().iter().map(|entry| (word(&entry["id"]), word(&entry["status"]))).collect()
}
