//! How the process is scheduled, its I/O priority, where its memory comes from, its execution domain, its umask.

use serde_json::{Value, json};

use super::support::{Bundle, Need, Scene, Test, test};

/// Gives the scheduler's policy, and 0x4000_0000 beside it for SCHED_RESET_ON_FORK (sched_getscheduler(2)).
const SCHED_GETSCHEDULER: &str = if cfg!(target_arch = "x86_64") { "145:0" } else { "120:0" };
/// Gives the I/O priority of a process (ioprio_get(2)).
const IOPRIO_GET: &str = if cfg!(target_arch = "x86_64") { "252:1:0" } else { "31:1:0" };

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(a_scheduler_is_set).and_plain().needs(Need::NotRunc).needs(Need::NotCrun),
        test!(a_real_time_scheduler_is_set).root().needs(Need::NotRunc).needs(Need::NotCrun),
        test!(a_deadline_scheduler_is_set).root().needs(Need::NotRunc).needs(Need::NotCrun),
        test!(a_scheduler_needs_rights).users().needs(Need::Husk),
        test!(a_deadline_needs_all_processors)
            .root()
            .needs(Need::NotRunc)
            .needs(Need::NotCrun)
            .needs(Need::CgroupV1("cpuset"))
            .needs(Need::File("/sys/devices/system/cpu/cpu1")),
        test!(an_io_priority_is_set).and_plain().needs(Need::NotRunc).needs(Need::NotCrun),
        test!(memory_comes_from_where_it_should)
            .and_plain()
            .needs(Need::Husk)
            .needs(Need::File("/proc/self/numa_maps")),
        test!(memory_from_a_node_that_is_none).needs(Need::Husk).needs(Need::File("/proc/self/numa_maps")),
        test!(the_execution_domain_is_set).and_plain().needs(Need::NotRunc),
        test!(the_execution_domain_is_set_before_the_filter).needs(Need::NotRunc),
        test!(flags_of_the_domain_are_ignored_aloud).needs(Need::Husk),
        test!(a_umask_is_set).and_plain(),
        test!(values_out_of_range_are_refused).needs(Need::Husk),
    ]
}

fn with<'a>(scene: &'a Scene, part: &str, field: &str, value: Value) -> Bundle<'a> {
    let mut bundle = scene.bundle();
    bundle.config[part][field] = value;
    bundle
}

fn a_scheduler_is_set(scene: &Scene) {
    let mut bundle = with(scene, "process", "scheduler", json!({ "policy": "SCHED_BATCH", "nice": 7 }));
    bundle.probe(["--answer", SCHED_GETSCHEDULER, "--read", "/proc/self/stat"]);
    let report = bundle.report();
    assert_eq!(report["answers"][SCHED_GETSCHEDULER], 3);
    // The fields behind the name, which may hold blanks; nice is the 19th of all (proc_pid_stat(5)).
    let stat = report["reads"]["/proc/self/stat"].as_str().expect("a text");
    let nice = stat.rsplit(") ").next().expect("a part").split(' ').nth(16);
    assert_eq!(nice, Some("7"), "{stat}");
}

fn a_real_time_scheduler_is_set(scene: &Scene) {
    let scheduler = json!({ "policy": "SCHED_RR", "priority": 3, "flags": ["SCHED_RESET_ON_FORK"] });
    let mut bundle = with(scene, "process", "scheduler", scheduler);
    bundle.probe(["--answer", SCHED_GETSCHEDULER]);
    let outcome = bundle.run();
    if outcome.code() != 0 {
        // A kernel with groups of real-time tasks (v1, CONFIG_RT_GROUP_SCHED) gives a new cgroup no time.
        outcome.exits_with(1).says("process.scheduler: set the scheduler: ");
        return;
    }
    assert_eq!(outcome.report()["answers"][SCHED_GETSCHEDULER], 0x4000_0002);
}

fn a_deadline_scheduler_is_set(scene: &Scene) {
    let scheduler = json!({
        "policy": "SCHED_DEADLINE", "nice": 19, "flags": ["SCHED_FLAG_RESET_ON_FORK"],
        "runtime": 10_000_000, "deadline": 100_000_000, "period": 1_000_000_000,
    });
    let mut bundle = with(scene, "process", "scheduler", scheduler);
    bundle.probe(["--answer", SCHED_GETSCHEDULER]);
    assert_eq!(bundle.report()["answers"][SCHED_GETSCHEDULER], 0x4000_0006);
}

fn a_scheduler_needs_rights(scene: &Scene) {
    let bundle = with(scene, "process", "scheduler", json!({ "policy": "SCHED_FIFO", "priority": 1 }));
    bundle
        .run_as_husk()
        .exits_with(1)
        .says("process.scheduler: set the scheduler: operation not permitted (EPERM)")
        .says("hint: a real-time scheduler");
}

/// The words are runc's, and its suite looks for them.
fn a_deadline_needs_all_processors(scene: &Scene) {
    let scheduler =
        json!({ "policy": "SCHED_DEADLINE", "runtime": 42_000, "deadline": 1_000_000, "period": 1_000_000 });
    let mut bundle = with(scene, "process", "scheduler", scheduler);
    bundle.config["linux"]["resources"]["cpu"] = json!({ "cpus": "0" });
    bundle.run().exits_with(1).says("process scheduler can't be used together with AllowedCPUs");
}

fn an_io_priority_is_set(scene: &Scene) {
    for (priority, number) in [
        (json!({ "class": "IOPRIO_CLASS_BE", "priority": 5 }), 0x4005),
        (json!({ "class": "IOPRIO_CLASS_IDLE" }), 0x6000),
    ] {
        let mut bundle = with(scene, "process", "ioPriority", priority);
        bundle.probe(["--answer", IOPRIO_GET]);
        assert_eq!(bundle.report()["answers"][IOPRIO_GET], number);
    }
}

fn memory_comes_from_where_it_should(scene: &Scene) {
    for (policy, word) in [
        (json!({ "mode": "MPOL_BIND", "nodes": "0" }), "bind:0"),
        (json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"] }), "bind=static:0"),
        (json!({ "mode": "MPOL_INTERLEAVE", "nodes": "0" }), "interleave:0"),
        (json!({ "mode": "MPOL_PREFERRED", "nodes": "0" }), "prefer:0"),
        (json!({ "mode": "MPOL_LOCAL" }), "local"),
        (json!({ "mode": "MPOL_DEFAULT" }), "default"),
    ] {
        let mut bundle = with(scene, "linux", "memoryPolicy", policy);
        bundle.probe(["--read", "/proc/self/numa_maps"]);
        let report = bundle.report();
        let maps = report["reads"]["/proc/self/numa_maps"].as_str().expect("a text");
        let first = maps.lines().next().and_then(|line| line.split(' ').nth(1));
        assert_eq!(first, Some(word), "{maps}");
    }
}

fn memory_from_a_node_that_is_none(scene: &Scene) {
    with(scene, "linux", "memoryPolicy", json!({ "mode": "MPOL_BIND", "nodes": "1000" }))
        .run_as_husk()
        .exits_with(1)
        .says("linux.memoryPolicy: set the memory policy: invalid argument (EINVAL)")
        .says("hint: a node that the machine");
}

fn the_execution_domain_is_set(scene: &Scene) {
    if cfg!(not(target_arch = "x86_64")) {
        return;
    }
    for (domain, machine) in [("LINUX32", "i686"), ("LINUX", "x86_64")] {
        assert_eq!(with(scene, "linux", "personality", json!({ "domain": domain })).report()["machine"], machine);
    }
}

/// With and without noNewPrivileges, which decides when the filter is loaded.
fn the_execution_domain_is_set_before_the_filter(scene: &Scene) {
    for no_new_privileges in [true, false] {
        let mut bundle = with(scene, "linux", "personality", json!({ "domain": "LINUX32", "flags": [] }));
        bundle.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        bundle.config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["personality"], "action": "SCMP_ACT_KILL_PROCESS" }],
        });
        bundle.run().success();
    }
}

fn flags_of_the_domain_are_ignored_aloud(scene: &Scene) {
    let bundle = with(scene, "linux", "personality", json!({ "domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"] }));
    let outcome = bundle.run().success();
    outcome.says("linux.personality.flags: ignored, none is defined: ADDR_NO_RANDOMIZE");
}

fn a_umask_is_set(scene: &Scene) {
    assert_eq!(scene.bundle().report()["umask"], "22");
    for (umask, shown) in [(0o077, "77"), (0, "0"), (0o777, "777")] {
        let mut bundle = scene.bundle();
        bundle.config["process"]["user"]["umask"] = json!(umask);
        assert_eq!(bundle.report()["umask"], shown);
    }
}

fn values_out_of_range_are_refused(scene: &Scene) {
    for (part, field, value, message) in [
        ("process", "scheduler", json!({ "policy": "SCHED_SOON" }), "process.scheduler.policy: unknown variant"),
        ("process", "scheduler", json!({ "policy": "SCHED_OTHER", "nice": 20 }), "process.scheduler.nice: 20 is not"),
        ("process", "scheduler", json!({ "policy": "SCHED_RR", "priority": 100 }), "process.scheduler.priority: 100"),
        (
            "process",
            "scheduler",
            json!({ "policy": "SCHED_DEADLINE", "runtime": 2, "deadline": 1 }),
            "process.scheduler: SCHED_DEADLINE needs 0 < runtime <= deadline <= period",
        ),
        ("process", "ioPriority", json!({ "class": "IOPRIO_CLASS_NONE" }), "process.ioPriority.class: unknown variant"),
        (
            "process",
            "ioPriority",
            json!({ "class": "IOPRIO_CLASS_BE", "priority": 8 }),
            "process.ioPriority.priority: 8 is not from 0 to 7",
        ),
        ("process", "execCPUAffinity", json!({ "initial": "0-" }), "process.execCPUAffinity: "),
        ("process", "execCPUAffinity", json!({ "final": "2-1" }), "process.execCPUAffinity.final: \"2-1\" ends before"),
        ("process", "user", json!({ "umask": 512 }), "process.user.umask: 512 is above 511 (0777)"),
        (
            "linux",
            "memoryPolicy",
            json!({ "mode": "MPOL_SOMEWHERE" }),
            "linux.memoryPolicy.mode: invalid memory policy mode: unknown variant",
        ),
        ("linux", "memoryPolicy", json!({ "mode": "MPOL_BIND" }), "linux.memoryPolicy.nodes: MPOL_BIND needs at least"),
        ("linux", "personality", json!({ "domain": "SVR4" }), "linux.personality.domain: unknown variant"),
    ] {
        with(scene, part, field, value).run().exits_with(1).says(message);
    }
}
