//! The files of containers, from outside: `diff`, `export`; running and at rest, whoever runs them.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use super::support::image::Image;
use super::support::tar::Entry;
use super::support::{Invocation, Need, Outcome, Running, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    let engine = |test: Test| test.needs(Need::Husk).needs(Need::Busybox);
    [
        test!(changes_are_listed_in_dockers_letters).and_plain(),
        test!(an_image_is_compared_with_the_one_below_and_with_others),
        test!(changes_of_the_hosts_files_are_listed),
        test!(a_tree_is_exported_at_rest_and_running).and_plain().needs(Need::Program("tar")),
        test!(what_is_mounted_is_not_exported).and_plain().needs(Need::Program("tar")),
        test!(exporting_again_gives_the_same_bytes),
        test!(what_cannot_be_exported_is_refused),
    ]
    .into_iter()
    .map(engine)
    .collect()
}

pub(crate) fn husk<T: AsRef<OsStr>>(scene: &Scene, words: impl IntoIterator<Item = T>) -> Invocation<'_> {
    let mut command = scene.husk();
    command.args(words);
    command
}

/// The name of an image with busybox and these entries, in the store.
#[track_caller]
pub(crate) fn stored(scene: &Scene, entries: &[Entry]) -> &'static str {
    let archive = Image::probe(scene).layer(entries).docker_archive(scene, "image.tar");
    husk(scene, ["load", "-q", "-i"]).arg(&archive).run().success();
    "localhost/test"
}

/// Runs a script in a container `name` to its end, and leaves the container.
#[track_caller]
pub(crate) fn ran(scene: &Scene, name: &str, image: &str, script: &str) -> Outcome {
    husk(scene, ["run", "--name", name, image, "/bin/sh", "-ec", script]).run().success()
}

/// A container `name` that has run a script and waits for its input to end.
#[track_caller]
pub(crate) fn running<'a>(scene: &'a Scene, name: &str, flags: &[&str], image: &str, script: &str) -> Running<'a> {
    let script = format!("{script}\necho ready; cat > /dev/null");
    let mut command = husk(scene, ["run", "-i", "--name", name]);
    command.args(flags).args([image, "/bin/sh", "-ec", &script]);
    let mut container = command.start();
    container.line_with("ready");
    container
}

const LAYER: [fn() -> Entry; 5] = [
    || Entry::file("etc/gone", "x"),
    || Entry::file("etc/kept", "x"),
    || Entry::directory("old"),
    || Entry::file("old/a", "a"),
    || Entry::file("old/b", "b"),
];

fn layer() -> Vec<Entry> {
    LAYER.iter().map(|make| make()).collect()
}

const SCRIPT: &str = "rm /etc/gone; echo more >> /etc/kept; rm -r /old; mkdir /old; echo c > /old/c
                      mkdir -p /new/deep; echo n > /new/deep/f; ln -s f /new/deep/l; chmod 700 /root";

const CHANGES: &str = "C /etc\nD /etc/gone\nC /etc/kept\nA /new\nA /new/deep\nA /new/deep/f\nA /new/deep/l\nC /old\nD /old/a\nD /old/b\nA /old/c\nC /root\n";

fn changes_are_listed_in_dockers_letters(scene: &Scene) {
    let image = stored(scene, &layer());
    let container = running(scene, "live", &[], image, SCRIPT);
    assert_eq!(husk(scene, ["diff", "live"]).run().success().stdout, CHANGES, "running");
    container.finish().success();
    assert_eq!(husk(scene, ["diff", "live"]).run().success().stdout, CHANGES, "at rest");
    // Places that were made for mounts are nobody's change.
    husk(scene, ["run", "--name", "mounts", "-v", "/mnt/made", image, "/bin/true"]).run().success();
    assert_eq!(husk(scene, ["diff", "mounts"]).run().success().stdout, "A /mnt\n");
    let json = husk(scene, ["diff", "--format", "json", "live"]).run().success().stdout;
    let document: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(document["deleted"], json!(["/etc/gone", "/old/a", "/old/b"]));
    husk(scene, ["diff", "nothing"]).run().exits_with(125).says("nothing: no such container or image");
}

fn an_image_is_compared_with_the_one_below_and_with_others(scene: &Scene) {
    let image = stored(scene, &layer());
    let own = husk(scene, ["diff", image]).run().success().stdout;
    assert_eq!(own, "C /etc\nA /etc/gone\nA /etc/kept\nA /old\nA /old/a\nA /old/b\n");
    ran(scene, "one", image, SCRIPT);
    let other = Image::probe(scene).layer(&[Entry::file("etc/kept", "x")]);
    let other = Image { tag: "other".to_owned(), ..other }.docker_archive(scene, "other.tar");
    husk(scene, ["load", "-q", "-i"]).arg(&other).run().success();
    let told = husk(scene, ["diff", "one", "localhost/test:other"]).run().success().stdout;
    for line in ["A /new/deep/f", "C /etc/kept", "A /old/c"] {
        assert!(told.lines().any(|told| told == line), "{line} is not in {told}");
    }
    assert!(!told.contains("/bin") && !told.contains("gone"), "{told}");
    let images = husk(scene, ["diff", "localhost/test:other", image]).run().success().stdout;
    assert_eq!(images, "C /etc\nD /etc/gone\nD /old\n");
}

fn changes_of_the_hosts_files_are_listed(scene: &Scene) {
    husk(scene, ["run", "--name", "hosts", "host:", "/bin/sh", "-c", "echo x > /var/tmp/husk-mark"]).run().success();
    let told = husk(scene, ["diff", "hosts"]).run().success().stdout;
    assert!(told.contains("A /var/tmp/husk-mark\n"), "{told}");
}

/// Lists an archive as `tar -tv` does, less the times.
#[track_caller]
fn listed(scene: &Scene, archive: &Path) -> Vec<String> {
    let mut tar = scene.program("/usr/bin/tar");
    let output = tar.args(["--numeric-owner", "--full-time", "-tvf"]).arg(archive).as_root().run().success().stdout;
    let line = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        format!("{} {} {}", words[0], words[1], words[5..].join(" "))
    };
    output.lines().map(line).collect()
}

fn a_tree_is_exported_at_rest_and_running(scene: &Scene) {
    let image = stored(scene, &layer());
    let container = running(scene, "one", &[], image, SCRIPT);
    let [live, rest] = ["live.tar", "rest.tar"].map(|name| scene.path().join(name));
    husk(scene, ["export", "-o"]).arg(&live).arg("one").run().success();
    container.finish().success();
    husk(scene, ["export", "--output"]).arg(&rest).arg("one").run().success();
    for archive in [&live, &rest] {
        let lines = listed(scene, archive);
        for line in [
            "drwx------ 0/0 root/",
            "-rw-r--r-- 0/0 etc/kept",
            "-rwxr-xr-x 0/0 bin/busybox",
            "-rw-r--r-- 0/0 old/c",
            "lrwxrwxrwx 0/0 new/deep/l -> f",
            "drwxr-xr-x 0/0 proc/",
        ] {
            assert!(lines.iter().any(|found| found == line), "{line} is not in {lines:#?}");
        }
        assert!(!lines.iter().any(|line| line.contains("gone") || line.contains("old/a") || line.contains(".wh.")));
    }
    let bytes = |path: &Path| std::fs::read(path).expect("read an archive");
    assert!(bytes(&live) == bytes(&rest), "running, the container is exported as at rest");
    // To standard output, too.
    let piped = scene.path().join("piped.tar");
    let file = std::fs::File::create(&piped).expect("make a file");
    husk(scene, ["export", "one"]).start_with(Stdio::null(), file.into(), Stdio::piped()).finish().success();
    assert!(bytes(&piped) == bytes(&rest), "to standard output");
}

fn what_is_mounted_is_not_exported(scene: &Scene) {
    let image = stored(scene, &layer());
    let shared = scene.path().join("shared");
    std::fs::create_dir(&shared).expect("make a directory");
    super::support::scene::write(&shared.join("of-the-host"), "");
    scene.account().own(&shared);
    let volume = format!("{}:/old", shared.display());
    let flags = ["-v", volume.as_str()];
    let container = running(scene, "one", &flags, image, "ls /old/of-the-host");
    let archive = scene.path().join("one.tar");
    husk(scene, ["export", "-o"]).arg(&archive).arg("one").run().success();
    container.finish().success();
    let lines = listed(scene, &archive);
    assert!(lines.iter().any(|line| line.ends_with(" old/a")), "what the volume covers is part of it");
    for name in ["of-the-host", "proc/self", "dev/null"] {
        assert!(!lines.iter().any(|line| line.contains(name)), "{name} is in {lines:#?}");
    }
}

fn exporting_again_gives_the_same_bytes(scene: &Scene) {
    let image = stored(scene, &layer());
    let [first, second] = ["first", "second"].map(|name| {
        ran(scene, name, image, SCRIPT);
        let archive = scene.path().join(name);
        husk(scene, ["export", "-o"]).arg(&archive).arg(name).env("SOURCE_DATE_EPOCH", "86400").run().success();
        std::fs::read(archive).expect("read an archive")
    });
    assert!(first == second, "two containers that did the same");
}

fn what_cannot_be_exported_is_refused(scene: &Scene) {
    husk(scene, ["export", "nothing"]).run().exits_with(125).says("no such container: nothing");
    husk(scene, ["run", "--name", "hosts", "host:", "/bin/true"]).run().success();
    let target = scene.path().join("hosts.tar");
    husk(scene, ["export", "-o"]).arg(&target).arg("hosts").run().exits_with(125).says("the files of this host");
    assert!(!target.exists(), "a part of an archive is left");
}
