use serde_json::json;

use super::super::testing::{Sleeper, Top, not_run, read, resources};
use super::*;

const MIB: i64 = 1 << 20;

fn recorded() -> Cgroup {
    let directory = |controllers: &str, path: &str, shown: &str| Directory {
        controllers: controllers.into(),
        path: path.into(),
        shown: shown.into(),
    };
    Cgroup {
        unified: None,
        unified_fd: None,
        scope: None,
        adopts: false,
        legacy: vec![
            directory("cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct/box", "/box"),
            directory("memory", "/sys/fs/cgroup/memory/box", "/docker/abc/box"),
        ],
    }
}

#[test]
fn a_process_elsewhere_is_found_out() {
    let cgroup = recorded();
    assert!(cgroup.verify("3:memory:/docker/abc/box\n2:pids:/\n1:cpu,cpuacct:/box\n0::/\n").is_ok());
    for (text, expected) in [
        ("3:memory:/docker/abc/box\n1:cpu,cpuacct:/\n", "cgroup / of hierarchy cpu,cpuacct instead of /box"),
        ("3:memory:/docker/abc/boxes\n1:cpu,cpuacct:/box\n", "cgroup /docker/abc/boxes of hierarchy memory"),
        ("3:memory:/docker/abc/box (deleted)\n1:cpu,cpuacct:/box\n", "(deleted)"),
        ("1:cpu,cpuacct:/box\n", "cgroup none of hierarchy memory"),
    ] {
        let report = cgroup.verify(text).unwrap_err().report();
        assert!(report.contains(expected), "{report}");
    }
}

#[test]
fn a_record_survives_json_and_reads_like_runcs() {
    let record = recorded().record();
    let text = serde_json::to_string(&record).unwrap();
    assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
    let paths = record.cgroup_paths();
    assert_eq!(paths["cpu"], Path::new("/sys/fs/cgroup/cpu,cpuacct/box"));
    assert_eq!(paths["cpuacct"], paths["cpu"]);
    assert_eq!(paths.len(), 3);
    assert_eq!(Cgroup::open(record.clone()).unwrap().record(), record);
}

#[test]
fn the_v2_cgroup_of_a_process_that_moved() {
    let directory =
        |path: &str, shown: &str| Directory { controllers: String::new(), path: path.into(), shown: shown.into() };
    for (path, shown, found, expected) in [
        ("/sys/fs/cgroup/box", "/box", "/box", Some("/sys/fs/cgroup/box")),
        ("/sys/fs/cgroup/box", "/box", "/box/init.scope", Some("/sys/fs/cgroup/box/init.scope")),
        ("/sys/fs/cgroup/box", "/box", "/boxes", Some("/sys/fs/cgroup/boxes")),
        ("/sys/fs/cgroup/a/box", "/a/box", "/", Some("/sys/fs/cgroup/")),
        ("/sys/fs/cgroup/box", "/box", "/../other", None),
        ("/sys/fs/cgroup/box", "/docker/box", "/docker", None),
        ("/sys/fs/cgroup/box", "/box", "", None),
    ] {
        let record = Record { directories: vec![directory(path, shown)], scope: None };
        let moved = record.with_unified_of(&format!("1:cpu:/x\n0::{found}\n"));
        assert_eq!(moved.ok().map(|record| record.directories[0].path.clone()), expected.map(PathBuf::from), "{found}");
    }
}

#[test]
fn a_subgroup_is_below_and_exists() {
    let Some(top) = Top::new() else { return };
    let (cgroup, _) = top.plan(None).create().unwrap();
    for directory in cgroup.directories() {
        std::fs::create_dir(directory.path.join("inner")).unwrap();
        std::fs::create_dir(directory.path.with_file_name("box-sibling")).unwrap();
    }
    for path in ["..", "../box-sibling", "a/../../b", "inner/../../box-sibling", "missing", "/missing"] {
        assert!(cgroup.subgroup(None, Path::new(path)).is_err(), "{path}");
    }
    let inner = cgroup.subgroup(None, Path::new("/inner")).unwrap();
    assert!(inner.directories().all(|directory| directory.path.ends_with("box/inner")));
    assert!(inner.directories().all(|directory| directory.shown.ends_with("/box/inner")));
    assert_eq!(cgroup.subgroup(None, Path::new("/")).unwrap().record(), cgroup.record());
    assert!(cgroup.subgroup(Some("nonsense"), Path::new("inner")).is_err());
    if cgroup.with("memory").is_some() {
        let narrowed = cgroup.subgroup(Some("memory"), Path::new("inner")).unwrap();
        let moved: Vec<&Directory> = narrowed.directories().filter(|held| held.path.ends_with("inner")).collect();
        assert_eq!(moved.len(), 1);
    }
    cgroup.delete().unwrap();
}

#[test]
fn a_thread_enters_by_itself() {
    let Some(top) = Top::on_v1() else { return };
    let (mut cgroup, _) = top.plan(None).create().unwrap();
    let entrances = cgroup.entrances(Hierarchies::Legacy).unwrap();
    assert_eq!(entrances.fds().len(), cgroup.legacy.len());
    let entrances = Entrances::from_fds(entrances.into_fds());
    let seen = std::thread::spawn(move || {
        entrances.enter().unwrap();
        std::fs::read_to_string("/proc/thread-self/cgroup").unwrap()
    });
    let seen = seen.join().unwrap();
    // v2 is entered by the clone.
    let unified = cgroup.unified.take();
    cgroup.verify(&seen).unwrap();
    cgroup.unified = unified;
    cgroup.delete().unwrap();
}

#[test]
fn a_process_is_moved_listed_frozen_and_killed() {
    let Some(top) = Top::new() else { return };
    let (cgroup, _) = top.plan(None).create().unwrap();
    assert!(cgroup.is_empty().unwrap());
    let mut sleeper = Sleeper::start();
    assert!(cgroup.verify(&sleeper.cgroups()).is_err());
    cgroup.join(sleeper.pid(), Hierarchies::Every).unwrap();
    cgroup.verify(&sleeper.cgroups()).unwrap();
    assert_eq!(cgroup.processes().unwrap(), [sleeper.pid()]);
    assert!(!cgroup.is_empty().unwrap());

    let cgroup = Cgroup::open(cgroup.record()).unwrap();
    assert!(!cgroup.is_frozen().unwrap());
    cgroup.freeze().unwrap();
    assert!(cgroup.is_frozen().unwrap());
    cgroup.freeze().unwrap();
    cgroup.thaw().unwrap();
    assert!(!cgroup.is_frozen().unwrap());

    // A frozen process is killed too.
    cgroup.freeze().unwrap();
    cgroup.kill_all().unwrap();
    let status = sleeper.wait();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    cgroup.delete().unwrap();
    for path in top.tops() {
        assert!(!path.join("box").exists());
    }
}

#[test]
fn each_way_of_freezing_and_killing_works_alone() {
    let Some(top) = Top::on_v1() else { return };
    let Some(_) = &top.layout.unified else {
        not_run("needs a v2 hierarchy beside v1");
        return;
    };
    let (whole, _) = top.plan(None).create().unwrap();
    let record = whole.record();
    let only = |keep: &dyn Fn(&Directory) -> bool| {
        let directories = record.directories.iter().filter(|held| keep(held)).cloned().collect();
        Cgroup::open(Record { directories, scope: None }).unwrap()
    };
    for (name, cgroup) in [
        ("v2", only(&|held| held.controllers.is_empty())),
        ("v1", only(&|held| !held.controllers.is_empty())),
        ("v1 without a freezer", only(&|held| held.has("pids"))),
    ] {
        let mut sleepers = [Sleeper::start(), Sleeper::start()];
        for sleeper in &sleepers {
            cgroup.join(sleeper.pid(), Hierarchies::Every).unwrap();
        }
        assert_eq!(cgroup.freeze().is_ok(), name != "v1 without a freezer");
        assert_eq!(cgroup.is_frozen().unwrap(), name != "v1 without a freezer");
        cgroup.kill_all().unwrap();
        for sleeper in &mut sleepers {
            let status = sleeper.wait();
            assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{name}");
        }
    }
    whole.delete().unwrap();
}

#[test]
fn signals_reach_everyone_once() {
    let Some(top) = Top::new() else { return };
    let (cgroup, _) = top.plan(None).create().unwrap();
    let mut sleeper = Sleeper::start();
    cgroup.join(sleeper.pid(), Hierarchies::Every).unwrap();
    cgroup.signal_all(rustix::process::Signal::TERM).unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&sleeper.wait()), Some(15));
    cgroup.delete().unwrap();
}

#[test]
fn removal_waits_for_the_dying_and_takes_children_along() {
    let Some(top) = Top::new() else { return };
    let (cgroup, _) = top.plan(None).create().unwrap();
    let directories: Vec<PathBuf> = cgroup.directories().map(|held| held.path.clone()).collect();
    for path in &directories {
        std::fs::create_dir_all(path.join("a/b/c")).unwrap();
        std::fs::create_dir_all(path.join("d")).unwrap();
    }
    let sleeper = Sleeper::start();
    cgroup.join(sleeper.pid(), Hierarchies::Every).unwrap();
    // Dies, and is reaped, while the removal waits.
    let killer = std::thread::spawn(move || {
        rustix::process::kill_process(sleeper.pid(), rustix::process::Signal::KILL).unwrap();
        drop(sleeper);
    });
    cgroup.delete().unwrap();
    killer.join().unwrap();
    assert!(directories.iter().all(|path| !path.exists()));
}

#[test]
fn limits_that_depend_on_each_other_change_in_any_direction() {
    let Some(top) = Top::on_v1() else { return };
    let (cgroup, _) = top.plan(None).create().unwrap();
    let (memory, cpu) = (top.legacy("memory"), top.legacy("cpu"));
    let counts_swap = memory.join("memory.memsw.limit_in_bytes").exists();
    for (limit, swap) in [(64, 128), (256, 512), (32, 32), (512, 512), (16, 1024)] {
        let swap = counts_swap.then_some(swap * MIB);
        let limits = json!({"memory": {"limit": limit * MIB, "swap": swap}});
        cgroup.update(&resources(limits)).unwrap();
        assert_eq!(read(memory.join("memory.limit_in_bytes")), (limit * MIB).to_string());
        if let Some(swap) = swap {
            assert_eq!(read(memory.join("memory.memsw.limit_in_bytes")), swap.to_string());
        }
    }
    cgroup.update(&resources(json!({"memory": {"limit": -1}}))).unwrap();
    assert!(read(memory.join("memory.limit_in_bytes")).parse::<u64>().unwrap() > 1 << 60);
    // The quota above bounds the ratio.
    for (quota, period) in [(50_000, 100_000), (5_000, 10_000), (500_000, 1_000_000), (2_000, 4_000)] {
        let outer = cpu.with_file_name("").join("cpu.cfs_quota_us");
        file::try_write(&outer, "-1").unwrap();
        cgroup.update(&resources(json!({"cpu": {"quota": quota, "period": period}}))).unwrap();
        file::try_write(&cpu.with_file_name("").join("cpu.cfs_period_us"), "100000").unwrap();
        file::try_write(&outer, "50000").unwrap();
        assert_eq!(read(cpu.join("cpu.cfs_quota_us")), quota.to_string());
        assert_eq!(read(cpu.join("cpu.cfs_period_us")), period.to_string());
    }
    let error = cgroup.update(&resources(json!({"cpu": {"quota": 60_000, "period": 100_000}}))).unwrap_err();
    assert!(error.report().starts_with("set linux.resources.cpu.quota: write `60000` to "), "{error:?}");
    cgroup.delete().unwrap();
}

#[test]
fn no_cgroups_at_all_is_no_trouble() {
    let cgroup = Cgroup::open(Record::default()).unwrap();
    assert!(cgroup.v2_directory().is_none());
    assert!(cgroup.is_empty().unwrap() && !cgroup.is_frozen().unwrap());
    cgroup.entrances(Hierarchies::Every).unwrap().enter().unwrap();
    cgroup.verify("0::/\n").unwrap();
    cgroup.kill_all().unwrap();
    assert!(cgroup.freeze().is_err());
    cgroup.delete().unwrap();
}
