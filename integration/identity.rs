//! Who the process is: host name, user, groups, mask, directory, environment.

use serde_json::json;

use super::support::{Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(hostname_is_set).and_plain(),
        test!(domainname_is_set).and_plain().needs(Need::NotRunc),
        test!(hostname_needs_its_namespace).root().needs(Need::NotCrun),
        test!(user_and_groups_are_exact).root(),
        test!(user_and_mapped_groups_are_exact).user().needs(Need::NotRunc),
        test!(no_group_of_the_caller_is_kept).root(),
        test!(umask_is_set).and_plain(),
        test!(umask_is_not_the_callers).and_plain(),
        test!(directory_is_set).and_plain(),
        test!(environment_is_exact).and_plain(),
        test!(home_is_kept_or_found).and_plain(),
        test!(arguments_are_passed_as_they_are).and_plain(),
        test!(program_is_searched_in_the_containers_path).and_plain(),
    ]
}

fn hostname_is_set(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["hostname"] = json!("a-name.of-its-own");
    assert_eq!(bundle.report()["hostname"], "a-name.of-its-own");
}

fn domainname_is_set(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["domainname"] = json!("nis.example");
    assert_eq!(bundle.report()["domainname"], "nis.example");
}

fn hostname_needs_its_namespace(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.without_namespace("uts");
    bundle.run().exits_with(1).says("hostname");
}

fn user_and_groups_are_exact(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["process"]["user"] = json!({ "uid": 1000, "gid": 1001, "additionalGids": [29, 50, 4242] });
    let report = bundle.report();
    assert_eq!(report["uid"], json!([1000, 1000, 1000, 1000]));
    assert_eq!(report["gid"], json!([1001, 1001, 1001, 1001]));
    assert_eq!(report["groups"], json!([29, 50, 4242]));
}

fn user_and_mapped_groups_are_exact(scene: &Scene) {
    user_and_groups_are_exact(scene);
}

/// CVE-2022-36109 and its kin: groups that nobody asked for open files that nobody meant to share.
fn no_group_of_the_caller_is_kept(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["process"]["user"] = json!({ "uid": 1000, "gid": 1001 });
    bundle.write();
    let command = scene
        .program("/usr/bin/setpriv")
        .args(["--groups", "5,6,7"])
        .arg(&super::support::suite::kit().runtime)
        .arg("--root")
        .arg(scene.state_root())
        .args(["run", "--bundle"])
        .arg(&bundle.directory)
        .arg(&bundle.id)
        .run();
    let groups = command.success().report()["groups"].clone();
    assert!(groups == json!([]) || groups == json!([1001]), "{groups}");
}

fn umask_is_set(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["process"]["user"]["umask"] = json!(0o027);
    assert_eq!(bundle.report()["umask"], "27");
}

fn umask_is_not_the_callers(scene: &Scene) {
    let bundle = scene.bundle();
    let report = bundle.command().step(super::support::launch::Step::Umask(0o077)).run().success().report();
    assert_eq!(report["umask"], "22");
}

fn directory_is_set(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["process"]["cwd"] = json!("/var/lib");
    assert_eq!(bundle.report()["cwd"], "/var/lib");
}

fn environment_is_exact(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["process"]["env"] = json!(["PATH=/bin", "HOME=/tmp", "EMPTY=", "EQUALS=a=b", "BLANK=a b\nc"]);
    let report = bundle.command().env("CANARY", "of the caller").run().success().report();
    let expected = json!({ "PATH": "/bin", "HOME": "/tmp", "EMPTY": "", "EQUALS": "a=b", "BLANK": "a b\nc" });
    assert_eq!(report["env"], expected);
}

fn home_is_kept_or_found(scene: &Scene) {
    let mut bundle = scene.bundle();
    assert_eq!(bundle.report()["env"]["HOME"], "/root", "from the container's passwd");
    bundle.id = scene.id();
    bundle.config["process"]["env"] = json!(["HOME=/elsewhere"]);
    assert_eq!(bundle.report()["env"]["HOME"], "/elsewhere");
}

fn arguments_are_passed_as_they_are(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.args(["/probe", "--quiet", "--echo", "", "--echo", "a b\t\"'\\$x*é", "--report"]);
    let output = bundle.run().success().stdout;
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[..2], ["", "a b\t\"'\\$x*é"]);
}

fn program_is_searched_in_the_containers_path(scene: &Scene) {
    let mut bundle = scene.bundle();
    std::fs::create_dir(bundle.rootfs("only-here")).unwrap();
    std::fs::rename(bundle.rootfs("probe"), bundle.rootfs("only-here/probe")).unwrap();
    bundle.config["process"]["env"] = json!(["PATH=/bin:/only-here"]);
    bundle.args(["probe"]);
    assert_eq!(bundle.report()["exe"], "/only-here/probe");
}
