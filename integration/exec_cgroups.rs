//! Where the processes of `exec` are counted: in the container's cgroups from birth, in one below with `--cgroup`, and in
//! none that is somebody else's.

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};

use super::support::leak::{cgroup_v1, cgroup_v2};
use super::support::scene::write;
use super::support::suite::kit;
use super::support::{Guest, Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    let v1 = |test: Test| test.root().needs(Need::CgroupV1("pids")).needs(Need::CgroupV1("freezer"));
    let v2 = |test: Test| test.root().needs(Need::CgroupV2(""));
    vec![
        v1(test!(in_the_containers_cgroups)),
        v1(test!(in_a_cgroup_below)),
        v1(test!(paths_that_lead_out)),
        v1(test!(a_paused_container)),
        v1(test!(a_full_container)),
        v2(test!(in_the_containers_v2_cgroup)),
        v2(test!(in_a_v2_cgroup_below)),
        v2(test!(with_a_first_process_that_left)),
        v2(test!(beside_a_first_process_that_moved)).needs(Need::Program("strace")),
        test!(nothing_but_the_container_is_left_behind).root(),
    ]
}

/// The cgroup in the hierarchy of a controller, as the probe reported it; "" is v2.
fn cgroup(report: &Value, controller: &str) -> String {
    let text = report["cgroup"].as_str().unwrap();
    let line = text.lines().find_map(|line| {
        let (names, path) = line.split_once(':')?.1.split_once(':')?;
        names.split(',').any(|name| name == controller).then(|| path.to_owned())
    });
    line.unwrap_or_else(|| panic!("no hierarchy of {controller:?} in {text}"))
}

fn in_the_containers_cgroups(scene: &Scene) {
    let guest = Guest::start(scene, scene.bundle());
    let report = guest.report(&[], &[]);
    let own = format!("/{}", guest.bundle.id);
    for line in report["cgroup"].as_str().unwrap().lines() {
        assert!(line.ends_with(&own), "{line}");
    }
}

fn in_the_containers_v2_cgroup(scene: &Scene) {
    let guest = Guest::start(scene, scene.bundle());
    assert_eq!(cgroup(&guest.report(&[], &[]), ""), format!("/{}", guest.bundle.id));
}

/// The directory of a guest's cgroup in a hierarchy, as the host sees it.
fn directory(guest: &Guest<'_>, mount: Option<PathBuf>) -> PathBuf {
    mount.expect("a need of the test").join(&guest.bundle.id)
}

fn in_a_cgroup_below(scene: &Scene) {
    let guest = Guest::start(scene, scene.bundle());
    let id = guest.bundle.id.clone();
    for controller in ["pids", "freezer"] {
        std::fs::create_dir(directory(&guest, cgroup_v1(controller)).join("below")).unwrap();
    }
    let report = guest.report(&["--cgroup", "pids:below"], &[]);
    assert_eq!(cgroup(&report, "pids"), format!("/{id}/below"));
    assert_eq!(cgroup(&report, "freezer"), format!("/{id}"));
    let report = guest.report(&["--cgroup", "pids:below", "--cgroup", "freezer:/below/"], &[]);
    assert_eq!(cgroup(&report, "freezer"), format!("/{id}/below"));
    let report = guest.report(&["--cgroup", "pids,freezer:below"], &[]);
    assert_eq!((cgroup(&report, "pids"), cgroup(&report, "freezer")), (format!("/{id}/below"), format!("/{id}/below")));
    for path in ["/", ".", "pids:/"] {
        assert_eq!(cgroup(&guest.report(&["--cgroup", path], &[]), "pids"), format!("/{id}"));
    }
}

fn in_a_v2_cgroup_below(scene: &Scene) {
    let guest = Guest::start(scene, scene.bundle());
    let id = guest.bundle.id.clone();
    if cgroup_v1("pids").is_some() {
        // A path without controllers is for every hierarchy, and must be in every one.
        for mount in hierarchies() {
            let own = mount.join(&id);
            std::fs::create_dir(own.join("below")).unwrap();
            for file in ["cpuset.cpus", "cpuset.mems"].into_iter().filter(|file| own.join(file).exists()) {
                write(&own.join("below").join(file), std::fs::read(own.join(file)).unwrap());
            }
        }
    } else {
        std::fs::create_dir(directory(&guest, cgroup_v2()).join("below")).unwrap();
    }
    assert_eq!(cgroup(&guest.report(&["--cgroup", "below"], &[]), ""), format!("/{id}/below"));
}

fn hierarchies() -> Vec<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let cgroup = |line: &&str| line.contains(" - cgroup ") || line.contains(" - cgroup2 ");
    text.lines().filter(cgroup).map(|line| line.split(' ').nth(4).unwrap().into()).collect()
}

/// A15: `..`, and a sibling whose name begins alike.
fn paths_that_lead_out(scene: &Scene) {
    let guest = Guest::start(scene, scene.bundle());
    let sibling = format!("{}-sibling", guest.bundle.id);
    let sibling_directory = cgroup_v1("pids").unwrap().join(&sibling);
    std::fs::create_dir(&sibling_directory).unwrap();
    let mut outcomes = Vec::new();
    for path in [format!("../{sibling}"), "..".into(), "a/../../b".into(), format!("/../{sibling}"), "missing".into()] {
        outcomes.push(guest.exec(&["--cgroup", &format!("pids:{path}")], &["/probe"]).run());
    }
    std::fs::remove_dir(sibling_directory).unwrap();
    for outcome in outcomes {
        outcome.exits_with(255).says("cgroup");
    }
    for (words, text) in [
        (&["--cgroup", "nope:a"][..], "unknown controller nope"),
        (&["--cgroup", ":a"], "empty <controller> prefix"),
        (&["--cgroup", "a", "--cgroup", "b"], "missing <controller>: prefix"),
        (&["--cgroup", "pids:a", "--cgroup", "pids:b"], "specified multiple times"),
    ] {
        guest.exec(words, &["/probe"]).run().exits_with(255).says(text);
    }
}

fn a_paused_container(scene: &Scene) {
    let guest = Guest::start(scene, scene.bundle());
    let state = directory(&guest, cgroup_v1("freezer")).join("freezer.state");
    write(&state, "FROZEN");
    let refused = guest.exec(&[], &["/probe"]).run();
    // Its process waits for the container, and goes on with it.
    let mut entered = guest.exec(&["--ignore-paused"], &["/probe", "--quiet", "--echo", "thawed"]).start();
    let tasks = state.with_file_name("tasks");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while std::fs::read_to_string(&tasks).unwrap().lines().count() < 2 {
        assert!(std::time::Instant::now() < deadline, "nobody enters");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    write(&state, "THAWED");
    refused.exits_with(255).says("cannot exec in a paused container (use --ignore-paused to override)");
    entered.line_with("thawed");
    entered.finish().success();
}

/// No limit is got round by coming from outside.
fn a_full_container(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["linux"]["resources"]["pids"] = json!({ "limit": 1 });
    let guest = Guest::start(scene, bundle);
    // The process counts as soon as it is in; what it may not do is fork.
    let outcome = guest.exec(&[], &["/probe", "--quiet", "--fork", "--echo", "forked"]).run();
    assert_ne!(outcome.code(), 0);
    assert!(!outcome.stdout.contains("forked"));
}

/// runc issue 5101: a container with a cgroup manager of its own has its processes in leaves, and on v2 nobody can be in a
/// cgroup whose controllers are for its children. In hybrid mode v2 has no controllers, so the kernel's answer is made.
fn beside_a_first_process_that_moved(scene: &Scene) {
    let guest = Guest::start(scene, scene.bundle());
    let leaf = directory(&guest, cgroup_v2()).join("init.scope");
    std::fs::create_dir(&leaf).unwrap();
    write(&leaf.join("cgroup.procs"), guest.pid().to_string());
    // As long as there is room, it is the container's own.
    assert_eq!(cgroup(&guest.report(&[], &[]), ""), format!("/{}", guest.bundle.id));
    for error in ["EBUSY", "ENOENT"] {
        let mut command = scene.program("/usr/bin/strace");
        let inject = format!("inject=clone3:error={error}:when=1");
        command.args(["-f", "-q", "-o", "/dev/null", "-e", &inject]).arg(&kit().runtime);
        command.arg("--root").arg(scene.state_root()).args(["exec", &guest.bundle.id, "/probe"]);
        let report = command.run().success().report();
        assert_eq!(cgroup(&report, ""), format!("/{}/init.scope", guest.bundle.id), "{error}");
    }
    // Who names a cgroup means that one.
    let mut command = scene.program("/usr/bin/strace");
    command.args(["-f", "-q", "-o", "/dev/null", "-e", "inject=clone3:error=EBUSY:when=1"]).arg(&kit().runtime);
    command.arg("--root").arg(scene.state_root()).args(["exec", "--cgroup", "/", &guest.bundle.id, "/probe"]);
    command.run().exits_with(255).says("adding pid to cgroups: device or resource busy");
}

/// runc issue 5089: who may write to cgroups elsewhere takes the container along, and its own cgroup can be gone.
fn with_a_first_process_that_left(scene: &Scene) {
    let guest = Guest::start(scene, scene.bundle());
    let elsewhere = format!("{}-elsewhere", guest.bundle.id);
    let own = directory(&guest, cgroup_v2());
    let other = own.with_file_name(&elsewhere);
    std::fs::create_dir(&other).unwrap();
    write(&other.join("cgroup.procs"), guest.pid().to_string());
    std::fs::remove_dir(own).unwrap();
    let outcome = guest.exec(&[], &["/probe"]).run();
    drop(guest);
    std::fs::remove_dir(other).unwrap();
    assert_eq!(cgroup(&outcome.success().report(), ""), format!("/{elsewhere}"));
}

/// A detached process, one that forked, and one in a cgroup below go with the container.
fn nothing_but_the_container_is_left_behind(scene: &Scene) {
    let guest = Guest::start(scene, scene.bundle());
    for words in [&["/probe", "--quiet", "--block"][..], &["/probe", "--quiet", "--fork", "--block"]] {
        guest.exec(&["--detach"], words).start_with(Stdio::null(), Stdio::null(), Stdio::null()).finish().success();
    }
    // The suite looks for what is left once the guest is gone.
    drop(guest);
}
