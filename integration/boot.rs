//! After a reboot: what the machine's end has cut off is settled, who has a restart policy comes back, and units say so.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::lifecycle::{monitor_of, soon};
use super::orphans::has_ended;
use super::support::image::{Image, Layout};
use super::support::tar::Entry;
use super::support::{Need, Outcome, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    [
        test!(who_has_a_policy_comes_back).and_plain(),
        test!(who_has_the_pid_by_now_is_left_alone),
        test!(units_name_what_they_run).and_plain(),
    ]
    .into_iter()
    .map(|test: Test| test.needs(Need::Husk).needs(Need::Busybox))
    .collect()
}

/// A machine that can go down: all monitors killed, and with them the containers.
struct Machine<'a> {
    scene: &'a Scene,
    layout: Layout,
}

impl<'a> Machine<'a> {
    fn new(scene: &'a Scene) -> Self {
        let layout = Image::busybox(scene).layer(&[Entry::symlink("bin/sleep", "busybox")]).layout(scene, "layout");
        Self { scene, layout }
    }

    fn husk(&self, args: &[&str]) -> Outcome {
        self.scene.husk().args(args).run()
    }

    fn run(&self, name: &str, policy: &str) {
        let mut command = self.scene.husk();
        command.args(["run", "-d", "--restart", policy, "--name", name]).arg(self.layout.reference());
        command.args(["sleep", "1000"]).run().success();
    }

    /// As the machine's end does it: the monitor first, which would see the container's.
    fn cut_off(&self, name: &str) {
        self.kill(name);
        soon("it is known", || self.status(name).starts_with("Exited (255) "));
    }

    fn kill(&self, name: &str) {
        let pid = self.husk(&["inspect", "--format", "{{.State.Pid}}", name]).success().stdout;
        for pid in [monitor_of(name), pid.trim().parse().unwrap()] {
            let pid = Pid::from_raw(pid).unwrap();
            kill_process(pid, Signal::KILL).unwrap();
            soon("it has ended", || has_ended(pid));
        }
    }

    fn status(&self, name: &str) -> String {
        let all = self.husk(&["ps", "-a", "--format", "{{.Names}} {{.Status}}"]).success().stdout;
        let line = all.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is not among {all}")).to_owned()
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        for id in self.husk(&["ps", "-aq", "--no-trunc"]).stdout.lines() {
            self.husk(&["rm", "-f", id]);
        }
    }
}

fn who_has_a_policy_comes_back(scene: &Scene) {
    let machine = Machine::new(scene);
    for (name, policy) in [
        ("boot-first", "always"),
        ("boot-no", "no"),
        ("boot-stopped", "unless-stopped"),
        ("boot-second", "unless-stopped"),
        ("boot-third", "on-failure"),
    ] {
        machine.run(name, policy);
    }
    machine.husk(&["stop", "-t", "0", "boot-stopped"]).success();
    for name in ["boot-first", "boot-no", "boot-second", "boot-third"] {
        machine.cut_off(name);
    }
    let started = machine.husk(&["start", "--boot"]).success().stdout;
    assert_eq!(started, "boot-first\nboot-second\nboot-third\n", "the oldest first");
    for name in ["boot-first", "boot-second", "boot-third"] {
        assert!(machine.status(name).starts_with("Up "), "{name}");
    }
    for name in ["boot-no", "boot-stopped"] {
        assert!(machine.status(name).starts_with("Exited "), "{name}");
    }
    assert_eq!(machine.husk(&["start", "--boot"]).success().stdout, "", "who runs is left alone");
    machine.husk(&["start", "--boot", "boot-no"]).exits_with(125);
}

/// A run root on a disk holds pids of the boot before.
fn who_has_the_pid_by_now_is_left_alone(scene: &Scene) {
    let machine = Machine::new(scene);
    machine.run("boot-stale", "always");
    let id = machine.husk(&["ps", "-aq", "--no-trunc"]).success().stdout;
    let file = scene.run_root().join("oci").join(id.trim_end()).join("state.json");
    let mut state: Value = serde_json::from_str(&super::support::husk::read_host(&file)).expect("our own state");
    machine.kill("boot-stale");
    // Somebody else of the same user has the number now; the cgroup is gone with the boot.
    let mut bystander = scene.program("/bin/sleep");
    let bystander = bystander.arg("1000").start();
    let pid = bystander.pid().as_raw_nonzero().get();
    let stat = super::support::husk::read_host(format!("/proc/{pid}/stat"));
    let start_time =
        stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(19)).expect("proc_pid_stat(5)");
    // Even the time is the same: a machine that comes up twice does the same things.
    assert_eq!(state["boot"].as_str(), Some(super::support::husk::read_host("/proc/sys/kernel/random/boot_id").trim()));
    state["init_process_pid"] = pid.into();
    state["init_process_start"] = start_time.parse::<u64>().unwrap().into();
    state["boot"] = "00000000-0000-0000-0000-000000000000".into();
    state["cgroups"] = Value::Null;
    super::support::scene::write(&file, state.to_string());
    soon("it is known", || machine.status("boot-stale").starts_with("Exited (255) "));
    let stat = super::support::husk::read_host(format!("/proc/{}/stat", bystander.pid().as_raw_nonzero()));
    assert!(!stat.contains(") Z "), "the bystander was killed: {stat}");
    assert_eq!(machine.husk(&["start", "--boot"]).success().stdout, "boot-stale\n");
}

fn units_name_what_they_run(scene: &Scene) {
    let machine = Machine::new(scene);
    machine.run("boot-unit", "no");
    let unit = machine.husk(&["generate", "systemd", "--name", "boot-unit"]).success().stdout;
    let line =
        |start: &str| unit.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start}: {unit}"));
    assert!(line("ExecStart=").ends_with("husk start --attach boot-unit"), "{unit}");
    assert!(line("ExecStop=").ends_with("husk stop boot-unit"), "{unit}");
    assert!(line("Environment=\"HUSK_DATA_ROOT").contains(&scene.store().display().to_string()), "{unit}");
    let id = machine.husk(&["ps", "-q", "--no-trunc"]).success().stdout;
    let unit = machine.husk(&["generate", "systemd", "boot-unit"]).success().stdout;
    assert!(unit.contains(&format!(" start --attach {}\n", id.trim_end())), "{unit}");
    let unit = machine.husk(&["generate", "boot"]).success().stdout;
    assert!(unit.contains("husk start --boot\n"), "{unit}");
    machine.husk(&["generate", "systemd", "nobody"]).exits_with(1).says("no such container");
}
