//! Commands at random on a few containers, some of them killed, some monitors too; at the end the store is whole, nothing
//! runs, and nothing is left.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::lifecycle::{Yard, soon};
use super::support::{Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![test!(nothing_is_left_of_a_storm).needs(Need::Husk).needs(Need::Busybox).and_plain()]
}

const COMMANDS: usize = 200;
const CONTAINERS: usize = 20;
/// How many commands are under way at once.
const AT_ONCE: usize = 4;

/// xorshift64*: the same storm for the same seed.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap() % sides
    }
}

fn nothing_is_left_of_a_storm(scene: &Scene) {
    let yard = Yard::new(scene);
    yard.sh(&["run", "--rm"], "true").success();
    let seed = std::env::var("HUSK_STORM").ok().and_then(|text| text.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        u64::try_from(now.as_nanos() & u128::from(u64::MAX)).unwrap() | 1
    });
    scene.note(format!("HUSK_STORM={seed}"));
    let mut dice = Dice(seed);
    let image = yard.layout.reference();
    let mut under_way = Vec::new();
    for _ in 0..COMMANDS {
        let name = format!("storm{}", dice.roll(CONTAINERS));
        let mut invocation = scene.husk();
        let script = "trap 'exit 0' TERM; while :; do echo line; sleep 0.05; done";
        match dice.roll(12) {
            0..=2 => invocation.args(["run", "-d", "--name", &name, &image, "/bin/sh", "-c", script]),
            3 => invocation.args(["run", "-d", "--rm", "--name", &name, &image, "/bin/sh", "-c", script]),
            4 => invocation.args(["create", "--name", &name, &image, "/bin/sh", "-c", script]),
            5 => invocation.args(["start", &name]),
            6 => invocation.args(["stop", "-t", "0", &name]),
            7 => invocation.args(["rm", "-f", &name]),
            8 => invocation.args(["restart", "-t", "0", &name]),
            9 => invocation.args(["exec", &name, "/bin/true"]),
            10 => invocation.args(["kill", &name]),
            _ => invocation.args(["ps", "-a"]),
        };
        let child = invocation.spawn(Stdio::null(), Stdio::null(), Stdio::null());
        if dice.roll(3) == 0 {
            std::thread::sleep(Duration::from_micros(u64::try_from(dice.roll(40_000)).unwrap()));
            // A zombie takes it as well.
            let _ = rustix::process::kill_process(Pid::from_child(&child), Signal::KILL);
        }
        under_way.push(child);
        if dice.roll(20) == 0
            && let Some(monitor) = any_monitor(scene, &mut dice)
        {
            let _ = rustix::process::kill_process(monitor, Signal::KILL);
        }
        while under_way.len() >= AT_ONCE {
            let mut child = under_way.remove(0);
            assert_ended_well(child.wait().unwrap());
        }
    }
    for mut child in under_way {
        assert_ended_well(child.wait().unwrap());
    }
    yard.husk(&["ps", "-a"]).success();
    for number in 0..CONTAINERS {
        yard.husk(&["rm", "-f", &format!("storm{number}")]).success();
    }
    assert_eq!(yard.husk(&["ps", "-aq"]).success().stdout, "");
    soon("every monitor has ended", || any_monitor(scene, &mut Dice(1)).is_none());
    yard.husk(&["system", "check"]).success();
    for place in [scene.store().join("containers"), scene.store().join("names"), scene.run_root().join("oci")] {
        let left: Vec<_> =
            std::fs::read_dir(&place).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// A command may fail, for its container may be gone; it may not break.
#[track_caller]
fn assert_ended_well(status: std::process::ExitStatus) {
    use std::os::unix::process::ExitStatusExt;
    assert!(!matches!(status.code(), Some(101 | 134)), "{status}");
    assert!(matches!(status.signal(), None | Some(9)), "{status}");
}

/// One of the monitors of this scene's containers.
fn any_monitor(scene: &Scene, dice: &mut Dice) -> Option<Pid> {
    let mut found = Vec::new();
    let mark = scene.path().to_str().unwrap().as_bytes().to_vec();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|pid| pid.parse::<i32>().ok()) else { continue };
        let title = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let is_ours = |bytes: &[u8]| bytes.windows(mark.len()).any(|window| window == mark);
        if title.starts_with("husk:[monitor") && (is_ours(&environment) || is_ours(&words)) {
            found.extend(Pid::from_raw(pid));
        }
    }
    if found.is_empty() { None } else { Some(found[dice.roll(found.len())]) }
}
