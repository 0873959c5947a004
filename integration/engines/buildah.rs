//! Buildah with husk behind `--runtime`: a Dockerfile's RUN, and `buildah run`.

use super::podman::configured;
use super::site::Site;
use super::{IMAGE, ON_TERMINAL, image};
use crate::support::tty::Terminal;
use crate::support::{Invocation, Need, Outcome, Scene, Test, test};

pub(super) fn tests() -> Vec<Test> {
    let tests = vec![test!(builds_a_dockerfile), test!(runs_in_a_working_container)];
    tests.into_iter().map(|test| test.root().needs(Need::Program("buildah")).needs(Need::Busybox)).collect()
}

struct Buildah<'a> {
    site: Site<'a>,
}

impl<'a> Buildah<'a> {
    /// Buildah in a site, with one image.
    fn start(scene: &'a Scene) -> Self {
        let site = Site::open(scene);
        site.file("containers.conf", "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\n");
        let (graph, run) = (site.path("graph"), site.path("run"));
        let (graph, run) = (graph.display(), run.display());
        let storage = format!("[storage]\ndriver = \"overlay\"\ngraphroot = \"{graph}\"\nrunroot = \"{run}\"\n");
        site.file("storage.conf", &storage);
        site.file("registries.conf", "unqualified-search-registries = []\n");
        let buildah = Self { site };
        buildah.run(&format!("pull docker-archive:{}", image(scene).display()), &[]).success();
        buildah
    }

    fn command(&self, words: &str, command: &[&str]) -> Invocation<'a> {
        let mut buildah = configured(&self.site, "buildah");
        buildah.args(words.split_whitespace()).args(command);
        buildah
    }

    fn run(&self, words: &str, command: &[&str]) -> Outcome {
        self.command(words, command).run()
    }

    /// What makes buildah call the runtime, by one of its names.
    fn runtime(&self, name: &str) -> String {
        format!("--isolation oci --runtime {}", self.site.runtime(name).display())
    }
}

fn builds_a_dockerfile(scene: &Scene) {
    let buildah = Buildah::start(scene);
    for name in ["husk", "runc", "crun"] {
        let dockerfile = format!(
            "FROM {IMAGE}\nRUN echo $((11 * 11)) > /marker\nUSER 1000\nRUN id -u > /tmp/who\nENV NAME={name}\nRUN test $NAME = {name}\n"
        );
        let context = buildah.site.file("context/Dockerfile", &dockerfile);
        let context = context.parent().expect("the file lies in the context").display();
        let build = format!("bud --network none --cgroup-parent {} --tag built", Site::cgroup());
        buildah.run(&format!("{build} {} {context}", buildah.runtime(name)), &[]).success();
        let container = buildah.run("from built", &[]).success().stdout.trim().to_owned();
        let mounted = buildah.run(&format!("mount {container}"), &[]).success().stdout.trim().to_owned();
        let marker =
            buildah.site.command("cat").arg(format!("{mounted}/marker")).arg(format!("{mounted}/tmp/who")).run();
        assert_eq!(marker.success().stdout, "121\n1000\n", "{name}");
        buildah.run(&format!("rm {container}"), &[]).success();
        let failing = buildah.site.file("failing/Dockerfile", &format!("FROM {IMAGE}\nRUN exit $((3 + 4))\n"));
        let failing = failing.parent().expect("the file lies in the context").display();
        buildah.run(&format!("{build} {} {failing}", buildah.runtime(name)), &[]).exits_with(7);
    }
}

fn runs_in_a_working_container(scene: &Scene) {
    let buildah = Buildah::start(scene);
    let container = buildah.run(&format!("from {IMAGE}"), &[]).success().stdout.trim().to_owned();
    let words = |flags: &str| format!("run --network none {flags} {} {container} --", buildah.runtime("husk"));
    let outcome = buildah.run(&words("--hostname there"), &["sh", "-c", "echo $((6 * 7)) $(hostname); exit 3"]);
    assert_eq!(outcome.exits_with(3).stdout, "42 there\n");
    let mut command = buildah.command(&words(""), &["tr", "a-z", "A-Z"]);
    assert_eq!(command.input("piped").run().success().stdout, "PIPED");
    let terminal = Terminal::open(31, 97);
    let mut running = terminal.start(&mut buildah.command(&words("--terminal"), &["sh", "-c", ON_TERMINAL]));
    running.line_with("31 97");
    terminal.send("typed\n");
    running.line_with("typed9");
    running.finish().exits_with(4);
}
