//! Named volumes: they outlive containers, begin with what the image has, and belong to the container's users.

use serde_json::Value;

use super::support::image::{Image, Layout};
use super::support::scene::write;
use super::support::tar::{Entry, archive};
use super::support::{Need, Outcome, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    let engine = |test: Test| test.needs(Need::Husk).needs(Need::Busybox);
    [
        test!(volumes_outlive_containers).and_plain(),
        test!(volumes_begin_with_what_the_image_has).and_plain(),
        test!(volumes_in_use_stay).and_plain(),
        test!(volumes_are_listed_and_inspected).and_plain(),
        test!(volumes_of_another_container).and_plain(),
        test!(volumes_have_parts).and_plain(),
        test!(volumes_are_exported_and_imported).and_plain(),
        test!(volumes_are_file_systems).and_plain(),
        test!(quotas_hold_or_are_refused).and_plain(),
    ]
    .into_iter()
    .map(engine)
    .collect()
}

fn layout(scene: &Scene) -> Layout {
    let entries = [Entry::directory("data"), Entry::file("data/file", "of the image\n")];
    Image::probe(scene).layer(&entries).layout(scene, "layout")
}

fn shell(scene: &Scene, layout: &Layout, flags: &[&str], script: &str) -> Outcome {
    let mut command = scene.husk();
    command.arg("run").args(flags).arg(layout.reference()).args(["/bin/busybox", "sh", "-c", script]).run()
}

fn volume(scene: &Scene, words: &[&str]) -> Outcome {
    scene.husk().arg("volume").args(words).run()
}

fn volumes_outlive_containers(scene: &Scene) {
    let layout = layout(scene);
    shell(scene, &layout, &["--rm", "-v", "kept:/v"], "echo one > /v/file").success();
    let found = shell(
        scene,
        &layout,
        &["--rm", "--mount", "source=kept,target=/w,readonly"],
        "busybox cat /w/file; echo x > /w/file",
    );
    assert_eq!(found.stdout, "one\n");
    found.exits_with(1).says("Read-only");
    assert_eq!(volume(scene, &["ls", "-q"]).success().stdout, "kept\n");
    assert_eq!(volume(scene, &["rm", "kept"]).success().stdout, "kept\n");
    volume(scene, &["rm", "kept"]).exits_with(1).says("no such volume: kept");
    volume(scene, &["rm", "-f", "kept"]).success();
    // A removal that was cut off has left files, which are nobody's.
    let left = scene.store().join("volumes/kept/_data");
    std::fs::create_dir_all(&left).unwrap();
    write(&left.join("file"), "another's");
    scene.account().own(&scene.store().join("volumes/kept"));
    shell(scene, &layout, &["--rm", "-v", "kept:/v"], "busybox test ! -e /v/file").success();
}

fn volumes_begin_with_what_the_image_has(scene: &Scene) {
    let layout = layout(scene);
    let script = "busybox cat /data/file; echo changed > /data/file";
    assert_eq!(shell(scene, &layout, &["--rm", "-v", "filled:/data"], script).success().stdout, "of the image\n");
    // What is there is not filled again.
    assert_eq!(shell(scene, &layout, &["--rm", "-v", "filled:/data"], script).success().stdout, "changed\n");
    shell(scene, &layout, &["--rm", "-v", "empty:/data:nocopy"], "busybox test ! -e /data/file").success();
}

fn volumes_in_use_stay(scene: &Scene) {
    let layout = layout(scene);
    shell(scene, &layout, &["--name", "user", "-v", "used:/v"], "true").success();
    volume(scene, &["create", "unused"]).success();
    volume(scene, &["rm", "used"]).exits_with(1).says("in use");
    volume(scene, &["rename", "used", "other"]).exits_with(1).says("in use");
    assert_eq!(volume(scene, &["ls", "-q", "--filter", "dangling=true"]).success().stdout, "unused\n");
    let old = ["prune", "--force", "--filter", "until=1h", "--filter", "label!=x"];
    assert_eq!(volume(scene, &old).success().stdout, "");
    assert_eq!(volume(scene, &["prune", "--force", "--filter", "all=1"]).success().stdout, "unused\n");
    scene.husk().args(["rm", "user"]).run().success();
    volume(scene, &["rm", "used"]).success();
}

fn volumes_are_listed_and_inspected(scene: &Scene) {
    assert_eq!(volume(scene, &["ls"]).success().stdout, "DRIVER    VOLUME NAME\n");
    assert_eq!(volume(scene, &["create", "--label", "a=b", "named"]).success().stdout, "named\n");
    // As with docker, once more is no error.
    volume(scene, &["create", "named"]).success();
    let made_up = volume(scene, &["create"]).success().stdout;
    assert_eq!(made_up.trim().len(), 64);
    let format = "{{.Name}} {{.Driver}} {{.Label \"a\"}}";
    assert_eq!(volume(scene, &["ls", "--filter", "label=a", "--format", format]).success().stdout, "named local b\n");
    let found: Value = serde_json::from_str(&volume(scene, &["inspect", "named"]).success().stdout).unwrap();
    assert_eq!(found[0]["Labels"]["a"], "b");
    let place = scene.store().join("volumes/named/_data");
    assert_eq!(found[0]["Mountpoint"], place.display().to_string());
    volume(scene, &["exists", "named"]).success();
    volume(scene, &["exists", "other"]).exits_with(1);
    volume(scene, &["create", "../other"]).exits_with(1).says("volume name");
    volume(scene, &["create", "--opt", "type=nfs", "other"]).exits_with(1).says("missing required option: \"device\"");
    volume(scene, &["create", "--opt", "colour=red", "other"]).exits_with(1).says("colour");
    volume(scene, &["create", "--driver", "cloud", "other"]).exits_with(1).says("cloud");
    volume(scene, &["rename", "named", "../x"]).exits_with(1).says("volume name");
    volume(scene, &["rename", "named", "renamed"]).success();
    assert_eq!(volume(scene, &["ls", "--filter", "label=a", "--format", format]).success().stdout, "renamed local b\n");
    volume(scene, &["rename", "named", "x1"]).exits_with(1).says("no such volume: named");
    volume(scene, &["rename", "renamed", made_up.trim()]).exits_with(1).says("exists");
}

fn volumes_of_another_container(scene: &Scene) {
    let layout = layout(scene);
    let source = scene.tree("source", &[("file", "of the host\n")]);
    let bind = format!("{}:/bound", source.display());
    let script = "echo named > /named/file; echo anonymous > /own/file";
    shell(scene, &layout, &["--name", "first", "-v", "shared:/named", "-v", "/own", "-v", &bind], script).success();
    let script = "busybox cat /named/file /own/file /bound/file; echo x > /own/new";
    let found = shell(scene, &layout, &["--rm", "--volumes-from", "first"], script).success();
    assert_eq!(found.stdout, "named\nanonymous\nof the host\n");
    shell(scene, &layout, &["--rm", "--volumes-from", "first:ro"], script).exits_with(1).says("Read-only");
    shell(scene, &layout, &["--volumes-from", "nobody"], "true").exits_with(125).says("nobody");
}

fn volumes_have_parts(scene: &Scene) {
    let layout = layout(scene);
    shell(scene, &layout, &["--rm", "-v", "whole:/v"], "busybox mkdir /v/part && echo deep > /v/part/file").success();
    let mount = "source=whole,target=/p,volume-subpath=part";
    assert_eq!(shell(scene, &layout, &["--rm", "--mount", mount], "busybox cat /p/file").success().stdout, "deep\n");
}

/// Out and in again, over what is there; and a tar that would like to write elsewhere.
fn volumes_are_exported_and_imported(scene: &Scene) {
    let layout = layout(scene);
    let script = "cd /v; busybox mkdir part; echo one > part/file; busybox ln part/file link; busybox ln -s file part/soft; \
        echo two > .wh.two; busybox chmod 751 part; busybox chmod 700 .";
    shell(scene, &layout, &["--rm", "-v", "from:/v"], script).success();
    let tar = scene.path().join("files.tar");
    volume(scene, &["export", "-o", tar.to_str().unwrap(), "from"]).success();
    let streamed = scene.husk().args(["volume", "export", "from"]).run().success();
    assert_eq!(streamed.stdout.into_bytes(), std::fs::read(&tar).unwrap());
    volume(scene, &["import", "to", tar.to_str().unwrap()]).exits_with(1).says("no such volume: to");
    shell(scene, &layout, &["--rm", "-v", "to:/v"], "echo kept > /v/kept; echo old > /v/link").success();
    volume(scene, &["import", "to", tar.to_str().unwrap()]).success();
    let script = "cd /v; busybox cat kept link part/soft .wh.two; busybox stat -c '%a %h' part link";
    let found = shell(scene, &layout, &["--rm", "-v", "to:/v"], script).success();
    assert_eq!(found.stdout, "kept\none\none\ntwo\n751 2\n644 2\n");

    let outside = scene.tree("outside", &[("file", "untouched\n")]);
    let target = outside.to_str().unwrap();
    for (entries, cause) in [
        ([Entry::symlink("out", target), Entry::file("out/file", "overwritten\n")], "out"),
        ([Entry::directory("d"), Entry::file("d/../../file", "overwritten\n")], "climbs with `..`"),
        ([Entry::symlink("up", "../.."), Entry::hard_link("l", &format!("{target}/file"))], "hard link"),
    ] {
        let bytes = archive(&entries);
        let tried = scene.husk().args(["volume", "import", "to"]).input(&bytes).run();
        tried.exits_with(1).says(cause);
    }
    assert_eq!(std::fs::read_to_string(outside.join("file")).unwrap(), "untouched\n");
}

/// What the driver `local` mounts, it mounts in the container.
fn volumes_are_file_systems(scene: &Scene) {
    let layout = layout(scene);
    let source = scene.tree("source", &[("file", "of the host\n")]);
    let device = format!("device={}", source.display());
    volume(scene, &["create", "-o", "type=none", "-o", &device, "-o", "o=bind,ro", "bound"]).success();
    volume(scene, &["create", "-o", "type=tmpfs", "-o", "o=size=1m,mode=0750", "memory"]).success();
    let script = "busybox cat /b/file /data/file; busybox stat -f -c '%T %b' /data; echo x > /b/file";
    let found = shell(scene, &layout, &["--rm", "-v", "bound:/b", "-v", "memory:/data"], script);
    assert_eq!(found.stdout, "of the host\nof the image\ntmpfs 256\n");
    found.exits_with(1).says("Read-only");
    volume(scene, &["export", "memory"]).exits_with(1).says("tmpfs");
    let words = volume(scene, &["inspect", "-f", "{{json .Options}}", "memory"]).success();
    assert_eq!(words.stdout, "{\"o\":\"size=1m,mode=0750\",\"type\":\"tmpfs\"}\n");
    assert_eq!(volume(scene, &["rm", "bound", "memory"]).success().stdout, "bound\nmemory\n");
    assert_eq!(std::fs::read_to_string(source.join("file")).unwrap(), "of the host\n");
}

/// A bound that cannot be kept is refused, and leaves no volume without it.
fn quotas_hold_or_are_refused(scene: &Scene) {
    let layout = layout(scene);
    let made = volume(scene, &["create", "-o", "size=1m", "bounded"]);
    if made.status.success() {
        let script = "busybox dd if=/dev/zero of=/v/big bs=64k count=64";
        let found = shell(scene, &layout, &["--rm", "-v", "bounded:/v"], script);
        assert!(!found.status.success());
        return;
    }
    made.exits_with(1).says("make volume bounded: limit its size by a project quota");
    volume(scene, &["exists", "bounded"]).exits_with(1);
    assert!(!scene.store().join("volumes/bounded").exists());
}
