//! Limits that belong to the process: rlimits, the OOM score, sysctls.

use serde_json::json;

use super::support::{Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(rlimits_are_exact).and_plain(),
        test!(rlimits_of_every_type).root(),
        test!(an_unknown_rlimit_is_refused),
        test!(a_duplicate_rlimit_is_refused).needs(Need::Husk),
        test!(a_soft_limit_above_the_hard_one_is_refused),
        test!(oom_score_is_set).and_plain(),
        test!(oom_score_can_be_lowered).root().needs(Need::Capability(caps::Capability::CAP_SYS_RESOURCE)),
        test!(sysctls_are_set).and_plain(),
        test!(sysctls_of_the_host_are_refused).root(),
        test!(sysctls_need_their_namespace).root(),
    ]
}

fn rlimits_are_exact(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["process"]["rlimits"] = json!([
        { "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 },
        { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
        { "type": "RLIMIT_STACK", "soft": 1_048_576, "hard": 2_097_152 },
    ]);
    let limits = &bundle.report()["rlimits"];
    assert_eq!(limits["RLIMIT_NOFILE"], json!([100, 200]));
    assert_eq!(limits["RLIMIT_CORE"], json!([0, 0]));
    assert_eq!(limits["RLIMIT_STACK"], json!([1_048_576, 2_097_152]));
}

fn rlimits_of_every_type(scene: &Scene) {
    // Large enough to run under, small enough to be no default.
    let wanted = [
        ("RLIMIT_AS", 1_u64 << 40),
        ("RLIMIT_CORE", 1 << 20),
        ("RLIMIT_CPU", 7777),
        ("RLIMIT_DATA", 1 << 39),
        ("RLIMIT_FSIZE", 1 << 38),
        ("RLIMIT_LOCKS", 7777),
        ("RLIMIT_MEMLOCK", 1 << 30),
        ("RLIMIT_MSGQUEUE", 1 << 20),
        ("RLIMIT_NICE", 30),
        ("RLIMIT_NOFILE", 333),
        ("RLIMIT_NPROC", 54_321),
        ("RLIMIT_RSS", 1 << 37),
        ("RLIMIT_RTPRIO", 50),
        ("RLIMIT_RTTIME", 7_777_777),
        ("RLIMIT_SIGPENDING", 777),
        ("RLIMIT_STACK", 1 << 23),
    ];
    // Raising a hard limit takes a capability that a sandboxed root may not have.
    let ours = super::probe::report::rlimits();
    let wanted = wanted.map(|(name, limit)| (name, ours[name][1].as_u64().map_or(limit, |hard| hard.min(limit))));
    let mut bundle = scene.bundle();
    bundle.config["process"]["rlimits"] =
        wanted.iter().map(|(name, limit)| json!({ "type": name, "soft": limit, "hard": limit })).collect();
    let report = bundle.report();
    for (name, limit) in wanted {
        assert_eq!(report["rlimits"][name], json!([limit, limit]), "{name}");
    }
}

fn an_unknown_rlimit_is_refused(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["process"]["rlimits"] = json!([{ "type": "RLIMIT_JOY", "soft": 1, "hard": 1 }]);
    bundle.run().exits_with(1).says("RLIMIT_JOY");
}

fn a_duplicate_rlimit_is_refused(scene: &Scene) {
    let mut bundle = scene.bundle();
    let limit = json!({ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 100 });
    bundle.config["process"]["rlimits"] = json!([limit, limit]);
    bundle.run().exits_with(1).says("RLIMIT_NOFILE");
}

fn a_soft_limit_above_the_hard_one_is_refused(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 200, "hard": 100 }]);
    bundle.run().exits_with(1).says_one_of(&["RLIMIT_NOFILE", "rlimit"]);
}

fn oom_score_is_set(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["process"]["oomScoreAdj"] = json!(567);
    assert_eq!(bundle.report()["oom_score_adj"], 567);
}

fn oom_score_can_be_lowered(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["process"]["oomScoreAdj"] = json!(-345);
    assert_eq!(bundle.report()["oom_score_adj"], -345);
}

fn sysctls_are_set(scene: &Scene) {
    let wanted = [
        ("net.ipv4.ip_forward", "/proc/sys/net/ipv4/ip_forward", "1"),
        ("net.ipv4.ping_group_range", "/proc/sys/net/ipv4/ping_group_range", "0\t0"),
        ("kernel.shm_rmid_forced", "/proc/sys/kernel/shm_rmid_forced", "1"),
        ("kernel.msgmax", "/proc/sys/kernel/msgmax", "12345"),
        ("fs.mqueue.msg_max", "/proc/sys/fs/mqueue/msg_max", "77"),
    ];
    let mut bundle = scene.bundle();
    for (name, path, value) in wanted {
        bundle.config["linux"]["sysctl"][name] = json!(value.replace('\t', " "));
        bundle.probe(["--read", path]);
    }
    let report = bundle.report();
    for (name, path, value) in wanted {
        assert_eq!(report["reads"][path].as_str().unwrap().trim(), value, "{name}");
    }
}

/// CVE-2022-0811: a sysctl of the host is the host.
fn sysctls_of_the_host_are_refused(scene: &Scene) {
    let path = "/proc/sys/kernel/core_pattern";
    let before = std::fs::read_to_string(path).unwrap();
    for name in ["kernel.core_pattern", "vm.swappiness", "fs.file-max", "kernel/core_pattern"] {
        let mut bundle = scene.bundle();
        bundle.config["linux"]["sysctl"] = json!({ name: "60" });
        bundle.run().exits_with(1).says_one_of(&[name, &name.replace('/', ".")]);
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), before);
}

fn sysctls_need_their_namespace(scene: &Scene) {
    for (namespace, name) in [("network", "net.ipv4.ip_forward"), ("ipc", "kernel.shm_rmid_forced")] {
        let mut bundle = scene.bundle();
        bundle.without_namespace(namespace);
        bundle.config["linux"]["sysctl"] = json!({ name: "1" });
        bundle.run().exits_with(1).says_one_of(&[name, namespace]);
    }
}
