//! The harness checked against itself: an oracle that can't fail proves nothing.

use std::path::Path;

use serde_json::Value;

use super::support::leak::Snapshot;
use super::support::scene::write;
use super::support::sentinel::Sentinel;
use super::support::{Need, Scene, Test, bundle, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(template_is_what_runc_writes).root().needs(Need::Program("runc")),
        test!(leaks_are_found).root(),
        test!(a_touched_sentinel_is_found).and_plain(),
        test!(commands_run_as_the_identity).and_plain(),
    ]
}

fn template_is_what_runc_writes(scene: &Scene) {
    scene.program("runc").args(["spec", "--bundle"]).arg(scene.path()).run().success();
    let written = std::fs::read(scene.path().join("config.json")).unwrap();
    let mut written: Value = serde_json::from_slice(&written).unwrap();
    // runc before 1.2 asks for some, which are not inheritable and so never raised.
    written["process"]["capabilities"].as_object_mut().unwrap().remove("ambient");
    assert_eq!(written, bundle::spec());
}

fn leaks_are_found(scene: &Scene) {
    let leaks = |make: &dyn Fn(), undo: &dyn Fn()| {
        let before = Snapshot::take();
        make();
        let leaks = before.compare(&Snapshot::take());
        undo();
        leaks.join("; ")
    };
    let directory = scene.path().join("mounted");
    std::fs::create_dir(&directory).unwrap();
    let mount = || rustix::mount::mount_bind("/etc", &directory).unwrap();
    let unmount = || rustix::mount::unmount(&directory, rustix::mount::UnmountFlags::DETACH).unwrap();
    assert!(leaks(&mount, &unmount).contains("leaked mount"));

    let file = Path::new("/tmp/husk-left-behind");
    assert!(leaks(&|| write(file, ""), &|| std::fs::remove_file(file).unwrap()).contains("husk-left-behind"));

    let sleeper = std::cell::RefCell::new(None);
    let start = || *sleeper.borrow_mut() = Some(scene.program("/bin/sleep").arg("100").start());
    assert!(leaks(&start, &|| drop(sleeper.take())).contains("sleep 100"));

    if let Some(cgroup) = super::support::leak::cgroup_v2().map(|root| root.join(scene.id())) {
        let make = || std::fs::create_dir(&cgroup).unwrap();
        assert!(leaks(&make, &|| std::fs::remove_dir(&cgroup).unwrap()).contains("leaked cgroup"));
    }
}

fn a_touched_sentinel_is_found(scene: &Scene) {
    let sentinel = Sentinel::plant(&scene.path().join("touched"), scene.account());
    assert_eq!(sentinel.changes(), Vec::<String>::new());
    write(&sentinel.path().join("secret"), "sentinel-secret-XXXX\n");
    write(&sentinel.path().join("directory/new"), "");
    std::fs::remove_file(sentinel.path().join("ptmx")).unwrap();
    let changes = sentinel.changes().join("\n");
    for name in ["secret changed", "directory changed", "directory/new is new", "ptmx is gone"] {
        assert!(changes.contains(name), "{name} is missing from:\n{changes}");
    }
}

fn commands_run_as_the_identity(scene: &Scene) {
    let account = scene.account();
    let output = scene.program("/usr/bin/id").arg("-u").run().success();
    assert_eq!(output.stdout.trim(), account.uid.to_string());
    let output = scene.program("/usr/bin/env").run().success();
    assert!(output.stdout.contains(&format!("HOME={}\n", account.home.display())));
    assert!(!output.stdout.contains("CARGO"));
    assert!(scene.path().starts_with(&account.home));
}
