//! Labels of security modules, and the session keyring.

use serde_json::json;

use super::support::{Need, Scene, Test, test};

/// `keyctl(KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0)`.
const SESSION_KEYRING: &str = if cfg!(target_arch = "x86_64") { "250:0:-3:0" } else { "219:0:-3:0" };

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(a_label_without_its_module_is_refused).and_plain().needs(Need::Husk),
        test!(empty_labels_are_none).and_plain(),
        test!(a_loaded_profile_is_applied)
            .root()
            .needs(Need::Husk)
            .needs(Need::AppArmor)
            .needs(Need::Program("apparmor_parser")),
        test!(a_profile_is_applied).needs(Need::Husk).needs(Need::AppArmor),
        test!(a_profile_that_is_not_loaded_is_named).needs(Need::Husk).needs(Need::AppArmor),
        test!(the_session_keyring_is_fresh).and_plain(),
    ]
}

/// What was asked for and is not there is an error (CVE-2023-28642, CVE-2021-43816).
fn a_label_without_its_module_is_refused(scene: &Scene) {
    for (part, field, module, file) in [
        ("process", "apparmorProfile", "AppArmor", "/sys/module/apparmor/parameters/enabled"),
        ("process", "selinuxLabel", "SELinux", "/sys/fs/selinux/enforce"),
        ("linux", "mountLabel", "SELinux", "/sys/fs/selinux/enforce"),
    ] {
        if std::path::Path::new(file).exists() {
            continue;
        }
        let mut bundle = scene.bundle();
        bundle.config[part][field] = json!("system_u:object_r:container_t:s0");
        bundle
            .run()
            .exits_with(1)
            .says(&format!("{part}.{field}: this kernel runs no {module}, so the label cannot be applied"));
    }
}

fn empty_labels_are_none(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["process"]["apparmorProfile"] = json!("");
    bundle.config["process"]["selinuxLabel"] = json!("");
    bundle.config["linux"]["mountLabel"] = json!("");
    bundle.report();
}

/// With what it forbids: the last stage, which is in no profile's list, writes the label and is not held to it.
fn a_loaded_profile_is_applied(scene: &Scene) {
    let name = format!("husk-test-{}", scene.id());
    let text =
        format!("profile {name} flags=(attach_disconnected,mediate_deleted) {{\n file,\n deny /dev/shm/** w,\n}}\n");
    let profile = scene.tree("profile", &[("text", &text)]).join("text");
    let parser = |flag| {
        scene.program("/usr/sbin/apparmor_parser").args([flag, "--skip-cache"]).arg(&profile).run().success();
    };
    parser("--replace");
    let outcomes = [true, false].map(|no_new_privileges| {
        let mut bundle = scene.bundle();
        bundle.config["process"]["apparmorProfile"] = json!(name);
        bundle.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        bundle.tries(["mkdir:/dev/shm/x", "mkdir:/dev/x"]).probe(["--read", "/proc/self/attr/current"]);
        bundle.run()
    });
    parser("--remove");
    for outcome in outcomes {
        let report = outcome.success().report();
        assert_eq!(
            report["reads"]["/proc/self/attr/current"].as_str().map(str::trim),
            Some(&*format!("{name} (enforce)"))
        );
        assert_eq!(report["tries"], json!({ "mkdir:/dev/shm/x": "EACCES", "mkdir:/dev/x": "ok" }));
    }
}

/// `unconfined` is a profile that every AppArmor has.
fn a_profile_is_applied(scene: &Scene) {
    for no_new_privileges in [true, false] {
        let mut bundle = scene.bundle();
        bundle.config["process"]["apparmorProfile"] = json!("unconfined");
        bundle.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        bundle.probe(["--read", "/proc/self/attr/current"]);
        let report = bundle.report();
        assert_eq!(report["reads"]["/proc/self/attr/current"].as_str().map(str::trim), Some("unconfined"));
        assert_eq!(report["fds"].as_object().map(serde_json::Map::len), Some(3), "{}", report["fds"]);
    }
}

fn a_profile_that_is_not_loaded_is_named(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["process"]["apparmorProfile"] = json!("husk-no-such-profile");
    bundle
        .run_as_husk()
        .exits_with(1)
        .says("process.apparmorProfile: \"husk-no-such-profile\": write /proc/self/attr/apparmor/exec: no such file")
        .says("hint: the profile is not loaded");
}

/// By a name it could be one that somebody else has made, with keys in it, and lets others search.
fn the_session_keyring_is_fresh(scene: &Scene) {
    let ours = super::probe::raw::syscall(libc::SYS_keyctl, &[0, -3, 0]);
    let keyring = || {
        let mut bundle = scene.bundle();
        bundle.probe(["--answer", SESSION_KEYRING]);
        bundle.report()["answers"][SESSION_KEYRING].clone()
    };
    let (first, second) = (keyring(), keyring());
    assert!(first.is_number() && first != second, "{first} {second}");
    assert_ne!(ours.ok(), first.as_i64());
    // A keyring of the name that runc would use, which its maker has opened to all of the same user.
    let mut bundle = scene.bundle();
    bundle.probe(["--answer", SESSION_KEYRING]).write();
    let script = "import ctypes, os, sys\n\
        call = ctypes.CDLL(None).syscall\n\
        ring = call(250, 1, sys.argv[1].encode())\n\
        call(250, 5, ring, ctypes.c_uint(0x3f3f3f3f))\n\
        os.write(2, str(ring).encode() + b\"\\n\")\n\
        os.execv(sys.argv[2], sys.argv[2:])\n";
    if !cfg!(target_arch = "x86_64") || super::support::needs::find_program("python3").is_none() {
        return;
    }
    let mut command = scene.program("python3");
    command.args(["-c", script, &format!("_ses.{}", bundle.id)]).arg(super::support::suite::kit().runtime.as_path());
    command.arg("--root").arg(scene.state_root()).args(["run", "--bundle"]).arg(&bundle.directory).arg(&bundle.id);
    let outcome = command.run().success();
    let opened = outcome.stderr.lines().next().and_then(|line| line.parse::<i64>().ok());
    let inside = outcome.report()["answers"][SESSION_KEYRING].as_i64();
    assert!(opened.is_some_and(|ring| ring > 0) && inside.is_some() && opened != inside, "{opened:?} {inside:?}");
}
