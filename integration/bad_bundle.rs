//! Bad bundles: a message that names the field or file and the cause, the status that callers of a runtime expect, and
//! nothing left behind (the harness looks).

use std::os::unix::fs::{PermissionsExt, symlink};

use serde_json::{Value, json};

use super::support::scene::write;
use super::support::{Bundle, Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(a_missing_configuration).and_plain(),
        test!(a_missing_bundle).and_plain(),
        test!(malformed_json).and_plain().needs(Need::Husk),
        test!(wrong_types_are_named_by_field).and_plain().needs(Need::Husk),
        test!(wrong_values_are_named_by_field).and_plain().needs(Need::Husk),
        test!(missing_fields_are_named).and_plain().needs(Need::Husk),
        test!(fields_that_are_not_implemented_are_refused_by_name).root().needs(Need::Husk),
        test!(sections_for_others_are_passed_over_with_a_word).needs(Need::Husk),
        test!(a_configuration_that_never_ends).needs(Need::Husk),
        test!(a_missing_executable).and_plain().needs(Need::NotCrun).needs(Need::Busybox),
        test!(an_executable_without_permission).and_plain().needs(Need::NotCrun),
        test!(a_directory_as_executable).and_plain().needs(Need::NotCrun),
        test!(an_executable_of_no_known_format).and_plain(),
        test!(a_missing_interpreter).and_plain(),
        test!(a_missing_root_file_system).and_plain(),
        test!(a_root_file_system_that_is_a_file).and_plain().needs(Need::Husk),
        test!(a_root_file_system_that_is_a_link).needs(Need::NotCrun),
        test!(a_missing_working_directory).and_plain().needs(Need::Husk),
        test!(bad_ids).and_plain().needs(Need::NotCrun),
        test!(an_id_that_is_taken),
    ]
}

/// Runs what must fail, and gives the message.
#[track_caller]
fn fail(bundle: &Bundle<'_>, named: &[&str]) {
    let outcome = bundle.run().exits_with(1).says_one_of(named);
    assert!(!outcome.stderr.contains("panicked"));
    assert_eq!(outcome.stdout, "");
}

fn a_missing_configuration(scene: &Scene) {
    let bundle = scene.bundle();
    let mut command = bundle.command();
    std::fs::remove_file(bundle.directory.join("config.json")).unwrap();
    command.run().exits_with(1).says("config.json");
}

fn a_missing_bundle(scene: &Scene) {
    let mut command = scene.runtime();
    command.args(["run", "--bundle", "/no/such/bundle"]).arg(scene.id());
    command.run().exits_with(1).says("/no/such/bundle");
}

fn malformed_json(scene: &Scene) {
    for text in ["", "{", "null", "[]", "\"text\"", "{\"ociVersion\": \"1.0.2\",}", "\u{feff}{}", "{\"ociVersion\":1}"]
    {
        let bundle = scene.bundle();
        let mut command = bundle.command();
        write(&bundle.directory.join("config.json"), text);
        let outcome = command.run();
        assert_eq!(outcome.code(), 1, "{text:?}");
        assert!(outcome.stderr.contains("config.json"), "{text:?}: {}", outcome.stderr);
    }
}

/// Replaces the value at a JSON pointer, and says how the field is called in a message.
fn with_field(scene: &Scene, pointer: &str, value: &Value) -> String {
    let mut bundle = scene.bundle();
    if let Some(place) = bundle.config.pointer_mut(pointer) {
        place.clone_from(value);
    } else {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        bundle.config.pointer_mut(parent).unwrap()[name] = value.clone();
    }
    let outcome = bundle.run();
    assert_eq!(outcome.code(), 1, "{pointer} = {value}");
    assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
    outcome.stderr
}

fn wrong_types_are_named_by_field(scene: &Scene) {
    let rows = [
        ("/ociVersion", json!(1), "ociVersion"),
        ("/process", json!("sh"), "process"),
        ("/process/args", json!("sh"), "process.args"),
        ("/process/args", json!([1]), "process.args"),
        ("/process/env", json!({ "A": "B" }), "process.env"),
        ("/process/cwd", json!(7), "process.cwd"),
        ("/process/terminal", json!("yes"), "process.terminal"),
        ("/process/user/uid", json!("root"), "process.user.uid"),
        ("/process/user/uid", json!(-1), "process.user.uid"),
        ("/process/user/uid", json!(4_294_967_296_u64), "process.user.uid"),
        ("/process/capabilities", json!(["CAP_KILL"]), "process.capabilities"),
        ("/process/rlimits", json!({}), "process.rlimits"),
        ("/process/noNewPrivileges", json!(1), "process.noNewPrivileges"),
        ("/root", json!([]), "root"),
        ("/root/path", json!(true), "root.path"),
        ("/root/readonly", json!("no"), "root.readonly"),
        ("/hostname", json!(5), "hostname"),
        ("/mounts", json!({}), "mounts"),
        ("/mounts/0", json!("proc"), "mounts"),
        ("/linux", json!(true), "linux"),
        ("/linux/namespaces", json!("pid"), "linux.namespaces"),
        ("/linux/maskedPaths", json!("/proc/kcore"), "linux.maskedPaths"),
        ("/linux/sysctl", json!([]), "linux.sysctl"),
        ("/linux/resources", json!("none"), "linux.resources"),
        ("/linux/seccomp", json!({ "defaultAction": 3 }), "linux.seccomp"),
    ];
    for (pointer, value, name) in rows {
        let message = with_field(scene, pointer, &value);
        assert!(message.contains(name), "{pointer} = {value}: {message}");
    }
}

fn wrong_values_are_named_by_field(scene: &Scene) {
    let rows = [
        ("/ociVersion", json!("7.0.0"), "ociVersion"),
        ("/ociVersion", json!("newest"), "ociVersion"),
        ("/process/args", json!([]), "process.args"),
        ("/process/args", json!(["/probe", "a\u{0}b"]), "process.args"),
        ("/process/cwd", json!("relative"), "process.cwd"),
        ("/process/cwd", json!(""), "process.cwd"),
        ("/process/env", json!(["A=\u{0}"]), "process.env"),
        ("/process/oomScoreAdj", json!(1001), "process.oomScoreAdj"),
        ("/process/user/umask", json!(0o10000), "process.user.umask"),
        ("/root/path", json!(""), "root.path"),
        ("/hostname", json!("h".repeat(65)), "host"),
        ("/linux/rootfsPropagation", json!("sideways"), "linux.rootfsPropagation"),
        ("/linux/maskedPaths", json!(["relative"]), "linux.maskedPaths"),
        ("/linux/readonlyPaths", json!(["../x"]), "linux.readonlyPaths"),
        ("/mounts/0/destination", json!(""), "mounts[0].destination"),
    ];
    for (pointer, value, name) in rows {
        let message = with_field(scene, pointer, &value);
        assert!(message.contains(name), "{pointer} = {value}: {message}");
    }
}

fn missing_fields_are_named(scene: &Scene) {
    for (parent, field) in [("", "process"), ("", "root"), ("/process", "cwd"), ("/process", "args"), ("/root", "path")]
    {
        let mut bundle = scene.bundle();
        bundle.config.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(field);
        fail(&bundle, &[field]);
    }
}

fn fields_that_are_not_implemented_are_refused_by_name(scene: &Scene) {
    let rows = [
        ("/linux/intelRdt", json!({ "closID": "a", "l3CacheSchema": "L3:0=f" }), "intelRdt"),
        ("/linux/mountLabel", json!("system_u:object_r:svirt_sandbox_file_t:s0"), "mountLabel"),
        ("/process/selinuxLabel", json!("system_u:system_r:svirt_lxc_net_t:s0"), "selinuxLabel"),
        ("/process/apparmorProfile", json!("no-such-profile"), "apparmorProfile"),
    ];
    for (pointer, value, name) in rows {
        let message = with_field(scene, pointer, &value);
        assert!(message.contains(name), "{pointer}: {message}");
    }
}

/// runc passes over them in silence.
fn sections_for_others_are_passed_over_with_a_word(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["vm"] = json!({ "kernel": { "path": "/vmlinuz" } });
    bundle.config["freebsd"] = json!({ "devices": [] });
    bundle.run().success().says("vm: ignored: ").says("freebsd: ignored: ");
}

/// A file without end, and one that blocks: refused, not read.
fn a_configuration_that_never_ends(scene: &Scene) {
    for make in [
        |path: &std::path::Path| symlink("/dev/zero", path).unwrap(),
        |path: &std::path::Path| {
            let mode = rustix::fs::Mode::from_raw_mode(0o666);
            rustix::fs::mkfifoat(rustix::fs::CWD, path, mode).unwrap();
        },
    ] {
        let bundle = scene.bundle();
        let mut command = bundle.command();
        let path = bundle.directory.join("config.json");
        std::fs::remove_file(&path).unwrap();
        make(&path);
        command.run().exits_with(1).says("config.json");
    }
}

fn a_missing_executable(scene: &Scene) {
    for program in ["/no/such/program", "no-such-program", "/bin/sh/no"] {
        let mut bundle = scene.bundle();
        bundle.args([program]);
        fail(&bundle, &[program]);
    }
}

fn an_executable_without_permission(scene: &Scene) {
    let mut bundle = scene.bundle();
    write(&bundle.rootfs("plain"), "#!/bin/sh\n");
    bundle.args(["/plain"]);
    fail(&bundle, &["/plain"]);
}

fn a_directory_as_executable(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.args(["/etc"]);
    fail(&bundle, &["/etc"]);
}

fn an_executable_of_no_known_format(scene: &Scene) {
    let mut bundle = scene.bundle();
    write(&bundle.rootfs("garbage"), [0x7f, b'E', b'L', b'F', 9, 9, 9, 9]);
    std::fs::set_permissions(bundle.rootfs("garbage"), std::fs::Permissions::from_mode(0o755)).unwrap();
    bundle.args(["/garbage"]);
    fail(&bundle, &["exec", "garbage"]);
}

fn a_missing_interpreter(scene: &Scene) {
    let mut bundle = scene.bundle();
    write(&bundle.rootfs("script"), "#!/no/such/interpreter\n");
    std::fs::set_permissions(bundle.rootfs("script"), std::fs::Permissions::from_mode(0o755)).unwrap();
    bundle.args(["/script"]);
    // As runc's init tells it, and its suite wants it. Only people are given a hint under this name.
    let told = "exec /script: no such file or directory";
    assert_eq!(bundle.run().exits_with(1).stderr, format!("{told}\n"));
    let hint = "hint: /script exists; the interpreter or loader it names does not";
    assert_eq!(bundle.run_as_husk().exits_with(1).stderr, format!("husk: {told} (ENOENT)\n{hint}\n"));
    let log = scene.path().join("log");
    let mut command = scene.runtime();
    command.arg("--log").arg(&log).args(["run", "--bundle"]).arg(&bundle.directory).arg(&bundle.id);
    command.run().exits_with(1).says(told);
    let records = std::fs::read_to_string(log).unwrap();
    assert!(records.lines().count() == 1 && records.contains(&format!("level=error msg=\"{told}")), "{records}");
}

fn a_missing_root_file_system(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["root"]["path"] = json!("nowhere");
    fail(&bundle, &["nowhere"]);
}

fn a_root_file_system_that_is_a_file(scene: &Scene) {
    let mut bundle = scene.bundle();
    write(&bundle.directory.join("file"), "");
    bundle.config["root"]["path"] = json!("file");
    fail(&bundle, &["file"]);
}

/// The link could be exchanged between the look and the mount.
fn a_root_file_system_that_is_a_link(scene: &Scene) {
    let mut bundle = scene.bundle();
    symlink("rootfs", bundle.directory.join("link")).unwrap();
    bundle.config["root"]["path"] = json!("link");
    fail(&bundle, &["link"]);
}

/// Made, as runc does, or named.
fn a_missing_working_directory(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["process"]["cwd"] = json!("/no/such/directory");
    let outcome = bundle.run();
    if outcome.code() == 0 {
        assert_eq!(outcome.report()["cwd"], "/no/such/directory");
    } else {
        outcome.exits_with(1).says("/no/such/directory");
    }
}

fn bad_ids(scene: &Scene) {
    let long = "x".repeat(2000);
    for id in ["", ".", "..", "a/b", "../x", "a b", "a\nb", "é", &long] {
        let bundle = scene.bundle();
        bundle.write();
        let mut command = scene.runtime();
        let outcome = command.args(["run", "--bundle"]).arg(&bundle.directory).arg("--").arg(id).run();
        assert_ne!(outcome.code(), 0, "{id:?}");
        assert!(!outcome.stderr.contains("panicked"), "{id:?}: {}", outcome.stderr);
        assert_eq!(outcome.stdout, "", "{id:?}");
    }
    assert_eq!(std::fs::read_dir(scene.state_root()).unwrap().count(), 0);
}

fn an_id_that_is_taken(scene: &Scene) {
    let mut first = scene.bundle();
    first.args(["/probe", "--quiet", "--catch"]);
    let mut running = first.command().start();
    running.line_with("ready");
    let mut second = scene.bundle();
    second.id.clone_from(&first.id);
    second.run().exits_with(1).says("exist");
    // The first one is none the worse.
    scene.runtime().args(["kill", &first.id, "TERM"]).run().success();
    running.finish().success();
}
