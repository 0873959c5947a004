use serde_json::{Value, json};

use super::*;
use crate::error::Kind;

const HYBRID_OWN: &str = "\
5:memory:/own/memory
4:cpu,cpuacct:/own
3:cpuset:/
2:devices:/
1:name=systemd:/
0::/own/v2
";
const HYBRID_MOUNTS: &str = "\
34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
37 31 0:34 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";

fn hybrid() -> Layout {
    Layout::parse(HYBRID_OWN, HYBRID_MOUNTS)
}

fn pure(own: &str) -> Layout {
    Layout::parse(&format!("0::{own}\n"), "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
}

fn resources(value: Value) -> LinuxResources {
    serde_json::from_value(value).unwrap()
}

fn request<'a>(path: Option<&'a str>, resources: Option<&'a LinuxResources>) -> Request<'a> {
    Request {
        container_id: "box",
        cgroups_path: path.map(Path::new),
        annotations: None,
        delegate_to: None,
        resources,
        driver: Driver::Cgroupfs,
        tolerance: Tolerance::Require,
    }
}

fn planned(layout: &Layout, limits: Value) -> Result<Plan> {
    plan(layout, &request(Some("/box"), Some(&resources(limits))))
}

/// Shows what goes where, without the device rules: `memory.max=5`, steps on lines of their own.
fn shown(place: &Place) -> Vec<String> {
    let steps = place.steps.iter().filter(|step| step[0].field != DEVICES);
    let line = |setting: &Setting| format!("{}={}", setting.file, setting.value.replace('\n', "|"));
    steps.map(|step| step.iter().map(line).collect::<Vec<_>>().join(" ")).collect()
}

fn place<'a>(plan: &'a Plan, controller: &str) -> &'a Place {
    plan.legacy.iter().find(|place| place.has(controller)).unwrap()
}

#[test]
fn paths_are_below_the_mount_or_the_own_cgroup_and_never_above() {
    for (path, memory, v2) in [
        (Some("/a/b"), "/sys/fs/cgroup/memory/a/b", "/a/b"),
        (Some("a/b"), "/sys/fs/cgroup/memory/own/memory/a/b", "/own/v2/a/b"),
        (None, "/sys/fs/cgroup/memory/own/memory/box", "/own/v2/box"),
        (Some(""), "/sys/fs/cgroup/memory/own/memory/box", "/own/v2/box"),
        (Some("/../../etc"), "/sys/fs/cgroup/memory/etc", "/etc"),
        (Some("../../etc"), "/sys/fs/cgroup/memory/own/memory/etc", "/own/v2/etc"),
        (Some("a/../../b/./c/"), "/sys/fs/cgroup/memory/own/memory/b/c", "/own/v2/b/c"),
        (Some("//a//..b"), "/sys/fs/cgroup/memory/a/..b", "/a/..b"),
        (
            Some("system.slice:cri:1"),
            "/sys/fs/cgroup/memory/own/memory/system.slice:cri:1",
            "/own/v2/system.slice:cri:1",
        ),
    ] {
        let plan = plan(&hybrid(), &request(path, None)).unwrap();
        assert_eq!(place(&plan, "memory").path, Path::new(memory), "{path:?}");
        assert_eq!(plan.unified.unwrap().shown, v2, "{path:?}");
    }
}

#[test]
fn on_pure_v2_a_relative_path_is_beside_the_caller() {
    for (own, path, expected) in [
        ("/user.slice/session-1.scope", None, "/sys/fs/cgroup/user.slice/box"),
        ("/user.slice/session-1.scope", Some("x/y"), "/sys/fs/cgroup/user.slice/x/y"),
        ("/user.slice/session-1.scope", Some("/x/y"), "/sys/fs/cgroup/x/y"),
        ("/", None, "/sys/fs/cgroup/box"),
        ("/init", None, "/sys/fs/cgroup/box"),
    ] {
        let plan = plan(&pure(own), &request(path, None)).unwrap();
        assert_eq!(plan.unified.unwrap().path, Path::new(expected), "{own} {path:?}");
    }
}

#[test]
fn a_nested_mount_shows_the_hosts_path() {
    let layout = Layout::parse(
        "2:devices:/docker/abc\n",
        "1 0 0:1 /docker/abc /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices\n",
    );
    let plan = plan(&layout, &request(Some("/x"), None)).unwrap();
    assert_eq!(plan.legacy[0].path, Path::new("/sys/fs/cgroup/devices/x"));
    assert_eq!(plan.legacy[0].shown, "/docker/abc/x");
}

#[test]
fn the_top_and_unprintable_names_are_refused() {
    for path in ["/", "/..", "a/..", ".", "/a\nb", "a\0b"] {
        let error = plan(&hybrid(), &request(Some(path), None)).err().unwrap();
        assert_eq!(error.kind(), Kind::Invalid, "{path:?}");
        assert!(error.report().starts_with("linux.cgroupsPath: "), "{error:?}");
    }
}

#[test]
fn limits_of_v1() {
    let every = json!({
        "memory": {"limit": 1000, "swap": 2000, "reservation": 500, "disableOOMKiller": true, "swappiness": 10},
        "cpu": {"shares": 512, "quota": 5000, "period": 10000, "burst": 1, "idle": 1, "cpus": "0-1", "mems": "0",
                "realtimeRuntime": 7, "realtimePeriod": 8},
    });
    let plan = planned(&hybrid(), every).unwrap();
    assert_eq!(
        shown(place(&plan, "memory")),
        [
            "memory.limit_in_bytes=1000 memory.memsw.limit_in_bytes=2000",
            "memory.soft_limit_in_bytes=500",
            "memory.oom_control=1",
            "memory.swappiness=10",
        ]
    );
    assert_eq!(
        shown(place(&plan, "cpuacct")),
        [
            "cpu.shares=512",
            "cpu.cfs_period_us=10000 cpu.cfs_quota_us=5000 cpu.cfs_burst_us=1",
            "cpu.idle=1",
            "cpu.rt_period_us=8 cpu.rt_runtime_us=7",
        ]
    );
    assert_eq!(shown(place(&plan, "cpuset")), ["cpuset.cpus=0-1", "cpuset.mems=0"]);
    assert!(shown(plan.unified.as_ref().unwrap()).is_empty());
    assert_eq!(plan.warnings, []);
}

#[test]
fn unset_is_unset() {
    let nothing = json!({
        "memory": {"limit": 0, "swap": 0, "reservation": 0, "disableOOMKiller": false, "swappiness": u64::MAX,
                   "useHierarchy": true, "kernel": -1},
        "cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": "", "mems": "", "realtimeRuntime": 0},
        "blockIO": {"weight": 0, "leafWeight": 0, "weightDevice": [], "throttleReadBpsDevice": []},
        "hugepageLimits": [], "network": {"classID": 0, "priorities": []}, "rdma": {}, "unified": {},
    });
    let hybrid = planned(&hybrid(), nothing.clone()).unwrap();
    assert!(hybrid.legacy.iter().all(|place| shown(place).is_empty()));
    let pure = planned(&pure("/"), nothing).unwrap();
    assert!(shown(pure.unified.as_ref().unwrap()).is_empty());
    assert_eq!((hybrid.warnings, pure.warnings), (vec![], vec![]));
}

#[test]
fn limits_of_v2() {
    for (limits, expected) in [
        (json!({"memory": {"limit": 1000, "swap": 2500}}), &["memory.swap.max=1500", "memory.max=1000"][..]),
        (json!({"memory": {"limit": 1000, "swap": 1000}}), &["memory.swap.max=0", "memory.max=1000"]),
        (json!({"memory": {"limit": -1}}), &["memory.swap.max=max", "memory.max=max"]),
        (json!({"memory": {"limit": -1, "swap": 5}}), &["memory.swap.max=5", "memory.max=max"]),
        (json!({"memory": {"swap": -1, "reservation": 3}}), &["memory.swap.max=max", "memory.low=3"]),
        (json!({"cpu": {"shares": 1024}}), &["cpu.weight=100"]),
        (json!({"cpu": {"shares": 2}}), &["cpu.weight=1"]),
        (json!({"cpu": {"shares": 1}}), &["cpu.weight=1"]),
        (json!({"cpu": {"shares": 262_144}}), &["cpu.weight=10000"]),
        (json!({"cpu": {"shares": 512, "idle": 0}}), &["cpu.weight=59 cpu.idle=0"]),
        (json!({"cpu": {"quota": 5000}}), &["cpu.max=5000"]),
        (json!({"cpu": {"quota": -1, "period": 7000}}), &["cpu.max=max 7000"]),
        (json!({"cpu": {"quota": 5, "period": 7, "burst": 2}}), &["cpu.max=5 7 cpu.max.burst=2"]),
        (json!({"cpu": {"period": 7}}), &["cpu.max=max 7"]),
        (json!({"cpu": {"cpus": "0,2", "mems": "1"}}), &["cpuset.cpus=0,2", "cpuset.mems=1"]),
        (json!({"pids": {"limit": 9}}), &["pids.max=9"]),
        (json!({"pids": {"limit": 0}}), &["pids.max=1"]),
        (json!({"pids": {"limit": -1}}), &["pids.max=max"]),
        (json!({"blockIO": {"weight": 500}}), &["io.bfq.weight=500"]),
        (
            json!({"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 20}, {"major": 8, "minor": 16, "weight": 30}]}}),
            &["io.bfq.weight=8:0 20|8:16 30"],
        ),
        (
            json!({"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 5}, {"major": 8, "minor": 1, "rate": 0}],
                               "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 6}]}}),
            &["io.max=8:0 rbps=5|8:1 rbps=max", "io.max=8:0 wiops=6"],
        ),
        (
            json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4}]}),
            &["hugetlb.2MB.max=4", "hugetlb.2MB.rsvd.max=4"],
        ),
        (
            json!({"rdma": {"mlx5_1": {"hcaHandles": 3}, "mlx4_0": {"hcaHandles": 1, "hcaObjects": 2}}}),
            &["rdma.max=mlx4_0 hca_handle=1 hca_object=2|mlx5_1 hca_handle=3"],
        ),
        (
            json!({"unified": {"memory.high": "7", "io.max": "8:0 rbps=1\n8:1 rbps=2\n"}, "memory": {"limit": 9}}),
            &["memory.max=9", "io.max=8:0 rbps=1|8:1 rbps=2", "memory.high=7"],
        ),
    ] {
        let plan = planned(&pure("/"), limits.clone()).unwrap();
        assert_eq!(shown(plan.unified.as_ref().unwrap()), expected, "{limits}");
        assert_eq!(plan.warnings, [], "{limits}");
    }
}

#[test]
fn a_weight_for_iocost_is_stretched() {
    let plan = planned(&pure("/"), json!({"blockIO": {"weight": 1000}})).unwrap();
    let weight = &plan.unified.as_ref().unwrap().steps[0][0];
    assert_eq!(weight.when_missing, super::super::setting::WhenMissing::Instead("io.weight", "10000".into()));
}

#[test]
fn what_v2_lacks_is_said() {
    for (limits, field) in [
        (json!({"memory": {"swappiness": 10}}), "memory.swappiness"),
        (json!({"memory": {"disableOOMKiller": true}}), "memory.disableOOMKiller"),
        (json!({"memory": {"kernel": 10}}), "memory.kernel"),
        (json!({"cpu": {"realtimeRuntime": 10}}), "cpu.realtimeRuntime"),
        (json!({"blockIO": {"leafWeight": 10}}), "blockIO.leafWeight"),
        (json!({"network": {"classID": 10}}), "network.classID"),
        (json!({"network": {"priorities": [{"name": "eth0", "priority": 1}]}}), "network.priorities"),
    ] {
        let plan = planned(&pure("/"), limits).unwrap();
        assert_eq!(plan.warnings.len(), 1, "{field}");
        assert!(plan.warnings[0].to_string().starts_with(&format!("linux.resources.{field} is ignored: ")));
    }
}

#[test]
fn wrong_limits_name_their_field() {
    for (limits, expected) in [
        (json!({"memory": {"limit": -2}}), "memory.limit: neither a size nor -1"),
        (json!({"memory": {"limit": 10, "swap": 5}}), "memory.swap: less than memory.limit, which it includes"),
        (json!({"memory": {"swap": 5}}), "memory.swap: unable to set swap limit without memory limit"),
        (json!({"hugepageLimits": [{"pageSize": "../2MB", "limit": 4}]}), "hugepageLimits[].pageSize: `../2MB` is"),
        (json!({"rdma": {"a b": {"hcaHandles": 3}}}), "rdma: `a b` is not a name"),
        (json!({"unified": {"../x": "1"}}), "unified: `../x` must be a file name (no slashes)"),
        (json!({"unified": {"memory": "1"}}), "unified: `memory` must be in the form CONTROLLER.PARAMETER"),
        (json!({"unified": {"cgroup.procs": "0"}}), "unified: `cgroup.procs` is an action, not a limit"),
        (json!({"devices": [{"allow": true}]}), "devices[0].access: empty"),
    ] {
        let error = planned(&pure("/"), limits).err().unwrap();
        assert!(error.report().starts_with(&format!("linux.resources.{expected}")), "{error:?}");
    }
    for (limits, expected) in [
        (json!({"cpu": {"shares": 1}}), "cpu.shares: the minimum allowed cpu-shares is 2"),
        (json!({"cpu": {"shares": 262_145}}), "cpu.shares: the maximum allowed cpu-shares is 262144"),
        (json!({"memory": {"swappiness": 101}}), "memory.swappiness: 101 is not between 0 and 100"),
        (json!({"network": {"classID": 1}}), "network.classID: the net_cls controller is not mounted"),
        (json!({"unified": {"memory.high": "1"}}), "unified: invalid configuration: cannot use unified on cgroup v1"),
    ] {
        let error = planned(&hybrid(), limits).err().unwrap();
        assert_eq!(error.report(), format!("linux.resources.{expected}"));
    }
}

#[test]
fn on_a_hybrid_host_what_v1_has_not_goes_to_v2() {
    let plan = planned(&hybrid(), json!({"hugepageLimits": [{"pageSize": "1GB", "limit": 4}]})).unwrap();
    assert_eq!(shown(plan.unified.as_ref().unwrap()), ["hugetlb.1GB.max=4", "hugetlb.1GB.rsvd.max=4"]);
}

#[test]
fn devices_are_denied_wherever_the_host_can() {
    let on_v1 = plan(&hybrid(), &request(None, None)).unwrap();
    let steps = &place(&on_v1, "devices").steps;
    assert_eq!((&*steps[0][0].file, &*steps[0][0].value), ("devices.deny", "a"));
    assert_eq!(&*steps[1][0].file, "devices.allow");
    assert!(on_v1.filter.is_none());
    assert!(plan(&pure("/"), &request(None, None)).unwrap().filter.is_some());
    let without = Layout::parse("1:memory:/\n", HYBRID_MOUNTS);
    let error = plan(&without, &request(None, None)).err().unwrap();
    assert_eq!(error.report(), "linux.resources.devices: the devices controller is not mounted");
}

#[test]
fn an_ordinary_user_hears_of_lost_limits_only() {
    let nowhere = Layout::parse("", "");
    let tolerant = |resources| Request { tolerance: Tolerance::WarnWhenDenied, ..request(None, resources) };
    assert!(plan(&nowhere, &request(None, None)).is_err());
    assert_eq!(plan(&nowhere, &tolerant(None)).unwrap().warnings, []);
    let limits = resources(json!({"memory": {"limit": 5}, "devices": [{"allow": false, "access": "rwm"}]}));
    let warnings = plan(&nowhere, &tolerant(Some(&limits))).unwrap().warnings;
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].to_string(), "limits without effect, since no cgroup hierarchy is mounted: memory.limit");
}

#[test]
fn drivers() {
    let limits = resources(json!({"pids": {"limit": 5}}));
    let with = |driver| plan(&hybrid(), &Request { driver, ..request(None, Some(&limits)) });
    // Whether or not there is a systemd to ask, this is nothing to ask it for.
    let path = Request { driver: Driver::Systemd, ..request(Some("/box"), Some(&limits)) };
    let report = plan(&hybrid(), &path).err().unwrap().report();
    assert!(report.contains("slice:prefix:name") || report.contains("can't use systemd (rootless)"), "{report}");
    let disabled = with(Driver::Disabled).unwrap();
    assert!(disabled.legacy.is_empty() && disabled.unified.is_none());
    assert_eq!(disabled.warnings[0].to_string(), "limits without effect, since cgroups are disabled: pids.limit");
}
