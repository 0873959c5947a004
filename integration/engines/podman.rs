//! Podman as root, with husk behind `--runtime`, under each of the names that Podman judges runtimes by.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::neighbours;
use super::site::Site;
use super::{IMAGE, ON_TERMINAL, image};
use crate::support::needs::find_program;
use crate::support::suite::{Flavour, kit};
use crate::support::tty::Terminal;
use crate::support::{Invocation, Need, Outcome, Scene, Test, Who, test};

pub(super) fn tests() -> Vec<Test> {
    let tests = vec![
        test!(run),
        test!(missing_commands),
        test!(detached),
        test!(exec),
        test!(terminals),
        test!(paused_and_updated),
        test!(limits),
        test!(health),
        test!(initial_process),
        test!(pods),
        test!(statistics),
        test!(network).needs(Need::File("/usr/lib/podman/netavark")),
        test!(networks_of_both)
            .needs(Need::File("/usr/lib/podman/netavark"))
            .needs(Need::Husk)
            .needs(Need::Program("nft"))
            .needs(Need::Program("ip")),
        test!(names),
        test!(twelve_at_once),
    ];
    tests.into_iter().map(|test| test.root().needs(Need::Program("podman")).needs(Need::Busybox)).collect()
}

/// Podman in a site, with one image.
pub(super) struct Podman<'a> {
    site: Site<'a>,
    /// The path of the runtime, or the name that the configuration gives it.
    runtime: PathBuf,
}

impl<'a> Podman<'a> {
    pub(super) fn start(scene: &'a Scene) -> Self {
        let podman = Self::without_image(scene);
        let archive = image(scene);
        podman.run(&format!("load --quiet --input {}", archive.display()), &[]).success();
        podman
    }

    fn without_image(scene: &'a Scene) -> Self {
        let site = Site::open(scene);
        let engine = format!(
            "runtime_supports_json = [\"husk\", \"runc\", \"crun\"]\nruntime_supports_nocgroup = [\"husk\", \"crun\"]\n\
             [engine.runtimes]\nhusk = [\"{}\"]\n",
            site.runtime("husk").display()
        );
        configure(&site, "", &engine);
        let runtime = site.runtime("husk");
        Self { site, runtime }
    }

    /// Podman as its own master: with runc, and without a network.
    pub(super) fn by_itself(scene: &'a Scene, image: &Path) -> Self {
        Self::own(scene, image, "netns = \"none\"\n")
    }

    /// Podman as its own master, with its bridge.
    pub(super) fn with_networks(scene: &'a Scene, image: &Path) -> Self {
        Self::own(scene, image, "")
    }

    fn own(scene: &'a Scene, image: &Path, containers: &str) -> Self {
        let site = Site::open(scene);
        configure(&site, containers, "");
        let podman = Self { site, runtime: find_program("runc").expect("declared as a need") };
        podman.run("load --quiet --input", &[&image.display().to_string()]).success();
        podman
    }

    pub(super) fn site(&self) -> &Site<'a> {
        &self.site
    }

    /// A shell's words for [`Podman::command`], to be run by [`Podman::program`].
    pub(super) fn words(&self) -> String {
        let (graph, run) = (self.site.path("graph"), self.site.path("run"));
        format!("podman --root {} --runroot {} --runtime {}", graph.display(), run.display(), self.runtime.display())
    }

    /// A program where this podman is.
    pub(super) fn program(&self, name: &str) -> Invocation<'a> {
        configured(&self.site, name)
    }

    /// Podman with words for it, and words of a container's command, which may hold blanks.
    pub(super) fn command(&self, words: &str, command: &[&str]) -> Invocation<'a> {
        let mut podman = configured(&self.site, "podman");
        // By flags: an ordinary user's Podman takes the second from its own defaults else, and its clean-up from the file.
        podman.arg("--root").arg(self.site.path("graph")).arg("--runroot").arg(self.site.path("run"));
        podman.arg("--runtime").arg(&self.runtime).args(words.split_whitespace()).args(command);
        podman
    }

    pub(super) fn run(&self, words: &str, command: &[&str]) -> Outcome {
        self.command(words, command).run()
    }

    /// `podman run` with a shell's script, in the cgroup and without a network.
    pub(super) fn container(&self, flags: &str, script: &str) -> Outcome {
        self.run(&self.run_words(flags), &["sh", "-c", script])
    }

    pub(super) fn run_words(&self, flags: &str) -> String {
        let network = if flags.contains("--network") { "" } else { "--network none" };
        // An ordinary user has none to give.
        let parent = if self.site.scene.who == Who::Root {
            format!("--cgroup-parent {}", Site::cgroup())
        } else {
            String::new()
        };
        format!("run {network} {parent} {flags} {IMAGE}")
    }

    /// One value of a container, through a template.
    pub(super) fn inspect(&self, name: &str, template: &str) -> String {
        self.run("inspect --format", &[template, name]).success().stdout.trim().to_owned()
    }
}

impl Drop for Podman<'_> {
    /// Ends the process by which Podman keeps an ordinary user's namespaces, and removes what belongs to the user's
    /// subordinate ids.
    fn drop(&mut self) {
        if self.site.scene.who != Who::Root {
            self.run("unshare rm -rf", &[&self.site.path("graph").display().to_string()]);
            self.run("system migrate", &[]);
        }
    }
}

/// Writes the configuration of the containers project's programs, with more lines for two of its tables.
fn configure(site: &Site<'_>, containers: &str, engine: &str) {
    let at = |name: &str| site.path(name).display().to_string();
    // The directory of states must be the one that Podman finds from `--root`: its own clean-up command is told no
    // other. Limits that a root without CAP_SYS_RESOURCE can set.
    let text = format!(
        "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\n{containers}\
         [network]\nnetwork_backend = \"netavark\"\nnetwork_config_dir = \"{}\"\n\
         [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nlock_type = \"file\"\n\
         tmp_dir = \"{}\"\nstatic_dir = \"{}\"\nvolume_path = \"{}\"\n{engine}",
        at("net"),
        at("tmp"),
        at("graph/libpod"),
        at("graph/volumes"),
    );
    site.file("containers.conf", &text);
    let storage =
        format!("[storage]\ndriver = \"overlay\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n", at("graph"), at("run"));
    site.file("storage.conf", &storage);
    site.file("registries.conf", "unqualified-search-registries = []\n");
    site.expect_cgroup("conmon");
}

/// A program of the containers project with the site's configuration.
pub(super) fn configured<'a>(site: &Site<'a>, program: &str) -> Invocation<'a> {
    let mut command = site.command(program);
    command.env("CONTAINERS_CONF", site.path("containers.conf"));
    command.env("CONTAINERS_STORAGE_CONF", site.path("storage.conf"));
    command.env("CONTAINERS_REGISTRIES_CONF", site.path("registries.conf"));
    command
}

/// A shell that says it is there, and ends with 9 when it is asked to.
pub(super) const SERVICE: &str = "trap 'echo asked; exit 9' TERM; echo up $((6 * 7)); while :; do sleep 0.05; done";

fn run(scene: &Scene) {
    let podman = Podman::start(scene);
    let outcome =
        podman.container("--rm --hostname there --env WORD=seen", "echo $((6 * 7)) $(hostname) $WORD; exit 3");
    assert_eq!(outcome.exits_with(3).stdout, "42 there seen\n");
    let mut command = podman.command(&podman.run_words("--rm -i"), &["sh", "-c", "tr a-z A-Z; echo $? >&2"]);
    let outcome = command.input("piped").run().success();
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("PIPED", "0\n"));
    let outcome = podman.container("--rm --user 1000:1000 --workdir /tmp --read-only", "id -u; pwd; echo > /file");
    assert_eq!(outcome.exits_with(1).says("Read-only").stdout, "1000\n/tmp\n");
    let shared = scene.tree("shared", &[("file", "of the host")]);
    let volume = format!("--rm --volume {}:/shared:ro --tmpfs /scratch", shared.display());
    let outcome =
        podman.container(&volume, "cat /shared/file; echo 1 > /scratch/f && stat -f -c %T /scratch; touch /shared/x");
    assert_eq!(outcome.exits_with(1).stdout, "of the hosttmpfs\n");
}

/// The statuses that scripts know: Podman tells them from the runtime's words.
fn missing_commands(scene: &Scene) {
    let mut podman = Podman::start(scene);
    for name in ["husk", "runc", "crun"] {
        podman.runtime = podman.site.runtime(name);
        let run = |command: &[&str]| podman.run(&podman.run_words("--rm"), command);
        run(&["/nonexistent"]).exits_with(127);
        run(&["nonexistent"]).exits_with(127);
        run(&["/etc/passwd"]).exits_with(126);
        run(&["/etc"]).exits_with(126);
    }
}

fn detached(scene: &Scene) {
    let podman = Podman::start(scene);
    podman.container("--detach --name service", SERVICE).success();
    wait_for_line(&podman, "service", "up 42");
    assert_eq!(podman.inspect("service", "{{.State.Status}}"), "running");
    podman.run("stop --time 10 service", &[]).success();
    assert_eq!(podman.inspect("service", "{{.State.Status}}{{.State.ExitCode}}"), "exited9");
    assert!(podman.run("logs service", &[]).success().stdout.ends_with("asked\n"));
    podman.run("start service", &[]).success();
    podman.run("kill service", &[]).success();
    assert_eq!(podman.run("wait service", &[]).success().stdout, "137\n");
    podman.run("restart --time 10 service", &[]).success();
    podman.run("kill --signal TERM service", &[]).success();
    assert_eq!(podman.run("wait service", &[]).success().stdout, "9\n");
    podman.run("rm service", &[]).success();
    podman.run("create --network none --name made", &[IMAGE, "true"]).success();
    podman.run("init made", &[]).success();
    assert_eq!(podman.inspect("made", "{{.State.Status}}"), "initialized");
    podman.run("rm --force made", &[]).success();
    assert_eq!(podman.run("ps --all --quiet", &[]).success().stdout, "");
}

fn exec(scene: &Scene) {
    let podman = Podman::start(scene);
    podman.container("--detach --name host --hostname inner --env WORD=seen", SERVICE).success();
    let exec = |flags: &str, script: &str| podman.run(&format!("exec {flags} host"), &["sh", "-c", script]);
    let outcome = exec("", "echo $((7 * 8)) $(hostname) $WORD; echo $((1 + 1)) >&2; exit 5").exits_with(5);
    assert_eq!(outcome.stdout, "56 inner seen\n");
    assert!(outcome.stderr.starts_with("2\n"), "{}", outcome.stderr);
    let outcome = exec("--user 1000:1000 --workdir /tmp --env OTHER=$", "id -u; id -g; pwd; echo $OTHER").success();
    assert_eq!(outcome.stdout, "1000\n1000\n/tmp\n$\n");
    let mut command = podman.command("exec -i host", &["tr", "a-z", "A-Z"]);
    assert_eq!(command.input("piped").run().success().stdout, "PIPED");
    podman.run("exec host", &["/nonexistent"]).exits_with(127);
    podman.run("exec host", &["/etc/passwd"]).exits_with(126);
    exec("--detach", "echo $((20 + 2)) > /tmp/by-exec").success();
    Site::wait_until("the detached command has written", || exec("", "cat /tmp/by-exec").stdout == "22\n");
    exec("", "kill -9 $$").exits_with(137);
    podman.run("rm --force --time 0 host", &[]).success();
}

fn terminals(scene: &Scene) {
    let podman = Podman::start(scene);
    let terminal = Terminal::open(31, 97);
    let mut running = terminal.start(&mut podman.command(&podman.run_words("--rm -it"), &["sh", "-c", ON_TERMINAL]));
    running.line_with("31 97");
    terminal.send("typed\n");
    running.line_with("typed9");
    running.finish().exits_with(4);
    podman.container("--detach --name host", SERVICE).success();
    let terminal = Terminal::open(29, 83);
    let mut running = terminal.start(&mut podman.command("exec -it host", &["sh", "-c", ON_TERMINAL]));
    running.line_with("29 83");
    terminal.send("again\n");
    running.line_with("again9");
    running.finish().exits_with(4);
    podman.run("rm --force --time 0 host", &[]).success();
}

fn paused_and_updated(scene: &Scene) {
    let podman = Podman::start(scene);
    podman.container("--detach --name service --memory 64m", SERVICE).success();
    podman.run("pause service", &[]).success();
    assert_eq!(podman.inspect("service", "{{.State.Status}}"), "paused");
    podman.run("unpause service", &[]).success();
    assert_eq!(podman.inspect("service", "{{.State.Status}}"), "running");
    let limit = || podman.run("exec service", &["sh", "-c", MEMORY_LIMIT]).success().stdout;
    assert_eq!(limit(), "67108864\n");
    podman.run("update --memory 48m service", &[]).success();
    assert_eq!(limit(), "50331648\n");
    podman.run("pause service", &[]).success();
    podman.run("rm --force --time 0 service", &[]).success();
}

/// A container's limits as it sees them, on either version.
pub(super) const MEMORY_LIMIT: &str =
    "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max";
pub(super) const PIDS_LIMIT: &str = "cat /sys/fs/cgroup/pids/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids.max";

fn limits(scene: &Scene) {
    let podman = Podman::start(scene);
    let outcome = podman.container("--rm --memory 32m --pids-limit 50", &format!("{MEMORY_LIMIT}; {PIDS_LIMIT}"));
    assert_eq!(outcome.success().stdout, "33554432\n50\n");
    let capabilities = "grep -i ^CapEff /proc/self/status | tr -d '\\t'";
    let outcome = podman.container("--rm --cap-drop all --cap-add net_admin", capabilities).success();
    assert_eq!(outcome.stdout, "CapEff:0000000000001000\n");
    let outcome = podman.container(
        "--rm --ulimit nofile=99:99 --ulimit nproc=99:99 --sysctl net.ipv4.ip_unprivileged_port_start=77",
        "ulimit -n; cat /proc/sys/net/ipv4/ip_unprivileged_port_start",
    );
    assert_eq!(outcome.success().stdout, "99\n77\n");
}

/// A child that runs out of memory. Its parent goes on, so that monitors hear of it before they hear of the end.
pub(super) const HUNGRY: &str =
    "sh -c 'x=$(head -c 67108864 /dev/zero | tr \"\\0\" x); echo ${#x}' 2>/dev/null; echo killed by $(($? - 128))";

fn health(scene: &Scene) {
    let podman = Podman::start(scene);
    // There is no systemd to run the checks by the clock.
    podman.container("--detach --name well --health-cmd echo$IFS$((5*5))", SERVICE).success();
    podman.run("healthcheck run well", &[]).success();
    let state: Value = serde_json::from_str(&podman.inspect("well", "{{json .State.Healthcheck}}")).expect("JSON");
    assert_eq!((&state["Status"], &state["Log"][0]["Output"]), (&"healthy".into(), &"25".into()), "{state}");
    podman.container("--detach --name ill --health-retries 1 --health-cmd exit$IFS$((3+4))", SERVICE).success();
    podman.run("healthcheck run ill", &[]).exits_with(1);
    assert_eq!(podman.inspect("ill", "{{.State.Healthcheck.Status}}"), "unhealthy");
    podman.run("rm --force --time 0 well ill", &[]).success();
}

fn initial_process(scene: &Scene) {
    let podman = Podman::start(scene);
    let outcome = podman.container("--rm --init", "cat /proc/1/comm; echo $(($$ > 1)); exit 6").exits_with(6);
    assert_eq!(outcome.stdout, "podman-init\n1\n");
}

fn pods(scene: &Scene) {
    let podman = Podman::start(scene);
    pod(&podman, &format!("--cgroup-parent {}", Site::cgroup()));
}

/// Two containers that share what the containers of a pod share.
pub(super) fn pod(podman: &Podman<'_>, flags: &str) {
    let pod = format!("pod create --name pod --network none --hostname shared {flags} --infra-image {IMAGE}");
    let id = podman.run(&format!("{pod} --infra-command"), &["sleep 1000"]).success().stdout;
    podman.site.expect_cgroup(id.trim());
    let words = format!("run --detach --pod pod --name first {IMAGE}");
    let server = "echo $((4 * 4)) | nc -l -p 8080; sleep 1000";
    podman.run(&words, &["sh", "-c", server]).success();
    let words = format!("run --rm --pod pod {IMAGE}");
    let client = "hostname; until nc 127.0.0.1 8080 < /dev/null; do sleep 0.05; done";
    let outcome = podman.run(&words, &["sh", "-c", client]).success();
    assert_eq!(outcome.stdout, "shared\n16\n");
    podman.run("pod stop --time 0 pod", &[]).success();
    podman.run("pod rm --force --time 0 pod", &[]).success();
}

fn statistics(scene: &Scene) {
    let podman = Podman::start(scene);
    podman.container("--detach --name service --memory 64m", SERVICE).success();
    let stats = podman.run("stats --no-stream --format {{.PIDs}}/{{.MemUsageBytes}} service", &[]).success().stdout;
    assert!(stats.contains("64MiB") && !stats.starts_with("0/"), "{stats}");
    let top = podman.run("top service pid args", &[]).success().stdout;
    assert!(top.contains("sleep 0.05") || top.contains("echo up"), "{top}");
    podman.run("rm --force --time 0 service", &[]).success();
}

fn network(scene: &Scene) {
    let podman = Podman::start(scene);
    let server = "echo $((9 * 9)) | nc -l -p 8080; sleep 1000";
    podman.container("--detach --name server --network podman", server).success();
    let address = podman.inspect("server", "{{.NetworkSettings.IPAddress}}");
    let client = format!("until nc {address} 8080 < /dev/null; do sleep 0.05; done");
    assert_eq!(podman.container("--rm --network podman", &client).success().stdout, "81\n");
    podman.run("rm --force --time 0 server", &[]).success();
}

/// Podman expects JSON errors of `runc` and `crun`, and cgroups that can be left out of `crun` alone; its configuration
/// may say the same of other names.
fn networks_of_both(scene: &Scene) {
    let podman = Podman::with_networks(scene, &image(scene));
    neighbours::are_unharmed(scene, &podman.site, |words, command| {
        let words = words.replacen("run ", &format!("run --cgroup-parent {} ", Site::cgroup()), 1);
        podman.run(&words, command).success();
    });
}

fn names(scene: &Scene) {
    let mut podman = Podman::start(scene);
    for name in ["runc", "crun", "husk"] {
        podman.runtime = podman.site.runtime(name);
        assert_eq!(podman.container("--rm", "echo $((6 * 7)); exit 3").exits_with(3).stdout, "42\n", "{name}");
        podman.container("--detach --name service", SERVICE).success();
        let outcome = podman.run("exec service", &["sh", "-c", "echo $((7 * 8)); exit 5"]).exits_with(5);
        assert_eq!(outcome.stdout, "56\n", "{name}");
        podman.run("exec service", &["/nonexistent"]).exits_with(127);
        podman.run("pause service", &[]).success();
        podman.run("unpause service", &[]).success();
        podman.run("stop --time 10 service", &[]).success();
        assert_eq!(podman.inspect("service", "{{.State.ExitCode}}"), "9", "{name}");
        podman.run("rm service", &[]).success();
    }
    if kit().flavour == Flavour::Runc {
        return;
    }
    let without = format!("run --rm --network none --cgroups disabled {IMAGE}");
    for runtime in [podman.site.runtime("crun"), "husk".into()] {
        podman.runtime = runtime;
        assert_eq!(podman.run(&without, &["sh", "-c", "echo $((2 * 3))"]).success().stdout, "6\n");
    }
    // The runtime's own words, out of its JSON.
    podman.run(&podman.run_words("--rm"), &["/nonexistent"]).exits_with(127).says("/nonexistent");
}

fn twelve_at_once(scene: &Scene) {
    let podman = Podman::start(scene);
    let start = |number: u32| {
        let script = format!("echo $(({number} * {number})); exit {number}");
        podman.command(&podman.run_words("--rm"), &["sh", "-c", &script]).start()
    };
    let running: Vec<_> = (1..=12).map(|number| (number, start(number))).collect();
    for (number, running) in running {
        let outcome = running.finish().exits_with(number.cast_signed());
        assert_eq!(outcome.stdout, format!("{}\n", number * number));
    }
}

pub(super) fn wait_for_line(podman: &Podman<'_>, container: &str, line: &str) {
    let words = format!("logs {container}");
    Site::wait_until("the container has spoken", || podman.run(&words, &[]).stdout.lines().any(|said| said == line));
}
