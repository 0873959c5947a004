//! Ordinary users: id maps, ownership, and what a single id means.

use serde_json::json;

use super::support::image::Image;
use super::support::{Need, Scene, Test, Who, bundle, scene::write, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(maps_are_exact).users(),
        test!(files_belong_to_the_user).users(),
        test!(files_of_other_ids_belong_to_subordinate_ones).user(),
        test!(a_bundle_as_runc_writes_it_for_users).users(),
        test!(a_bundle_as_runc_writes_it_for_root).users().needs(Need::Husk),
        test!(an_id_that_is_not_mapped_is_named).users(),
        test!(an_image_runs_with_all_ids).user().needs(Need::Husk),
        test!(an_image_runs_with_one_id).users().needs(Need::Husk),
        test!(one_line_says_what_a_single_id_loses).users().needs(Need::Husk),
        test!(unshare_enters_the_users_namespace).users().needs(Need::Husk),
        test!(unshare_is_for_users).root().needs(Need::Husk),
        test!(state_is_private).and_plain().needs(Need::Husk),
    ]
}

fn maps_are_exact(scene: &Scene) {
    let report = scene.bundle().report();
    let account = scene.account();
    let expected = match (scene.who, account.subordinate) {
        (Who::User, Some((first, count))) => json!([[0, account.uid, 1], [1, first, count]]),
        _ => json!([[0, account.uid, 1]]),
    };
    assert_eq!(report["uid_map"], expected);
    assert_eq!(report["gid_map"], expected);
}

fn files_belong_to_the_user(scene: &Scene) {
    use std::os::unix::fs::MetadataExt;
    let mut bundle = scene.bundle();
    bundle.config["root"]["readonly"] = json!(false);
    bundle.tries(["create:/new"]);
    assert_eq!(bundle.report()["tries"]["create:/new"], "ok");
    assert_eq!(std::fs::metadata(bundle.rootfs("new")).unwrap().uid(), scene.account().uid);
}

fn files_of_other_ids_belong_to_subordinate_ones(scene: &Scene) {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let mut bundle = scene.bundle();
    bundle.config["root"]["readonly"] = json!(false);
    bundle.config["process"]["user"] = json!({ "uid": 1000, "gid": 50 });
    std::fs::set_permissions(bundle.rootfs("tmp"), std::fs::Permissions::from_mode(0o1777)).unwrap();
    bundle.tries(["create:/tmp/new"]);
    assert_eq!(bundle.report()["tries"]["create:/tmp/new"], "ok");
    let (first, _) = scene.account().subordinate.unwrap();
    let data = std::fs::metadata(bundle.rootfs("tmp/new")).unwrap();
    // Id 1 is the first of the range.
    assert_eq!((data.uid(), data.gid()), (first + 999, first + 49));
}

/// `runc spec --rootless`, as it is: one id, the host's network, /sys bound.
fn a_bundle_as_runc_writes_it_for_users(scene: &Scene) {
    let account = scene.account();
    let mut bundle = scene.bundle();
    let mut config = bundle::spec();
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["/probe"]);
    config["linux"]["uidMappings"] = json!([{ "containerID": 0, "hostID": account.uid, "size": 1 }]);
    config["linux"]["gidMappings"] = json!([{ "containerID": 0, "hostID": account.gid, "size": 1 }]);
    config["linux"].as_object_mut().unwrap().remove("resources");
    config["linux"]["namespaces"] =
        json!([{ "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }, { "type": "user" }]);
    for mount in config["mounts"].as_array_mut().unwrap() {
        if mount["destination"] == "/dev/pts" {
            mount["options"] = json!(["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]);
        }
        if mount["destination"] == "/sys" {
            mount["type"] = json!("none");
            mount["source"] = json!("/sys");
            mount["options"] = json!(["rbind", "nosuid", "noexec", "nodev", "ro"]);
        }
    }
    bundle.config = config;
    let report = bundle.report();
    assert_eq!(report["uid_map"], json!([[0, account.uid, 1]]));
}

/// `runc spec` without `--rootless`: husk makes a user namespace, or says by name what is missing.
fn a_bundle_as_runc_writes_it_for_root(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config = bundle::spec();
    bundle.config["process"]["terminal"] = json!(false);
    bundle.config["process"]["args"] = json!(["/probe"]);
    let outcome = bundle.run();
    if outcome.code() != 0 {
        // Under the name runc the way out (a user namespace) is told on terminals only.
        outcome.exits_with(1).says("clone into new namespaces: operation not permitted");
    }
}

fn an_id_that_is_not_mapped_is_named(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["process"]["user"] = json!({ "uid": 4_000_000, "gid": 0 });
    let outcome = bundle.run();
    assert_ne!(outcome.code(), 0);
    outcome.says_one_of(&["4000000", "uid", "user"]);
}

fn an_image_runs_with_all_ids(scene: &Scene) {
    let layout = Image::probe(scene).layout(scene, "layout");
    let mut command = scene.husk();
    let outcome = command.args(["run", "--rm", "--user", "1000:50"]).arg(layout.reference()).run().success();
    let report = outcome.report();
    assert_eq!((&report["uid"][0], &report["gid"][0]), (&json!(1000), &json!(50)));
    let account = scene.account();
    let (first, count) = account.subordinate.unwrap();
    assert_eq!(report["uid_map"], json!([[0, account.uid, 1], [1, first, count]]));
}

/// With one id to give, the container's user has it, whatever its number there.
fn an_image_runs_with_one_id(scene: &Scene) {
    let layout = Image::probe(scene).layout(scene, "layout");
    let report = scene.husk().args(["run", "--rm"]).arg(layout.reference()).run().success().report();
    assert_eq!(report["uid"][0], 0);
    if scene.who == Who::Plain {
        let mut command = scene.husk();
        let report =
            command.args(["run", "--rm", "--user", "1000:50"]).arg(layout.reference()).run().success().report();
        assert_eq!(report["uid_map"], json!([[1000, scene.account().uid, 1]]));
    }
}

fn one_line_says_what_a_single_id_loses(scene: &Scene) {
    let layout = Image::probe(scene).layout(scene, "layout");
    let outcome = scene.husk().args(["run", "--rm"]).arg(layout.reference()).run().success();
    let about_ids: Vec<&str> = outcome.stderr.lines().filter(|line| line.contains("subuid")).collect();
    let expected = usize::from(scene.who == Who::Plain);
    assert_eq!(about_ids.len(), expected, "{}", outcome.stderr);
}

fn unshare_enters_the_users_namespace(scene: &Scene) {
    let script = "id -u; cat /proc/self/uid_map; touch made; chown 0:0 made; ls -n made";
    let outcome = scene.husk().args(["unshare", "sh", "-c", script]).run().success();
    let mut lines = outcome.stdout.lines();
    assert_eq!(lines.next(), Some("0"));
    let map: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(map, ["0", &scene.account().uid.to_string(), "1"]);
    scene.husk().args(["unshare", "sh", "-c", "exit 7"]).run().exits_with(7);
    if let (Who::User, Some(_)) = (scene.who, scene.account().subordinate) {
        let outcome = scene.husk().args(["unshare", "sh", "-c", "touch other && chown 1000:1000 other"]).run();
        outcome.success();
    }
}

fn unshare_is_for_users(scene: &Scene) {
    scene.husk().args(["unshare", "true"]).run().exits_with(125).says("unshare");
}

/// Whatever the mask of the caller: nobody else may look into the stores.
fn state_is_private(scene: &Scene) {
    use super::support::launch::Step;
    use std::os::unix::fs::PermissionsExt;
    let layout = Image::probe(scene).layout(scene, "layout");
    let mut command = scene.husk();
    command.args(["run"]).arg(layout.reference()).step(Step::Umask(0));
    command.run().success();
    for entry in walkdir::WalkDir::new(scene.store()).max_depth(2) {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        if !entry.file_type().is_symlink() {
            assert_eq!(mode & 0o022, 0, "{} is writable by others: {mode:o}", entry.path().display());
        }
    }
    assert_eq!(std::fs::metadata(scene.store()).unwrap().permissions().mode() & 0o077, 0);
    write(&scene.path().join("seen"), "");
}
