//! Device nodes, the links of /dev, and paths hidden or frozen.

use serde_json::{Value, json};

use super::support::scene::write;
use super::support::{Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(default_devices).and_plain(),
        test!(links_of_dev).and_plain(),
        test!(a_listed_ptmx_is_the_containers_own).and_plain(),
        test!(devices_work).and_plain(),
        test!(listed_devices_are_made).root(),
        test!(a_device_of_the_host_is_bound).user().needs(Need::File("/dev/fuse")).needs(Need::NotCrun),
        test!(an_unknown_device_type_is_refused).root().needs(Need::NotCrun),
        test!(rules_decide_what_opens).root(),
        test!(letters_that_name_no_access).root().needs(Need::NotCrun),
        test!(unlisted_devices_can_not_be_made).root(),
        test!(masked_files_read_as_empty).and_plain(),
        test!(masked_directories_are_empty).and_plain(),
        test!(missing_paths_are_ignored).and_plain(),
        test!(readonly_paths_can_not_be_written).and_plain(),
    ]
}

const DEFAULTS: [(&str, [u32; 2]); 6] = [
    ("/dev/null", [1, 3]),
    ("/dev/zero", [1, 5]),
    ("/dev/full", [1, 7]),
    ("/dev/random", [1, 8]),
    ("/dev/urandom", [1, 9]),
    ("/dev/tty", [5, 0]),
];

fn default_devices(scene: &Scene) {
    let mut bundle = scene.bundle();
    for (path, _) in DEFAULTS {
        bundle.probe(["--stat", path]);
    }
    let report = bundle.report();
    for (path, numbers) in DEFAULTS {
        let node = &report["stats"][path];
        assert_eq!(
            (&node["kind"], &node["device"], &node["mode"]),
            (&json!("char"), &json!(numbers), &json!("666")),
            "{path}"
        );
    }
}

fn links_of_dev(scene: &Scene) {
    let links = [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
        ("/dev/ptmx", "pts/ptmx"),
    ];
    let mut bundle = scene.bundle();
    for (path, _) in links {
        bundle.probe(["--stat", path]);
    }
    let report = bundle.report();
    for (path, target) in links {
        assert_eq!(report["stats"][path]["target"], target, "{path}");
    }
}

/// Engines list it with the others; the host's node would make terminals that belong to the host.
fn a_listed_ptmx_is_the_containers_own(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["linux"]["devices"] = json!([{ "path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2 }]);
    assert_eq!(bundle.probe(["--stat", "/dev/ptmx"]).report()["stats"]["/dev/ptmx"]["target"], "pts/ptmx");
}

fn devices_work(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.tries(["write:/dev/null", "write:/dev/zero", "write:/dev/full", "open:/dev/urandom"]);
    let tries = bundle.report()["tries"].clone();
    assert_eq!(tries["write:/dev/null"], "ok");
    assert_eq!(tries["write:/dev/zero"], "ok");
    assert_eq!(tries["write:/dev/full"], "ENOSPC");
    assert_eq!(tries["open:/dev/urandom"], "ok");
}

fn listed_devices_are_made(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["linux"]["devices"] = json!([
        { "path": "/dev/letters", "type": "c", "major": 1, "minor": 11, "fileMode": 0o640, "uid": 12, "gid": 34 },
        { "path": "/dev/deep/er/blocks", "type": "b", "major": 7, "minor": 200, "fileMode": 0o600 },
        { "path": "/dev/pipe", "type": "p", "fileMode": 0o622 },
        { "path": "/dev/unbuffered", "type": "u", "major": 1, "minor": 5, "fileMode": 0o666 },
    ]);
    for path in ["/dev/letters", "/dev/deep/er/blocks", "/dev/pipe", "/dev/unbuffered"] {
        bundle.probe(["--stat", path]);
    }
    let stats = bundle.report()["stats"].clone();
    let shown = |path: &str| {
        let node = &stats[path];
        (node["kind"].clone(), node["device"].clone(), node["mode"].clone(), node["uid"].clone(), node["gid"].clone())
    };
    let expected =
        |kind: &str, device: [u32; 2], mode: &str, uid: u32, gid: u32| -> (Value, Value, Value, Value, Value) {
            (json!(kind), json!(device), json!(mode), json!(uid), json!(gid))
        };
    assert_eq!(shown("/dev/letters"), expected("char", [1, 11], "640", 12, 34));
    assert_eq!(shown("/dev/deep/er/blocks"), expected("block", [7, 200], "600", 0, 0));
    assert_eq!(shown("/dev/pipe"), expected("fifo", [0, 0], "622", 0, 0));
    assert_eq!(shown("/dev/unbuffered"), expected("char", [1, 5], "666", 0, 0));
}

/// A user namespace can't make nodes: the host's own is bound.
fn a_device_of_the_host_is_bound(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["linux"]["devices"] = json!([{ "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229 }]);
    bundle.probe(["--stat", "/dev/fuse"]);
    let node = bundle.report()["stats"]["/dev/fuse"].clone();
    assert_eq!((&node["kind"], &node["device"]), (&json!("char"), &json!([10, 229])));
}

fn an_unknown_device_type_is_refused(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["linux"]["devices"] = json!([{ "path": "/dev/odd", "type": "x", "major": 1, "minor": 1 }]);
    bundle.run().exits_with(1).says_one_of(&["/dev/odd", "\"x\"", "x", "type"]);
}

/// What reading and writing the kernel's log comes to under rules.
fn opens_under(scene: &Scene, rules: &Value) -> [Value; 2] {
    let mut bundle = scene.bundle();
    // Readable for anybody who may, so that only the rules decide.
    bundle.config["linux"]["devices"] =
        json!([{ "path": "/dev/log-of-the-kernel", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666 }]);
    for set in ["bounding", "permitted", "effective"] {
        bundle.config["process"]["capabilities"][set] = json!(["CAP_SYSLOG"]);
    }
    bundle.config["linux"]["resources"]["devices"] = rules.clone();
    bundle.tries(["open:/dev/log-of-the-kernel", "open-write:/dev/log-of-the-kernel"]);
    let report = bundle.report();
    ["open", "open-write"].map(|verb| report["tries"][format!("{verb}:/dev/log-of-the-kernel")].clone())
}

/// runc passes over them, and has such a rule in its own tests.
fn letters_that_name_no_access(scene: &Scene) {
    let rule = |access: &str| json!({ "allow": true, "type": "c", "major": 1, "minor": 11, "access": access });
    for (access, expected) in [("ra", ["ok", "EPERM"]), ("wrar", ["ok", "ok"])] {
        let rules = json!([{ "allow": false, "access": "rwm" }, rule(access)]);
        assert_eq!(opens_under(scene, &rules), expected.map(Value::from), "{access}");
    }
    let mut bundle = scene.bundle();
    bundle.config["linux"]["resources"]["devices"] = json!([rule("a")]);
    bundle.run().exits_with(1).says("linux.resources.devices[0].access");
}

fn rules_decide_what_opens(scene: &Scene) {
    let deny = json!({ "allow": false, "access": "rwm" });
    let rows = [
        (json!([deny]), ["EPERM", "EPERM"]),
        (json!([deny, { "allow": true, "type": "c", "major": 1, "minor": 11, "access": "r" }]), ["ok", "EPERM"]),
        (json!([deny, { "allow": true, "type": "c", "major": 1, "access": "rw" }]), ["ok", "ok"]),
        (json!([{ "allow": true, "access": "rwm" }]), ["ok", "ok"]),
        (
            json!([{ "allow": true, "access": "rwm" }, { "allow": false, "type": "c", "major": 1, "minor": 11, "access": "w" }]),
            ["ok", "EPERM"],
        ),
    ];
    for (rules, expected) in rows {
        assert_eq!(opens_under(scene, &rules), expected.map(Value::from), "{rules}");
    }
}

fn unlisted_devices_can_not_be_made(scene: &Scene) {
    let mut bundle = scene.bundle();
    for set in ["bounding", "permitted", "effective"] {
        bundle.config["process"]["capabilities"][set] = json!(["CAP_MKNOD"]);
    }
    bundle.tries(["mknod:/dev/disk:1:1", "mknod-block:/dev/block:254:0"]);
    let tries = bundle.report()["tries"].clone();
    // runc lets nodes be made (and not opened) by default; husk may do either, but must not let them be opened.
    for (path, made) in
        [("/dev/disk", &tries["mknod:/dev/disk:1:1"]), ("/dev/block", &tries["mknod-block:/dev/block:254:0"])]
    {
        assert!(made == "ok" || made == "EPERM", "{path}: {made}");
    }
    let mut bundle = scene.bundle();
    for set in ["bounding", "permitted", "effective"] {
        bundle.config["process"]["capabilities"][set] = json!(["CAP_MKNOD", "CAP_SYS_RAWIO"]);
    }
    bundle.tries(["mknod-block:/dev/block:254:0", "open:/dev/block"]);
    let opened = bundle.report()["tries"]["open:/dev/block"].clone();
    assert!(opened == "EPERM" || opened == "ENOENT", "{opened}");
}

fn masked_files_read_as_empty(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["root"]["readonly"] = json!(false);
    write(&bundle.rootfs("etc/hidden"), "secret");
    bundle.config["linux"]["maskedPaths"] = json!(["/etc/hidden", "/proc/meminfo"]);
    bundle.probe(["--read", "/etc/hidden", "--read", "/proc/meminfo"]);
    let report = bundle.report();
    assert_eq!(report["reads"], json!({ "/etc/hidden": "", "/proc/meminfo": "" }));
    assert_eq!(std::fs::read_to_string(bundle.rootfs("etc/hidden")).unwrap(), "secret");
}

fn masked_directories_are_empty(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["root"]["readonly"] = json!(false);
    std::fs::create_dir(bundle.rootfs("hidden")).unwrap();
    write(&bundle.rootfs("hidden/secret"), "secret");
    bundle.config["linux"]["maskedPaths"] = json!(["/hidden", "/sys/firmware"]);
    bundle.probe(["--list", "/hidden", "--list", "/sys/firmware", "--try", "create:/hidden/new"]);
    let report = bundle.report();
    assert_eq!(report["lists"]["/hidden"], json!([]));
    assert_eq!(report["lists"]["/sys/firmware"], json!([]));
    assert_eq!(report["tries"]["create:/hidden/new"], "EROFS");
}

fn missing_paths_are_ignored(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["linux"]["maskedPaths"] = json!(["/nowhere/at/all", "/proc/absent"]);
    bundle.config["linux"]["readonlyPaths"] = json!(["/nowhere/either", "/proc/absent"]);
    bundle.report();
}

fn readonly_paths_can_not_be_written(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["root"]["readonly"] = json!(false);
    std::fs::create_dir(bundle.rootfs("frozen")).unwrap();
    write(&bundle.rootfs("frozen/file"), "kept");
    write(&bundle.rootfs("etc/frozen"), "kept");
    bundle.config["linux"]["readonlyPaths"] = json!(["/frozen", "/etc/frozen", "/proc/sys", "/proc/sysrq-trigger"]);
    let attempts = ["write:/frozen/file", "create:/frozen/new", "write:/etc/frozen"];
    bundle.tries(attempts).tries([
        "write:/proc/sys/kernel/domainname",
        "create:/elsewhere",
        "open-write:/proc/sysrq-trigger",
    ]);
    let report = bundle.report();
    for attempt in attempts {
        assert_eq!(report["tries"][attempt], "EROFS", "{attempt}");
    }
    // Here a user may be refused by the file's mode before the mount is asked.
    assert_ne!(report["tries"]["write:/proc/sys/kernel/domainname"], "ok");
    assert_ne!(report["tries"]["open-write:/proc/sysrq-trigger"], "ok");
    assert_eq!(report["tries"]["create:/elsewhere"], "ok");
}
