//! `husk doctor`: says what this host allows, by trying it, and by its status whether containers run.

use serde_json::Value;

use super::support::scene::STORE_VARIABLE;
use super::support::{Need, Scene, Test, Who, test};

pub(crate) fn tests() -> Vec<Test> {
    [
        test!(where_tests_run_containers_run).and_plain(),
        test!(a_lack_is_named_and_priced).and_plain(),
        test!(nothing_is_left_behind).and_plain(),
    ]
    .into_iter()
    .map(|test: Test| test.needs(Need::Husk))
    .collect()
}

fn findings(report: &Value) -> Vec<(String, String)> {
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let findings = report["findings"].as_array().expect("a list");
    findings.iter().map(|finding| (text(finding, "topic"), text(finding, "standing"))).collect()
}

fn where_tests_run_containers_run(scene: &Scene) {
    let words = scene.husk().arg("doctor").run().success().stdout;
    assert!(words.ends_with("\nContainers run here.\n"), "{words}");
    let standings = ["ok ", "limited ", "missing ", "         costs: ", "         mend: "];
    let lines: Vec<&str> = words.lines().collect();
    for line in &lines[..lines.len() - 2] {
        assert!(standings.iter().any(|standing| line.starts_with(standing)), "{line:?}");
    }
    let report: Value = serde_json::from_str(&scene.husk().args(["doctor", "--format", "json"]).run().success().stdout)
        .expect("one object");
    assert_eq!(report["runs"], true);
    let found = findings(&report);
    let standing = |topic: &str| found.iter().find(|(found, _)| found == topic).map(|(_, standing)| standing.as_str());
    let is_root = scene.who == Who::Root;
    assert_eq!(standing(if is_root { "mount namespace" } else { "user namespaces" }), Some("ok"), "{report}");
    assert_eq!(standing("start"), Some("ok"), "{report}");
    assert_eq!(standing("data root"), Some("ok"), "{report}");
    let ids = match scene.who {
        Who::Root => None,
        Who::User => Some("ok"),
        Who::Plain => Some("limited"),
    };
    assert_eq!(standing("subordinate ids"), ids, "{report}");
}

fn a_lack_is_named_and_priced(scene: &Scene) {
    let mut command = scene.husk();
    let outcome = command.env(STORE_VARIABLE, "/proc/nowhere").arg("doctor").run().exits_with(1);
    assert!(outcome.stdout.ends_with("\nContainers cannot run here.\n"), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("\nmissing  data root: "), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("costs: nothing can be kept: no container starts\n"), "{}", outcome.stdout);
    let mut command = scene.husk();
    let outcome = command.env(STORE_VARIABLE, "/proc/nowhere").args(["doctor", "--format", "json"]).run().exits_with(1);
    let report: Value = serde_json::from_str(&outcome.stdout).expect("one object");
    assert_eq!(report["runs"], false);
    let missing: Vec<_> = findings(&report).into_iter().filter(|(_, standing)| standing == "missing").collect();
    assert_eq!(missing, [("data root".to_owned(), "missing".to_owned())], "{report}");
}

fn nothing_is_left_behind(scene: &Scene) {
    scene.husk().arg("doctor").run().success();
    let left: Vec<_> = std::fs::read_dir(scene.store().join("store/tmp")).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    scene.husk().args(["system", "check"]).run().success();
}
