//! dockerd with husk as `--add-runtime` and default runtime, and as the `runc` that its embedded BuildKit looks for.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::neighbours;
use super::podman::{HUNGRY, MEMORY_LIMIT, PIDS_LIMIT, SERVICE};
use super::site::Site;
use super::{IMAGE, ON_TERMINAL, image};
use crate::support::tty::Terminal;
use crate::support::{Invocation, Need, Outcome, Scene, Test, test};

pub(super) fn tests() -> Vec<Test> {
    let tests = vec![
        test!(run),
        test!(detached),
        test!(exec),
        test!(terminals),
        test!(paused_and_updated),
        test!(limits),
        test!(out_of_memory),
        test!(privileged).needs(Need::NotRunc).needs(Need::NotCrun),
        test!(health_and_init),
        test!(statistics),
        test!(network),
        test!(networks_of_both).needs(Need::Husk).needs(Need::Program("nft")).needs(Need::Program("ip")),
        test!(classic_build),
        test!(buildkit).needs(Need::File("/usr/bin/docker")),
        test!(eight_at_once),
        test!(images_go_there_and_back),
    ];
    let needs =
        |test: Test| test.root().needs(Need::Program("dockerd")).needs(Need::Program("docker")).needs(Need::Busybox);
    tests.into_iter().map(needs).collect()
}

/// A dockerd with one image.
pub(super) struct Docker<'a> {
    site: Site<'a>,
}

impl<'a> Docker<'a> {
    fn start(scene: &'a Scene) -> Self {
        Self::serve(scene, &image(scene), |site, command| {
            command.arg("--add-runtime").arg(format!("husk={}", site.runtime("husk").display()));
            command.args(["--default-runtime", "husk"]);
            // BuildKit takes the first `runc` of the PATH, whatever the default runtime is.
            let programs = site.path("bin");
            command.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", programs.display()));
        })
    }

    /// A dockerd that is its own master, without a network.
    pub(super) fn with_own_runtime(scene: &'a Scene, image: &Path) -> Self {
        Self::serve(scene, image, |_, command| {
            command.args(["--bridge", "none", "--iptables=false"]);
        })
    }

    /// A dockerd that is its own master, with its bridge.
    pub(super) fn with_networks(scene: &'a Scene, image: &Path) -> Self {
        Self::serve(scene, image, |_, _| {})
    }

    fn serve(scene: &'a Scene, image: &Path, prepare: impl FnOnce(&Site<'a>, &mut Invocation<'a>)) -> Self {
        let site = Site::open(scene);
        let configuration = site.file("daemon.json", "{}");
        let mut command = site.command("dockerd");
        command.arg("--config-file").arg(configuration);
        for (flag, file) in [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid")] {
            command.arg(flag).arg(site.path(file));
        }
        command.arg("--host").arg(format!("unix://{}", site.path("docker.sock").display()));
        command.args(["--storage-driver", "overlay2", "--exec-opt", "native.cgroupdriver=cgroupfs"]);
        command.arg("--cgroup-parent").arg(Site::cgroup());
        prepare(&site, &mut command);
        site.daemon("dockerd", &mut command);
        let docker = Self { site };
        Site::wait_until("dockerd answers", || docker.ping());
        docker.run(&format!("load --quiet --input {}", image.display()), &[]).success();
        docker
    }

    fn ping(&self) -> bool {
        let ask = || -> std::io::Result<String> {
            let mut stream = UnixStream::connect(self.site.outside("docker.sock"))?;
            stream.write_all(b"GET /_ping HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        ask().is_ok_and(|answer| answer.contains(" 200 OK"))
    }

    pub(super) fn client(&self, program: &str) -> Invocation<'a> {
        let mut docker = self.site.command(program);
        docker.env("DOCKER_HOST", format!("unix://{}", self.site.path("docker.sock").display()));
        docker
    }

    fn command(&self, words: &str, command: &[&str]) -> Invocation<'a> {
        let mut docker = self.client("docker");
        docker.args(words.split_whitespace()).args(command);
        docker
    }

    fn run(&self, words: &str, command: &[&str]) -> Outcome {
        self.command(words, command).run()
    }

    fn container(&self, flags: &str, script: &str) -> Outcome {
        self.run(&run_words(flags), &["sh", "-c", script])
    }

    fn inspect(&self, name: &str, template: &str) -> String {
        self.run("inspect --format", &[template, name]).success().stdout.trim().to_owned()
    }

    fn wait_for_line(&self, container: &str, line: &str) {
        let words = format!("logs {container}");
        Site::wait_until("the container has spoken", || self.run(&words, &[]).stdout.lines().any(|said| said == line));
    }
}

/// `docker run`, to be followed by the command.
fn run_words(flags: &str) -> String {
    let network = if flags.contains("--network") { "" } else { "--network none" };
    format!("run {network} {flags} {IMAGE}")
}

fn run(scene: &Scene) {
    let docker = Docker::start(scene);
    assert_eq!(docker.run("info --format {{.DefaultRuntime}}", &[]).success().stdout, "husk\n");
    let outcome =
        docker.container("--rm --hostname there --env WORD=seen", "echo $((6 * 7)) $(hostname) $WORD; exit 3");
    assert_eq!(outcome.exits_with(3).stdout, "42 there seen\n");
    assert_eq!(docker.container("--rm --runtime runc", "echo $((6 * 8))").success().stdout, "48\n");
    let mut command = docker.command(&run_words("--rm -i"), &["sh", "-c", "tr a-z A-Z; echo $? >&2"]);
    let outcome = command.input("piped").run().success();
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("PIPED", "0\n"));
    let outcome = docker.container("--rm --user 1000:1000 --workdir /tmp --read-only", "id -u; pwd; echo > /file");
    assert_eq!(outcome.exits_with(1).says("Read-only").stdout, "1000\n/tmp\n");
    let shared = scene.tree("shared", &[("file", "of the host")]);
    let volume = format!("--rm --volume {}:/shared:ro --tmpfs /scratch", shared.display());
    let outcome =
        docker.container(&volume, "cat /shared/file; echo 1 > /scratch/f && stat -f -c %T /scratch; touch /shared/x");
    assert_eq!(outcome.exits_with(1).stdout, "of the hosttmpfs\n");
    // dockerd tells these by the runtime's words.
    docker.run(&run_words("--rm"), &["nonexistent"]).exits_with(127);
    docker.run(&run_words("--rm"), &["/nonexistent"]).exits_with(127);
    docker.run(&run_words("--rm"), &["/etc/passwd"]).exits_with(126);
    docker.run(&run_words("--rm"), &["/etc"]).exits_with(126);
}

fn detached(scene: &Scene) {
    let docker = Docker::start(scene);
    docker.container("--detach --name service", SERVICE).success();
    docker.wait_for_line("service", "up 42");
    docker.run("stop --time 10 service", &[]).success();
    assert_eq!(docker.inspect("service", "{{.State.Status}}{{.State.ExitCode}}"), "exited9");
    assert!(docker.run("logs service", &[]).success().stdout.ends_with("asked\n"));
    docker.run("restart service", &[]).success();
    assert_eq!(docker.inspect("service", "{{.State.Status}}"), "running");
    docker.run("kill service", &[]).success();
    assert_eq!(docker.run("wait service", &[]).success().stdout, "137\n");
    docker.run("rm service", &[]).success();
    docker.container("--detach --name again --restart on-failure:2", "echo $((2 + 3)); exit 1").success();
    Site::wait_until("it has been restarted twice", || {
        docker.inspect("again", "{{.State.Status}}{{.RestartCount}}") == "exited2"
    });
    assert_eq!(docker.run("logs again", &[]).success().stdout, "5\n5\n5\n");
    docker.run("rm again", &[]).success();
}

fn exec(scene: &Scene) {
    let docker = Docker::start(scene);
    docker.container("--detach --name host --hostname inner --env WORD=seen", SERVICE).success();
    let exec = |flags: &str, script: &str| docker.run(&format!("exec {flags} host"), &["sh", "-c", script]);
    let outcome = exec("", "echo $((7 * 8)) $(hostname) $WORD; echo $((1 + 1)) >&2; exit 5").exits_with(5);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("56 inner seen\n", "2\n"));
    assert_eq!(exec("--user 1000:1000 --workdir /tmp", "id -u; id -g; pwd").success().stdout, "1000\n1000\n/tmp\n");
    let mut command = docker.command("exec -i host", &["tr", "a-z", "A-Z"]);
    assert_eq!(command.input("piped").run().success().stdout, "PIPED");
    // 126 from dockerd 20.10, 127 from later ones.
    let outcome = docker.run("exec host", &["/nonexistent"]);
    assert!(matches!(outcome.code(), 126 | 127), "{}", outcome.code());
    assert!(outcome.stdout.contains("no such file or directory"), "{}", outcome.stdout);
    docker.run("exec host", &["/etc/passwd"]).exits_with(126);
    exec("", "kill -9 $$").exits_with(137);
    exec("--detach", "echo $((20 + 2)) > /tmp/by-exec").success();
    Site::wait_until("the detached command has written", || exec("", "cat /tmp/by-exec").stdout == "22\n");
    docker.run("rm --force host", &[]).success();
}

fn terminals(scene: &Scene) {
    let docker = Docker::start(scene);
    let terminal = Terminal::open(31, 97);
    let mut running = terminal.start(&mut docker.command(&run_words("--rm -it"), &["sh", "-c", ON_TERMINAL]));
    running.line_with("31 97");
    terminal.send("typed\n");
    running.line_with("typed9");
    running.finish().exits_with(4);
    docker.container("--detach --name host", SERVICE).success();
    let terminal = Terminal::open(29, 83);
    let mut running = terminal.start(&mut docker.command("exec -it host", &["sh", "-c", ON_TERMINAL]));
    running.line_with("29 83");
    terminal.send("again\n");
    running.line_with("again9");
    running.finish().exits_with(4);
    docker.run("rm --force host", &[]).success();
}

fn paused_and_updated(scene: &Scene) {
    let docker = Docker::start(scene);
    docker.container("--detach --name service --memory 64m --memory-swap 128m", SERVICE).success();
    docker.run("pause service", &[]).success();
    assert_eq!(docker.inspect("service", "{{.State.Status}}"), "paused");
    docker.run("unpause service", &[]).success();
    assert_eq!(docker.inspect("service", "{{.State.Status}}"), "running");
    docker.run("update --memory 48m --pids-limit 77 service", &[]).success();
    let limits = format!("{MEMORY_LIMIT}; {PIDS_LIMIT}");
    assert_eq!(docker.run("exec service", &["sh", "-c", &limits]).success().stdout, "50331648\n77\n");
    docker.run("rm --force service", &[]).success();
}

fn limits(scene: &Scene) {
    let docker = Docker::start(scene);
    let outcome = docker.container("--rm --memory 32m --pids-limit 50", &format!("{MEMORY_LIMIT}; {PIDS_LIMIT}"));
    assert_eq!(outcome.success().stdout, "33554432\n50\n");
    let capabilities = "grep -i ^CapEff /proc/self/status | tr -d '\\t'";
    let outcome = docker.container("--rm --cap-drop all --cap-add net_admin", capabilities).success();
    assert_eq!(outcome.stdout, "CapEff:0000000000001000\n");
    let outcome = docker.container(
        "--rm --ulimit nofile=99:99 --device /dev/zero:/dev/nought",
        "ulimit -n; head -c 2 /dev/nought | tr '\\0' x",
    );
    assert_eq!(outcome.success().stdout, "99\nxx");
    let seccomp = "mount -t tmpfs none /tmp 2>/dev/null || grep ^Seccomp: /proc/self/status | tr -d '\\t'";
    assert_eq!(docker.container("--rm", seccomp).success().stdout, "Seccomp:2\n");
}

fn out_of_memory(scene: &Scene) {
    let docker = Docker::start(scene);
    let script = format!("{HUNGRY}; {SERVICE}");
    docker.container("--detach --name hungry --memory 16m --memory-swap 16m", &script).success();
    docker.wait_for_line("hungry", "killed by 9");
    docker.run("stop --time 10 hungry", &[]).success();
    assert_eq!(docker.inspect("hungry", "{{.State.OOMKilled}}"), "true");
    docker.run("rm hungry", &[]).success();
}

/// dockerd asks for every capability it knows. A root that lacks some is given what it has, where others fail.
fn privileged(scene: &Scene) {
    let docker = Docker::start(scene);
    let script = "grep ^CapEff /proc/self/status | tr -d '\\t'; mount -t tmpfs none /tmp && echo $((5 * 5))";
    let outcome = docker.container("--rm --privileged", script).success();
    let status = crate::support::husk::read_host("/proc/self/status");
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:\t")).expect("the kernel tells");
    let number = |digits: &str| u64::from_str_radix(digits, 16).expect("the kernel prints hexadecimal");
    let (effective, rest) = outcome.stdout.trim_start_matches("CapEff:").split_once('\n').expect("two lines");
    // dockerd 20.10 does not know those of Linux 5.8 and later.
    let known = u64::MAX >> number(effective).leading_zeros();
    assert!(known.count_ones() >= 38, "{effective}");
    assert_eq!((number(effective), rest), (number(bounding) & known, "25\n"));
}

fn health_and_init(scene: &Scene) {
    let docker = Docker::start(scene);
    let outcome = docker.container("--rm --init", "cat /proc/1/comm; echo $(($$ > 1)); exit 6").exits_with(6);
    assert_eq!(outcome.stdout, "docker-init\n1\n");
    let health = "--detach --name well --health-interval 100ms --health-cmd echo$IFS$((5*5))";
    docker.container(health, SERVICE).success();
    Site::wait_until("it is healthy", || docker.inspect("well", "{{.State.Health.Status}}") == "healthy");
    let log = docker.inspect("well", "{{json .State.Health.Log}}");
    assert!(log.contains(r#""ExitCode":0,"Output":"25"#), "{log}");
    docker.run("rm --force well", &[]).success();
}

fn statistics(scene: &Scene) {
    let docker = Docker::start(scene);
    docker.container("--detach --name service --memory 64m", SERVICE).success();
    let stats = docker.run("stats --no-stream --format {{.PIDs}}/{{.MemUsage}} service", &[]).success().stdout;
    assert!(stats.contains("64MiB") && !stats.starts_with("0/"), "{stats}");
    let top = docker.run("top service", &[]).success().stdout;
    assert!(top.lines().count() >= 2 && top.contains("sh -c"), "{top}");
    docker.run("rm --force service", &[]).success();
}

fn network(scene: &Scene) {
    let docker = Docker::start(scene);
    let server = "echo $((9 * 9)) | nc -l -p 8080; sleep 1000";
    docker.container("--detach --name server --network bridge", server).success();
    let address = docker.inspect("server", "{{.NetworkSettings.IPAddress}}");
    let client = format!("until nc {address} 8080 < /dev/null; do sleep 0.05; done");
    assert_eq!(docker.container("--rm --network bridge", &client).success().stdout, "81\n");
    docker.run("rm --force server", &[]).success();
}

fn networks_of_both(scene: &Scene) {
    let docker = Docker::with_networks(scene, &image(scene));
    neighbours::are_unharmed(scene, &docker.site, |words, command| {
        docker.run(words, command).success();
    });
}

/// Builds a Dockerfile with a client, and reads the marker out of what was built.
fn build(docker: &Docker<'_>, client: &str, buildkit: &str) {
    let dockerfile =
        format!("FROM {IMAGE}\nRUN echo $((11 * 11)) > /marker\nUSER 1000\nRUN test $(id -u) = $((999 + 1))\n");
    let context = docker.site.file("context/Dockerfile", &dockerfile);
    let context = context.parent().expect("the file lies in the context");
    let mut command = docker.client(client);
    command.env("DOCKER_BUILDKIT", buildkit).args(["build", "--network", "none", "--tag", "built"]).arg(context);
    command.run().success();
    assert_eq!(docker.run("run --rm --network none built cat /marker", &[]).success().stdout, "121\n");
    let failing = docker.site.file("failing/Dockerfile", &format!("FROM {IMAGE}\nRUN exit $((3 + 4))\n"));
    let failing = failing.parent().expect("the file lies in the context");
    let mut command = docker.client(client);
    let outcome = command.env("DOCKER_BUILDKIT", buildkit).args(["build", "--network", "none"]).arg(failing).run();
    assert!(!outcome.status.success() && outcome.stderr.contains('7'), "{}", outcome.stderr);
}

fn classic_build(scene: &Scene) {
    let docker = Docker::start(scene);
    build(&docker, "docker", "0");
}

/// Debian's client brings BuildKit's along; newer ones want a plug-in.
fn buildkit(scene: &Scene) {
    let docker = Docker::start(scene);
    docker.site.expect_cgroup("buildkit");
    build(&docker, "/usr/bin/docker", "1");
}

fn eight_at_once(scene: &Scene) {
    let docker = Docker::start(scene);
    let start = |number: u32| {
        let script = format!("echo $(({number} * {number})); exit {number}");
        docker.command(&run_words("--rm"), &["sh", "-c", &script]).start()
    };
    let running: Vec<_> = (1..=8).map(|number| (number, start(number))).collect();
    for (number, running) in running {
        let outcome = running.finish().exits_with(number.cast_signed());
        assert_eq!(outcome.stdout, format!("{}\n", number * number));
    }
}

/// What `docker save` writes is loaded, run, saved, and loaded by docker again, with the ids that it had.
fn images_go_there_and_back(scene: &Scene) {
    let docker = Docker::start(scene);
    docker.run(&format!("tag {IMAGE} localhost/other:2"), &[]).success();
    let ids = |docker: &Docker<'_>| {
        let words = "image inspect --format {{.Id}}:{{.RootFS.Layers}}";
        docker.run(words, &[IMAGE, "localhost/other:2"]).success().stdout
    };
    let before = ids(&docker);
    let (there, back) = (docker.site.path("there.tar"), docker.site.path("back.tar"));
    docker.run(&format!("save --output {}", there.display()), &[IMAGE, "localhost/other:2"]).success();
    let husk = |words: &[&str]| {
        let mut husk = docker.site.command(docker.site.runtime("husk"));
        husk.env("HUSK_DATA_ROOT", docker.site.path("husk-data")).env("HUSK_RUN_ROOT", docker.site.path("husk-run"));
        husk.env("HUSK_NETWORK", "none");
        husk.args(words).run()
    };
    husk(&["load", "-i", there.to_str().unwrap()]).success();
    let said = husk(&["run", "--rm", "localhost/other:2", "sh", "-c", "echo it runs"]);
    assert_eq!(said.success().stdout, "it runs\n");
    husk(&["save", "-o", back.to_str().unwrap(), IMAGE, "localhost/other:2"]).success();
    docker.run("rmi --force", &[IMAGE, "localhost/other:2"]).success();
    docker.run("image inspect", &[IMAGE]).exits_with(1);
    docker.run(&format!("load --quiet --input {}", back.display()), &[]).success();
    assert_eq!(ids(&docker), before);
}
