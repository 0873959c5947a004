//! containerd through its shim (containerd-shim-runc-v2), told by `--runc-binary` to call husk.

use super::podman::SERVICE;
use super::site::Site;
use super::{IMAGE, ON_TERMINAL, image};
use crate::support::scene::mark;
use crate::support::tty::Terminal;
use crate::support::{Invocation, Need, Outcome, Scene, Test, test};

pub(super) fn tests() -> Vec<Test> {
    let tests = vec![
        test!(run),
        test!(detached),
        test!(exec),
        test!(terminals),
        test!(paused),
        test!(metrics),
        test!(checkpoint_fails_and_the_task_goes_on),
        test!(twenty_at_once),
        test!(runtime_names),
    ];
    let needs = |test: Test| {
        let test = test.root().needs(Need::Program("containerd")).needs(Need::Program("ctr"));
        test.needs(Need::Program("containerd-shim-runc-v2")).needs(Need::Busybox)
    };
    tests.into_iter().map(needs).collect()
}

/// A containerd with one image.
struct Containerd<'a> {
    site: Site<'a>,
    runtime: &'static str,
}

impl<'a> Containerd<'a> {
    fn start(scene: &'a Scene) -> Self {
        let site = Site::open(scene);
        let at = |name: &str| site.path(name).display().to_string();
        let configuration = format!(
            "version = 2\nroot = \"{}\"\nstate = \"{}\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = \"{}\"\n[plugins.\"io.containerd.internal.v1.opt\"]\npath = \"{}\"\n",
            at("root"),
            at("state"),
            at("containerd.sock"),
            at("opt"),
        );
        let configuration = site.file("containerd.toml", &configuration);
        site.daemon("containerd", site.command("containerd").arg("--config").arg(configuration));
        let containerd = Self { site, runtime: "husk" };
        Site::wait_until("containerd answers", || containerd.ctr("version", &[]).status.success());
        containerd.ctr(&format!("images import {}", image(scene).display()), &[]).success();
        containerd
    }

    fn command(&self, words: &str, command: &[&str]) -> Invocation<'a> {
        let mut ctr = self.site.command("ctr");
        // The namespace is the cgroup above those of the containers.
        ctr.arg("--address").arg(self.site.path("containerd.sock")).arg("--namespace").arg(mark());
        ctr.args(words.split_whitespace()).args(command);
        ctr
    }

    fn ctr(&self, words: &str, command: &[&str]) -> Outcome {
        self.command(words, command).run()
    }

    /// `ctr run`, to be followed by the command.
    fn run_words(&self, flags: &str, id: &str) -> String {
        format!("run --runc-binary {} {flags} {IMAGE} {id}", self.site.runtime(self.runtime).display())
    }

    fn container(&self, flags: &str, id: &str, script: &str) -> Outcome {
        self.ctr(&self.run_words(flags, id), &["sh", "-c", script])
    }

    fn exec(&self, id: &str, script: &str) -> Outcome {
        self.ctr(&format!("tasks exec --exec-id by-test {id}"), &["sh", "-c", script])
    }

    /// The state in the list of tasks.
    fn status(&self, id: &str) -> String {
        let list = self.ctr("tasks list", &[]).success().stdout;
        let line = list.lines().find(|line| line.split_whitespace().next() == Some(id)).unwrap_or_default();
        line.split_whitespace().last().unwrap_or_default().to_owned()
    }

    /// Ends a task, and removes it and its container.
    fn remove(&self, id: &str) {
        self.ctr(&format!("tasks kill --signal KILL {id}"), &[]).success();
        Site::wait_until("the task has stopped", || self.status(id) == "STOPPED");
        self.ctr(&format!("tasks delete {id}"), &[]);
        self.ctr(&format!("containers delete {id}"), &[]).success();
        assert_eq!(self.status(id), "");
    }
}

fn run(scene: &Scene) {
    let containerd = Containerd::start(scene);
    let outcome =
        containerd.container("--rm --env WORD=seen", "one", "echo $((6 * 7)) $WORD; echo $((1 + 1)) >&2; exit 3");
    let outcome = outcome.exits_with(3);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.starts_with("2\n")), ("42 seen\n", true));
    let mut command = containerd.command(&containerd.run_words("--rm", "two"), &["sh", "-c", "head -n 1 | tr a-z A-Z"]);
    assert_eq!(command.input("piped\n").run().success().stdout, "PIPED\n");
    let outcome = containerd.ctr(&containerd.run_words("--rm", "three"), &["/nonexistent"]);
    outcome.exits_with(1).says("OCI runtime create failed").says("no such file or directory");
    assert_eq!(containerd.ctr("containers list --quiet", &[]).success().stdout, "");
}

fn detached(scene: &Scene) {
    let containerd = Containerd::start(scene);
    containerd.container("--detach", "one", SERVICE).success();
    assert_eq!(containerd.status("one"), "RUNNING");
    let list = containerd.ctr("tasks ps one", &[]).success().stdout;
    assert!(list.lines().count() >= 2, "a header and the shell at least:\n{list}");
    containerd.ctr("tasks kill --signal TERM one", &[]).success();
    Site::wait_until("the task has stopped", || containerd.status("one") == "STOPPED");
    containerd.ctr("tasks delete one", &[]).success().says("exit code 9");
    containerd.ctr("containers delete one", &[]).success();
}

fn exec(scene: &Scene) {
    let containerd = Containerd::start(scene);
    containerd.container("--detach --env WORD=seen", "one", SERVICE).success();
    let outcome = containerd.exec("one", "echo $((7 * 8)) $WORD; test $$ != 1; exit 5").exits_with(5);
    assert_eq!(outcome.stdout, "56 seen\n");
    let outcome =
        containerd.ctr("tasks exec --exec-id second --user 1000:1000 --cwd /tmp one", &["sh", "-c", "id -u; pwd"]);
    assert_eq!(outcome.success().stdout, "1000\n/tmp\n");
    containerd.exec("one", "kill -9 $$").exits_with(137);
    containerd.ctr("tasks exec --exec-id third one", &["/nonexistent"]).exits_with(1).says("no such file or directory");
    // It is for the shim to find out that the process is gone, by the text of the runtime's error.
    containerd.remove("one");
}

fn terminals(scene: &Scene) {
    let containerd = Containerd::start(scene);
    let terminal = Terminal::open(31, 97);
    let words = containerd.run_words("--rm --tty", "one");
    let mut running = terminal.start(&mut containerd.command(&words, &["sh", "-c", ON_TERMINAL]));
    running.line_with("31 97");
    terminal.send("typed\n");
    running.line_with("typed9");
    running.finish().exits_with(4);
    containerd.container("--detach", "two", SERVICE).success();
    let words = "tasks exec --tty --exec-id terminal two";
    let terminal = Terminal::open(29, 83);
    let mut running = terminal.start(&mut containerd.command(words, &["sh", "-c", ON_TERMINAL]));
    running.line_with("29 83");
    terminal.send("again\n");
    running.line_with("again9");
    running.finish().exits_with(4);
    containerd.remove("two");
}

fn paused(scene: &Scene) {
    let containerd = Containerd::start(scene);
    containerd.container("--detach", "one", SERVICE).success();
    containerd.ctr("tasks pause one", &[]).success();
    assert_eq!(containerd.status("one"), "PAUSED");
    containerd.ctr("tasks resume one", &[]).success();
    assert_eq!(containerd.status("one"), "RUNNING");
    assert_eq!(containerd.exec("one", "echo $((4 * 5))").success().stdout, "20\n");
    containerd.remove("one");
}

fn metrics(scene: &Scene) {
    let containerd = Containerd::start(scene);
    containerd.container("--detach --memory-limit 67108864", "one", SERVICE).success();
    let metrics = containerd.ctr("tasks metrics one", &[]).success().stdout;
    let number = |name: &str| {
        let line = metrics.lines().find(|line| line.split_whitespace().next() == Some(name));
        let value = line.and_then(|line| line.split_whitespace().nth(1)).and_then(|value| value.parse::<u64>().ok());
        value.unwrap_or_else(|| panic!("no {name} in\n{metrics}"))
    };
    let (limit, usage) = if crate::support::leak::cgroup_v1("memory").is_some() {
        ("memory.limit_in_bytes", "memory.usage_in_bytes")
    } else {
        ("memory.usage_limit", "memory.usage")
    };
    assert_eq!(number(limit), 67_108_864);
    assert!(number(usage) > 0 && number("pids.current") >= 1, "{metrics}");
    containerd.remove("one");
}

/// Without CRIU, which is not among what these tests install, this is an error that changes nothing.
fn checkpoint_fails_and_the_task_goes_on(scene: &Scene) {
    let containerd = Containerd::start(scene);
    containerd.container("--detach", "one", SERVICE).success();
    let images = containerd.site.path("checkpoint");
    let outcome = containerd.ctr(&format!("tasks checkpoint --image-path {} one", images.display()), &[]);
    assert!(!outcome.status.success(), "there is nothing to make a checkpoint with");
    assert_eq!(containerd.status("one"), "RUNNING");
    assert_eq!(containerd.exec("one", "echo $((4 * 5))").success().stdout, "20\n");
    containerd.remove("one");
}

fn twenty_at_once(scene: &Scene) {
    let containerd = Containerd::start(scene);
    let start = |number: u32| {
        let words = containerd.run_words("--rm", &format!("number-{number}"));
        let script = format!("echo $(({number} * {number})); exit {number}");
        containerd.command(&words, &["sh", "-c", &script]).start()
    };
    let running: Vec<_> = (1..=20).map(|number| (number, start(number))).collect();
    for (number, running) in running {
        let outcome = running.finish().exits_with(number.cast_signed());
        assert_eq!(outcome.stdout, format!("{}\n", number * number));
    }
    assert_eq!(containerd.ctr("containers list --quiet", &[]).success().stdout, "");
}

fn runtime_names(scene: &Scene) {
    let mut containerd = Containerd::start(scene);
    for name in ["runc", "crun"] {
        containerd.runtime = name;
        let outcome = containerd.container("--rm", name, "echo $((6 * 7)); exit 3").exits_with(3);
        assert_eq!(outcome.stdout, "42\n", "{name}");
    }
}
