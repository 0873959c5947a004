//! Landlock by annotation: files, ports, scopes; what the kernel lacks; what is wrong.

use serde_json::{Value, json};

use super::support::{Bundle, Guest, Need, Scene, Test, test};

const ANNOTATION: &str = "org.husk.landlock";

// Of linux/landlock.h.
const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const MAKE_DIR: u64 = 1 << 7;
const CONNECT_TCP: u64 = 1 << 1;
/// What a program needs of `/` to run and look around.
const LOOK: u64 = EXECUTE | READ_FILE | READ_DIR;

pub(crate) fn tests() -> Vec<Test> {
    [
        test!(files_are_kept_from_the_workload).and_plain(),
        test!(without_no_new_privileges_too).and_plain(),
        test!(exec_is_restricted_too).and_plain(),
        test!(a_created_container_is_restricted),
        test!(hooks_inside_come_before),
        test!(ports_are_kept_from_it).needs(Need::Landlock(4)),
        test!(signals_stay_inside).root().needs(Need::Landlock(6)),
        test!(paths_are_the_containers).root(),
        test!(what_the_kernel_lacks_is_refused_or_left_out),
        test!(mistakes_are_named),
    ]
    .map(|test| test.needs(Need::Husk).needs(Need::Landlock(1)))
    .into()
}

fn with<'a>(scene: &'a Scene, rules: &Value) -> Bundle<'a> {
    let mut bundle = scene.bundle();
    bundle.config["annotations"] = json!({ ANNOTATION: rules.to_string() });
    bundle
}

/// Reads of all, writes and new directories below `/dev/shm` alone.
fn modest() -> Value {
    json!({
        "abi": 1,
        "handledAccessFs": LOOK | WRITE_FILE | MAKE_DIR,
        "rules": [
            { "path": "/", "allowedAccess": LOOK },
            { "path": "/dev", "allowedAccess": WRITE_FILE },
            { "path": "/dev/shm", "allowedAccess": MAKE_DIR },
        ],
    })
}

const TRIES: [&str; 4] = ["mkdir:/dev/shm/x", "mkdir:/dev/x", "open:/etc/passwd", "open-write:/proc/self/comm"];

fn assert_modest(tries: &Value) {
    let expected = json!({ TRIES[0]: "ok", TRIES[1]: "EACCES", TRIES[2]: "ok", TRIES[3]: "EACCES" });
    assert_eq!(tries, &expected);
}

fn files_are_kept_from_the_workload(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.tries(TRIES);
    assert_eq!(bundle.report()["tries"]["mkdir:/dev/x"], "ok", "without the annotation all is allowed");
    let mut bundle = with(scene, &modest());
    bundle.tries(TRIES);
    let report = bundle.report();
    assert_modest(&report["tries"]);
    // The ruleset was not left open.
    assert_eq!(report["fds"].as_object().map(serde_json::Map::len), Some(3), "{}", report["fds"]);
}

/// It is put on while CAP_SYS_ADMIN is there, which the workload has not.
fn without_no_new_privileges_too(scene: &Scene) {
    let mut bundle = with(scene, &modest());
    bundle.config["process"]["noNewPrivileges"] = json!(false);
    bundle.tries(TRIES);
    let report = bundle.report();
    assert_eq!(report["no_new_privs"], false);
    assert_modest(&report["tries"]);
}

fn exec_is_restricted_too(scene: &Scene) {
    let guest = Guest::start(scene, with(scene, &modest()));
    let words: Vec<&str> = TRIES.iter().flat_map(|what| ["--try", what]).collect();
    assert_modest(&guest.report(&[], &words)["tries"]);
}

fn a_created_container_is_restricted(scene: &Scene) {
    let mut bundle = with(scene, &modest());
    bundle.tries(TRIES).write();
    let mut command = scene.runtime();
    command.arg("create").arg("--bundle").arg(&bundle.directory).arg(&bundle.id);
    let mut creating = command.start();
    creating.wait();
    scene.runtime().args(["start", &bundle.id]).run().success();
    assert_modest(&creating.report()["tries"]);
    creating.finish().success();
    scene.runtime().args(["delete", "--force", &bundle.id]).run().success();
}

/// The hooks are the runtime's, not the workload's.
fn hooks_inside_come_before(scene: &Scene) {
    let mut bundle = with(scene, &modest());
    bundle.config["hooks"]["startContainer"] = json!([{ "path": "/bin/sh", "args": ["sh", "-c", "mkdir /dev/x"] }]);
    bundle.tries(["mkdir:/dev/y"]).probe(["--stat", "/dev/x"]);
    let report = bundle.report();
    assert_eq!(
        (&report["stats"]["/dev/x"]["kind"], &report["tries"]["mkdir:/dev/y"]),
        (&json!("directory"), &json!("EACCES"))
    );
}

fn ports_are_kept_from_it(scene: &Scene) {
    let rules = json!({
        "abi": 4, "handledAccessNet": CONNECT_TCP, "rules": [{ "port": 443, "allowedAccess": CONNECT_TCP }],
    });
    let mut bundle = with(scene, &rules);
    // Nobody listens: a connection that may be made is refused by the network.
    bundle.tries(["connect:127.0.0.1:443", "connect:127.0.0.1:80"]);
    let expected = json!({ "connect:127.0.0.1:443": "ECONNREFUSED", "connect:127.0.0.1:80": "EACCES" });
    assert_eq!(bundle.report()["tries"], expected);
}

/// A scope keeps signals from processes outside of the ruleset, here the host's.
fn signals_stay_inside(scene: &Scene) {
    for (scoped, outcome) in [(0, "ok"), (2, "EPERM")] {
        let mut bundle = with(scene, &json!({ "abi": 6, "handledAccessFs": 1 << 12, "scoped": scoped }));
        bundle.without_namespace("pid");
        let parent = format!("kill:{}", std::process::id());
        bundle.tries([&parent[..]]);
        assert_eq!(bundle.report()["tries"][&parent], outcome, "scoped {scoped}");
    }
}

/// Links are followed inside the container, and the host's file of the name does not count.
fn paths_are_the_containers(scene: &Scene) {
    let outside = scene.tree("outside", &[("file", "text")]);
    let rules = json!({
        "handledAccessFs": READ_FILE,
        "rules": [{ "path": "/probe", "allowedAccess": READ_FILE }, { "path": "/link", "allowedAccess": READ_FILE }],
    });
    let mut bundle = with(scene, &rules);
    std::os::unix::fs::symlink("/../../../etc/group", bundle.rootfs("link")).expect("make a link");
    bundle.tries(["open:/etc/group", "open:/etc/passwd"]);
    assert_eq!(bundle.report()["tries"], json!({ "open:/etc/group": "ok", "open:/etc/passwd": "EACCES" }));
    let missing = json!({
        "handledAccessFs": READ_FILE,
        "rules": [{ "path": "/", "allowedAccess": READ_FILE }, { "path": outside, "allowedAccess": READ_FILE }],
    });
    with(scene, &missing)
        .run()
        .exits_with(1)
        .says("org.husk.landlock: rules[1]: open ")
        .says("in the container: no such file or directory (ENOENT)");
    let mut willing = missing;
    willing["bestEffort"] = json!(true);
    with(scene, &willing).run().success();
}

fn what_the_kernel_lacks_is_refused_or_left_out(scene: &Scene) {
    let future = |best_effort: bool| {
        json!({
            "handledAccessFs": (1_u64 << 40) | MAKE_DIR, "bestEffort": best_effort,
            "rules": [{ "path": "/dev/shm", "allowedAccess": (1_u64 << 40) | MAKE_DIR }],
        })
    };
    with(scene, &future(false))
        .run_as_husk()
        .exits_with(1)
        .says("org.husk.landlock: a handled right that this kernel's Landlock (ABI ")
        .says("hint: \"bestEffort\": true leaves out what the kernel lacks");
    let mut bundle = with(scene, &future(true));
    bundle.tries([TRIES[0], TRIES[1]]);
    let outcome = bundle.run().success();
    assert_eq!(outcome.report()["tries"], json!({ TRIES[0]: "ok", TRIES[1]: "EACCES" }));
    outcome.says("org.husk.landlock: handledAccessFs: 0x10000000000 is not known to this kernel and left out");
    with(scene, &json!({ "abi": 1000, "handledAccessFs": 1 }))
        .run()
        .exits_with(1)
        .says("org.husk.landlock: abi: asks for Landlock 1000, and this kernel has ");
}

fn mistakes_are_named(scene: &Scene) {
    for (rules, message) in [
        (json!({}), "handles nothing"),
        (json!([]), "org.husk.landlock: "),
        (json!({ "handledAccessFS": 1 }), "unknown field `handledAccessFS`"),
        (json!({ "handledAccessFs": 1, "rules": [{ "allowedAccess": 1 }] }), "rules[0]: needs either a path or a port"),
        (
            json!({ "handledAccessFs": 1, "rules": [{ "path": "etc", "allowedAccess": 1 }] }),
            "rules[0].path: \"etc\" is not an absolute path",
        ),
        // Not handled, and of a directory what only a directory has.
        (
            json!({ "handledAccessFs": READ_FILE, "rules": [{ "path": "/", "allowedAccess": EXECUTE }] }),
            "rules[0]: path /: invalid argument (EINVAL)",
        ),
        (
            json!({ "handledAccessFs": READ_DIR, "rules": [{ "path": "/probe", "allowedAccess": READ_DIR }] }),
            "rules[0]: path /probe: invalid argument (EINVAL)",
        ),
        (json!({ "handledAccessFs": 1, "restrictFlags": 1_u32 << 31 }), "restrict the process by Landlock"),
    ] {
        with(scene, &rules).run().exits_with(1).says("org.husk.landlock: ").says(message);
    }
}
