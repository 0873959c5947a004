//! `host:`: the machine's own files below a layer that is thrown away. Writes never land on the host.

use serde_json::json;

use super::support::{Need, Outcome, Scene, Test, Who, test};

pub(crate) fn tests() -> Vec<Test> {
    let engine = |test: Test| test.needs(Need::Husk).needs(Need::Overlay);
    [
        test!(sees_the_machine).and_plain(),
        test!(writes_land_in_a_layer).and_plain(),
        test!(removing_the_system_harms_nothing).and_plain(),
        test!(changes_do_not_stay).and_plain(),
        test!(own_directories).and_plain(),
        test!(the_store_is_hidden).and_plain(),
        test!(exit_statuses_and_messages).and_plain(),
        test!(volumes_reach_the_host).and_plain(),
        test!(other_peoples_files_stay_theirs).users(),
    ]
    .into_iter()
    .map(engine)
    .collect()
}

fn run(scene: &Scene, script: &str) -> Outcome {
    scene.husk().args(["run", "--rm", "host:", "sh", "-c", script]).run()
}

fn sees_the_machine(scene: &Scene) {
    let output = run(scene, "cat /etc/os-release; ls -d /usr/bin /bin/sh").success().stdout;
    assert!(output.starts_with(&std::fs::read_to_string("/etc/os-release").unwrap()));
    assert!(output.ends_with("/bin/sh\n/usr/bin\n"), "{output}");
}

fn writes_land_in_a_layer(scene: &Scene) {
    let sentinel = scene.sentinel();
    let path = sentinel.display();
    let script = format!(
        "set -e; cd {path}; echo changed > secret; cat secret; rm ptmx; mkdir new; mv link moved; touch directory/inner/x; \
         chmod 777 suid; ls"
    );
    let output = run(scene, &script).success().stdout;
    assert!(output.starts_with("changed\n"), "{output}");
    let names: Vec<&str> = output.lines().skip(1).collect();
    assert!(names.contains(&"new") && names.contains(&"moved") && !names.contains(&"ptmx"), "{names:?}");
    // Above: the sentinel is compared when the test closes.
    assert!(!sentinel.join("new").exists());
}

/// As the issue has it. A write is tried first: only if that stayed inside does the removal go on.
fn removing_the_system_harms_nothing(scene: &Scene) {
    let mark = format!("husk-test-{}", scene.id());
    let places = ["/usr", "/etc", "/var/tmp", "/opt"];
    let script = places.map(|place| format!("touch {place}/{mark}; ")).concat();
    run(scene, &script);
    for place in places {
        let path = std::path::Path::new(place).join(&mark);
        let landed = path.exists();
        _ = std::fs::remove_file(&path);
        assert!(!landed, "a write landed on the host: {}", path.display());
    }
    let before = listing();
    let outcome = run(scene, "rm -rf /usr/bin /usr/sbin /usr/games /etc 2>/dev/null; echo $(echo /usr/bin/* /etc/*)");
    assert_eq!(listing(), before);
    let output = outcome.success().stdout;
    if scene.who == Who::Root {
        assert!(output.starts_with("/usr/bin/* /etc/*"), "root can remove all of it: {output}");
    }
}

/// The names at the top of the directories that the test removes.
fn listing() -> Vec<std::path::PathBuf> {
    let mut names: Vec<_> = ["/usr", "/usr/bin", "/usr/sbin", "/etc"]
        .iter()
        .flat_map(|directory| std::fs::read_dir(directory).unwrap().flatten().map(|entry| entry.path()))
        .collect();
    names.sort();
    names
}

fn changes_do_not_stay(scene: &Scene) {
    let tree = scene.tree("tree", &[("file", "as it was")]);
    let script = format!("cat {0}/file; echo changed > {0}/file; cat {0}/file", tree.display());
    for _ in 0..2 {
        assert_eq!(run(scene, &script).success().stdout, "as it waschanged\n");
    }
    assert_eq!(std::fs::read_to_string(tree.join("file")).unwrap(), "as it was");
}

fn own_directories(scene: &Scene) {
    use std::path::Path;
    let mark = Path::new("/tmp").join("husk-test-of-the-host");
    super::support::scene::write(&mark, "");
    let outcome = run(
        scene,
        "ls -A /tmp; echo --; ls -d /proc/[0-9]* | wc -l; ls /sys/class/net 2>/dev/null; touch /tmp/x /run/y && echo written",
    );
    std::fs::remove_file(&mark).unwrap();
    let output = outcome.success().stdout;
    assert!(!output.contains("husk-test-of-the-host"), "/tmp is the host's: {output}");
    assert!(output.ends_with("written\n"), "{output}");
    assert!(!Path::new("/tmp/x").exists() && !Path::new("/run/y").exists());
}

fn the_store_is_hidden(scene: &Scene) {
    let output = run(scene, &format!("ls -A {} 2>/dev/null | wc -l", scene.store().display())).success().stdout;
    assert_eq!(output.trim(), "0");
}

fn exit_statuses_and_messages(scene: &Scene) {
    run(scene, "exit 13").exits_with(13);
    scene.husk().args(["run", "--rm", "host:", "no-such-program"]).run().exits_with(127).says("no-such-program");
    scene.husk().args(["run", "--rm", "host:", "/etc/passwd"]).run().exits_with(126).says("/etc/passwd");
    scene.husk().args(["run", "--rm", "host:nonsense", "true"]).run().exits_with(125).says("host:nonsense");
}

fn volumes_reach_the_host(scene: &Scene) {
    let tree = scene.tree("shared", &[]);
    let flag = format!("{}:/mnt", tree.display());
    scene.husk().args(["run", "--rm", "-v", &flag, "host:", "touch", "/mnt/made"]).run().success();
    assert!(tree.join("made").exists());
}

/// The layer gives no right that the user hasn't got.
fn other_peoples_files_stay_theirs(scene: &Scene) {
    let script = "cat /etc/shadow 2>&1 | head -n 1; rm -f /etc/hostname 2>/dev/null; id -u";
    let output = run(scene, script).success().stdout;
    assert!(!output.contains("root:"), "{output}");
    assert_eq!(json!(output.lines().last()), json!("0"));
}
