//! The files of containers, from outside: `diff`, `export`, `import`, `commit`; running and at rest, whoever runs them.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use super::lifecycle::soon;
use super::support::image::{Compression, Image, Layer};
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
        test!(what_was_exported_is_imported_and_runs).and_plain(),
        test!(what_cannot_be_imported_is_refused),
        test!(what_a_container_changed_is_committed).and_plain(),
        test!(what_is_committed_is_of_one_moment).root(),
        test!(saving_what_was_committed_gives_the_same_bytes),
        test!(what_cannot_be_committed_is_refused),
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

/// An image with busybox, and without the probe: it is packed often here.
fn small(scene: &Scene) -> Image {
    let directories = ["dev", "proc", "root", "sys", "tmp"].map(Entry::directory);
    let applets = ["cat", "chmod", "cp", "echo", "ln", "mkdir", "mkfifo", "mv", "rm", "stat", "touch"];
    let links = applets.map(|name| Entry::symlink(&format!("bin/{name}"), "busybox"));
    let entries: Vec<_> = directories.into_iter().chain(links).collect();
    let mut image = Image::busybox(scene).layer(&entries);
    image.config = json!({ "Cmd": ["/bin/sh"], "Env": ["PATH=/bin:/usr/bin"] });
    image
}

/// The name of an image with busybox and these entries, in the store.
#[track_caller]
pub(crate) fn stored(scene: &Scene, entries: &[Entry]) -> &'static str {
    let archive = small(scene).layer(entries).docker_archive(scene, "image.tar");
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
    husk(scene, ["diff", "nothing"]).run().exits_with(1).says("nothing: no such container or image");
}

fn an_image_is_compared_with_the_one_below_and_with_others(scene: &Scene) {
    let image = stored(scene, &layer());
    let own = husk(scene, ["diff", image]).run().success().stdout;
    assert_eq!(own, "C /etc\nA /etc/gone\nA /etc/kept\nA /old\nA /old/a\nA /old/b\n");
    ran(scene, "one", image, SCRIPT);
    let other = small(scene).layer(&[Entry::file("etc/kept", "x")]);
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
    let file = std::fs::File::create_new(&piped).expect("make a file");
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
    husk(scene, ["export", "nothing"]).run().exits_with(1).says("no such container: nothing");
    husk(scene, ["run", "--name", "hosts", "host:", "/bin/true"]).run().success();
    let target = scene.path().join("hosts.tar");
    husk(scene, ["export", "-o"]).arg(&target).arg("hosts").run().exits_with(1).says("the files of this host");
    assert!(!target.exists(), "a part of an archive is left");
}

/// What `inspect` says of an image.
#[track_caller]
fn inspected(scene: &Scene, image: &str) -> Value {
    let text = husk(scene, ["image", "inspect", image]).run().success().stdout;
    serde_json::from_str::<Value>(&text).expect("JSON")[0].take()
}

fn what_was_exported_is_imported_and_runs(scene: &Scene) {
    let image = stored(scene, &layer());
    ran(scene, "one", image, SCRIPT);
    let archive = scene.path().join("one.tar");
    husk(scene, ["export", "-o"]).arg(&archive).arg("one").run().success();
    let bytes = std::fs::read(&archive).expect("read an archive");
    let packed = scene.path().join("packed");
    super::support::scene::write(&packed, &Layer::new(&bytes, Compression::Zstd).blob);
    scene.account().own(&packed);
    let changes = ["-c", "ENV PATH=/bin MARK=of-import", "--change", r#"CMD ["/bin/cat", "/etc/kept"]"#];
    let id = husk(scene, ["import"]).args(changes).args(["-m", "a message"]).arg(&archive).arg("imported:1").run();
    let id = id.success().stdout.trim().to_owned();
    assert_eq!(husk(scene, ["run", "--rm", "imported:1"]).run().success().stdout, "xmore\n");
    let told = inspected(scene, "imported:1");
    assert_eq!((&told["Id"], &told["Comment"]), (&json!(id), &json!("a message")));
    assert_eq!(told["Config"]["Env"], json!(["PATH=/bin", "MARK=of-import"]));
    // From standard input, and packed: the layer is the same.
    husk(scene, ["import", "-", "imported:2"]).input(&bytes).run().success();
    husk(scene, ["import"]).arg(&packed).arg("imported:3").run().success();
    for name in ["imported:2", "imported:3"] {
        assert_eq!(inspected(scene, name)["RootFS"], told["RootFS"], "{name}");
    }
    assert_eq!(told["RootFS"]["Layers"], json!([super::support::image::digest(&bytes)]));
    // And what was imported is exported as it was.
    husk(scene, ["run", "--name", "two", "imported:3", "/bin/true"]).run().success();
    let again = scene.path().join("two.tar");
    husk(scene, ["export", "-o"]).arg(&again).arg("two").run().success();
    assert!(std::fs::read(again).expect("read an archive") == bytes, "it is exported otherwise");
}

fn what_cannot_be_imported_is_refused(scene: &Scene) {
    let file = scene.path().join("no.tar");
    super::support::scene::write(&file, "no archive at all");
    scene.account().own(&file);
    husk(scene, ["import"]).arg(&file).run().exits_with(125).says("import ");
    husk(scene, ["import", "-"]).run().exits_with(125).says("the archive is empty");
    husk(scene, ["import", "https://example.com/x.tar"]).run().exits_with(125).says("archives are not fetched");
    husk(scene, ["import", "-c", "RUN make"]).arg(&file).run().exits_with(125).says("RUN is not an instruction");
    assert_eq!(husk(scene, ["images", "-q"]).run().success().stdout, "");
}

fn what_a_container_changed_is_committed(scene: &Scene) {
    let image = stored(scene, &layer());
    let flags = ["-e", "MARK=of run", "-w", "/tmp"];
    let container = running(scene, "one", &flags, image, SCRIPT);
    let commit = |name: &str| {
        let mut command =
            husk(scene, ["commit", "-a", "me", "-m", "why", "-c", "LABEL key=value other=1", "-c", "USER 0:0"]);
        command.args(["one", name]).env("SOURCE_DATE_EPOCH", "1000000000").run().success().stdout
    };
    let live = commit("made:live");
    container.finish().success();
    let rest = commit("made:rest");
    assert_eq!(live, rest, "the same changes give the same image");
    let told = inspected(scene, "made:rest");
    assert_eq!(told["Id"], rest.trim());
    assert_eq!((&told["Author"], &told["Comment"]), (&json!("me"), &json!("why")));
    assert_eq!(told["Created"], "2001-09-09T01:46:40Z");
    let config = &told["Config"];
    assert_eq!(config["Labels"], json!({ "key": "value", "other": "1" }));
    assert_eq!((&config["WorkingDir"], &config["User"]), (&json!("/tmp"), &json!("0:0")));
    assert_eq!(config["Env"], json!(["PATH=/bin:/usr/bin", "MARK=of run"]));
    assert_eq!(told["RootFS"]["Layers"].as_array().map(Vec::len), Some(4));
    let script = "cat /etc/kept /new/deep/l; echo $MARK; pwd; ls /old /etc/gone 2>&1; stat -c %a /root";
    let seen = husk(scene, ["run", "--rm", "--pull=never", "made:rest", "/bin/sh", "-c", script]).run();
    assert_eq!(seen.stdout, "xmore\nn\nof run\n/tmp\nls: /etc/gone: No such file or directory\n/old:\nc\n700\n");
    assert_eq!(husk(scene, ["diff", "made:rest"]).run().success().stdout, CHANGES);
    let history = husk(scene, ["history", "--format", "{{.Comment}}", "made:rest"]).run().success().stdout;
    assert_eq!(history.lines().next(), Some("why"));
    // A container without changes gives its image another configuration, and no layer.
    husk(scene, ["run", "--name", "two", image, "/bin/true"]).run().success();
    husk(scene, ["commit", "two", "made:same"]).run().success();
    assert_eq!(inspected(scene, "made:same")["RootFS"], inspected(scene, image)["RootFS"]);
    // In one layer, in docker's words.
    husk(scene, ["commit", "--squash", "-f", "docker", "one", "made:one"]).run().success();
    let squashed = inspected(scene, "made:one");
    assert_eq!(squashed["RootFS"]["Layers"].as_array().map(Vec::len), Some(1));
    assert_eq!(squashed["Descriptor"]["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");
    let seen = husk(scene, ["run", "--rm", "made:one", "/bin/sh", "-c", "cat /etc/kept; ls /old"]).run().success();
    assert_eq!(seen.stdout, "xmore\nc\n");
}

/// Two numbers are written one after the other, and between the files that have them in a tar lies one that takes long: only of
/// a container that stands still are they of one moment. Afterwards it goes on.
fn what_is_committed_is_of_one_moment(scene: &Scene) {
    let image = stored(scene, &[]);
    let script = "cd /; busybox dd if=/dev/urandom of=m bs=1M count=16 2> /dev/null; i=0
        while :; do i=$((i+1)); echo $i 1<>a; echo $i 1<>z; [ $i != 99 ] || echo counts; done";
    let mut running = husk(scene, ["run", "--name", "counts", image, "/bin/busybox", "sh", "-c", script]).start();
    running.line_with("counts");
    husk(scene, ["commit", "counts", "moment"]).run().success();
    let shown = husk(scene, ["run", "--rm", "moment", "/bin/busybox", "cat", "/a", "/z"]).run().success().stdout;
    let numbers: Vec<i64> = shown.lines().map(|line| line.parse().unwrap()).collect();
    let [one, other] = numbers[..] else { panic!("{shown}") };
    assert!(one - other <= 1 && one >= other, "{one} {other}");
    let state = husk(scene, ["inspect", "-f", "{{.State.Status}}", "counts"]).run().success().stdout;
    assert_eq!(state, "running\n");
    // Nor is it left frozen by a commit that is killed.
    let status = || husk(scene, ["inspect", "-f", "{{.State.Status}}", "counts"]).run().stdout;
    let mut commit = husk(scene, ["commit", "counts", "cut"]);
    let commit = commit.start();
    soon("it is frozen", || status() == "paused\n");
    commit.signal(rustix::process::Signal::KILL);
    commit.finish();
    soon("it goes on", || status() == "running\n");
    husk(scene, ["rm", "-f", "counts"]).run().success();
}

fn saving_what_was_committed_gives_the_same_bytes(scene: &Scene) {
    let image = stored(scene, &layer());
    let [first, second] = ["first", "second"].map(|name| {
        ran(scene, name, image, SCRIPT);
        let mut commit = husk(scene, ["commit", "--compression-format", "zstd", name, "made:saved"]);
        commit.env("SOURCE_DATE_EPOCH", "86400").run().success();
        let archive = scene.path().join(name);
        husk(scene, ["save", "--format", "oci-archive", "-o"]).arg(&archive).arg("made:saved").run().success();
        std::fs::read(archive).expect("read an archive")
    });
    assert!(first == second, "two containers that did the same");
}

fn what_cannot_be_committed_is_refused(scene: &Scene) {
    let image = stored(scene, &layer());
    ran(scene, "one", image, "true");
    husk(scene, ["commit", "--include-volumes", "one"]).run().exits_with(1).says("--include-volumes");
    husk(scene, ["commit", "-c", "ADD . /", "one"]).run().exits_with(1).says("ADD is not an instruction");
    husk(scene, ["commit", "one", "NAME"]).run().exits_with(1);
    husk(scene, ["run", "--name", "hosts", "host:", "/bin/true"]).run().success();
    husk(scene, ["commit", "hosts"]).run().exits_with(1).says("the files of this host");
    husk(scene, ["rmi", "-f", image]).run().success();
    husk(scene, ["commit", "one"]).run().exits_with(1).says("is not in the store");
}
