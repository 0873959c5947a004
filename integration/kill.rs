//! SIGKILL at bad moments: who goes with whom, and what the next command clears.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::Value;

use super::support::husk::Running;
use super::support::image::{Image, Layout};
use super::support::suite::kit;
use super::support::{Need, Scene, Test, Who, test};

pub(crate) fn tests() -> Vec<Test> {
    let engine = |test: Test| test.needs(Need::Husk).needs(Need::Busybox);
    let mut tests: Vec<Test> = [
        test!(killing_the_command_takes_the_container).and_plain(),
        test!(also_after_a_change_of_user),
        test!(also_with_orphans_in_the_container).and_plain(),
        test!(also_with_a_terminal).and_plain(),
        test!(killing_the_monitor_ends_the_command).and_plain(),
        test!(killing_both_leaves_what_the_next_command_clears).and_plain(),
        test!(killing_both_after_a_change_of_user),
        test!(the_name_is_free_again).and_plain(),
    ]
    .into_iter()
    .map(engine)
    .collect();
    tests.push(test!(under_the_runtimes_name_the_container_stays).root());
    tests
}

/// Processes whose parent is one of these, and theirs, as the host sees them.
fn descendants(of: Pid) -> Vec<Pid> {
    let mut found = vec![of.as_raw_nonzero().get()];
    let mut index = 0;
    while index < found.len() {
        let parent = found[index];
        index += 1;
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
            let ppid = stat.rsplit(')').next().unwrap().split_whitespace().nth(1).and_then(|field| field.parse().ok());
            if ppid == Some(parent) && !found.contains(&pid) {
                found.push(pid);
            }
        }
    }
    found[1..].iter().filter_map(|pid| Pid::from_raw(*pid)).collect()
}

/// Whether a process runs husk (a monitor), rather than the workload.
fn is_husk(pid: Pid) -> bool {
    let executable = std::fs::read_link(format!("/proc/{pid}/exe", pid = pid.as_raw_nonzero())).unwrap_or_default();
    let name = executable.to_string_lossy().into_owned();
    name.contains("husk") && !name.contains("rootfs") && !name.ends_with("/probe")
}

fn is_alive(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    !matches!(stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next()), None | Some("Z" | "X"))
}

/// Waits until all of these are gone.
#[track_caller]
fn wait_for_the_end(pids: &[Pid]) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while pids.iter().any(|pid| is_alive(*pid)) {
        assert!(
            Instant::now() < deadline,
            "still alive: {:?}",
            pids.iter().filter(|pid| is_alive(**pid)).collect::<Vec<_>>()
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn layout(scene: &Scene) -> Layout {
    Image::probe(scene).layout(scene, "layout")
}

/// `husk run --rm` of something that waits, started and seen to run.
fn start<'a>(scene: &'a Scene, layout: &Layout, flags: &[&str], command: &[&str]) -> Running<'a> {
    let mut invocation = scene.husk();
    invocation.args(["run", "--rm"]).args(flags).arg(layout.reference()).args(command);
    let mut running = invocation.start();
    running.line_with("up");
    running
}

const WAIT: &[&str] = &["/probe", "--quiet", "--echo", "up", "--block"];

/// Runs one more container, and looks whether the store and the state are clean.
#[track_caller]
fn the_next_command_clears(scene: &Scene, layout: &Layout) {
    scene.husk().args(["run", "--rm", &layout.reference(), "/bin/true"]).run().success();
    let left = |path: std::path::PathBuf| -> BTreeSet<String> {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    assert_eq!(left(scene.store().join("containers")), BTreeSet::new(), "containers are left");
    assert_eq!(left(scene.store().join("names")), BTreeSet::new(), "names are left");
    assert_eq!(left(scene.run_root().join("oci")), BTreeSet::new(), "states are left");
}

fn kill_the_command(scene: &Scene, layout: &Layout, running: Running<'_>) {
    let family = descendants(running.pid());
    assert!(!family.is_empty());
    running.signal(Signal::KILL);
    wait_for_the_end(&family);
    assert_eq!(running.finish().code(), 137);
    the_next_command_clears(scene, layout);
}

fn killing_the_command_takes_the_container(scene: &Scene) {
    let layout = layout(scene);
    let running = start(scene, &layout, &[], WAIT);
    kill_the_command(scene, &layout, running);
}

/// A parent-death signal is cleared by a change of credentials: it must not be what this hangs on.
fn also_after_a_change_of_user(scene: &Scene) {
    let layout = layout(scene);
    let running = start(scene, &layout, &["--user", "1000:1000"], WAIT);
    kill_the_command(scene, &layout, running);
}

fn also_with_orphans_in_the_container(scene: &Scene) {
    let layout = layout(scene);
    let script =
        "(/probe --quiet --fork --block); (/probe --quiet --fork --block) & echo up; exec /probe --quiet --block";
    let running = start(scene, &layout, &[], &["/bin/sh", "-c", script]);
    kill_the_command(scene, &layout, running);
}

fn also_with_a_terminal(scene: &Scene) {
    let layout = layout(scene);
    let terminal = super::support::tty::Terminal::open(24, 80);
    let mut invocation = scene.husk();
    invocation.args(["run", "--rm", "-t", &layout.reference()]).args(WAIT);
    let mut running = terminal.start(&mut invocation);
    running.line_with("up");
    let family = descendants(running.pid());
    running.signal(Signal::KILL);
    wait_for_the_end(&family);
    running.finish();
    the_next_command_clears(scene, &layout);
}

fn killing_the_monitor_ends_the_command(scene: &Scene) {
    let layout = layout(scene);
    let running = start(scene, &layout, &[], WAIT);
    let family = descendants(running.pid());
    let monitors: Vec<Pid> = family.iter().copied().filter(|pid| is_husk(*pid)).collect();
    assert!(!monitors.is_empty(), "no monitor among {family:?}");
    rustix::process::kill_process(monitors[0], Signal::KILL).unwrap();
    wait_for_the_end(&family);
    let outcome = running.finish();
    assert_ne!(outcome.code(), 0);
    assert!(!outcome.stderr.trim().is_empty(), "the user is told");
    the_next_command_clears(scene, &layout);
}

/// The command and its monitor at one stroke: by the time the kernel has told either, both are gone.
fn kill_both(running: &Running<'_>) -> Vec<Pid> {
    let family = descendants(running.pid());
    // Stopped first, so that neither sees the other's end.
    let ours: Vec<Pid> = family.iter().copied().filter(|pid| is_husk(*pid)).chain([running.pid()]).collect();
    for signal in [Signal::STOP, Signal::KILL] {
        for pid in &ours {
            rustix::process::kill_process(*pid, signal).unwrap();
        }
    }
    wait_for_the_end(&ours);
    family
}

fn killing_both_leaves_what_the_next_command_clears(scene: &Scene) {
    let layout = layout(scene);
    let running = start(scene, &layout, &[], WAIT);
    let family = kill_both(&running);
    // The outputs stay open as long as the workload lives: so the next command first.
    the_next_command_clears(scene, &layout);
    wait_for_the_end(&family);
    running.finish();
}

fn killing_both_after_a_change_of_user(scene: &Scene) {
    let layout = layout(scene);
    let running = start(scene, &layout, &["--user", "1000:1000"], WAIT);
    let family = kill_both(&running);
    the_next_command_clears(scene, &layout);
    wait_for_the_end(&family);
    running.finish();
}

fn the_name_is_free_again(scene: &Scene) {
    let layout = layout(scene);
    let running = start(scene, &layout, &["--name", "wanted"], WAIT);
    let family = kill_both(&running);
    let again = scene.husk().args(["run", "--rm", "--name", "wanted", &layout.reference(), "/bin/true"]).run();
    again.success();
    wait_for_the_end(&family);
    running.finish();
    the_next_command_clears(scene, &layout);
}

/// runc leaves the container running when it is killed itself, and so must what stands in for it.
fn under_the_runtimes_name_the_container_stays(scene: &Scene) {
    assert_eq!(scene.who, Who::Root);
    let mut bundle = scene.bundle();
    bundle.args(WAIT.iter().copied());
    let mut running = bundle.command().start();
    running.line_with("up");
    running.signal(Signal::KILL);
    let state = || -> Value {
        serde_json::from_str(&scene.runtime().args(["state", &bundle.id]).run().success().stdout).unwrap()
    };
    let found = state();
    assert_eq!(found["status"], "running", "{}", kit().runtime.display());
    let pid = Pid::from_raw(i32::try_from(found["pid"].as_i64().unwrap()).unwrap()).unwrap();
    scene.runtime().args(["kill", &bundle.id, "KILL"]).run().success();
    wait_for_the_end(&[pid]);
    assert_eq!(state()["status"], "stopped");
    scene.runtime().args(["delete", &bundle.id]).run().success();
    running.finish();
}
