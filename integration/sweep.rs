//! SIGKILL at the system calls of the runtime's verbs: whatever was going on, one `delete --force` leaves nothing.
//!
//! Every verb is followed once to learn its calls, then run again for each point at which it is killed: before the call,
//! in the parent, in the child and in init, the caller alone or all of them. `make test` takes a sample of the points:
//! spread out, and some at random, whose seed is told (`HUSK_SWEEP_SEED` gives it back). `make sweep` takes all.

use std::collections::BTreeSet;
use std::io::{Read, Seek};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use serde_json::json;

use super::support::leak;
use super::support::trace::{Point, Trace, Victims, trace};
use super::support::{Bundle, Invocation, Need, Scene, Test, Who, test};

/// Set by `make sweep`: every point.
const ALL_VARIABLE: &str = "HUSK_SWEEP";
const SEED_VARIABLE: &str = "HUSK_SWEEP_SEED";
/// Of each process of each verb, in `make test`: so many points spread out, and as many at random.
const SAMPLE: usize = 6;
/// How long the processes of what was deleted may take to be gone.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn tests() -> Vec<Test> {
    [
        test!(create_killed_anywhere).and_plain(),
        test!(create_in_two_stages_killed_anywhere).and_plain(),
        test!(create_in_a_joined_pid_namespace_killed_anywhere).root(),
        test!(run_killed_anywhere).and_plain(),
        test!(start_killed_anywhere).and_plain(),
        test!(exec_killed_anywhere).and_plain(),
        test!(delete_killed_anywhere).and_plain(),
        test!(delete_of_a_running_container_killed_anywhere).and_plain(),
    ]
    .into_iter()
    .map(|test| test.needs(Need::Husk).needs(Need::Capability(caps::Capability::CAP_SYS_PTRACE)))
    .collect()
}

/// A container on its way to be killed.
struct Subject<'a> {
    scene: &'a Scene,
    bundle: Bundle<'a>,
}

impl<'a> Subject<'a> {
    /// With limits, a filter, masks and a pid file: what a kill can come between.
    fn new(scene: &'a Scene) -> Self {
        let mut bundle = scene.bundle();
        bundle.args(["/probe", "--quiet", "--block"]);
        let linux = &mut bundle.config["linux"];
        if scene.who == Who::Root {
            linux["resources"]["memory"] = json!({ "limit": 268_435_456 });
            linux["resources"]["pids"] = json!({ "limit": 100 });
        }
        linux["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["keyctl", "bpf"], "action": "SCMP_ACT_ERRNO" }],
        });
        Self { scene, bundle }
    }

    /// Offsets of the clock want a child in between, and hooks want answers from the parent.
    fn in_two_stages(mut self) -> Self {
        self.bundle.namespace("time", None);
        self.bundle.config["linux"]["timeOffsets"] = json!({ "monotonic": { "secs": 100, "nanosecs": 0 } });
        self.bundle.config["hooks"] = json!({
            "createRuntime": [{ "path": "/bin/true" }],
            "poststop": [{ "path": "/bin/true" }],
        });
        self
    }

    fn verb(&self, words: &[&str]) -> Invocation<'a> {
        let mut command = self.scene.runtime();
        command.args(words);
        command
    }

    fn make(&self, words: &[&str]) -> Invocation<'a> {
        let mut command = self.verb(words);
        command.arg("--bundle").arg(&self.bundle.directory);
        command.arg("--pid-file").arg(self.bundle.directory.join("pid")).arg(&self.bundle.id);
        command
    }

    fn create(&self) -> Invocation<'a> {
        self.make(&["create"])
    }

    /// Runs a verb that may leave a process with its outputs, which therefore can't be pipes.
    fn quietly(mut command: Invocation<'_>) {
        let mut errors = tempfile::tempfile().expect("make a file for the standard error");
        let theirs = errors.try_clone().expect("share a file");
        let outcome = command.start_with(Stdio::null(), Stdio::null(), theirs.into()).finish();
        let mut text = String::new();
        errors.rewind().and_then(|()| errors.read_to_string(&mut text)).expect("read the standard error");
        assert_eq!(outcome.code(), 0, "{text}");
    }

    fn delete(&self) {
        self.verb(&["delete", "--force", &self.bundle.id]).run().success();
    }

    /// What there is outside of the container, on its account.
    fn traces_of_it(&self) -> BTreeSet<String> {
        let mut found = leak::mounts();
        found.extend(leak::cgroups_named(&self.bundle.id).iter().map(|path| path.display().to_string()));
        let places: [PathBuf; 5] = [
            self.scene.state_root(),
            self.scene.path().to_owned(),
            self.bundle.directory.clone(),
            self.scene.account().runtime_directory.clone(),
            self.bundle.rootfs("/"),
        ];
        for place in places {
            let entries = std::fs::read_dir(&place).expect("list a directory of the test").flatten();
            found.extend(entries.map(|entry| entry.path().display().to_string()));
        }
        found.remove(&self.bundle.directory.join("pid").display().to_string());
        found
    }

    /// Kills `verb` at each point, after `prepare` has led up to it.
    fn sweep(&self, prepare: &dyn Fn(), verb: &dyn Fn() -> Invocation<'a>) {
        self.sweep_with(prepare, verb, &|| {});
    }

    /// With something to be looked at before the `delete`.
    fn sweep_with(&self, prepare: &dyn Fn(), verb: &dyn Fn() -> Invocation<'a>, look: &dyn Fn()) {
        self.bundle.write();
        let before = self.traces_of_it();
        prepare();
        let whole = trace(&mut verb(), None);
        assert!(whole.is_success(), "unharmed, the command fails: {}", whole.stderr);
        self.delete();
        let (points, seed) = choose(&whole.calls, SAMPLE);
        let mut reached = 0;
        for point in &points {
            prepare();
            let trace = trace(&mut verb(), Some(*point));
            let place = || format!("{point:?}, system call {:?}, seed {seed}\n{}", trace.killed_at, trace.stderr);
            // Processes overtake each other: then one of them may have been let go before it came to the point.
            assert!(trace.killed_at.is_some() || trace.is_success(), "not killed, and fails: {}", place());
            reached += usize::from(trace.killed_at.is_some());
            let list = self.verb(&["list", "--quiet"]).run();
            assert_eq!(list.code(), 0, "`list` fails after {}", place());
            look();
            let delete = self.verb(&["delete", "--force", &self.bundle.id]).run();
            assert_eq!(delete.code(), 0, "`delete --force` fails after {}", place());
            assert!(have_ended(&trace), "processes are left after {}", place());
            let after = self.traces_of_it();
            let left: Vec<&String> = after.symmetric_difference(&before).collect();
            assert!(left.is_empty(), "{left:#?} after {}", place());
        }
        assert!(reached * 10 >= points.len() * 9, "{reached} of {} points were reached, seed {seed}", points.len());
        Self::quietly(self.create());
        self.delete();
    }
}

/// Waits for every process of a command.
fn have_ended(trace: &Trace) -> bool {
    let deadline = Instant::now() + PATIENCE;
    trace.processes.iter().all(|process| {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).expect("seconds fit");
        rustix::event::poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&timeout)).is_ok_and(|count| count > 0)
    })
}

/// Says whether this is `make sweep`.
pub(crate) fn takes_all() -> bool {
    std::env::var_os(ALL_VARIABLE).is_some()
}

/// What chance begins with: told by a failure, and given back by a variable.
pub(crate) fn seed() -> u64 {
    let seed = std::env::var(SEED_VARIABLE).ok().and_then(|text| text.parse().ok());
    seed.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        u64::from(now.subsec_nanos())
    })
}

/// The points of a sweep, for the number of calls of each process and the size of the sample; with the seed of those at random.
pub(crate) fn choose(calls: &[usize], sample: usize) -> (Vec<Point>, u64) {
    let every = takes_all();
    let seed = seed();
    let mut random = seed;
    let mut points = Vec::new();
    for (process, &count) in calls.iter().enumerate() {
        let mut chosen: BTreeSet<usize> = (0..count).collect();
        if !every {
            chosen = (0..sample.min(count)).map(|index| index * count / sample).collect();
            chosen.extend((0..sample.min(count)).map(|_| {
                // Knuth's MMIX generator; the low bits are poor.
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                usize::try_from(random >> 33).expect("31 bits") % count
            }));
        }
        for (turn, call) in chosen.into_iter().enumerate() {
            let victims: &[Victims] = match (every, turn % 2) {
                (true, _) => &[Victims::Caller, Victims::All],
                (false, 0) => &[Victims::Caller],
                (false, _) => &[Victims::All],
            };
            points.extend(victims.iter().map(|&victims| Point { process, call, victims }));
        }
    }
    (points, seed)
}

fn create_killed_anywhere(scene: &Scene) {
    let subject = Subject::new(scene);
    subject.sweep(&|| {}, &|| subject.create());
}

fn create_in_two_stages_killed_anywhere(scene: &Scene) {
    let subject = Subject::new(scene).in_two_stages();
    subject.sweep(&|| {}, &|| subject.create());
}

/// As in a pod, where the child does init's work out of the sight of those who are in the namespace already.
fn create_in_a_joined_pid_namespace_killed_anywhere(scene: &Scene) {
    let first = Subject::new(scene);
    first.bundle.write();
    Subject::quietly(first.make(&["run", "--detach"]));
    let pid = super::support::husk::read_host(first.bundle.directory.join("pid"));
    let mut subject = Subject::new(scene);
    subject.bundle.namespace("pid", Some(format!("/proc/{}/ns/pid", pid.trim()).as_ref()));
    subject.sweep(&|| {}, &|| subject.create());
    first.delete();
}

fn run_killed_anywhere(scene: &Scene) {
    let subject = Subject::new(scene);
    subject.sweep(&|| {}, &|| subject.make(&["run", "--detach"]));
}

fn start_killed_anywhere(scene: &Scene) {
    let subject = Subject::new(scene);
    let id = &subject.bundle.id;
    subject.sweep(&|| Subject::quietly(subject.create()), &|| subject.verb(&["start", id]));
}

/// The container that a killed `exec` was for goes on.
fn exec_killed_anywhere(scene: &Scene) {
    let subject = Subject::new(scene);
    let id = &subject.bundle.id;
    let prepare = || Subject::quietly(subject.make(&["run", "--detach"]));
    let exec = || subject.verb(&["exec", id, "/probe", "--quiet"]);
    let still_runs = || {
        let state = subject.verb(&["state", id]).run().success();
        let state: serde_json::Value = serde_json::from_str(&state.stdout).expect("state prints JSON");
        assert_eq!(state["status"], "running");
    };
    subject.sweep_with(&prepare, &exec, &still_runs);
}

fn delete_killed_anywhere(scene: &Scene) {
    let subject = Subject::new(scene).in_two_stages();
    let id = &subject.bundle.id;
    subject.sweep(&|| Subject::quietly(subject.create()), &|| subject.verb(&["delete", id]));
}

fn delete_of_a_running_container_killed_anywhere(scene: &Scene) {
    let subject = Subject::new(scene);
    let id = &subject.bundle.id;
    let prepare = || Subject::quietly(subject.make(&["run", "--detach"]));
    subject.sweep(&prepare, &|| subject.verb(&["delete", "--force", id]));
}
