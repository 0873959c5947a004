use std::os::unix::fs::symlink;

use serde_json::json;

use super::super::testing::{Sleeper, Top, not_run, read, resources};
use super::super::{Driver, Layout, Request, plan};
use super::*;
use crate::error::Kind;

/// A file tree that stands for a v2 hierarchy with a cgroup that is there already.
fn recorded(files: &[(&str, &str)]) -> (tempfile::TempDir, Layout) {
    let tree = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = tree.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let fd = rustix::fs::open(&path, OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o600)).unwrap();
        file::write(fd, text.as_bytes()).unwrap();
    }
    let mounts = format!("1 0 0:1 / {} rw - cgroup2 cgroup2 rw\n", tree.path().display());
    (tree, Layout::parse("0::/\n", &mounts))
}

fn plan_at(layout: &Layout, limits: serde_json::Value, tolerance: Tolerance) -> Plan {
    let resources = resources(limits);
    let request = Request {
        container_id: "box",
        cgroups_path: Some(Path::new("/above/box")),
        annotations: None,
        delegate_to: None,
        resources: Some(&resources),
        driver: Driver::Cgroupfs,
        tolerance,
    };
    let mut plan = plan(layout, &request).unwrap();
    // Files are no cgroups to the kernel.
    plan.filter = None;
    plan
}

#[test]
fn controllers_are_let_through_from_the_top_down() {
    let (tree, layout) = recorded(&[
        ("cgroup.controllers", "cpuset cpu io memory hugetlb pids misc"),
        ("cgroup.subtree_control", ""),
        ("above/cgroup.controllers", "cpuset cpu io memory hugetlb pids misc"),
        ("above/cgroup.subtree_control", ""),
        ("above/box/cgroup.controllers", "cpu"),
        ("above/box/cgroup.procs", ""),
        ("above/box/memory.max", ""),
    ]);
    plan_at(&layout, json!({"memory": {"limit": 7}}), Tolerance::Require).create().unwrap();
    for file in ["cgroup.subtree_control", "above/cgroup.subtree_control"] {
        assert_eq!(read(tree.path().join(file)), "+cpuset +io +memory +hugetlb +pids +misc");
    }
    assert_eq!(read(tree.path().join("above/box/memory.max")), "7");
}

#[test]
fn nothing_is_written_above_when_the_controllers_are_there() {
    let (tree, layout) = recorded(&[
        ("cgroup.controllers", "cpuset cpu io memory hugetlb pids misc"),
        ("cgroup.subtree_control", ""),
        ("above/box/cgroup.controllers", "cpuset cpu io memory pids"),
        ("above/box/pids.max", ""),
    ]);
    plan_at(&layout, json!({"pids": {"limit": 7}}), Tolerance::Require).create().unwrap();
    assert_eq!(read(tree.path().join("cgroup.subtree_control")), "");
}

#[test]
fn an_undelegated_controller_is_an_error_or_a_warning() {
    let files = [
        ("cgroup.controllers", "cpuset cpu io memory pids"),
        ("above/box/cgroup.controllers", "memory pids"),
        ("above/box/pids.max", ""),
    ];
    let limits = json!({"pids": {"limit": 7}, "cpu": {"quota": 5, "cpus": "0"}});
    let (tree, layout) = recorded(&files);
    let error = plan_at(&layout, limits.clone(), Tolerance::Require).create().err().unwrap();
    assert!(
        error.report().starts_with("set linux.resources.cpu.cpus: the cpuset controller is not enabled for "),
        "{error:?}"
    );
    assert!(error.hint().is_some());
    let (_, warnings) = plan_at(&layout, limits, Tolerance::WarnWhenDenied).create().unwrap();
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].to_string(), "limits without effect, since permission is missing: cpu.cpus, cpu.quota");
    assert_eq!(warnings[0].hint(), Some(DELEGATION_HINT));
    assert_eq!(read(tree.path().join("above/box/pids.max")), "7");
}

#[test]
fn a_failure_takes_away_what_was_made_and_leaves_what_was_there() {
    let (tree, layout) = recorded(&[("mine", "")]);
    std::fs::create_dir(tree.path().join("above")).unwrap();
    // The directory is made, and has no pids.max.
    let error = plan_at(&layout, json!({"pids": {"limit": 7}}), Tolerance::Require).create().err().unwrap();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(!tree.path().join("above/box").exists());
    assert!(tree.path().join("above").exists());
    let begun = plan_at(&layout, json!({}), Tolerance::Require).begin().unwrap();
    assert!(tree.path().join("above/box").exists());
    drop(begun);
    assert!(!tree.path().join("above/box").exists());
}

#[test]
fn a_symlink_in_place_of_a_file_is_not_followed() {
    let (tree, layout) = recorded(&[("above/box/cgroup.controllers", "cpuset cpu io memory pids"), ("victim", "")]);
    symlink(tree.path().join("victim"), tree.path().join("above/box/pids.max")).unwrap();
    assert!(plan_at(&layout, json!({"pids": {"limit": 7}}), Tolerance::Require).create().is_err());
    assert_eq!(read(tree.path().join("victim")), "");
}

#[test]
fn limits_reach_the_kernel_on_v1() {
    let Some(top) = Top::on_v1() else { return };
    let limits = resources(json!({
        "memory": {"limit": 67_108_864, "reservation": 33_554_432, "swappiness": 10},
        "cpu": {"shares": 512, "quota": 5000, "period": 10000},
        "pids": {"limit": 9},
        "devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "b", "major": 8, "access": "r"}],
    }));
    let (cgroup, warnings) = top.plan(Some(&limits)).create().unwrap();
    assert_eq!(warnings, []);
    for (controller, file, expected) in [
        ("memory", "memory.limit_in_bytes", "67108864"),
        ("memory", "memory.soft_limit_in_bytes", "33554432"),
        ("memory", "memory.swappiness", "10"),
        ("cpu", "cpu.shares", "512"),
        ("cpu", "cpu.cfs_quota_us", "5000"),
        ("cpu", "cpu.cfs_period_us", "10000"),
        ("pids", "pids.max", "9"),
    ] {
        assert_eq!(read(top.legacy(controller).join(file)), expected, "{file}");
    }
    let devices = read(top.legacy("devices").join("devices.list"));
    assert_eq!(devices.lines().count(), 12, "{devices}");
    assert!(devices.contains("b 8:* r") && devices.contains("c 1:3 rwm") && !devices.contains("a *:*"), "{devices}");
    // Nobody may enter a cpuset without CPUs: it took those above.
    let above = |file: &str| read(top.layout.legacy_with("cpuset").unwrap().mount.join(file));
    for file in ["cpuset.cpus", "cpuset.mems"] {
        assert_eq!(read(top.legacy("cpuset").join(file)), above(file));
    }
    cgroup.delete().unwrap();
    assert!(!top.legacy("memory").exists());
}

#[test]
fn a_cpuset_is_narrowed_below_empty_ones() {
    let Some(top) = Top::on_v1() else { return };
    let limits = resources(json!({"cpu": {"cpus": "0", "mems": "0"}}));
    top.plan(Some(&limits)).create().unwrap();
    assert_eq!(read(top.legacy("cpuset").join("cpuset.cpus")), "0");
}

#[test]
fn a_cgroup_in_use_is_refused_and_an_empty_one_taken() {
    let Some(top) = Top::new() else { return };
    let (cgroup, _) = top.plan(None).create().unwrap();
    let mut sleeper = Sleeper::start();
    cgroup.join(sleeper.pid(), super::super::Hierarchies::Every).unwrap();
    let error = top.plan(None).create().err().unwrap();
    assert_eq!(error.kind(), Kind::Exists);
    assert!(error.report().ends_with("container's cgroup is not empty: 1 process(es) found"), "{error:?}");
    cgroup.kill_all().unwrap();
    sleeper.wait();
    top.plan(None).create().unwrap().0.delete().unwrap();
}

#[test]
fn a_failure_on_v1_leaves_no_cgroup_in_any_hierarchy() {
    let Some(top) = Top::on_v1() else { return };
    // No such CPU: fails in the middle of the hierarchies.
    let limits = resources(json!({"cpu": {"cpus": "4000"}}));
    let error = top.plan(Some(&limits)).create().err().unwrap();
    assert!(error.report().starts_with("set linux.resources.cpu.cpus: write `4000` to "), "{error:?}");
    for path in top.tops() {
        assert!(!path.exists(), "{} is left", path.display());
    }
}

#[test]
fn one_device_filter_stays_however_often_it_is_replaced() {
    let Some(top) = Top::new() else { return };
    let (cgroup, _) = top.plan(None).create().unwrap();
    let Some(directory) = cgroup.v2_directory() else {
        not_run("needs a v2 hierarchy");
        return;
    };
    let program = super::super::devices::Rules::from_spec(&[]).unwrap().program();
    for _ in 0..3 {
        filter_devices(directory, &program, Before::Filters).unwrap();
        assert_eq!(bpf::device_filters(directory).unwrap().len(), 1);
    }
    // Where a filter piled up, the new one stays alone.
    filter_devices(directory, &program, Before::Nothing).unwrap();
    filter_devices(directory, &program, Before::Filters).unwrap();
    assert_eq!(bpf::device_filters(directory).unwrap().len(), 1);
}

#[test]
fn the_device_filter_holds_for_those_inside() {
    let Some(top) = Top::new() else { return };
    let (cgroup, _) = top.plan(None).create().unwrap();
    let (Some(directory), Some(unified)) = (cgroup.v2_directory(), &cgroup.unified) else {
        not_run("needs a v2 hierarchy");
        return;
    };
    let program = super::super::devices::Rules::from_spec(&[]).unwrap().program();
    filter_devices(directory, &program, Before::Nothing).unwrap();
    // /dev/kmsg is not among the usual devices, /dev/null is.
    let script = "true < /dev/kmsg && echo $$ > \"$0\"/cgroup.procs && true < /dev/null && ! true < /dev/kmsg";
    let output = std::process::Command::new("sh").args(["-c", script]).arg(&unified.path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stderr).contains("Operation not permitted"));
}

#[test]
fn limits_reach_the_kernel_on_v2() {
    let Some(top) = Top::on_v2() else { return };
    let limits = resources(json!({
        "memory": {"limit": 67_108_864, "swap": 100_663_296, "reservation": 33_554_432},
        "cpu": {"shares": 1024, "quota": 5000, "period": 10000, "burst": 1000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 9},
        "unified": {"memory.high": "50331648"},
    }));
    let (cgroup, warnings) = top.plan(Some(&limits)).create().unwrap();
    assert_eq!(warnings, []);
    for (file, expected) in [
        ("memory.max", "67108864"),
        ("memory.low", "33554432"),
        ("memory.high", "50331648"),
        ("cpu.weight", "100"),
        ("cpu.max", "5000 10000"),
        ("cpu.max.burst", "1000"),
        ("cpuset.cpus", "0"),
        ("pids.max", "9"),
    ] {
        assert_eq!(read(top.unified().join(file)), expected, "{file}");
    }
    let swap = top.unified().join("memory.swap.max");
    assert!(!swap.exists() || read(swap) == "33554432");
    let enabled = read(top.unified().join("cgroup.controllers"));
    assert!(["cpu", "cpuset", "io", "memory", "pids"].iter().all(|name| enabled.contains(name)), "{enabled}");
    assert_eq!(bpf::device_filters(cgroup.v2_directory().unwrap()).unwrap().len(), 1);
    let mut sleeper = Sleeper::start();
    cgroup.join(sleeper.pid(), super::super::Hierarchies::Every).unwrap();
    cgroup.verify(&sleeper.cgroups()).unwrap();
    let stats = cgroup.stats().unwrap();
    assert_eq!((stats.pids.current, stats.pids.limit, stats.memory.usage.limit), (1, 9, 67_108_864));
    // One half of a pair leaves the other.
    for (update, file, expected) in [
        (json!({"cpu": {"quota": 6000}}), "cpu.max", "6000 10000"),
        (json!({"cpu": {"period": 20000}}), "cpu.max", "6000 20000"),
        (json!({"cpu": {"quota": -1}}), "cpu.max", "max 20000"),
        (json!({"cpu": {"idle": 1}}), "cpu.idle", "1"),
        (json!({"cpu": {"shares": 2048, "idle": 0}}), "cpu.weight", "174"),
        (json!({"memory": {"limit": -1}}), "memory.max", "max"),
    ] {
        cgroup.update(&resources(update.clone())).unwrap();
        assert_eq!(read(top.unified().join(file)), expected, "{update}");
    }
    let tight = json!({"memory": {"limit": 4096, "checkBeforeUpdate": true}});
    let report = cgroup.update(&resources(tight)).unwrap_err().report();
    assert!(report.starts_with("rejecting memory limit 4096 <= usage "), "{report}");
    cgroup.kill_all().unwrap();
    sleeper.wait();
    cgroup.delete().unwrap();
    assert!(!top.unified().exists());
}

#[test]
fn hugepages_are_limited_where_v2_counts_them() {
    let Some(top) = Top::on_v2() else { return };
    let limits = resources(json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}]}));
    let (cgroup, _) = top.plan(Some(&limits)).create().unwrap();
    assert_eq!(read(top.unified().join("hugetlb.2MB.max")), "4194304");
    assert_eq!(read(top.unified().join("hugetlb.2MB.rsvd.max")), "4194304");
    cgroup.delete().unwrap();
}

#[test]
fn without_permission_limits_are_lost_aloud_and_their_absence_is_silent() {
    // sysfs refuses to make directories, whoever asks.
    let layout = Layout::parse("0::/\n", "1 0 0:1 / /sys/kernel rw - cgroup2 cgroup2 rw\n");
    let limits = json!({"memory": {"limit": 7}, "devices": [{"allow": false, "access": "rwm"}]});
    let error = plan_at(&layout, limits.clone(), Tolerance::Require).create().err().unwrap();
    assert!(error.report().starts_with("make cgroup /sys/kernel/above/box: "), "{error:?}");
    assert_eq!(error.hint(), Some(DELEGATION_HINT));
    let (cgroup, warnings) = plan_at(&layout, limits, Tolerance::WarnWhenDenied).create().unwrap();
    assert!(cgroup.v2_directory().is_none());
    assert_eq!(
        warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["limits without effect, since permission is missing: memory.limit"]
    );
    let devices_alone = json!({"devices": [{"allow": false, "access": "rwm"}]});
    let (_, warnings) = plan_at(&layout, devices_alone, Tolerance::WarnWhenDenied).create().unwrap();
    assert_eq!(warnings, []);
}

#[test]
fn an_ordinary_user_gets_what_is_delegated() {
    if rustix::process::geteuid().is_root() {
        not_run("needs an ordinary user");
        return;
    }
    let layout = Layout::probe().unwrap();
    let limits = resources(json!({"memory": {"limit": 67_108_864}, "pids": {"limit": 9}}));
    let id = format!("husk-test-{}", std::process::id());
    let request = Request {
        container_id: &id,
        cgroups_path: None,
        annotations: None,
        delegate_to: None,
        resources: Some(&limits),
        driver: Driver::Cgroupfs,
        tolerance: Tolerance::WarnWhenDenied,
    };
    let (cgroup, warnings) = plan(&layout, &request).unwrap().create().unwrap();
    let Some(directory) = &cgroup.unified else {
        not_run("nothing is delegated to this user; it was told so");
        assert_eq!(warnings.len(), 1);
        let text = warnings[0].to_string();
        assert!(text.starts_with("limits without effect, since permission is missing: "), "{text}");
        assert!(text.contains("memory.limit") && text.contains("pids.limit"), "{text}");
        assert!(plan(&layout, &Request { tolerance: Tolerance::Require, ..request }).unwrap().create().is_err());
        return;
    };
    assert_eq!(warnings, []);
    assert_eq!(read(directory.path.join("memory.max")), "67108864");
    let mut sleeper = Sleeper::start();
    cgroup.join(sleeper.pid(), super::super::Hierarchies::Every).unwrap();
    cgroup.verify(&sleeper.cgroups()).unwrap();
    cgroup.freeze().unwrap();
    cgroup.kill_all().unwrap();
    sleeper.wait();
    cgroup.delete().unwrap();
}

#[test]
fn what_was_begun_is_undone_also_after_somebody_was_inside() {
    let Some(top) = Top::new() else { return };
    let mut begun = top.plan(None).begin().unwrap();
    begun.finish().unwrap();
    let sleeper = Sleeper::start();
    begun.cgroup().join(sleeper.pid(), super::super::Hierarchies::Every).unwrap();
    drop(sleeper);
    drop(begun);
    assert!(top.tops().all(|path| !path.exists()));
}
