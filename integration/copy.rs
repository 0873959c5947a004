//! `cp`: every row of docker's table in both directions, running and at rest; streams; and containers that mean harm.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::containers_files::{husk, ran, running, stored};
use super::support::scene::write;
use super::support::tar::Entry;
use super::support::{Need, Outcome, Scene, Test, Who, test};

pub(crate) fn tests() -> Vec<Test> {
    let engine = |test: Test| test.needs(Need::Husk).needs(Need::Busybox);
    [
        test!(dockers_table_into_a_container_at_rest).and_plain(),
        test!(dockers_table_into_a_running_container).and_plain(),
        test!(dockers_table_out_of_a_container).and_plain(),
        test!(owners_and_modes_are_the_destinations).and_plain(),
        test!(a_tar_comes_and_goes).and_plain().needs(Need::Program("tar")),
        test!(symlinks_are_copied_or_followed_inside),
        test!(volumes_of_a_running_container_are_reached),
        test!(symlinks_of_a_container_lead_nowhere_else).and_plain(),
        test!(a_directory_that_becomes_a_symlink_leads_nowhere).and_plain(),
        test!(what_is_no_file_is_not_copied),
        test!(what_cannot_be_copied_is_refused),
    ]
    .into_iter()
    .map(engine)
    .collect()
}

fn image(scene: &Scene) -> &'static str {
    let entries = [
        Entry::file("file", "of the container\n"),
        Entry::directory("dir"),
        Entry::file("dir/inner", "inner\n"),
        Entry::directory("dir/sub"),
        Entry::file("dir/sub/deep", "deep\n"),
    ];
    stored(scene, &entries)
}

#[track_caller]
fn cp(scene: &Scene, source: impl AsRef<std::ffi::OsStr>, destination: impl AsRef<std::ffi::OsStr>) -> Outcome {
    husk(scene, ["cp"]).arg(source).arg(destination).run()
}

/// A file `f` and a directory `d` with two files, of this machine's.
fn host_files(scene: &Scene) -> PathBuf {
    let top = scene.tree("host", &[("f", "of the host\n"), ("d/one", "1\n"), ("d/sub/two", "2\n")]);
    scene.account().own(&top);
    top
}

/// Reads a file of a container by copying it out.
#[track_caller]
fn read(scene: &Scene, path: &str) -> String {
    let out = scene.path().join("read");
    cp(scene, format!("one:{path}"), &out).success();
    let text = std::fs::read_to_string(&out).expect("read what was copied");
    std::fs::remove_file(&out).expect("remove what was copied");
    text
}

fn dockers_table_into_a_container_at_rest(scene: &Scene) {
    ran(scene, "one", image(scene), "mkdir /empty");
    into_a_container(scene);
}

fn dockers_table_into_a_running_container(scene: &Scene) {
    let container = running(scene, "one", &[], image(scene), "mkdir /empty");
    into_a_container(scene);
    container.finish().success();
    // What was written is the container's.
    assert_eq!(read(scene, "/new"), "of the host\n");
}

fn into_a_container(scene: &Scene) {
    let host = host_files(scene);
    let (file, tree) = (host.join("f"), host.join("d"));
    let contents = host.join("d/.");
    cp(scene, &file, "one:/new").success();
    assert_eq!(read(scene, "/new"), "of the host\n", "a file, to what is not there");
    cp(scene, &file, "one:/missing/").exits_with(1).says("the destination directory must exist");
    cp(scene, &file, "one:/missing/x").exits_with(1).says("no such directory: /missing");
    cp(scene, &file, "one:/file").success();
    assert_eq!(read(scene, "/file"), "of the host\n", "a file, to a file");
    cp(scene, &file, "one:/file/").exits_with(1);
    cp(scene, &file, "one:dir").success();
    assert_eq!(read(scene, "/dir/f"), "of the host\n", "a file, to a directory");
    cp(scene, &tree, "one:/tree").success();
    assert_eq!(read(scene, "/tree/sub/two"), "2\n", "a directory, to what is not there");
    cp(scene, &tree, "one:/file").exits_with(1).says("cannot copy a directory to a file");
    cp(scene, &tree, "one:/dir").success();
    assert_eq!(read(scene, "/dir/d/one"), "1\n", "a directory, to a directory");
    cp(scene, &contents, "one:/empty").success();
    assert_eq!(read(scene, "/empty/one"), "1\n", "the contents of a directory, to a directory");
    cp(scene, &contents, "one:/made").success();
    assert_eq!(read(scene, "/made/sub/two"), "2\n", "the contents of a directory, to what is not there");
    // One kind of file does not take the place of another, unless it is told to.
    write(&host.join("sub"), "a file");
    cp(scene, host.join("sub"), "one:/tree").exits_with(1).says("cannot overwrite a directory");
    husk(scene, ["cp", "--overwrite"]).arg(host.join("sub")).arg("one:/tree").run().success();
    assert_eq!(read(scene, "/tree/sub"), "a file");
}

fn dockers_table_out_of_a_container(scene: &Scene) {
    let container = running(scene, "one", &[], image(scene), "true");
    out_of_a_container(scene, "running");
    container.finish().success();
    out_of_a_container(scene, "rest");
}

fn out_of_a_container(scene: &Scene, name: &str) {
    let place = scene.tree(name, &[("file", "old"), ("existing/x", "")]);
    scene.account().own(&place);
    let text = |path: &str| std::fs::read_to_string(place.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    cp(scene, "one:/file", place.join("new")).success();
    assert_eq!(text("new"), "of the container\n");
    cp(scene, "one:/file", place.join("missing/")).exits_with(1).says("the destination directory must exist");
    cp(scene, "one:/file", place.join("file")).success();
    assert_eq!(text("file"), "of the container\n");
    cp(scene, "one:/file", place.join("existing")).success();
    assert_eq!(text("existing/file"), "of the container\n");
    cp(scene, "one:/dir", place.join("tree")).success();
    assert_eq!(text("tree/sub/deep"), "deep\n");
    cp(scene, "one:/dir", place.join("file")).exits_with(1).says("cannot copy a directory to a file");
    cp(scene, "one:/dir/", place.join("existing")).success();
    assert_eq!(text("existing/dir/inner"), "inner\n");
    cp(scene, "one:/dir/.", place.join("existing")).success();
    assert_eq!(text("existing/sub/deep"), "deep\n");
    cp(scene, "one:/none", place.join("x")).exits_with(1).says("find /none");
    cp(scene, "one:/file/", place.join("x")).exits_with(1);
    // By a name from where the command is.
    let mut relative = husk(scene, ["cp", "one:/file", "."]);
    relative.current_directory(place.join("tree")).run().success();
    assert_eq!(text("tree/file"), "of the container\n");
}

fn owners_and_modes_are_the_destinations(scene: &Scene) {
    let host = host_files(scene);
    let file = host.join("f");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).expect("chmod");
    let container = running(scene, "one", &[], image(scene), "chmod 4751 /file; chmod 1777 /dir");
    cp(scene, &file, "one:/new").success();
    let told = husk(scene, ["exec", "one", "/bin/stat", "-c", "%u:%g %a", "/new"]).run().success().stdout;
    assert_eq!(told, "0:0 640\n");
    let out = scene.path().join("out");
    cp(scene, "one:/file", &out).success();
    let facts = out.metadata().expect("stat what was copied");
    assert_eq!((facts.uid(), facts.mode() & 0o7777), (scene.account().uid, 0o751), "the bit is not the caller's");
    assert_eq!(facts.mtime(), 1_700_000_000, "the time is the file's");
    husk(scene, ["cp", "-a", "one:/file"]).arg(&out).run().success();
    assert_eq!(out.metadata().expect("stat what was copied").mode() & 0o7777, 0o4751);
    cp(scene, "one:/dir", scene.path().join("tree")).success();
    assert_eq!(scene.path().join("tree").metadata().expect("stat what was copied").mode() & 0o7777, 0o1777);
    if scene.who == Who::Root {
        std::os::unix::fs::chown(&file, Some(1000), Some(1001)).expect("chown");
        husk(scene, ["cp", "--archive"]).arg(&file).arg("one:/kept").run().success();
        let told = husk(scene, ["exec", "one", "/bin/stat", "-c", "%u:%g", "/kept"]).run().success().stdout;
        assert_eq!(told, "1000:1001\n");
    }
    container.finish().success();
}

fn a_tar_comes_and_goes(scene: &Scene) {
    ran(scene, "one", image(scene), "mkdir /to; ln -s inner /dir/link");
    let out = scene.path().join("dir.tar");
    let file = std::fs::File::create_new(&out).expect("make a file");
    let mut command = husk(scene, ["cp", "one:/dir", "-"]);
    command.start_with(std::process::Stdio::null(), file.into(), std::process::Stdio::piped()).finish().success();
    let listed = scene.program("/usr/bin/tar").arg("-tf").arg(&out).as_root().run().success().stdout;
    assert_eq!(listed, "dir/\ndir/inner\ndir/link\ndir/sub/\ndir/sub/deep\n");
    let bytes = std::fs::read(&out).expect("read a tar");
    husk(scene, ["cp", "-", "one:/to"]).input(&bytes).run().success();
    assert_eq!(read(scene, "/to/dir/sub/deep"), "deep\n");
    husk(scene, ["cp", "-", "one:/file"]).input(&bytes).run().exits_with(1);
    husk(scene, ["cp", "-", "one:/none"]).input(&bytes).run().exits_with(1);
    let climbing = super::support::tar::archive(&[Entry::file("../../climbed", "x")]);
    husk(scene, ["cp", "-", "one:/to"]).input(&climbing).run().exits_with(1).says("climbs");
}

fn symlinks_are_copied_or_followed_inside(scene: &Scene) {
    let host = host_files(scene);
    symlink("f", host.join("link")).expect("make a link");
    ran(scene, "one", image(scene), "ln -s dir /to; ln -s /made /dangling; ln -s file /alias");
    cp(scene, host.join("link"), "one:/link").success();
    let out = scene.path().join("out");
    cp(scene, "one:/link", &out).success();
    assert_eq!(std::fs::read_link(&out).expect("a link").to_str(), Some("f"));
    husk(scene, ["cp", "-L"]).arg(host.join("link")).arg("one:/followed").run().success();
    assert_eq!(read(scene, "/followed"), "of the host\n");
    husk(scene, ["cp", "-L", "one:/alias"]).arg(scene.path().join("alias")).run().success();
    assert_eq!(std::fs::read_to_string(scene.path().join("alias")).expect("read"), "of the container\n");
    // Those of the destination are followed: to a directory, to a file, and to what is not there yet.
    cp(scene, host.join("f"), "one:/to").success();
    assert_eq!(read(scene, "/dir/f"), "of the host\n");
    cp(scene, host.join("f"), "one:/dangling").success();
    assert_eq!(read(scene, "/made"), "of the host\n");
    cp(scene, host.join("f"), "one:/alias").success();
    assert_eq!(read(scene, "/file"), "of the host\n");
}

fn volumes_of_a_running_container_are_reached(scene: &Scene) {
    let host = host_files(scene);
    let volume = scene.tree("volume", &[("of-the-volume", "x")]);
    scene.account().own(&volume);
    let flag = format!("{}:/volume", volume.display());
    let container = running(scene, "one", &["-v", &flag], image(scene), "true");
    assert_eq!(read(scene, "/volume/of-the-volume"), "x");
    cp(scene, host.join("f"), "one:/volume").success();
    assert_eq!(std::fs::read_to_string(volume.join("f")).expect("read"), "of the host\n");
    let out = scene.path().join("out");
    cp(scene, "one:/proc/version", &out).exits_with(1).says("it is the kernel's");
    cp(scene, "one:/proc", &out).exits_with(1).says("it is the kernel's");
    assert!(!out.exists());
    container.finish().success();
}

fn symlinks_of_a_container_lead_nowhere_else(scene: &Scene) {
    let host = host_files(scene);
    let sentinel = scene.sentinel();
    let there = sentinel.display();
    let script = format!(
        "ln -s {there} /escape; ln -s ../../../../../..{there} /climb; ln -s /proc/1/root /magic; mkdir /tree
         ln -s {there} /tree/escape; ln -s {there}/x /leaf"
    );
    let container = running(scene, "one", &[], image(scene), &script);
    for _ in 0..2 {
        for destination in ["/escape", "/escape/x", "/climb/x", "/magic/x", "/leaf"] {
            // Inside the container these lead to what is not there.
            cp(scene, host.join("f"), format!("one:{destination}")).exits_with(1);
        }
        for source in ["/escape/.", "/climb/.", "/magic/etc", "/leaf"] {
            husk(scene, ["cp", "-L", &format!("one:{source}")]).arg(scene.path().join("no")).run().exits_with(1);
        }
        if !scene.path().join("out").exists() {
            cp(scene, "one:/tree", scene.path().join("out")).success();
            let link = std::fs::read_link(scene.path().join("out/escape")).expect("the link is copied as a link");
            assert_eq!(link, sentinel);
            // And it is not gone through when the same comes again.
            cp(scene, "one:/tree/.", scene.path().join("out")).success();
            break;
        }
    }
    container.finish().success();
    cp(scene, host.join("f"), "one:/escape/x").exits_with(1);
}

fn a_directory_that_becomes_a_symlink_leads_nowhere(scene: &Scene) {
    let host = host_files(scene);
    let sentinel = scene.sentinel();
    let script = format!(
        "mkdir -p /flip/dir /flip/dir/d; ln -s {} /flip/link; echo ready
         while [ ! -e /stop ]; do
           mv /flip/dir /flip/away; mv /flip/link /flip/dir; mv /flip/dir /flip/link; mv /flip/away /flip/dir
         done",
        sentinel.display()
    );
    let mut command = husk(scene, ["run", "--name", "one", image(scene), "/bin/sh", "-c", &script]);
    let mut container = command.start();
    container.line_with("ready");
    let out = scene.path().join("out");
    for round in 0..25 {
        // Each may fail: what counts is that nothing of the host's is touched, which the sentinel tells.
        cp(scene, host.join("d"), "one:/flip/dir");
        cp(scene, host.join("f"), format!("one:/flip/dir/f{round}"));
        cp(scene, "one:/flip", &out);
        cp(scene, "one:/flip/dir/.", &out);
    }
    cp(scene, host.join("f"), "one:/stop").success();
    container.finish();
    let mark = |path: &Path| std::fs::symlink_metadata(path).is_ok_and(|facts| facts.is_dir());
    assert!(mark(&out), "nothing was ever copied");
    for entry in walkdir::WalkDir::new(&out) {
        let entry = entry.expect("walk what was copied");
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_ours = entry.file_type().is_dir()
            || entry.path_is_symlink()
            || name.starts_with('f')
            || name == "one"
            || name == "two";
        assert!(is_ours, "{} came from elsewhere", entry.path().display());
    }
}

fn what_is_no_file_is_not_copied(scene: &Scene) {
    let container = running(scene, "one", &[], image(scene), "mkfifo /dir/pipe");
    let out = scene.path().join("out");
    let told = cp(scene, "one:/dev", &out).success().stderr;
    assert!(told.contains("null: a device is not copied"), "{told}");
    let kept: Vec<_> = walkdir::WalkDir::new(&out)
        .into_iter()
        .filter_map(Result::ok)
        .filter(|entry| !entry.file_type().is_dir() && !entry.path_is_symlink())
        .collect();
    assert!(kept.is_empty(), "{kept:?}");
    // A FIFO is made again, and not opened: nobody is there to write to it.
    let pipe = scene.path().join("pipe");
    cp(scene, "one:/dir/pipe", &pipe).success();
    // What is no file stays what it is, too: a copy to /dev/null is not to make a file of that.
    cp(scene, "one:/file", &pipe).exits_with(1).says("neither a directory nor a regular file");
    assert!(std::os::unix::fs::FileTypeExt::is_fifo(&std::fs::metadata(&pipe).unwrap().file_type()));
    container.finish().success();
}

fn what_cannot_be_copied_is_refused(scene: &Scene) {
    let host = host_files(scene);
    let image = image(scene);
    ran(scene, "one", image, "true");
    cp(scene, "one:/file", "two:/x").exits_with(1).says("copying between containers is not supported");
    cp(scene, host.join("f"), host.join("g")).exits_with(1).says("must specify at least one container");
    cp(scene, host.join("f"), "two:/x").exits_with(1).says("no such container: two");
    husk(scene, ["run", "--name", "fixed", "--read-only", image, "/bin/true"]).run().success();
    cp(scene, host.join("f"), "fixed:/x").exits_with(1).says("container rootfs is marked read-only");
    cp(scene, "fixed:/file", scene.path().join("g")).success();
}
