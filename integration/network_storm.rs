//! SIGKILL while networks are set up, changed and torn down: the next command leaves no link, no rule, no lease and no port
//! of what was killed. First at single system calls, then at random on many containers at once.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::storm::Dice;
use super::support::image::{Image, Layout};
use super::support::stage::{Stage, Tun, husk, leases, run, wait_until};
use super::support::trace::trace;
use super::support::{Invocation, Need, Scene, Test, Who, test};
use super::sweep::{choose, seed};

pub(crate) fn tests() -> Vec<Test> {
    let network =
        |test: Test| test.needs(Need::Husk).needs(Need::Busybox).needs(Need::Program("ip")).needs(Need::Program("nft"));
    let traced = |test: Test| network(test).root().needs(Need::Capability(caps::Capability::CAP_SYS_PTRACE));
    vec![
        traced(test!(a_run_killed_anywhere)),
        traced(test!(a_connect_killed_anywhere)),
        traced(test!(a_disconnect_killed_anywhere)),
        network(test!(nothing_is_left_of_a_storm)).root(),
        network(test!(a_user_s_storm))
            .users()
            .needs(Need::File("/dev/net/tun"))
            .needs(Need::Capability(caps::Capability::CAP_SYS_ADMIN)),
    ]
}

/// Points of each process, spread out, and as many at random.
const SAMPLE: usize = 2;
const NETWORKS: [&str; 2] = ["front", "back"];
/// What both the killed and the next want of the host.
const PORT: &str = "18080:80";

struct Subject<'a> {
    scene: &'a Scene,
    layout: Layout,
    /// What the kernel holds of husk's while nobody runs.
    rest: BTreeMap<String, usize>,
}

impl<'a> Subject<'a> {
    fn new(scene: &'a Scene) -> Self {
        let mut subject = Self { scene, layout: Image::busybox(scene).layout(scene, "layout"), rest: BTreeMap::new() };
        for network in NETWORKS {
            husk(scene, &["network", "create", "--ipv6", network]).success();
        }
        subject.next();
        wait_until("nothing is left of a run that nobody killed", || subject.is_without_leases());
        // Rules go after leases are known to be gone: until they hold still.
        wait_until("rules are at rest", || {
            let before = held();
            thread::sleep(Duration::from_millis(50));
            before == held() && !run("ip", "-o link").contains(" hv")
        });
        subject.rest = held();
        subject
    }

    fn started(&self, verb: &[&str], rest: &[&str]) -> Invocation<'a> {
        let mut command = self.scene.husk();
        let networks = ["--network", "front", "--network", "back", "-p", PORT];
        command.args(verb).args(networks).arg(self.layout.reference()).args(rest);
        command
    }

    fn run(&self) -> Invocation<'a> {
        self.started(&["run", "--rm", "--name", "web"], &["/bin/true"])
    }

    fn next(&self) {
        self.started(&["run", "--rm", "--name", "next"], &["/bin/true"]).run().success();
    }

    fn is_without_leases(&self) -> bool {
        NETWORKS.iter().all(|network| leases(self.scene, network) == Value::Object(serde_json::Map::new()))
    }

    /// Who has just ended gives back by itself: for a second, starts leave it to that. Any start clears after that.
    fn is_cleared(&self) -> bool {
        if !self.is_without_leases() {
            let mut command = self.scene.husk();
            command.args(["run", "--rm", "--network", "none"]).arg(self.layout.reference()).arg("/bin/true");
            command.run().success();
            self.scene.note(format!("{} {}", leases(self.scene, "front"), leases(self.scene, "back")));
        }
        self.is_without_leases()
    }

    fn sweep(&self, prepare: &dyn Fn(), verb: &dyn Fn() -> Invocation<'a>) {
        let remove = || husk(self.scene, &["rm", "-f", "web"]).success();
        prepare();
        let whole = trace(&mut verb(), None);
        assert!(whole.is_success(), "unharmed, the command fails: {}", whole.stderr);
        remove();
        let (points, seed) = choose(&whole.calls, SAMPLE);
        let mut reached = 0;
        for point in &points {
            prepare();
            let trace = trace(&mut verb(), Some(*point));
            reached += usize::from(trace.killed_at.is_some());
            remove();
            self.next();
            let place = format!("{point:?}, system call {:?}, seed {seed}\n{}", trace.killed_at, trace.stderr);
            wait_until(&format!("no lease is left after {place}"), || self.is_cleared());
            let what = format!("no rule and no link is left after {place}");
            wait_until(&what, || held() == self.rest && !run("ip", "-o link").contains(" hv"));
        }
        // Which process is born when is a matter of chance, where several are.
        assert!(reached * 10 >= points.len() * 7, "{reached} of {} points were reached, seed {seed}", points.len());
    }
}

/// What all tables say of containers: their ports on the bridge, their Ethernet addresses, and what they publish. Each word so
/// many times, since sets are listed in no order. What is said of name servers is not theirs: of one that was killed the kernel frees
/// the lock first and the sockets after it, so the next may find port 53 taken and have another, where the rules lead questions for as
/// long as it lives. Nor is what is said of the host: it forwards, from whichever of its interfaces were there.
fn held() -> BTreeMap<String, usize> {
    let mut words = BTreeMap::new();
    let is_of_a_container = |word: &&str| ["hv", "02:42:", "18080", "181"].iter().any(|mark| word.contains(mark));
    for word in run("nft", "--stateless list ruleset").split_whitespace().filter(is_of_a_container) {
        *words.entry(word.trim_matches(',').to_owned()).or_default() += 1;
    }
    words
}

fn a_run_killed_anywhere(scene: &Scene) {
    let _stage = Stage::new();
    let subject = Subject::new(scene);
    subject.sweep(&|| {}, &|| subject.run());
}

fn a_connect_killed_anywhere(scene: &Scene) {
    let _stage = Stage::new();
    let subject = Subject::new(scene);
    let prepare = || {
        let mut command = scene.husk();
        command.args(["run", "-d", "--name", "web", "--network", "front", "-p", PORT]).arg(subject.layout.reference());
        command.args(["/bin/busybox", "sleep", "1000"]).run().success();
    };
    subject.sweep(&prepare, &|| {
        let mut command = scene.husk();
        command.args(["network", "connect", "--alias", "www", "back", "web"]);
        command
    });
}

fn a_disconnect_killed_anywhere(scene: &Scene) {
    let _stage = Stage::new();
    let subject = Subject::new(scene);
    let prepare =
        || _ = subject.started(&["run", "-d", "--name", "web"], &["/bin/busybox", "sleep", "1000"]).run().success();
    subject.sweep(&prepare, &|| {
        let mut command = scene.husk();
        command.args(["network", "disconnect", "front", "web"]);
        command
    });
}

const COMMANDS: usize = 80;
const CONTAINERS: usize = 8;
/// How many commands are under way at once.
const AT_ONCE: usize = 4;

fn nothing_is_left_of_a_storm(scene: &Scene) {
    let _stage = Stage::new();
    storm(scene);
}

fn a_user_s_storm(scene: &Scene) {
    let _tun = Tun::new(scene);
    storm(scene);
}

fn storm(scene: &Scene) {
    let subject = if scene.who == Who::Root {
        Subject::new(scene)
    } else {
        let layout = Image::busybox(scene).layout(scene, "layout");
        for network in NETWORKS {
            husk(scene, &["network", "create", network]).success();
        }
        Subject { scene, layout, rest: BTreeMap::new() }
    };
    let seed = seed() | 1;
    scene.note(format!("HUSK_SWEEP_SEED={seed}"));
    let mut dice = Dice(seed);
    let mut under_way = Vec::new();
    for _ in 0..COMMANDS {
        let number = dice.roll(CONTAINERS);
        let (name, port) = (format!("storm{number}"), format!("{}:80", 18100 + number));
        let network = NETWORKS[dice.roll(2)];
        let mut command = scene.husk();
        match dice.roll(10) {
            0..=3 => {
                let words = ["run", "-d", "--name", &name, "--network", network, "-p", &port];
                command.args(words).arg(subject.layout.reference()).args(["/bin/busybox", "sleep", "1000"])
            }
            4 => command.args(["stop", "-t", "0", &name]),
            5 => command.args(["restart", "-t", "0", &name]),
            6 => command.args(["network", "connect", network, &name]),
            7 => command.args(["network", "disconnect", network, &name]),
            8 => command.args(["network", "reload"]),
            _ => command.args(["rm", "-f", &name]),
        };
        let child = command.spawn(Stdio::null(), Stdio::null(), Stdio::null());
        if dice.roll(3) == 0 {
            thread::sleep(Duration::from_micros(u64::try_from(dice.roll(60_000)).expect("it fits")));
            // A zombie takes it as well.
            let _ = kill_process(Pid::from_child(&child), Signal::KILL);
        }
        under_way.push(child);
        if dice.roll(8) == 0 {
            kill_one_that_stays(scene, &mut dice);
        }
        if dice.roll(4) == 0 {
            assert_nobody_shares_an_address(scene);
        }
        while under_way.len() >= AT_ONCE {
            let status = under_way.remove(0).wait().expect("wait for a command");
            assert_ne!(status.code(), Some(101), "a command panicked");
        }
    }
    for mut child in under_way {
        let status = child.wait().expect("wait for a command");
        assert_ne!(status.code(), Some(101), "a command panicked");
    }
    for number in 0..CONTAINERS {
        husk(scene, &["rm", "-f", &format!("storm{number}")]).success();
    }
    subject.next();
    wait_until("no lease is left", || subject.is_cleared());
    if scene.who == Who::Root {
        let is_at_rest = || held() == subject.rest && !run("ip", "-o link").contains(" hv");
        wait_until("no rule and no link is left", is_at_rest);
    }
    husk(scene, &["system", "check"]).success();
}

fn assert_nobody_shares_an_address(scene: &Scene) {
    for network in NETWORKS {
        let leases = leases(scene, network);
        let leased = leases.as_object().into_iter().flatten();
        let mut addresses: Vec<&Value> =
            leased.flat_map(|(_, lease)| lease["addresses"].as_array().into_iter().flatten()).collect();
        let all = addresses.len();
        addresses.sort_by_key(ToString::to_string);
        addresses.dedup();
        assert_eq!(addresses.len(), all, "{leases}");
    }
}

/// A monitor, a name server, or a user's way out.
fn kill_one_that_stays(scene: &Scene, dice: &mut Dice) {
    let mark = scene.path().as_os_str().as_encoded_bytes().to_vec();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("list processes").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|pid| pid.parse::<i32>().ok()) else { continue };
        let title = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        let is_ours = |file: &str| {
            let bytes = std::fs::read(entry.path().join(file)).unwrap_or_default();
            bytes.windows(mark.len()).any(|window| window == mark)
        };
        if title.starts_with("husk:[") && (is_ours("environ") || is_ours("cmdline")) {
            found.extend(Pid::from_raw(pid));
        }
    }
    if !found.is_empty() {
        let _ = kill_process(found[dice.roll(found.len())], Signal::KILL);
    }
}
