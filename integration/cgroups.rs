//! Cgroups: membership and limits, as read from the control files while the container runs.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::support::husk::read_host;
use super::support::leak::{cgroup_v1, cgroup_v2};
use super::support::scene::write;
use super::support::{Bundle, Guest, Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(membership_is_exact).root(),
        test!(a_relative_path_lies_below_the_callers).root(),
        test!(memory_limits_v1).root().needs(Need::CgroupV1("memory")),
        test!(cpu_limits_v1).root().needs(Need::CgroupV1("cpu")),
        test!(cpuset_limits_v1).root().needs(Need::CgroupV1("cpuset")),
        test!(pids_limit_v1).root().needs(Need::CgroupV1("pids")),
        test!(block_limits_v1).root().needs(Need::CgroupV1("blkio")).needs(Need::File("/dev/vda")),
        test!(device_list_v1).root().needs(Need::CgroupV1("devices")),
        test!(hugetlb_limits_v2).root().needs(Need::CgroupV2("hugetlb")).needs(Need::Husk),
        test!(memory_limits_v2).root().needs(Need::CgroupV2("memory")),
        test!(cpu_limits_v2).root().needs(Need::CgroupV2("cpu")),
        test!(pids_limit_v2).root().needs(Need::CgroupV2("pids")),
        test!(unified_values_v2).root().needs(Need::CgroupV2("memory")),
        test!(unified_values_need_a_unified_hierarchy).root().needs(Need::CgroupV1("memory")).needs(Need::NotCrun),
        test!(unlimited_is_minus_one).root().needs(Need::CgroupV1("memory")).needs(Need::NotCrun),
        test!(too_much_memory_kills).root(),
        test!(the_first_page_is_counted).root().needs(Need::CgroupV1("memory")),
        test!(too_many_processes_fail).root(),
        test!(a_limit_that_can_not_be_set_is_named).root().needs(Need::NotCrun),
        test!(a_path_may_not_climb).root().needs(Need::NotCrun),
        test!(nothing_is_left_when_the_start_fails).root(),
        test!(cgroups_that_the_container_made_go_with_it).root(),
        test!(processes_left_in_cgroups_below_are_ended).root(),
        test!(realtime_limits_v1).root().needs(Need::CgroupV1("cpu")).needs(Need::NotCrun),
        test!(what_the_host_lacks_is_named).root().needs(Need::Husk),
        test!(disabled_is_the_callers_cgroup).root().needs(Need::Husk),
        test!(a_users_limits_are_not_lost_in_silence).users().needs(Need::Husk),
    ]
}

/// A container that runs while the test looks at it from outside.
struct Held<'a> {
    running: super::support::husk::Running<'a>,
    scene: &'a Scene,
    id: String,
    pid: String,
}

impl<'a> Held<'a> {
    fn start(scene: &'a Scene, bundle: &mut Bundle<'a>) -> Self {
        bundle.args(["/probe", "--quiet", "--catch"]);
        let mut running = bundle.command().start();
        running.line_with("ready");
        let state = scene.runtime().args(["state", &bundle.id]).run().success();
        let state: Value = serde_json::from_str(&state.stdout).unwrap();
        Self { running, scene, id: bundle.id.clone(), pid: state["pid"].to_string() }
    }

    /// The container's cgroup in every hierarchy, as the kernel says.
    fn membership(&self) -> Vec<(String, String)> {
        let text = read_host(Path::new("/proc").join(&self.pid).join("cgroup"));
        text.lines()
            .map(|line| {
                let mut fields = line.splitn(3, ':').skip(1);
                (fields.next().unwrap().to_owned(), fields.next().unwrap().to_owned())
            })
            .collect()
    }

    fn v1(&self, controller: &str) -> PathBuf {
        cgroup_v1(controller).unwrap().join(&self.id)
    }

    fn v2(&self) -> PathBuf {
        cgroup_v2().unwrap().join(&self.id)
    }

    fn stop(self) {
        self.scene.runtime().args(["kill", &self.id, "TERM"]).run().success();
        self.running.finish().success();
    }
}

#[track_caller]
fn check(directory: &Path, files: &[(&str, &str)]) {
    for (file, value) in files {
        assert_eq!(read_host(directory.join(file)).trim(), *value, "{file}");
    }
}

fn membership_is_exact(scene: &Scene) {
    let mut bundle = scene.bundle();
    let held = Held::start(scene, &mut bundle);
    let wanted = format!("/{}", held.id);
    for (controllers, path) in held.membership() {
        // A hierarchy without controllers may be left alone; one with limits may not.
        if !controllers.is_empty() && cgroup_v1(controllers.split(',').next().unwrap()).is_some() {
            assert_eq!(path, wanted, "{controllers}");
        } else {
            assert!(path == wanted || path == "/", "{controllers}: {path}");
        }
    }
    held.stop();
}

fn a_relative_path_lies_below_the_callers(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["linux"]["cgroupsPath"] = json!(bundle.id.clone());
    let held = Held::start(scene, &mut bundle);
    let ours = read_host("/proc/self/cgroup");
    for (controllers, path) in held.membership().into_iter().filter(|(controllers, _)| !controllers.is_empty()) {
        let own = ours.lines().find_map(|line| line.split_once(&format!(":{controllers}:"))).unwrap().1;
        let below = format!("{}/{}", own.trim_end_matches('/'), held.id);
        // runc and crun differ here: the caller's own cgroup, or the hierarchy's root.
        assert!(path == below || path == format!("/{}", held.id), "{controllers}: {path}");
    }
    held.stop();
}

fn memory_limits_v1(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["linux"]["resources"]["memory"] = json!({
        "limit": 67_108_864, "reservation": 33_554_432, "swappiness": 17, "disableOOMKiller": false,
    });
    let held = Held::start(scene, &mut bundle);
    let files = [
        ("memory.limit_in_bytes", "67108864"),
        ("memory.soft_limit_in_bytes", "33554432"),
        ("memory.swappiness", "17"),
    ];
    check(&held.v1("memory"), &files);
    held.stop();
}

fn cpu_limits_v1(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["linux"]["resources"]["cpu"] = json!({ "shares": 333, "quota": 50_000, "period": 200_000 });
    let held = Held::start(scene, &mut bundle);
    let directory = held.v1("cpu");
    check(&directory, &[("cpu.shares", "333")]);
    if directory.join("cpu.cfs_quota_us").exists() {
        check(&directory, &[("cpu.cfs_quota_us", "50000"), ("cpu.cfs_period_us", "200000")]);
    }
    held.stop();
}

fn cpuset_limits_v1(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["linux"]["resources"]["cpu"] = json!({ "cpus": "0", "mems": "0" });
    let held = Held::start(scene, &mut bundle);
    check(&held.v1("cpuset"), &[("cpuset.cpus", "0"), ("cpuset.mems", "0")]);
    let status = read_host(Path::new("/proc").join(&held.pid).join("status"));
    assert!(status.contains("Cpus_allowed_list:\t0\n"), "{status}");
    held.stop();
}

fn pids_limit_v1(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["linux"]["resources"]["pids"] = json!({ "limit": 23 });
    let held = Held::start(scene, &mut bundle);
    check(&held.v1("pids"), &[("pids.max", "23"), ("pids.current", "1")]);
    held.stop();
}

fn block_limits_v1(scene: &Scene) {
    use std::os::unix::fs::MetadataExt;
    let device = std::fs::metadata("/dev/vda").unwrap().rdev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let mut bundle = scene.bundle();
    bundle.config["linux"]["resources"]["blockIO"] = json!({
        "throttleReadBpsDevice": [{ "major": major, "minor": minor, "rate": 1_048_576 }],
        "throttleWriteIOPSDevice": [{ "major": major, "minor": minor, "rate": 77 }],
    });
    let held = Held::start(scene, &mut bundle);
    let files = [
        ("blkio.throttle.read_bps_device", format!("{major}:{minor} 1048576")),
        ("blkio.throttle.write_iops_device", format!("{major}:{minor} 77")),
    ];
    for (file, value) in files {
        check(&held.v1("blkio"), &[(file, &value)]);
    }
    held.stop();
}

fn device_list_v1(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["linux"]["resources"]["devices"] = json!([
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw" },
    ]);
    let held = Held::start(scene, &mut bundle);
    let list = read_host(held.v1("devices").join("devices.list"));
    held.stop();
    let lines: Vec<&str> = list.lines().collect();
    assert!(lines.contains(&"c 10:229 rw"), "{list}");
    assert!(lines.iter().any(|line| line.starts_with("c 1:3 ")), "/dev/null is always allowed: {list}");
    assert!(!lines.iter().any(|line| line.starts_with("a ")), "{list}");
}

/// A hybrid layout: the only controller of version 2 here.
fn hugetlb_limits_v2(scene: &Scene) {
    let sizes = std::fs::read_dir("/sys/kernel/mm/hugepages").unwrap().count();
    if sizes == 0 {
        return;
    }
    let mut bundle = scene.bundle();
    bundle.config["linux"]["resources"]["hugepageLimits"] = json!([{ "pageSize": "2MB", "limit": 4_194_304 }]);
    let held = Held::start(scene, &mut bundle);
    check(&held.v2(), &[("hugetlb.2MB.max", "4194304")]);
    held.stop();
}

fn memory_limits_v2(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["linux"]["resources"]["memory"] =
        json!({ "limit": 67_108_864, "reservation": 33_554_432, "swap": 100_663_296 });
    let held = Held::start(scene, &mut bundle);
    let files = [("memory.max", "67108864"), ("memory.low", "33554432"), ("memory.swap.max", "33554432")];
    check(&held.v2(), &files);
    held.stop();
}

fn cpu_limits_v2(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["linux"]["resources"]["cpu"] = json!({ "quota": 50_000, "period": 200_000, "cpus": "0" });
    let held = Held::start(scene, &mut bundle);
    check(&held.v2(), &[("cpu.max", "50000 200000"), ("cpuset.cpus", "0")]);
    held.stop();
}

fn pids_limit_v2(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["linux"]["resources"]["pids"] = json!({ "limit": 23 });
    let held = Held::start(scene, &mut bundle);
    check(&held.v2(), &[("pids.max", "23"), ("pids.current", "1")]);
    held.stop();
}

fn unified_values_v2(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["linux"]["resources"]["unified"] = json!({ "memory.high": "67108864" });
    let held = Held::start(scene, &mut bundle);
    check(&held.v2(), &[("memory.high", "67108864")]);
    held.stop();
    for name in ["no.such.file", "../escape", "cgroup.procs/x"] {
        let mut bundle = scene.bundle();
        bundle.config["linux"]["resources"]["unified"] = json!({ name: "1" });
        bundle.run().exits_with(1).says(name);
    }
}

fn unified_values_need_a_unified_hierarchy(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["linux"]["resources"]["unified"] = json!({ "memory.high": "67108864" });
    bundle.run().exits_with(1).says("unified");
}

fn unlimited_is_minus_one(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["linux"]["resources"]["memory"] = json!({ "limit": -1 });
    bundle.config["linux"]["resources"]["pids"] = json!({ "limit": -1 });
    let held = Held::start(scene, &mut bundle);
    check(&held.v1("memory"), &[("memory.limit_in_bytes", "9223372036854771712")]);
    check(&held.v1("pids"), &[("pids.max", "max")]);
    held.stop();
}

fn too_much_memory_kills(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["linux"]["resources"]["memory"] = json!({ "limit": 33_554_432, "swap": 33_554_432 });
    bundle.args(["/probe", "--quiet", "--eat", "128"]);
    let outcome = bundle.run().exits_with(128 + 9);
    assert!(!outcome.stdout.contains("full"));
}

/// The process is in its cgroup before it touches memory of its own (CVE-2025-47291 and its kin).
fn the_first_page_is_counted(scene: &Scene) {
    let mut bundle = scene.bundle();
    let held = Held::start(scene, &mut bundle);
    let used: u64 = read_host(held.v1("memory").join("memory.usage_in_bytes")).trim().parse().unwrap();
    assert!(used > 100_000, "{used} bytes for a whole process");
    held.stop();
}

fn too_many_processes_fail(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["linux"]["resources"]["pids"] = json!({ "limit": 1 });
    bundle.tries(["exec:/probe"]);
    assert_eq!(bundle.report()["tries"]["exec:/probe"], "EAGAIN");
}

fn a_limit_that_can_not_be_set_is_named(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["linux"]["resources"]["cpu"] = json!({ "cpus": "4000-4001" });
    bundle.run().exits_with(1).says_one_of(&["cpuset.cpus", "4000-4001"]);
}

fn a_path_may_not_climb(scene: &Scene) {
    for path in ["../../{}", "/a/../../../{}", "/../{}"] {
        let mut bundle = scene.bundle();
        let path = path.replace("{}", &bundle.id);
        bundle.config["linux"]["cgroupsPath"] = json!(path);
        let outcome = bundle.run();
        // Refused by name, or cleaned: then it is a path like any other, and the leak check sees to the rest.
        if outcome.code() != 0 {
            outcome.says("cgroupsPath");
        }
    }
}

fn nothing_is_left_when_the_start_fails(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.args(["/no/such/program"]);
    assert_ne!(bundle.run().code(), 0);
    let mut bundle = scene.bundle();
    bundle.mount("/tmp", "bind", "/no/such/source", &["bind"]);
    assert_ne!(bundle.run().code(), 0);
}

fn a_users_limits_are_not_lost_in_silence(scene: &Scene) {
    let layout = super::support::image::Image::probe(scene).layout(scene, "layout");
    let limited = |flags: &[&str]| {
        let mut command = scene.husk();
        command.args(["run", "--rm", "--memory", "64m"]).args(flags).arg(layout.reference());
        command.run()
    };
    let outcome = limited(&[]).success();
    let report = outcome.report();
    let delegated = report["cgroup"].as_str().is_some_and(|text| text.contains("husk"));
    if !delegated {
        assert!(outcome.stderr.contains("memory"), "no word of the lost limit: {}", outcome.stderr);
        limited(&["--require-limits"]).exits_with(125).says("cgroup");
    }
}

/// Every hierarchy that is mounted where a container has a cgroup.
fn hierarchies() -> Vec<PathBuf> {
    ["devices", "pids", "memory", "freezer"].iter().filter_map(|name| cgroup_v1(name)).chain(cgroup_v2()).collect()
}

/// A tree of cgroups below the container's, as one that runs systemd or containers of its own leaves it.
fn cgroups_that_the_container_made_go_with_it(scene: &Scene) {
    let guest = Guest::start(scene, scene.bundle());
    for hierarchy in hierarchies() {
        std::fs::create_dir_all(hierarchy.join(&guest.bundle.id).join("a/b/c")).unwrap();
        std::fs::create_dir_all(hierarchy.join(&guest.bundle.id).join("a/d")).unwrap();
    }
    let id = guest.bundle.id.clone();
    drop(guest);
    for hierarchy in hierarchies() {
        assert!(!hierarchy.join(&id).exists(), "{}", hierarchy.display());
    }
}

/// The same with processes in it, which the container's first process took no notice of.
fn processes_left_in_cgroups_below_are_ended(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.without_namespace("pid");
    let guest = Guest::start(scene, bundle);
    // Of the host's PID namespace, so that the end of the first process is not theirs.
    let mut left: Vec<std::process::Child> = Vec::new();
    for hierarchy in hierarchies() {
        let below = hierarchy.join(&guest.bundle.id).join("below");
        std::fs::create_dir(&below).unwrap();
        let process = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        // In all of them, as a process of the container would be.
        for hierarchy in hierarchies() {
            let file = hierarchy.join(&guest.bundle.id).join("cgroup.procs");
            write(&file, process.id().to_string());
        }
        write(&below.join("cgroup.procs"), process.id().to_string());
        left.push(process);
    }
    let id = guest.bundle.id.clone();
    drop(guest);
    for mut process in left {
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(process.wait().unwrap().signal(), Some(9));
    }
    for hierarchy in hierarchies() {
        assert!(!hierarchy.join(&id).exists(), "{}", hierarchy.display());
    }
}

/// A cgroup has no realtime to give away that the one above does not have: the answer names the file.
fn realtime_limits_v1(scene: &Scene) {
    if !cgroup_v1("cpu").unwrap().join("cpu.rt_runtime_us").exists() {
        return;
    }
    let mut bundle = scene.bundle();
    bundle.config["linux"]["resources"]["cpu"] = json!({ "realtimePeriod": 1_000_000, "realtimeRuntime": 1000 });
    let held = Held::start(scene, &mut bundle);
    check(&held.v1("cpu"), &[("cpu.rt_period_us", "1000000"), ("cpu.rt_runtime_us", "1000")]);
    held.stop();
    let mut bundle = scene.bundle();
    bundle.config["linux"]["resources"]["cpu"] = json!({ "realtimePeriod": 1_000_000, "realtimeRuntime": 2_000_000 });
    bundle.run().exits_with(1).says("cpu.rt_runtime_us").says("linux.resources.cpu.realtimeRuntime");
}

/// A limit for which this host has no controller is an error that says which, not a container without it.
fn what_the_host_lacks_is_named(scene: &Scene) {
    for (field, value, controller) in [
        ("network", json!({ "classID": 1_048_577 }), "net_cls"),
        ("network", json!({ "priorities": [{ "name": "lo", "priority": 3 }] }), "net_prio"),
        ("rdma", json!({ "mlx5_0": { "hcaHandles": 1 } }), "rdma"),
    ] {
        if cgroup_v1(controller).is_some() {
            continue;
        }
        let mut bundle = scene.bundle();
        bundle.config["linux"]["resources"][field] = value;
        let outcome = bundle.run();
        // v2 has no classes and priorities at all, and says so in a warning.
        outcome.says_one_of(&[controller, &format!("linux.resources.{field}")]);
    }
}

fn disabled_is_the_callers_cgroup(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["linux"]["resources"]["pids"] = json!({ "limit": 23 });
    let directory = bundle.write().to_owned();
    let mut command = scene.runtime();
    command.args(["--cgroup-manager=disabled", "run", "--bundle"]).arg(directory).arg(&bundle.id);
    let outcome = command.run().success();
    assert!(outcome.stderr.contains("pids.limit"), "no word of the lost limit: {}", outcome.stderr);
    let ours = read_host("/proc/self/cgroup");
    let theirs = outcome.report();
    for line in theirs["cgroup"].as_str().unwrap().lines() {
        assert!(ours.contains(line.split_once(':').unwrap().1), "{line} is not among {ours}");
    }
}
